#include "receiver/mirror/content.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"

/* A file that a manifest names must be there. */
static int must_be_there(int rc, struct err *e)
{
    if (rc < 0 && e->code == ERR_NOT_FOUND)
        e->code = ERR_CORRUPT;
    return rc;
}

/* The delta of generation h, named by the manifest of h + 1, made against that of h. */
static int open_layer(struct content *c, uint64_t h, const struct manifest_disk *own,
                      const struct manifest_disk *next, struct err *e)
{
    struct patch_head head = store_head(c->s, PATCH_DELTA, own, h, own->capacity_bytes, &own->root);
    struct content_layer *layer = &c->layers[c->layer_count];
    uint64_t bytes = PATCH_HEAD_BYTES + next->delta.entries * PATCH_ENTRY_BYTES;
    uint8_t hash[PATCH_HASH_BYTES];
    char name[LAYOUT_NAME_ROOM];

    layout_name(name, "delta-%" PRIu64 "-%" PRIu64 ".index", h, c->number);
    layer->generation = h;
    if (must_be_there(patch_cursor_open(&layer->index, c->s->store_fd, name, &head, bytes,
                                        next->delta.blocks_bytes, e),
                      e) != 0)
        return -1;
    c->layer_count++;
    if (patch_hash(layer->index.fd, bytes, hash, e) != 0)
        return err_add(e, "%s", name);
    if (memcmp(hash, next->delta.hash, sizeof hash) != 0)
        return err_set(e, ERR_CORRUPT, "%s is not what was recorded", name);
    return 0;
}

/* Walk the manifests from the generation up to the newest. */
static int open_layers(struct content *c, struct err *e)
{
    uint64_t newest = c->s->newest.number;
    struct manifest own = { 0 }, next = { 0 };
    int rc = -1;

    c->layers = calloc((size_t)(newest - c->generation) + 1, sizeof *c->layers);
    if (c->layers == NULL)
        return err_sys(e, "getting memory");
    if (must_be_there(store_manifest(c->s, c->generation, &own, e), e) != 0)
        goto out;
    for (uint64_t h = c->generation; h < newest; h++) {
        struct manifest_disk *then, *after;

        if (must_be_there(store_manifest(c->s, h + 1, &next, e), e) != 0)
            goto out;
        then = manifest_disk(&own, c->number);
        after = manifest_disk(&next, c->number);
        if (then != NULL && after != NULL && after->delta.there &&
            open_layer(c, h, then, after, e) != 0)
            goto out;
        manifest_free(&own);
        own = next;
        next = (struct manifest){ 0 };
    }
    rc = 0;

out:
    manifest_free(&own);
    manifest_free(&next);
    return rc;
}

static int open_image(struct content *c, const struct manifest_disk *now, struct err *e)
{
    char digests[LAYOUT_NAME_ROOM];
    struct digest root;
    struct stat st;

    snprintf(c->file, sizeof c->file, "%s", now->file);
    layout_name(digests, "digests-%" PRIu64, c->number);
    c->image_fd = must_be_there(file_open(c->s->folder_fd, now->file, O_RDONLY, e), e);
    c->digests_fd =
        c->image_fd < 0 ? -1 : must_be_there(file_open(c->s->store_fd, digests, O_RDONLY, e), e);
    if (c->digests_fd < 0)
        return -1;
    if (fstat(c->image_fd, &st) != 0)
        return err_sys(e, "looking at %s", now->file);
    c->image_bytes = (uint64_t)st.st_size;
    c->now = shape_of(now);
    if (fstat(c->digests_fd, &st) != 0)
        return err_sys(e, "looking at %s", digests);
    if ((uint64_t)st.st_size != shape_blocks(c->now) * DIGEST_BYTES)
        return err_set(e, ERR_CORRUPT, "%s has a wrong length", digests);
    if (digests_root(c->digests_fd, shape_blocks(c->now), NULL, c->now, &now->secret, &c->s->env,
                     &root, e) != 0)
        return err_add(e, "%s", digests);
    if (!digest_equal(&root, &now->root))
        return err_set(e, ERR_CORRUPT, "%s does not have the root that was recorded", digests);
    return 0;
}

int content_open(struct content *c, const struct store *s, const struct manifest_disk *d,
                 uint64_t generation, struct err *e)
{
    const struct manifest_disk *now = manifest_disk(&s->newest, d->number);

    *c = (struct content){ .s = s,
                           .number = d->number,
                           .generation = generation,
                           .shape = shape_of(d),
                           .secret = d->secret,
                           .root = d->root,
                           .image_fd = -1,
                           .digests_fd = -1 };
    if (now == NULL)
        return err_set(e, ERR_CORRUPT, "%s: its image is lost", d->slot);
    if (open_image(c, now, e) != 0 || open_layers(c, e) != 0)
        return -1;
    return patch_room_new(&c->room, d->block_bytes, e);
}

void content_close(struct content *c)
{
    for (size_t i = 0; i < c->layer_count; i++)
        patch_cursor_close(&c->layers[i].index);
    free(c->layers);
    patch_room_free(&c->room);
    io_drop(&c->digests_fd);
    io_drop(&c->image_fd);
    *c = (struct content){ .image_fd = -1, .digests_fd = -1 };
}

int content_next(struct content *c, uint64_t block, uint64_t *out, struct err *e)
{
    uint64_t blocks = shape_blocks(c->shape), now = shape_blocks(c->now);
    uint64_t bytes = min_u64(c->shape.capacity_bytes, c->image_bytes);
    uint64_t data = file_next_data(c->image_fd, block * c->shape.block_bytes, bytes);
    uint64_t next = digests_next_data(c->digests_fd, block, now);

    if (next >= now)
        next = blocks;
    if (data < bytes)
        next = min_u64(next, data / c->shape.block_bytes);
    for (size_t i = 0; i < c->layer_count; i++) {
        struct patch_cursor *p = &c->layers[i].index;

        if (patch_forward(p, block, e) != 0)
            return err_add(e, "delta-%" PRIu64 "-%" PRIu64 ".index", c->layers[i].generation,
                           c->number);
        if (p->have)
            next = min_u64(next, p->entry.block);
    }
    *out = min_u64(max_u64(next, block), blocks);
    return 0;
}

/* One layer over the window.  A cursor is wound back: content_block comes over it again. */
static int overlay(struct content *c, int index, uint64_t first, size_t count, struct digest *d,
                   int *layer, struct err *e)
{
    struct patch_cursor *p = &c->layers[index].index;
    bool moved = false;

    if (patch_forward(p, first, e) != 0)
        goto fail;
    for (uint64_t at = first; p->have && p->entry.block < first + count;) {
        uint64_t from = max_u64(p->entry.block, at);
        uint64_t end = min_u64(p->entry.block + p->entry.count, first + count);

        for (uint64_t b = from; b < end; b++)
            if (layer[b - first] < 0) {
                d[b - first] = p->entry.digest;
                layer[b - first] = index;
            }
        if (p->entry.block + p->entry.count > first + count)
            break;
        if (patch_step(p, e) != 0)
            goto fail;
        moved = true;
    }
    if (moved && patch_seek(p, first, e) != 0)
        goto fail;
    return 0;

fail:
    return err_add(e, "delta-%" PRIu64 "-%" PRIu64 ".index", c->layers[index].generation,
                   c->number);
}

int content_digests(struct content *c, uint64_t first, size_t count, struct digest *d, int *layer,
                    struct err *e)
{
    for (size_t i = 0; i < count; i++)
        layer[i] = -1;
    if (digests_read(c->digests_fd, shape_blocks(c->now), first, count, d, e) != 0)
        return -1;
    /* The nearest layer wins: it is the first to claim a block. */
    for (size_t i = 0; i < c->layer_count; i++)
        if (overlay(c, (int)i, first, count, d, layer, e) != 0)
            return -1;
    return 0;
}

static int image_block(struct content *c, uint64_t block, const struct digest *expected,
                       struct err *e)
{
    size_t bytes = shape_block_bytes(c->shape, block);
    uint64_t at = block * c->shape.block_bytes;
    struct digest is = { { 0 } };

    if (at >= c->image_bytes || file_next_data(c->image_fd, at, at + bytes) == at + bytes) {
        memset(c->room.plain, 0, bytes);
    } else {
        if (file_read_padded(c->image_fd, c->room.plain, bytes, at, c->image_bytes, e) != 0)
            return err_add(e, "%s", c->file);
        c->read_bytes += bytes;
        is = digest_of(&c->secret, c->room.plain, bytes);
    }
    if (!digest_equal(&is, expected))
        return err_set(e, ERR_CORRUPT, "%s: the block at byte %" PRIu64 " is not what was recorded",
                       c->file, at);
    return 0;
}

static int layer_block(struct content *c, uint64_t block, struct content_layer *l, struct err *e)
{
    char name[LAYOUT_NAME_ROOM];
    size_t bytes = shape_block_bytes(c->shape, block);
    int fd, rc;

    if (patch_forward(&l->index, block, e) != 0)
        return -1;
    assert(l->index.have && l->index.entry.block <= block);
    if (l->index.entry.kind == PATCH_ZERO) {
        memset(c->room.plain, 0, bytes);
        return 0;
    }
    if (l->index.entry.kind == PATCH_LOST)
        return err_set(e, ERR_CORRUPT,
                       "%s: the block at byte %" PRIu64 " of this generation is lost", c->file,
                       block * c->shape.block_bytes);
    /* Opened for each block: hundreds of deltas would need as many descriptors more. */
    layout_name(name, "delta-%" PRIu64 "-%" PRIu64 ".blocks", l->generation, c->number);
    fd = must_be_there(file_open(c->s->store_fd, name, O_RDONLY, e), e);
    if (fd < 0)
        return -1;
    rc = patch_payload(fd, &l->index.entry, &c->secret, bytes, &c->room, e);
    c->read_bytes += l->index.entry.packed_bytes;
    io_drop(&fd);
    return rc == 0 ? 0 : err_add(e, "%s", name);
}

int content_block(struct content *c, uint64_t block, int layer, const struct digest *expected,
                  struct err *e)
{
    if (layer < 0)
        return image_block(c, block, expected, e);
    return layer_block(c, block, &c->layers[layer], e);
}
