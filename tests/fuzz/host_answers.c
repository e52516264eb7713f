/*
 * A host that answers what it likes: the first byte chooses what is asked of it, the rest are the
 * answers in turn (status, length, text), taken by whatever commands are run.  Loops must end, and
 * no answer may do harm.  Formats that have targets of their own are met here again through their
 * callers.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/host/chain.h"
#include "receiver/host/datastores.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/host/map.h"
#include "receiver/host/place.h"
#include "receiver/host/room.h"
#include "receiver/host/snapshot.h"
#include "receiver/ssh/transport.h"
#include "tests/fuzz/fuzz.h"

enum { COMMANDS_MOST = 400 };

struct liar {
    struct transport transport;
    struct pull answers;
    uint8_t status; /* of the command that runs */
    unsigned commands;
    uint64_t clock_ms;
    const char *complaint;
};

static int liar_exec(struct transport *t, const char *command, struct remote_process *out,
                     struct err *e)
{
    struct liar *l = (struct liar *)t;
    size_t bytes;
    const uint8_t *text;
    int fds[2];

    (void)command;
    FUZZ_CHECK(++l->commands <= COMMANDS_MOST);
    l->status = pull_u8(&l->answers);
    bytes = min_u64(pull_u16(&l->answers), l->answers.left);
    text = pull_bytes(&l->answers, bytes);
    if (l->status == 0x7f)
        return err_set(e, ERR_NETWORK, "the connection was cut");
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    if (bytes > 0)
        FUZZ_CHECK(send(fds[1], text, bytes, MSG_NOSIGNAL) == (ssize_t)bytes);
    close(fds[1]);
    *out = (struct remote_process){ .transport = t, .fd = fds[0] };
    return 0;
}

static int liar_wait(struct remote_process *p, uint64_t timeout_ms, struct remote_exit *out,
                     struct bytes *errors, struct err *e)
{
    struct liar *l = (struct liar *)p->transport;

    (void)timeout_ms;
    *out = (struct remote_exit){ .known = true,
                                 .status = l->status & 3,
                                 .signalled = l->status >= 0xf0 };
    if ((l->status & 4) != 0 && errors != NULL)
        return bytes_append(errors, l->complaint, strlen(l->complaint), e);
    return 0;
}

static void liar_release(struct remote_process *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}

static int liar_address(struct transport *t, char *out, size_t room, struct err *e)
{
    (void)t;
    (void)out;
    (void)room;
    return err_set(e, ERR_NETWORK, "no address");
}

static bool liar_alive(struct transport *t, struct err *e)
{
    (void)t;
    (void)e;
    return true;
}

static void liar_close(struct transport *t)
{
    (void)t;
}

static const struct transport_ops liar_ops = { liar_exec,    liar_wait,  liar_release,
                                               liar_address, liar_alive, liar_close };

static uint64_t clock_ms(void *context)
{
    return ((struct liar *)context)->clock_ms;
}

static int64_t wall_clock(void *context)
{
    return 1795000000 + (int64_t)(((struct liar *)context)->clock_ms / 1000);
}

static void wait_ms(void *context, uint64_t ms)
{
    ((struct liar *)context)->clock_ms += ms;
}

static bool no_stop(void *context)
{
    (void)context;
    return false;
}

/* ---- what is asked ---- */

static struct datastore stores[] = {
    { .name = "ds1",
      .uuid = "5e0f-1",
      .type = "VMFS-6",
      .path = "/vmfs/volumes/5e0f-1",
      .size_bytes = 1000,
      .free_bytes = 500,
      .files = true },
};
static const struct datastore_list store_list = { stores, 1 };

static struct vm a_vm(void)
{
    static char file[] = "[ds1] web/web.vmdk";
    static struct vm_disk disk = { .slot = "scsi0:0", .capacity_bytes = 1 << 20, .file = file };

    return (struct vm){ .vmid = 7,
                        .name = (char *)"web",
                        .vmx = (char *)"[ds1] web/web.vmx",
                        .uuid = "564d0000-0000-0000-0000-000000000001",
                        .instance_uuid = "52aa0000-0000-0000-0000-000000000001",
                        .power = VM_ON,
                        .connected = true,
                        .detailed = true,
                        .disks = { &disk, 1 } };
}

static void ask_vms(struct host *h)
{
    struct vm_list l;
    struct err e;

    if (host_vms(h, &l, &e) != 0)
        return;
    for (size_t i = 0; i < l.count; i++)
        if (i < 2)
            host_vm_details(h, &l.items[i], &e);
    vm_list_free(&l);
}

static void ask_vm(struct host *h)
{
    struct vm vm = a_vm(), found;
    struct vm_files files;
    struct err e;

    if (host_vm_find(h, "[ds1] web/web.vmx", "52aa0000-0000-0000-0000-000000000001", &found, &e) ==
        0)
        vm_free(&found);
    host_vm_same(h, &vm, &e);
    if (host_vm_files(h, &vm, &files, &e) == 0)
        vm_files_free(&files);
}

static void ask_tasks(struct host *h)
{
    struct snapshot_task t;
    struct snapshot_tree tree;
    struct err e;

    snapshot_task_look(h, 7, "createSnapshot", &t, &e);
    if (snapshot_tree_read(h, 7, &tree, &e) == 0)
        snapshot_tree_free(&tree);
}

static void ask_stores(struct host *h)
{
    struct room_guard guard = { .count = 1,
                                .stores = { { .uuid = "5e0f-1", .needed_bytes = 100 } } };
    struct datastore_list l;
    struct err e;

    if (host_datastores(h, &l, &e) == 0)
        datastore_list_free(&l);
    room_poll(h, &guard, &e);
}

static void ask_identity(struct host *h)
{
    enum exec_policy policy;
    int64_t booted;
    struct err e;

    host_identify(h, &e);
    FUZZ_CHECK(strlen(h->uuid) < sizeof h->uuid && strlen(h->version) < sizeof h->version);
    host_booted(h, &booted, &e);
    place_exec_policy(h, &policy, &e);
}

static void ask_chain(struct host *h)
{
    struct vm vm = a_vm();
    struct chain_plan plan;
    struct err e;

    if (chain_plan_read(h, &vm, NULL, &store_list, &plan, &e) != 0)
        return;
    for (size_t i = 0; i < plan.count; i++) {
        const struct chain_disk *d = &plan.items[i];

        if (d->outcome != CHAIN_READ && d->outcome != CHAIN_READ_DIRECT)
            continue;
        FUZZ_CHECK(d->link_count > 0 && d->link_count <= CHAIN_LINKS_MAX);
        for (size_t l = 0; l < d->link_count; l++) {
            FUZZ_CHECK(strncmp(d->links[l].data_path, "/vmfs/volumes/5e0f-1/", 21) == 0);
            FUZZ_CHECK(strstr(d->links[l].data_path, "/../") == NULL);
        }
    }
    chain_recheck(h, &vm, NULL, &store_list, &plan, &e);
    chain_plan_free(&plan);
}

static void ask_map(struct host *h)
{
    struct disk_map map;
    struct err e;

    if (disk_map_fetch(h, "/vmfs/volumes/5e0f-1/web/web.vmdk", 1 << 20, &map, &e) == 0)
        disk_map_free(&map);
}

static void ask_remove(struct host *h)
{
    static struct journal_entry entry = { .kind = JOURNAL_SNAPSHOT,
                                          .state = JOURNAL_CREATED,
                                          .token = "0123456789abcdef0123456789abcdef",
                                          .install_id = "0123456789abcdef",
                                          .vmid = 7,
                                          .vm_uuid = "52aa0000-0000-0000-0000-000000000001",
                                          .vmx = "[ds1] web/web.vmx",
                                          .snapshot_id = 3 };
    bool removed;
    struct err e;

    snapshot_remove_entry(h, 7, &entry, &removed, &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const ask[])(struct host *) = { ask_vms,      ask_vm,    ask_tasks, ask_stores,
                                                  ask_identity, ask_chain, ask_map,   ask_remove };
    struct liar l = { .transport = { &liar_ops },
                      .answers = { .at = data, .left = size },
                      .complaint = "vim.fault.TaskInProgress: busy\nOperation not permitted\n" };
    struct host_hooks hooks = { &l, clock_ms, wall_clock, wait_ms, no_stop };
    uint8_t what = pull_u8(&l.answers);
    struct host h;
    struct err e;

    fuzz_begin();
    if (what >= 0x80)
        l.complaint = "cannot open: No such file or directory (NotFound)";
    FUZZ_CHECK(host_init(&h, &l.transport, "esx1", 22, "root", &hooks, &e) == 0);
    ask[what % 8](&h);
    host_end(&h);
    fuzz_end();
    return 0;
}
