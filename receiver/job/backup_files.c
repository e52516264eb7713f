#include "receiver/job/backup_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/file_source.h"
#include "protocol/block/source.h"
#include "protocol/stream/sink.h"
#include "protocol/vmdk/chain.h"
#include "receiver/base/clock.h"
#include "receiver/base/sizes.h"
#include "receiver/base/stop.h"
#include "receiver/image/local_chain.h"
#include "receiver/job/image_read.h"
#include "receiver/job/repo_plan.h"
#include "receiver/repo/repo_care.h"
#include "receiver/repo/repo_run.h"

/* Of a SCSI controller; 7 is the controller itself. */
enum { UNITS = 16, UNIT_RESERVED = 7, CONTROLLERS = 4, DISKS_MAX = CONTROLLERS * (UNITS - 1) };

static const char HOST[] = "local";

struct image {
    const char *path;
    char slot[DISK_SLOT_BYTES];
    struct local_chain chain; /* empty for a raw image */
    struct source *raw;
    struct source *source; /* one of the two */
    struct stat before;    /* of a raw image */
    struct image_read read;
    uint64_t ms;
};

struct work {
    const struct backup_files_options *o;
    const struct run_events *events;
    struct vm_result *result;
    char *name;
    struct image images[DISKS_MAX];
    size_t count;
    struct repo_run *run;
    const struct image *now; /* the one that is read */
};

/* --- the images --- */

static bool ends_with(const char *text, const char *end)
{
    size_t count = strlen(text), least = strlen(end);

    return count >= least && strcmp(text + count - least, end) == 0;
}

static int open_image(struct work *w, struct image *i, struct err *e)
{
    bool seeks_holes;

    if (ends_with(i->path, ".vmdk") && !ends_with(i->path, "-flat.vmdk")) {
        if (local_chain_open(&i->chain, i->path, w->o->volumes, w->o->volume_count, 0, e) != 0)
            return -1;
        i->source = vmdk_chain_source(i->chain.chain);
        return 0;
    }
    if (stat(i->path, &i->before) != 0)
        return err_sys(e, "%s", i->path);
    if (file_source_open(&i->raw, i->path, 0, &seeks_holes, e) != 0)
        return err_add(e, "%s", i->path);
    i->source = i->raw;
    return 0;
}

static void close_images(struct work *w)
{
    for (size_t i = 0; i < w->count; i++) {
        source_close(w->images[i].raw);
        local_chain_close(&w->images[i].chain);
    }
}

/* An image that somebody wrote to while it was read is none of any moment. */
static int check_unchanged(const struct image *i, struct err *e)
{
    struct stat now;

    if (i->chain.chain != NULL)
        return vmdk_chain_unchanged(i->chain.chain, e);
    if (stat(i->path, &now) != 0)
        return err_sys(e, "%s", i->path);
    if (now.st_dev != i->before.st_dev || now.st_ino != i->before.st_ino ||
        now.st_size != i->before.st_size || now.st_mtim.tv_sec != i->before.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != i->before.st_mtim.tv_nsec)
        return err_set(e, ERR_SOURCE, "%s was changed while it was read: is a VM using it?",
                       i->path);
    return 0;
}

static void slot_of(char out[DISK_SLOT_BYTES], size_t index)
{
    size_t controller = index / (UNITS - 1), unit = index % (UNITS - 1);

    snprintf(out, DISK_SLOT_BYTES, "scsi%zu:%zu", controller % CONTROLLERS,
             unit < UNIT_RESERVED ? unit : unit + 1);
}

/* All files of the NAME of file `first`. */
static int gather(struct work *w, size_t first, struct err *e)
{
    const char *file = w->o->files[first];
    size_t count = (size_t)(strchr(file, '=') - file);

    w->name = strndup(file, count);
    if (w->name == NULL)
        return err_sys(e, "getting memory");
    for (size_t i = first; i < w->o->count; i++) {
        const char *other = w->o->files[i];

        if (strncmp(other, file, count + 1) != 0)
            continue;
        if (w->count == DISKS_MAX)
            return err_set(e, ERR_LIMIT, "more than %d disks", DISKS_MAX);
        w->images[w->count].path = other + count + 1;
        slot_of(w->images[w->count].slot, w->count);
        w->count++;
    }
    return 0;
}

/* --- the run --- */

static int begin_run(struct work *w, struct err *e)
{
    const struct repo_vm vm = {
        .host_uuid = HOST,
        .host_name = HOST,
        .uuid = w->name,
        .vmx_path = "",
        .name = w->name,
    };
    const struct repo_run_options options = {
        .block_bytes = w->o->block_bytes,
        .no_parent = w->o->full,
        .only_look = w->o->dry_run,
    };
    struct repo_disk disks[DISKS_MAX];

    for (size_t i = 0; i < w->count; i++)
        disks[i] = (struct repo_disk){
            .slot = w->images[i].slot,
            .uuid = "",
            .label = w->images[i].path,
            .capacity_bytes = w->images[i].source->capacity_bytes,
            .included = true,
        };
    return repo_run_begin(&w->run, w->o->repo, &vm, &options, disks, w->count, e);
}

static int watch(void *context, const struct image_read *d, struct err *e)
{
    struct work *w = context;
    const struct disk_progress p = {
        .vm = w->name,
        .disk = w->now->slot,
        .done_bytes = d->done_bytes,
        .total_bytes = d->sink->capacity_bytes,
        .read_bytes = d->read_bytes,
        .sent_bytes = d->sent_bytes,
        .same_bytes = d->same_bytes,
        .ended = d->done_bytes == d->sink->capacity_bytes,
    };

    if (w->events->progress != NULL)
        w->events->progress(w->events->context, &p);
    return stop_check(e);
}

static int read_image(struct work *w, size_t index, struct err *e)
{
    struct image *i = &w->images[index];
    uint64_t began = io_clock_ms();
    struct sink *sink;
    int rc;

    if (i->chain.chain != NULL && vmdk_chain_verify(i->chain.chain, e) != 0)
        return -1;
    if (repo_run_sink(w->run, index, &sink, e) != 0)
        return -1;
    w->now = i;
    i->read = (struct image_read){
        .source = i->source,
        .sink = sink,
        .compress = w->o->compress,
        .watch = watch,
        .context = w,
    };
    rc = image_read(&i->read, e);
    if (rc == 0)
        rc = check_unchanged(i, e);
    sink->ops->close(sink);
    i->ms = io_clock_ms() - began;
    return rc == 0 ? 0 : err_add(e, "%s", i->slot);
}

static int commit(struct work *w, struct err *e)
{
    struct repo_disk_facts disks[DISKS_MAX];
    const bool first = repo_run_parent(w->run) == 0 || w->o->full;
    const struct repo_run_facts facts = {
        .time = clock_now(),
        .kind = first ? "full" : "changed",
        .outcome = "ok",
        .consistency = consistency_name(CONSISTENCY_OFF),
        .data_channel = "",
        .read_path = read_path_name(READ_PATH_FILE),
        .change_source = change_source_name(first ? CHANGE_FULL : CHANGE_DIGEST),
        .snapshot = "",
        .disks = disks,
    };
    struct repo_committed made;

    for (size_t i = 0; i < w->count; i++)
        disks[i] = (struct repo_disk_facts){
            .read_path = read_path_name(READ_PATH_FILE),
            .allocated_bytes = w->images[i].read.allocated_bytes,
            .read_bytes = w->images[i].read.read_bytes,
            .sent_bytes = w->images[i].read.sent_bytes,
            .milliseconds = w->images[i].ms,
        };
    if (repo_run_commit(w->run, &facts, &made, e) != 0)
        return -1;
    w->result->outcome = OUTCOME_OK;
    w->result->why.code = ERR_NONE;
    w->result->generation = made.number;
    repo_key_hex(&made.key, w->result->id);
    w->result->consistency = CONSISTENCY_OFF;
    w->result->read_path = READ_PATH_FILE;
    w->result->change_source = first ? CHANGE_FULL : CHANGE_DIGEST;
    return 0;
}

static int fill_disks(struct work *w, struct err *e)
{
    for (size_t i = 0; i < w->count; i++) {
        const struct image *m = &w->images[i];
        struct disk_result *d = vm_result_add_disk(w->result, m->slot, e);
        struct repo_disk_result stored;

        if (d == NULL)
            return -1;
        if (m->source != NULL)
            d->capacity = m->source->capacity_bytes;
        d->read_path = READ_PATH_FILE;
        d->allocated = m->read.allocated_bytes;
        d->read = m->read.read_bytes;
        d->sent = m->read.sent_bytes;
        d->ms = m->ms;
        if (w->result->outcome != OUTCOME_OK || repo_run_result(w->run, i, &stored) != 0)
            continue;
        d->root_known = true;
        d->root = stored.root;
        d->changed = stored.changed_bytes;
        d->stored = stored.stored_bytes;
    }
    return 0;
}

/* The generation is there; that it has its tags is worth a failure, not its loss. */
static int add_tags(struct work *w, struct err *e)
{
    struct repo_key vm;

    repo_run_vm(w->run, &vm);
    for (size_t i = 0; i < w->o->tag_count; i++)
        if (repo_tag_add(w->o->repo, &vm, w->result->generation, w->o->tags[i], e) != 0)
            return err_add(e, "generation %llu is there, but not its tag",
                           (unsigned long long)w->result->generation);
    return 0;
}

static void tell_plan(struct work *w)
{
    const char *slots[DISKS_MAX];
    char line[600], size[SIZE_TEXT_BYTES], allocated[SIZE_TEXT_BYTES];

    for (size_t i = 0; i < w->count; i++) {
        const struct image *m = &w->images[i];

        slots[i] = m->slot;
        snprintf(line, sizeof line, "%s: %s, %s of it allocated, %.400s", m->slot,
                 size_text(size, m->source->capacity_bytes),
                 size_text(allocated, m->source->allocated_bytes), m->path);
        if (w->events->plan != NULL)
            w->events->plan(w->events->context, w->name, line);
    }
    repo_plan_tell(w->run, slots, w->count, w->o->full, w->name, w->events);
}

static int run_vm(struct work *w, struct err *e)
{
    for (size_t i = 0; i < w->count; i++)
        if (open_image(w, &w->images[i], e) != 0)
            return -1;
    if (begin_run(w, e) != 0)
        return -1;
    if (w->o->dry_run) {
        tell_plan(w);
        w->result->change_source =
            w->o->full || repo_run_parent(w->run) == 0 ? CHANGE_FULL : CHANGE_DIGEST;
        w->result->outcome = OUTCOME_SKIPPED;
        w->result->why.code = ERR_NONE;
        return 0;
    }
    for (size_t i = 0; i < w->count; i++)
        if (read_image(w, i, e) != 0)
            return -1;
    return commit(w, e) == 0 && add_tags(w, e) == 0 ? 0 : -1;
}

static bool was_named_before(const struct backup_files_options *o, size_t index)
{
    size_t count = (size_t)(strchr(o->files[index], '=') - o->files[index]) + 1;

    for (size_t i = 0; i < index; i++)
        if (strncmp(o->files[i], o->files[index], count) == 0)
            return true;
    return false;
}

static int one_vm(const struct backup_files_options *o, const struct run_events *events,
                  size_t first, struct run_result *out, struct err *e)
{
    struct work *w = calloc(1, sizeof *w);
    uint64_t began = io_clock_ms();
    struct err why;
    int rc = -1;

    if (w == NULL)
        return err_sys(e, "getting memory");
    w->o = o;
    w->events = events;
    if (gather(w, first, e) != 0)
        goto out;
    w->result = run_result_add(out, w->name, e);
    if (w->result == NULL)
        goto out;
    snprintf(w->result->uuid, sizeof w->result->uuid, "%.40s", w->name);
    if (events->vm_begin != NULL)
        events->vm_begin(events->context, w->name, first, o->count);
    if (run_vm(w, &why) != 0) {
        w->result->outcome = OUTCOME_FAILED;
        w->result->why = why;
    }
    if (fill_disks(w, e) != 0)
        goto out;
    w->result->ms = io_clock_ms() - began;
    if (events->vm_end != NULL)
        events->vm_end(events->context, w->result);
    rc = 0;

out:
    repo_run_end(w->run);
    close_images(w);
    free(w->name);
    free(w);
    return rc;
}

int backup_files(const struct backup_files_options *options, const struct run_events *events,
                 struct run_result *out, struct err *e)
{
    for (size_t i = 0; i < options->count; i++) {
        const char *equals = strchr(options->files[i], '=');

        if (equals == NULL || equals == options->files[i] || equals[1] == 0)
            return err_set(e, ERR_USAGE, "\"%.200s\" is no NAME=DISK, like web01=/old/web01.vmdk",
                           options->files[i]);
    }
    for (size_t i = 0; i < options->count; i++) {
        if (was_named_before(options, i))
            continue;
        if (stop_check(e) != 0 || one_vm(options, events, i, out, e) != 0)
            return -1;
    }
    return stop_check(e);
}
