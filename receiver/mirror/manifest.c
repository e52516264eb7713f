#include "receiver/mirror/manifest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/mirror/layout.h"
#include "receiver/mirror/mirror.h"

static const char *const states[] = { "read", "kept", "absent", "removed", NULL };

int text_set(char **field, const char *text, struct err *e)
{
    char *copy = strdup(text != NULL ? text : "");

    if (copy == NULL)
        return err_sys(e, "getting memory");
    free(*field);
    *field = copy;
    return 0;
}

/*
 * One more element of a growing array, zeroed; counts are bounded by their callers.  Only this
 * function adds: the array has room for the next power of two, so that tens of thousands are not
 * copied each time.
 */
static void *add(void **array, size_t *count, size_t size, struct err *e)
{
    if ((*count & (*count - 1)) == 0) {
        void *more = realloc(*array, (*count > 0 ? 2 * *count : 1) * size);

        if (more == NULL) {
            err_sys(e, "getting memory for a manifest");
            return NULL;
        }
        *array = more;
    }
    memset((uint8_t *)*array + *count * size, 0, size);
    return (uint8_t *)*array + (*count)++ * size;
}

struct manifest_disk *manifest_add_disk(struct manifest *m, struct err *e)
{
    if (m->disk_count == MANIFEST_DISKS_MAX) {
        err_set(e, ERR_LIMIT, "more than %d disks", MANIFEST_DISKS_MAX);
        return NULL;
    }
    return add((void **)&m->disks, &m->disk_count, sizeof *m->disks, e);
}

struct manifest_config *manifest_add_config(struct manifest *m, struct err *e)
{
    if (m->config_count == MIRROR_CONFIG_FILES_MAX) {
        err_set(e, ERR_LIMIT, "more than %d configuration files", MIRROR_CONFIG_FILES_MAX);
        return NULL;
    }
    return add((void **)&m->configs, &m->config_count, sizeof *m->configs, e);
}

static struct manifest_damage *add_damage(struct manifest *m, struct err *e)
{
    if (m->damage_count == MANIFEST_DAMAGES_MAX) {
        err_set(e, ERR_LIMIT, "more than %d damaged disks", MANIFEST_DAMAGES_MAX);
        return NULL;
    }
    return add((void **)&m->damages, &m->damage_count, sizeof *m->damages, e);
}

int manifest_note_damage(struct manifest *m, uint64_t generation, uint64_t disk, uint64_t blocks,
                         struct err *e)
{
    struct manifest_damage *d = NULL;

    for (size_t i = 0; i < m->damage_count; i++)
        if (m->damages[i].generation == generation && m->damages[i].disk == disk)
            d = &m->damages[i];
    if (d == NULL)
        d = add_damage(m, e);
    if (d == NULL)
        return -1;
    d->generation = generation;
    d->disk = disk;
    d->blocks += blocks;
    return 0;
}

struct manifest_disk *manifest_disk(const struct manifest *m, uint64_t number)
{
    for (size_t i = 0; i < m->disk_count; i++)
        if (m->disks[i].number == number && number != 0)
            return &m->disks[i];
    return NULL;
}

/* --- the walks that both write and read --- */

static void walk_number(struct record *r, const char *key, uint64_t *v)
{
    record_u64(r, key, v, 0, UINT64_MAX);
}

static void walk_stat(struct record *r, struct image_stat *s)
{
    record_line(r, "stat");
    record_field_u64(r, &s->device, 0, UINT64_MAX);
    record_field_u64(r, &s->inode, 0, UINT64_MAX);
    record_field_u64(r, &s->size, 0, UINT64_MAX);
    record_field_u64(r, &s->mtime, 0, UINT64_MAX);
    record_field_u64(r, &s->mtime_ns, 0, 999999999);
    record_field_u64(r, &s->ctime, 0, UINT64_MAX);
    record_field_u64(r, &s->ctime_ns, 0, 999999999);
    record_line_end(r);
}

static void walk_patch(struct record *r, const char *key, struct patch_facts *p)
{
    record_line(r, key);
    if (record_field_none(r, !p->there)) {
        record_line_end(r);
        return;
    }
    p->there = true;
    record_field_u64(r, &p->entries, 0, UINT64_MAX / 64);
    record_field_hex(r, p->hash, sizeof p->hash);
    record_field_u64(r, &p->blocks_bytes, 0, INT64_MAX);
    record_line_end(r);
}

/* A file name that the store makes itself: no way out of the folder. */
static void check_name(struct record *r, const char *name, bool may_be_empty)
{
    if (r->failed || r->writing)
        return;
    if ((name[0] == 0 && !may_be_empty) || strchr(name, '/') != NULL || name[0] == '.' ||
        strlen(name) > 250)
        record_fault(r, "that is no file name of a mirror");
}

static void walk_disk(struct record *r, struct manifest_disk *d)
{
    bool image;

    record_u64(r, "disk", &d->number, 0, UINT32_MAX);
    record_word(r, "state", states, &d->state);
    record_text(r, "slot", &d->slot);
    record_text(r, "uuid", &d->uuid);
    record_text(r, "label", &d->label);
    record_text(r, "file", &d->file);
    record_text(r, "was", &d->was);
    record_u64(r, "capacity", &d->capacity_bytes, 0, INT64_MAX);
    record_u64(r, "block", &d->block_bytes, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
    record_hex(r, "secret", d->secret.b, sizeof d->secret.b);
    record_hex(r, "root", d->root.b, sizeof d->root.b);
    walk_number(r, "of", &d->of);
    walk_stat(r, &d->stat);
    record_text(r, "read-path", &d->read_path);
    walk_number(r, "allocated", &d->allocated_bytes);
    walk_number(r, "read-bytes", &d->read_bytes);
    walk_number(r, "sampled", &d->sampled_bytes);
    walk_number(r, "changed", &d->changed_bytes);
    walk_number(r, "sent", &d->sent_bytes);
    walk_number(r, "stored", &d->stored_bytes);
    walk_number(r, "milliseconds", &d->milliseconds);
    walk_patch(r, "redo", &d->redo);
    walk_patch(r, "delta", &d->delta);
    if (r->failed || r->writing)
        return;
    image = d->state != DISK_ABSENT;
    check_name(r, d->file, !image);
    if (!block_size_valid(d->block_bytes))
        record_fault(r, "a block size that is no power of two");
    if (image != (d->number != 0) || (image && (d->capacity_bytes == 0 || d->of == 0)))
        record_fault(r, "the lines of this disk contradict each other");
    if (!image && (d->redo.there || d->delta.there))
        record_fault(r, "a patch for a disk without image");
}

static void walk_config(struct record *r, struct manifest_config *c)
{
    record_line(r, "config");
    record_field_u64(r, &c->size_bytes, 0, MIRROR_CONFIG_BYTES_MAX);
    record_field_hex(r, c->sha256, sizeof c->sha256);
    record_field_text(r, &c->name);
    record_line_end(r);
    check_name(r, c->name, false);
}

static void walk_damage(struct record *r, struct manifest_damage *d)
{
    record_line(r, "damage");
    record_field_u64(r, &d->generation, 1, UINT64_MAX);
    record_field_u64(r, &d->disk, 1, UINT32_MAX);
    record_field_u64(r, &d->blocks, 1, UINT64_MAX);
    record_line_end(r);
}

static void walk_head(struct record *r, struct manifest *m)
{
    record_hex(r, "mirror", m->mirror, sizeof m->mirror);
    record_u64(r, "number", &m->number, 1, INT64_MAX);
    record_hex(r, "id", m->id, sizeof m->id);
    record_u64(r, "time", &m->time, 0, INT64_MAX);
    record_text(r, "kind", &m->kind);
    record_text(r, "outcome", &m->outcome);
    record_text(r, "consistency", &m->consistency);
    record_text(r, "data-channel", &m->data_channel);
    record_text(r, "read-path", &m->read_path);
    record_text(r, "change-source", &m->change_source);
    record_text(r, "snapshot", &m->snapshot);
    record_text(r, "host-uuid", &m->host_uuid);
    record_text(r, "host-name", &m->host_name);
    record_text(r, "vm-uuid", &m->vm_uuid);
    record_text(r, "vmx-path", &m->vmx_path);
    record_text(r, "vm-name", &m->vm_name);
    record_u64(r, "keep", &m->keep, 0, MIRROR_KEEP_MAX);
    record_u64(r, "next-disk", &m->next_disk, 1, UINT32_MAX);
}

static void write_lists(struct record *r, struct manifest *m)
{
    uint64_t count = m->config_count;

    record_u64(r, "configs", &count, 0, count);
    for (size_t i = 0; i < m->config_count; i++)
        walk_config(r, &m->configs[i]);
    count = m->damage_count;
    record_u64(r, "damages", &count, 0, count);
    for (size_t i = 0; i < m->damage_count; i++)
        walk_damage(r, &m->damages[i]);
    count = m->disk_count;
    record_u64(r, "disks", &count, 0, count);
    for (size_t i = 0; i < m->disk_count; i++)
        walk_disk(r, &m->disks[i]);
}

/* Failing to get memory counts as a failure of the record. */
static void *or_fail(struct record *r, void *p)
{
    if (p == NULL)
        r->failed = true;
    return p;
}

static void read_lists(struct record *r, struct manifest *m)
{
    uint64_t configs = 0, damages = 0, disks = 0, last = 0;

    record_u64(r, "configs", &configs, 0, MIRROR_CONFIG_FILES_MAX);
    while (!r->failed && m->config_count < configs) {
        struct manifest_config *c = or_fail(r, manifest_add_config(m, r->e));

        if (c != NULL)
            walk_config(r, c);
    }
    record_u64(r, "damages", &damages, 0, MANIFEST_DAMAGES_MAX);
    while (!r->failed && m->damage_count < damages) {
        struct manifest_damage *d = or_fail(r, add_damage(m, r->e));

        if (d != NULL)
            walk_damage(r, d);
    }
    record_u64(r, "disks", &disks, 0, MANIFEST_DISKS_MAX);
    while (!r->failed && m->disk_count < disks) {
        struct manifest_disk *d = or_fail(r, manifest_add_disk(m, r->e));

        if (d == NULL)
            break;
        walk_disk(r, d);
        if (d->number != 0 && d->number <= last)
            record_fault(r, "disks are not in order");
        if (d->number >= m->next_disk)
            record_fault(r, "a disk number that was not given yet");
        if (d->of > m->number)
            record_fault(r, "a disk of a later generation");
        last = d->number != 0 ? d->number : last;
    }
}

int manifest_load(struct manifest *out, int dir, const char *name, struct err *e)
{
    struct record r;

    *out = (struct manifest){ 0 };
    if (record_read(&r, dir, name, "generation", e) != 0)
        return -1;
    walk_head(&r, out);
    read_lists(&r, out);
    if (record_done(&r, name) == 0)
        return 0;
    manifest_free(out);
    return -1;
}

int manifest_save(struct manifest *m, int dir, const char *name, enum publish_how how,
                  struct err *e)
{
    struct record r;

    record_write(&r, "generation", e);
    walk_head(&r, m);
    write_lists(&r, m);
    return record_save(&r, dir, name, how);
}

static void disk_free(struct manifest_disk *d)
{
    free(d->slot);
    free(d->uuid);
    free(d->label);
    free(d->file);
    free(d->was);
    free(d->read_path);
}

void manifest_free(struct manifest *m)
{
    char **texts[] = { &m->kind,      &m->outcome,       &m->consistency, &m->data_channel,
                       &m->read_path, &m->change_source, &m->snapshot,    &m->host_uuid,
                       &m->host_name, &m->vm_uuid,       &m->vmx_path,    &m->vm_name };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(*texts[i]);
    for (size_t i = 0; i < m->config_count; i++)
        free(m->configs[i].name);
    free(m->configs);
    free(m->damages);
    for (size_t i = 0; i < m->disk_count; i++)
        disk_free(&m->disks[i]);
    free(m->disks);
    *m = (struct manifest){ 0 };
}

/* --- identity --- */

static void walk_identity(struct record *r, struct mirror_identity *i)
{
    record_hex(r, "mirror", i->mirror, sizeof i->mirror);
    record_text(r, "host-uuid", &i->host_uuid);
    record_text(r, "vm-uuid", &i->vm_uuid);
    record_text(r, "vmx-path", &i->vmx_path);
    record_text(r, "vm-name", &i->vm_name);
    record_u64(r, "made", &i->made, 0, INT64_MAX);
}

int identity_load(struct mirror_identity *out, int dir, struct err *e)
{
    struct record r;

    *out = (struct mirror_identity){ 0 };
    if (record_read(&r, dir, LAYOUT_IDENTITY, "identity", e) != 0)
        return -1;
    walk_identity(&r, out);
    if (record_done(&r, LAYOUT_IDENTITY) == 0)
        return 0;
    identity_free(out);
    return -1;
}

int identity_save(struct mirror_identity *i, int dir, struct err *e)
{
    struct record r;

    record_write(&r, "identity", e);
    walk_identity(&r, i);
    return record_save(&r, dir, LAYOUT_IDENTITY, PUBLISH_NEW);
}

void identity_free(struct mirror_identity *i)
{
    free(i->host_uuid);
    free(i->vm_uuid);
    free(i->vmx_path);
    free(i->vm_name);
    *i = (struct mirror_identity){ 0 };
}

/* --- new disks --- */

static void walk_new_disk(struct record *r, struct new_disk *d)
{
    record_u64(r, "disk", &d->number, 1, UINT32_MAX);
    record_text(r, "slot", &d->slot);
    record_text(r, "uuid", &d->uuid);
    record_u64(r, "capacity", &d->capacity_bytes, 1, INT64_MAX);
    record_u64(r, "block", &d->block_bytes, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
    record_hex(r, "secret", d->secret.b, sizeof d->secret.b);
    if (!r->failed && !block_size_valid(d->block_bytes))
        record_fault(r, "a block size that is no power of two");
}

int new_disk_load(struct new_disk *out, int dir, uint64_t number, struct err *e)
{
    char name[LAYOUT_NAME_ROOM];
    struct record r;

    *out = (struct new_disk){ 0 };
    layout_name(name, "image-%" PRIu64 ".disk", number);
    if (record_read(&r, dir, name, "new-disk", e) != 0)
        return -1;
    walk_new_disk(&r, out);
    if (!r.failed && out->number != number)
        record_fault(&r, "it is of another disk");
    if (record_done(&r, name) == 0)
        return 0;
    new_disk_free(out);
    return -1;
}

int new_disk_save(struct new_disk *d, int dir, struct err *e)
{
    char name[LAYOUT_NAME_ROOM];
    struct record r;

    layout_name(name, "image-%" PRIu64 ".disk", d->number);
    record_write(&r, "new-disk", e);
    walk_new_disk(&r, d);
    return record_save(&r, dir, name, PUBLISH_REPLACE);
}

void new_disk_free(struct new_disk *d)
{
    free(d->slot);
    free(d->uuid);
    *d = (struct new_disk){ 0 };
}

/* --- image facts --- */

void image_stat_of(struct image_stat *out, const struct stat *s)
{
    *out = (struct image_stat){
        .device = (uint64_t)s->st_dev,
        .inode = (uint64_t)s->st_ino,
        .size = (uint64_t)s->st_size,
        .mtime = (uint64_t)s->st_mtim.tv_sec,
        .mtime_ns = (uint64_t)s->st_mtim.tv_nsec,
        .ctime = (uint64_t)s->st_ctim.tv_sec,
        .ctime_ns = (uint64_t)s->st_ctim.tv_nsec,
    };
}

bool image_stat_equal(const struct image_stat *a, const struct image_stat *b)
{
    return a->inode != 0 && a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->mtime == b->mtime && a->mtime_ns == b->mtime_ns && a->ctime == b->ctime &&
           a->ctime_ns == b->ctime_ns;
}
