/*
 * What the sink has told a source walk and the walk has not used up yet: digests of what will be
 * read, tree nodes of what will not.  Both leave the stream's inbox for these lists, so it is here
 * that the credits bound them.
 */
#ifndef PROTOCOL_STREAM_TOLD_H
#define PROTOCOL_STREAM_TOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/block/tree.h"
#include "protocol/stream/hub.h"

struct err;
struct piece;

enum { TOLD_CREDIT = 256 << 10 }; /* message bytes that the sink may be ahead of the walk */

struct held_range;
struct node_list;

/* Empty value: block and capacity set, all else zero. */
struct told {
    uint32_t block_bytes;
    uint64_t capacity_bytes;
    struct held_range *held_first, *held_last;
    struct node_list *nodes_first, *nodes_last;
    uint64_t may_come; /* message bytes that the sink may still send */
    uint64_t owed;     /* of what is used up, not given back yet */
};

void told_free(struct told *t);

/* The first grant; the caller sends it.  */
uint64_t told_first_credit(struct told *t);

/* What may be given back now, 0 if that is not worth a message; the caller sends it. */
uint64_t told_credit(struct told *t);

/*
 * Take a `held` message for what is planned to be read between walk_at and plan_at, or a `nodes`
 * message; the message is owned from 0 on.  -1: ERR_PEER (does not fit, past the credits),
 * ERR_SYSTEM.
 */
int told_take_held(struct told *t, struct stream_message *m, uint64_t walk_at, uint64_t plan_at,
                   struct err *e);
int told_take_nodes(struct told *t, struct stream_message *m, struct err *e);

/* Fill in what is held of the blocks of a piece; false while some of it has not come yet. */
bool told_fill(const struct told *t, struct piece *piece);

/* The walk has passed this offset: digests before it are done with. */
void told_pass(struct told *t, uint64_t walk_at);

/*
 * Let nodes stand for the blocks of the tree up to end_block.  1 when they do, 0 while some have
 * not come yet, -1 with ERR_PEER.
 */
int told_stand_for(struct told *t, struct tree *tree, uint64_t end_block, struct err *e);

#endif
