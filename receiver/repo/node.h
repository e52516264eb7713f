/*
 * Trees of a repository: a disk's blocks and digests in nodes that are entries themselves
 * (FORMAT.md 8).  The builder takes a disk from its first block to its last and stores nodes as
 * they fill up; the reader finds its way in a stored tree, or in the nodes of an unfinished one.
 * Inside receiver/repo only.
 */
#ifndef RECEIVER_REPO_NODE_H
#define RECEIVER_REPO_NODE_H

#include "protocol/block/tree.h"
#include "receiver/repo/repo_read.h"

struct repo;

enum {
    NODE_HEADER_BYTES = 16,
    CELL_BYTES = REPO_ID_BYTES + DIGEST_BYTES,
    NODE_BYTES_MAX = NODE_HEADER_BYTES + TREE_FAN_OUT * CELL_BYTES,
};

_Static_assert(sizeof(struct repo_cell) == CELL_BYTES, "cells are copied as they are");

static inline bool cell_is_zero(const struct repo_cell *c)
{
    static const struct repo_cell zero;

    return memcmp(c, &zero, sizeof zero) == 0;
}

/* A cell has both halves or none. */
bool cell_is_possible(const struct repo_cell *c);

/* What a tree is over. */
struct tree_shape {
    uint64_t capacity_bytes;
    uint32_t block_bytes;
    uint64_t blocks;
    unsigned levels;
};

/* ERR_CORRUPT when no disk can be like that. */
int tree_shape_of(struct tree_shape *out, uint64_t capacity_bytes, uint32_t block_bytes,
                  struct err *e);

/* Blocks under a node of this level: TREE_FAN_OUT to its power. */
static inline uint64_t tree_span(unsigned level)
{
    return (uint64_t)1 << (TREE_FAN_OUT_BITS * level);
}

size_t node_encode(unsigned level, const struct repo_cell *cells, size_t count,
                   uint8_t out[NODE_BYTES_MAX]);
/* ERR_CORRUPT unless it is a node of this level with this many cells. */
int node_decode(const uint8_t *data, size_t data_bytes, unsigned level, size_t count,
                struct repo_cell *cells, struct err *e);

/* --- nodes that stand for the first part of a disk, or for all of it --- */

struct tree_spine {
    uint64_t position; /* blocks that it stands for */
    unsigned levels;
    bool whole; /* it stands for the whole disk, by `top` alone */
    struct repo_cell top;
    struct {
        uint32_t count;
        struct repo_cell *cells; /* owned; room for TREE_FAN_OUT */
    } level[TREE_LEVELS_MAX];    /* of the finished nodes of level n since the last of n + 1 */
};

void tree_spine_free(struct tree_spine *s); /* a zeroed one is allowed */

/* --- building --- */

struct tree_builder;

/* For an empty tree, or one that goes on behind a spine (copied; NULL: from the start). */
int tree_builder_new(struct tree_builder **out, struct repo *r, const struct digest_secret *secret,
                     const struct tree_shape *shape, const struct tree_spine *from, struct err *e);
void tree_builder_free(struct tree_builder *b); /* NULL is allowed */

uint64_t tree_builder_position(const struct tree_builder *b);
uint64_t tree_builder_stored(const struct tree_builder *b); /* bytes of new nodes */

int tree_builder_add(struct tree_builder *b, const struct repo_cell *cells, uint64_t count,
                     struct err *e);
int tree_builder_add_zeros(struct tree_builder *b, uint64_t count, struct err *e);

/* The next node->level-th power of TREE_FAN_OUT blocks by the cell of their node. */
int tree_builder_add_node(struct tree_builder *b, unsigned level, const struct repo_cell *cell,
                          struct err *e);

/* What stands for the blocks added so far; what it names is put, but not durable by itself. */
int tree_builder_spine(const struct tree_builder *b, struct tree_spine *out, struct err *e);

/* --- reading --- */

struct tree_reader;

/* Over a whole tree: its top cell. */
int tree_reader_new(struct tree_reader **out, struct repo *r, const struct digest_secret *secret,
                    const struct tree_shape *shape, const struct repo_cell *top, struct err *e);
/* Over a spine, which is copied: blocks behind its position are not there. */
int tree_reader_new_spine(struct tree_reader **out, struct repo *r,
                          const struct digest_secret *secret, const struct tree_shape *shape,
                          const struct tree_spine *spine, struct err *e);
void tree_reader_free(struct tree_reader *t); /* NULL is allowed */

uint64_t tree_reader_blocks(const struct tree_reader *t);

/*
 * What there is from `block` on, which is below tree_reader_blocks: *count cells at *cells, valid
 * until the next call, or with *cells NULL so many blocks of zeros.  ERR_CORRUPT: a node is damaged
 * or missing; then *count says how many blocks from here on cannot be told for that.
 */
int tree_reader_at(struct tree_reader *t, uint64_t block, const struct repo_cell **cells,
                   uint64_t *count, struct err *e);

/*
 * The cell of the node of `level` that begins at this block (0: the block's own).  *there is false
 * when the tree has no such node of its full span, or of its part at the end of the disk.
 */
int tree_reader_node(struct tree_reader *t, unsigned level, uint64_t block, struct repo_cell *out,
                     bool *there, struct err *e);

#endif
