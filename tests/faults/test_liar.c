/* A source end that has the keys and lies: the sink believes nothing that it can check. */
#include "tests/unit/cmocka_all.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/block/tree.h"
#include "tests/unit/stream/memory_disk.h"
#include "tests/unit/stream/pair.h"

enum { BLOCK = 16 << 10, BLOCKS = 4, CAPACITY = BLOCK * BLOCKS };

enum lie {
    LIE_NONE,
    LIE_ROOT,         /* another root at the end */
    LIE_TOTALS,       /* a block more than came */
    LIE_DIGEST,       /* a digest that is not that of the bytes */
    LIE_SHORT,        /* the end before the last block */
    LIE_FAR,          /* a run past the end of the disk */
    LIE_TWICE,        /* a block twice */
    LIE_SAME,         /* "same" for what the sink does not hold */
    LIE_ZEROS,        /* zeros as data */
    LIE_GAP,          /* a plan with a gap */
    LIE_UNPLANNED,    /* a block that no plan has told */
    LIE_PACKED,       /* bytes that do not unpack */
    LIE_KNOWN,        /* "known" for what was never asked for */
    LIE_NOT_KNOWN,    /* "known" for what the sink does not have */
    LIE_SENT,         /* a block that is known is sent all the same */
    LIE_OTHER,        /* asked for one block, sent another */
    LIE_LEFT,         /* asked for a block, then it is zeros */
    LIE_ASK_FAR,      /* a question outside the plan */
    LIE_ASK_TWICE,    /* the same question again */
    LIE_ASK_ODD,      /* a question in the middle of a block */
    LIE_ASK_ZEROS,    /* a question about zeros */
    LIE_ASK_HALF,     /* half a question */
    LIE_DIGEST_ASKED, /* the right id with another digest is not known */
    LIE_END           /* how many there are */
};

/* Those of sources that ask come behind the others. */
static bool asks(enum lie lie)
{
    return lie >= LIE_KNOWN;
}

struct liar {
    enum lie lie;
    bool told;
    struct stream *own; /* at the liar's end */
    struct link *link;
    uint32_t stream;
    struct digest_secret secret;
    uint8_t ask_key[ASK_KEY_BYTES];
    uint8_t block[BLOCK];
};

static int say_plan(const struct liar *l, uint64_t offset, uint64_t length, struct err *e)
{
    uint8_t tail[8];
    struct push p = { .at = tail, .left = sizeof tail };
    struct msg_plan plan = { .offset_bytes = offset, .tail = tail, .tail_bytes = sizeof tail };

    push_u64(&p, length << 2 | PLAN_READ);
    return link_send_plan(l->link, l->stream, &plan, e);
}

static int say_block(const struct liar *l, uint64_t number, struct err *e)
{
    struct digest digest = digest_of_data(&l->secret, l->block, BLOCK);
    struct msg_data data = { .offset_bytes = number * BLOCK,
                             .tail = l->block,
                             .tail_bytes = BLOCK };

    if (l->lie == LIE_DIGEST)
        digest.b[5] ^= 1;
    if (l->lie == LIE_PACKED) {
        data.encoding = 1;
        data.tail_bytes = 100;
    }
    memcpy(data.digest, digest.b, sizeof data.digest);
    return link_send_data(l->link, l->stream, &data, e);
}

static int say_run(const struct liar *l, uint64_t first, uint64_t count, struct err *e)
{
    struct msg_run run = { .offset_bytes = first * BLOCK,
                           .length_bytes = count * BLOCK,
                           .kind = l->lie == LIE_SAME ? RUN_SAME : RUN_ZERO };

    return link_send_run(l->link, l->stream, &run, e);
}

static int say_question(const struct liar *l, uint64_t offset, unsigned times, struct err *e)
{
    uint8_t tail[ASKS_OF_MESSAGE * ASK_BYTES], id[ASK_ID_BYTES];
    struct push p = { .at = tail, .left = sizeof tail };
    struct digest digest = digest_of_data(&l->secret, l->block, BLOCK);
    struct msg_ask ask = { .tail = tail };

    ask_id_of(l->ask_key, l->block, BLOCK, id);
    if (l->lie == LIE_NOT_KNOWN)
        id[4] ^= 1;
    if (l->lie == LIE_OTHER || l->lie == LIE_DIGEST_ASKED)
        digest.b[5] ^= 1;
    if (l->lie == LIE_ASK_ZEROS)
        digest = (struct digest){ { 0 } };
    for (unsigned i = 0; i < times; i++) {
        push_u64(&p, offset);
        push_copy(&p, digest.b, sizeof digest.b);
        push_copy(&p, id, sizeof id);
    }
    ask.tail_bytes = sizeof tail - p.left - (l->lie == LIE_ASK_HALF ? 9 : 0);
    return link_send_ask(l->link, l->stream, &ask, e);
}

static int say_known(const struct liar *l, struct err *e)
{
    struct msg_run run = { .length_bytes = BLOCK, .kind = RUN_KNOWN };

    return link_send_run(l->link, l->stream, &run, e);
}

static int say_end(const struct liar *l, struct err *e)
{
    struct msg_end end = { .zero_bytes = CAPACITY - BLOCK,
                           .data_bytes = BLOCK,
                           .read_bytes = CAPACITY,
                           .sent_bytes = BLOCK };
    struct digest digest = digest_of_data(&l->secret, l->block, BLOCK), root;
    struct tree *t;

    if (l->lie == LIE_DIGEST)
        digest.b[5] ^= 1; /* a liar that agrees with itself */
    assert_int_equal(tree_new(&t, &l->secret, CAPACITY, BLOCK, e), 0);
    assert_int_equal(tree_add(t, &digest, 1, e), 0);
    assert_int_equal(tree_add_zeros(t, BLOCKS - 1, e), 0);
    assert_int_equal(tree_root(t, &root, e), 0);
    tree_free(t);
    if (l->lie == LIE_ROOT)
        root.b[9] ^= 0x20;
    if (l->lie == LIE_TOTALS)
        end.data_bytes += BLOCK;
    memcpy(end.root, root.b, sizeof end.root);
    return link_send_end(l->link, l->stream, &end, e);
}

/* A plan and a question about the first block, and what comes of it. */
static int tell_with_questions(const struct liar *l, struct err *e)
{
    uint64_t at = l->lie == LIE_ASK_FAR ? CAPACITY : l->lie == LIE_ASK_ODD ? 512 : 0;

    if (say_plan(l, 0, CAPACITY, e) != 0 ||
        (l->lie != LIE_KNOWN && say_question(l, at, l->lie == LIE_ASK_TWICE ? 2 : 1, e) != 0))
        return -1;
    if ((l->lie == LIE_SENT || l->lie == LIE_OTHER ? say_block(l, 0, e)
         : l->lie == LIE_LEFT                      ? say_run(l, 0, 1, e)
                                                   : say_known(l, e)) != 0)
        return -1;
    return say_end(l, e); /* whoever has believed it would see another fault than that */
}

/* One block of data, the rest zeros: a whole disk. */
static int tell(struct liar *l, struct err *e)
{
    if (asks(l->lie))
        return tell_with_questions(l, e);
    if (l->lie == LIE_ZEROS)
        memset(l->block, 0, sizeof l->block);
    if (say_plan(l, l->lie == LIE_GAP ? BLOCK : 0, l->lie == LIE_UNPLANNED ? 2 * BLOCK : CAPACITY,
                 e) != 0 ||
        say_block(l, 0, e) != 0)
        return -1;
    if (l->lie == LIE_TWICE && say_block(l, 0, e) != 0)
        return -1;
    if (say_run(l, 1, l->lie == LIE_SHORT ? 2 : l->lie == LIE_FAR ? BLOCKS : BLOCKS - 1, e) != 0)
        return -1;
    return say_end(l, e);
}

static enum step step(void *walk, struct stream *st, struct err *e)
{
    struct liar *l = walk;
    struct stream_message *m;

    while ((m = stream_receive(st)) != NULL)
        stream_message_free(m);
    l->link = stream_link(st);
    if (!l->told && tell(l, e) != 0)
        return STEP_FAILED;
    l->told = true;
    return STEP_WAIT;
}

static const struct stream_ops liar_ops = { .step = step };

static int hear(void *context, struct hub *h, const struct message_header *header,
                const uint8_t *body, size_t body_bytes, struct err *e)
{
    struct liar *l = context;
    struct link *control = hub_link(h, CONTROL_CONNECTION);
    struct msg_stream_open open;
    struct msg_done done = { 0 };
    struct msg_disk_opened opened = { .capacity_bytes = CAPACITY, .allocated_bytes = CAPACITY };

    if (header->type == MSG_disk_open)
        return link_send_disk_opened(control, 0, &opened, e);
    if (header->type != MSG_stream_open)
        return 0;
    if (msg_stream_open_decode(&open, body, body_bytes, e) != 0)
        return -1;
    l->stream = header->stream;
    memcpy(l->secret.b, open.secret, sizeof l->secret.b);
    if (stream_start(h, l->stream, CONTROL_CONNECTION, &liar_ops, l, 1 << 20, 0, &l->own, e) != 0)
        return -1;
    return link_send_done(control, 0, &done, e);
}

static const struct hub_handler liar_handler = { .control = hear };

static enum stream_state told_by(enum lie lie, bool *ended, struct err *why)
{
    struct liar l = { .lie = lie };
    uint8_t *copy = calloc(1, CAPACITY);
    struct memory_sink sink;
    struct sink_walk_config config = { .sink = &sink.sink, .window_bytes = 1 << 20 };
    struct msg_stream_open open = { 0 };
    struct sink_walk *w;
    enum stream_state state;
    struct pair p;

    for (size_t i = 0; i < BLOCK; i++)
        l.block[i] = (uint8_t)(i * 7 + 1);
    memory_sink_init(&sink, copy, CAPACITY, BLOCK);
    if (asks(lie)) {
        memory_sink_ask(&sink, ASKING_ALWAYS, l.block, BLOCK);
        memcpy(l.ask_key, sink.sink.ask_key, sizeof l.ask_key);
    }
    pair_start_with(&p, 1, 0, &liar_handler, &l);
    assert_int_equal(pair_disk_open(&p, 1, CAPACITY), 0);
    assert_int_equal(sink_walk_new(&w, &config, why), 0);
    state = pair_run(&p, 1, CONTROL_CONNECTION, w, open, why);
    *ended = sink.ended;
    sink_walk_free(w);
    pair_stop(&p);
    memory_sink_free(&sink);
    free(copy);
    return state;
}

static void a_lying_source_is_not_believed(void **state)
{
    static const enum err_code codes[LIE_END] = {
        [LIE_ROOT] = ERR_CORRUPT,      [LIE_TOTALS] = ERR_CORRUPT, [LIE_DIGEST] = ERR_CORRUPT,
        [LIE_SHORT] = ERR_CORRUPT,     [LIE_FAR] = ERR_PEER,       [LIE_TWICE] = ERR_PEER,
        [LIE_SAME] = ERR_PEER,         [LIE_ZEROS] = ERR_PEER,     [LIE_GAP] = ERR_PEER,
        [LIE_UNPLANNED] = ERR_PEER,    [LIE_PACKED] = ERR_PEER,    [LIE_KNOWN] = ERR_PEER,
        [LIE_NOT_KNOWN] = ERR_PEER,    [LIE_SENT] = ERR_PEER,      [LIE_OTHER] = ERR_PEER,
        [LIE_LEFT] = ERR_PEER,         [LIE_ASK_FAR] = ERR_PEER,   [LIE_ASK_TWICE] = ERR_PEER,
        [LIE_ASK_ODD] = ERR_PEER,      [LIE_ASK_ZEROS] = ERR_PEER, [LIE_ASK_HALF] = ERR_PEER,
        [LIE_DIGEST_ASKED] = ERR_PEER,
    };

    (void)state;
    for (enum lie lie = LIE_NONE; lie < LIE_END; lie++) {
        struct err why = { 0 };
        bool ended;
        enum stream_state is = told_by(lie, &ended, &why);

        if (lie == LIE_NONE && is != STREAM_DONE)
            fail_msg("the truth: %s", why.text);
        if (lie == LIE_NONE)
            continue;
        if (is != STREAM_FAILED || ended || why.code != codes[lie])
            fail_msg("lie %d: state %d, ended %d, %s: %s", (int)lie, (int)is, ended,
                     err_code_name(why.code), why.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lying_source_is_not_believed),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
