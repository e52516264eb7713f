/*
 * What a source walk says of the disk, in order: runs and blocks as the pieces are ready, directly
 * or, where it asks first, through the window.
 */
#include "protocol/stream/source_walk_private.h"

#include <inttypes.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"

static int run_flush(struct source_walk *w, struct err *e)
{
    if (w->pending.length_bytes == 0)
        return 0;
    if (link_send_run(stream_link(w->stream), stream_id(w->stream), &w->pending, e) != 0)
        return -1;
    w->may_send -= min_u64(w->may_send, MSG_FIXED_run);
    w->pending.length_bytes = 0;
    return 0;
}

/* Add to the run that waits to be told; runs of one kind that meet become one. */
static int run_add(struct source_walk *w, enum run_kind kind, uint64_t offset, uint64_t length,
                   struct err *e)
{
    if (w->pending.length_bytes > 0 &&
        (w->pending.kind != kind || w->pending.length_bytes >= ANNOUNCE_BYTES) &&
        run_flush(w, e) != 0)
        return -1;
    if (w->pending.length_bytes == 0)
        w->pending = (struct msg_run){ .offset_bytes = offset, .kind = (uint8_t)kind };
    w->pending.length_bytes += length;
    *(kind == RUN_SAME     ? &w->totals.same_bytes
      : kind == RUN_UNREAD ? &w->totals.unread_bytes
      : kind == RUN_KNOWN  ? &w->totals.data_bytes
                           : &w->totals.zero_bytes) += length;
    w->emit_at += length;
    return 0;
}

/* Whether the rate allows a message now; asks for a step at the time when it will. */
static bool rate_allows(struct source_walk *w, size_t cost)
{
    uint64_t now_us = io_clock_ms() * 1000;

    if (w->rate == 0)
        return true;
    if (w->next_send_us > now_us) {
        stream_wake_at(w->stream, w->next_send_us / 1000 + 1);
        return false;
    }
    /* Up to 50 ms that were not used are made up for. */
    w->next_send_us = max_u64(w->next_send_us, now_us - min_u64(now_us, 50000));
    w->next_send_us += (uint64_t)cost * 1000000 / w->rate;
    return true;
}

int source_asking_begin(struct source_walk *w, struct err *e)
{
    if (w->window == NULL && ask_window_new(&w->window, w->window_bytes, w->block, e) != 0)
        return -1;
    w->asks = true;
    piece_set_ask(w->pieces, w->ask_key);
    return 0;
}

/*
 * Whether the link has turned out to be slow, now that so many bytes were queued for it (0: a block
 * had to wait for room).  Only where blocks wait most of the time do the bytes say how fast it is.
 */
static bool link_proves_slow(struct source_walk *w, size_t cost)
{
    uint64_t now = io_clock_ms(), elapsed;
    bool slow;

    if (cost == 0) {
        if (w->blocked_since_ms == 0)
            w->blocked_since_ms = now;
        return false;
    }
    if (w->measured_since_ms == 0)
        w->measured_since_ms = now;
    if (w->blocked_since_ms != 0)
        w->blocked_ms += now - w->blocked_since_ms;
    w->blocked_since_ms = 0;
    w->measured_bytes += cost;
    if (w->measured_bytes < SLOW_OVER_BYTES)
        return false;
    elapsed = now - w->measured_since_ms;
    slow = w->measured_bytes * 1000 / SLOW_RATE_BYTES < elapsed && w->blocked_ms >= elapsed / 2;
    w->measured_since_ms = w->blocked_ms = w->measured_bytes = 0;
    return slow;
}

/* 1: sent; 0: no credit, room or rate now; -1. */
static int block_send(struct source_walk *w, struct msg_data *data, const struct digest *digest,
                      struct err *e)
{
    size_t cost = MSG_FIXED_data + data->tail_bytes;
    uint64_t length = min_u64(w->block, w->capacity - data->offset_bytes);
    bool measures = w->ask_when == ASKING_SLOW && !w->asks;

    if (w->may_send < cost + MSG_FIXED_run)
        return 0;
    if (!link_room(stream_link(w->stream))) {
        if (measures)
            link_proves_slow(w, 0);
        return 0;
    }
    if (!rate_allows(w, cost))
        return 0;
    memcpy(data->digest, digest->b, sizeof data->digest);
    if (run_flush(w, e) != 0 ||
        link_send_data(stream_link(w->stream), stream_id(w->stream), data, e) != 0)
        return -1;
    w->may_send -= cost;
    w->totals.sent_bytes += data->tail_bytes;
    w->totals.data_bytes += length;
    w->emit_at += length;
    if (measures && link_proves_slow(w, cost) && source_asking_begin(w, e) != 0)
        return -1;
    return 1;
}

/* A block that was read to check the hint must be what the sink has: else nothing is believed. */
static int check_hint(struct source_walk *w, const struct piece_block *b, uint64_t offset,
                      struct err *e)
{
    static const char text[] = "a block that the change hint calls kept has changed";
    struct msg_warning warning = {
        .code = WARNING_HINT_WRONG,
        .offset_bytes = offset,
        .tail = (const uint8_t *)text,
        .tail_bytes = sizeof text - 1,
    };
    uint64_t length = min_u64(w->block, w->capacity - offset);

    if (w->check_first == w->check_count || w->checks[w->check_first] != offset)
        return 0;
    w->check_first++;
    /* Read to see whether the hint lies, not for the plan. */
    w->totals.sampled_bytes += length;
    w->totals.read_bytes -= length;
    if (!b->known || digest_equal(&b->digest, &b->held))
        return 0;
    if (link_send_warning(stream_link(w->stream), stream_id(w->stream), &warning, e) != 0)
        return -1;
    return err_set(e, ERR_SOURCE, "%s (byte %" PRIu64 ")", text, offset);
}

/* Whether what is emitted goes through the window. */
static bool windowed(const struct source_walk *w)
{
    return w->window != NULL && (w->asks || ask_window_first(w->window) != NULL);
}

/* Tell of a run without data, or put it behind what is asked for, where there must be room. */
static int run_emit(struct source_walk *w, enum run_kind kind, uint64_t offset, uint64_t length,
                    struct err *e)
{
    if (!windowed(w))
        return run_add(w, kind, offset, length, e);
    ask_window_run(w->window, kind, offset, length);
    return 0;
}

/* The same for one block of a piece.  1, 0 when it must wait, -1. */
static int block_emit(struct source_walk *w, const struct piece_block *b, uint64_t offset,
                      struct err *e)
{
    uint64_t length = min_u64(w->block, w->capacity - offset);
    struct msg_data data = {
        .offset_bytes = offset,
        .encoding = b->encoding,
        .tail = b->packed,
        .tail_bytes = b->packed_bytes,
    };

    if (windowed(w) && !ask_window_takes(w->window, b->kind == PIECE_DATA ? b->packed_bytes : 0))
        return 0;
    if (b->kind != PIECE_DATA)
        return run_emit(w, b->kind == PIECE_ZERO ? RUN_ZERO : RUN_SAME, offset, length, e) == 0
                   ? 1
                   : -1;
    if (!windowed(w))
        return block_send(w, &data, &b->digest, e);
    ask_window_block(w->window, b, offset, length);
    return 1;
}

/* Emit what is left of a finished piece.  1 when it is used up, 0 when it must wait, -1. */
static int piece_emit(struct source_walk *w, struct piece *piece, struct err *e)
{
    for (; piece->emitted < piece->block_count; piece->emitted++) {
        const struct piece_block *b = &piece->blocks[piece->emitted];
        uint64_t offset = piece->offset_bytes + (uint64_t)piece->emitted * w->block;
        int rc;

        if (w->may_send < MSG_FIXED_run)
            return 0;
        if (check_hint(w, b, offset, e) != 0)
            return -1;
        rc = block_emit(w, b, offset, e);
        if (rc <= 0)
            return rc;
        if (tree_add(w->tree, &b->digest, 1, e) != 0)
            return -1;
    }
    return 1;
}

/* Emit an op.  1 when it is done, 0 when it must wait, -1. */
static int op_emit(struct source_walk *w, struct op *op, struct err *e)
{
    int rc;

    if (windowed(w) && !ask_window_takes(w->window, 0))
        return 0;
    switch (op->kind) {
    case PLAN_ZERO:
        if (tree_add_zeros(w->tree, block_count_of(op->length_bytes, w->block), e) != 0 ||
            run_emit(w, RUN_ZERO, op->offset_bytes, op->length_bytes, e) != 0)
            return -1;
        return 1;
    case PLAN_UNREAD:
        rc = told_stand_for(&w->told, w->tree,
                            block_count_of(op->offset_bytes + op->length_bytes, w->block), e);
        if (rc > 0 && run_emit(w, RUN_UNREAD, op->offset_bytes, op->length_bytes, e) != 0)
            return -1;
        return rc;
    default:
        if (!piece_ready(w->pieces, op->piece))
            return 0;
        if (op->piece->failed) {
            *e = op->piece->why;
            return -1;
        }
        rc = piece_emit(w, op->piece, e);
        /* Waiting for answers is no reason to pack better when what is asked for is known. */
        if (rc != 0 || !windowed(w) || w->lacking)
            piece_set_pressure(w->pieces, rc == 0);
        if (rc > 0)
            piece_give(w->pieces, op->piece);
        return rc;
    }
}

/* Ask for what is new in the window, as far as credit and rate go. */
static int questions_send(struct source_walk *w, bool *progress, struct err *e)
{
    uint8_t tail[ASKS_OF_MESSAGE * ASK_BYTES];
    struct msg_ask ask = { .tail = tail };

    while (ask_window_new_blocks(w->window) > 0 &&
           w->may_send >= MSG_FIXED_ask + ASK_BYTES + MSG_FIXED_run) {
        size_t blocks = (size_t)min_u64(ASKS_OF_MESSAGE, ask_window_new_blocks(w->window));

        blocks = (size_t)min_u64(blocks, (w->may_send - MSG_FIXED_ask - MSG_FIXED_run) / ASK_BYTES);
        if (!rate_allows(w, MSG_FIXED_ask + blocks * ASK_BYTES))
            return 0;
        ask.tail_bytes = ask_window_question(w->window, blocks, tail, sizeof tail);
        if (link_send_ask(stream_link(w->stream), stream_id(w->stream), &ask, e) != 0)
            return -1;
        w->may_send -= MSG_FIXED_ask + ask.tail_bytes;
        w->totals.sent_bytes += ask.tail_bytes;
        *progress = true;
    }
    return 0;
}

/* Tell of the first item of the window.  1 when it is done, 0 when it must wait, -1. */
static int item_emit(struct source_walk *w, const struct ask_item *i, struct err *e)
{
    struct msg_data data = {
        .offset_bytes = i->offset_bytes,
        .encoding = i->encoding,
        .tail = i->packed,
        .tail_bytes = i->packed_bytes,
    };

    if (w->may_send < MSG_FIXED_run)
        return 0;
    switch (i->state) {
    case ASK_RUN:
        return run_add(w, i->run, i->offset_bytes, i->length_bytes, e) == 0 ? 1 : -1;
    case ASK_KNOWN:
        return run_add(w, RUN_KNOWN, i->offset_bytes, i->length_bytes, e) == 0 ? 1 : -1;
    case ASK_LACKING:
        return block_send(w, &data, &i->digest, e);
    default:
        return 0;
    }
}

static int window_emit(struct source_walk *w, bool *progress, struct err *e)
{
    const struct ask_item *first;
    int rc = 1;

    if (w->window == NULL)
        return 0;
    if (questions_send(w, progress, e) != 0)
        return -1;
    while (rc > 0 && (first = ask_window_first(w->window)) != NULL) {
        rc = item_emit(w, first, e);
        if (rc > 0) {
            if (first->state != ASK_RUN)
                w->lacking = first->state == ASK_LACKING;
            ask_window_drop(w->window);
            *progress = true;
        }
    }
    return rc < 0 ? -1 : 0;
}

int source_emit(struct source_walk *w, bool *progress, struct err *e)
{
    struct link *l = stream_link(w->stream);
    int rc = 1;

    link_hold(l);
    while (rc > 0 && w->op_count > 0 && w->may_send >= MSG_FIXED_run) {
        rc = op_emit(w, &w->ops[w->op_first], e);
        if (rc > 0) {
            w->op_first = (w->op_first + 1) % OPS_MAX;
            w->op_count--;
            *progress = true;
        }
    }
    if (rc >= 0 && window_emit(w, progress, e) != 0)
        rc = -1;
    link_let_go(l);
    return rc < 0 ? -1 : 0;
}

int source_finish(struct source_walk *w, struct err *e)
{
    struct digest root;

    if (run_flush(w, e) != 0 || tree_root(w->tree, &root, e) != 0)
        return -1;
    memcpy(w->totals.root, root.b, sizeof w->totals.root);
    w->ended = true;
    return link_send_end(stream_link(w->stream), stream_id(w->stream), &w->totals, e);
}
