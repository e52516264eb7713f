/* From finished sinks to a committed generation: steps 1 to 3 of FORMAT.md 6. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/failpoint.h"
#include "receiver/mirror/run.h"

enum { ROOM_MARGIN = 1 << 20, REMOVED_TRIES = 1000, VERIFY_SLICES = 30 };

static const char INTERRUPTED_TEXT[] =
    "A refresh of this mirror is committed and not yet applied: do not use the images here.\n"
    "Any vmferry command that opens this mirror (list, check, restore, mirror) finishes it.\n";

/* --- the manifest --- */

static uint64_t oldest_kept(const struct mirror_run *run)
{
    return run->number > run->keep ? run->number - run->keep : 1;
}

static int fill_head(struct mirror_run *run, const struct mirror_facts *f, struct err *e)
{
    struct manifest *n = &run->next;
    const struct mirror *m = run->m;
    const struct {
        char **to;
        const char *from;
    } texts[] = {
        { &n->kind, f->kind },
        { &n->outcome, f->outcome },
        { &n->consistency, f->consistency },
        { &n->data_channel, f->data_channel },
        { &n->read_path, f->read_path },
        { &n->change_source, f->change_source },
        { &n->snapshot, f->snapshot },
        { &n->host_uuid, m->host_uuid },
        { &n->host_name, m->host_name },
        { &n->vm_uuid, m->vm_uuid },
        { &n->vmx_path, m->vmx_path },
        { &n->vm_name, m->vm_name },
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (text_set(texts[i].to, texts[i].from, e) != 0)
            return -1;
    memcpy(n->mirror, m->store.identity.mirror, sizeof n->mirror);
    n->number = run->number;
    n->time = f->time > 0 ? (uint64_t)f->time : 0;
    n->keep = run->keep;
    n->next_disk = run->next_disk;
    for (size_t i = 0; i < run->count; i++)
        n->next_disk = max_u64(n->next_disk, (uint64_t)run->disks[i].state.number + 1);
    return random_bytes(n->id, sizeof n->id, e);
}

static int set_texts(struct manifest_disk *d, const char *slot, const char *uuid, const char *label,
                     const char *file, const char *was, const char *read_path, struct err *e)
{
    return text_set(&d->slot, slot, e) == 0 && text_set(&d->uuid, uuid, e) == 0 &&
                   text_set(&d->label, label, e) == 0 && text_set(&d->file, file, e) == 0 &&
                   text_set(&d->was, was, e) == 0 && text_set(&d->read_path, read_path, e) == 0
               ? 0
               : -1;
}

/* Was the image left alone while we read?  What was seen at the start was proved then. */
static void judge_image(const struct run_disk *d, struct image_stat *out)
{
    const struct store *s = &d->m->store;
    char suspect[LAYOUT_NAME_ROOM];
    struct image_stat now;
    struct stat st;

    layout_name(suspect, "suspect-%" PRIu64, d->base->number);
    if (fstatat(s->folder_fd, d->base->file, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        image_stat_of(&now, &st);
        if (image_stat_equal(&d->stat, &now) &&
            folder_has(s->store_fd, suspect) == d->was_suspect) {
            *out = now;
            return;
        }
    }
    env_warn(&s->env, "%s: it was touched during the run; the next run reads all of it",
             d->base->file);
    store_suspect(s, d->base->number);
}

static int fill_read(struct run_disk *r, const struct mirror_disk_facts *f, struct manifest_disk *d,
                     uint64_t number, struct err *e)
{
    d->state = DISK_READ;
    d->number = r->state.number;
    d->capacity_bytes = r->shape.capacity_bytes;
    d->block_bytes = r->shape.block_bytes;
    d->secret = r->secret;
    d->root = r->root;
    d->of = number;
    if (r->base != NULL)
        judge_image(r, &d->stat);
    d->allocated_bytes = f->allocated_bytes;
    d->read_bytes = f->read_bytes;
    d->sampled_bytes = f->sampled_bytes;
    d->sent_bytes = f->sent_bytes;
    d->milliseconds = f->milliseconds;
    d->changed_bytes = r->changed_bytes;
    d->stored_bytes = r->stored_bytes;
    d->redo = r->redo;
    d->delta = r->delta;
    return set_texts(d, r->slot, r->uuid, r->label, r->state.file,
                     r->base != NULL ? r->base->file : "", f->read_path, e);
}

static int fill_kept(struct mirror_run *run, struct run_disk *r, struct manifest_disk *d,
                     struct err *e)
{
    d->state = DISK_KEPT;
    d->number = r->base->number;
    d->capacity_bytes = r->base->capacity_bytes;
    d->block_bytes = r->base->block_bytes;
    d->secret = r->base->secret;
    d->root = r->base->root;
    d->of = r->base->of;
    if (store_trusts(&run->m->store, r->base))
        d->stat = r->base->stat;
    return set_texts(d, r->slot, r->uuid, r->label, r->state.file, r->base->file, "", e);
}

static int fill_disks(struct mirror_run *run, const struct mirror_facts *f, struct err *e)
{
    static const struct mirror_disk_facts nothing;

    for (size_t i = 0; i < run->count; i++) {
        struct run_disk *r = &run->disks[i];
        struct manifest_disk *d = manifest_add_disk(&run->next, e);
        int rc;

        if (d == NULL)
            return -1;
        if (r->included) {
            rc = fill_read(r, f->disks != NULL ? &f->disks[i] : &nothing, d, run->number, e);
        } else if (r->base != NULL) {
            rc = fill_kept(run, r, d, e);
        } else {
            d->state = DISK_ABSENT;
            d->capacity_bytes = r->shape.capacity_bytes;
            d->block_bytes = r->shape.block_bytes;
            rc = set_texts(d, r->slot, r->uuid, r->label, "", "", "", e);
        }
        if (rc != 0)
            return -1;
    }
    return 0;
}

/* --- disks that are no longer in the VM --- */

static bool names_file(const struct manifest *m, const char *file)
{
    for (size_t i = 0; i < m->disk_count; i++)
        if (m->disks[i].file != NULL && strcmp(m->disks[i].file, file) == 0)
            return true;
    return false;
}

static int removed_name(const struct mirror_run *run, const struct manifest_disk *was,
                        char out[LAYOUT_NAME_ROOM], struct err *e)
{
    time_t t = (time_t)run->next.time;
    size_t stem = strlen(was->file);
    char date[16] = "unknown";
    struct tm tm;

    if (stem > 4 && strcmp(was->file + stem - 4, ".raw") == 0)
        stem -= 4;
    if (stem > LAYOUT_NAME_ROOM - 32)
        stem = LAYOUT_NAME_ROOM - 32;
    if (gmtime_r(&t, &tm) != NULL)
        strftime(date, sizeof date, "%Y-%m-%d", &tm);
    for (unsigned i = 1; i < REMOVED_TRIES; i++) {
        if (i == 1)
            layout_name(out, "%.*s.removed-%s.raw", (int)stem, was->file, date);
        else
            layout_name(out, "%.*s.removed-%s-%u.raw", (int)stem, was->file, date, i);
        if (!folder_has(run->m->store.folder_fd, out) && !names_file(&run->next, out))
            return 0;
    }
    return err_set(e, ERR_REFUSED, "%s: too many removed images of this name", was->file);
}

static bool in_this_run(const struct mirror_run *run, const struct manifest_disk *d)
{
    for (size_t i = 0; i < run->count; i++)
        if (run->disks[i].base == d)
            return true;
    return false;
}

static bool is_lost(const struct mirror_run *run, uint64_t number)
{
    for (size_t i = 0; i < run->count; i++)
        if (run->disks[i].lost_number == number)
            return true;
    return false;
}

/* Does a kept generation still hold this disk, which went before the newest one? */
static int is_needed(const struct mirror_run *run, uint64_t disk, bool *out, struct err *e)
{
    *out = false;
    for (uint64_t n = oldest_kept(run); n < run->number && !*out; n++) {
        char name[LAYOUT_NAME_ROOM];
        struct manifest m;
        struct manifest_disk *d;

        layout_name(name, "generation-%" PRIu64, n);
        if (!folder_has(run->m->store.store_fd, name))
            continue;
        if (store_manifest(&run->m->store, n, &m, e) != 0)
            return -1;
        d = manifest_disk(&m, disk);
        *out = d != NULL && (d->state == DISK_READ || d->state == DISK_KEPT);
        manifest_free(&m);
    }
    return 0;
}

static int fill_removed(struct mirror_run *run, const struct manifest_disk *was, struct err *e)
{
    bool now = was->state != DISK_REMOVED, needed = true;
    char file[LAYOUT_NAME_ROOM];
    struct manifest_disk *d;

    if (!now && is_needed(run, was->number, &needed, e) != 0)
        return -1;
    if (!needed)
        return 0;
    if (now && removed_name(run, was, file, e) != 0)
        return -1;
    if (now)
        env_warn(&run->m->store.env, "%s: no longer in the VM; its image becomes %s", was->slot,
                 file);
    d = manifest_add_disk(&run->next, e);
    if (d == NULL)
        return -1;
    d->state = DISK_REMOVED;
    d->number = was->number;
    d->capacity_bytes = was->capacity_bytes;
    d->block_bytes = was->block_bytes;
    d->secret = was->secret;
    d->root = was->root;
    d->of = was->of;
    if (store_trusts(&run->m->store, was))
        d->stat = was->stat;
    return set_texts(d, was->slot, was->uuid, was->label, now ? file : was->file, was->file, "", e);
}

/* The image of a disk is gone: whatever kept generation has it cannot be restored whole. */
static int note_lost_disk(struct mirror_run *run, const struct manifest_disk *was, struct err *e)
{
    for (uint64_t n = oldest_kept(run); n < run->number; n++) {
        char name[LAYOUT_NAME_ROOM];

        layout_name(name, "generation-%" PRIu64, n);
        if (folder_has(run->m->store.store_fd, name) &&
            manifest_note_damage(&run->next, n, was->number, shape_blocks(shape_of(was)), e) != 0)
            return -1;
    }
    return 0;
}

static int fill_others(struct mirror_run *run, struct err *e)
{
    const struct manifest *m = &run->m->store.newest;

    for (size_t i = 0; i < m->disk_count; i++) {
        const struct manifest_disk *d = &m->disks[i];

        if (d->state == DISK_ABSENT || in_this_run(run, d))
            continue;
        if (is_lost(run, d->number)) {
            if (note_lost_disk(run, d, e) != 0)
                return -1;
        } else if (fill_removed(run, d, e) != 0) {
            return -1;
        }
    }
    return 0;
}

static int compare_disks(const void *a, const void *b)
{
    uint64_t x = ((const struct manifest_disk *)a)->number;
    uint64_t y = ((const struct manifest_disk *)b)->number;

    return (x > y) - (x < y);
}

static int carry_damages(struct mirror_run *run, struct err *e)
{
    const struct manifest *m = &run->m->store.newest;

    for (size_t i = 0; i < m->damage_count; i++)
        if (m->damages[i].generation >= oldest_kept(run) &&
            manifest_note_damage(&run->next, m->damages[i].generation, m->damages[i].disk,
                                 m->damages[i].blocks, e) != 0)
            return -1;
    return 0;
}

/* --- steps 2 and 3 --- */

/* Room for what apply puts into holes, held so that nobody else takes it in between. */
static int hold_room(struct mirror_run *run, uint64_t hole_bytes, struct err *e)
{
    uint64_t bytes;
    int fd, rc = 0;

    if (!checked_add(hole_bytes, ROOM_MARGIN, &bytes) || bytes > INT64_MAX)
        return err_set(e, ERR_LIMIT, "too much to apply");
    fd = openat(run->m->store.store_fd, LAYOUT_SCRATCH,
                O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(e, "making " LAYOUT_SCRATCH);
    /* posix_fallocate writes where the file system cannot allocate. */
    rc = posix_fallocate(fd, 0, (off_t)bytes);
    io_drop(&fd);
    if (rc == 0)
        return 0;
    unlinkat(run->m->store.store_fd, LAYOUT_SCRATCH, 0);
    errno = rc;
    return err_sys(e, "%s: room for %" PRIu64 " bytes that go into holes", run->m->folder, bytes);
}

static int place_config(struct mirror_run *run, struct err *e)
{
    const struct store *s = &run->m->store;
    char name[LAYOUT_NAME_ROOM];

    layout_name(name, "config-%" PRIu64, run->number);
    if (folder_remove(s->store_fd, name, e) != 0 || io_sync(run->config_fd, e) != 0)
        return -1;
    return publish_rename(s->store_fd, LAYOUT_CONFIG_STAGED, s->store_fd, name, PUBLISH_NEW, e);
}

static int prepare(struct mirror_run *run, const struct mirror_facts *f, struct err *e)
{
    uint64_t hole_bytes = 0;

    if (fill_head(run, f, e) != 0 || carry_damages(run, e) != 0)
        return -1;
    for (size_t i = 0; i < run->count; i++) {
        struct run_disk *d = &run->disks[i];

        if (d->included && !d->ended)
            return err_set(e, ERR_STOPPED, "%s has not come whole", d->slot);
        if (d->included && d->base != NULL && run_reverse(run, d, &hole_bytes, e) != 0)
            return -1;
    }
    if (failpoint("mirror.delta-durable", e) != 0 || fill_disks(run, f, e) != 0 ||
        fill_others(run, e) != 0)
        return -1;
    if (run->next.disk_count > 0)
        qsort(run->next.disks, run->next.disk_count, sizeof *run->next.disks, compare_disks);
    if (place_config(run, e) != 0)
        return -1;
    return run->first ? 0 : hold_room(run, hole_bytes, e);
}

static int publish_commit_record(struct mirror_run *run, struct err *e)
{
    struct store *s = &run->m->store;

    /* The mark first, so that it stands whenever a commit does. */
    if (!run->first && publish_bytes(s->folder_fd, LAYOUT_INTERRUPTED, INTERRUPTED_TEXT,
                                     sizeof INTERRUPTED_TEXT - 1, 0444, PUBLISH_REPLACE, e) != 0)
        return -1;
    if (manifest_save(&run->next, s->store_fd, LAYOUT_COMMIT, PUBLISH_NEW, e) == 0)
        return 0;
    if (!folder_has(s->store_fd, LAYOUT_COMMIT)) {
        unlinkat(s->store_fd, LAYOUT_SCRATCH, 0);
        unlinkat(s->folder_fd, LAYOUT_INTERRUPTED, 0);
    }
    return -1;
}

int mirror_run_commit(struct mirror_run *run, const struct mirror_facts *facts,
                      struct mirror_committed *out, struct err *e)
{
    struct mirror *m = run->m;

    assert(!run->dry && !run->committed);
    for (size_t i = 0; i < run->count; i++)
        assert(!run->disks[i].sink_open);
    if (prepare(run, facts, e) != 0 || failpoint("mirror.commit", e) != 0 ||
        publish_commit_record(run, e) != 0 || failpoint("mirror.committed", e) != 0)
        return err_add(e, "%s", m->folder);
    if (run->first && (store_apply(&m->store, e) != 0 || failpoint("mirror.rename", e) != 0 ||
                       mirror_publish_folder(m, e) != 0 || failpoint("mirror.renamed", e) != 0))
        return err_add(e, "%s", m->folder);
    run->committed = true;
    out->number = run->next.number;
    id_hex(run->next.id, out->id);
    return 0;
}

/* --- after the run --- */

struct slice {
    uint64_t block, count;
};

static int note_first(void *context, uint64_t block, uint64_t count, struct err *e)
{
    struct slice *s = context;

    (void)e;
    if (s->count == 0)
        s->block = block;
    s->count += count;
    return 0;
}

static int verify_disk(struct mirror *m, const struct manifest_disk *d, uint64_t deadline_ms,
                       uint64_t *read_bytes, struct err *e)
{
    struct slice bad = { 0 };
    struct prove p = { .image_fd = -1,
                       .digests_fd = -1,
                       .base_blocks = shape_blocks(shape_of(d)),
                       .shape = shape_of(d),
                       .secret = &d->secret,
                       .k = (unsigned)(m->store.newest.number % VERIFY_SLICES) + 1,
                       .n = VERIFY_SLICES,
                       .deadline_ms = deadline_ms,
                       .env = &m->store.env,
                       .differs = note_first,
                       .context = &bad };
    char digests[LAYOUT_NAME_ROOM];
    int rc = -1;

    layout_name(digests, "digests-%" PRIu64, d->number);
    p.image_fd = file_open(m->store.folder_fd, d->file, O_RDONLY, e);
    p.digests_fd = p.image_fd < 0 ? -1 : file_open(m->store.store_fd, digests, O_RDONLY, e);
    /* Where it begins is left to chance: 10 s may not be enough for the whole slice. */
    if (p.digests_fd < 0 || random_bytes(&p.first_block, sizeof p.first_block, e) != 0 ||
        image_prove(&p, e) != 0)
        goto out;
    if (bad.count > 0) {
        store_suspect(&m->store, d->number);
        err_set(e, ERR_CORRUPT,
                "%s/%s: %" PRIu64 " blocks are not what was written, the first at byte %" PRIu64
                "; the next run reads all of it",
                m->folder, d->file, bad.count, bad.block * d->block_bytes);
        goto out;
    }
    rc = 0;

out:
    *read_bytes += p.read_bytes;
    io_drop(&p.digests_fd);
    io_drop(&p.image_fd);
    return rc;
}

int mirror_verify_slice(struct mirror *m, uint64_t budget_ms, uint64_t *read_bytes, struct err *e)
{
    uint64_t deadline_ms = io_clock_ms() + budget_ms;

    *read_bytes = 0;
    for (size_t i = 0; i < m->store.newest.disk_count; i++) {
        const struct manifest_disk *d = &m->store.newest.disks[i];

        if (d->state == DISK_READ && store_trusts(&m->store, d) &&
            verify_disk(m, d, deadline_ms, read_bytes, e) != 0)
            return -1;
    }
    return 0;
}
