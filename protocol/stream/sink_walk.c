#include "protocol/stream/sink_walk.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/tree.h"
#include "protocol/stream/sink_questions.h"

enum {
    PLAN_RANGES_MAX = 2 * 4096, /* the source keeps no more than that ahead of its walk */
    HELD_DIGESTS_MAX = 4096,    /* digests of one message */
    NODES_MAX = 4096,           /* tree nodes of one message */
    NODE_BYTES = 1 + DIGEST_BYTES,
    MESSAGES_PER_STEP = 32,
    WINDOW_LOG_MAX = 24,
};

/* A range that this end has something to say of: it will be read, or is left unread. */
struct range {
    uint64_t offset_bytes, end_bytes;
    bool unread;
};

struct sink_walk {
    struct sink *sink;
    struct sink_walk_config config;
    struct tree *tree;
    uint64_t capacity;
    uint32_t block;
    size_t window;
    uint64_t position; /* verified up to here */
    struct tree *span; /* scratch: a tree over part of the disk */
    ZSTD_DCtx *unpacker;
    uint8_t *plain;
    /* Too large for the small stacks of our threads. */
    struct digest digests[HELD_DIGESTS_MAX];
    struct tree_node nodes[NODES_MAX];
    uint8_t nodes_tail[TREE_LEVELS_MAX * TREE_FAN_OUT * NODE_BYTES];

    /* this opening */
    struct stream *stream;
    bool nodes_sent;
    uint64_t plan_at; /* the plan is known up to here */
    uint64_t held_at; /* and what is held was told up to here */
    size_t range_first, range_count;
    struct range ranges[PLAN_RANGES_MAX];
    uint64_t span_at, span_end; /* blocks of the node that is being made; equal: none */
    uint64_t may_send, owed;
    struct sink_questions questions;
    struct msg_end opening; /* what came, to be compared with the source's totals */

    bool finished;
    struct digest root;

    pthread_mutex_t totals_lock; /* guards totals */
    struct sink_totals totals;
};

int sink_walk_new(struct sink_walk **out, const struct sink_walk_config *config, struct err *e)
{
    struct sink *sink = config->sink;
    struct sink_walk *w = calloc(1, sizeof *w);
    size_t least = (size_t)MSG_FIXED_data + MSG_FIXED_run + sink->block_bytes;

    if (w == NULL)
        return err_sys(e, "getting memory for a disk stream");
    pthread_mutex_init(&w->totals_lock, NULL);
    w->sink = sink;
    w->config = *config;
    w->capacity = sink->capacity_bytes;
    w->block = sink->block_bytes;
    w->window = config->window_bytes > least ? config->window_bytes : least;
    w->plain = malloc(w->block);
    w->unpacker = ZSTD_createDCtx();
    if (w->plain == NULL || w->unpacker == NULL) {
        err_sys(e, "getting memory for a disk stream");
        goto fail;
    }
    ZSTD_DCtx_setParameter(w->unpacker, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    /* A span begins at block 0 of its tree and never reaches the end of it. */
    if (tree_new(&w->tree, &sink->secret, w->capacity, w->block, e) != 0 ||
        tree_new(&w->span, &sink->secret, 2 * w->capacity + w->block, w->block, e) != 0)
        goto fail;
    *out = w;
    return 0;

fail:
    sink_walk_free(w);
    return -1;
}

void sink_walk_free(struct sink_walk *w)
{
    if (w == NULL)
        return;
    tree_free(w->tree);
    tree_free(w->span);
    sink_questions_free(&w->questions);
    ZSTD_freeDCtx(w->unpacker);
    free(w->plain);
    pthread_mutex_destroy(&w->totals_lock);
    free(w);
}

void sink_walk_open(struct sink_walk *w, struct msg_stream_open *open)
{
    w->nodes_sent = false;
    w->plan_at = w->held_at = w->position;
    w->range_first = w->range_count = 0;
    w->may_send = w->owed = 0;
    w->span_at = w->span_end = 0;
    sink_questions_reset(&w->questions);
    /* What a cut opening had read is not told any more; this much of it is known. */
    pthread_mutex_lock(&w->totals_lock);
    w->totals.read_bytes += w->opening.same_bytes + w->opening.data_bytes;
    w->totals.openings++;
    pthread_mutex_unlock(&w->totals_lock);
    w->opening = (struct msg_end){ 0 };
    open->block_bytes = w->block;
    open->from_bytes = w->position;
    open->data_credit = w->window;
    memcpy(open->secret, w->sink->secret.b, sizeof open->secret);
}

void sink_walk_totals(struct sink_walk *w, struct sink_totals *out)
{
    pthread_mutex_lock(&w->totals_lock);
    *out = w->totals;
    pthread_mutex_unlock(&w->totals_lock);
}

bool sink_walk_root(const struct sink_walk *w, struct digest *out)
{
    if (w->finished)
        *out = w->root;
    return w->finished;
}

/* ---- what the source says ---- */

static int take_plan(struct sink_walk *w, const struct stream_message *m, struct err *e)
{
    struct msg_plan plan;
    struct pull p;

    if (msg_plan_decode(&plan, m->body, m->body_bytes, e) != 0)
        return -1;
    if (plan.offset_bytes != w->plan_at || plan.tail_bytes == 0 || plan.tail_bytes % 8 != 0)
        return err_set(e, ERR_PEER, "a plan with a gap at byte %" PRIu64, w->plan_at);
    memmove(w->ranges, w->ranges + w->range_first,
            (w->range_count - w->range_first) * sizeof w->ranges[0]);
    w->range_count -= w->range_first;
    w->range_first = 0;
    p = (struct pull){ .at = plan.tail, .left = plan.tail_bytes };
    while (p.left > 0) {
        uint64_t run = pull_u64(&p), length = run >> 2, end;

        if ((run & 3) > PLAN_UNREAD || length == 0 || !checked_add(w->plan_at, length, &end) ||
            end > w->capacity || (end % w->block != 0 && end != w->capacity))
            return err_set(e, ERR_PEER, "a plan that does not fit the disk at byte %" PRIu64,
                           w->plan_at);
        if ((run & 3) != PLAN_ZERO) {
            if (w->range_count == PLAN_RANGES_MAX)
                return err_set(e, ERR_PEER, "a plan too far ahead of the walk");
            w->ranges[w->range_count++] =
                (struct range){ w->plan_at, end, (run & 3) == PLAN_UNREAD };
        }
        w->plan_at = end;
    }
    return 0;
}

/* Whether a range is the next one, whole blocks, and inside the plan. */
static int check_place(const struct sink_walk *w, uint64_t offset, uint64_t length, struct err *e)
{
    uint64_t end;

    if (offset != w->position || length == 0 || !checked_add(offset, length, &end) ||
        end > w->plan_at || (end % w->block != 0 && end != w->capacity))
        return err_set(e, ERR_PEER,
                       "%" PRIu64 " bytes at %" PRIu64 " came where %" PRIu64 " was due", length,
                       offset, w->position);
    return 0;
}

/* What is held from offset on goes into a tree, up to end; *offset moves on.  One piece of it. */
static int add_held_piece(struct sink_walk *w, struct tree *t, uint64_t *offset, uint64_t end,
                          bool zeros_allowed, struct err *e)
{
    struct held h;
    uint64_t blocks;

    if (w->sink->ops->held(w->sink, *offset, end - *offset, w->digests, HELD_DIGESTS_MAX, &h, e) !=
        0)
        return -1;
    blocks = block_count_of(h.length_bytes, w->block);
    if (h.kind == HELD_UNKNOWN || (h.kind == HELD_ZERO && !zeros_allowed))
        return err_set(e, ERR_PEER, "the source leaves out what is not held, at byte %" PRIu64,
                       *offset);
    if ((h.kind == HELD_ZERO ? tree_add_zeros(t, blocks, e) : tree_add(t, w->digests, blocks, e)) !=
        0)
        return -1;
    *offset += h.length_bytes;
    return 0;
}

/* What is held of a range goes into the tree; it must have been told. */
static int add_held(struct sink_walk *w, uint64_t offset, uint64_t length, bool zeros_allowed,
                    struct err *e)
{
    uint64_t end = offset + length;

    if (end > w->held_at || w->config.full)
        return err_set(e, ERR_PEER, "the source leaves out what was not told, at byte %" PRIu64,
                       offset);
    while (offset < end)
        if (add_held_piece(w, w->tree, &offset, end, zeros_allowed, e) != 0)
            return -1;
    return 0;
}

static void advance(struct sink_walk *w, uint64_t length, uint64_t *kind_total, uint64_t sent)
{
    w->position += length;
    pthread_mutex_lock(&w->totals_lock);
    w->totals.position_bytes = w->position;
    *kind_total += length;
    w->totals.sent_bytes += sent;
    pthread_mutex_unlock(&w->totals_lock);
}

static int take_run(struct sink_walk *w, const struct stream_message *m, struct err *e)
{
    struct msg_run run;

    if (msg_run_decode(&run, m->body, m->body_bytes, e) != 0 ||
        check_place(w, run.offset_bytes, run.length_bytes, e) != 0 ||
        (run.kind != RUN_KNOWN &&
         sink_questions_pass(&w->questions, run.offset_bytes + run.length_bytes, e) != 0))
        return -1;
    switch (run.kind) {
    case RUN_SAME:
        if (add_held(w, run.offset_bytes, run.length_bytes, false, e) != 0 ||
            w->sink->ops->same(w->sink, run.offset_bytes, run.length_bytes, e) != 0)
            return -1;
        w->opening.same_bytes += run.length_bytes;
        advance(w, run.length_bytes, &w->totals.same_bytes, 0);
        return 0;
    case RUN_UNREAD:
        if (add_held(w, run.offset_bytes, run.length_bytes, true, e) != 0 ||
            w->sink->ops->same(w->sink, run.offset_bytes, run.length_bytes, e) != 0)
            return -1;
        w->opening.unread_bytes += run.length_bytes;
        advance(w, run.length_bytes, &w->totals.unread_bytes, 0);
        return 0;
    case RUN_ZERO:
        if (tree_add_zeros(w->tree, block_count_of(run.length_bytes, w->block), e) != 0 ||
            w->sink->ops->zero(w->sink, run.offset_bytes, run.length_bytes, e) != 0)
            return -1;
        w->opening.zero_bytes += run.length_bytes;
        advance(w, run.length_bytes, &w->totals.zero_bytes, 0);
        return 0;
    case RUN_KNOWN:
        if (sink_questions_known(&w->questions, w->sink, w->tree, &run, e) != 0)
            return -1;
        w->opening.data_bytes += run.length_bytes;
        pthread_mutex_lock(&w->totals_lock);
        w->totals.known_bytes += run.length_bytes;
        pthread_mutex_unlock(&w->totals_lock);
        advance(w, run.length_bytes, &w->totals.data_bytes, 0);
        return 0;
    default:
        return err_set(e, ERR_PEER, "a run of unknown kind %u", run.kind);
    }
}

/* The plain bytes of a block, checked to be as long as the block is. */
static int unpack(struct sink_walk *w, const struct msg_data *data, size_t length,
                  const uint8_t **plain, struct err *e)
{
    size_t n;

    if (data->encoding == ENCODING_RAW && data->tail_bytes == length) {
        *plain = data->tail;
        return 0;
    }
    if (data->encoding != ENCODING_ZSTD || data->tail_bytes >= length ||
        ZSTD_getFrameContentSize(data->tail, data->tail_bytes) != length ||
        ZSTD_findFrameCompressedSize(data->tail, data->tail_bytes) != data->tail_bytes)
        return err_set(e, ERR_PEER, "the block at byte %" PRIu64 " is not packed as it should be",
                       data->offset_bytes);
    n = ZSTD_decompressDCtx(w->unpacker, w->plain, length, data->tail, data->tail_bytes);
    if (ZSTD_isError(n) || n != length)
        return err_set(e, ERR_CORRUPT, "the block at byte %" PRIu64 " does not unpack: %s",
                       data->offset_bytes, ZSTD_getErrorName(n));
    *plain = w->plain;
    return 0;
}

static int take_data(struct sink_walk *w, const struct stream_message *m, struct err *e)
{
    struct msg_data data;
    struct sink_block block = { .identity = NULL };
    size_t length;

    if (msg_data_decode(&data, m->body, m->body_bytes, e) != 0)
        return -1;
    length = (size_t)min_u64(w->block, w->capacity - min_u64(data.offset_bytes, w->capacity));
    if (check_place(w, data.offset_bytes, length, e) != 0 ||
        unpack(w, &data, length, &block.plain, e) != 0)
        return -1;
    if (block_is_zero(block.plain, length))
        return err_set(e, ERR_PEER, "zeros came as data at byte %" PRIu64, data.offset_bytes);
    block.offset_bytes = data.offset_bytes;
    block.plain_bytes = length;
    block.digest = digest_of_data(&w->sink->secret, block.plain, length);
    block.packed = data.tail;
    block.packed_bytes = data.tail_bytes;
    block.encoding = (enum block_encoding)data.encoding;
    if (memcmp(block.digest.b, data.digest, sizeof data.digest) != 0)
        return err_set(e, ERR_CORRUPT,
                       "the block at byte %" PRIu64 " is not what was read on the host",
                       data.offset_bytes);
    if (w->config.pace != NULL && w->config.pace(w->config.context, data.tail_bytes, e) != 0)
        return -1;
    if (sink_questions_data(&w->questions, block.offset_bytes, &block.digest, e) != 0 ||
        tree_add(w->tree, &block.digest, 1, e) != 0 || w->sink->ops->data(w->sink, &block, e) != 0)
        return -1;
    w->opening.data_bytes += length;
    w->opening.sent_bytes += data.tail_bytes;
    advance(w, length, &w->totals.data_bytes, data.tail_bytes);
    return 0;
}

static int take_ask(struct sink_walk *w, const struct stream_message *m, struct err *e)
{
    uint64_t tail_bytes;

    if (sink_questions_answer(&w->questions, w->sink, w->stream, m, w->position, w->plan_at,
                              &tail_bytes, e) != 0)
        return -1;
    w->opening.sent_bytes += tail_bytes;
    pthread_mutex_lock(&w->totals_lock);
    w->totals.sent_bytes += tail_bytes;
    pthread_mutex_unlock(&w->totals_lock);
    return 0;
}

static int take_end(struct sink_walk *w, const struct stream_message *m, struct err *e)
{
    struct msg_finished finished = { .tail_bytes = 0 };
    const struct msg_end *own = &w->opening;
    struct msg_end end;

    if (msg_end_decode(&end, m->body, m->body_bytes, e) != 0)
        return -1;
    if (w->position != w->capacity)
        return err_set(e, ERR_CORRUPT, "the source ended at byte %" PRIu64 " of %" PRIu64,
                       w->position, w->capacity);
    if (end.same_bytes != own->same_bytes || end.unread_bytes != own->unread_bytes ||
        end.zero_bytes != own->zero_bytes || end.data_bytes != own->data_bytes ||
        end.sent_bytes != own->sent_bytes)
        return err_set(e, ERR_CORRUPT, "the totals of both ends differ");
    if (tree_root(w->tree, &w->root, e) != 0)
        return -1;
    if (memcmp(w->root.b, end.root, sizeof end.root) != 0)
        return err_set(e, ERR_CORRUPT, "the two ends do not mean the same disk: the roots differ");
    if (w->sink->ops->end(w->sink, &w->root, e) != 0)
        return -1;
    pthread_mutex_lock(&w->totals_lock);
    w->totals.read_bytes += end.read_bytes;
    w->totals.sampled_bytes += end.sampled_bytes;
    pthread_mutex_unlock(&w->totals_lock);
    w->finished = true;
    memcpy(finished.root, w->root.b, sizeof finished.root);
    return link_send_finished(stream_link(w->stream), stream_id(w->stream), &finished, e);
}

/* The source gave up: its reason becomes ours. */
static int take_failed(const struct stream_message *m, struct err *e)
{
    struct msg_failed failed;

    if (msg_failed_decode(&failed, m->body, m->body_bytes, e) != 0)
        return -1;
    if (failed.code == ERR_NONE || failed.code >= ERR_CODE_COUNT)
        failed.code = ERR_PEER;
    err_set(e, (enum err_code)failed.code, "%.*s", (int)failed.tail_bytes,
            (const char *)failed.tail);
    e->os = (int)failed.os;
    return -1;
}

static int take_warning(struct sink_walk *w, const struct stream_message *m, struct err *e)
{
    struct msg_warning warning;

    if (msg_warning_decode(&warning, m->body, m->body_bytes, e) != 0)
        return -1;
    if (w->config.warn != NULL)
        w->config.warn(w->config.context, &warning);
    return 0;
}

static int take(struct sink_walk *w, const struct stream_message *m, struct err *e)
{
    switch (m->type) {
    case MSG_plan:
        w->owed += MESSAGE_HEADER_BYTES + m->body_bytes;
        return take_plan(w, m, e);
    case MSG_run:
        w->owed += MESSAGE_HEADER_BYTES + m->body_bytes;
        return take_run(w, m, e);
    case MSG_data:
        w->owed += MESSAGE_HEADER_BYTES + m->body_bytes;
        return take_data(w, m, e);
    case MSG_ask:
        w->owed += MESSAGE_HEADER_BYTES + m->body_bytes;
        return take_ask(w, m, e);
    case MSG_end:
        return take_end(w, m, e);
    case MSG_credit:
        return stream_credit_take(m, &w->may_send, e);
    case MSG_failed:
        return take_failed(m, e);
    case MSG_warning:
        return take_warning(w, m, e);
    case MSG_reading:
        return 0; /* the session has seen it */
    default:
        return err_set(e, ERR_PEER, "a source does not send `%s`", message_name(m->type));
    }
}

/* ---- what this end says ---- */

static int nodes_message(struct sink_walk *w, const struct tree_node *list, uint64_t count,
                         struct err *e)
{
    struct push p = { .at = w->nodes_tail, .left = sizeof w->nodes_tail };
    struct msg_nodes nodes = { .tail = w->nodes_tail };

    for (uint64_t i = 0; i < count; i++) {
        push_u8(&p, list[i].level);
        push_copy(&p, list[i].hash.b, DIGEST_BYTES);
    }
    nodes.tail_bytes = sizeof w->nodes_tail - p.left;
    w->may_send -= min_u64(w->may_send, MSG_FIXED_nodes + nodes.tail_bytes);
    return link_send_nodes(stream_link(w->stream), stream_id(w->stream), &nodes, e);
}

/* What stands for the blocks before this opening. */
static int nodes_before(struct sink_walk *w, struct err *e)
{
    struct tree_node *list;
    uint64_t count;
    int rc;

    w->nodes_sent = true;
    if (w->position == 0)
        return 0;
    count = tree_export(w->tree, NULL, 0);
    list = calloc(count, sizeof *list);
    if (list == NULL)
        return err_sys(e, "getting memory for tree nodes");
    tree_export(w->tree, list, count);
    rc = nodes_message(w, list, count, e);
    free(list);
    return rc;
}

/* What is said before anything that is held. */
static int first_words(struct sink_walk *w, struct err *e)
{
    if (nodes_before(w, e) != 0)
        return -1;
    return w->config.full ? 0 : sink_questions_begin(&w->questions, w->sink, w->stream, e);
}

/*
 * Go on with the node that is being made of what is held, by one piece.  1 when it is there, 0 when
 * there is more to do, -1.
 */
static int node_make(struct sink_walk *w, uint64_t end, struct tree_node *out, struct err *e)
{
    uint64_t blocks = block_count_of(w->capacity, w->block), at, until;
    uint64_t first = w->held_at / w->block, span;

    if (w->span_at == w->span_end) {
        tree_level_at(first, block_count_of(end, w->block) - first, blocks, &span);
        tree_reset(w->span);
        w->span_at = first;
        w->span_end = first + span;
    }
    at = w->span_at * w->block;
    until = min_u64(w->span_end * w->block, w->capacity);
    if (add_held_piece(w, w->span, &at, until, true, e) != 0)
        return -1;
    w->span_at = block_count_of(at, w->block);
    if (w->span_at < w->span_end)
        return 0;
    if (tree_export(w->span, out, 1) != 1)
        return err_set(e, ERR_SYSTEM, "a tree node that is more than one");
    w->held_at = until;
    return 1;
}

/* Nodes for as much of an unread range as credit and one step's patience allow. */
static int nodes_send(struct sink_walk *w, const struct range *r, bool *progress, struct err *e)
{
    struct tree_node *list = w->nodes;
    uint64_t room = min_u64((w->may_send - MSG_FIXED_nodes) / NODE_BYTES, NODES_MAX), count = 0;
    unsigned pieces = 0;

    if (w->config.full)
        return err_set(e, ERR_PEER, "a hint is used although everything was asked for");
    *progress = true;
    while (count < room && w->held_at < r->end_bytes && pieces++ < NODES_MAX) {
        int rc = node_make(w, r->end_bytes, &list[count], e);

        if (rc < 0)
            return -1;
        count += (unsigned)rc;
    }
    return count > 0 ? nodes_message(w, list, count, e) : 0;
}

/* Tell what is held of the next planned range, as far as credit and room go. */
static int held_send(struct sink_walk *w, bool *progress, struct err *e)
{
    struct msg_held message = { .tail = w->digests[0].b };
    struct range *r = &w->ranges[w->range_first];
    struct held h = { .kind = HELD_UNKNOWN };
    size_t room;

    if (w->range_first == w->range_count || w->may_send < MSG_FIXED_held + NODE_BYTES ||
        !link_room(stream_link(w->stream)))
        return 0;
    if (w->held_at < r->offset_bytes)
        w->held_at = r->offset_bytes;
    if (r->unread) {
        if (nodes_send(w, r, progress, e) != 0)
            return -1;
        if (w->held_at == r->end_bytes)
            w->range_first++;
        return 0;
    }
    room = (size_t)min_u64((w->may_send - MSG_FIXED_held) / DIGEST_BYTES, HELD_DIGESTS_MAX);
    h.length_bytes = r->end_bytes - w->held_at;
    if (!w->config.full && w->sink->ops->held(w->sink, w->held_at, r->end_bytes - w->held_at,
                                              w->digests, room, &h, e) != 0)
        return -1;
    message.offset_bytes = w->held_at;
    message.length_bytes = h.length_bytes;
    message.kind = (uint8_t)h.kind;
    if (h.kind == HELD_DIGESTS)
        message.tail_bytes = block_count_of(h.length_bytes, w->block) * DIGEST_BYTES;
    if (link_send_held(stream_link(w->stream), stream_id(w->stream), &message, e) != 0)
        return -1;
    w->may_send -= MSG_FIXED_held + message.tail_bytes;
    w->held_at += h.length_bytes;
    if (w->held_at == r->end_bytes)
        w->range_first++;
    *progress = true;
    return 0;
}

static int credit_send(struct sink_walk *w, bool idle, struct err *e)
{
    struct msg_credit credit = { .bytes = w->owed };

    if (w->owed == 0 || (!idle && w->owed < w->window / 4))
        return 0;
    w->owed = 0;
    return link_send_credit(stream_link(w->stream), stream_id(w->stream), &credit, e);
}

static enum step walk_step(void *walk, struct stream *st, struct err *e)
{
    struct sink_walk *w = walk;
    struct stream_message *m;
    bool progress = false;
    unsigned taken = 0;

    w->stream = st;
    while (taken < MESSAGES_PER_STEP && (m = stream_receive(st)) != NULL) {
        int rc = take(w, m, e);

        /* Its first message shows that the source end knows the stream: now it may be talked to. */
        if (rc == 0 && !w->nodes_sent)
            rc = first_words(w, e);

        stream_message_free(m);
        if (rc != 0)
            return STEP_FAILED;
        if (w->finished)
            return STEP_DONE;
        taken++;
        if (held_send(w, &progress, e) != 0 || credit_send(w, false, e) != 0)
            return STEP_FAILED;
    }
    if (held_send(w, &progress, e) != 0 || credit_send(w, taken < MESSAGES_PER_STEP, e) != 0)
        return STEP_FAILED;
    return progress || taken > 0 ? STEP_AGAIN : STEP_WAIT;
}

static const struct stream_ops sink_walk_ops = { .step = walk_step };

int sink_walk_start(struct sink_walk *w, struct hub *s, uint32_t id, uint32_t connection,
                    struct stream **out, struct err *e)
{
    return stream_start(s, id, connection, &sink_walk_ops, w, w->window,
                        (size_t)MSG_FIXED_data + w->block, out, e);
}
