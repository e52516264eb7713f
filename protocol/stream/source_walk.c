#include "protocol/stream/source_walk_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/stream/sample.h"
#include "protocol/stream/sink.h"

/* ---- life ---- */

static int check_request(const struct source *source, const struct msg_stream_open *o,
                         struct err *e)
{
    if (!block_size_valid(o->block_bytes))
        return err_set(e, ERR_PEER, "a block size of %" PRIu32 " bytes", o->block_bytes);
    if (o->from_bytes > source->capacity_bytes ||
        (o->from_bytes % o->block_bytes != 0 && o->from_bytes != source->capacity_bytes))
        return err_set(e, ERR_PEER, "a start at byte %" PRIu64, o->from_bytes);
    if ((o->flags & ~(uint32_t)STREAM_FLAGS_KNOWN) != 0)
        return err_set(e, ERR_PEER, "unknown stream flags 0x%" PRIx32, o->flags);
    if (o->compress > COMPRESS_LEVEL_MAX && o->compress != COMPRESS_AUTO)
        return err_set(e, ERR_PEER, "a compression level of %u", o->compress);
    if (o->data_credit < (uint64_t)MSG_FIXED_data + MSG_FIXED_run + o->block_bytes)
        return err_set(e, ERR_PEER, "a credit of %" PRIu64 " bytes is less than a block",
                       o->data_credit);
    return 0;
}

int source_walk_new(struct source_walk **out, const struct source_walk_config *config,
                    struct err *e)
{
    const struct msg_stream_open *o = config->open;
    struct source_walk *w;

    if (check_request(config->source, o, e) != 0)
        return -1;
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return err_sys(e, "getting memory for a disk stream");
    w->source = config->source;
    w->pool = config->pool;
    w->capacity = config->source->capacity_bytes;
    w->block = o->block_bytes;
    w->told = (struct told){ .block_bytes = w->block, .capacity_bytes = w->capacity };
    w->may_send = o->data_credit;
    w->rate = o->rate_bytes;
    w->window_bytes = config->window_bytes;
    w->ignore_holes = (o->flags & STREAM_IGNORE_HOLES) != 0;
    w->ignore_hints = (o->flags & STREAM_IGNORE_HINTS) != 0;
    w->plan_at = w->walk_at = w->emit_at = w->announced_at = o->from_bytes;
    w->plan_room = min_u64(PLAN_RUNS, (o->data_credit - MSG_FIXED_plan) / 8);
    memcpy(w->secret.b, o->secret, sizeof w->secret.b);
    if (tree_new(&w->tree, &w->secret, w->capacity, w->block, e) != 0 ||
        piece_set_new(&w->pieces, config->source, config->pool, &w->secret, w->block, o->compress,
                      config->memory_bytes, e) != 0)
        goto fail;
    if (!w->ignore_holes && (o->flags & STREAM_NO_SAMPLE) == 0 &&
        (w->source->flags & SOURCE_HOLES_CLAIMED) != 0 && sample_new(&w->sample, w->source, e) != 0)
        goto fail;
    *out = w;
    return 0;

fail:
    source_walk_free(w);
    return -1;
}

static void walk_stop(void *walk)
{
    struct source_walk *w = walk;

    piece_set_settle(w->pieces);
}

void source_walk_free(struct source_walk *w)
{
    if (w == NULL)
        return;
    piece_set_free(w->pieces);
    ask_window_free(w->window);
    told_free(&w->told);
    sample_free(w->sample);
    tree_free(w->tree);
    free(w);
}

/* ---- what the sink says ---- */

/* 1: the sink has the disk. */
static int take_finished(struct source_walk *w, const struct stream_message *m, struct err *e)
{
    struct msg_finished finished;

    if (msg_finished_decode(&finished, m->body, m->body_bytes, e) != 0)
        return -1;
    if (!w->ended || memcmp(finished.root, w->totals.root, sizeof finished.root) != 0)
        return err_set(e, ERR_PEER, "the sink finished another disk than was sent");
    return 1;
}

/* Told to ask, or to ask no more: what was asked for is still answered. */
static int take_asking(struct source_walk *w, const struct stream_message *m, struct err *e)
{
    struct msg_asking asking;

    if (msg_asking_decode(&asking, m->body, m->body_bytes, e) != 0)
        return -1;
    if (asking.when > ASKING_ALWAYS || w->ask_told == (asking.when != ASKING_NEVER))
        return err_set(e, ERR_PEER, "`asking` where it makes no sense");
    w->ask_when = asking.when;
    if (asking.when == ASKING_NEVER) {
        w->asks = false;
        piece_set_ask(w->pieces, NULL);
        return 0;
    }
    w->ask_told = true;
    memcpy(w->ask_key, asking.key, sizeof w->ask_key);
    if (asking.when == ASKING_ALWAYS || (w->rate != 0 && w->rate < SLOW_RATE_BYTES))
        return source_asking_begin(w, e);
    return 0;
}

static int take_answer(struct source_walk *w, const struct stream_message *m, struct err *e)
{
    if (w->window == NULL)
        return err_set(e, ERR_PEER, "an answer without a question");
    return ask_window_answer(w->window, m, e);
}

/* All messages that are there.  0, 1 when the stream is finished, or -1. */
static int take_messages(struct source_walk *w, bool *progress, struct err *e)
{
    struct stream_message *m;
    int rc = 0;

    while (rc == 0 && (m = stream_receive(w->stream)) != NULL) {
        *progress = true;
        switch (m->type) {
        case MSG_held:
            rc = told_take_held(&w->told, m, w->walk_at, w->plan_at, e);
            if (rc == 0)
                m = NULL;
            break;
        case MSG_credit:
            rc = stream_credit_take(m, &w->may_send, e);
            break;
        case MSG_nodes:
            rc = told_take_nodes(&w->told, m, e);
            if (rc == 0)
                m = NULL;
            break;
        case MSG_asking:
            rc = take_asking(w, m, e);
            break;
        case MSG_answer:
            rc = take_answer(w, m, e);
            break;
        case MSG_finished:
            rc = take_finished(w, m, e);
            break;
        case MSG_stream_close:
            rc = err_set(e, ERR_STOPPED, "the receiver closed the stream");
            break;
        default:
            rc = err_set(e, ERR_PEER, "a sink does not send `%s`", message_name(m->type));
        }
        stream_message_free(m);
    }
    return rc;
}

/* ---- plan ---- */

/* What a walk does with an extent. */
static enum plan_kind plan_kind_of(const struct source_walk *w, enum extent_kind kind)
{
    if (kind == EXTENT_ZERO && !w->ignore_holes)
        return PLAN_ZERO;
    if (kind == EXTENT_KEPT && !w->ignore_hints)
        return PLAN_UNREAD;
    return PLAN_READ; /* EXTENT_CHECK too */
}

/* The next run of whole blocks of one kind from offset on. */
static int plan_next(struct source_walk *w, uint64_t offset, struct plan_run *out, struct err *e)
{
    struct extent x;
    uint64_t end;

    if (source_extent_at(w->source, offset, &x, e) != 0)
        return -1;
    if (x.length_bytes == 0 || !checked_add(offset, x.length_bytes, &end) || end > w->capacity ||
        x.kind == EXTENT_PARENT)
        return err_set(e, ERR_CORRUPT, "the map of the disk is wrong at byte %" PRIu64, offset);
    *out = (struct plan_run){ .offset_bytes = offset, .kind = plan_kind_of(w, x.kind) };
    if (out->kind != PLAN_READ && end != w->capacity)
        end -= end % w->block;
    if (end <= offset) {
        out->kind = PLAN_READ; /* less than a block is known: the block is read */
        end = offset + 1;
    }
    end += (w->block - end % w->block) % w->block;
    out->length_bytes = min_u64(end, w->capacity) - offset;
    out->check = x.kind == EXTENT_CHECK && !w->ignore_hints && w->check_count < EXTENT_CHECKS_MAX;
    return 0;
}

/* Fill one plan message with what comes next; runs of one kind that meet become one. */
static int plan_send(struct source_walk *w, bool *progress, struct err *e)
{
    uint8_t tail[PLAN_RUNS * 8];
    struct push p = { .at = tail, .left = sizeof tail };
    struct msg_plan message = { .offset_bytes = w->plan_at };
    struct plan_run *runs = w->plan + w->plan_count;
    size_t count = 0;
    uint64_t at = w->plan_at;
    size_t cost;

    /* The next piece goes out when at most half of the last one is left to walk. */
    if (at == w->capacity || at - w->walk_at >= PLAN_AHEAD_BYTES ||
        w->plan_count - w->plan_first > PLAN_RUNS / 2 ||
        w->may_send < MSG_FIXED_plan + 8 * w->plan_room)
        return 0;
    memmove(w->plan, w->plan + w->plan_first, (w->plan_count - w->plan_first) * sizeof w->plan[0]);
    w->plan_count -= w->plan_first;
    w->plan_first = 0;
    runs = w->plan + w->plan_count;
    while (at < w->capacity && at - w->walk_at < PLAN_AHEAD_BYTES) {
        struct plan_run next;

        if (plan_next(w, at, &next, e) != 0)
            return -1;
        if (count > 0 && runs[count - 1].kind == next.kind)
            runs[count - 1].length_bytes += next.length_bytes;
        else if (count == w->plan_room)
            break;
        else
            runs[count++] = next;
        if (next.check)
            w->checks[w->check_count++] = at;
        at += next.length_bytes;
    }
    for (size_t i = 0; i < count; i++)
        push_u64(&p, runs[i].length_bytes << 2 | (uint64_t)runs[i].kind);
    message.tail = tail;
    message.tail_bytes = count * 8;
    cost = MSG_FIXED_plan + message.tail_bytes;
    if (link_send_plan(stream_link(w->stream), stream_id(w->stream), &message, e) != 0)
        return -1;
    w->may_send -= cost;
    w->plan_count += count;
    w->plan_at = at;
    *progress = true;
    return 0;
}

/* ---- walk ---- */

static struct op *op_push(struct source_walk *w, enum plan_kind kind, uint64_t offset,
                          uint64_t length)
{
    struct op *op = &w->ops[(w->op_first + w->op_count++) % OPS_MAX];

    *op = (struct op){ .kind = kind, .offset_bytes = offset, .length_bytes = length };
    return op;
}

/* Say that reads come; true when the word was said just now and should go out first. */
static int announce(struct source_walk *w, uint64_t end, bool *said, struct err *e)
{
    struct msg_reading reading;

    *said = false;
    if (end <= w->announced_at)
        return 0;
    w->announced_at = min_u64(w->walk_at + ANNOUNCE_BYTES, w->capacity);
    w->announced_at = max_u64(w->announced_at, end);
    reading.end_bytes = w->announced_at;
    reading.tail_bytes = 0;
    reading.tail = NULL;
    *said = true;
    return link_send_reading(stream_link(w->stream), stream_id(w->stream), &reading, e);
}

/* Turn the next bit of the plan into an op.  Sets *progress when it did. */
static int walk_on(struct source_walk *w, bool *progress, struct err *e)
{
    struct plan_run *run = &w->plan[w->plan_first];
    uint64_t run_end;
    struct piece *piece;
    bool said;

    if (w->plan_first == w->plan_count || w->op_count == OPS_MAX)
        return 0;
    run_end = run->offset_bytes + run->length_bytes;
    if (run->kind != PLAN_READ) {
        op_push(w, run->kind, w->walk_at, run_end - w->walk_at);
        w->walk_at = run_end;
        w->plan_first++;
        *progress = true;
        return 0;
    }
    piece = piece_take(w->pieces, w->walk_at, run_end);
    if (piece == NULL)
        return 0;
    if (!told_fill(&w->told, piece)) {
        piece_give(w->pieces, piece);
        return 0;
    }
    *progress = true;
    if (announce(w, piece->offset_bytes + piece->count_bytes, &said, e) != 0 || said) {
        piece_give(w->pieces, piece);
        return said ? 0 : -1;
    }
    op_push(w, PLAN_READ, piece->offset_bytes, piece->count_bytes)->piece = piece;
    w->walk_at += piece->count_bytes;
    if (w->walk_at == run_end)
        w->plan_first++;
    w->totals.read_bytes += piece->count_bytes;
    piece_start(w->pieces, piece, w->stream);
    told_pass(&w->told, w->walk_at);
    return 0;
}

/* ---- step ---- */

/* Give back the credit of what is used up. */
static int told_more(struct source_walk *w, struct err *e)
{
    struct msg_credit credit = { .bytes = told_credit(&w->told) };

    if (credit.bytes == 0)
        return 0;
    return link_send_credit(stream_link(w->stream), stream_id(w->stream), &credit, e);
}

/* The next sample of claimed holes.  A miss turns the holes off, loudly. */
static int sample_on(struct source_walk *w, struct err *e)
{
    static const char text[] = "a range that the map calls empty holds data: everything is read";
    struct msg_warning warning = {
        .code = WARNING_HOLES_WRONG,
        .tail = (const uint8_t *)text,
        .tail_bytes = sizeof text - 1,
    };
    enum sample_result r = sample_next(w->sample, &warning.offset_bytes, e);

    if (r == SAMPLE_FAILED)
        return -1;
    if (r == SAMPLE_AGAIN)
        return 0;
    w->totals.sampled_bytes = sample_bytes(w->sample);
    sample_free(w->sample);
    w->sample = NULL;
    if (r == SAMPLE_CLEAN)
        return 0;
    w->ignore_holes = true;
    return link_send_warning(stream_link(w->stream), stream_id(w->stream), &warning, e);
}

static int start(struct source_walk *w, struct err *e)
{
    struct msg_credit credit = { .bytes = told_first_credit(&w->told) };
    struct msg_reading reading = { .end_bytes = w->walk_at };

    w->started = true;
    if (link_send_credit(stream_link(w->stream), stream_id(w->stream), &credit, e) != 0)
        return -1;
    return link_send_reading(stream_link(w->stream), stream_id(w->stream), &reading, e);
}

static enum step walk_step(void *walk, struct stream *st, struct err *e)
{
    struct source_walk *w = walk;
    bool progress = false;
    int rc;

    w->stream = st;
    rc = take_messages(w, &progress, e);
    if (rc != 0)
        return rc > 0 ? STEP_DONE : STEP_FAILED;
    if (!w->started)
        return start(w, e) == 0 ? STEP_AGAIN : STEP_FAILED;
    /*
     * What came before this opening goes into the tree first.  Only then: later the tree stands
     * behind emit_at while the nodes of an unread run come in several messages.
     */
    if (!w->begun) {
        rc = told_stand_for(&w->told, w->tree, block_count_of(w->emit_at, w->block), e);
        if (rc <= 0)
            return rc == 0 ? STEP_WAIT : STEP_FAILED;
        w->begun = true;
    }
    if (w->sample != NULL)
        return sample_on(w, e) == 0 ? STEP_AGAIN : STEP_FAILED;
    if (plan_send(w, &progress, e) != 0 || source_emit(w, &progress, e) != 0 ||
        walk_on(w, &progress, e) != 0 || told_more(w, e) != 0)
        return STEP_FAILED;
    if (w->emit_at == w->capacity && !w->ended && w->may_send >= MSG_FIXED_run) {
        if (source_finish(w, e) != 0)
            return STEP_FAILED;
        progress = true;
    }
    return progress ? STEP_AGAIN : STEP_WAIT;
}

const struct stream_ops source_walk_ops = { .step = walk_step, .stop = walk_stop };
