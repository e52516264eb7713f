#include "protocol/stream/sink_questions.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/tree.h"
#include "protocol/stream/ask_window.h"

/* A block that was asked for and has not come yet. */
struct asked {
    uint64_t offset_bytes;
    struct digest digest;
    uint8_t token[SINK_TOKEN_BYTES];
    bool known;
};

void sink_questions_free(struct sink_questions *q)
{
    free(q->items);
    *q = (struct sink_questions){ 0 };
}

void sink_questions_reset(struct sink_questions *q)
{
    q->told = q->withdrawn = false;
    q->first = q->count = 0;
    q->end = 0;
}

int sink_questions_begin(struct sink_questions *q, const struct sink *sink, struct stream *st,
                         struct err *e)
{
    struct msg_asking asking = { .when = sink->ask_when };

    if (sink->asks == NULL || sink->ask_when == ASKING_NEVER ||
        stream_version(st) < PROTOCOL_VERSION_ASKS)
        return 0;
    if (q->items == NULL)
        q->items = calloc(ASK_BLOCKS_MAX, sizeof q->items[0]);
    if (q->items == NULL)
        return err_sys(e, "getting memory for a disk stream");
    memcpy(asking.key, sink->ask_key, sizeof asking.key);
    q->told = true;
    return link_send_asking(stream_link(st), stream_id(st), &asking, e);
}

/* One block of a question goes into the ring. */
static int take_block(struct sink_questions *q, struct sink *sink, struct pull *p,
                      uint64_t position, uint64_t plan_end, struct sink_answer *answer,
                      struct err *e)
{
    struct asked *a = &q->items[(q->first + q->count) % ASK_BLOCKS_MAX];
    struct sink_question about = { .offset_bytes = pull_u64(p) };

    pull_copy(p, about.digest.b, sizeof about.digest.b);
    about.ask_id = pull_bytes(p, ASK_ID_BYTES);
    if (q->count == ASK_BLOCKS_MAX)
        return err_set(e, ERR_PEER, "more blocks are asked for than may be");
    if (about.offset_bytes < position || about.offset_bytes < q->end ||
        about.offset_bytes >= plan_end || about.offset_bytes % sink->block_bytes != 0 ||
        digest_is_zero(&about.digest))
        return err_set(e, ERR_PEER, "a question about byte %" PRIu64 " makes no sense",
                       about.offset_bytes);
    about.plain_bytes =
        (size_t)min_u64(sink->block_bytes, sink->capacity_bytes - about.offset_bytes);
    *answer = (struct sink_answer){ .known = false };
    if (sink->asks->ask(sink, &about, answer, e) != 0)
        return -1;
    *a = (struct asked){ .offset_bytes = about.offset_bytes,
                         .digest = about.digest,
                         .known = answer->known };
    memcpy(a->token, answer->token, sizeof a->token);
    q->count++;
    q->end = about.offset_bytes + about.plain_bytes;
    return 0;
}

/* Nothing will be known: once is enough to say so. */
static int withdraw(struct sink_questions *q, struct stream *st, struct err *e)
{
    struct msg_asking asking = { .when = ASKING_NEVER };

    if (q->withdrawn)
        return 0;
    q->withdrawn = true;
    return link_send_asking(stream_link(st), stream_id(st), &asking, e);
}

int sink_questions_answer(struct sink_questions *q, struct sink *sink, struct stream *st,
                          const struct stream_message *m, uint64_t position, uint64_t plan_end,
                          uint64_t *tail_bytes, struct err *e)
{
    uint8_t tail[ASKS_OF_MESSAGE * 4];
    struct push out = { .at = tail, .left = sizeof tail };
    struct msg_answer message = { .tail = tail };
    bool pointless = false, known = false;
    struct msg_ask ask;
    uint32_t run = 0;
    struct pull p;

    if (msg_ask_decode(&ask, m->body, m->body_bytes, e) != 0)
        return -1;
    if (!q->told || ask.tail_bytes == 0 || ask.tail_bytes % ASK_BYTES != 0)
        return err_set(e, ERR_PEER, "a question that was not asked for, or half of one");
    for (p = (struct pull){ .at = ask.tail, .left = ask.tail_bytes }; p.left > 0;) {
        struct sink_answer answer;

        if (take_block(q, sink, &p, position, plan_end, &answer, e) != 0)
            return -1;
        pointless = pointless || answer.pointless;
        if (run > 0 && answer.known != known) {
            push_u32(&out, run << 1 | known);
            run = 0;
        }
        known = answer.known;
        run++;
    }
    push_u32(&out, run << 1 | known);
    message.tail_bytes = sizeof tail - out.left;
    *tail_bytes = ask.tail_bytes;
    if (link_send_answer(stream_link(st), stream_id(st), &message, e) != 0)
        return -1;
    return pointless ? withdraw(q, st, e) : 0;
}

/* The next block that was asked for, or NULL. */
static const struct asked *next_of(const struct sink_questions *q)
{
    return q->count > 0 ? &q->items[q->first] : NULL;
}

static void drop(struct sink_questions *q)
{
    q->first = (q->first + 1) % ASK_BLOCKS_MAX;
    q->count--;
}

int sink_questions_known(struct sink_questions *q, struct sink *sink, struct tree *tree,
                         const struct msg_run *run, struct err *e)
{
    uint64_t end = run->offset_bytes + run->length_bytes;

    for (uint64_t at = run->offset_bytes; at < end; at += sink->block_bytes) {
        const struct asked *a = next_of(q);

        if (a == NULL || a->offset_bytes != at || !a->known)
            return err_set(e, ERR_PEER, "the block at byte %" PRIu64 " is called known, and is not",
                           at);
        if (tree_add(tree, &a->digest, 1, e) != 0 ||
            sink->asks->known(sink, at, &a->digest, a->token, e) != 0)
            return -1;
        drop(q);
    }
    return 0;
}

int sink_questions_data(struct sink_questions *q, uint64_t offset_bytes,
                        const struct digest *digest, struct err *e)
{
    const struct asked *a = next_of(q);

    if (a == NULL || a->offset_bytes > offset_bytes)
        return 0;
    /* One that is known may not come: it would say that the question was not meant. */
    if (a->offset_bytes != offset_bytes || a->known || !digest_equal(&a->digest, digest))
        return err_set(e, ERR_PEER, "the block at byte %" PRIu64 " is not the one asked for",
                       a->offset_bytes);
    drop(q);
    return 0;
}

int sink_questions_pass(const struct sink_questions *q, uint64_t end_bytes, struct err *e)
{
    const struct asked *a = next_of(q);

    if (a != NULL && a->offset_bytes < end_bytes)
        return err_set(e, ERR_PEER, "the block at byte %" PRIu64 " was asked for and did not come",
                       a->offset_bytes);
    return 0;
}
