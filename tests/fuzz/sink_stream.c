/*
 * The sink end against a hostile source with the right keys: the input is a little program of
 * messages, right ones and others, up to raw bytes.  Whatever comes, what the sink says it holds
 * must be what was sent, in order and once, and only a whole disk whose root fits is ever ended.
 */
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/tree.h"
#include "protocol/stream/sink_walk.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/peer.h"
#include "tests/unit/stream/memory_disk.h"

enum { BLOCK = BLOCK_BYTES_MIN, BLOCKS_MAX = 24, STREAM = 1, TURNS = 3 };

struct source_end {
    struct peer peer;
    struct memory_sink sink;
    struct tree *tree;                /* as an honest source would have it */
    uint8_t disk[BLOCKS_MAX * BLOCK]; /* what was sent, block by block */
    uint8_t plain[BLOCK], packed[BLOCK];
    uint64_t capacity, planned, at;
    bool free; /* the input said something itself: what the sink holds is not known here */
    struct msg_end totals;
    struct tree_node node;
    uint8_t library[3 * BLOCK]; /* what the sink's store has anyway */
    uint64_t asked;             /* questions were about blocks up to here */
};

static int hear_control(void *context, struct hub *h, const struct message_header *header,
                        const uint8_t *body, size_t bytes, struct err *e)
{
    (void)context;
    (void)h;
    (void)body;
    (void)bytes;
    return err_set(e, ERR_PEER, "`%s` came", message_name(header->type));
}

static const struct hub_handler handler = { .control = hear_control };

static uint64_t block_at(const struct source_end *s, uint64_t at)
{
    return at < s->capacity ? min_u64(BLOCK, s->capacity - at) : BLOCK;
}

/* Runs of up to 15 blocks each, or to the end, or of any length, and of any kind. */
static void say_plan(struct source_end *s, struct pull *p)
{
    uint8_t tail[16 * 8];
    struct push out = { .at = tail, .left = sizeof tail };
    struct msg_plan m = { .offset_bytes = s->planned };
    unsigned runs = 1 + pull_u8(p) % 16;

    for (unsigned i = 0; i < runs; i++) {
        uint8_t kind = pull_u8(p);
        uint64_t length = (uint64_t)(kind >> 4) * BLOCK;

        if ((kind & 4) != 0)
            length = s->capacity - min_u64(s->planned, s->capacity);
        if ((kind & 8) != 0)
            length = pull_u64(p) >> (kind >> 4);
        push_u64(&out, length << 2 | (kind & 3));
        s->planned += length;
    }
    m.tail = tail;
    m.tail_bytes = sizeof tail - out.left;
    peer_say_plan(&s->peer, STREAM, &m);
}

static void say_run(struct source_end *s, struct pull *p)
{
    uint8_t kind = pull_u8(p);
    struct msg_run m = { .offset_bytes = s->at, .kind = kind & 3 };
    struct err e;

    m.length_bytes = min_u64((uint64_t)(kind >> 4) * BLOCK, s->capacity - s->at);
    if ((kind & 8) != 0) {
        m.offset_bytes = pull_u64(p);
        m.length_bytes = pull_u64(p);
        s->free = true;
    } else if (m.kind == RUN_ZERO) {
        memset(s->disk + s->at, 0, m.length_bytes);
        tree_add_zeros(s->tree, block_count_of(m.length_bytes, BLOCK), &e);
        s->totals.zero_bytes += m.length_bytes;
        s->at += m.length_bytes;
    } else if (m.kind == RUN_SAME || m.kind == RUN_UNREAD) {
        uint64_t first = s->at / BLOCK;

        memcpy(s->disk + s->at, s->sink.bytes + s->at, m.length_bytes);
        tree_add(s->tree, s->sink.digests + first, block_count_of(m.length_bytes, BLOCK), &e);
        *(m.kind == RUN_SAME ? &s->totals.same_bytes : &s->totals.unread_bytes) += m.length_bytes;
        s->at += m.length_bytes;
    }
    peer_say_run(&s->peer, STREAM, &m);
}

static void say_data(struct source_end *s, struct pull *p)
{
    uint8_t kind = pull_u8(p);
    uint64_t bytes = block_at(s, s->at);
    struct msg_data m = { .offset_bytes = s->at, .tail = s->plain, .tail_bytes = bytes };
    struct digest d;
    struct err e;

    memset(s->plain, 0, sizeof s->plain);
    memset(s->plain, kind, 1 + pull_u8(p) * 64u % bytes);
    d = digest_of(&s->sink.sink.secret, s->plain, bytes);
    memcpy(m.digest, d.b, sizeof m.digest);
    if ((kind & 1) != 0) {
        m.encoding = ENCODING_ZSTD;
        m.tail = s->packed;
        m.tail_bytes = ZSTD_compress(s->packed, sizeof s->packed, s->plain, bytes, 1);
        if (ZSTD_isError(m.tail_bytes))
            m.tail_bytes = 0;
    }
    if ((kind & 6) == 6) { /* a damaged one */
        uint16_t where = pull_u16(p);

        m.encoding = pull_u8(p) & 3;
        m.offset_bytes += (uint64_t)(pull_u8(p) & 3) * 512;
        if (m.tail_bytes > 0)
            s->packed[where % m.tail_bytes] ^= pull_u8(p);
        m.tail_bytes -= min_u64(m.tail_bytes, pull_u8(p) & 7);
        m.digest[0] ^= pull_u8(p) | 1;
        peer_say_data(&s->peer, STREAM, &m);
        return;
    }
    if (s->at < s->capacity) {
        memcpy(s->disk + s->at, s->plain, bytes);
        tree_add(s->tree, &d, 1, &e);
        s->totals.data_bytes += bytes;
        s->totals.sent_bytes += m.tail_bytes;
        s->at += bytes;
    }
    peer_say_data(&s->peer, STREAM, &m);
}

static void say_end(struct source_end *s, struct pull *p)
{
    uint8_t kind = pull_u8(p);
    struct msg_end m = s->totals;
    struct digest root = { { 0 } };
    struct err e;

    tree_root(s->tree, &root, &e);
    memcpy(m.root, root.b, sizeof m.root);
    if (kind == 1)
        m.root[3] ^= 4;
    if (kind == 2)
        m.same_bytes += BLOCK;
    peer_say_end(&s->peer, STREAM, &m);
}

/* A message of any type and stream with the input's own body. */
static void say_raw(struct source_end *s, struct pull *p)
{
    static const uint16_t types[] = {
#define MESSAGE(name, number, version, way, tail_max) number,
#define FIELD(type, name)
#define ARRAY(name, count)
#define END(name)
#include "protocol/wire/messages.def"
        0x7fff,
    };
    uint8_t payload[MESSAGE_HEADER_BYTES + 512];
    struct push out = { .at = payload, .left = sizeof payload };
    uint8_t type = pull_u8(p), stream = pull_u8(p);
    uint16_t bytes = pull_u16(p) % 512;
    const uint8_t *body = pull_bytes(p, min_u64(bytes, p->left));

    push_u16(&out, types[type % (sizeof types / sizeof types[0])]);
    push_u16(&out, 0);
    push_u32(&out, stream % 3);
    s->free = s->free || stream % 3 == STREAM;
    if (body != NULL)
        push_copy(&out, body, (size_t)(p->at - body));
    peer_send(&s->peer, payload, sizeof payload - out.left);
}

static void say_credit(struct source_end *s, struct pull *p)
{
    struct msg_credit m = { .bytes = (uint64_t)pull_u16(p) << (pull_u8(p) % 48) };

    peer_say_credit(&s->peer, STREAM, &m);
}

static void say_unsealed(struct source_end *s, struct pull *p)
{
    s->peer.send.counter += pull_u8(p); /* the next records are of another place */
}

/* Questions about blocks that the store has, or not, or not so. */
static void say_ask(struct source_end *s, struct pull *p)
{
    uint8_t tail[8 * ASK_BYTES], id[ASK_ID_BYTES], kind = pull_u8(p);
    struct push out = { .at = tail, .left = sizeof tail };
    struct msg_ask m = { .tail = tail };

    if (s->asked < s->at)
        s->asked = s->at;
    for (unsigned i = 0; i <= (kind & 7); i++) {
        uint8_t which = pull_u8(p);
        const uint8_t *block = s->library + (size_t)(which & 3) % 3 * BLOCK;
        struct digest d = digest_of(&s->sink.sink.secret, block, BLOCK);

        ask_id_of(s->sink.sink.ask_key, block, BLOCK, id);
        id[7] ^= (which & 4) != 0;
        d.b[7] ^= (which & 8) != 0;
        s->asked += (uint64_t)(which >> 6) * BLOCK;
        push_u64(&out, s->asked + ((which & 48) == 48 ? 512 : 0));
        push_copy(&out, d.b, sizeof d.b);
        push_copy(&out, id, sizeof id);
        s->asked += BLOCK;
    }
    m.tail_bytes = sizeof tail - out.left;
    s->free = true; /* what becomes of it is compared with the root at the end */
    s->totals.sent_bytes += m.tail_bytes;
    peer_say_ask(&s->peer, STREAM, &m);
}

/* Blocks of the library in their places, as an honest source tells of them. */
static void say_known(struct source_end *s, struct pull *p)
{
    uint8_t kind = pull_u8(p);
    struct msg_run m = { .offset_bytes = s->at, .kind = RUN_KNOWN };
    struct err e;

    m.length_bytes = min_u64((uint64_t)(1 + (kind & 3)) * BLOCK, s->capacity - s->at);
    for (uint64_t i = 0; i < m.length_bytes; i += BLOCK) {
        uint8_t which = pull_u8(p);
        struct digest d =
            digest_of(&s->sink.sink.secret, s->library + (size_t)(which & 3) % 3 * BLOCK, BLOCK);

        tree_add(s->tree, &d, 1, &e);
    }
    s->free = true;
    s->totals.data_bytes += m.length_bytes;
    s->at += m.length_bytes;
    peer_say_run(&s->peer, STREAM, &m);
}

static void run(struct source_end *s, struct pull *p)
{
    static void (*const words[])(struct source_end *, struct pull *) = {
        say_plan, say_run, say_data, say_end, say_raw, say_credit, say_unsealed, say_ask, say_known,
    };

    while (p->left > 0 && !p->spent && !s->peer.over) {
        words[pull_u8(p) % 9](s, p);
        peer_turn(&s->peer, TURNS);
    }
    peer_turn(&s->peer, 3 * TURNS);
}

/* The first byte: size of the disk, an odd tail, what is held. */
static void prepare(struct source_end *s, struct pull *p)
{
    uint8_t shape = pull_u8(p);
    uint8_t *bytes;
    struct err e;

    s->capacity = (uint64_t)(1 + shape % BLOCKS_MAX) * BLOCK - ((shape & 0x40) != 0 ? 512 : 0);
    bytes = calloc(1, s->capacity);
    FUZZ_CHECK(bytes != NULL);
    for (uint64_t at = 0; at < s->capacity; at += 3 * BLOCK)
        bytes[at] = shape;
    memory_sink_init(&s->sink, bytes, s->capacity, BLOCK);
    if ((shape & 0x20) != 0)
        memory_sink_learn(&s->sink);
    for (size_t i = 0; i < sizeof s->library; i++)
        s->library[i] = (uint8_t)(i / BLOCK * 40 + i % 31 + 1);
    if ((shape & 0x80) != 0)
        memory_sink_ask(&s->sink, ASKING_ALWAYS, s->library, sizeof s->library);
    FUZZ_CHECK(tree_new(&s->tree, &s->sink.sink.secret, s->capacity, BLOCK, &e) == 0);
}

/* What the sink has is what both ends called a whole disk. */
static void check_root(struct source_end *s)
{
    struct digest root;
    struct tree *t;
    struct err e;

    if (!s->sink.ended)
        return;
    FUZZ_CHECK(tree_new(&t, &s->sink.sink.secret, s->capacity, BLOCK, &e) == 0);
    for (uint64_t at = 0; at < s->capacity; at += BLOCK) {
        struct digest d =
            digest_of(&s->sink.sink.secret, s->sink.bytes + at, min_u64(BLOCK, s->capacity - at));

        FUZZ_CHECK(tree_add(t, &d, 1, &e) == 0);
    }
    FUZZ_CHECK(tree_root(t, &root, &e) == 0 && digest_equal(&root, &s->sink.root));
    tree_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hub_config config = { .handler = &handler };
    struct source_end *s;
    struct sink_walk_config walk_config;
    struct msg_stream_open open = { 0 };
    struct pull p = { .at = data, .left = size };
    struct sink_walk *walk;
    struct stream *stream;
    struct hub *hub;
    struct err e;
    enum stream_state state;

    if (size > 4096)
        return 0;
    fuzz_begin();
    s = calloc(1, sizeof *s);
    FUZZ_CHECK(s != NULL);
    prepare(s, &p);
    walk_config = (struct sink_walk_config){ .sink = &s->sink.sink, .window_bytes = 64 << 10 };
    FUZZ_CHECK(hub_new(&hub, &config, &e) == 0 && sink_walk_new(&walk, &walk_config, &e) == 0);
    peer_start(&s->peer, hub, CONTROL_CONNECTION);
    peer_hello(&s->peer);
    peer_turn(&s->peer, 2);
    sink_walk_open(walk, &open);
    FUZZ_CHECK(sink_walk_start(walk, hub, STREAM, CONTROL_CONNECTION, &stream, &e) == 0);
    run(s, &p);

    state = stream_state(stream, &e);
    FUZZ_CHECK(s->sink.ended == (state == STREAM_DONE) || s->peer.over);
    FUZZ_CHECK(s->sink.position <= s->capacity);
    FUZZ_CHECK(s->free || (s->sink.position <= s->at &&
                           memcmp(s->sink.bytes, s->disk, s->sink.position) == 0));
    FUZZ_CHECK(!s->sink.ended || s->sink.position == s->capacity);
    check_root(s);
    stream_end(stream);
    hub_free(hub);
    sink_walk_free(walk);
    peer_end(&s->peer);
    tree_free(s->tree);
    free(s->sink.bytes);
    memory_sink_free(&s->sink);
    free(s);
    fuzz_end();
    return 0;
}
