/*
 * The digest tree of a disk.  Level 0 is the digests of its blocks in order; a node of level n + 1
 * is the hash of up to TREE_FAN_OUT nodes of level n, in order.  A node over nothing but zeros is
 * 0, so an empty disk costs nothing whatever its size.  The root is the hash of the capacity, the
 * block size and the one node at the top, so it stands for the whole disk and is never 0.
 *
 * Hashes are XXH3-128 under the disk's digest secret:
 *     node(level, children) = XXH3( u8 level | children of 16 bytes each )
 *     root                  = XXH3( "root" | u64 capacity | u32 block size | u8 levels | top node )
 * little-endian; `levels` is the number of levels above 0, the least with TREE_FAN_OUT^levels >=
 * the number of blocks.  protocol/PROTOCOL.md has the normative text.
 *
 * The builder takes a disk from its first block to its last and needs memory for one node of each
 * level (at most 5 x 16 KiB).  Its state at any point is a short list of nodes: tree_export gives
 * it to the other end, which goes on from there (a stream that is opened again).
 */
#ifndef PROTOCOL_BLOCK_TREE_H
#define PROTOCOL_BLOCK_TREE_H

#include "protocol/block/digest.h"

struct err;

enum {
    TREE_FAN_OUT_BITS = 10,
    TREE_FAN_OUT = 1 << TREE_FAN_OUT_BITS,
    TREE_LEVELS_MAX = 5,
};

struct tree_node {
    uint8_t level; /* 0: the digest of one block */
    struct digest hash;
};

struct tree;

/* 0, or -1: ERR_LIMIT (a block size that is none, a capacity of 0 or too many blocks), ERR_SYSTEM.
 */
int tree_new(struct tree **out, const struct digest_secret *secret, uint64_t capacity_bytes,
             uint32_t block_bytes, struct err *e);
void tree_free(struct tree *t); /* NULL is allowed */

/* Forget everything that was added. */
void tree_reset(struct tree *t);

/* Blocks taken so far. */
uint64_t tree_position(const struct tree *t);

/* The next blocks.  ERR_LIMIT past the end of the disk. */
int tree_add(struct tree *t, const struct digest *digests, uint64_t count, struct err *e);
int tree_add_zeros(struct tree *t, uint64_t count, struct err *e);

/*
 * The next node->level-th power of TREE_FAN_OUT blocks (or those up to the end of the disk) by
 * their node.  ERR_LIMIT when the position is no start of such a node, or the level is above the
 * disk's.
 */
int tree_add_node(struct tree *t, const struct tree_node *node, struct err *e);

/*
 * The nodes that stand for all blocks taken so far, in the order in which tree_add_node takes them.
 * Returns how many there are; writes at most room of them.
 */
uint64_t tree_export(const struct tree *t, struct tree_node *out, uint64_t room);

/*
 * The highest level of which a node starts at block `position` and covers at most count blocks, for
 * a tree over `blocks` blocks in all; *span is how many it covers.
 */
unsigned tree_level_at(uint64_t position, uint64_t count, uint64_t blocks, uint64_t *span);

/* --- single nodes, for who keeps them --- */

/* Levels above the blocks; above TREE_LEVELS_MAX when the disk has too many. */
unsigned tree_levels_of(uint64_t blocks);

/* The node of this level, at least 1, over its children of the level below; 0 over zeros. */
struct digest tree_node_of(const struct digest_secret *secret, unsigned level,
                           const struct digest *children, size_t count);

/* The root of a disk with this node at the top. */
struct digest tree_root_of(const struct digest_secret *secret, uint64_t capacity_bytes,
                           uint32_t block_bytes, unsigned levels, const struct digest *top);

/* The root.  -1 with ERR_LIMIT unless the whole disk was added. */
int tree_root(struct tree *t, struct digest *out, struct err *e);

#endif
