/* Asking before sending: what the sink has is not sent, and nothing else is different. */
#include "tests/unit/cmocka_all.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/stream/ask_window.h"
#include "protocol/wire/crypto.h"
#include "tests/unit/stream/memory_disk.h"
#include "tests/unit/stream/pair.h"

enum { KIB = 1024, MIB = KIB * KIB };

/* Blocks of zeros, of text and of noise, the last two each different from all others. */
static void make_disk(uint8_t *b, uint64_t capacity, uint32_t block, unsigned seed)
{
    srand(seed);
    memset(b, 0, capacity);
    for (uint64_t at = 0; at < capacity; at += block) {
        uint64_t n = min_u64(block, capacity - at);
        int kind = rand() % 4;

        for (uint64_t i = 0; kind > 0 && i < n; i++)
            b[at + i] = kind == 1 ? (uint8_t)rand() : (uint8_t)("vmferry "[i % 8]);
        if (kind > 1) {
            uint32_t mark = (uint32_t)rand() | 1;

            memcpy(b + at + 100, &mark, sizeof mark);
        }
    }
}

struct scene {
    unsigned workers;
    uint64_t capacity;
    uint32_t block;
    size_t window;
    uint8_t compress;
    bool held; /* the sink has an older state of the disk */
    unsigned known_of_4;
    uint64_t rate;
    uint8_t when;
};

/* Of every four blocks so many are in the library, in an order of its own. */
static size_t fill_library(uint8_t *library, const uint8_t *disk, const struct scene *sc)
{
    uint64_t blocks = block_count_of(sc->capacity, sc->block);
    size_t bytes = 0;

    for (uint64_t i = blocks - 1; i > 0; i--)
        if ((i * 7 & 3) < sc->known_of_4 && (i + 1) * sc->block <= sc->capacity) {
            memcpy(library + bytes, disk + i * sc->block, sc->block);
            bytes += sc->block;
        }
    return bytes;
}

/* Bytes of blocks that differ from what is held, and of those the ones in the library. */
static void expect(const struct scene *sc, const uint8_t *disk, const uint8_t *old,
                   uint64_t *differ, uint64_t *known)
{
    uint64_t blocks = block_count_of(sc->capacity, sc->block);

    *differ = *known = 0;
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t at = i * sc->block, n = min_u64(sc->block, sc->capacity - at);

        if (block_is_zero(disk + at, n) || (sc->held && memcmp(disk + at, old + at, n) == 0))
            continue;
        *differ += n;
        if (i > 0 && (i * 7 & 3) < sc->known_of_4 && n == sc->block)
            *known += n;
    }
}

static void play(const struct scene *sc)
{
    uint8_t *disk = calloc(1, sc->capacity), *copy = calloc(1, sc->capacity);
    uint8_t *library = calloc(1, sc->capacity), *old = calloc(1, sc->capacity);
    struct sink_walk_config config = { .window_bytes = sc->window };
    struct msg_stream_open open = { .compress = sc->compress, .rate_bytes = sc->rate };
    uint64_t differ, known;
    struct memory_source source;
    struct sink_totals totals;
    struct memory_sink sink;
    struct sink_walk *w;
    struct pair p;
    struct err why;

    make_disk(disk, sc->capacity, sc->block, 3);
    if (sc->held) {
        memcpy(old, disk, sc->capacity);
        for (uint64_t at = 0; at < sc->capacity; at += 3 * (uint64_t)sc->block)
            old[at] ^= 0x33;
        memcpy(copy, old, sc->capacity);
    }
    memory_source_init(&source, disk, sc->capacity, 0);
    memory_sink_init(&sink, copy, sc->capacity, sc->block);
    if (sc->held)
        memory_sink_learn(&sink);
    memory_sink_ask(&sink, sc->when, library, fill_library(library, disk, sc));
    expect(sc, disk, old, &differ, &known);
    pair_start(&p, sc->workers, 0);
    p.disks[1] = &source.source;
    assert_int_equal(pair_disk_open(&p, 1, sc->capacity), 0);
    config.sink = &sink.sink;
    assert_int_equal(sink_walk_new(&w, &config, &why), 0);
    if (pair_run(&p, 1, pair_connect(&p, NULL), w, open, &why) != STREAM_DONE)
        fail_msg("%s", why.text);
    assert_memory_equal(disk, copy, sc->capacity);
    sink_walk_totals(w, &totals);
    assert_int_equal(totals.data_bytes, differ);
    assert_int_equal(sink.known_data, totals.known_bytes);
    assert_int_equal(sink.data, differ - totals.known_bytes);
    if (sc->when == ASKING_ALWAYS || sc->rate != 0) {
        assert_int_equal(totals.known_bytes, known);
        assert_int_equal(sink.questions, block_count_of(differ, sc->block));
        assert_true(totals.sent_bytes >= sink.questions * ASK_BYTES);
        assert_true(totals.sent_bytes <= sink.questions * ASK_BYTES + sink.data);
    } else {
        assert_int_equal(sink.questions, 0);
    }
    sink_walk_free(w);
    pair_stop(&p);
    memory_sink_free(&sink);
    free(disk);
    free(copy);
    free(library);
    free(old);
}

static void what_the_sink_has_is_not_sent(void **state)
{
    static const struct scene scenes[] = {
        { 2, 9 * MIB + 512, 64 * KIB, 4 * MIB, 1, false, 4, 0, ASKING_ALWAYS },
        { 0, 9 * MIB + 512, 64 * KIB, 4 * MIB, 1, false, 4, 0, ASKING_ALWAYS },
        { 2, 20 * MIB, 16 * KIB, 4 * MIB, 0, false, 2, 0, ASKING_ALWAYS },
        { 0, 9 * MIB, 16 * KIB, 4 * MIB, 0, true, 3, 0, ASKING_ALWAYS },
        { 2, 40 * MIB, 16 * KIB, 4 * MIB, 1, false, 0, 0, ASKING_ALWAYS },
        { 2, 9 * MIB + 512, 64 * KIB, 1, 1, true, 2, 0, ASKING_ALWAYS }, /* credits of one block */
        { 0, 2 * MIB, 16 * KIB, 1, 0, false, 1, 0, ASKING_ALWAYS },
        { 2, 33 * MIB, 4 * MIB, 8 * MIB, 0, false, 2, 0, ASKING_ALWAYS },     /* a window of one */
        { 2, 4 * MIB, 64 * KIB, 4 * MIB, 1, false, 3, 8 * MIB, ASKING_SLOW }, /* --bwlimit */
        { 2, 20 * MIB, 64 * KIB, 4 * MIB, 1, false, 3, 0, ASKING_SLOW },      /* fast */
        { 2, 512, 64 * KIB, MIB, 1, false, 4, 0, ASKING_ALWAYS },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(scenes); i++)
        play(&scenes[i]);
}

/* A sink that says it is of no use is not asked on and on. */
static void asking_ends_when_it_is_pointless(void **state)
{
    const struct scene sc = { 0, 30 * MIB, 16 * KIB, 256 * KIB, 0, false, 0, 0, ASKING_ALWAYS };
    uint8_t *disk = malloc(sc.capacity), *copy = calloc(1, sc.capacity);
    struct sink_walk_config config = { .window_bytes = sc.window };
    struct msg_stream_open open = { 0 };
    struct memory_source source;
    struct memory_sink sink;
    struct sink_walk *w;
    struct pair p;
    struct err why;

    (void)state;
    make_disk(disk, sc.capacity, sc.block, 4);
    memory_source_init(&source, disk, sc.capacity, 0);
    memory_sink_init(&sink, copy, sc.capacity, sc.block);
    memory_sink_ask(&sink, ASKING_ALWAYS, disk, 0);
    sink.pointless = true;
    config.sink = &sink.sink;
    pair_start(&p, 0, 0);
    p.disks[0] = &source.source;
    assert_int_equal(pair_disk_open(&p, 0, sc.capacity), 0);
    assert_int_equal(sink_walk_new(&w, &config, &why), 0);
    if (pair_run(&p, 0, CONTROL_CONNECTION, w, open, &why) != STREAM_DONE)
        fail_msg("%s", why.text);
    assert_memory_equal(disk, copy, sc.capacity);
    assert_in_range(sink.questions, 1, 1000); /* of about 1,440 */
    sink_walk_free(w);
    pair_stop(&p);
    memory_sink_free(&sink);
    free(disk);
    free(copy);
}

/* What was asked for when the connection died counts for nothing in the next opening. */
static void a_cut_stream_asks_again(void **state)
{
    const struct scene sc = { 2, 12 * MIB, 16 * KIB, 256 * KIB, 1, false, 2, 0, ASKING_ALWAYS };
    uint8_t *disk = malloc(sc.capacity), *copy = calloc(1, sc.capacity);
    uint8_t *library = malloc(sc.capacity);
    struct sink_walk_config config = { .window_bytes = sc.window };
    struct msg_stream_open open = { .compress = 1, .rate_bytes = 4 * MIB };
    enum stream_state st = STREAM_FAILED;
    struct memory_source source;
    struct sink_totals totals;
    struct memory_sink sink;
    uint64_t differ, known;
    struct sink_walk *w;
    struct pair p;
    struct err why;

    (void)state;
    make_disk(disk, sc.capacity, sc.block, 5);
    memory_source_init(&source, disk, sc.capacity, 0);
    memory_sink_init(&sink, copy, sc.capacity, sc.block);
    memory_sink_ask(&sink, sc.when, library, fill_library(library, disk, &sc));
    expect(&sc, disk, NULL, &differ, &known);
    config.sink = &sink.sink;
    pair_start(&p, 2, 0);
    p.disks[0] = &source.source;
    assert_int_equal(pair_disk_open(&p, 0, sc.capacity), 0);
    assert_int_equal(sink_walk_new(&w, &config, &why), 0);
    for (int i = 0; i < 4 && st != STREAM_DONE; i++) {
        int cut_fd;
        uint32_t connection = pair_connect(&p, &cut_fd);
        pid_t cutter = i < 3 ? fork() : -1;

        if (cutter == 0) {
            usleep(80000);
            shutdown(cut_fd, SHUT_RDWR);
            _exit(0);
        }
        if (i == 3)
            open.rate_bytes = 0;
        st = pair_run(&p, 0, connection, w, open, &why);
        close(cut_fd);
    }
    if (st != STREAM_DONE)
        fail_msg("%s", why.text);
    assert_memory_equal(disk, copy, sc.capacity);
    sink_walk_totals(w, &totals);
    assert_int_equal(totals.data_bytes, differ);
    assert_int_equal(totals.known_bytes, known);
    assert_in_range(totals.openings, 2, 4);
    sink_walk_free(w);
    pair_stop(&p);
    memory_sink_free(&sink);
    free(disk);
    free(copy);
    free(library);
}

/* A sink end, and a bare link as its other end. */
struct bare {
    struct hub *hub;
    struct link *other;
};

static int hear_nothing(void *context, struct hub *h, const struct message_header *header,
                        const uint8_t *body, size_t body_bytes, struct err *e)
{
    (void)context;
    (void)h;
    (void)header;
    (void)body;
    (void)body_bytes;
    return err_set(e, ERR_PEER, "nothing is expected");
}

static void bare_start(struct bare *b)
{
    static const struct hub_handler handler = { .control = hear_nothing };
    struct hub_config hub = { .handler = &handler };
    struct handshake_keys keys = {
        .choice = { .mode = RECORD_ENCRYPT, .aead = AEAD_CHACHA20_POLY1305 },
        .connection = CONTROL_CONNECTION,
    };
    const struct aead *aead = aead_sodium_find(AEAD_CHACHA20_POLY1305);
    struct link_config link = { .keys = &keys, .aead = aead, .payload_max = 1 << 20 };
    int fds[2];
    struct err e;

    assert_int_equal(crypto_start(&e), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(hub_new(&b->hub, &hub, &e), 0);
    assert_int_equal(hub_link_add(b->hub, fds[0], fds[0], &keys, aead, &e), 0);
    link.in_fd = link.out_fd = fds[1];
    assert_int_equal(link_new(&b->other, &link, &e), 0);
}

/* Some turns for both.  0, or the hub's verdict. */
static int bare_turn(struct bare *b)
{
    struct err e;

    for (int i = 0; i < 5; i++) {
        assert_int_equal(link_flush(b->other, &e), 0);
        if (hub_turn(b->hub, 10, &e) != 0)
            return -1;
    }
    return 0;
}

/* Whether a source that speaks these versions is told to ask; -1: its hello is refused. */
static int is_told_to_ask(uint16_t version_min, uint16_t version_max)
{
    static uint8_t bytes[64 * KIB], copy[64 * KIB];
    struct msg_hello hello = { .version_min = version_min,
                               .version_max = version_max,
                               .connection = CONTROL_CONNECTION };
    uint8_t run[8] = { 0, 0, 4 }; /* 64 KiB to be read */
    struct msg_plan plan = { .tail = run, .tail_bytes = sizeof run };
    struct msg_credit credit = { .bytes = 1 << 16 };
    struct memory_sink sink;
    struct sink_walk_config config = { .sink = &sink.sink, .window_bytes = MIB };
    struct message_header header;
    struct msg_stream_open open;
    const uint8_t *body;
    struct stream *st;
    struct sink_walk *w;
    int told = 0, held = 0;
    struct bare b;
    size_t count;
    struct err e;

    bare_start(&b);
    assert_int_equal(link_send_hello(b.other, 0, &hello, &e), 0);
    if (bare_turn(&b) != 0) {
        link_free(b.other);
        hub_free(b.hub);
        return -1;
    }
    memory_sink_init(&sink, copy, sizeof copy, 16 * KIB);
    memory_sink_ask(&sink, ASKING_ALWAYS, bytes, sizeof bytes);
    assert_int_equal(sink_walk_new(&w, &config, &e), 0);
    sink_walk_open(w, &open);
    assert_int_equal(sink_walk_start(w, b.hub, 1, CONTROL_CONNECTION, &st, &e), 0);
    assert_int_equal(link_send_credit(b.other, 1, &credit, &e), 0);
    assert_int_equal(link_send_plan(b.other, 1, &plan, &e), 0);
    assert_int_equal(bare_turn(&b), 0);
    assert_int_equal(link_receive(b.other, &e), 0);
    while (link_next(b.other, &header, &body, &count, &e) > 0) {
        told += header.type == MSG_asking;
        held += header.type == MSG_held;
        if (header.type == MSG_asking)
            assert_int_equal(held, 0); /* before anything could be sent */
    }
    assert_int_equal(held, 1);
    stream_end(st);
    sink_walk_free(w);
    memory_sink_free(&sink);
    link_free(b.other);
    hub_free(b.hub);
    return told;
}

static void an_older_source_is_not_told_to_ask(void **state)
{
    (void)state;
    assert_int_equal(is_told_to_ask(1, 1), 0);
    assert_int_equal(is_told_to_ask(1, 2), 1);
    assert_int_equal(is_told_to_ask(2, 9), 1);
    assert_int_equal(is_told_to_ask(3, 4), -1);
    assert_int_equal(is_told_to_ask(0, 0), -1);
    assert_int_equal(is_told_to_ask(2, 1), -1);
}

/* Made with Python's hashlib from PROTOCOL.md 8. */
static void an_asking_id_is_what_the_text_says(void **state)
{
    static const uint8_t wanted[ASK_ID_BYTES] = { 0x02, 0xbf, 0x5d, 0x15, 0x43, 0x69, 0xd4, 0x77,
                                                  0x93, 0x42, 0xb5, 0xe3, 0xeb, 0x49, 0xc0, 0x9b,
                                                  0x35, 0x3b, 0x95, 0xf6, 0xa8, 0x98, 0x24, 0x04,
                                                  0x46, 0xe5, 0xec, 0x74, 0x7a, 0x18, 0x3b, 0xff };
    uint8_t key[ASK_KEY_BYTES], block[16 * KIB], id[ASK_ID_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)(0xa0 + i);
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (uint8_t)(i * 5 + 1);
    ask_id_of(key, block, sizeof block, id);
    assert_memory_equal(id, wanted, sizeof id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_sink_has_is_not_sent),
        cmocka_unit_test(asking_ends_when_it_is_pointless),
        cmocka_unit_test(a_cut_stream_asks_again),
        cmocka_unit_test(an_older_source_is_not_told_to_ask),
        cmocka_unit_test(an_asking_id_is_what_the_text_says),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
