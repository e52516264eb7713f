/*
 * A committed refresh becomes the content of the images: steps 4 and 5 of FORMAT.md 6.  All of it
 * can be repeated from the start after a crash at any point, without the host, from files alone.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/failpoint.h"
#include "receiver/mirror/sweep.h"
#include "receiver/mirror/store.h"

enum { IMAGE_MODE = 0444 };

/* The name that an image has in the store folder between two names. */
static void hold_name(char out[LAYOUT_NAME_ROOM], const struct manifest_disk *d)
{
    layout_name(out, "image-%" PRIu64 ".raw", d->number);
}

static bool is_new(const struct manifest_disk *d)
{
    return d->state == DISK_READ && d->was[0] == 0;
}

static bool changes_name(const struct manifest_disk *d)
{
    return d->state != DISK_ABSENT && d->was[0] != 0 && strcmp(d->was, d->file) != 0;
}

/* Open an image for writing.  It is a read-only file, for others and for ourselves. */
static int open_image(int dir, const char *name, struct err *e)
{
    int look = file_open(dir, name, O_RDONLY, e);
    int fd = -1;

    if (look < 0)
        return -1;
    if (fchmod(look, 0600) != 0) {
        err_sys(e, "making %s writable", name);
    } else {
        fd = file_open(dir, name, O_RDWR, e);
        if (fchmod(look, IMAGE_MODE) != 0) {
            err_sys(e, "making %s read-only", name);
            io_drop(&fd);
        }
    }
    io_drop(&look);
    return fd;
}

/* --- step 4 --- */

struct redo {
    int image_fd, blocks_fd;
    struct digest_writer digests;
    struct patch_cursor index;
    struct patch_room room;
    uint64_t damaged;
};

static int apply_entry(struct store *s, struct redo *r, const struct manifest_disk *d,
                       struct err *e)
{
    const struct patch_entry *n = &r->index.entry;
    uint64_t at = n->block * d->block_bytes;
    size_t bytes;

    if (n->kind == PATCH_ZERO) {
        if (file_punch(r->image_fd, at, shape_run_bytes(shape_of(d), n->block, n->count), e) != 0)
            return -1;
        return digest_put_zeros(&r->digests, n->block, n->count, e);
    }
    bytes = shape_block_bytes(shape_of(d), n->block);
    if (patch_payload(r->blocks_fd, n, &d->secret, bytes, &r->room, e) == 0) {
        if (io_pwrite_all(r->image_fd, r->room.plain, bytes, at, e) != 0)
            return -1;
    } else if (e->code != ERR_CORRUPT || !s->for_run) {
        return err_add(e, "redo-%" PRIu64 ".blocks", d->number);
    } else {
        r->damaged++; /* its digest shows the next reader that the image does not have it */
    }
    return digest_put(&r->digests, n->block, &n->digest, e);
}

/* The index must be what was committed. */
static int open_redo(struct store *s, const struct manifest *c, const struct manifest_disk *d,
                     struct redo *r, struct err *e)
{
    char index[LAYOUT_NAME_ROOM], blocks[LAYOUT_NAME_ROOM];
    static const struct digest none;
    struct patch_head head = store_head(s, PATCH_REDO, d, c->number - 1, d->capacity_bytes, &none);
    uint64_t index_bytes = PATCH_HEAD_BYTES + d->redo.entries * PATCH_ENTRY_BYTES;
    uint8_t hash[PATCH_HASH_BYTES];

    layout_name(index, "redo-%" PRIu64 ".index", d->number);
    layout_name(blocks, "redo-%" PRIu64 ".blocks", d->number);
    if (patch_cursor_open(&r->index, s->store_fd, index, &head, index_bytes, d->redo.blocks_bytes,
                          e) != 0)
        return -1;
    if (patch_hash(r->index.fd, index_bytes, hash, e) != 0)
        return err_add(e, "%s", index);
    if (memcmp(hash, d->redo.hash, sizeof hash) != 0)
        return err_set(e, ERR_CORRUPT, "%s is not what was committed", index);
    r->blocks_fd = file_open(s->store_fd, blocks, O_RDONLY, e);
    return r->blocks_fd < 0 ? -1 : 0;
}

/* Setting the same size again would make an unchanged file look changed to whoever copies it. */
static int set_length(int fd, uint64_t bytes, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) == 0 && (uint64_t)st.st_size == bytes)
        return 0;
    return ftruncate(fd, (off_t)bytes) == 0 ? 0 : err_sys(e, "setting the size");
}

/* New capacities first: a block may lie behind the old end. */
static int set_lengths(struct redo *r, const struct manifest_disk *d, struct err *e)
{
    if (set_length(r->image_fd, d->capacity_bytes, e) != 0)
        return err_add(e, "%s", d->was);
    if (set_length(r->digests.fd, shape_blocks(shape_of(d)) * DIGEST_BYTES, e) != 0)
        return err_add(e, "digests-%" PRIu64, d->number);
    return 0;
}

static int apply_redo(struct store *s, const struct manifest *c, const struct manifest_disk *d,
                      struct err *e)
{
    struct redo r = {
        .image_fd = -1, .blocks_fd = -1, .digests = { .fd = -1 }, .index = PATCH_CURSOR_EMPTY
    };
    char hold[LAYOUT_NAME_ROOM], digests[LAYOUT_NAME_ROOM];
    int rc = -1;

    hold_name(hold, d);
    layout_name(digests, "digests-%" PRIu64, d->number);
    if (patch_room_new(&r.room, d->block_bytes, e) != 0 || open_redo(s, c, d, &r, e) != 0)
        goto out;
    /* A crash may have caught it on its way to another name. */
    r.image_fd = folder_has(s->store_fd, hold) ? open_image(s->store_fd, hold, e)
                                               : open_image(s->folder_fd, d->was, e);
    if (r.image_fd < 0)
        goto out;
    r.digests.fd = file_open(s->store_fd, digests, O_RDWR, e);
    if (r.digests.fd < 0 || set_lengths(&r, d, e) != 0)
        goto out;
    while (r.index.have) {
        if (apply_entry(s, &r, d, e) != 0 || failpoint("mirror.applying", e) != 0)
            goto out;
        env_progress(&s->env, d->file, r.index.entry.block * d->block_bytes, d->capacity_bytes);
        if (patch_step(&r.index, e) != 0) {
            err_add(e, "redo-%" PRIu64 ".index", d->number);
            goto out;
        }
    }
    if (digest_writer_flush(&r.digests, e) != 0 || io_sync(r.image_fd, e) != 0 ||
        io_sync(r.digests.fd, e) != 0)
        goto out;
    env_progress(&s->env, d->file, d->capacity_bytes, d->capacity_bytes);
    rc = r.damaged == 0
             ? 0
             : err_set(e, ERR_CORRUPT, "redo-%" PRIu64 ".blocks: %" PRIu64 " blocks are damaged",
                       d->number, r.damaged);

out:
    io_drop(&r.digests.fd);
    io_drop(&r.image_fd);
    io_drop(&r.blocks_fd);
    patch_cursor_close(&r.index);
    patch_room_free(&r.room);
    return rc == 0 ? 0 : err_add(e, "%s", d->was);
}

/* --- step 5 --- */

/* Away from the old names, so that two images can change places. */
static int move_aside(struct store *s, struct manifest *c, struct err *e)
{
    bool any = false;

    for (size_t i = 0; i < c->disk_count; i++) {
        struct manifest_disk *d = &c->disks[i];
        char hold[LAYOUT_NAME_ROOM];

        if (!changes_name(d))
            continue;
        any = true;
        hold_name(hold, d);
        if (folder_has(s->store_fd, hold))
            continue;
        if (d->state != DISK_READ && !folder_has(s->folder_fd, d->was)) {
            env_warn(&s->env, "%s: %s is missing", s->path, d->was);
            continue;
        }
        if (publish_rename(s->folder_fd, d->was, s->store_fd, hold, PUBLISH_NEW, e) != 0)
            return -1;
    }
    /* From the mark on, what is not aside has its new name. */
    return any ? publish_bytes(s->store_fd, LAYOUT_MOVED, "", 0, 0600, PUBLISH_REPLACE, e) : 0;
}

static int move_to_places(struct store *s, struct manifest *c, struct err *e)
{
    for (size_t i = 0; i < c->disk_count; i++) {
        struct manifest_disk *d = &c->disks[i];
        char hold[LAYOUT_NAME_ROOM];

        hold_name(hold, d);
        if ((!changes_name(d) && !is_new(d)) || !folder_has(s->store_fd, hold))
            continue;
        if (publish_rename(s->store_fd, hold, s->folder_fd, d->file, PUBLISH_NEW, e) != 0)
            return -1;
    }
    return 0;
}

/* The digests of a new disk get the name of all others. */
static int move_digests(struct store *s, struct manifest *c, struct err *e)
{
    for (size_t i = 0; i < c->disk_count; i++) {
        char from[LAYOUT_NAME_ROOM], to[LAYOUT_NAME_ROOM];

        if (!is_new(&c->disks[i]))
            continue;
        layout_name(from, "image-%" PRIu64 ".digests", c->disks[i].number);
        layout_name(to, "digests-%" PRIu64, c->disks[i].number);
        if (folder_has(s->store_fd, from) &&
            publish_rename(s->store_fd, from, s->store_fd, to, PUBLISH_NEW, e) != 0)
            return -1;
    }
    return 0;
}

static bool is_an_image_now(const struct manifest *c, const char *file)
{
    for (size_t i = 0; i < c->disk_count; i++)
        if ((c->disks[i].state == DISK_READ || c->disks[i].state == DISK_KEPT) &&
            strcmp(c->disks[i].file, file) == 0)
            return true;
    return false;
}

static int publish_descriptors(struct store *s, struct manifest *c, struct err *e)
{
    for (size_t i = 0; i < c->disk_count; i++) {
        struct manifest_disk *d = &c->disks[i];
        char name[LAYOUT_NAME_ROOM], text[1024];
        int count;

        if (d->was[0] != 0 && !is_an_image_now(c, d->was)) {
            descriptor_name(name, d->was);
            if (file_remove(s->folder_fd, name, e) != 0)
                return -1;
        }
        if (d->state != DISK_READ && d->state != DISK_KEPT)
            continue;
        descriptor_name(name, d->file);
        count = disk_descriptor(d, text, sizeof text);
        assert(count > 0 && count < (int)sizeof text);
        if (publish_bytes(s->folder_fd, name, text, (size_t)count, IMAGE_MODE, PUBLISH_REPLACE,
                          e) != 0)
            return -1;
    }
    return 0;
}

static bool has_config(const struct manifest *c, const char *name)
{
    for (size_t i = 0; i < c->config_count; i++)
        if (strcmp(c->configs[i].name, name) == 0)
            return true;
    return false;
}

/* config/ loses what the generation before brought and this one does not have. */
static int drop_old_configs(struct store *s, const struct manifest *c, int config, struct err *e)
{
    struct manifest before;
    int rc = 0;

    if (c->number == 1)
        return 0;
    if (store_manifest(s, c->number - 1, &before, e) != 0)
        return e->code == ERR_NOT_FOUND ? 0 : -1;
    for (size_t i = 0; i < before.config_count && rc == 0; i++)
        if (!has_config(c, before.configs[i].name))
            rc = file_remove(config, before.configs[i].name, e);
    manifest_free(&before);
    return rc;
}

static int publish_config(struct store *s, const struct manifest *c, struct err *e)
{
    char from[LAYOUT_NAME_ROOM];
    int to_fd = -1, from_fd = -1;
    bool made;
    int rc = -1;

    layout_name(from, "config-%" PRIu64, c->number);
    if (publish_directory(s->folder_fd, LAYOUT_CONFIG, 0700, &made, e) != 0)
        return -1;
    to_fd = openat(s->folder_fd, LAYOUT_CONFIG, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    from_fd = openat(s->store_fd, from, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (to_fd < 0 || from_fd < 0) {
        err_sys(e, "opening %s", to_fd < 0 ? LAYOUT_CONFIG : from);
        goto out;
    }
    if (publish_sweep(to_fd, e) != 0 || drop_old_configs(s, c, to_fd, e) != 0)
        goto out;
    for (size_t i = 0; i < c->config_count; i++) {
        struct bytes content;

        if (file_load(from_fd, c->configs[i].name, &content, MIRROR_CONFIG_BYTES_MAX, e) != 0)
            goto out;
        rc = publish_bytes(to_fd, c->configs[i].name, content.data, content.count, 0600,
                           PUBLISH_REPLACE, e);
        bytes_free(&content);
        if (rc != 0)
            goto out;
    }
    rc = io_sync(to_fd, e);

out:
    io_drop(&from_fd);
    io_drop(&to_fd);
    return rc == 0 ? 0 : err_add(e, "config");
}

/* Same file with the same content as far as the system can tell; a rename changes only ctime. */
static bool same_but_ctime(const struct image_stat *a, const struct image_stat *b)
{
    return a->inode != 0 && a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->mtime == b->mtime && a->mtime_ns == b->mtime_ns;
}

/* What the next run will trust. */
static int note_stats(struct store *s, struct manifest *c, struct err *e)
{
    static const struct image_stat untrusted;

    for (size_t i = 0; i < c->disk_count; i++) {
        struct manifest_disk *d = &c->disks[i];
        struct image_stat now;
        struct stat st;

        d->redo = (struct patch_facts){ 0 };
        if (d->state == DISK_ABSENT)
            continue;
        if (fstatat(s->folder_fd, d->file, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            if (d->state == DISK_READ || errno != ENOENT)
                return err_sys(e, "looking at %s", d->file);
            d->stat = untrusted;
            continue;
        }
        image_stat_of(&now, &st);
        if (d->state == DISK_READ ||
            (changes_name(d) ? same_but_ctime(&d->stat, &now) : image_stat_equal(&d->stat, &now)))
            d->stat = now;
        else
            d->stat = untrusted;
    }
    return 0;
}

static int drop_suspects(struct store *s, const struct manifest *c, struct err *e)
{
    for (size_t i = 0; i < c->disk_count; i++) {
        char name[LAYOUT_NAME_ROOM];

        /* Zeros: the image was touched during the run, or found wrong; the suspicion stays. */
        if (c->disks[i].state != DISK_READ || c->disks[i].stat.inode == 0)
            continue;
        layout_name(name, "suspect-%" PRIu64, c->disks[i].number);
        if (file_remove(s->store_fd, name, e) != 0)
            return -1;
    }
    return 0;
}

static int publish_generation(struct store *s, struct manifest *c, struct err *e)
{
    char name[LAYOUT_NAME_ROOM];

    layout_name(name, "generation-%" PRIu64, c->number);
    if (io_sync(s->folder_fd, e) != 0 || drop_suspects(s, c, e) != 0 || note_stats(s, c, e) != 0 ||
        manifest_save(c, s->store_fd, name, PUBLISH_REPLACE, e) != 0 ||
        failpoint("mirror.published", e) != 0)
        return -1;
    /* Without the commit there is nothing to repeat; the rest is tidying. */
    if (publish_remove(s->store_fd, LAYOUT_COMMIT, e) != 0 ||
        failpoint("mirror.commit-removed", e) != 0)
        return -1;
    manifest_free(&s->newest);
    s->newest = *c;
    *c = (struct manifest){ 0 };
    if (file_remove(s->store_fd, LAYOUT_MOVED, e) != 0 ||
        publish_remove(s->folder_fd, LAYOUT_INTERRUPTED, e) != 0 ||
        store_sweep(s, SWEEP_ALL, e) != 0)
        return -1;
    return failpoint("mirror.redo-dropped", e);
}

static int apply_redos(struct store *s, struct manifest *c, struct err *e)
{
    static const struct image_stat untrusted;

    for (size_t i = 0; i < c->disk_count; i++) {
        struct manifest_disk *d = &c->disks[i];

        if (!d->redo.there || apply_redo(s, c, d, e) == 0)
            continue;
        if (!s->for_run || (e->code != ERR_CORRUPT && e->code != ERR_NOT_FOUND))
            return -1;
        s->damaged = true;
        env_warn(&s->env, "%s: %s; the image is read and brought up to date by %s run", s->path,
                 e->text, s->own ? "the next" : "this");
        store_suspect(s, d->number);
        d->stat = untrusted;
    }
    return 0;
}

static int apply_manifest(struct store *s, struct manifest *c, struct err *e)
{
    if (file_remove(s->store_fd, LAYOUT_SCRATCH, e) != 0)
        return -1;
    /* With the mark, step 4 was done before the crash. */
    if (!folder_has(s->store_fd, LAYOUT_MOVED) && apply_redos(s, c, e) != 0)
        return -1;
    if (failpoint("mirror.applied", e) != 0)
        return -1;
    if (!folder_has(s->store_fd, LAYOUT_MOVED) && move_aside(s, c, e) != 0)
        return -1;
    if (move_to_places(s, c, e) != 0 || move_digests(s, c, e) != 0 ||
        publish_descriptors(s, c, e) != 0 || publish_config(s, c, e) != 0)
        return -1;
    return publish_generation(s, c, e);
}

int store_apply(struct store *s, struct err *e)
{
    struct manifest c;
    int rc;

    if (manifest_load(&c, s->store_fd, LAYOUT_COMMIT, e) != 0)
        return err_add(e, "%s", s->path);
    if (memcmp(c.mirror, s->identity.mirror, sizeof c.mirror) != 0)
        rc = err_set(e, ERR_CORRUPT, LAYOUT_COMMIT " belongs to another mirror");
    else
        rc = apply_manifest(s, &c, e);
    manifest_free(&c);
    return rc == 0 ? 0 : err_add(e, "%s: applying a refresh", s->path);
}
