#include "receiver/job/mirror_vm.h"

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
#include "receiver/job/vm_files.h"
#include "receiver/job/vm_read.h"
#include "receiver/mirror/mirror.h"

enum { SLICE_MS = 10000 };

/* All that one VM's run holds. */
struct work {
    const struct mirror_vm_job *job;
    struct vm_result *result;
    struct datastore_list stores;
    struct vm_read read;
    struct vm_config config;
    struct mirror *mirror;
    struct mirror_run *run;
    struct sink **sinks; /* one for each disk of read, NULL where none */
    bool first;
    bool committed;
    char store[MIRROR_TEXT_MAX];
    char snapshot_name[SNAPSHOT_NAME_ROOM];
};

static void warn(void *context, const char *text)
{
    struct work *w = context;

    log_warning("%s: %s", w->job->vm->name, text);
}

static void long_work(void *context, const char *what, uint64_t done, uint64_t total)
{
    struct work *w = context;
    struct disk_progress p = { .vm = w->job->vm->name,
                               .disk = "",
                               .what = what,
                               .done_bytes = done,
                               .read_bytes = done,
                               .total_bytes = total,
                               .ended = done == total };

    if (w->job->events->progress != NULL)
        w->job->events->progress(w->job->events->context, &p);
}

static void step(struct work *w, const char *what)
{
    if (w->job->events->step != NULL)
        w->job->events->step(w->job->events->context, w->job->vm->name, what);
}

/* ---- before the snapshot ---- */

static int look_once(struct work *w, struct err *e)
{
    const struct mirror_vm_job *job = w->job;

    vm_read_free(&w->read);
    datastore_list_free(&w->stores);
    w->read = (struct vm_read){ 0 };
    if (host_vm_details(job->host, job->vm, e) != 0 ||
        host_datastores(job->host, &w->stores, e) != 0)
        return -1;
    w->read = (struct vm_read){
        .options = &job->options->run,
        .events = job->events,
        .host = job->host,
        .transport = job->transport,
        .journal = job->journal,
        .vm = job->vm,
        .stores = &w->stores,
        .store = w->store,
    };
    return vm_read_look(&w->read, e);
}

static int look(struct work *w, struct err *e)
{
    const struct mirror_vm_job *job = w->job;

    if (!job->vm->connected)
        return err_set(e, ERR_SOURCE, "the host says it is %s", job->vm->connection);
    snprintf(w->store, sizeof w->store, "mirror %s", job->options->dir);
    if (look_once(w, e) != 0) {
        if (e->code != ERR_UNSUPPORTED || job->options->run.dry_run)
            return -1;
        /* Links that we do not read may be another run's, and gone when it has ended. */
        if (snapshot_wait_turn(job->host, job->journal, job->vm,
                               job->options->run.lock_wait_s * 1000, e) != 0)
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
    const struct mirror_vm_job *job = w->job;
    const struct run_options *o = &job->options->run;
    struct mirror_vm vm = {
        .host_uuid = job->host->uuid,
        .host_name = o->host_name,
        .uuid = job->vm->instance_uuid,
        .vmx_path = job->vm->vmx,
        .name = job->vm->name,
        .uuid_shared = job->uuid_shared,
    };
    struct mirror_env env = {
        .warn = warn,
        .progress = long_work,
        .context = w,
        .stop = stop_flag(),
        .lock_wait_ms = o->lock_wait_s * 1000,
    };

    if (job->uuid_shared)
        log_warning(
            "%s: another VM of this host has the same instance UUID; they are told apart by "
            "the place of their configuration files",
            job->vm->name);
    return mirror_open_vm(&w->mirror, job->options->dir, &vm, o->dry_run, &env, e);
}

/* Earlier generations go with a lower --keep: a person at a terminal may say so. */
static bool agrees_to_keep_fewer(struct work *w)
{
    const struct mirror_options *o = w->job->options;
    char question[MIRROR_TEXT_MAX + 200];

    if (o->run.ask == NULL)
        return false;
    snprintf(question, sizeof question,
             "%s keeps %u earlier generations; with --keep %" PRIu32 " older ones are lost. Go on?",
             w->job->vm->name, mirror_keep(w->mirror), o->keep);
    return o->run.ask(o->run.ask_context, question) == 1;
}

static int begin_run(struct work *w, struct err *e)
{
    const struct mirror_options *o = w->job->options;
    struct mirror_run_options options = {
        .keep = o->keep_given ? (int)o->keep : -1,
        .keep_lower = o->run.yes,
        .block_bytes = o->block_bytes,
    };
    size_t count = w->read.disk_count;
    struct mirror_disk *disks = calloc(count > 0 ? count : 1, sizeof *disks);
    int rc;

    if (disks == NULL)
        return err_sys(e, "getting memory for disks");
    for (size_t i = 0; i < count; i++) {
        const struct read_disk *d = &w->read.disks[i];

        disks[i] = (struct mirror_disk){
            .slot = d->slot,
            .uuid = d->uuid,
            .label = i < w->job->vm->disks.count && w->job->vm->disks.items[i].file != NULL
                         ? w->job->vm->disks.items[i].file
                         : "",
            .capacity_bytes = d->capacity_bytes,
            .included = d->readable,
        };
    }
    w->first = mirror_newest(w->mirror) == 0;
    if (o->keep_given && o->keep < mirror_keep(w->mirror) && !options.keep_lower && !o->run.dry_run)
        options.keep_lower = agrees_to_keep_fewer(w);
    rc = mirror_run_begin(&w->run, w->mirror, &options, disks, count, e);
    free(disks);
    return rc;
}

static void tell_plan(struct work *w)
{
    const struct run_options *o = &w->job->options->run;

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
                     o->full    ? "all is sent"
                     : w->first ? "for the first time"
                                : "changes by digests");
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
        if (mirror_run_sink(w->run, i, &w->sinks[i], e) != 0)
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
    struct mirror_disk_facts *disks = calloc(count > 0 ? count : 1, sizeof *disks);
    struct mirror_committed made;
    struct mirror_facts facts = {
        .time = w->read.frozen,
        .kind = w->first || w->job->options->run.full ? "full" : "changed",
        .outcome = w->read.left_unread > 0 ? "partial" : "ok",
        .consistency = consistency_name(v->consistency),
        .data_channel = data_carrier_name(v->data_channel),
        .read_path = read_path_name(v->read_path),
        .change_source = change_source_name(v->change_source),
        .snapshot = w->snapshot_name,
        .disks = disks,
    };
    int rc = -1;

    if (disks == NULL)
        return err_sys(e, "getting memory for disks");
    for (size_t i = 0; i < count; i++) {
        const struct transfer_disk *t = &w->read.disks[i].transfer;

        disks[i] = (struct mirror_disk_facts){
            .read_path = read_path_name(w->read.read_path),
            .allocated_bytes = t->allocated_bytes,
            .read_bytes = t->totals.read_bytes,
            .sampled_bytes = t->totals.sampled_bytes,
            .sent_bytes = sent_bytes(w, t),
            .milliseconds = t->ms,
        };
    }
    for (size_t i = 0; i < w->config.count; i++)
        if (mirror_run_config_file(w->run, w->config.items[i].name, w->config.items[i].data,
                                   w->config.items[i].bytes, e) != 0)
            goto out;
    step(w, "committing");
    if (mirror_run_commit(w->run, &facts, &made, e) != 0)
        goto out;
    w->committed = true;
    v->generation = made.number;
    snprintf(v->id, sizeof v->id, "%s", made.id);
    rc = 0;
out:
    free(disks);
    return rc;
}

/* From the agent's place to the published commit record. */
static int read_and_commit(struct work *w, struct err *e)
{
    struct vm_result *v = w->result;

    if (vm_read_begin(&w->read, e) != 0)
        return -1;
    v->consistency = w->read.consistency;
    v->read_path = w->read.read_path;
    v->change_source = w->first || w->job->options->run.full ? CHANGE_FULL : CHANGE_DIGEST;
    if (w->read.snapshot != NULL)
        snprintf(w->snapshot_name, sizeof w->snapshot_name, "%s", w->read.snapshot->name);
    tell_plan(w);
    if (open_sinks(w, e) != 0 || vm_read_transfer(&w->read, e) != 0)
        return -1;
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
        struct mirror_disk_result stored;

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
        if (w->committed && mirror_run_result(w->run, i, &stored) == 0) {
            r->changed = stored.changed_bytes;
            r->stored = stored.stored_bytes;
        }
    }
}

/* The images could not be brought to the committed generation. */
static void not_applied(struct work *w, const struct err *e)
{
    struct vm_result *v = w->result;

    if (e->code == ERR_CORRUPT)
        log_warning("%s: %s; the next run reads that disk whole", w->job->vm->name, e->text);
    else
        log_warning("%s: the generation is safe, but the images are not updated yet: %s; the next "
                    "command on this mirror finishes it",
                    w->job->vm->name, e->text);
    if (e->code == ERR_BUSY) {
        v->cleanup_left = true; /* a reader is at work: nothing is wrong */
    } else if (e->code != ERR_STOPPED) {
        v->outcome = OUTCOME_FAILED;
        v->why = *e;
    }
}

/* Behind the commit: the run is good unless the images cannot follow. */
static void complete(struct work *w)
{
    uint64_t read_bytes = 0;
    struct err e;

    if (w->read.left_unread > 0) {
        w->result->outcome = OUTCOME_PARTIAL;
        for (size_t i = 0; i < w->read.disk_count; i++)
            if (w->read.disks[i].wanted && !w->read.disks[i].readable)
                w->result->why = w->read.disks[i].why;
    } else {
        w->result->outcome = OUTCOME_OK;
    }
    step(w, "updating the images");
    if (mirror_run_apply(w->run, &e) != 0) {
        not_applied(w, &e);
        return;
    }
    mirror_run_end(w->run);
    w->run = NULL;
    step(w, "checking a part of the images");
    if (mirror_verify_slice(w->mirror, SLICE_MS, &read_bytes, &e) != 0 && e.code == ERR_CORRUPT) {
        log_warning("%s: %s; the next run reads that disk whole", w->job->vm->name, e.text);
        w->result->outcome = OUTCOME_FAILED;
        w->result->why = e;
    }
}

static int run(struct work *w, struct err *e)
{
    const struct mirror_vm_job *job = w->job;
    struct err why;
    int rc;

    if (look(w, e) != 0 || open_store(w, e) != 0 || begin_run(w, e) != 0)
        return -1;
    if (job->options->run.dry_run) {
        tell_plan(w);
        w->result->outcome = OUTCOME_SKIPPED;
        return 0;
    }
    step(w, "reading the configuration");
    if (vm_config_read(job->host, job->vm, &w->stores, &w->config, e) != 0)
        return -1;
    rc = read_and_commit(w, e);
    close_sinks(w);
    /* The snapshot goes whatever came out, and before the images are touched: its life is short. */
    if (vm_read_release(&w->read, &why) != 0) {
        w->result->cleanup_left = true;
        err_add(&why,
                "something of this run is left on the host (`vmferry cleanup` takes it away)");
        if (rc == 0)
            w->result->why = why; /* the report shows it */
        else
            log_warning("%s: %s", job->vm->name, why.text);
    }
    fill_disks(w);
    if (rc == 0)
        complete(w);
    return rc;
}

void mirror_vm_run(const struct mirror_vm_job *job, struct vm_result *result)
{
    struct work w = { .job = job, .result = result };
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
    vm_read_free(&w.read);
    vm_config_free(&w.config);
    if (w.run != NULL)
        mirror_run_end(w.run);
    mirror_close(w.mirror);
    datastore_list_free(&w.stores);
    result->ms = io_clock_ms() - began_ms;
}
