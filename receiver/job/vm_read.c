#include "receiver/job/vm_read.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/io.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "protocol/vmdk/files.h"
#include "protocol/vmdk/since.h"
#include "protocol/wire/crypto.h"
#include "protocol/wire/record.h"
#include "receiver/base/failpoint.h"
#include "receiver/base/log.h"
#include "receiver/base/state.h"
#include "receiver/base/stop.h"
#include "receiver/host/dd_files.h"
#include "receiver/host/dd_source.h"
#include "receiver/host/host.h"
#include "receiver/host/map.h"
#include "receiver/host/snapshot.h"
#include "receiver/job/address.h"
#include "receiver/job/hints.h"
#include "receiver/job/pacer.h"
#include "receiver/ssh/transport.h"
#include "receiver/stream/agent_session.h"

enum {
    ROOM_POLL_MS = 10000,
    CHECK_POLL_MS = 300000, /* the snapshot is looked at again */
    RECONNECT_TRIES = 3,
    REPEATS_MAX = 2, /* of what a cut connection has interrupted */
    RECONNECT_WITHIN_MS = 60000,
    RECONNECT_PAUSE_MS = 3000,
    AGENT_WORKERS = 2,
};
#define AGENT_MEMORY_BYTES ((uint64_t)48 << 20)
#define AGENT_MEMORY_LEAST ((uint64_t)8 << 20)
#define WINDOW_LEAST ((uint64_t)1 << 20)

static void step(struct vm_read *r, const char *what)
{
    if (r->events->step != NULL)
        r->events->step(r->events->context, r->vm->name, what);
}

/* ---- which disks ---- */

static bool listed(const struct disk_list *l, const char *slot)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->slots[i], slot) == 0)
            return true;
    return false;
}

/* What the plan says of each disk, against what the user wants. */
static int choose_disks(struct vm_read *r, struct err *e)
{
    const struct run_options *o = r->options;
    size_t wanted = 0;

    r->disks = calloc(r->plan.count > 0 ? r->plan.count : 1, sizeof *r->disks);
    if (r->disks == NULL)
        return err_sys(e, "getting memory for disks");
    r->disk_count = r->plan.count;
    for (size_t i = 0; i < r->plan.count; i++) {
        const struct chain_disk *c = &r->plan.items[i];
        struct read_disk *d = &r->disks[i];

        snprintf(d->slot, sizeof d->slot, "%s", c->slot);
        snprintf(d->uuid, sizeof d->uuid, "%s", c->uuid);
        d->capacity_bytes = c->capacity_bytes;
        d->wanted =
            !listed(&o->exclude, c->slot) && (o->only.count == 0 || listed(&o->only, c->slot));
        if (!d->wanted)
            continue;
        wanted++;
        if (c->outcome == CHAIN_REFUSED) {
            *e = c->reason; /* names the disk */
            return -1;
        }
        d->readable = c->outcome == CHAIN_READ || c->outcome == CHAIN_READ_DIRECT;
        r->readable += d->readable;
        if (c->outcome == CHAIN_SKIPPED) {
            d->why = c->reason;
            r->left_unread++; /* the result carries why */
        } else if (c->reason.text[0] != 0) {
            log_warning("%s: %s", r->vm->name, c->reason.text);
        }
    }
    if (o->only.count > 0 && wanted == 0)
        return err_set(e, ERR_NOT_FOUND, "it has none of the disks that --only-disk names");
    return 0;
}

int vm_read_look(struct vm_read *r, struct err *e)
{
    char why[480] = "";

    if (chain_way_of(r->vm, &r->way, why, sizeof why, e) != 0)
        return -1;
    if (why[0] != 0)
        log_warning("%s: %s", r->vm->name, why);
    if (chain_plan_read(r->host, r->vm, NULL, r->stores, &r->plan, e) != 0)
        return -1;
    return choose_disks(r, e);
}

/* The plan below the snapshot must be about the same disks as the forecast. */
static int same_disks(const struct vm_read *r, const struct chain_plan *now, struct err *e)
{
    if (now->count != r->disk_count)
        return err_set(e, ERR_SOURCE, "the VM got or lost a disk meanwhile: run again");
    for (size_t i = 0; i < now->count; i++) {
        const struct chain_disk *c = &now->items[i];
        const struct read_disk *d = &r->disks[i];

        if (strcmp(c->slot, d->slot) != 0 || c->capacity_bytes != d->capacity_bytes ||
            strcmp(c->uuid, d->uuid) != 0)
            return err_set(e, ERR_SOURCE, "disk %s changed meanwhile: run again", d->slot);
        if (d->readable && c->outcome != CHAIN_READ && c->outcome != CHAIN_READ_DIRECT) {
            *e = c->reason;
            return -1;
        }
    }
    return 0;
}

/* ---- begin ---- */

static int put_agent(struct vm_read *r, struct err *e)
{
    struct place_wish wish = {
        .agent_file = r->options->agent_file,
        .agent_dir = r->options->agent_dir,
        .vm = r->vm,
        .stores = r->stores,
    };

    r->read_path = READ_PATH_SSH_DD;
    if (wish.agent_file == NULL)
        return 0;
    step(r, "placing the agent");
    if (place_agent(r->host, r->journal, &wish, &r->placed, e) != 0)
        return -1;
    if (r->placed.outcome == PLACE_READY) {
        r->agent_placed = true;
        r->read_path = READ_PATH_AGENT;
    } else {
        log_note("%s: %s", r->vm->name, r->placed.reason);
    }
    return 0;
}

static enum consistency consistency_of(const struct vm *vm)
{
    switch (vm->power) {
    case VM_OFF:
        return CONSISTENCY_OFF;
    case VM_SUSPENDED:
        return CONSISTENCY_SUSPENDED;
    default:
        return CONSISTENCY_CRASH;
    }
}

static int take_snapshot(struct vm_read *r, struct err *e)
{
    struct snapshot_wish wish = {
        .purpose = r->keeps ? JOURNAL_KEEP : JOURNAL_RUN,
        .quiesce = r->vm->power == VM_ON ? r->options->quiesce : QUIESCE_NO,
        .store = r->store,
        .wait_ms = r->options->lock_wait_s * 1000,
        .held = r->held,
    };

    if (r->way == CHAIN_DIRECTLY)
        return 0;
    if (r->keeps)
        wish.expires = host_now(r->host) + (int64_t)r->options->max_retained_age_s;
    step(r, "taking the snapshot");
    if (snapshot_create(r->host, r->journal, r->vm, &wish, &r->snapshot, e) != 0)
        return -1;
    r->frozen = r->snapshot->made;
    if (r->snapshot->quiesced)
        r->consistency = CONSISTENCY_QUIESCED;
    return 0;
}

/* What the host's map calls holes, for one disk.  A map that cannot be used is no failure. */
static void learn_holes(struct vm_read *r, const struct chain_disk *c, struct read_disk *d)
{
    struct disk_map map;
    struct err e;

    if (hints_are_off(state_fd(r->options->state), HINT_MAPS, r->host->uuid)) {
        log_info("%s: disk %s: this host's maps of holes are not used (%s/no-hole-maps-…)",
                 r->vm->name, d->slot, state_dir(r->options->state));
        return;
    }
    if (disk_map_fetch(r->host, c->links[0].descriptor_path, c->capacity_bytes, &map, &e) != 0) {
        log_info("%s: disk %s: no map of its holes: %s", r->vm->name, d->slot, e.text);
        return;
    }
    for (size_t i = 0; i < map.count; i++)
        if (map.items[i].kind == EXTENT_ZERO && hole_map_add(&d->holes, map.items[i].offset_bytes,
                                                             map.items[i].length_bytes, &e) != 0) {
            hole_map_free(&d->holes);
            break;
        }
    disk_map_free(&map);
}

static void ready_disks(struct vm_read *r)
{
    for (size_t i = 0; i < r->disk_count; i++) {
        const struct chain_disk *c = &r->plan.items[i];
        struct read_disk *d = &r->disks[i];

        if (!d->readable)
            continue;
        d->transfer.name = d->slot;
        if (c->link_count == 1) {
            if (!r->audit)
                learn_holes(r, c, d);
            d->transfer.format = DISK_FLAT;
            d->transfer.path = c->links[0].data_path;
        } else {
            d->transfer.format = DISK_CHAIN;
            d->transfer.path = c->links[0].descriptor_path;
        }
        d->transfer.capacity_bytes = d->capacity_bytes;
        d->transfer.holes = &d->holes;
        d->transfer.ignore_holes = r->audit;
    }
}

/* A chain by its tip, or only what was written in it since the link disk->since was frozen. */
static int open_chain_by_dd(const struct vmdk_config *config, const struct agent_disk *disk,
                            struct source **out, struct err *e)
{
    uint64_t random[SINCE_CHECKS];
    struct vmdk_chain *c = NULL;

    struct source *whole;

    if (vmdk_chain_open(&c, config, disk->path, e) != 0)
        return -1;
    whole = vmdk_chain_source(c);
    if (disk->since == NULL)
        *out = whole;
    if (whole->capacity_bytes != disk->capacity_bytes)
        err_set(e, ERR_SOURCE, "%s is a disk of another size than expected", disk->path);
    else if (disk->since == NULL ||
             (crypto_random(random, sizeof random, e) == 0 &&
              vmdk_since_place(out, c, disk->since, disk->since_block, random, e) == 0))
        return 0;
    vmdk_chain_close(c);
    return -1;
}

/* For the source end in this process: a disk by its flat file, or by the tip of its chain. */
static int open_by_dd(void *context, const struct agent_disk *disk, struct source **out,
                      enum hole_knowledge *holes, struct err *e)
{
    struct vm_read *r = context;
    uint64_t stall_ms = r->options->stall_timeout_s * 1000;
    struct vmdk_config config = { .flags = VMDK_ONLY_ESXI };

    *holes = HOLES_NONE; /* the map is told like to an agent */
    if (disk->format == DISK_FLAT)
        return dd_source_open(out, r->host, disk->path, disk->capacity_bytes, NULL, stall_ms, e);
    if (r->dd_files == NULL && dd_files_new(&r->dd_files, r->host, r->stores, stall_ms, e) != 0)
        return -1;
    config.files = r->dd_files;
    return open_chain_by_dd(&config, disk, out, e);
}

/* The folders that chains lie in: an agent opens nothing outside them. */
static int tell_volumes(struct vm_read *r, struct err *e)
{
    for (size_t i = 0; i < r->stores->count; i++) {
        const struct datastore *s = &r->stores->items[i];
        char alias[DATASTORE_PATH_MAX];
        bool used = false;

        for (size_t d = 0; d < r->disk_count && !used; d++)
            for (size_t l = 0; r->disks[d].transfer.format == DISK_CHAIN &&
                               l < r->plan.items[d].link_count && !used;
                 l++)
                used = datastore_of(r->stores, r->plan.items[d].links[l].descriptor_path) == s;
        if (!used)
            continue;
        snprintf(alias, sizeof alias, "/vmfs/volumes/%s", s->name);
        if (agent_session_volume(r->session, s->path, alias, e) != 0)
            return -1;
    }
    return 0;
}

static void end_session(struct vm_read *r)
{
    if (!agent_session_end(r->session))
        r->orphaned = true;
    r->session = NULL;
}

/* Several VMs at once share what one may take. */
static uint64_t share_of(const struct vm_read *r, uint64_t bytes, uint64_t least)
{
    return max_u64(bytes / (r->options->parallel > 0 ? r->options->parallel : 1), least);
}

static int start_session(struct vm_read *r, struct err *e)
{
    const struct data_options *data = &r->options->data;
    struct bytes command = { .ceiling = 8192 };
    struct agent_session_config config = {
        .transport = r->host->transport,
        .mode_set = record_mode_bit(data->security == DATA_AUTH ? RECORD_AUTH : RECORD_ENCRYPT),
        .workers_max = AGENT_WORKERS,
        .memory_bytes = share_of(r, AGENT_MEMORY_BYTES, AGENT_MEMORY_LEAST),
        .stall_ms = r->options->stall_timeout_s * 1000,
        .ports = r->options->ports,
        .disk_open = open_by_dd,
        .context = r,
    };
    int rc = -1;

    if (r->read_path == READ_PATH_AGENT) {
        if (shell_command(&command, e, r->placed.path, "--serve", (char *)NULL) != 0)
            goto out;
        config.command = bytes_text(&command, e);
        if (config.command == NULL)
            goto out;
    }
    if (r->read_path == READ_PATH_AGENT && data->channel != DATA_SSH) {
        if (address_for_data(r->host->transport, data, &r->listen_address, &r->dial_address, e) !=
            0)
            goto out;
        config.listen_address = r->listen_address;
        config.listen_port = data->listen.port;
        config.dial_address = r->dial_address;
        config.dial_port = data->connect.port;
    }
    rc = failpoint("session.start", e) == 0 ? agent_session_start(&r->session, &config, e) : -1;
    if (rc != 0 && config.listen_address != NULL && e->code == ERR_BUSY &&
        data->channel == DATA_AUTO) {
        log_note("%s: %s; data goes through SSH", r->vm->name, e->text);
        config.listen_address = NULL;
        rc = agent_session_start(&r->session, &config, e);
    } else if (rc != 0 && e->code == ERR_BUSY) {
        e->code = ERR_NETWORK; /* the user forces a data channel that cannot be had */
    }
    if (rc == 0 && tell_volumes(r, e) != 0) {
        end_session(r);
        rc = -1;
    }
out:
    bytes_free(&command);
    return rc;
}

int vm_read_begin(struct vm_read *r, struct err *e)
{
    struct room_rule rule = {
        .bytes = r->options->min_free.is_share ? 0 : r->options->min_free.bytes,
        .percent = r->options->min_free.is_share ? r->options->min_free.percent : 0,
    };
    struct chain_plan now = { 0 };

    r->consistency = consistency_of(r->vm);
    r->frozen = host_now(r->host);
    if (r->readable == 0)
        return 0;
    if (r->way == CHAIN_BY_SNAPSHOT && room_check_before(&r->room, r->vm, r->stores, &rule, e) != 0)
        return -1;
    if (put_agent(r, e) != 0 || stop_check(e) != 0 || take_snapshot(r, e) != 0)
        return -1;
    if (chain_plan_read(r->host, r->vm, r->snapshot, r->stores, &now, e) != 0)
        return -1;
    chain_plan_free(&r->plan);
    r->plan = now;
    if (same_disks(r, &r->plan, e) != 0 ||
        (r->twice && r->snapshot != NULL &&
         chain_recheck(r->host, r->vm, r->snapshot, r->stores, &r->plan, e) != 0))
        return -1;
    ready_disks(r);
    if (r->snapshot != NULL && snapshot_reading(r->host, r->snapshot, e) != 0)
        return -1;
    step(r, "starting the transfer");
    r->next_room_ms = io_clock_ms() + ROOM_POLL_MS;
    r->next_check_ms = io_clock_ms() + CHECK_POLL_MS;
    return start_session(r, e);
}

/* ---- transfer ---- */

static int watch(void *context, struct err *e)
{
    struct vm_read *r = context;
    uint64_t now = io_clock_ms();

    if (stop_check(e) != 0)
        return -1;
    if (r->snapshot == NULL)
        return 0;
    if (host_now(r->host) - r->snapshot->made > (int64_t)r->options->max_snapshot_age_s)
        return err_set(
            e, ERR_SYSTEM,
            "the snapshot is older than --max-snapshot-age: what has come is kept for the "
            "next run");
    if (now >= r->next_room_ms) {
        r->next_room_ms = now + ROOM_POLL_MS;
        if (room_poll(r->host, &r->room, e) != 0 && e->code == ERR_SPACE)
            return -1;
    }
    if (now >= r->next_check_ms) {
        r->next_check_ms = now + CHECK_POLL_MS;
        if (snapshot_check(r->host, r->snapshot, e) != 0 && e->code == ERR_SOURCE)
            return -1;
    }
    return 0;
}

static void show(void *context, const struct transfer_disk *t)
{
    struct vm_read *r = context;
    struct disk_progress p = {
        .vm = r->vm->name,
        .disk = t->name,
        .done_bytes = t->totals.position_bytes,
        .total_bytes = t->capacity_bytes,
        .read_bytes = t->totals.same_bytes + t->totals.data_bytes,
        .sent_bytes = t->totals.sent_bytes,
        .same_bytes = t->totals.same_bytes,
        .ended = t->done,
    };

    if (r->events->progress != NULL)
        r->events->progress(r->events->context, &p);
}

static void notice(void *context, const struct transfer_disk *t, enum transfer_notice kind,
                   const char *text)
{
    struct vm_read *r = context;
    struct err e;

    if (kind == NOTICE_WRONG_HINT) { /* what follows from it is for the run to say */
        log_warning("%s: disk %s: %s", r->vm->name, t->name, text);
        return;
    }
    if (kind != NOTICE_WRONG_MAP) {
        log_note("%s: disk %s: %s", r->vm->name, t->name, text);
        return;
    }
    log_warning("%s: disk %s: %s; this host's maps are not used any more", r->vm->name, t->name,
                text);
    if (hints_turn_off(state_fd(r->options->state), HINT_MAPS, r->host->uuid, &e) != 0)
        log_warning("%s: %s", state_dir(r->options->state), e.text);
}

static int pace(void *context, size_t payload_bytes, struct err *e)
{
    const struct vm_read *r = context;

    return pacer_take(r->options->pacer, payload_bytes, e);
}

/*
 * A connection that lives again, in place of the dead one.  When all tries have failed once, the
 * host counts as lost: after that one more look is all, at the clean-up.
 */
static int reconnect(struct vm_read *r, struct err *e)
{
    uint64_t until_ms = io_clock_ms() + RECONNECT_WITHIN_MS;
    unsigned tries = r->lost ? 1 : RECONNECT_TRIES;
    struct transport *fresh = NULL;

    for (unsigned i = 0; i < tries && io_clock_ms() < until_ms; i++) {
        if (i > 0 && stop_sleep((uint64_t)RECONNECT_PAUSE_MS << i, e) != 0)
            return -1;
        if (r->options->connect.open(r->options->connect.context, &fresh, e) == 0)
            break;
        if (e->code != ERR_NETWORK)
            return -1;
    }
    r->lost = fresh == NULL;
    if (fresh == NULL)
        return -1;
    host_rebind(r->host, fresh);
    (*r->transport)->ops->close(*r->transport);
    *r->transport = fresh;
    return 0;
}

static int ensure_connected(struct vm_read *r, struct err *e)
{
    struct transport *t = r->host->transport;

    if (t->ops->alive(t, NULL))
        return 0;
    log_note("%s: the connection to the host was cut: connecting again", r->vm->name);
    return reconnect(r, e);
}

/* What failed may be done again over a new connection. */
static bool cut_just_now(const struct vm_read *r, const struct err *e)
{
    return e->code == ERR_NETWORK && !r->host->transport->ops->alive(r->host->transport, NULL);
}

/* The control connection is dead: connect again if need be, and start another source end. */
static int renew(void *context, struct agent_session **a, const struct err *why, struct err *e)
{
    struct vm_read *r = context;

    log_note("%s: the session with the host ended (%s)", r->vm->name, why->text);
    r->session = *a; /* NULL when the one before did not even start */
    end_session(r);
    *a = NULL;
    if (r->lost) {
        *e = *why;
        return -1;
    }
    if (stop_check(e) != 0 || ensure_connected(r, e) != 0)
        return -1;
    if (r->snapshot != NULL && snapshot_check(r->host, r->snapshot, e) != 0)
        return -1;
    if (start_session(r, e) != 0)
        return -1;
    *a = r->session;
    return 0;
}

/* Run the readable disks: they lie scattered in r->disks, the transfer wants them in a row. */
int vm_read_transfer(struct vm_read *r, struct err *e)
{
    struct transfer_options options = {
        .channel = r->read_path != READ_PATH_AGENT         ? CHANNEL_SSH
                   : r->options->data.channel == DATA_AUTO ? CHANNEL_AUTO
                   : r->options->data.channel == DATA_TCP  ? CHANNEL_TCP
                                                           : CHANNEL_SSH,
        .compress = r->read_path == READ_PATH_AGENT ? r->options->compress : 0,
        .rate_bytes = r->options->bwlimit,
        .window_bytes = (size_t)share_of(r, TRANSFER_WINDOW_BYTES, WINDOW_LEAST),
        .full = r->options->full,
        .context = r,
        .renew = renew,
        .watch = watch,
        .progress = show,
        .pace = r->options->pacer != NULL ? pace : NULL,
        .notice = notice,
    };
    struct transfer_disk *row = calloc(r->disk_count > 0 ? r->disk_count : 1, sizeof *row);
    size_t count = 0;
    int rc;

    if (row == NULL)
        return err_sys(e, "getting memory for disks");
    for (size_t i = 0; i < r->disk_count; i++)
        if (r->disks[i].readable)
            row[count++] = r->disks[i].transfer;
    rc = transfer_run(&r->session, row, count, &options, e);
    count = 0;
    for (size_t i = 0; i < r->disk_count; i++)
        if (r->disks[i].readable)
            r->disks[i].transfer = row[count++];
    free(row);
    return rc;
}

int vm_read_again(struct vm_read *r, struct err *e)
{
    end_session(r);
    for (size_t i = 0; i < r->disk_count; i++) {
        struct transfer_disk *t = &r->disks[i].transfer;

        t->sink = NULL;
        t->since = NULL;
        t->totals = (struct sink_totals){ 0 };
        t->hint_wrong = t->done = false;
        t->why = (struct err){ 0 };
    }
    return vm_read_quiet(r, e) == 0 ? start_session(r, e) : -1;
}

enum data_carrier vm_read_carrier(const struct vm_read *r)
{
    enum data_carrier c = CARRIER_UNKNOWN;

    for (size_t i = 0; i < r->disk_count; i++)
        if (r->disks[i].readable)
            c = r->disks[i].transfer.over_tcp && c != CARRIER_SSH ? CARRIER_TCP : CARRIER_SSH;
    return c;
}

/* ---- end ---- */

int vm_read_settle(struct vm_read *r, struct err *e)
{
    if (r->readable == 0)
        return 0;
    for (unsigned i = 0;; i++) {
        if (ensure_connected(r, e) != 0)
            return -1;
        if (failpoint("read.settle", e) == 0 &&
            chain_recheck(r->host, r->vm, r->snapshot, r->stores, &r->plan, e) == 0)
            break;
        if (i == REPEATS_MAX || !cut_just_now(r, e))
            return -1;
    }
    end_session(r);
    return 0;
}

int vm_read_quiet(struct vm_read *r, struct err *e)
{
    if (ensure_connected(r, e) != 0 ||
        (r->orphaned && r->agent_placed && place_wait_ended(r->host, r->placed.folder, e) != 0))
        return -1;
    r->orphaned = false;
    return 0;
}

/* Snapshot first, its life is to be short; not under an agent that may still read. */
static int take_back(struct vm_read *r, struct err *e)
{
    struct err why;
    int rc = 0;

    if (vm_read_quiet(r, e) != 0)
        return -1;
    if (r->snapshot != NULL) {
        step(r, "removing the snapshot");
        rc = snapshot_remove(r->host, r->snapshot, e);
        if (rc == 0) {
            snapshot_free(r->snapshot);
            r->snapshot = NULL;
        } else if (cut_just_now(r, e)) {
            return -1;
        }
    }
    if (r->agent_placed && place_remove(r->host, &r->placed, &why) != 0 && rc == 0) {
        *e = why;
        rc = -1;
    }
    return rc;
}

int vm_read_release(struct vm_read *r, struct err *e)
{
    int rc;

    end_session(r);
    if (r->snapshot == NULL && !r->agent_placed)
        return 0;
    for (unsigned i = 0;; i++) {
        rc = ensure_connected(r, e);
        if (rc != 0)
            break;
        rc = take_back(r, e);
        if (rc == 0 || i == REPEATS_MAX || !cut_just_now(r, e))
            break;
    }
    snapshot_free(r->snapshot);
    r->snapshot = NULL;
    r->agent_placed = false;
    return rc;
}

void vm_read_free(struct vm_read *r)
{
    end_session(r);
    snapshot_free(r->snapshot);
    vmdk_files_close(r->dd_files);
    placed_free(&r->placed);
    chain_plan_free(&r->plan);
    for (size_t i = 0; i < r->disk_count; i++)
        hole_map_free(&r->disks[i].holes);
    free(r->disks);
    free(r->listen_address);
    free(r->dial_address);
}
