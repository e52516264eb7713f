/* Placing the agent, and reading by dd. */
#include "tests/unit/cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "receiver/base/log.h"
#include "receiver/host/datastores.h"
#include "receiver/host/dd_source.h"
#include "receiver/host/inventory.h"
#include "receiver/host/journal.h"
#include "receiver/host/map.h"
#include "receiver/host/place.h"
#include "receiver/host/reaper.h"
#include "tests/unit/host/fixture.h"

#define DS "/vmfs/volumes/5c8f0001-00000001-0001-000000000001/"
#define MIB ((size_t)1 << 20)

static char agent[100];
static struct place_wish wish;

static int set_up(void **state)
{
    struct fixture *x;
    FILE *file;

    if (fixture_set_up(state) != 0)
        return -1;
    x = *state;
    snprintf(agent, sizeof agent, "%s/agent", x->path);
    file = fopen(agent, "w");
    if (file == NULL || fputs("the agent's bytes", file) < 0 || fclose(file) != 0)
        return -1;
    wish = (struct place_wish){ .agent_file = agent, .stores = &x->stores };
    return 0;
}

static void placed_started_and_removed(void **state)
{
    struct fixture *x = *state;
    struct placed p;
    struct err e;

    if (place_agent(&x->f.host, x->j, &wish, &p, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(p.outcome, PLACE_READY);
    assert_string_equal(p.version, "vmferry-agent 0.1.0");
    assert_true(strncmp(p.folder, DS ".vmferry-", sizeof DS - 1 + 9) == 0);
    assert_non_null(fake_host_file(&x->f, p.path));
    assert_int_equal(fixture_entries(x, NULL), 1);
    assert_int_equal(place_remove(&x->f.host, &p, &e), 0);
    assert_int_equal(x->f.file_count, 0);
    assert_int_equal(fixture_entries(x, NULL), 0);
    assert_int_equal(place_remove(&x->f.host, &p, &e), 0); /* nothing to do twice */
    placed_free(&p);
}

static void a_refusal_is_an_outcome_with_its_reason(void **state)
{
    struct fixture *x = *state;
    struct placed p;
    struct err e;

    x->f.exec_refused = true;
    assert_int_equal(place_agent(&x->f.host, x->j, &wish, &p, &e), 0);
    assert_int_equal(p.outcome, PLACE_REFUSED);
    assert_non_null(strstr(p.reason, "/User/execInstalledOnly"));
    assert_non_null(strstr(p.reason, "--allow-exec"));
    assert_int_equal(x->f.file_count, 0);
    assert_int_equal(fixture_entries(x, NULL), 0);
    placed_free(&p);
}

static void reasons_are_told_apart(void **state)
{
    char reason[480];

    (void)state;
    assert_int_equal(
        place_judge_start(126, "sh: /x: Operation not permitted\n", reason, sizeof reason),
        PLACE_REFUSED);
    assert_int_equal(place_judge_start(126, "sh: /x: Permission denied\n", reason, sizeof reason),
                     PLACE_UNRUNNABLE);
    assert_non_null(strstr(reason, "--agent-dir"));
    assert_int_equal(place_judge_start(126, "sh: /x: Exec format error\n", reason, sizeof reason),
                     PLACE_UNRUNNABLE);
    assert_non_null(strstr(reason, "--agent-file"));
    assert_int_equal(place_judge_start(127, "sh: /x: not found\n", reason, sizeof reason),
                     PLACE_UNRUNNABLE);
    assert_int_equal(place_judge_start(137, "", reason, sizeof reason), PLACE_UNRUNNABLE);
    assert_non_null(strstr(reason, "137"));
}

static void a_damaged_upload_is_found_by_its_hash(void **state)
{
    struct fixture *x = *state;
    struct placed p;
    struct err e;

    x->f.corrupt_upload = true;
    assert_int_equal(place_agent(&x->f.host, x->j, &wish, &p, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_int_equal(x->f.file_count, 0);
    assert_int_equal(fixture_entries(x, NULL), 0);
}

static void tmp_is_the_last_resort(void **state)
{
    struct fixture *x = *state;
    struct placed p;
    struct err e;

    x->f.mkdir_fails_on_ds = true;
    assert_int_equal(place_agent(&x->f.host, x->j, &wish, &p, &e), 0);
    assert_true(strncmp(p.folder, "/tmp/.vmferry-", 14) == 0);
    assert_int_equal(place_remove(&x->f.host, &p, &e), 0);
    placed_free(&p);
    wish.agent_dir = "[ds1] tools";
    assert_int_equal(place_agent(&x->f.host, x->j, &wish, &p, &e), -1);
    assert_int_equal(e.code, ERR_SPACE);
    wish.agent_dir = "[none] x";
    assert_int_equal(place_agent(&x->f.host, x->j, &wish, &p, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    wish.agent_dir = NULL;
    wish.agent_file = "/nonexistent";
    assert_int_equal(place_agent(&x->f.host, x->j, &wish, &p, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    assert_int_equal(fixture_entries(x, NULL), 0);
}

static bool refuse_on_datastores(struct fake_host *f, char **words, size_t count,
                                 struct fake_reply *r)
{
    (void)f;
    if (count != 2 || strncmp(words[0], DS, sizeof DS - 1) != 0 ||
        strcmp(words[1], "--version") != 0)
        return false;
    snprintf(r->errors, sizeof r->errors, "sh: it: Permission denied\n");
    r->status = 126;
    return true;
}

static void a_datastore_that_forbids_execution_is_passed_over(void **state)
{
    struct fixture *x = *state;
    struct placed p;
    struct err e;

    x->f.extra = refuse_on_datastores;
    if (place_agent(&x->f.host, x->j, &wish, &p, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(p.outcome, PLACE_READY);
    assert_true(strncmp(p.folder, "/tmp/.vmferry-", 14) == 0);
    assert_int_equal(x->f.file_count, 2); /* nothing on the datastore */
    assert_int_equal(place_remove(&x->f.host, &p, &e), 0);
    placed_free(&p);
    wish.agent_dir = "[ds1]";
    assert_int_equal(place_agent(&x->f.host, x->j, &wish, &p, &e), 0);
    assert_int_equal(p.outcome, PLACE_UNRUNNABLE);
    assert_non_null(strstr(p.reason, "Permission denied"));
    placed_free(&p);
    assert_int_equal(x->f.file_count, 0);
}

/* The table is cut short in every try; the summary of vim-cmd is whole. */
static bool cut_table(struct fake_host *f, char **words, size_t count, struct fake_reply *r)
{
    (void)f;
    if (count == 4 && strcmp(words[1], "storage") == 0) {
        fake_print(r,
                   "Mount Point  Volume Name  UUID  Mounted  Type  Size  Free\n-----------  ----");
        return true;
    }
    if (count != 2 || strcmp(words[1], "hostsvc/datastore/listsummary") != 0)
        return false;
    fake_print(r, "(vim.Datastore.Summary) [\n   (vim.Datastore.Summary) {\n"
                  "      name = \"summarised\", \n      url = \"ds:///vmfs/volumes/abc-1/\", \n"
                  "      capacity = 100, \n      freeSpace = 50, \n      accessible = true, \n"
                  "      type = \"NFS\"\n   }\n]\n");
    return true;
}

static void a_cut_table_is_tried_again_then_asked_elsewhere(void **state)
{
    struct fixture *x = *state;
    struct datastore_list l;
    struct err e;

    x->f.extra = cut_table;
    if (host_datastores(&x->f.host, &l, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(l.count, 1);
    assert_string_equal(l.items[0].name, "summarised");
    assert_int_equal(fake_host_ran(&x->f, "/bin/esxcli storage"), 1 + HOST_TRIES);
    datastore_list_free(&l);
}

static void what_a_dead_run_left_is_reaped_and_nothing_else(void **state)
{
    struct fixture *x = *state;
    struct reaper_options options = { 0 };
    struct reaped_list l;
    struct placed p;
    struct err e;

    assert_int_equal(place_agent(&x->f.host, x->j, &wish, &p, &e), 0);
    fake_host_put(&x->f, DS ".vmferry-other", "", 0);
    assert_int_equal(reaper_run(&x->f.host, x->j, &options, &l, &e), 0);
    assert_int_equal(l.items[0].kind, REAPED_IN_USE);
    reaped_list_free(&l);
    placed_free(&p); /* the process is gone */

    assert_int_equal(reaper_run(&x->f.host, x->j, &options, &l, &e), 0);
    assert_int_equal(l.items[0].kind, REAPED_REMOVED);
    reaped_list_free(&l);
    assert_int_equal(x->f.file_count, 1);
    assert_int_equal(fixture_entries(x, NULL), 0);
}

static void a_strangers_file_in_our_folder_stays(void **state)
{
    struct fixture *x = *state;
    struct reaper_options options = { 0 };
    struct reaped_list l;
    struct placed p;
    char path[300];
    struct err e;

    assert_int_equal(place_agent(&x->f.host, x->j, &wish, &p, &e), 0);
    snprintf(path, sizeof path, "%s/precious", p.folder);
    fake_host_put(&x->f, path, "x", 1);
    assert_int_equal(place_remove(&x->f.host, &p, &e), -1);
    assert_int_equal(e.code, ERR_CLEANUP);
    placed_free(&p);
    assert_int_equal(reaper_run(&x->f.host, x->j, &options, &l, &e), 0);
    assert_int_equal(l.items[0].kind, REAPED_FAILED);
    reaped_list_free(&l);
    assert_non_null(fake_host_file(&x->f, path));
}

static void only_a_folder_with_the_entrys_token_is_removed(void **state)
{
    static const char *const bad[] = {
        "/vmfs/volumes/x", "/etc/.vmferry-00112233445566778899aabbccddeeff",
        "/vmfs/volumes/a/../.vmferry-00112233445566778899aabbccddeefe",
        "/vmfs/volumes/a/../b/.vmferry-00112233445566778899aabbccddeeff", ""
    };
    struct fixture *x = *state;
    struct journal_entry entry = { .kind = JOURNAL_AGENT };
    bool removed;
    struct err e;

    strcpy(entry.token, "00112233445566778899aabbccddeeff");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        strcpy(entry.folder, bad[i]);
        assert_int_equal(place_remove_entry(&x->f.host, &entry, &removed, &e), -1);
        assert_int_equal(e.code, ERR_REFUSED);
    }
    assert_int_equal(fake_host_ran(&x->f, "["), 0);
}

/* ---- dd ---- */

#define DISK_BYTES (20 * MIB + 512)

static struct {
    uint8_t *bytes;
    size_t fail_at; /* dd gives an error when it comes here; 0: never */
    size_t end_at;  /* its output ends here without a word; 0: never */
    bool wrong_records;
    unsigned started;
} disk;

static bool run_dd(struct fake_host *f, char **words, size_t count, struct fake_reply *r)
{
    size_t skip = 0, number = 0, start, end, stop;

    (void)f;
    if (strcmp(words[0], "stat") == 0) {
        fake_print(r, "%zu\n", (size_t)DISK_BYTES);
        return true;
    }
    if (count < 4 || strcmp(words[0], "echo") != 0 || strcmp(words[3], "dd") != 0)
        return false;
    fake_print(r, "4711\n"); /* echo $$; exec dd … */
    disk.started++;
    for (size_t i = 1; i < count; i++) {
        if (strncmp(words[i], "skip=", 5) == 0)
            skip = strtoul(words[i] + 5, NULL, 10);
        if (strncmp(words[i], "count=", 6) == 0)
            number = strtoul(words[i] + 6, NULL, 10);
    }
    start = skip * MIB;
    end = start + number * MIB < DISK_BYTES ? start + number * MIB : DISK_BYTES;
    stop = end;
    if (disk.end_at > start && disk.end_at < end)
        stop = disk.end_at;
    if (disk.fail_at > start && disk.fail_at < end)
        stop = disk.fail_at;
    fake_print_bytes(r, disk.bytes + start, stop - start);
    if (disk.fail_at > start && disk.fail_at < end) {
        snprintf(r->errors, sizeof r->errors, "dd: error reading: Input/output error\n");
        r->status = 1;
        return true;
    }
    snprintf(r->errors, sizeof r->errors, "%zu+%u records in\n%zu+%u records out\n",
             (stop - start) / MIB + disk.wrong_records, (stop - start) % MIB != 0,
             (stop - start) / MIB, (stop - start) % MIB != 0);
    return true;
}

static struct source *open_disk(struct fixture *x, const struct disk_map *map)
{
    struct source *s;
    struct err e;

    if (disk.bytes == NULL) {
        disk.bytes = malloc(DISK_BYTES);
        assert_non_null(disk.bytes);
        for (size_t i = 0; i < DISK_BYTES; i++)
            disk.bytes[i] = (uint8_t)((i * 2654435761u) >> 13);
    }
    disk.fail_at = disk.end_at = 0;
    disk.wrong_records = false;
    disk.started = 0;
    x->f.extra = run_dd;
    if (dd_source_open(&s, &x->f.host, DS "a b/it's-flat.vmdk", DISK_BYTES, map, 0, &e) != 0)
        fail_msg("%s", e.text);
    return s;
}

static void expect_bytes(struct source *s, size_t at, size_t count)
{
    uint8_t *out = malloc(count);
    struct err e;

    assert_non_null(out);
    if (source_read(s, at, out, count, &e) != 0)
        fail_msg("%s", e.text);
    assert_memory_equal(out, disk.bytes + at, count);
    free(out);
}

static void ascending_reads_share_one_dd(void **state)
{
    struct fixture *x = *state;
    struct source *s = open_disk(x, NULL);

    for (size_t at = 0; at < DISK_BYTES; at += 65536)
        expect_bytes(s, at, at + 65536 <= DISK_BYTES ? 65536 : DISK_BYTES - at);
    assert_int_equal(disk.started, 1);
    expect_bytes(s, 70000, 100); /* a jump back */
    assert_int_equal(disk.started, 2);
    expect_bytes(s, 5 * MIB + 1, 3 * MIB); /* a short gap forward is read over */
    assert_int_equal(disk.started, 2);
    expect_bytes(s, DISK_BYTES - 1, 1);
    source_close(s);
}

static void failures_of_dd_are_never_zeros(void **state)
{
    struct fixture *x = *state;
    struct source *s = open_disk(x, NULL);
    uint8_t *out = malloc(DISK_BYTES);
    struct err e;

    assert_non_null(out);
    disk.fail_at = 3 * MIB + 7;
    expect_bytes(s, 0, MIB);
    assert_int_equal(source_read(s, MIB, out, 4 * MIB, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    assert_non_null(strstr(e.text, "Input/output error"));
    disk.fail_at = 0;
    disk.end_at = 2 * MIB;
    assert_int_equal(source_read(s, 0, out, 4 * MIB, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    disk.end_at = 0;
    disk.wrong_records = true;
    assert_int_equal(source_read(s, 0, out, DISK_BYTES, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    disk.wrong_records = false;
    expect_bytes(s, 0, DISK_BYTES);
    assert_int_equal(source_read(s, 1, out, DISK_BYTES, &e), -1);
    source_close(s);
    free(out);
}

static void holes_of_a_map_are_jumped_over(void **state)
{
    struct extent items[] = { { 0, 2 * MIB, EXTENT_DATA },
                              { 2 * MIB, 17 * MIB, EXTENT_ZERO },
                              { 19 * MIB, MIB + 512, EXTENT_DATA } };
    struct disk_map map = {
        .items = items, .count = 3, .capacity_bytes = DISK_BYTES, .data_bytes = 3 * MIB + 512
    };
    struct fixture *x = *state;
    struct source *s = open_disk(x, &map);
    struct extent at;
    struct err e;

    assert_int_equal(source_extent_at(s, MIB, &at, &e), 0);
    assert_true(at.kind == EXTENT_DATA && at.length_bytes == MIB);
    assert_int_equal(source_extent_at(s, 3 * MIB, &at, &e), 0);
    assert_true(at.kind == EXTENT_ZERO && at.length_bytes == 16 * MIB);
    assert_true(s->allocated_bytes == 3 * MIB + 512);
    assert_true((s->flags & SOURCE_HOLES_CLAIMED) != 0);
    expect_bytes(s, 0, 2 * MIB);
    expect_bytes(s, 19 * MIB, MIB + 512);
    assert_int_equal(disk.started, 2);
    expect_bytes(s, 5 * MIB, MIB); /* a sample of a hole reads what is there */
    source_close(s);
}

static void a_file_of_another_size_is_refused(void **state)
{
    struct fixture *x = *state;
    struct source *s = open_disk(x, NULL);
    struct err e;

    source_close(s);
    assert_int_equal(dd_source_open(&s, &x->f.host, DS "a", DISK_BYTES + 512, NULL, 0, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    free(disk.bytes);
    disk.bytes = NULL;
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(placed_started_and_removed),
        T(a_refusal_is_an_outcome_with_its_reason),
        T(reasons_are_told_apart),
        T(a_damaged_upload_is_found_by_its_hash),
        T(tmp_is_the_last_resort),
        T(a_datastore_that_forbids_execution_is_passed_over),
        T(a_cut_table_is_tried_again_then_asked_elsewhere),
        T(what_a_dead_run_left_is_reaped_and_nothing_else),
        T(a_strangers_file_in_our_folder_stays),
        T(only_a_folder_with_the_entrys_token_is_removed),
        T(ascending_reads_share_one_dd),
        T(failures_of_dd_are_never_zeros),
        T(holes_of_a_map_are_jumped_over),
        T(a_file_of_another_size_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
