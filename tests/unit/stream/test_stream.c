#include "tests/unit/cmocka_all.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "tests/unit/stream/memory_disk.h"
#include "tests/unit/stream/pair.h"

enum { KIB = 1024, MIB = KIB * KIB };

/* A disk of zeros, text that packs well, and noise, in runs. */
static uint8_t *make_disk(uint64_t capacity, unsigned seed)
{
    uint8_t *b = calloc(1, capacity);
    uint64_t at = 0;

    srand(seed);
    while (at < capacity) {
        uint64_t run = min_u64((uint64_t)(1 + rand() % 300) * 1024, capacity - at);
        int kind = rand() % 3;

        for (uint64_t i = 0; kind != 0 && i < run; i++)
            b[at + i] = kind == 1 ? (uint8_t)("vmferry "[i % 8]) : (uint8_t)rand();
        at += run;
    }
    return b;
}

static void change_disk(uint8_t *b, uint64_t capacity, unsigned seed)
{
    srand(seed);
    for (int i = 0; i < 20; i++) {
        uint64_t at = (uint64_t)rand() % capacity;
        uint64_t run = min_u64((uint64_t)(rand() % 200) * 512, capacity - at);

        if (i % 3 == 0)
            memset(b + at, 0, run);
        else
            for (uint64_t k = 0; k < run; k++)
                b[at + k] = (uint8_t)rand();
    }
}

struct scene {
    unsigned workers;
    uint64_t capacity;
    uint32_t block;
    size_t window;
    uint64_t grain;
    uint8_t compress;
    bool own_link;
};

/* First transfer, then one after a change, then one without: always the same bytes. */
static void play(const struct scene *sc)
{
    uint8_t *disk = make_disk(sc->capacity, sc->block), *copy = calloc(1, sc->capacity);
    struct memory_source source;
    struct memory_sink sink;
    struct sink_totals totals;
    struct pair p;
    struct err why;

    memory_source_init(&source, disk, sc->capacity, sc->grain);
    memory_sink_init(&sink, copy, sc->capacity, sc->block);
    pair_start(&p, sc->workers, 0);
    p.disks[1] = &source.source;
    assert_int_equal(pair_disk_open(&p, 1, sc->capacity), 0);
    assert_int_equal(pair_disk_open(&p, 2, sc->capacity), -1);
    assert_int_equal(p.why.code, ERR_NOT_FOUND);

    for (int round = 0; round < 3; round++) {
        struct sink_walk_config config = { .sink = &sink.sink, .window_bytes = sc->window };
        struct msg_stream_open open = { .compress = sc->compress };
        uint32_t connection = sc->own_link ? pair_connect(&p, NULL) : CONTROL_CONNECTION;
        struct sink_walk *w;
        struct digest root;

        if (round == 1)
            change_disk(disk, sc->capacity, 77);
        sink.position = 0;
        sink.same = sink.zero = sink.data = 0;
        sink.ended = false;
        assert_int_equal(sink_walk_new(&w, &config, &why), 0);
        if (pair_run(&p, 1, connection, w, open, &why) != STREAM_DONE)
            fail_msg("round %d: %s", round, why.text);
        assert_true(sink.ended);
        assert_true(sink_walk_root(w, &root));
        assert_true(digest_equal(&root, &sink.root));
        assert_memory_equal(disk, copy, sc->capacity);
        assert_int_equal(sink.same + sink.zero + sink.data, sc->capacity);
        sink_walk_totals(w, &totals);
        assert_int_equal(totals.position_bytes, sc->capacity);
        if (round == 2)
            assert_int_equal(totals.data_bytes, 0);
        if (round == 0 && sc->grain != 0 && sc->block < 64 * KIB)
            assert_true(totals.read_bytes < sc->capacity);
        sink_walk_free(w);
        memory_sink_learn(&sink);
        hub_link_close(p.sink_end, sc->own_link ? connection : 0);
    }
    pair_stop(&p);
    memory_sink_free(&sink);
    free(disk);
    free(copy);
}

static void disks_arrive_whole(void **state)
{
    static const struct scene scenes[] = {
        { 2, 9 * MIB + 512, 64 * KIB, 4 * MIB, 0, 1, true },
        { 0, 9 * MIB + 512, 64 * KIB, 4 * MIB, 0, 1, true },
        { 2, 9 * MIB, 16 * KIB, 4 * MIB, 4 * KIB, 0, false },
        { 0, 9 * MIB, 16 * KIB, 4 * MIB, 4 * KIB, 0, false },
        { 3, 20 * MIB + 1024, 1 * MIB, 8 * MIB, 64 * KIB, COMPRESS_AUTO, true },
        { 1, 9 * MIB + 7 * 512, 4 * MIB, 4 * MIB, 0, 3, true },
        { 2, 4 * MIB + 512, 16 * KIB, 1, 4 * KIB, 1, true },  /* credits of one block */
        { 0, 4 * MIB + 512, 64 * KIB, 1, 4 * KIB, 0, false }, /* the same without threads */
        { 2, 512, 64 * KIB, 1 * MIB, 0, 1, true },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(scenes); i++)
        play(&scenes[i]);
}

static void a_wrong_map_is_noticed(void **state)
{
    uint64_t capacity = 8 * MIB;
    uint8_t *disk = calloc(1, capacity), *copy = calloc(1, capacity);
    struct memory_source source;
    struct memory_sink sink;
    struct sink_walk_config config = { .sink = &sink.sink, .window_bytes = MIB };
    struct msg_stream_open open = { .compress = 1 };
    struct sink_walk *w;
    struct pair p;
    struct err why;

    (void)state;
    disk[3 * MIB + 5] = 1;
    memory_source_init(&source, disk, capacity, 64 * KIB);
    source.lie_at = 3 * MIB;
    memory_sink_init(&sink, copy, capacity, 64 * KIB);
    pair_start(&p, 1, 0);
    p.disks[0] = &source.source;
    assert_int_equal(pair_disk_open(&p, 0, capacity), 0);
    assert_int_equal(sink_walk_new(&w, &config, &why), 0);
    assert_int_equal(pair_run(&p, 0, CONTROL_CONNECTION, w, open, &why), STREAM_DONE);
    assert_memory_equal(disk, copy, capacity);
    sink_walk_free(w);
    pair_stop(&p);
    memory_sink_free(&sink);
    free(disk);
    free(copy);
}

/* Cut the connection after so many bytes came; the walk goes on in a new opening. */
static void a_cut_stream_goes_on_where_it_was(void **state)
{
    uint64_t capacity = 12 * MIB + 512;
    uint8_t *disk = make_disk(capacity, 5), *copy = calloc(1, capacity);
    struct memory_source source;
    struct memory_sink sink;

    (void)state;
    for (int cuts = 1; cuts <= 3; cuts++) {
        struct sink_walk_config config = { .sink = &sink.sink, .window_bytes = 256 * KIB };
        struct msg_stream_open open = { .compress = 1, .rate_bytes = 6 * MIB };
        enum stream_state st = STREAM_FAILED;
        struct sink_totals totals;
        struct sink_walk *w;
        struct pair p;
        struct err why;

        memory_source_init(&source, disk, capacity, 0);
        memory_sink_init(&sink, copy, capacity, 16 * KIB);
        memset(copy, 0, capacity);
        pair_start(&p, 2, 0);
        p.disks[0] = &source.source;
        assert_int_equal(pair_disk_open(&p, 0, capacity), 0);
        assert_int_equal(sink_walk_new(&w, &config, &why), 0);
        for (int i = 0; i <= cuts && st != STREAM_DONE; i++) {
            int cut_fd;
            uint32_t connection = pair_connect(&p, &cut_fd);
            pid_t cutter = i < cuts ? fork() : -1;

            if (cutter == 0) {
                usleep(60000);
                shutdown(cut_fd, SHUT_RDWR);
                _exit(0);
            }
            if (i == cuts)
                open.rate_bytes = 0;
            st = pair_run(&p, 0, connection, w, open, &why);
            close(cut_fd);
            if (i < cuts)
                assert_int_equal(st, STREAM_FAILED);
            if (i < cuts)
                assert_int_equal(why.code, ERR_NETWORK);
        }
        if (st != STREAM_DONE)
            fail_msg("%s", why.text);
        assert_memory_equal(disk, copy, capacity);
        sink_walk_totals(w, &totals);
        assert_int_equal(totals.openings, cuts + 1);
        sink_walk_free(w);
        pair_stop(&p);
        memory_sink_free(&sink);
    }
    free(disk);
    free(copy);
}

/* A hint says where changes may be: nothing else is read, and the root still stands for all. */
static void what_a_hint_calls_unchanged_is_not_read(void **state)
{
    uint64_t capacity = 40 * MIB + 512;
    uint8_t *disk = make_disk(capacity, 21), *copy = calloc(1, capacity);

    (void)state;
    for (unsigned workers = 0; workers < 3; workers += 2) {
        for (int known = 1; known >= 0; known--) {
            struct memory_source source;
            struct memory_sink sink;
            struct sink_walk_config config = { .sink = &sink.sink, .window_bytes = 64 * KIB };
            struct msg_stream_open open = { .compress = 1 };
            struct sink_totals totals;
            struct sink_walk *w;
            struct pair p;
            struct err why;

            memcpy(copy, disk, capacity);
            memory_source_init(&source, disk, capacity, 0);
            source.changed_from = 17 * MIB + 3;
            source.changed_to = 20 * MIB + 5000;
            memory_sink_init(&sink, copy, capacity, 16 * KIB);
            if (known)
                memory_sink_learn(&sink);
            for (uint64_t at = source.changed_from; at < source.changed_to; at += 100000)
                disk[at] ^= 0x55;
            pair_start(&p, workers, 0);
            p.disks[0] = &source.source;
            assert_int_equal(pair_disk_open(&p, 0, capacity), 0);
            assert_int_equal(sink_walk_new(&w, &config, &why), 0);
            if (known) {
                if (pair_run(&p, 0, CONTROL_CONNECTION, w, open, &why) != STREAM_DONE)
                    fail_msg("%s", why.text);
                assert_memory_equal(disk, copy, capacity);
                sink_walk_totals(w, &totals);
                assert_true(totals.unread_bytes > 36 * MIB);
                assert_true(totals.read_bytes < 4 * MIB);
                assert_int_equal(totals.unread_bytes + totals.same_bytes + totals.zero_bytes +
                                     totals.data_bytes,
                                 capacity);
            } else {
                assert_int_equal(pair_run(&p, 0, CONTROL_CONNECTION, w, open, &why), STREAM_FAILED);
                assert_int_equal(why.code, ERR_PEER);
            }
            sink_walk_free(w);
            pair_stop(&p);
            memory_sink_free(&sink);
        }
    }
    free(disk);
    free(copy);
}

/*
 * What stands for unread runs is more than the credits for it, and comes in many messages: a block
 * to be checked in each node of the tree leaves only digests of single blocks.
 */
static void unread_runs_may_take_many_messages(void **state)
{
    uint64_t block = 16 * KIB, capacity = 20 * 1024 * block;
    uint8_t *disk = calloc(1, capacity), *copy = calloc(1, capacity); /* zeros but for few */
    struct memory_source source;
    struct memory_sink sink;
    struct sink_walk_config config = { .sink = &sink.sink, .window_bytes = 64 * KIB };
    struct msg_stream_open open = { .compress = 1 };
    struct sink_totals totals;
    struct sink_walk *w;
    struct pair p;
    struct err why;

    (void)state;
    for (uint64_t at = 7 * block; at < capacity; at += 3000 * block)
        disk[at] = copy[at] = 7;
    memory_source_init(&source, disk, capacity, 0);
    source.changed_from = capacity - 5 * block;
    source.changed_to = capacity - 4 * block;
    source.check_every = 1024 * block;
    memory_sink_init(&sink, copy, capacity, (uint32_t)block);
    memory_sink_learn(&sink);
    disk[source.changed_from + 5] = 9;
    pair_start(&p, 0, 0);
    p.disks[0] = &source.source;
    assert_int_equal(pair_disk_open(&p, 0, capacity), 0);
    assert_int_equal(sink_walk_new(&w, &config, &why), 0);
    if (pair_run(&p, 0, CONTROL_CONNECTION, w, open, &why) != STREAM_DONE)
        fail_msg("%s", why.text);
    assert_int_equal(copy[source.changed_from + 5], 9);
    sink_walk_totals(w, &totals);
    assert_int_equal(totals.unread_bytes, capacity - 21 * block);
    assert_int_equal(totals.sampled_bytes, 20 * block);
    sink_walk_free(w);
    pair_stop(&p);
    memory_sink_free(&sink);
    free(disk);
    free(copy);
}

static unsigned hint_warnings;

static void count_hint_warning(void *context, const struct msg_warning *w)
{
    (void)context;
    assert_int_equal(w->code, WARNING_HINT_WRONG);
    hint_warnings++;
}

/* A block outside of the hint is read, and tells whether it lies. */
static void a_hint_that_lies_is_found_out(void **state)
{
    uint64_t capacity = 12 * MIB, at = 9 * MIB;
    uint8_t *disk = make_disk(capacity, 23), *copy = calloc(1, capacity);

    (void)state;
    for (unsigned lies = 0; lies < 3; lies++) {
        struct memory_source source;
        struct memory_sink sink;
        struct sink_walk_config config = { .sink = &sink.sink,
                                           .window_bytes = 64 * KIB,
                                           .warn = count_hint_warning };
        struct msg_stream_open open = { .flags = lies == 2 ? STREAM_IGNORE_HINTS : 0 };
        struct sink_totals totals;
        enum stream_state end;
        struct sink_walk *w;
        struct pair p;
        struct err why;

        hint_warnings = 0;
        memcpy(copy, disk, capacity);
        memory_source_init(&source, disk, capacity, 0);
        source.changed_from = 3 * MIB;
        source.changed_to = 4 * MIB;
        source.check_at = at;
        memory_sink_init(&sink, copy, capacity, 16 * KIB);
        memory_sink_learn(&sink);
        disk[3 * MIB + 5]++;
        if (lies > 0)
            disk[at + 77]++;
        pair_start(&p, lies, 0);
        p.disks[0] = &source.source;
        assert_int_equal(pair_disk_open(&p, 0, capacity), 0);
        assert_int_equal(sink_walk_new(&w, &config, &why), 0);
        end = pair_run(&p, 0, CONTROL_CONNECTION, w, open, &why);
        sink_walk_totals(w, &totals);
        assert_int_equal(end, lies == 1 ? STREAM_FAILED : STREAM_DONE);
        assert_int_equal(hint_warnings, lies == 1);
        if (lies == 1)
            assert_int_equal(why.code, ERR_SOURCE);
        else
            assert_memory_equal(disk, copy, capacity); /* without the hint, all of it is found */
        if (lies == 0)
            assert_int_equal(totals.sampled_bytes, 16 * KIB);
        sink_walk_free(w);
        pair_stop(&p);
        memory_sink_free(&sink);
    }
    free(disk);
    free(copy);
}

static void failures_carry_their_reason(void **state)
{
    uint64_t capacity = 4 * MIB;
    uint8_t *disk = make_disk(capacity, 9), *copy = calloc(1, capacity);

    (void)state;
    disk[2 * MIB + 100] = 1;
    for (unsigned side = 0; side < 4; side++) {
        struct memory_source source;
        struct memory_sink sink;
        struct sink_walk_config config = { .sink = &sink.sink, .window_bytes = MIB };
        struct msg_stream_open open = { .compress = 1 };
        struct sink_walk *w;
        struct pair p;
        struct err why;

        memory_source_init(&source, disk, capacity, 0);
        memory_sink_init(&sink, copy, capacity, 16 * KIB);
        *(side % 2 == 0 ? &source.fail_at : &sink.fail_at) = 2 * MIB + 100;
        pair_start(&p, side / 2, 0);
        p.disks[0] = &source.source;
        assert_int_equal(pair_disk_open(&p, 0, capacity), 0);
        assert_int_equal(sink_walk_new(&w, &config, &why), 0);
        assert_int_equal(pair_run(&p, 0, CONTROL_CONNECTION, w, open, &why), STREAM_FAILED);
        assert_int_equal(why.code, side % 2 == 0 ? ERR_SOURCE : ERR_SPACE);
        assert_false(sink.ended);
        sink_walk_free(w);
        pair_stop(&p);
        memory_sink_free(&sink);
    }
    free(disk);
    free(copy);
}

static void four_disks_at_once(void **state)
{
    enum { DISKS = 4 };
    uint64_t capacity = 6 * MIB;
    uint8_t *disk[DISKS], *copy[DISKS];
    struct memory_source source[DISKS];
    struct memory_sink sink[DISKS];
    struct sink_walk *w[DISKS];
    struct stream *st[DISKS];
    struct pair p;
    struct err why;

    (void)state;
    pair_start(&p, 2, 0);
    for (uint32_t i = 0; i < DISKS; i++) {
        struct sink_walk_config config = { .sink = &sink[i].sink, .window_bytes = MIB };
        struct msg_stream_open open = { .compress = 1,
                                        .disk = i,
                                        .connection = CONTROL_CONNECTION };

        disk[i] = make_disk(capacity, i + 1);
        copy[i] = calloc(1, capacity);
        memory_source_init(&source[i], disk[i], capacity, 0);
        memory_sink_init(&sink[i], copy[i], capacity, 64 * KIB);
        p.disks[i] = &source[i].source;
        assert_int_equal(pair_disk_open(&p, i, capacity), 0);
        assert_int_equal(sink_walk_new(&w[i], &config, &why), 0);
        sink_walk_open(w[i], &open);
        assert_int_equal(sink_walk_start(w[i], p.sink_end, i + 1, CONTROL_CONNECTION, &st[i], &why),
                         0);
        assert_int_equal(
            link_send_stream_open(hub_link(p.sink_end, CONTROL_CONNECTION), i + 1, &open, &why), 0);
    }
    for (uint32_t i = 0; i < DISKS; i++) {
        while (stream_wait(st[i], 1000, &why) == STREAM_RUNNING)
            ;
        assert_int_equal(stream_state(st[i], &why), STREAM_DONE);
        stream_end(st[i]);
        assert_memory_equal(disk[i], copy[i], capacity);
        sink_walk_free(w[i]);
        memory_sink_free(&sink[i]);
        free(disk[i]);
        free(copy[i]);
    }
    pair_stop(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disks_arrive_whole),
        cmocka_unit_test(a_wrong_map_is_noticed),
        cmocka_unit_test(a_cut_stream_goes_on_where_it_was),
        cmocka_unit_test(what_a_hint_calls_unchanged_is_not_read),
        cmocka_unit_test(unread_runs_may_take_many_messages),
        cmocka_unit_test(a_hint_that_lies_is_found_out),
        cmocka_unit_test(failures_carry_their_reason),
        cmocka_unit_test(four_disks_at_once),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
