/* The start of a run: which disk is which, and what is staged from runs before. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/names.h"
#include "receiver/mirror/run.h"
#include "receiver/mirror/sweep.h"

enum { SECTOR_BYTES = 512, ROOM_MARGIN = 1 << 20 };

/* --- operands --- */

/* Letters, digits, a colon, digits: what becomes part of a file name. */
static bool slot_is_valid(const char *slot)
{
    size_t letters = strspn(slot, "abcdefghijklmnopqrstuvwxyz");
    size_t unit = strspn(slot + letters, "0123456789");
    const char *colon = slot + letters + unit;
    size_t rest = *colon == ':' ? strspn(colon + 1, "0123456789") : 0;

    return letters > 0 && unit > 0 && rest > 0 && colon[1 + rest] == 0 && strlen(slot) < 24;
}

static int check_disks(const struct mirror_disk *disks, size_t count, struct err *e)
{
    if (count > MIRROR_DISKS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d disks", MIRROR_DISKS_MAX);
    for (size_t i = 0; i < count; i++) {
        const struct mirror_disk *d = &disks[i];

        if (!slot_is_valid(d->slot))
            return err_set(e, ERR_USAGE, "%s is no place for a disk", d->slot);
        for (size_t k = 0; k < i; k++)
            if (strcmp(disks[k].slot, d->slot) == 0)
                return err_set(e, ERR_USAGE, "%s is there twice", d->slot);
        if ((d->uuid != NULL && strlen(d->uuid) > MIRROR_TEXT_MAX) ||
            (d->label != NULL && strlen(d->label) > MIRROR_TEXT_MAX))
            return err_set(e, ERR_LIMIT, "%s: a text of more than %d bytes", d->slot,
                           MIRROR_TEXT_MAX);
        if (d->included && (d->capacity_bytes == 0 || d->capacity_bytes % SECTOR_BYTES != 0 ||
                            d->capacity_bytes > INT64_MAX))
            return err_set(e, ERR_UNSUPPORTED, "%s: a capacity of %" PRIu64 " bytes", d->slot,
                           d->capacity_bytes);
    }
    return 0;
}

static int check_options(struct mirror_run *run, const struct mirror_run_options *o, struct err *e)
{
    uint64_t stored = run->m->store.newest.keep;

    if (o->keep < -1 || o->keep > MIRROR_KEEP_MAX)
        return err_set(e, ERR_USAGE, "keep: 0 to %d earlier generations", MIRROR_KEEP_MAX);
    if (o->block_bytes != 0 && !block_size_valid(o->block_bytes))
        return err_set(e, ERR_USAGE, "a block size is a power of two, 16k to 4M");
    run->keep = o->keep < 0 ? stored : (uint64_t)o->keep;
    if (run->keep < stored && !o->keep_lower)
        return err_set(e, ERR_REFUSED,
                       "%s keeps %" PRIu64 " earlier generations; to keep only %" PRIu64
                       " removes the others: say --yes",
                       run->m->folder, stored, run->keep);
    return 0;
}

/* --- identity of disks --- */

/* A uuid that names one disk only, among those given. */
static bool uuid_is_usable(const struct mirror_disk *disks, size_t count, const char *uuid)
{
    unsigned times = 0;

    if (uuid == NULL || uuid[0] == 0)
        return false;
    for (size_t i = 0; i < count; i++)
        times += disks[i].uuid != NULL && strcmp(disks[i].uuid, uuid) == 0;
    return times <= 1;
}

static bool is_taken(const struct mirror_run *run, const struct manifest_disk *d)
{
    for (size_t i = 0; i < run->count; i++)
        if (run->disks[i].base == d)
            return true;
    return false;
}

/* Uuids in a manifest may be doubled as well: then they say nothing. */
static struct manifest_disk *base_by_uuid(const struct manifest *m, const char *uuid)
{
    struct manifest_disk *found = NULL;

    for (size_t i = 0; i < m->disk_count; i++) {
        struct manifest_disk *d = &m->disks[i];

        if ((d->state != DISK_READ && d->state != DISK_KEPT) || strcmp(d->uuid, uuid) != 0)
            continue;
        if (found != NULL)
            return NULL;
        found = d;
    }
    return found;
}

static struct manifest_disk *base_by_slot(const struct mirror_run *run, const char *slot)
{
    const struct manifest *m = &run->m->store.newest;

    for (size_t i = 0; i < m->disk_count; i++) {
        struct manifest_disk *d = &m->disks[i];

        if ((d->state == DISK_READ || d->state == DISK_KEPT) && strcmp(d->slot, slot) == 0)
            return is_taken(run, d) ? NULL : d;
    }
    return NULL;
}

static void match_disks(struct mirror_run *run, const struct mirror_disk *disks)
{
    const struct manifest *m = &run->m->store.newest;

    for (size_t i = 0; i < run->count; i++)
        if (uuid_is_usable(disks, run->count, disks[i].uuid))
            run->disks[i].base = base_by_uuid(m, disks[i].uuid);
    for (size_t i = 0; i < run->count; i++) {
        struct manifest_disk *d;

        if (run->disks[i].base != NULL)
            continue;
        d = base_by_slot(run, disks[i].slot);
        /* Two good uuids that differ are two disks, whatever the slot says. */
        if (d != NULL && !(uuid_is_usable(disks, run->count, disks[i].uuid) &&
                           uuid_is_usable(disks, run->count, d->uuid) && d->uuid[0] != 0 &&
                           base_by_uuid(m, d->uuid) != NULL))
            run->disks[i].base = d;
    }
}

/* A disk never shrinks: what is smaller now is another one. */
static void part_with_larger(struct run_disk *d, const struct mirror_disk *given)
{
    if (d->base == NULL || !given->included || given->capacity_bytes >= d->base->capacity_bytes)
        return;
    env_warn(&d->m->store.env,
             "%s: smaller than its image (%" PRIu64 " bytes, the image has %" PRIu64
             "): taken as another disk; the image stays as a removed one",
             given->slot, given->capacity_bytes, d->base->capacity_bytes);
    d->base = NULL;
}

/* --- new disks --- */

struct leftovers {
    struct mirror_run *run;
    const struct mirror_disk *given;
    struct run_disk *d;
    uint64_t highest;
};

static bool is_used(const struct mirror_run *run, uint64_t number)
{
    for (size_t i = 0; i < run->count; i++)
        if (run->disks[i].base == NULL && run->disks[i].state.number == number)
            return true;
    return false;
}

/* Is this what an earlier run began for the same disk? */
static int leftover_entry(void *context, const char *name, struct err *e)
{
    struct leftovers *l = context;
    struct new_disk n;
    unsigned number;
    int used = 0;
    bool same;

    (void)e;
    if (sscanf(name, "image-%9u.disk%n", &number, &used) != 1 || used != (int)strlen(name))
        return 0;
    if (number > l->highest)
        l->highest = number;
    if (l->d->state.number != 0 || number < l->run->next_disk || is_used(l->run, number) ||
        new_disk_load(&n, l->run->m->store.store_fd, number, NULL) != 0)
        return 0;
    same = n.capacity_bytes == l->given->capacity_bytes &&
           n.block_bytes == l->d->shape.block_bytes && strcmp(n.uuid, l->d->uuid) == 0 &&
           (n.uuid[0] != 0 || strcmp(n.slot, l->given->slot) == 0);
    if (same) {
        l->d->state.number = number;
        l->d->secret = n.secret;
        l->d->state.resumed = true;
    }
    new_disk_free(&n);
    return 0;
}

/* What no disk of this run has taken over goes away. */
static int drop_entry(void *context, const char *name, struct err *e)
{
    struct leftovers *l = context;
    unsigned number;
    int used = 0;

    if (sscanf(name, "image-%9u.disk%n", &number, &used) != 1 || used != (int)strlen(name) ||
        is_used(l->run, number))
        return 0;
    return fresh_drop(&l->run->m->store, number, e);
}

static int begin_new(struct mirror_run *run, struct run_disk *d, const struct mirror_disk *given,
                     const struct mirror_run_options *o, struct err *e)
{
    struct leftovers l = { .run = run, .given = given, .d = d };
    struct store *s = &run->m->store;
    struct new_disk n;

    d->state.is_new = true;
    d->shape = (struct shape){ given->capacity_bytes,
                               o->block_bytes != 0 ? o->block_bytes : MIRROR_BLOCK_BYTES };
    if (run->dry) {
        d->state.number = (unsigned)run->next_disk++;
        return 0;
    }
    if (folder_each(s->store_fd, leftover_entry, &l, e) != 0)
        return -1;
    if (d->state.number != 0)
        return 0;
    for (uint64_t number = max_u64(run->next_disk, l.highest + 1); d->state.number == 0; number++)
        if (!is_used(run, number))
            d->state.number = (unsigned)number;
    if (random_bytes(&d->secret, sizeof d->secret, e) != 0)
        return -1;
    n = (struct new_disk){ .number = d->state.number,
                           .slot = d->slot,
                           .uuid = d->uuid,
                           .capacity_bytes = d->shape.capacity_bytes,
                           .block_bytes = d->shape.block_bytes,
                           .secret = d->secret };
    if (fresh_drop(s, d->state.number, e) != 0)
        return -1;
    return new_disk_save(&n, s->store_fd, e);
}

/* --- known disks --- */

/* An image that somebody removed: its earlier content is lost, and the disk begins anew. */
static bool image_is_missing(struct run_disk *d)
{
    if (folder_has(d->m->store.folder_fd, d->base->file))
        return false;
    env_warn(&d->m->store.env,
             "%s: %s is missing; the disk is read as a new one, and earlier generations cannot be "
             "restored whole",
             d->m->folder, d->base->file);
    d->lost_number = d->base->number;
    d->base = NULL;
    return true;
}

static int begin_known(struct run_disk *d, const struct mirror_disk *given, struct err *e)
{
    const struct store *s = &d->m->store;
    char suspect[LAYOUT_NAME_ROOM], checkpoint[LAYOUT_NAME_ROOM];
    struct checkpoint c;
    struct err none;
    struct stat st;

    d->state.number = (unsigned)d->base->number;
    d->secret = d->base->secret;
    d->old = shape_of(d->base);
    d->shape = (struct shape){ d->included ? given->capacity_bytes : d->old.capacity_bytes,
                               d->old.block_bytes };
    d->state.old_capacity_bytes = d->old.capacity_bytes;
    if (strcmp(d->base->slot, d->slot) != 0)
        snprintf(d->state.old_slot, sizeof d->state.old_slot, "%s", d->base->slot);
    if (!d->included)
        return 0;
    layout_name(suspect, "suspect-%" PRIu64, d->base->number);
    d->was_suspect = folder_has(s->store_fd, suspect);
    d->state.digests_distrusted = !store_trusts(s, d->base);
    if (fstatat(s->folder_fd, d->base->file, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return err_sys(e, "%s", d->base->file);
    image_stat_of(&d->stat, &st);
    layout_name(checkpoint, "redo-%" PRIu64 ".checkpoint", d->base->number);
    d->state.resumed = checkpoint_load(d, checkpoint, &c, &none) == 0;
    return 0;
}

/* --- room --- */

/* Can the target hold files of this size, and what is to come? */
static int check_target(const struct mirror_run *run, const struct mirror_disk *disks,
                        struct err *e)
{
    uint64_t largest = 0, expected = 0, free_bytes;
    struct publish p;
    struct statvfs v;
    int rc = 0;

    for (size_t i = 0; i < run->count; i++) {
        if (!disks[i].included)
            continue;
        largest = max_u64(largest, disks[i].capacity_bytes);
        if (run->disks[i].base == NULL && !run->disks[i].state.resumed)
            expected += min_u64(disks[i].expected_bytes, disks[i].capacity_bytes);
    }
    if (largest == 0)
        return 0;
    if (publish_begin(&p, run->m->store.store_fd, 0600, e) != 0)
        return -1;
    if (ftruncate(p.fd, (off_t)largest) != 0) {
        rc = err_sys(e, "%s: this file system or a limit refuses files of %" PRIu64 " bytes",
                     run->m->folder, largest);
        if (e != NULL && (e->os == EFBIG || e->os == EINVAL))
            e->code = ERR_SPACE;
    }
    publish_drop(&p);
    if (rc != 0)
        return -1;
    if (fstatvfs(run->m->store.store_fd, &v) != 0)
        return err_sys(e, "asking for free room");
    free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
    if (expected > 0 && (free_bytes < ROOM_MARGIN || expected > free_bytes - ROOM_MARGIN))
        return err_set(e, ERR_SPACE,
                       "%s: %" PRIu64 " bytes may come, but only %" PRIu64 " are free",
                       run->m->dir_path, expected, free_bytes);
    return 0;
}

/* --- begin --- */

static int copy_disk(struct run_disk *d, struct mirror *m, const struct mirror_disk *given,
                     struct err *e)
{
    d->m = m;
    d->differs.fd = -1;
    d->included = given->included;
    snprintf(d->slot, sizeof d->slot, "%s", given->slot);
    if (text_set(&d->uuid, given->uuid, e) != 0 || text_set(&d->label, given->label, e) != 0)
        return -1;
    image_name(d->state.file, given->slot);
    return 0;
}

static int begin_disk(struct mirror_run *run, size_t i, const struct mirror_disk *given,
                      const struct mirror_run_options *o, struct err *e)
{
    struct run_disk *d = &run->disks[i];

    part_with_larger(d, given);
    if (d->base != NULL && d->included && !run->dry)
        image_is_missing(d);
    if (d->base != NULL) {
        if (begin_known(d, given, e) != 0)
            return -1;
    } else if (d->included) {
        if (begin_new(run, d, given, o, e) != 0)
            return -1;
    } else {
        d->shape = (struct shape){ given->capacity_bytes, MIRROR_BLOCK_BYTES };
    }
    d->state.block_bytes = d->shape.block_bytes;
    d->state.capacity_bytes = d->shape.capacity_bytes;
    return 0;
}

/* A name in the folder that is neither ours nor free would stop apply when it is too late. */
static int check_names(const struct mirror_run *run, struct err *e)
{
    const struct manifest *m = &run->m->store.newest;

    for (size_t i = 0; i < run->count; i++) {
        const char *file = run->disks[i].state.file;
        bool ours = false;

        if (run->disks[i].base == NULL && !run->disks[i].included)
            continue;
        for (size_t k = 0; k < m->disk_count; k++)
            ours = ours || strcmp(m->disks[k].file, file) == 0;
        if (!ours && folder_has(run->m->store.folder_fd, file))
            return err_set(e, ERR_REFUSED, "%s/%s is there and is not ours: move it away",
                           run->m->folder, file);
    }
    return 0;
}

static int stage_config(struct mirror_run *run, struct err *e)
{
    const struct store *s = &run->m->store;

    if (folder_remove(s->store_fd, LAYOUT_CONFIG_STAGED, e) != 0 ||
        publish_directory(s->store_fd, LAYOUT_CONFIG_STAGED, 0700, NULL, e) != 0)
        return -1;
    run->config_fd =
        openat(s->store_fd, LAYOUT_CONFIG_STAGED, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return run->config_fd >= 0 ? 0 : err_sys(e, "opening " LAYOUT_CONFIG_STAGED);
}

/* Everything that changes files, in the order in which a crash does no harm. */
static int begin_staging(struct mirror_run *run, const struct mirror_disk *disks, struct err *e)
{
    struct leftovers l = { .run = run };

    if (check_target(run, disks, e) != 0 || check_names(run, e) != 0 ||
        folder_each(run->m->store.store_fd, drop_entry, &l, e) != 0 || stage_config(run, e) != 0)
        return -1;
    for (size_t i = 0; i < run->count; i++) {
        struct run_disk *d = &run->disks[i];

        if (d->base != NULL && d->included && run_prove_digests(d, e) != 0)
            return err_add(e, "%s", d->slot);
    }
    return 0;
}

int mirror_run_begin(struct mirror_run **out, struct mirror *m,
                     const struct mirror_run_options *options, const struct mirror_disk *disks,
                     size_t count, struct err *e)
{
    struct mirror_run *run = calloc(1, sizeof *run);

    if (run == NULL)
        return err_sys(e, "getting memory");
    run->m = m;
    run->config_fd = -1;
    run->dry = m->dry;
    run->first = m->part || !m->there;
    run->number = m->store.newest.number + 1;
    run->next_disk = max_u64(m->store.newest.next_disk, 1);
    if (check_disks(disks, count, e) != 0 || check_options(run, options, e) != 0)
        goto fail;
    run->disks = calloc(count > 0 ? count : 1, sizeof *run->disks);
    if (run->disks == NULL) {
        err_sys(e, "getting memory");
        goto fail;
    }
    run->count = count;
    for (size_t i = 0; i < count; i++)
        if (copy_disk(&run->disks[i], m, &disks[i], e) != 0)
            goto fail;
    match_disks(run, disks);
    for (size_t i = 0; i < count; i++)
        if (begin_disk(run, i, &disks[i], options, e) != 0) {
            err_add(e, "%s", disks[i].slot);
            goto fail;
        }
    if (!run->dry && begin_staging(run, disks, e) != 0)
        goto fail;
    *out = run;
    return 0;

fail:
    mirror_run_end(run);
    return -1;
}

const struct mirror_disk_state *mirror_run_disk(const struct mirror_run *run, size_t index)
{
    assert(index < run->count);
    return &run->disks[index].state;
}

bool mirror_run_held(const struct mirror_run *run, size_t index, struct digest *root)
{
    const struct manifest *m = &run->m->store.newest;
    const struct run_disk *d = &run->disks[index];

    assert(index < run->count);
    if (d->base == NULL || d->state.digests_distrusted || d->was_suspect || d->old_lost)
        return false;
    for (size_t i = 0; i < m->damage_count; i++)
        if (m->damages[i].disk == d->base->number && m->damages[i].generation == m->number)
            return false;
    *root = d->base->root;
    return true;
}

int mirror_run_unstage(struct mirror_run *run, size_t index, struct err *e)
{
    struct run_disk *d = &run->disks[index];

    assert(index < run->count && !d->sink_open && !d->ended && !run->dry);
    if (d->base == NULL)
        return 0;
    if (redo_drop(d, e) != 0)
        return err_add(e, "%s", d->slot);
    d->state.resumed = false;
    return 0;
}

int mirror_run_sink(struct mirror_run *run, size_t index, struct sink **out, struct err *e)
{
    struct run_disk *d = &run->disks[index];

    assert(index < run->count && d->included && !d->sink_open && !d->ended && !run->dry);
    d->failed = false;
    if ((d->base != NULL ? redo_sink_new(d, out, e) : fresh_sink_new(d, out, e)) != 0)
        return err_add(e, "%s", d->slot);
    d->sink_open = true;
    return 0;
}

int mirror_run_result(const struct mirror_run *run, size_t index, struct mirror_disk_result *out)
{
    const struct run_disk *d = &run->disks[index];

    *out = (struct mirror_disk_result){ d->changed_bytes, d->stored_bytes, d->root };
    return d->ended ? 0 : -1;
}

/* --- configuration files --- */

static bool config_is_taken(const struct mirror_run *run, const char *name)
{
    for (size_t i = 0; i < run->next.config_count; i++)
        if (run->next.configs[i].name != NULL && strcmp(run->next.configs[i].name, name) == 0)
            return true;
    return false;
}

int mirror_run_config_file(struct mirror_run *run, const char *name, const void *data, size_t count,
                           struct err *e)
{
    char safe[NAME_SAFE_ROOM], unique[NAME_SAFE_ROOM + 8];
    struct manifest_config *c;

    assert(!run->dry);
    if (count > MIRROR_CONFIG_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "%s: %zu bytes are too many for a configuration file", name,
                       count);
    name_made_safe(name, safe);
    snprintf(unique, sizeof unique, "%s", safe);
    for (unsigned i = 2; config_is_taken(run, unique); i++)
        snprintf(unique, sizeof unique, "%s-%u", safe, i);
    if (publish_bytes(run->config_fd, unique, data, count, 0600, PUBLISH_NEW, e) != 0)
        return -1;
    c = manifest_add_config(&run->next, e);
    if (c == NULL || text_set(&c->name, unique, e) != 0)
        return -1;
    c->size_bytes = count;
    sha256_of(c->sha256, data, count);
    return 0;
}

/* --- the end --- */

void mirror_run_end(struct mirror_run *run)
{
    if (run == NULL)
        return;
    for (size_t i = 0; i < run->count; i++) {
        bitmap_free(&run->disks[i].differs);
        free(run->disks[i].uuid);
        free(run->disks[i].label);
    }
    free(run->disks);
    manifest_free(&run->next);
    io_drop(&run->config_fd);
    free(run);
}

int mirror_run_discard(struct mirror_run *run, struct err *e)
{
    struct store *s = &run->m->store;
    int rc = 0;

    assert(!run->committed);
    for (size_t i = 0; i < run->count && !run->dry; i++) {
        struct run_disk *d = &run->disks[i];

        if (d->included &&
            (d->base != NULL ? redo_drop(d, e) : fresh_drop(s, d->state.number, e)) != 0)
            rc = -1;
    }
    if (!run->dry && folder_remove(s->store_fd, LAYOUT_CONFIG_STAGED, e) != 0)
        rc = -1;
    mirror_run_end(run);
    return rc;
}

int mirror_run_apply(struct mirror_run *run, struct err *e)
{
    assert(run->committed);
    return run->first ? 0 : store_apply_own(&run->m->store, e);
}
