/* The repository as a store of a run over VMs. */
#include "receiver/job/repo_job.h"

#include <stdio.h>
#include <stdlib.h>

#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/job/repo_plan.h"
#include "receiver/job/vm_job.h"
#include "receiver/repo/repo_care.h"
#include "receiver/repo/repo_run.h"

/* One VM's run. */
struct work {
    const struct vm_job *job;
    const struct backup_options *options;
    struct repo_run *run;
};

static int open_repository(const struct vm_job *job, void **store, struct err *e)
{
    struct work *w = calloc(1, sizeof *w);

    if (w == NULL)
        return err_sys(e, "getting memory");
    w->job = job;
    w->options = job->job->context;
    *store = w;
    return 0;
}

static void close_repository(void *store)
{
    struct work *w = store;

    repo_run_end(w->run);
    free(w);
}

static int tell_plan(struct work *w, const struct store_disk *given, size_t count, struct err *e)
{
    const char **slots = calloc(count > 0 ? count : 1, sizeof *slots);

    if (slots == NULL)
        return err_sys(e, "getting memory for disks");
    for (size_t i = 0; i < count; i++)
        slots[i] = given[i].included ? given[i].slot : NULL;
    repo_plan_tell(w->run, slots, count, w->job->options->full, w->job->vm->name, w->job->events);
    free(slots);
    return 0;
}

static int begin_repository(void *store, const struct store_disk *given, size_t count, bool *first,
                            struct err *e)
{
    struct work *w = store;
    const struct vm_job *job = w->job;
    const struct repo_vm vm = {
        .host_uuid = job->host->uuid,
        .host_name = job->options->host_name,
        .uuid = job->vm->instance_uuid,
        .vmx_path = job->vm->vmx,
        .name = job->vm->name,
        .uuid_shared = job->uuid_shared,
    };
    const struct repo_run_options options = {
        .block_bytes = w->options->block_bytes,
        .no_parent = job->options->full,
        .only_look = job->options->dry_run,
        .ask_when = w->options->ask_first,
    };
    struct repo_disk *disks;
    int rc;

    disks = calloc(count > 0 ? count : 1, sizeof *disks);
    if (disks == NULL)
        return err_sys(e, "getting memory for disks");
    for (size_t i = 0; i < count; i++)
        disks[i] = (struct repo_disk){
            .slot = given[i].slot,
            .uuid = given[i].uuid,
            .label = given[i].label,
            .capacity_bytes = given[i].capacity_bytes,
            .included = given[i].included,
        };
    rc = repo_run_begin(&w->run, w->options->repo, &vm, &options, disks, count, e);
    free(disks);
    if (rc != 0)
        return -1;
    *first = repo_run_parent(w->run) == 0;
    if (job->options->dry_run)
        return tell_plan(w, given, count, e);
    for (size_t i = 0; i < count; i++)
        if (repo_run_disk(w->run, i)->resumed)
            log_note("%s: %s: an unfinished run is gone on with", job->vm->name, given[i].slot);
    return 0;
}

static void head_of_repository(void *store, struct store_head *out)
{
    struct work *w = store;
    char repository[REPO_KEY_HEX_BYTES], vm[REPO_KEY_HEX_BYTES];
    struct repo_head head;

    repo_run_head(w->run, &head);
    repo_key_hex(&head.repository, repository);
    repo_key_hex(&head.vm, vm);
    *out = (struct store_head){ .generation = head.number, .next = head.next };
    snprintf(out->store_id, sizeof out->store_id, "repository:%s/%s", repository, vm);
    if (head.number > 0)
        repo_key_hex(&head.key, out->generation_id);
}

static bool repository_holds(void *store, size_t index, struct digest *root)
{
    struct work *w = store;

    return repo_run_held(w->run, index, root);
}

static int unstage_repository(void *store, size_t index, struct err *e)
{
    struct work *w = store;

    (void)e;
    repo_run_unstage(w->run, index);
    return 0;
}

static int repository_sink(void *store, size_t index, struct sink **out, struct err *e)
{
    struct work *w = store;

    return repo_run_sink(w->run, index, out, e);
}

static int put_file(void *store, const char *name, const void *data, size_t count, struct err *e)
{
    struct work *w = store;

    return repo_run_file(w->run, name, data, count, e);
}

static int commit_repository(void *store, const struct store_facts *f, struct store_made *out,
                             struct err *e)
{
    struct work *w = store;
    struct repo_disk_facts *disks = calloc(f->count > 0 ? f->count : 1, sizeof *disks);
    struct repo_committed made;
    const struct repo_run_facts facts = {
        .time = f->time,
        .kind = f->kind,
        .outcome = f->outcome,
        .consistency = f->consistency,
        .data_channel = f->data_channel != NULL ? f->data_channel : "",
        .read_path = f->read_path != NULL ? f->read_path : "",
        .change_source = f->change_source,
        .snapshot = f->snapshot,
        .disks = disks,
    };
    int rc;

    if (disks == NULL)
        return err_sys(e, "getting memory for disks");
    for (size_t i = 0; i < f->count; i++)
        disks[i] = (struct repo_disk_facts){
            .read_path = f->disks[i].read_path != NULL ? f->disks[i].read_path : "",
            .allocated_bytes = f->disks[i].allocated_bytes,
            .read_bytes = f->disks[i].read_bytes,
            .sampled_bytes = f->disks[i].sampled_bytes,
            .sent_bytes = f->disks[i].sent_bytes,
            .milliseconds = f->disks[i].milliseconds,
        };
    rc = repo_run_commit(w->run, &facts, &made, e);
    free(disks);
    if (rc != 0)
        return -1;
    out->number = made.number;
    repo_key_hex(&made.key, out->id);
    return 0;
}

static int result_of_disk(void *store, size_t index, uint64_t *changed_bytes,
                          uint64_t *stored_bytes)
{
    struct work *w = store;
    struct repo_disk_result r;

    if (repo_run_result(w->run, index, &r) != 0)
        return -1;
    *changed_bytes = r.changed_bytes;
    *stored_bytes = r.stored_bytes;
    return 0;
}

static void complete_repository(void *store, struct vm_result *v)
{
    struct work *w = store;
    struct repo_key vm;
    struct err e;

    repo_run_vm(w->run, &vm);
    for (size_t i = 0; i < w->options->tag_count; i++)
        if (repo_tag_add(w->options->repo, &vm, v->generation, w->options->tags[i], &e) != 0) {
            v->outcome = OUTCOME_FAILED;
            v->why = e;
            err_add(&v->why, "the generation is there, but not its tag");
        }
}

static const struct vm_store repository_store = {
    .open = open_repository,
    .begin = begin_repository,
    .head = head_of_repository,
    .held = repository_holds,
    .unstage = unstage_repository,
    .sink = repository_sink,
    .file = put_file,
    .commit = commit_repository,
    .result = result_of_disk,
    .complete = complete_repository,
    .close = close_repository,
};

int repo_job(const struct backup_options *options, const struct run_events *events,
             struct run_result *out, struct err *e)
{
    char name[1100];
    const struct vms_job job = {
        .options = &options->run,
        .vms = options->vms,
        .vm_count = options->vm_count,
        .store = &repository_store,
        .context = options,
        .store_name = name,
    };

    snprintf(name, sizeof name, "backup %.1000s", options->repo_name);
    return vms_run(&job, events, out, e);
}
