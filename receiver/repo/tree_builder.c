#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/repo/node.h"
#include "receiver/repo/repo_private.h"

enum { NODE_ZSTD_LEVEL = 1 };

/* The unfinished node above each level: the cells it has so far. */
struct level {
    uint32_t count;
    struct repo_cell cells[TREE_FAN_OUT];
};

struct tree_builder {
    struct repo *repo;
    struct digest_secret secret;
    struct tree_shape shape;
    uint64_t position;
    uint64_t stored_bytes;
    struct repo_cell top;
    struct level *level; /* shape.levels of them */
    ZSTD_CCtx *packer;
    uint8_t *node, *packed; /* NODE_BYTES_MAX each */
    struct digest *digests; /* TREE_FAN_OUT */
};

static int load_spine(struct tree_builder *b, const struct tree_spine *from, struct err *e)
{
    if (from->levels != b->shape.levels || from->position > b->shape.blocks)
        return err_set(e, ERR_CORRUPT, "what a cut run left does not fit the disk");
    b->top = from->top;
    for (unsigned i = 0; i < from->levels; i++) {
        b->level[i].count = from->level[i].count;
        if (from->level[i].count > 0)
            memcpy(b->level[i].cells, from->level[i].cells,
                   from->level[i].count * sizeof b->level[i].cells[0]);
    }
    b->position = from->position;
    return 0;
}

int tree_builder_new(struct tree_builder **out, struct repo *r, const struct digest_secret *secret,
                     const struct tree_shape *shape, const struct tree_spine *from, struct err *e)
{
    struct tree_builder *b = calloc(1, sizeof *b);

    if (b == NULL)
        return err_sys(e, "getting memory for a tree");
    b->repo = r;
    b->secret = *secret;
    b->shape = *shape;
    b->level = calloc(shape->levels > 0 ? shape->levels : 1, sizeof b->level[0]);
    b->packer = ZSTD_createCCtx();
    b->node = malloc(NODE_BYTES_MAX);
    b->packed = malloc(NODE_BYTES_MAX);
    b->digests = malloc(TREE_FAN_OUT * sizeof b->digests[0]);
    if (b->level == NULL || b->packer == NULL || b->node == NULL || b->packed == NULL ||
        b->digests == NULL) {
        err_sys(e, "getting memory for a tree");
        goto fail;
    }
    ZSTD_CCtx_setParameter(b->packer, ZSTD_c_compressionLevel, NODE_ZSTD_LEVEL);
    if (from != NULL && load_spine(b, from, e) != 0)
        goto fail;
    *out = b;
    return 0;

fail:
    tree_builder_free(b);
    return -1;
}

void tree_builder_free(struct tree_builder *b)
{
    if (b == NULL)
        return;
    ZSTD_freeCCtx(b->packer);
    free(b->level);
    free(b->node);
    free(b->packed);
    free(b->digests);
    free(b);
}

uint64_t tree_builder_position(const struct tree_builder *b)
{
    return b->position;
}

uint64_t tree_builder_stored(const struct tree_builder *b)
{
    return b->stored_bytes;
}

/* Store the node of this level over the cells collected below it; its cell. */
static int finish_node(struct tree_builder *b, unsigned level, struct repo_cell *out, struct err *e)
{
    struct level *below = &b->level[level - 1];
    enum entry_codec codec = CODEC_ZSTD;
    struct put_result put;
    size_t bytes, packed;

    for (uint32_t i = 0; i < below->count; i++)
        b->digests[i] = below->cells[i].digest;
    out->digest = tree_node_of(&b->secret, level, b->digests, below->count);
    if (digest_is_zero(&out->digest)) {
        *out = (struct repo_cell){ 0 };
        return 0;
    }
    bytes = node_encode(level, below->cells, below->count, b->node);
    if (vault_id(b->repo->vault, b->node, bytes, &out->id, e) != 0)
        return -1;
    /* Mostly hashes, but zeros and runs of one block pack well; 0 stands for an error too. */
    packed = ZSTD_compress2(b->packer, b->packed, bytes - 1, b->node, bytes);
    if (ZSTD_isError(packed))
        codec = CODEC_RAW;
    if (repo_put(b->repo, ENTRY_NODE, &out->id, codec, codec == CODEC_RAW ? b->node : b->packed,
                 codec == CODEC_RAW ? bytes : packed, bytes, &put, e) != 0)
        return -1;
    b->stored_bytes += put.stored_bytes;
    return 0;
}

/* One node (or block) of `level`; finished nodes above it move up.  Spans were checked. */
static int place(struct tree_builder *b, unsigned level, const struct repo_cell *cell,
                 struct err *e)
{
    struct repo_cell c = *cell;

    b->position = min_u64(b->position + tree_span(level), b->shape.blocks);
    for (;;) {
        struct level *above;

        if (level == b->shape.levels) {
            b->top = c;
            return 0;
        }
        above = &b->level[level];
        above->cells[above->count++] = c;
        if (above->count < TREE_FAN_OUT && b->position < b->shape.blocks)
            return 0;
        level++;
        if (finish_node(b, level, &c, e) != 0)
            return -1;
        above->count = 0;
    }
}

int tree_builder_add(struct tree_builder *b, const struct repo_cell *cells, uint64_t count,
                     struct err *e)
{
    if (count > b->shape.blocks - b->position)
        return err_set(e, ERR_LIMIT, "more blocks than the disk has");
    for (uint64_t i = 0; i < count; i++)
        if (place(b, 0, &cells[i], e) != 0)
            return -1;
    return 0;
}

int tree_builder_add_zeros(struct tree_builder *b, uint64_t count, struct err *e)
{
    static const struct repo_cell zero;

    if (count > b->shape.blocks - b->position)
        return err_set(e, ERR_LIMIT, "more blocks than the disk has");
    while (count > 0) {
        uint64_t before = b->position;
        unsigned level = 0;

        while (level < b->shape.levels && b->position % tree_span(level + 1) == 0 &&
               (tree_span(level + 1) <= count || count == b->shape.blocks - b->position))
            level++;
        if (place(b, level, &zero, e) != 0)
            return -1;
        count -= b->position - before;
    }
    return 0;
}

int tree_builder_add_node(struct tree_builder *b, unsigned level, const struct repo_cell *cell,
                          struct err *e)
{
    if (level > b->shape.levels || b->position >= b->shape.blocks ||
        b->position % tree_span(level) != 0)
        return err_set(e, ERR_LIMIT, "a node of level %u does not fit at block %" PRIu64, level,
                       b->position);
    return place(b, level, cell, e);
}

int tree_builder_spine(const struct tree_builder *b, struct tree_spine *out, struct err *e)
{
    *out = (struct tree_spine){ .position = b->position, .levels = b->shape.levels };
    if (b->position == b->shape.blocks) {
        out->whole = true;
        out->top = b->top;
        return 0;
    }
    for (unsigned i = 0; i < b->shape.levels; i++) {
        uint32_t count = b->level[i].count;

        if (count == 0)
            continue;
        out->level[i].cells = malloc(count * sizeof out->level[i].cells[0]);
        if (out->level[i].cells == NULL) {
            tree_spine_free(out);
            return err_sys(e, "getting memory for a tree");
        }
        memcpy(out->level[i].cells, b->level[i].cells, count * sizeof out->level[i].cells[0]);
        out->level[i].count = count;
    }
    return 0;
}
