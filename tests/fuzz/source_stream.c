/*
 * The source end, as the agent runs it, against a hostile receiver with the right keys: control
 * messages and those of streams, right ones and others, over the control connection and a second
 * one that the agent was told to dial.  Nothing may crash it or make it take more memory than its
 * limits.
 */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/stream/serve.h"
#include "protocol/stream/sink_walk.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/peer.h"
#include "tests/unit/stream/memory_disk.h"

enum { BLOCK = BLOCK_BYTES_MIN, BLOCKS = 12, TURNS = 4, SECOND = 2, DISKS = 16, VAST_DISKS = 12 };
#define VAST_BYTES (UINT64_C(1) << 40)

struct sink_end {
    struct peer control, second;
    struct serve *serve;
    struct hub *hub;
    uint8_t disk[BLOCKS * BLOCK - 512];
    /* of the stream opened last */
    uint32_t stream;
    uint64_t planned, held;
    uint64_t granted, used; /* credit for digests, in message bytes */
    bool watched;           /* those two count: the stream is one whose end would be heard of */
    bool ended;
    uint8_t root[DIGEST_BYTES];
    uint16_t questions[256]; /* how many blocks each is about; the newest ones */
    size_t asked, answered;
};

static void hear(void *context, const struct message_header *h, const uint8_t *body, size_t bytes)
{
    struct sink_end *s = context;
    struct msg_credit credit;
    struct msg_plan plan;
    struct msg_end end;
    struct err e;

    if (h->type == MSG_failed) {
        s->watched = false;
    } else if (h->type == MSG_credit && h->stream == s->stream) {
        FUZZ_CHECK(msg_credit_decode(&credit, body, bytes, &e) == 0);
        s->granted += credit.bytes;
    } else if (h->type == MSG_plan && h->stream == s->stream) {
        struct pull p;

        FUZZ_CHECK(msg_plan_decode(&plan, body, bytes, &e) == 0);
        s->planned = plan.offset_bytes;
        p = (struct pull){ .at = plan.tail, .left = plan.tail_bytes };
        while (p.left > 0)
            s->planned += pull_u64(&p) >> 2;
        FUZZ_CHECK(s->planned <= VAST_BYTES);
    } else if (h->type == MSG_ask && h->stream == s->stream) {
        struct msg_ask ask;

        FUZZ_CHECK(msg_ask_decode(&ask, body, bytes, &e) == 0);
        FUZZ_CHECK(ask.tail_bytes > 0 && ask.tail_bytes % ASK_BYTES == 0);
        s->questions[s->asked++ % 256] = (uint16_t)(ask.tail_bytes / ASK_BYTES);
    } else if (h->type == MSG_end && h->stream == s->stream) {
        FUZZ_CHECK(msg_end_decode(&end, body, bytes, &e) == 0);
        memcpy(s->root, end.root, sizeof s->root);
        s->ended = true;
    }
}

struct lent_source {
    struct memory_source memory;
};

static int vast_extent_at(struct source *s, uint64_t offset, struct extent *out, struct err *e)
{
    (void)e;
    *out = (struct extent){ offset, s->capacity_bytes - offset, EXTENT_DATA };
    return 0;
}

static int vast_read(struct source *s, uint64_t offset, void *out, size_t count, struct err *e)
{
    (void)e;
    FUZZ_CHECK(offset <= s->capacity_bytes && count <= s->capacity_bytes - offset);
    memset(out, 0, count);
    return 0;
}

static void lent_close(struct source *s)
{
    free(s);
}

static int disk_open(void *context, const struct msg_disk_open *m, struct source **out,
                     enum hole_knowledge *holes, struct err *e)
{
    static const struct source_ops vast_ops = { vast_extent_at, vast_read, lent_close };
    static struct source_ops ops;
    struct sink_end *s = context;
    struct lent_source *l;

    if (m->capacity_bytes == 7)
        return err_set(e, ERR_NOT_FOUND, "there is no such disk");
    l = calloc(1, sizeof *l);
    FUZZ_CHECK(l != NULL);
    memory_source_init(&l->memory, s->disk, sizeof s->disk, (m->disk & 1) != 0 ? 4096 : 0);
    if ((m->disk & 2) != 0) {
        l->memory.changed_from = 2 * BLOCK;
        l->memory.changed_to = 5 * BLOCK + 512;
    }
    if ((m->disk & 4) != 0)
        l->memory.fail_at = 5 * BLOCK;
    ops = *l->memory.source.ops;
    ops.close = lent_close;
    l->memory.source.ops = &ops;
    if (m->disk >= VAST_DISKS) {
        l->memory.source.ops = &vast_ops;
        l->memory.source.flags = 0;
        l->memory.source.capacity_bytes = l->memory.source.allocated_bytes = VAST_BYTES;
    }
    *holes = HOLES_SEEK;
    *out = &l->memory.source;
    return 0;
}

static int dial(void *context, struct hub *h, const struct msg_dial *m, struct err *e)
{
    struct sink_end *s = context;

    if (s->second.hub != NULL || m->connection != SECOND)
        return err_set(e, ERR_NETWORK, "nobody answers there");
    peer_start(&s->second, h, SECOND);
    return 0;
}

/* ---- what the receiver says ---- */

static void say_disk_open(struct sink_end *s, struct pull *p)
{
    struct msg_disk_open m = { .request = 1, .disk = pull_u8(p) % DISKS, .format = DISK_FLAT };

    m.capacity_bytes = pull_u8(p);
    peer_say_disk_open(&s->control, 0, &m);
}

static void say_disk_holes(struct sink_end *s, struct pull *p)
{
    uint8_t tail[8 * 16];
    struct push out = { .at = tail, .left = sizeof tail };
    uint8_t kind = pull_u8(p);
    struct msg_disk_holes m = { .request = 2, .disk = pull_u8(p) % DISKS, .last = kind & 1 };
    uint64_t at = 0;

    for (unsigned i = 0; i < kind >> 5; i++) {
        uint64_t gap = pull_u8(p) * 1024u, length = pull_u8(p) * 1024u;

        if ((kind & 2) != 0)
            length = pull_u64(p);
        push_u64(&out, at + gap);
        push_u64(&out, length);
        at += gap + length;
    }
    m.tail = tail;
    m.tail_bytes = sizeof tail - out.left;
    peer_say_disk_holes(&s->control, 0, &m);
}

static void say_stream_open(struct sink_end *s, struct pull *p)
{
    uint8_t kind = pull_u8(p), size = pull_u8(p);
    struct msg_stream_open m = { .request = 3,
                                 .disk = pull_u8(p) % DISKS,
                                 .connection = (kind & 1) != 0 ? SECOND : CONTROL_CONNECTION,
                                 .block_bytes = BLOCK,
                                 .data_credit = 64 << 10,
                                 .compress = (kind & 2) != 0 ? 1 : 0 };

    if ((kind & 4) != 0)
        m.block_bytes = (uint32_t)BLOCK << (size & 7) | (size & 8); /* 8: no power of two */
    if ((kind & 8) != 0)
        m.from_bytes = (uint64_t)(size >> 4) * m.block_bytes;
    if ((kind & 16) != 0)
        m.flags = size & 7;
    if ((kind & 32) != 0) {
        m.compress = pull_u8(p);
        m.rate_bytes = pull_u64(p);
        m.data_credit = pull_u64(p);
    }
    s->stream += 1u + ((kind & 64) != 0 ? size : 0);
    s->planned = s->held = m.from_bytes;
    s->ended = false;
    s->granted = s->used = 0;
    s->asked = s->answered = 0;
    s->watched = m.connection == CONTROL_CONNECTION;
    peer_say_stream_open(&s->control, s->stream, &m);
}

static struct peer *link_for(struct sink_end *s, uint8_t kind)
{
    return (kind & 0x80) != 0 && s->second.hub != NULL ? &s->second : &s->control;
}

static void say_held(struct sink_end *s, struct pull *p)
{
    uint8_t digests[BLOCKS * DIGEST_BYTES] = { 0 };
    uint8_t kind = pull_u8(p);
    struct msg_held m = { .offset_bytes = s->held, .kind = kind & 3, .tail = digests };

    m.length_bytes = s->planned - min_u64(s->held, s->planned);
    if ((kind & 4) != 0)
        m.length_bytes = min_u64(m.length_bytes, (uint64_t)(kind >> 4 & 7) * BLOCK);
    if (m.kind == HELD_DIGESTS)
        m.tail_bytes =
            min_u64(block_count_of(m.length_bytes, BLOCK) * DIGEST_BYTES, sizeof digests);
    if ((kind & 8) != 0) {
        m.offset_bytes = pull_u64(p);
        m.length_bytes = pull_u64(p);
    }
    s->held += m.length_bytes;
    s->used += MSG_FIXED_held + m.tail_bytes;
    peer_say_held(link_for(s, kind), s->stream, &m);
}

static void say_nodes(struct sink_end *s, struct pull *p)
{
    uint8_t tail[17 * 16] = { 0 };
    uint8_t kind = pull_u8(p);
    struct msg_nodes m = { .tail = tail, .tail_bytes = 17u * (kind & 15) };

    for (size_t i = 0; i < m.tail_bytes; i += 17)
        tail[i] = (kind & 16) != 0 ? pull_u8(p) & 7 : 0;
    m.tail_bytes += kind >> 6;
    s->used += MSG_FIXED_nodes + m.tail_bytes;
    peer_say_nodes(link_for(s, (uint8_t)(kind << 2)), s->stream, &m);
}

static void say_credit(struct sink_end *s, struct pull *p)
{
    uint8_t kind = pull_u8(p);
    struct msg_credit m = { .bytes = (uint64_t)pull_u16(p) << (kind & 63) };

    peer_say_credit(link_for(s, kind), s->stream, &m);
}

static void say_finished(struct sink_end *s, struct pull *p)
{
    uint8_t kind = pull_u8(p);
    struct msg_finished m = { .tail_bytes = 0 };

    s->watched = false;
    memcpy(m.root, s->root, sizeof m.root);
    m.root[0] ^= kind & 1;
    peer_say_finished(link_for(s, kind), s->stream, &m);
}

static void say_asking(struct sink_end *s, struct pull *p)
{
    uint8_t kind = pull_u8(p);
    struct msg_asking m = { .when = kind & 3, .key = { kind } };

    peer_say_asking(link_for(s, kind), s->stream, &m);
}

/* The answer to the next question, or one that is not quite that. */
static void say_answer(struct sink_end *s, struct pull *p)
{
    uint8_t tail[16 * 4], kind = pull_u8(p);
    struct push out = { .at = tail, .left = sizeof tail };
    struct msg_answer m = { .tail = tail };
    uint32_t left = s->questions[s->answered % 256];

    if (s->answered < s->asked)
        s->answered++;
    for (unsigned i = 0; i < 15 && left > 0; i++) {
        uint32_t run = 1 + (pull_u8(p) & 7u);

        if (run > left || i == 14)
            run = left;
        push_u32(&out, run << 1 | ((i ^ kind) & 1u));
        left -= run;
    }
    if ((kind & 0x18) == 0x18)
        push_u32(&out, pull_u8(p));
    m.tail_bytes = sizeof tail - out.left;
    peer_say_answer(link_for(s, kind), s->stream, &m);
}

static void say_dial(struct sink_end *s, struct pull *p)
{
    struct msg_dial m = { .request = 9, .connection = pull_u8(p) & 3, .timeout_ms = 100 };

    peer_say_dial(&s->control, 0, &m);
}

static void say_second_hello(struct sink_end *s, struct pull *p)
{
    (void)p;
    if (s->second.hub != NULL)
        peer_hello(&s->second);
}

static void say_raw(struct sink_end *s, struct pull *p)
{
    static const uint16_t types[] = {
#define MESSAGE(name, number, version, way, tail_max) number,
#define FIELD(type, name)
#define ARRAY(name, count)
#define END(name)
#include "protocol/wire/messages.def"
    };
    uint8_t payload[MESSAGE_HEADER_BYTES + 512];
    struct push out = { .at = payload, .left = sizeof payload };
    uint8_t type = pull_u8(p), kind = pull_u8(p);
    uint16_t bytes = pull_u16(p) % 512;
    const uint8_t *body = pull_bytes(p, min_u64(bytes, p->left));

    push_u16(&out, types[type % (sizeof types / sizeof types[0])]);
    push_u16(&out, 0);
    if ((kind & 1) != 0)
        s->watched = false; /* it may have come to its good end */
    push_u32(&out, (kind & 1) != 0 ? s->stream : kind & 6);
    if (body != NULL)
        push_copy(&out, body, (size_t)(p->at - body));
    peer_send(link_for(s, kind), payload, sizeof payload - out.left);
}

/* The control connection ends, maybe with words of the other one still on their way. */
static void cut(struct sink_end *s, struct pull *p)
{
    uint8_t kind = pull_u8(p);

    s->control.send.counter += kind;
}

/* The same word again and again, without waiting for what comes of it. */
static void repeat(struct sink_end *s, struct pull *p)
{
    unsigned count = pull_u8(p);
    uint8_t which = pull_u8(p);
    struct pull word = *p;

    for (unsigned i = 0; i < count; i++) {
        *p = word;
        (which % 3 == 0 ? say_held : which % 3 == 1 ? say_disk_holes : say_stream_open)(s, p);
    }
}

static void turn(struct sink_end *s, unsigned turns)
{
    for (unsigned i = 0; i < turns; i++) {
        peer_turn(&s->control, 1);
        if (s->second.hub != NULL) {
            s->second.over = s->control.over;
            s->second.hub = s->hub;
            peer_turn(&s->second, 1);
            s->control.over = s->control.over || s->second.over;
        }
        if (!s->control.over)
            serve_tend(s->serve, s->hub);
    }
}

static void run(struct sink_end *s, struct pull *p)
{
    static void (*const words[])(struct sink_end *, struct pull *) = {
        say_disk_open, say_disk_holes, say_stream_open, say_held,         say_nodes,
        say_credit,    say_finished,   say_dial,        say_second_hello, say_raw,
        cut,           repeat,         say_asking,      say_answer,
    };

    while (p->left > 0 && !p->spent && !s->control.over) {
        uint8_t word = pull_u8(p);

        words[(word & 0x7f) % 14](s, p);
        if ((word & 0x80) == 0) /* else the next word comes at the same time */
            turn(s, TURNS);
    }
    turn(s, 4 * TURNS);
    if (!s->control.over && s->watched)
        FUZZ_CHECK(s->used <= s->granted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct hub_handler handler = { .control = serve_control,
                                                .link_up = serve_link_up };
    struct hub_config config = { .handler = &handler };
    struct serve_config serve = { .disk_open = disk_open, .dial = dial, .memory_bytes = 16 << 20 };
    struct pull p = { .at = data, .left = size };
    struct sink_end *s;
    struct err e;

    if (size > 2048)
        return 0;
    fuzz_begin();
    s = calloc(1, sizeof *s);
    FUZZ_CHECK(s != NULL);
    for (size_t i = 0; i < sizeof s->disk; i += 40000)
        memset(s->disk + i, (int)i + 1, 3000);
    serve.context = s;
    FUZZ_CHECK(serve_new(&s->serve, &serve, &e) == 0);
    config.context = s->serve;
    FUZZ_CHECK(hub_new(&s->hub, &config, &e) == 0);
    s->control.hear = s->second.hear = hear;
    s->control.context = s->second.context = s;
    peer_start(&s->control, s->hub, CONTROL_CONNECTION);
    peer_hello(&s->control);
    run(s, &p);
    serve_free(s->serve);
    hub_free(s->hub);
    peer_end(&s->control);
    peer_end(&s->second);
    free(s);
    fuzz_end();
    return 0;
}
