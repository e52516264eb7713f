#include "protocol/stream/told.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/stream/piece.h"
#include "protocol/stream/sink.h"

/* Tree nodes for what is not read, in the order in which they came. */
struct node_list {
    struct node_list *next;
    struct stream_message *message;
    struct pull left; /* of its tail */
};

/* Digests that came for a range of the plan. */
struct held_range {
    struct held_range *next;
    struct stream_message *message;
    struct msg_held held;
};

static void held_drop_first(struct told *t)
{
    struct held_range *h = t->held_first;

    t->held_first = h->next;
    if (t->held_first == NULL)
        t->held_last = NULL;
    stream_message_free(h->message);
    free(h);
}

static void nodes_drop_first(struct told *t)
{
    struct node_list *n = t->nodes_first;

    t->nodes_first = n->next;
    if (t->nodes_first == NULL)
        t->nodes_last = NULL;
    stream_message_free(n->message);
    free(n);
}

void told_free(struct told *t)
{
    while (t->held_first != NULL)
        held_drop_first(t);
    while (t->nodes_first != NULL)
        nodes_drop_first(t);
}

uint64_t told_first_credit(struct told *t)
{
    t->may_come = TOLD_CREDIT;
    return t->may_come;
}

uint64_t told_credit(struct told *t)
{
    uint64_t owed = t->owed;

    if (owed < TOLD_CREDIT / 4)
        return 0;
    t->may_come += owed;
    t->owed = 0;
    return owed;
}

static int take_credit(struct told *t, uint64_t cost, struct err *e)
{
    if (cost > t->may_come)
        return err_set(e, ERR_PEER, "more digests than the credits allow");
    t->may_come -= cost;
    return 0;
}

int told_take_nodes(struct told *t, struct stream_message *m, struct err *e)
{
    struct node_list *n;

    if (m->body_bytes == 0 || m->body_bytes % (1 + DIGEST_BYTES) != 0)
        return err_set(e, ERR_PEER, "half a tree node");
    if (take_credit(t, MESSAGE_HEADER_BYTES + m->body_bytes, e) != 0)
        return -1;
    n = calloc(1, sizeof *n);
    if (n == NULL)
        return err_sys(e, "getting memory for tree nodes");
    n->message = m;
    n->left = (struct pull){ .at = m->body, .left = m->body_bytes };
    if (t->nodes_last != NULL)
        t->nodes_last->next = n;
    else
        t->nodes_first = n;
    t->nodes_last = n;
    return 0;
}

/* Where the next digests must start: behind the last ones, at the next planned read. */
static int check_held(const struct told *t, const struct msg_held *h, uint64_t walk_at,
                      uint64_t plan_at, struct err *e)
{
    uint64_t at = t->held_last != NULL
                      ? t->held_last->held.offset_bytes + t->held_last->held.length_bytes
                      : walk_at;
    uint64_t end;

    if (!checked_add(h->offset_bytes, h->length_bytes, &end) || h->length_bytes == 0 ||
        h->offset_bytes < at || end > plan_at || h->offset_bytes % t->block_bytes != 0 ||
        (end % t->block_bytes != 0 && end != t->capacity_bytes))
        return err_set(e, ERR_PEER,
                       "digests for %" PRIu64 " bytes at %" PRIu64 " do not fit the plan",
                       h->length_bytes, h->offset_bytes);
    if (h->kind > HELD_DIGESTS)
        return err_set(e, ERR_PEER, "digests of an unknown kind");
    if (h->tail_bytes != (h->kind == HELD_DIGESTS
                              ? block_count_of(h->length_bytes, t->block_bytes) * DIGEST_BYTES
                              : 0))
        return err_set(e, ERR_PEER, "a wrong number of digests at %" PRIu64, h->offset_bytes);
    return 0;
}

int told_take_held(struct told *t, struct stream_message *m, uint64_t walk_at, uint64_t plan_at,
                   struct err *e)
{
    struct held_range *h = calloc(1, sizeof *h);

    if (h == NULL)
        return err_sys(e, "getting memory for digests");
    if (msg_held_decode(&h->held, m->body, m->body_bytes, e) != 0 ||
        check_held(t, &h->held, walk_at, plan_at, e) != 0) {
        free(h);
        return -1;
    }
    if (take_credit(t, MSG_FIXED_held + h->held.tail_bytes, e) != 0) {
        free(h);
        return -1;
    }
    h->message = m;
    if (t->held_last != NULL)
        t->held_last->next = h;
    else
        t->held_first = h;
    t->held_last = h;
    return 0;
}

bool told_fill(const struct told *t, struct piece *piece)
{
    uint64_t at = piece->offset_bytes, end = at + piece->count_bytes;
    const struct held_range *h = t->held_first;

    for (; at < end; h = h->next) {
        uint64_t stop;

        if (h == NULL || h->held.offset_bytes > at)
            return false;
        stop = min_u64(h->held.offset_bytes + h->held.length_bytes, end);
        for (; at < stop; at += t->block_bytes) {
            struct piece_block *b = &piece->blocks[(at - piece->offset_bytes) / t->block_bytes];

            b->known = h->held.kind != HELD_UNKNOWN;
            b->held = (struct digest){ { 0 } };
            if (h->held.kind == HELD_DIGESTS)
                memcpy(b->held.b,
                       h->held.tail + (at - h->held.offset_bytes) / t->block_bytes * DIGEST_BYTES,
                       DIGEST_BYTES);
        }
        at = stop;
    }
    return true;
}

void told_pass(struct told *t, uint64_t walk_at)
{
    while (t->held_first != NULL &&
           t->held_first->held.offset_bytes + t->held_first->held.length_bytes <= walk_at) {
        t->owed += MSG_FIXED_held + t->held_first->held.tail_bytes;
        held_drop_first(t);
    }
}

int told_stand_for(struct told *t, struct tree *tree, uint64_t end_block, struct err *e)
{
    while (tree_position(tree) < end_block) {
        struct node_list *n = t->nodes_first;
        struct tree_node node;

        if (n == NULL)
            return 0;
        node.level = pull_u8(&n->left);
        pull_copy(&n->left, node.hash.b, sizeof node.hash.b);
        if (tree_add_node(tree, &node, e) != 0) {
            e->code = ERR_PEER;
            return -1;
        }
        if (n->left.left == 0) {
            t->owed += MESSAGE_HEADER_BYTES + n->message->body_bytes;
            nodes_drop_first(t);
        }
    }
    if (tree_position(tree) > end_block)
        return err_set(e, ERR_PEER, "tree nodes that reach into what is read");
    return 1;
}
