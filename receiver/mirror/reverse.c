/*
 * Before the commit: the old content of what changes becomes the reverse delta of the newest
 * generation, and the room is counted that apply will need.  Content that is not what its digest
 * says never gets into a delta: it is noted as lost, and the generations that need it as damaged.
 */
#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zstd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/mirror/run.h"

enum { DELTA_LEVEL = 1 };

struct reverse {
    struct mirror_run *run;
    struct run_disk *d;
    struct patch_cursor redo;
    int image_fd, digests_fd;
    bool keep; /* a delta is wanted */
    struct publish blocks, index;
    struct patch_writer writer;
    struct digest window[DIGEST_WINDOW];
    uint64_t window_first;
    size_t window_count;
    uint8_t *plain, *packed;
    ZSTD_CCtx *zstd;
    uint64_t hole_bytes, lost_blocks, image_bytes;
    struct data_run image_data;
};

static int old_digest(struct reverse *v, uint64_t block, struct digest *out, struct err *e)
{
    uint64_t blocks = shape_blocks(v->d->old);

    if (block < v->window_first || block >= v->window_first + v->window_count) {
        v->window_first = block;
        v->window_count = 0;
        if (digests_read(v->digests_fd, blocks, block,
                         (size_t)min_u64(DIGEST_WINDOW, blocks - block), v->window, e) != 0)
            return -1;
        v->window_count = (size_t)min_u64(DIGEST_WINDOW, blocks - block);
    }
    *out = v->window[block - v->window_first];
    return 0;
}

static int put_lost(struct reverse *v, uint64_t block, const struct digest *was, struct err *e)
{
    v->lost_blocks++;
    return patch_put_run(&v->writer, PATCH_LOST, block, 1, was, e);
}

/* The image's block, if it is what it was recorded as. */
static int put_old_block(struct reverse *v, uint64_t block, const struct digest *was, struct err *e)
{
    size_t bytes = shape_block_bytes(v->d->old, block);
    struct digest is;
    size_t packed;

    if (file_read_padded(v->image_fd, v->plain, bytes, block * v->d->old.block_bytes,
                         v->image_bytes, e) != 0)
        return -1;
    is = digest_of(&v->d->secret, v->plain, bytes);
    if (!digest_equal(&is, was))
        return put_lost(v, block, was, e);
    packed = ZSTD_compressCCtx(v->zstd, v->packed, bytes, v->plain, bytes, DELTA_LEVEL);
    if (ZSTD_isError(packed) || packed >= bytes)
        return patch_put_data(&v->writer, block, was, v->plain, bytes, ENCODING_RAW, e);
    return patch_put_data(&v->writer, block, was, v->packed, packed, ENCODING_ZSTD, e);
}

/* What one block was before, unless it is the same again. */
static int reverse_block(struct reverse *v, uint64_t block, const struct digest *becomes,
                         struct err *e)
{
    bool same_length = shape_block_bytes(v->d->old, block) == shape_block_bytes(v->d->shape, block);
    struct digest was;
    bool differs;

    if (old_digest(v, block, &was, e) != 0 ||
        bitmap_get(&v->d->differs, block, &differs, NULL, e) != 0)
        return -1;
    if (v->d->old_lost)
        return put_lost(v, block, &was, e);
    if (same_length && digest_equal(&was, becomes))
        return 0; /* somebody had changed the image: it becomes what was recorded */
    if (digest_is_zero(&was))
        return patch_put_run(&v->writer, PATCH_ZERO, block, 1, NULL, e);
    if (differs)
        return put_lost(v, block, &was, e);
    return put_old_block(v, block, &was, e);
}

static int reverse_entry(struct reverse *v, struct err *e)
{
    const struct patch_entry *n = &v->redo.entry;
    uint64_t end = min_u64(n->block + n->count, shape_blocks(v->d->old));

    if (n->kind == PATCH_DATA)
        v->hole_bytes +=
            file_hole_bytes(v->image_fd, n->block * v->d->shape.block_bytes,
                            shape_run_bytes(v->d->shape, n->block, n->count), &v->image_data);
    for (uint64_t b = n->block; b < end && v->keep; b++)
        if (reverse_block(v, b, &n->digest, e) != 0)
            return -1;
    return 0;
}

/* --- which earlier generations need what is lost --- */

struct earlier {
    uint64_t number;
    bool has_delta;
    struct patch_cursor delta;
    uint64_t lost;
};

/* The delta of `number` is named by the manifest of number + 1. */
static int open_earlier(struct reverse *v, struct earlier *g, uint64_t number, struct err *e)
{
    struct store *s = &v->run->m->store;
    const struct manifest *next = &s->newest;
    struct manifest later = { 0 }, own = { 0 };
    struct manifest_disk *d, *was;
    struct patch_head head;
    char name[LAYOUT_NAME_ROOM];
    int rc = -1;

    *g = (struct earlier){ .number = number, .delta = PATCH_CURSOR_EMPTY };
    if (number + 1 != s->newest.number) {
        if (store_manifest(s, number + 1, &later, e) != 0)
            return -1;
        next = &later;
    }
    if (store_manifest(s, number, &own, e) != 0)
        goto out;
    d = manifest_disk(next, v->d->base->number);
    was = manifest_disk(&own, v->d->base->number);
    if (d == NULL || was == NULL || !d->delta.there) {
        rc = 0;
        goto out;
    }
    head = store_head(s, PATCH_DELTA, was, number, was->capacity_bytes, &was->root);
    layout_name(name, "delta-%" PRIu64 "-%" PRIu64 ".index", number, was->number);
    rc = patch_cursor_open(&g->delta, s->store_fd, name, &head, 0, d->delta.blocks_bytes, e);
    g->has_delta = rc == 0;

out:
    manifest_free(&later);
    manifest_free(&own);
    return rc;
}

/* Does this generation take the block from its own delta? */
static int has_its_own(struct earlier *g, uint64_t block, bool *out, struct err *e)
{
    *out = false;
    if (!g->has_delta)
        return 0;
    if (patch_forward(&g->delta, block, e) != 0)
        return -1;
    *out = g->delta.have && g->delta.entry.block <= block;
    return 0;
}

static int spread_losses(struct reverse *v, struct earlier *g, size_t count, const char *index,
                         struct err *e)
{
    struct store *s = &v->run->m->store;
    struct patch_head head = store_head(s, PATCH_DELTA, v->d->base, s->newest.number,
                                        v->d->old.capacity_bytes, &v->d->base->root);
    struct patch_cursor c;
    int rc = -1;

    if (patch_cursor_open(&c, s->store_fd, index, &head, 0, v->writer.blocks_bytes, e) != 0)
        return -1;
    for (; c.have;) {
        for (uint64_t b = c.entry.block;
             c.entry.kind == PATCH_LOST && b < c.entry.block + c.entry.count; b++) {
            bool own = false;

            for (size_t i = 0; i < count && !own; i++) {
                if (has_its_own(&g[i], b, &own, e) != 0)
                    goto out;
                g[i].lost += !own;
            }
        }
        if (patch_step(&c, e) != 0)
            goto out;
    }
    rc = 0;

out:
    patch_cursor_close(&c);
    return rc;
}

/* From the newest backwards, until one has the block itself. */
static int note_damages(struct reverse *v, const char *index, struct err *e)
{
    uint64_t newest = v->run->m->store.newest.number;
    uint64_t oldest = newest + 1 > v->run->keep ? newest + 1 - v->run->keep : 1;
    struct earlier *g;
    size_t count = 0;
    int rc = -1;

    oldest = max_u64(oldest, 1);
    g = calloc((size_t)(newest - oldest) + 1, sizeof *g);
    if (g == NULL)
        return err_sys(e, "getting memory");
    for (uint64_t n = newest - 1; n >= oldest && n > 0; n--, count++) {
        char name[LAYOUT_NAME_ROOM];

        layout_name(name, "generation-%" PRIu64, n);
        if (!folder_has(v->run->m->store.store_fd, name))
            break;
        if (open_earlier(v, &g[count], n, e) != 0) {
            count++;
            goto out;
        }
    }
    if (spread_losses(v, g, count, index, e) != 0 ||
        manifest_note_damage(&v->run->next, newest, v->d->base->number, v->lost_blocks, e) != 0)
        goto out;
    for (size_t i = 0; i < count && v->d->old_lost; i++)
        g[i].lost = max_u64(g[i].lost, 1);
    for (size_t i = 0; i < count; i++)
        if (g[i].lost > 0 &&
            manifest_note_damage(&v->run->next, g[i].number, v->d->base->number, g[i].lost, e) != 0)
            goto out;
    env_warn(&v->run->m->store.env,
             "%s: %" PRIu64 " blocks of earlier content are lost; generation %" PRIu64
             " and those before that need them are damaged",
             v->d->base->file, v->lost_blocks, newest);
    rc = 0;

out:
    for (size_t i = 0; i < count; i++)
        patch_cursor_close(&g[i].delta);
    free(g);
    return rc;
}

/* --- the whole --- */

static int open_all(struct reverse *v, struct err *e)
{
    static const struct digest none;
    struct run_disk *d = v->d;
    struct store *s = &v->run->m->store;
    struct patch_head head =
        store_head(s, PATCH_REDO, d->base, s->newest.number, d->shape.capacity_bytes, &none);
    char name[LAYOUT_NAME_ROOM];
    struct stat st;

    layout_name(name, "redo-%" PRIu64 ".index", d->base->number);
    if (patch_cursor_open(&v->redo, s->store_fd, name, &head, 0, d->redo.blocks_bytes, e) != 0)
        return -1;
    layout_name(name, "digests-%" PRIu64, d->base->number);
    v->digests_fd = file_open(s->store_fd, name, O_RDONLY, e);
    v->image_fd = v->digests_fd < 0 ? -1 : file_open(s->folder_fd, d->base->file, O_RDONLY, e);
    if (v->image_fd < 0)
        return -1;
    if (fstat(v->image_fd, &st) != 0)
        return err_sys(e, "looking at %s", d->base->file);
    v->image_bytes = (uint64_t)st.st_size;
    return 0;
}

static int open_delta(struct reverse *v, struct err *e)
{
    struct run_disk *d = v->d;
    struct store *s = &v->run->m->store;
    struct patch_head head = store_head(s, PATCH_DELTA, d->base, s->newest.number,
                                        d->old.capacity_bytes, &d->base->root);

    v->plain = malloc(d->old.block_bytes);
    v->packed = malloc(d->old.block_bytes);
    v->zstd = ZSTD_createCCtx();
    if (v->plain == NULL || v->packed == NULL || v->zstd == NULL)
        return err_sys(e, "getting memory for a block");
    if (publish_begin(&v->blocks, s->store_fd, 0600, e) != 0 ||
        publish_begin(&v->index, s->store_fd, 0600, e) != 0)
        return -1;
    return patch_writer_open(&v->writer, v->index.fd, v->blocks.fd, 0, &head, e);
}

static int publish_delta(struct reverse *v, struct err *e)
{
    struct run_disk *d = v->d;
    uint64_t newest = v->run->m->store.newest.number;
    char index[LAYOUT_NAME_ROOM], blocks[LAYOUT_NAME_ROOM];

    layout_name(index, "delta-%" PRIu64 "-%" PRIu64 ".index", newest, d->base->number);
    layout_name(blocks, "delta-%" PRIu64 "-%" PRIu64 ".blocks", newest, d->base->number);
    if (patch_writer_flush(&v->writer, d->delta.hash, e) != 0 ||
        publish_commit(&v->blocks, blocks, v->writer.blocks_bytes, PUBLISH_REPLACE, e) != 0 ||
        publish_commit(&v->index, index, v->writer.index_bytes, PUBLISH_REPLACE, e) != 0)
        return -1;
    d->delta.there = true;
    d->delta.entries = v->writer.entries;
    d->delta.blocks_bytes = v->writer.blocks_bytes;
    d->stored_bytes += v->writer.blocks_bytes + v->writer.index_bytes;
    /* Without provable digests even what did not change proves nothing. */
    if (d->old_lost && v->lost_blocks == 0)
        v->lost_blocks = 1;
    return v->lost_blocks > 0 ? note_damages(v, index, e) : 0;
}

int run_reverse(struct mirror_run *run, struct run_disk *d, uint64_t *hole_bytes, struct err *e)
{
    struct reverse *v = calloc(1, sizeof *v);
    int rc = -1;

    if (v == NULL)
        return err_sys(e, "getting memory");
    v->run = run;
    v->d = d;
    v->redo = PATCH_CURSOR_EMPTY;
    v->image_fd = v->digests_fd = -1;
    v->blocks = v->index = PUBLISH_EMPTY;
    v->keep = run->keep > 0;
    d->stored_bytes = 0;
    if (open_all(v, e) != 0 || (v->keep && open_delta(v, e) != 0))
        goto out;
    while (v->redo.have) {
        env_progress(&run->m->store.env, d->state.file, v->redo.entry.block * d->shape.block_bytes,
                     d->shape.capacity_bytes);
        if (env_check(&run->m->store.env, e) != 0 || reverse_entry(v, e) != 0 ||
            patch_step(&v->redo, e) != 0)
            goto out;
    }
    env_progress(&run->m->store.env, d->state.file, d->shape.capacity_bytes,
                 d->shape.capacity_bytes);
    d->stored_bytes += v->hole_bytes;
    *hole_bytes += v->hole_bytes;
    if (v->keep && publish_delta(v, e) != 0)
        goto out;
    rc = 0;

out:
    patch_writer_close(&v->writer);
    publish_drop(&v->index);
    publish_drop(&v->blocks);
    patch_cursor_close(&v->redo);
    io_drop(&v->image_fd);
    io_drop(&v->digests_fd);
    ZSTD_freeCCtx(v->zstd);
    free(v->plain);
    free(v->packed);
    free(v);
    return rc == 0 ? 0 : err_add(e, "%s", d->base->file);
}
