/* Asking before sending: what the sink has is not sent, and nothing else is different. */
#include "tests/unit/cmocka_all.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/stream/ask_window.h"
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
        cmocka_unit_test(an_asking_id_is_what_the_text_says),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
