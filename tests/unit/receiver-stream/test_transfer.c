/* Whole transfers: a real agent reads files, its records come over TCP or its standard output. */
#include "tests/unit/cmocka_all.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/file_source.h"
#include "protocol/block/hole_map.h"
#include "receiver/stream/agent_session.h"
#include "receiver/stream/transfer.h"
#include "tests/unit/receiver-stream/process_transport.h"
#include "tests/unit/stream/memory_disk.h"

enum { MIB = 1 << 20, DISKS = 2 };

struct scene {
    char dir[64];
    char path[DISKS][96];
    uint8_t *disk[DISKS], *copy[DISKS];
    uint64_t capacity[DISKS];
    char command[2048];
    struct memory_sink sink[DISKS];
    struct transport *transport;
    struct agent_session_config config;
    unsigned notices, renewals, kills;
};

static void scene_new(struct scene *s)
{
    struct err e;

    memset(s, 0, sizeof *s);
    strcpy(s->dir, "/tmp/vmferry-test-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    srand(4);
    for (int i = 0; i < DISKS; i++) {
        int fd;

        s->capacity[i] = (uint64_t)(20 + 9 * i) * MIB + (uint64_t)i * 512;
        s->disk[i] = calloc(1, s->capacity[i]);
        s->copy[i] = calloc(1, s->capacity[i]);
        for (uint64_t at = 0; at < s->capacity[i]; at++)
            if (at / 700000 % 3 != 1)
                s->disk[i][at] = (uint8_t)(rand() >> 5);
        snprintf(s->path[i], sizeof s->path[i], "%s/disk%d", s->dir, i);
        fd = open(s->path[i], O_WRONLY | O_CREAT | O_EXCL, 0600);
        assert_int_equal(io_write_all(fd, s->disk[i], s->capacity[i], &e), 0);
        close(fd);
        memory_sink_init(&s->sink[i], s->copy[i], s->capacity[i], 64 << 10);
    }
    /* Another agent, or one under a system-call filter: a shell command. */
    snprintf(s->command, sizeof s->command, "echo noise from a profile; exec %s --serve",
             getenv("VMFERRY_TEST_AGENT") != NULL ? getenv("VMFERRY_TEST_AGENT") : "'" AGENT "'");
    assert_int_equal(process_transport_new(&s->transport, &e), 0);
    s->config = (struct agent_session_config){
        .transport = s->transport,
        .command = s->command,
        .mode_set = RECORD_MODE_SET_ALL,
        .workers_max = 2,
        .memory_bytes = 48 << 20,
        .listen_address = "127.0.0.1",
    };
}

static void scene_free(struct scene *s)
{
    for (int i = 0; i < DISKS; i++) {
        unlink(s->path[i]);
        memory_sink_free(&s->sink[i]);
        free(s->disk[i]);
        free(s->copy[i]);
    }
    rmdir(s->dir);
    s->transport->ops->close(s->transport);
}

static void count_notice(void *context, const struct transfer_disk *disk, enum transfer_notice kind,
                         const char *text)
{
    struct scene *s = context;

    (void)disk;
    (void)kind;
    (void)text;
    __atomic_add_fetch(&s->notices, 1, __ATOMIC_RELAXED);
}

static int renew(void *context, struct agent_session **a, const struct err *why, struct err *e)
{
    struct scene *s = context;

    (void)why;
    agent_session_end(*a);
    *a = NULL;
    s->renewals++;
    return agent_session_start(a, &s->config, e);
}

/* Run both disks and compare what arrived. */
static void run_and_compare(struct scene *s, struct transfer_options *options, bool *over_tcp)
{
    struct transfer_disk disks[DISKS] = { { 0 } };
    struct agent_session *a = NULL;
    struct err e = { 0 };

    options->context = s;
    options->notice = count_notice;
    if (agent_session_start(&a, &s->config, &e) != 0)
        fail_msg("%s", e.text);
    for (int i = 0; i < DISKS; i++) {
        s->sink[i].position = 0;
        disks[i] = (struct transfer_disk){ .name = "scsi0:0",
                                           .path = s->path[i],
                                           .capacity_bytes = s->capacity[i],
                                           .sink = &s->sink[i].sink };
    }
    if (transfer_run(&a, disks, DISKS, options, &e) != 0)
        fail_msg("%s", e.text);
    for (int i = 0; i < DISKS; i++) {
        assert_true(disks[i].done);
        assert_memory_equal(s->disk[i], s->copy[i], s->capacity[i]);
        assert_true(digest_equal(&disks[i].root, &s->sink[i].root));
        *over_tcp = disks[i].over_tcp;
    }
    assert_true(agent_session_end(a));
}

static void disks_come_over_tcp_and_over_ssh(void **state)
{
    struct transfer_options tcp = { .compress = 1 }, ssh = { .channel = CHANNEL_SSH };
    bool over_tcp;
    struct scene s;

    (void)state;
    scene_new(&s);
    run_and_compare(&s, &tcp, &over_tcp);
    assert_true(over_tcp);
    memory_sink_learn(&s.sink[0]);
    run_and_compare(&s, &ssh, &over_tcp);
    assert_false(over_tcp);
    scene_free(&s);
}

static void a_closed_data_port_means_ssh(void **state)
{
    struct transfer_options options = { .compress = 1 };
    bool over_tcp;
    struct scene s;

    (void)state;
    scene_new(&s);
    s.config.dial_port = 9; /* nobody there */
    run_and_compare(&s, &options, &over_tcp);
    assert_false(over_tcp);
    assert_int_equal(s.notices, 1);
    scene_free(&s);
}

static void forced_tcp_that_is_closed_fails(void **state)
{
    struct transfer_options options = { .channel = CHANNEL_TCP };
    struct transfer_disk disk;
    struct agent_session *a = NULL;
    struct err e = { 0 };
    struct scene s;

    (void)state;
    scene_new(&s);
    s.config.dial_port = 9;
    assert_int_equal(agent_session_start(&a, &s.config, &e), 0);
    disk = (struct transfer_disk){ .name = "scsi0:0",
                                   .path = s.path[0],
                                   .capacity_bytes = s.capacity[0],
                                   .sink = &s.sink[0].sink };
    assert_int_equal(transfer_run(&a, &disk, 1, &options, &e), -1);
    assert_int_equal(e.code, ERR_NETWORK);
    assert_true(agent_session_end(a));
    scene_free(&s);
}

static int kill_agent(void *context, struct err *e)
{
    struct scene *s = context;

    (void)e;
    if (s->kills < 3 && s->sink[0].position > s->kills * 4u * MIB + MIB) {
        s->kills++;
        kill(process_transport_last(s->transport), SIGKILL);
    }
    return 0;
}

static void a_killed_agent_is_replaced(void **state)
{
    struct transfer_options options = { .renew = renew,
                                        .watch = kill_agent,
                                        .rate_bytes = 40 * MIB };
    bool over_tcp;
    struct scene s;

    (void)state;
    scene_new(&s);
    run_and_compare(&s, &options, &over_tcp);
    assert_true(s.kills > 0);
    assert_true(s.renewals > 0 && s.renewals <= s.kills);
    scene_free(&s);
}

static int open_local(void *context, const struct agent_disk *disk, struct source **out,
                      enum hole_knowledge *holes, struct err *e)
{
    bool seeks;

    (void)context;
    assert_int_equal(disk->format, DISK_FLAT);
    *holes = HOLES_NONE;
    return file_source_open(out, disk->path, disk->capacity_bytes, &seeks, e);
}

static void a_source_end_of_our_own_does_the_same(void **state)
{
    struct transfer_options options = { .channel = CHANNEL_SSH };
    bool over_tcp;
    struct scene s;

    (void)state;
    scene_new(&s);
    s.config.command = NULL;
    s.config.disk_open = open_local;
    s.config.listen_address = NULL;
    run_and_compare(&s, &options, &over_tcp);
    scene_free(&s);
}

static void an_agent_that_cannot_start_says_why(void **state)
{
    struct agent_session *a = NULL;
    struct err e = { 0 };
    struct scene s;

    (void)state;
    scene_new(&s);
    s.config.command = "echo 'sh: agent: Operation not permitted' >&2; exit 126";
    assert_int_equal(agent_session_start(&a, &s.config, &e), -1);
    assert_non_null(strstr(e.text, "Operation not permitted"));
    scene_free(&s);
}

static void a_missing_disk_is_named(void **state)
{
    struct transfer_options options = { 0 };
    struct transfer_disk disk;
    struct agent_session *a = NULL;
    struct err e = { 0 };
    struct scene s;

    (void)state;
    scene_new(&s);
    assert_int_equal(agent_session_start(&a, &s.config, &e), 0);
    disk = (struct transfer_disk){ .name = "scsi0:7",
                                   .path = "/nowhere/flat.vmdk",
                                   .capacity_bytes = MIB,
                                   .sink = &s.sink[0].sink };
    assert_int_equal(transfer_run(&a, &disk, 1, &options, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "scsi0:7"));
    assert_non_null(strstr(e.text, "/nowhere/flat.vmdk"));
    assert_true(agent_session_end(a));
    scene_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disks_come_over_tcp_and_over_ssh),
        cmocka_unit_test(a_closed_data_port_means_ssh),
        cmocka_unit_test(forced_tcp_that_is_closed_fails),
        cmocka_unit_test(a_killed_agent_is_replaced),
        cmocka_unit_test(a_source_end_of_our_own_does_the_same),
        cmocka_unit_test(an_agent_that_cannot_start_says_why),
        cmocka_unit_test(a_missing_disk_is_named),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
