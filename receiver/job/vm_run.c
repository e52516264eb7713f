#include "receiver/job/vm_job.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/stream/sink.h"
#include "receiver/base/log.h"
#include "receiver/base/stop.h"
#include "receiver/host/host.h"
#include "receiver/host/snapshot.h"
#include "receiver/job/retain.h"
#include "receiver/job/vm_files.h"
#include "receiver/job/vm_read.h"

/* All that one VM's run holds. */
struct work {
    const struct vm_job *job;
    struct vm_result *result;
    struct datastore_list stores;
    struct vm_read read;
    struct vm_config config;
    const struct vm_store *ops;
    void *store;         /* what ops->open made; NULL before */
    struct sink **sinks; /* one for each disk of read, NULL where none */
    struct retain retain;
    bool first;
    bool committed;
    struct store_made made; /* when committed */
    char snapshot_name[SNAPSHOT_NAME_ROOM];
};

static void step(struct work *w, const char *what)
{
    if (w->job->events->step != NULL)
        w->job->events->step(w->job->events->context, w->job->vm->name, what);
}

/* ---- before the snapshot ---- */

static int look_once(struct work *w, struct err *e)
{
    const struct vm_job *job = w->job;

    vm_read_free(&w->read);
    datastore_list_free(&w->stores);
    w->read = (struct vm_read){ 0 };
    if (host_vm_details(job->host, job->vm, e) != 0 ||
        host_datastores(job->host, &w->stores, e) != 0)
        return -1;
    w->read = (struct vm_read){
        .options = job->options,
        .events = job->events,
        .host = job->host,
        .transport = job->transport,
        .journal = job->journal,
        .vm = job->vm,
        .stores = &w->stores,
        .store = job->job->store_name,
    };
    return vm_read_look(&w->read, e);
}

static int look(struct work *w, struct err *e)
{
    const struct vm_job *job = w->job;

    if (!job->vm->connected)
        return err_set(e, ERR_SOURCE, "the host says it is %s", job->vm->connection);
    if (look_once(w, e) != 0) {
        if (e->code != ERR_UNSUPPORTED || job->options->dry_run)
            return -1;
        /* Links that we do not read may be another run's, and gone when it has ended. */
        if (snapshot_wait_turn(job->host, job->journal, job->vm, job->options->lock_wait_s * 1000,
                               NULL, e) != 0)
            return -1;
        if (look_once(w, e) != 0)
            return -1;
    }
    if (job->vm->consolidation_needed)
        log_warning("%s: its disks need consolidation (snapshot files are left over)",
                    job->vm->name);
    return 0;
}

static int open_store(struct work *w, struct err *e)
{
    const struct vm_job *job = w->job;

    if (job->uuid_shared)
        log_warning(
            "%s: another VM of this host has the same instance UUID; they are told apart by "
            "the place of their configuration files",
            job->vm->name);
    return w->ops->open(job, &w->store, e);
}

static int begin_run(struct work *w, struct err *e)
{
    size_t count = w->read.disk_count;
    struct store_disk *disks = calloc(count > 0 ? count : 1, sizeof *disks);
    int rc;

    if (disks == NULL)
        return err_sys(e, "getting memory for disks");
    for (size_t i = 0; i < count; i++) {
        const struct read_disk *d = &w->read.disks[i];

        disks[i] = (struct store_disk){
            .slot = d->slot,
            .uuid = d->uuid,
            .label = i < w->job->vm->disks.count && w->job->vm->disks.items[i].file != NULL
                         ? w->job->vm->disks.items[i].file
                         : "",
            .capacity_bytes = d->capacity_bytes,
            .included = d->readable,
        };
    }
    rc = w->ops->begin(w->store, disks, count, &w->first, e);
    free(disks);
    return rc;
}

/* How the changes of a disk are found, for the plan. */
static const char *way_of_changes(const struct work *w, const struct read_disk *d)
{
    if (w->job->options->full)
        return "all is sent";
    if (w->first)
        return "for the first time";
    if (w->retain.audit)
        return "everything is compared: an audit";
    return d->transfer.since != NULL ? "what was written since the kept snapshot"
                                     : "changes by digests";
}

static void tell_plan(struct work *w)
{
    for (size_t i = 0; i < w->read.disk_count; i++) {
        const struct read_disk *d = &w->read.disks[i];
        char line[600], size[SIZE_TEXT_BYTES];

        if (!d->wanted)
            snprintf(line, sizeof line, "%s: left out, as asked", d->slot);
        else if (!d->readable)
            snprintf(line, sizeof line, "%s: cannot be read: %s", d->slot, d->why.text);
        else
            snprintf(line, sizeof line, "%s: %s, %s%s, %s", d->slot,
                     size_text(size, d->capacity_bytes),
                     w->read.way == CHAIN_DIRECTLY ? "read as it is" : "read below a snapshot",
                     w->read.read_path == READ_PATH_SSH_DD  ? " with dd over SSH"
                     : w->read.read_path == READ_PATH_AGENT ? " by the agent"
                                                            : "",
                     way_of_changes(w, d));
        if (w->job->events->plan != NULL)
            w->job->events->plan(w->job->events->context, w->job->vm->name, line);
    }
}

/* ---- with the snapshot ---- */

static int open_sinks(struct work *w, struct err *e)
{
    w->sinks = calloc(w->read.disk_count > 0 ? w->read.disk_count : 1, sizeof *w->sinks);
    if (w->sinks == NULL)
        return err_sys(e, "getting memory for disks");
    for (size_t i = 0; i < w->read.disk_count; i++) {
        if (!w->read.disks[i].readable)
            continue;
        if (w->ops->sink(w->store, i, &w->sinks[i], e) != 0)
            return err_add(e, "disk %s", w->read.disks[i].slot);
        w->read.disks[i].transfer.sink = w->sinks[i];
    }
    return 0;
}

static void close_sinks(struct work *w)
{
    for (size_t i = 0; w->sinks != NULL && i < w->read.disk_count; i++)
        if (w->sinks[i] != NULL)
            w->sinks[i]->ops->close(w->sinks[i]);
    free(w->sinks);
    w->sinks = NULL;
}

/* Bytes on the data channel.  What `dd` prints crosses it as it is, for the plan and for samples.
 */
static uint64_t sent_bytes(const struct work *w, const struct transfer_disk *t)
{
    return w->read.read_path == READ_PATH_SSH_DD ? t->totals.read_bytes + t->totals.sampled_bytes
                                                 : t->totals.sent_bytes;
}

static int commit(struct work *w, struct err *e)
{
    struct vm_result *v = w->result;
    size_t count = w->read.disk_count;
    struct store_disk_facts *disks = calloc(count > 0 ? count : 1, sizeof *disks);
    struct store_facts facts = {
        .time = w->read.frozen,
        .kind = w->first || w->job->options->full ? "full" : "changed",
        .outcome = w->read.left_unread > 0 ? "partial" : "ok",
        .consistency = consistency_name(v->consistency),
        .data_channel = data_carrier_name(v->data_channel),
        .read_path = read_path_name(v->read_path),
        .change_source = change_source_name(v->change_source),
        .snapshot = w->snapshot_name,
        .disks = disks,
        .count = count,
    };
    int rc = -1;

    if (disks == NULL)
        return err_sys(e, "getting memory for disks");
    for (size_t i = 0; i < count; i++) {
        const struct transfer_disk *t = &w->read.disks[i].transfer;

        disks[i] = (struct store_disk_facts){
            .read_path = read_path_name(w->read.read_path),
            .allocated_bytes = t->allocated_bytes,
            .read_bytes = t->totals.read_bytes,
            .sampled_bytes = t->totals.sampled_bytes,
            .sent_bytes = sent_bytes(w, t),
            .milliseconds = t->ms,
        };
    }
    for (size_t i = 0; i < w->config.count; i++)
        if (w->ops->file(w->store, w->config.items[i].name, w->config.items[i].data,
                         w->config.items[i].bytes, e) != 0)
            goto out;
    step(w, "committing");
    if (w->ops->commit(w->store, &facts, &w->made, e) != 0)
        goto out;
    w->committed = true;
    v->generation = w->made.number;
    snprintf(v->id, sizeof v->id, "%s", w->made.id);
    rc = 0;
out:
    free(disks);
    return rc;
}

/*
 * The change hint was wrong.  What has come is told against what it claimed, so the store begins
 * anew, and every disk is read whole, below the same snapshot.
 */
static int transfer_whole(struct work *w, enum retain_fault fault, struct err *e)
{
    if (fault == RETAIN_WRONG)
        retain_distrust(&w->retain);
    log_warning("%s: %s; its disks are read again, whole", w->job->vm->name, e->text);
    retain_drop(&w->retain);
    close_sinks(w);
    w->ops->close(w->store);
    w->store = NULL;
    if (w->ops->open(w->job, &w->store, e) != 0 || begin_run(w, e) != 0)
        return -1;
    w->retain.store = w->store;
    step(w, "reading everything again");
    if (vm_read_again(&w->read, e) != 0 || open_sinks(w, e) != 0 ||
        vm_read_transfer(&w->read, e) != 0)
        return -1;
    if (fault == RETAIN_MAYBE)
        retain_distrust(&w->retain);
    return 0;
}

static int transfer(struct work *w, struct err *e)
{
    enum retain_fault fault;

    if (open_sinks(w, e) == 0 && vm_read_transfer(&w->read, e) == 0)
        return 0;
    fault = retain_fault(&w->retain, &w->read, e);
    return fault != RETAIN_NONE ? transfer_whole(w, fault, e) : -1;
}

/* From the agent's place to the published commit record. */
static int read_and_commit(struct work *w, struct err *e)
{
    struct vm_result *v = w->result;

    w->read.keeps = w->retain.keeps;
    w->read.twice = w->retain.keeps || w->retain.usable;
    w->read.audit = w->retain.audit;
    w->read.held = retain_token(&w->retain);
    if (vm_read_begin(&w->read, e) != 0 || retain_judge(&w->retain, &w->read, e) != 0)
        return -1;
    v->consistency = w->read.consistency;
    v->read_path = w->read.read_path;
    if (w->read.snapshot != NULL)
        snprintf(w->snapshot_name, sizeof w->snapshot_name, "%s", w->read.snapshot->name);
    tell_plan(w);
    if (transfer(w, e) != 0)
        return -1;
    v->change_source = retain_source(&w->retain, &w->read, w->first);
    v->data_channel = vm_read_carrier(&w->read);
    if (vm_read_settle(&w->read, e) != 0)
        return -1;
    close_sinks(w);
    return commit(w, e);
}

/* ---- results ---- */

static void fill_disks(struct work *w)
{
    struct err e;

    for (size_t i = 0; i < w->read.disk_count; i++) {
        const struct read_disk *d = &w->read.disks[i];
        const struct transfer_disk *t = &d->transfer;
        struct disk_result *r = vm_result_add_disk(w->result, d->slot, &e);
        uint64_t changed, stored;

        if (r == NULL)
            return;
        r->capacity = d->capacity_bytes;
        r->left_out = !d->readable;
        r->why = d->readable ? t->why : d->why;
        if (!d->readable || !w->read.read_path)
            continue;
        r->read_path = w->read.read_path;
        r->allocated = t->allocated_bytes;
        r->read = t->totals.read_bytes;
        r->sampled = t->totals.sampled_bytes;
        r->sent = sent_bytes(w, t);
        r->ms = t->ms;
        r->root_known = t->done;
        r->root = t->root;
        if (w->committed && w->ops->result(w->store, i, &changed, &stored) == 0) {
            r->changed = changed;
            r->stored = stored;
        }
    }
}

/* Behind the commit: the run is good unless the store cannot follow. */
static void complete(struct work *w)
{
    if (w->read.left_unread > 0) {
        w->result->outcome = OUTCOME_PARTIAL;
        for (size_t i = 0; i < w->read.disk_count; i++)
            if (w->read.disks[i].wanted && !w->read.disks[i].readable)
                w->result->why = w->read.disks[i].why;
    } else {
        w->result->outcome = OUTCOME_OK;
    }
    if (w->ops->complete != NULL)
        w->ops->complete(w->store, w->result);
}

/* What is still on the host by our fault, for the result. */
static void note_left(struct work *w, bool good, const struct err *why)
{
    struct err e = *why;

    err_add(&e, "something of this run is left on the host (`vmferry cleanup` takes it away)");
    w->result->cleanup_left = true;
    if (good && w->result->why.code == ERR_NONE)
        w->result->why = e; /* the report shows it */
    else
        log_warning("%s: %s", w->job->vm->name, e.text);
}

static int run(struct work *w, struct err *e)
{
    const struct vm_job *job = w->job;
    struct err why;
    int rc;

    if (look(w, e) != 0 || open_store(w, e) != 0 || begin_run(w, e) != 0)
        return -1;
    if (job->options->dry_run) {
        tell_plan(w);
        fill_disks(w);
        w->result->change_source = w->first || job->options->full ? CHANGE_FULL : CHANGE_DIGEST;
        w->result->outcome = OUTCOME_SKIPPED;
        return 0;
    }
    if (retain_begin(&w->retain, job, w->store, e) != 0)
        return -1;
    step(w, "reading the configuration");
    if (vm_config_read(job->host, job->vm, &w->stores, &w->config, e) != 0)
        return -1;
    rc = read_and_commit(w, e);
    close_sinks(w);
    if (rc == 0 && retain_finish(&w->retain, &w->read, &w->made, &why) != 0)
        note_left(w, true, &why);
    /* The snapshot goes whatever came out, unless it is kept on purpose, and before the images are
     * touched: its life is short. */
    if (vm_read_release(&w->read, &why) != 0)
        note_left(w, rc == 0, &why);
    fill_disks(w);
    if (rc == 0)
        complete(w);
    return rc;
}

void vm_run(const struct vm_job *job, struct vm_result *result)
{
    struct work w = { .job = job, .result = result, .ops = job->job->store };
    uint64_t began_ms = io_clock_ms();
    struct err e = { 0 };

    result->vmid = job->vm->vmid;
    result->vmid_known = true;
    snprintf(result->uuid, sizeof result->uuid, "%s", job->vm->instance_uuid);
    if (run(&w, &e) != 0) {
        result->outcome = OUTCOME_FAILED;
        result->why = e;
        if (e.os == ENOSPC || e.os == EDQUOT)
            log_note("%s: make room there and run again: what has come is kept", job->vm->name);
    }
    retain_end(&w.retain);
    vm_read_free(&w.read);
    vm_config_free(&w.config);
    if (w.store != NULL)
        w.ops->close(w.store);
    datastore_list_free(&w.stores);
    result->ms = io_clock_ms() - began_ms;
}
