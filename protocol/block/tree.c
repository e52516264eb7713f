#include "protocol/block/tree.h"

#include <inttypes.h>
#include <stdlib.h>

#include "protocol/base/checked.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* The unfinished node above each level: the children it has so far. */
struct level {
    uint32_t count;
    bool any; /* one of the children is not 0 */
    struct digest children[TREE_FAN_OUT];
};

struct tree {
    struct digest_secret secret;
    uint64_t capacity_bytes;
    uint64_t blocks;
    uint64_t position;
    uint32_t block_bytes;
    unsigned levels;     /* levels above the blocks */
    struct level *level; /* levels entries; level[n] collects nodes of level n */
    struct digest top;   /* when everything was added */
};

static uint64_t span_of(unsigned level)
{
    return (uint64_t)1 << (TREE_FAN_OUT_BITS * level);
}

unsigned tree_levels_of(uint64_t blocks)
{
    unsigned levels = 0;

    while (levels <= TREE_LEVELS_MAX && span_of(levels) < blocks)
        levels++;
    return levels;
}

int tree_new(struct tree **out, const struct digest_secret *secret, uint64_t capacity_bytes,
             uint32_t block_bytes, struct err *e)
{
    struct tree *t;
    unsigned levels;
    uint64_t blocks;

    if (!block_size_valid(block_bytes))
        return err_set(e, ERR_LIMIT, "a block size of %" PRIu32 " bytes is not possible",
                       block_bytes);
    if (capacity_bytes == 0)
        return err_set(e, ERR_LIMIT, "a disk without capacity");
    blocks = block_count_of(capacity_bytes, block_bytes);
    levels = tree_levels_of(blocks);
    if (levels > TREE_LEVELS_MAX)
        return err_set(e, ERR_LIMIT, "a disk of %" PRIu64 " bytes is too large", capacity_bytes);

    t = calloc(1, sizeof *t);
    if (t == NULL)
        return err_sys(e, "getting memory for a digest tree");
    t->level = calloc(levels > 0 ? levels : 1, sizeof *t->level);
    if (t->level == NULL) {
        free(t);
        return err_sys(e, "getting memory for a digest tree");
    }
    t->secret = *secret;
    t->capacity_bytes = capacity_bytes;
    t->block_bytes = block_bytes;
    t->blocks = blocks;
    t->levels = levels;
    *out = t;
    return 0;
}

void tree_free(struct tree *t)
{
    if (t == NULL)
        return;
    free(t->level);
    free(t);
}

void tree_reset(struct tree *t)
{
    t->position = 0;
    for (unsigned i = 0; i < t->levels; i++) {
        t->level[i].count = 0;
        t->level[i].any = false;
    }
}

uint64_t tree_position(const struct tree *t)
{
    return t->position;
}

struct digest tree_node_of(const struct digest_secret *secret, unsigned level,
                           const struct digest *children, size_t count)
{
    XXH3_state_t state;
    XXH128_canonical_t canonical;
    uint8_t tag = (uint8_t)level;
    bool any = false;
    struct digest d;

    for (size_t i = 0; i < count && !any; i++)
        any = !digest_is_zero(&children[i]);
    if (!any)
        return (struct digest){ { 0 } };
    XXH3_INITSTATE(&state);
    XXH3_128bits_reset_withSecret(&state, secret->b, sizeof secret->b);
    XXH3_128bits_update(&state, &tag, 1);
    XXH3_128bits_update(&state, children, count * sizeof children[0]);
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state));
    memcpy(d.b, canonical.digest, sizeof d.b);
    if (digest_is_zero(&d))
        d.b[DIGEST_BYTES - 1] = 1;
    return d;
}

/* One node of `level`; finished nodes above it move up.  Spans were checked by the callers. */
static void place(struct tree *t, unsigned level, const struct digest *hash)
{
    struct digest d = *hash;

    t->position = min_u64(t->position + span_of(level), t->blocks);
    for (;;) {
        struct level *above;

        if (level == t->levels) {
            t->top = d;
            return;
        }
        above = &t->level[level];
        above->children[above->count++] = d;
        above->any = above->any || !digest_is_zero(&d);
        if (above->count < TREE_FAN_OUT && t->position < t->blocks)
            return;
        level++;
        d = above->any ? tree_node_of(&t->secret, level, above->children, above->count)
                       : (struct digest){ { 0 } };
        above->count = 0;
        above->any = false;
        /* At the end of the disk the unfinished nodes close all the way up. */
    }
}

int tree_add(struct tree *t, const struct digest *digests, uint64_t count, struct err *e)
{
    if (count > t->blocks - t->position)
        return err_set(e, ERR_LIMIT, "more digests than the disk has blocks");
    for (uint64_t i = 0; i < count; i++)
        place(t, 0, &digests[i]);
    return 0;
}

/* The highest level of which a node may start at the present position and covers at most count. */
static unsigned best_level(const struct tree *t, uint64_t count)
{
    unsigned level = 0;

    while (level < t->levels && t->position % span_of(level + 1) == 0 &&
           (span_of(level + 1) <= count || count == t->blocks - t->position))
        level++;
    return level;
}

int tree_add_zeros(struct tree *t, uint64_t count, struct err *e)
{
    static const struct digest zero;

    if (count > t->blocks - t->position)
        return err_set(e, ERR_LIMIT, "more zeros than the disk has blocks");
    while (count > 0) {
        unsigned level = best_level(t, count);
        uint64_t before = t->position;

        place(t, level, &zero);
        count -= t->position - before;
    }
    return 0;
}

int tree_add_node(struct tree *t, const struct tree_node *node, struct err *e)
{
    if (node->level > t->levels || t->position >= t->blocks ||
        t->position % span_of(node->level) != 0)
        return err_set(e, ERR_LIMIT, "a tree node of level %u does not fit at block %" PRIu64,
                       node->level, t->position);
    place(t, node->level, &node->hash);
    return 0;
}

uint64_t tree_export(const struct tree *t, struct tree_node *out, uint64_t room)
{
    uint64_t count = 0;

    if (t->position == t->blocks) {
        if (room > 0)
            out[0] = (struct tree_node){ (uint8_t)t->levels, t->top };
        return 1;
    }
    for (unsigned i = t->levels; i > 0; i--) {
        const struct level *l = &t->level[i - 1];

        for (uint32_t k = 0; k < l->count; k++, count++)
            if (count < room)
                out[count] = (struct tree_node){ (uint8_t)(i - 1), l->children[k] };
    }
    return count;
}

unsigned tree_level_at(uint64_t position, uint64_t count, uint64_t blocks, uint64_t *span)
{
    unsigned level = 0;

    while (level < TREE_LEVELS_MAX && span_of(level) < blocks &&
           position % span_of(level + 1) == 0 && span_of(level + 1) <= count)
        level++;
    *span = span_of(level);
    return level;
}

struct digest tree_root_of(const struct digest_secret *secret, uint64_t capacity_bytes,
                           uint32_t block_bytes, unsigned levels, const struct digest *top)
{
    uint8_t bytes[4 + 8 + 4 + 1 + DIGEST_BYTES];
    struct push p = { .at = bytes, .left = sizeof bytes };

    push_copy(&p, "root", 4);
    push_u64(&p, capacity_bytes);
    push_u32(&p, block_bytes);
    push_u8(&p, (uint8_t)levels);
    push_copy(&p, top->b, sizeof top->b);
    return digest_of_data(secret, bytes, sizeof bytes);
}

int tree_root(struct tree *t, struct digest *out, struct err *e)
{
    if (t->position != t->blocks)
        return err_set(e, ERR_LIMIT, "the tree has %" PRIu64 " of %" PRIu64 " blocks", t->position,
                       t->blocks);
    *out = tree_root_of(&t->secret, t->capacity_bytes, t->block_bytes, t->levels, &t->top);
    return 0;
}
