#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/repo/node.h"
#include "receiver/repo/repo_private.h"

/* Two places of a disk are looked at in turn (what is told, what comes): room for both. */
enum { NODES_OF_LEVEL = 4 };

struct cached_node {
    bool there;
    uint64_t first; /* block */
    uint64_t used;  /* clock of the last use */
    struct repo_cell *cells;
};

/* A node that is known from outside. */
struct root {
    unsigned level;
    uint64_t first; /* block */
    struct repo_cell cell;
};

struct tree_reader {
    struct repo *repo;
    struct digest_secret secret;
    struct tree_shape shape;
    uint64_t blocks;    /* that are there */
    struct root *roots; /* ascending by first */
    size_t root_count;
    struct cached_node cache[TREE_LEVELS_MAX][NODES_OF_LEVEL]; /* of levels from 1 on */
    uint64_t clock;
    uint8_t *node;
    struct digest *digests;
    struct repo_cell one; /* what tree_reader_at gave out last, where it is a root */
};

static int new_reader(struct tree_reader **out, struct repo *r, const struct digest_secret *secret,
                      const struct tree_shape *shape, size_t roots, struct err *e)
{
    struct tree_reader *t = calloc(1, sizeof *t);

    if (t == NULL)
        return err_sys(e, "getting memory for a tree");
    t->repo = r;
    t->secret = *secret;
    t->shape = *shape;
    t->roots = calloc(roots > 0 ? roots : 1, sizeof t->roots[0]);
    t->node = malloc(NODE_BYTES_MAX);
    t->digests = malloc(TREE_FAN_OUT * sizeof t->digests[0]);
    if (t->roots == NULL || t->node == NULL || t->digests == NULL) {
        tree_reader_free(t);
        return err_sys(e, "getting memory for a tree");
    }
    *out = t;
    return 0;
}

int tree_reader_new(struct tree_reader **out, struct repo *r, const struct digest_secret *secret,
                    const struct tree_shape *shape, const struct repo_cell *top, struct err *e)
{
    if (new_reader(out, r, secret, shape, 1, e) != 0)
        return -1;
    (*out)->roots[0] = (struct root){ .level = shape->levels, .cell = *top };
    (*out)->root_count = 1;
    (*out)->blocks = shape->blocks;
    return 0;
}

int tree_reader_new_spine(struct tree_reader **out, struct repo *r,
                          const struct digest_secret *secret, const struct tree_shape *shape,
                          const struct tree_spine *spine, struct err *e)
{
    size_t count = 0;
    uint64_t at = 0;

    if (spine->whole)
        return tree_reader_new(out, r, secret, shape, &spine->top, e);
    for (unsigned i = 0; i < spine->levels; i++)
        count += spine->level[i].count;
    if (new_reader(out, r, secret, shape, count, e) != 0)
        return -1;
    for (unsigned level = spine->levels; level > 0; level--)
        for (uint32_t i = 0; i < spine->level[level - 1].count; i++) {
            (*out)->roots[(*out)->root_count++] =
                (struct root){ level - 1, at, spine->level[level - 1].cells[i] };
            at += tree_span(level - 1);
        }
    (*out)->blocks = spine->position;
    return 0;
}

void tree_reader_free(struct tree_reader *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < TREE_LEVELS_MAX; i++)
        for (size_t k = 0; k < NODES_OF_LEVEL; k++)
            free(t->cache[i][k].cells);
    free(t->roots);
    free(t->node);
    free(t->digests);
    free(t);
}

uint64_t tree_reader_blocks(const struct tree_reader *t)
{
    return t->blocks;
}

/* Blocks of the disk under the node of this level that begins at `first`. */
static uint64_t blocks_under(const struct tree_reader *t, unsigned level, uint64_t first)
{
    return min_u64(tree_span(level), t->shape.blocks - first);
}

static size_t cells_of(const struct tree_reader *t, unsigned level, uint64_t first)
{
    uint64_t below = tree_span(level - 1);

    return (size_t)((blocks_under(t, level, first) + below - 1) / below);
}

/* Read a node and prove it against its cell. */
static int load(struct tree_reader *t, unsigned level, uint64_t first, const struct repo_cell *cell,
                struct repo_cell *cells, struct err *e)
{
    size_t count = cells_of(t, level, first), bytes = 0;
    struct digest digest;

    if (repo_get(t->repo, ENTRY_NODE, &cell->id, t->node, NODE_BYTES_MAX, &bytes, e) != 0 ||
        node_decode(t->node, bytes, level, count, cells, e) != 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        t->digests[i] = cells[i].digest;
    digest = tree_node_of(&t->secret, level, t->digests, count);
    if (!digest_equal(&digest, &cell->digest))
        return err_set(e, ERR_CORRUPT, "the digests of a node are not what the node above says");
    return 0;
}

static int get_node(struct tree_reader *t, unsigned level, uint64_t first,
                    const struct repo_cell *cell, const struct repo_cell **out, struct err *e)
{
    struct cached_node *set = t->cache[level - 1], *oldest = &set[0];

    t->clock++;
    for (size_t i = 0; i < NODES_OF_LEVEL; i++) {
        if (set[i].there && set[i].first == first) {
            set[i].used = t->clock;
            *out = set[i].cells;
            return 0;
        }
        if (set[i].used < oldest->used)
            oldest = &set[i];
    }
    if (oldest->cells == NULL)
        oldest->cells = malloc(TREE_FAN_OUT * sizeof oldest->cells[0]);
    if (oldest->cells == NULL)
        return err_sys(e, "getting memory for a tree");
    oldest->there = false;
    if (load(t, level, first, cell, oldest->cells, e) != 0)
        return err_add(e, "tree level %u, block %" PRIu64, level, first);
    *oldest = (struct cached_node){
        .there = true, .first = first, .used = t->clock, .cells = oldest->cells
    };
    *out = oldest->cells;
    return 0;
}

static const struct root *root_of(const struct tree_reader *t, uint64_t block)
{
    size_t low = 0, high = t->root_count;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (t->roots[middle].first <= block)
            low = middle;
        else
            high = middle;
    }
    return &t->roots[low];
}

/* A place on the way down. */
struct spot {
    unsigned level;
    uint64_t first; /* block under it */
    struct repo_cell cell;
    const struct repo_cell *siblings; /* the node that it is in; NULL for a root */
};

/*
 * From the root that has the block down to `level`, or to the first cell of zeros on the way.  When
 * a node on the way cannot be read, *spot is that node's.
 */
static int descend(struct tree_reader *t, uint64_t block, unsigned level, struct spot *spot,
                   struct err *e)
{
    const struct root *root = root_of(t, block);

    *spot = (struct spot){ .level = root->level, .first = root->first, .cell = root->cell };
    while (spot->level > level && !cell_is_zero(&spot->cell)) {
        const struct repo_cell *cells = NULL;
        uint64_t child;

        if (get_node(t, spot->level, spot->first, &spot->cell, &cells, e) != 0)
            return -1;
        child = (block - spot->first) / tree_span(spot->level - 1);
        spot->first += child * tree_span(spot->level - 1);
        spot->level--;
        spot->cell = cells[child];
        spot->siblings = cells;
    }
    return 0;
}

/* Where a node ends; zeros go on over the siblings that are zeros too. */
static uint64_t zeros_end(const struct tree_reader *t, const struct spot *s)
{
    uint64_t end = s->first + blocks_under(t, s->level, s->first), above, child;

    if (s->siblings == NULL)
        return end;
    above = s->first / tree_span(s->level + 1) * tree_span(s->level + 1);
    child = (s->first - above) / tree_span(s->level);
    while (++child < cells_of(t, s->level + 1, above) && cell_is_zero(&s->siblings[child]))
        end += blocks_under(t, s->level, end);
    return end;
}

int tree_reader_at(struct tree_reader *t, uint64_t block, const struct repo_cell **cells,
                   uint64_t *count, struct err *e)
{
    struct spot s;
    uint64_t leaf;

    *cells = NULL;
    if (descend(t, block, 0, &s, e) != 0) {
        *count = min_u64(s.first + blocks_under(t, s.level, s.first), t->blocks) - block;
        return -1;
    }
    if (s.level > 0 || s.siblings == NULL) {
        *count = zeros_end(t, &s) - block;
        t->one = s.cell;
        if (!cell_is_zero(&s.cell))
            *cells = &t->one;
        return 0;
    }
    leaf = block / TREE_FAN_OUT * TREE_FAN_OUT;
    *count = leaf + blocks_under(t, 1, leaf) - block;
    *cells = s.siblings + (block - leaf);
    return 0;
}

int tree_reader_node(struct tree_reader *t, unsigned level, uint64_t block, struct repo_cell *out,
                     bool *there, struct err *e)
{
    struct spot s;

    *there = false;
    if (block >= t->blocks || root_of(t, block)->level < level)
        return 0;
    if (descend(t, block, level, &s, e) != 0)
        return -1;
    *there = true;
    *out = s.cell;
    if (s.level > level)
        *out = (struct repo_cell){ 0 };
    return 0;
}
