/*
 * Drives receiver/host by hand or from test_host.py, over a real SSH connection:
 *
 *     host_driver ADDRESS PORT KNOWN_HOSTS KEYFILE STATE_FOLDER COMMAND [ARGUMENT...]
 *
 * Results go to stdout, one `key value` per line; a failure is `error NAME TEXT` on stderr, exit 1.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/source.h"
#include "receiver/base/log.h"
#include "receiver/base/state.h"
#include "receiver/base/stop.h"
#include "receiver/host/chain.h"
#include "receiver/host/datastores.h"
#include "receiver/host/dd_source.h"
#include "receiver/host/doctor.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/host/journal.h"
#include "receiver/host/map.h"
#include "receiver/host/place.h"
#include "receiver/host/reaper.h"
#include "receiver/host/room.h"
#include "receiver/host/snapshot.h"
#include "receiver/ssh/libssh2_transport.h"
#include "receiver/ssh/transport.h"

enum { STEP_BYTES = 1 << 20 };

struct driver {
    struct host host;
    struct state *state;
    struct journal *journal;
    char **arguments;
    int count;
};

static int find_vm(struct driver *d, const char *operand, struct vm *out, struct err *e)
{
    struct vm_list l;
    size_t picked[VM_COUNT_MAX], n;
    int rc = -1;

    if (host_vms(&d->host, &l, e) != 0)
        return -1;
    if (vm_select(&l, operand, picked, &n, e) == 0) {
        *out = l.items[picked[0]];
        l.items[picked[0]] = (struct vm){ 0 };
        rc = host_vm_details(&d->host, out, e);
    }
    vm_list_free(&l);
    return rc;
}

static int run_vms(struct driver *d, struct err *e)
{
    struct vm_list l;

    if (host_vms(&d->host, &l, e) != 0)
        return -1;
    for (size_t i = 0; i < l.count; i++) {
        struct vm *vm = &l.items[i];

        if (host_vm_details(&d->host, vm, e) != 0) {
            vm_list_free(&l);
            return -1;
        }
        printf("vm %u|%s|%s|%s|%u|%" PRIu64 "|%zu|%s\n", vm->vmid, vm->name, vm->vmx,
               vm_power_name(vm->power), vm->cpus, vm->memory_bytes, vm->snapshots,
               vm_tracking_name(vm->tracking));
        for (size_t k = 0; k < vm->disks.count; k++)
            printf("disk %s|%" PRIu64 "|%d|%s|%s|%zu|%d%d\n", vm->disks.items[k].slot,
                   vm->disks.items[k].capacity_bytes, (int)vm->disks.items[k].kind,
                   vm->disks.items[k].backing, vm->disks.items[k].file,
                   vm->disks.items[k].parent_count, vm->disks.items[k].independent,
                   vm->disks.items[k].shared);
    }
    for (size_t i = 0; i < l.problem_count; i++)
        printf("problem %u|%s\n", l.problems[i].vmid, l.problems[i].text);
    vm_list_free(&l);
    return 0;
}

static int run_files(struct driver *d, struct err *e)
{
    struct vm vm = { 0 };
    struct vm_files files = { 0 };
    int rc = find_vm(d, d->arguments[0], &vm, e);

    if (rc == 0 && (rc = host_vm_files(&d->host, &vm, &files, e)) == 0)
        for (size_t i = 0; i < files.count; i++)
            printf("file %d|%s\n", (int)files.items[i].kind, files.items[i].path);
    vm_files_free(&files);
    vm_free(&vm);
    return rc;
}

static int run_stores(struct driver *d, struct err *e)
{
    struct datastore_list l;

    if (host_datastores(&d->host, &l, e) != 0)
        return -1;
    for (size_t i = 0; i < l.count; i++)
        printf("store %s|%s|%s|%" PRIu64 "|%" PRIu64 "|%d\n", l.items[i].name, l.items[i].uuid,
               l.items[i].type, l.items[i].size_bytes, l.items[i].free_bytes, l.items[i].files);
    datastore_list_free(&l);
    return 0;
}

static void print_plan(const struct chain_plan *p)
{
    static const char *const names[] = { "read", "direct", "skipped", "refused" };

    for (size_t i = 0; i < p->count; i++)
        printf("plan %s|%s|%" PRIu64 "|%s|%s\n", p->items[i].slot, names[p->items[i].outcome],
               p->items[i].capacity_bytes,
               p->items[i].link_count == 0 ? "" : p->items[i].links[0].data_path,
               p->items[i].outcome == CHAIN_READ ? "" : p->items[i].reason.text);
}

/* Copy a disk to a file by dd, holes of the map left out. */
static int copy_disk(struct driver *d, const struct chain_disk *disk, const char *path,
                     struct err *e)
{
    uint8_t *block = malloc(STEP_BYTES);
    struct disk_map map = { 0 };
    struct source *s = NULL;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint64_t at = 0, read_bytes = 0;
    int rc = -1;

    if (block == NULL || fd < 0 || ftruncate(fd, (off_t)disk->capacity_bytes) != 0) {
        err_sys(e, "%s", path);
        goto out;
    }
    if (disk_map_fetch(&d->host, disk->links[0].descriptor_path, disk->capacity_bytes, &map, e) != 0)
        printf("map none|%s\n", e->text);
    else
        printf("map %zu|%" PRIu64 "\n", map.count, map.data_bytes);
    if (dd_source_open(&s, &d->host, disk->links[0].data_path, disk->capacity_bytes, &map, 0, e) != 0)
        goto out;
    while (at < disk->capacity_bytes) {
        struct extent x;
        uint64_t n;

        if (source_extent_at(s, at, &x, e) != 0)
            goto out;
        n = x.length_bytes;
        if (x.kind == EXTENT_DATA) {
            n = n < STEP_BYTES ? n : STEP_BYTES;
            if (source_read(s, at, block, (size_t)n, e) != 0 ||
                io_pwrite_all(fd, block, (size_t)n, at, e) != 0)
                goto out;
            read_bytes += n;
        }
        at += n;
    }
    printf("read %" PRIu64 "\n", read_bytes);
    rc = 0;

out:
    source_close(s);
    disk_map_free(&map);
    io_drop(&fd);
    free(block);
    return rc;
}

/* mirror VM SLOT FILE: the whole way of a run. */
static int run_mirror(struct driver *d, struct err *e)
{
    struct snapshot_wish wish = { .wait_ms = 3000, .create_ms = 20000 };
    struct room_rule rule = { .percent = 1, .bytes = 1 };
    struct datastore_list stores = { 0 };
    struct chain_plan plan = { 0 };
    struct snapshot *s = NULL;
    struct room_guard guard;
    enum chain_way way;
    struct vm vm = { 0 };
    struct err removal;
    char why[400];
    int rc = -1;

    if (find_vm(d, d->arguments[0], &vm, e) != 0 || host_datastores(&d->host, &stores, e) != 0 ||
        chain_way_of(&vm, &way, why, sizeof why, e) != 0)
        goto out;
    printf("way %s|%s\n", way == CHAIN_BY_SNAPSHOT ? "snapshot" : "direct", why);
    if (way == CHAIN_BY_SNAPSHOT && (room_check_before(&guard, &vm, &stores, &rule, e) != 0 ||
                                     snapshot_create(&d->host, d->journal, &vm, &wish, &s, e) != 0))
        goto out;
    if (s != NULL)
        printf("snapshot %u|%s|%d|%s\n", s->id, s->name, s->quiesced, s->quiesce_problem);
    fflush(stdout);
    if (chain_plan_read(&d->host, &vm, s, &stores, &plan, e) != 0)
        goto out;
    print_plan(&plan);
    if (d->count > 3 && strcmp(d->arguments[3], "die") == 0)
        kill(getpid(), SIGKILL);
    if (s != NULL && (snapshot_reading(&d->host, s, e) != 0 || room_poll(&d->host, &guard, e) != 0))
        goto out;
    for (size_t i = 0; i < plan.count; i++)
        if (strcmp(plan.items[i].slot, d->arguments[1]) == 0 && plan.items[i].link_count == 1 &&
            copy_disk(d, &plan.items[i], d->arguments[2], e) != 0)
            goto out;
    rc = chain_recheck(&d->host, &vm, s, &stores, &plan, e);

out:
    if (s != NULL && snapshot_remove(&d->host, s, rc == 0 ? e : &removal) != 0) {
        printf("removal failed\n");
        if (rc != 0)
            printf("removal %s\n", removal.text);
        rc = -1;
    }
    snapshot_free(s);
    chain_plan_free(&plan);
    datastore_list_free(&stores);
    vm_free(&vm);
    return rc;
}

static int run_plan(struct driver *d, struct err *e)
{
    struct datastore_list stores = { 0 };
    struct chain_plan plan = { 0 };
    struct vm vm = { 0 };
    int rc = -1;

    if (find_vm(d, d->arguments[0], &vm, e) == 0 && host_datastores(&d->host, &stores, e) == 0 &&
        chain_plan_read(&d->host, &vm, NULL, &stores, &plan, e) == 0)
        rc = 0;
    print_plan(&plan);
    chain_plan_free(&plan);
    datastore_list_free(&stores);
    vm_free(&vm);
    return rc;
}

static int run_reap(struct driver *d, struct err *e)
{
    struct reaper_options options = { 0 };
    struct reaped_list l;
    int rc = reaper_run(&d->host, d->journal, &options, &l, e);

    for (size_t i = 0; i < l.count; i++)
        printf("reaped %d|%s\n", (int)l.items[i].kind, l.items[i].text);
    reaped_list_free(&l);
    return rc;
}

static int run_foreign(struct driver *d, struct err *e)
{
    char text[300];

    if (reaper_remove_foreign(&d->host, d->journal, d->arguments[0], text, sizeof text, e) != 0)
        return -1;
    printf("removed %s\n", text);
    return 0;
}

/* place AGENT [die] */
static int run_place(struct driver *d, struct err *e)
{
    struct datastore_list stores = { 0 };
    struct place_wish wish = { .agent_file = d->arguments[0], .stores = &stores };
    struct placed p = { 0 };
    int rc = -1;

    if (host_datastores(&d->host, &stores, e) != 0 ||
        place_agent(&d->host, d->journal, &wish, &p, e) != 0)
        goto out;
    printf("placed %d|%s|%s|%s\n", (int)p.outcome, p.folder == NULL ? "" : p.folder, p.version,
           p.reason);
    fflush(stdout);
    if (d->count > 1)
        kill(getpid(), SIGKILL);
    rc = place_remove(&d->host, &p, e);

out:
    placed_free(&p);
    datastore_list_free(&stores);
    return rc;
}

static void show_item(void *context, const struct doctor_item *item)
{
    (void)context;
    printf("doctor %s|%s|%s|%s|%s\n", doctor_result_name(item->result), item->check,
           item->vm == NULL ? "" : item->vm, item->detail, item->remedy);
}

static int run_doctor(struct driver *d, struct err *e)
{
    struct room_rule rule = { 0 };
    struct doctor_wish wish = { .agent_file = d->arguments[0],
                                .rule = &rule,
                                .operands = (const char *const *)d->arguments + 1,
                                .operand_count = (size_t)d->count - 1,
                                .show = show_item };
    struct doctor_report report;
    int rc = doctor_run(&d->host, d->journal, &wish, &report, e);

    doctor_report_free(&report);
    return rc;
}

static int run_identify(struct driver *d, struct err *e)
{
    enum exec_policy policy;

    printf("host %s|%s|%s|%s|%u|%s\n", d->host.uuid, d->host.product, d->host.level,
           d->host.version, d->host.version_major, d->host.build);
    if (place_exec_policy(&d->host, &policy, e) != 0)
        return -1;
    printf("policy %d\n", (int)policy);
    return 0;
}

static const struct {
    const char *name;
    int least; /* arguments */
    int (*run)(struct driver *d, struct err *e);
} commands[] = {
    { "identify", 0, run_identify }, { "vms", 0, run_vms },         { "files", 1, run_files },
    { "stores", 0, run_stores },     { "mirror", 3, run_mirror },   { "plan", 1, run_plan },
    { "reap", 0, run_reap },         { "foreign", 1, run_foreign }, { "place", 1, run_place },
    { "doctor", 1, run_doctor },
};

static int run(struct driver *d, const char *name, struct err *e)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].name, name) == 0 && d->count >= commands[i].least)
            return commands[i].run(d, e);
    return err_set(e, ERR_USAGE, "no such command");
}

int main(int argc, char **argv)
{
    struct driver d = { 0 };
    struct ssh_options options;
    struct transport *t = NULL;
    const char *key, *known;
    struct err e;
    int rc = -1;

    if (argc < 7) {
        fprintf(stderr, "usage: host_driver ADDRESS PORT KNOWN_HOSTS KEYFILE STATE COMMAND...\n");
        return 2;
    }
    known = argv[3];
    key = argv[4];
    d.arguments = argv + 7;
    d.count = argc - 7;
    if (getenv("HOST_DRIVER_DEBUG") != NULL)
        log_set_level(LOG_DEBUG);
    ssh_options_init(&options);
    options.host = argv[1];
    options.port = (uint16_t)strtoul(argv[2], NULL, 10);
    options.user = "root";
    options.identities = &key;
    options.identity_count = 1;
    options.methods = SSH_METHOD_KEY;
    options.known_hosts = &known;
    options.known_hosts_count = 1;
    if (stop_install(&e) != 0 || state_open(&d.state, argv[5], &e) != 0 ||
        journal_open(&d.journal, state_fd(d.state), state_install_id(d.state), &e) != 0 ||
        ssh_connect(&t, &options, &e) != 0 ||
        host_init(&d.host, t, argv[1], options.port, "root", NULL, &e) != 0)
        goto out;
    if (host_identify(&d.host, &e) == 0)
        rc = run(&d, argv[6], &e);
    host_end(&d.host);

out:
    if (t != NULL)
        t->ops->close(t);
    journal_close(d.journal);
    state_close(d.state);
    fflush(stdout);
    if (rc != 0)
        fprintf(stderr, "error %s %s\n", err_code_name(e.code), e.text);
    return rc == 0 ? 0 : 1;
}
