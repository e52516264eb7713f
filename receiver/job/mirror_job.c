/* The mirror as a store of a run over VMs. */
#include "receiver/job/mirror_job.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/base/stop.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/job/vm_job.h"
#include "receiver/mirror/mirror.h"

enum { SLICE_MS = 10000 };

/* One VM's mirror at work. */
struct work {
    const struct vm_job *job;
    const struct mirror_options *options;
    struct mirror *mirror;
    struct mirror_run *run;
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

static void close_mirror(void *store)
{
    struct work *w = store;

    if (w->run != NULL)
        mirror_run_end(w->run);
    mirror_close(w->mirror);
    free(w);
}

static int open_mirror(const struct vm_job *job, void **store, struct err *e)
{
    const struct mirror_vm vm = {
        .host_uuid = job->host->uuid,
        .host_name = job->options->host_name,
        .uuid = job->vm->instance_uuid,
        .vmx_path = job->vm->vmx,
        .name = job->vm->name,
        .uuid_shared = job->uuid_shared,
    };
    struct work *w = calloc(1, sizeof *w);
    struct mirror_env env = {
        .warn = warn,
        .progress = long_work,
        .context = w,
        .stop = stop_flag(),
        .lock_wait_ms = job->options->lock_wait_s * 1000,
    };

    if (w == NULL)
        return err_sys(e, "getting memory");
    w->job = job;
    w->options = job->job->context;
    *store = w;
    return mirror_open_vm(&w->mirror, w->options->dir, &vm, job->options->dry_run, &env, e);
}

/* Earlier generations go with a lower --keep: a person at a terminal may say so. */
static bool agrees_to_keep_fewer(struct work *w)
{
    const struct mirror_options *o = w->options;
    char question[MIRROR_TEXT_MAX + 200];

    if (o->run.ask == NULL)
        return false;
    snprintf(question, sizeof question,
             "%s keeps %u earlier generations; with --keep %" PRIu32 " older ones are lost. Go on?",
             w->job->vm->name, mirror_keep(w->mirror), o->keep);
    return o->run.ask(o->run.ask_context, question) == 1;
}

static int begin_mirror(void *store, const struct store_disk *given, size_t count, bool *first,
                        struct err *e)
{
    struct work *w = store;
    const struct mirror_options *o = w->options;
    struct mirror_run_options options = {
        .keep = o->keep_given ? (int)o->keep : -1,
        .keep_lower = o->run.yes,
        .block_bytes = o->block_bytes,
    };
    struct mirror_disk *disks = calloc(count > 0 ? count : 1, sizeof *disks);
    int rc;

    if (disks == NULL)
        return err_sys(e, "getting memory for disks");
    for (size_t i = 0; i < count; i++)
        disks[i] = (struct mirror_disk){
            .slot = given[i].slot,
            .uuid = given[i].uuid,
            .label = given[i].label,
            .capacity_bytes = given[i].capacity_bytes,
            .included = given[i].included,
        };
    *first = mirror_newest(w->mirror) == 0;
    if (o->keep_given && o->keep < mirror_keep(w->mirror) && !options.keep_lower && !o->run.dry_run)
        options.keep_lower = agrees_to_keep_fewer(w);
    rc = mirror_run_begin(&w->run, w->mirror, &options, disks, count, e);
    free(disks);
    return rc;
}

static void head_of_mirror(void *store, struct store_head *out)
{
    struct work *w = store;
    struct mirror_head head;

    mirror_head(w->mirror, &head);
    *out = (struct store_head){ .generation = head.number, .next = head.number + 1 };
    snprintf(out->store_id, sizeof out->store_id, "mirror:%s", head.mirror);
    snprintf(out->generation_id, sizeof out->generation_id, "%s", head.id);
}

static bool mirror_holds(void *store, size_t index, struct digest *root)
{
    struct work *w = store;

    return mirror_run_held(w->run, index, root);
}

static int unstage_mirror(void *store, size_t index, struct err *e)
{
    struct work *w = store;

    return mirror_run_unstage(w->run, index, e);
}

static int mirror_sink(void *store, size_t index, struct sink **out, struct err *e)
{
    struct work *w = store;

    return mirror_run_sink(w->run, index, out, e);
}

static int put_file(void *store, const char *name, const void *data, size_t count, struct err *e)
{
    struct work *w = store;

    return mirror_run_config_file(w->run, name, data, count, e);
}

static int commit_mirror(void *store, const struct store_facts *f, struct store_made *out,
                         struct err *e)
{
    struct work *w = store;
    struct mirror_disk_facts *disks = calloc(f->count > 0 ? f->count : 1, sizeof *disks);
    struct mirror_committed made;
    const struct mirror_facts facts = {
        .time = f->time,
        .kind = f->kind,
        .outcome = f->outcome,
        .consistency = f->consistency,
        .data_channel = f->data_channel,
        .read_path = f->read_path,
        .change_source = f->change_source,
        .snapshot = f->snapshot,
        .disks = disks,
    };
    int rc;

    if (disks == NULL)
        return err_sys(e, "getting memory for disks");
    for (size_t i = 0; i < f->count; i++)
        disks[i] = (struct mirror_disk_facts){
            .read_path = f->disks[i].read_path,
            .allocated_bytes = f->disks[i].allocated_bytes,
            .read_bytes = f->disks[i].read_bytes,
            .sampled_bytes = f->disks[i].sampled_bytes,
            .sent_bytes = f->disks[i].sent_bytes,
            .milliseconds = f->disks[i].milliseconds,
        };
    rc = mirror_run_commit(w->run, &facts, &made, e);
    free(disks);
    if (rc != 0)
        return -1;
    out->number = made.number;
    snprintf(out->id, sizeof out->id, "%s", made.id);
    return 0;
}

static int result_of_disk(void *store, size_t index, uint64_t *changed_bytes,
                          uint64_t *stored_bytes)
{
    struct work *w = store;
    struct mirror_disk_result r;

    if (mirror_run_result(w->run, index, &r) != 0)
        return -1;
    *changed_bytes = r.changed_bytes;
    *stored_bytes = r.stored_bytes;
    return 0;
}

/* The images could not be brought to the committed generation. */
static void not_applied(struct work *w, struct vm_result *v, const struct err *e)
{
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

static void complete_mirror(void *store, struct vm_result *v)
{
    struct work *w = store;
    uint64_t read_bytes = 0;
    struct err e;

    step(w, "updating the images");
    if (mirror_run_apply(w->run, &e) != 0) {
        not_applied(w, v, &e);
        return;
    }
    mirror_run_end(w->run);
    w->run = NULL;
    step(w, "checking a part of the images");
    if (mirror_verify_slice(w->mirror, SLICE_MS, &read_bytes, &e) != 0 && e.code == ERR_CORRUPT) {
        log_warning("%s: %s; the next run reads that disk whole", w->job->vm->name, e.text);
        v->outcome = OUTCOME_FAILED;
        v->why = e;
    }
}

static const struct vm_store mirror_store = {
    .open = open_mirror,
    .begin = begin_mirror,
    .head = head_of_mirror,
    .held = mirror_holds,
    .unstage = unstage_mirror,
    .sink = mirror_sink,
    .file = put_file,
    .commit = commit_mirror,
    .result = result_of_disk,
    .complete = complete_mirror,
    .close = close_mirror,
};

int mirror_job(const struct mirror_options *options, const struct run_events *events,
               struct run_result *out, struct err *e)
{
    char name[MIRROR_TEXT_MAX];
    const struct vms_job job = {
        .options = &options->run,
        .vms = options->vms,
        .vm_count = options->vm_count,
        .store = &mirror_store,
        .context = options,
        .store_name = name,
    };

    snprintf(name, sizeof name, "mirror %s", options->dir);
    return vms_run(&job, events, out, e);
}
