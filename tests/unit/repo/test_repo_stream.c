/* Disks come into a repository through the stream engine, as from a host: all block sizes, with and
 * without threads, hints and maps, and over cut connections. */
#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "receiver/storage/storage_memory.h"
#include "tests/unit/repo/fixture.h"
#include "tests/unit/stream/memory_disk.h"
#include "tests/unit/stream/pair.h"

enum { KIB = 1024, MIB = KIB * KIB };

struct scene {
    unsigned workers;
    uint64_t capacity;
    uint32_t block;
    size_t window;
    uint64_t grain;
    uint8_t compress;
    const char *passphrase;
};

static uint64_t roll(uint64_t *seed, uint64_t sides)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (*seed >> 33) % sides;
}

/* Zeros, text that packs well, and noise, in runs. */
static void fill(uint8_t *b, uint64_t from, uint64_t end, uint64_t seed)
{
    while (from < end) {
        uint64_t run = min_u64((1 + roll(&seed, 300)) * 1024, end - from);
        uint64_t kind = roll(&seed, 3);

        for (uint64_t i = 0; i < run; i++)
            b[from + i] = kind == 0   ? 0
                          : kind == 1 ? (uint8_t)("vmferry "[i % 8])
                                      : (uint8_t)roll(&seed, 256);
        from += run;
    }
}

struct play {
    const struct scene *scene;
    struct storage *s;
    struct pair pair;
    struct memory_source source;
    uint8_t *disk;
    const char *host, *uuid; /* of the VM */
    uint8_t ask_when;
    /* of the last round */
    struct repo_key vm;
    uint64_t sent, known; /* bytes of blocks; those of them that were asked for and known */
    struct repo_disk_result result;
};

/* One opening, cut after a while if asked; whether the stream came to its end. */
static bool open_once(struct play *p, struct sink_walk *w, bool cut, struct err *why)
{
    struct msg_stream_open open = { .compress = p->scene->compress };
    uint32_t connection;
    enum stream_state st;
    int cut_fd = -1;

    connection = pair_connect(&p->pair, cut ? &cut_fd : NULL);
    if (cut)
        shutdown(cut_fd, SHUT_RDWR);
    st = pair_run(&p->pair, 1, connection, w, open, why);
    hub_link_close(p->pair.sink_end, connection);
    if (cut_fd >= 0)
        close(cut_fd);
    return st == STREAM_DONE;
}

static void commit(struct repo_run *run, uint64_t number)
{
    struct repo_disk_facts disk = { .read_path = "agent" };
    struct repo_run_facts facts = { .outcome = "ok", .kind = "changed", .disks = &disk };
    struct repo_committed made;
    struct err e;

    assert_ok(repo_run_commit(run, &facts, &made, &e), &e);
    assert_int_equal(made.number, number);
}

static void back_up_round(struct play *p, struct repo *r, uint64_t number, bool cut)
{
    struct repo_vm vm = { p->host, "host", p->uuid, "path", "name", false };
    struct repo_disk disk = { "scsi0:0", "", "", p->scene->capacity, true };
    struct repo_run_options o = { .block_bytes = p->scene->block, .ask_when = p->ask_when };
    struct sink_walk_config config = { .window_bytes = p->scene->window };
    struct sink_totals totals;
    struct repo_run *run;
    struct sink_walk *w;
    struct sink *sink;
    struct err e;

    assert_ok(repo_run_begin(&run, r, &vm, &o, &disk, 1, &e), &e);
    assert_ok(repo_run_sink(run, 0, &sink, &e), &e);
    config.sink = sink;
    assert_ok(sink_walk_new(&w, &config, &e), &e);
    if (cut)
        (void)open_once(p, w, true, &e);
    if (!open_once(p, w, false, &e))
        fail_msg("round %d: %s", (int)number, e.text);
    sink_walk_totals(w, &totals);
    p->sent = totals.data_bytes;
    p->known = totals.known_bytes;
    repo_run_vm(run, &p->vm);
    sink_walk_free(w);
    sink->ops->close(sink);
    assert_int_equal(repo_run_result(run, 0, &p->result), 0);
    commit(run, number);
    repo_run_end(run);
}

static void assert_restores(struct play *p, struct repo *r, uint64_t number)
{
    uint8_t *got = malloc(p->scene->capacity);
    struct repo_generation g;
    struct source *source;
    struct err e;

    assert_non_null(got);
    assert_ok(repo_generation_load(r, &p->vm, number, &g, &e), &e);
    assert_ok(repo_disk_open(&source, r, &g.disks[0], &e), &e);
    for (uint64_t at = 0; at < p->scene->capacity;) { /* in odd pieces */
        size_t count = (size_t)min_u64(100001, p->scene->capacity - at);

        assert_ok(source_read(source, at, got + at, count, &e), &e);
        at += count;
    }
    assert_memory_equal(got, p->disk, p->scene->capacity);
    source_close(source);
    repo_generation_free(&g);
    free(got);
}

/* Other VMs with the same disk: what is asked for is known on this host, and on no other. */
static void play_asking(struct play *p, struct repo *r)
{
    p->source.changed_from = p->source.changed_to = 0;
    p->ask_when = ASKING_ALWAYS;
    p->uuid = "vm 2";
    back_up_round(p, r, 1, false);
    assert_restores(p, r, 1);
    assert_true(p->sent > 0);
    assert_int_equal(p->known, p->sent);
    assert_int_equal(p->result.new_bytes, 0);
    assert_int_equal(p->result.changed_bytes, p->sent);
    fill(p->disk, 0, min_u64(p->scene->block, p->scene->capacity), 8);
    back_up_round(p, r, 2, true);
    assert_restores(p, r, 2);
    assert_int_equal(p->known, 0);
    /* What was committed since the table was made is in it. */
    p->uuid = "vm 3";
    back_up_round(p, r, 1, false);
    assert_restores(p, r, 1);
    assert_int_equal(p->known, p->sent);
    /* Also blocks that stand twice on a disk: a second question tells nothing of the first. */
    p->host = "another host";
    back_up_round(p, r, 1, false);
    assert_restores(p, r, 1);
    assert_int_equal(p->known, 0);
    assert_int_equal(p->result.new_bytes, 0); /* but stored once */
}

static void play(const struct scene *scene)
{
    struct play p = { .scene = scene,
                      .disk = calloc(1, scene->capacity),
                      .host = "host",
                      .uuid = "vm",
                      .ask_when = ASKING_SLOW };
    uint64_t from = scene->capacity / 3, end = min_u64(scene->capacity, from + 300 * KIB);
    struct repo *r;
    struct err e;

    assert_non_null(p.disk);
    fill(p.disk, 0, scene->capacity, scene->block);
    memory_source_init(&p.source, p.disk, scene->capacity, scene->grain);
    assert_ok(storage_memory_new(&p.s, &e), &e);
    make_repo(p.s, scene->passphrase);
    assert_ok(open_repo(p.s, scene->passphrase, NULL, REPO_SHARED, NULL, &r, &e), &e);
    pair_start(&p.pair, scene->workers, 0);
    p.pair.disks[1] = &p.source.source;
    assert_int_equal(pair_disk_open(&p.pair, 1, scene->capacity), 0);

    back_up_round(&p, r, 1, false);
    assert_restores(&p, r, 1);
    fill(p.disk, from, end, 5);
    back_up_round(&p, r, 2, true);
    assert_restores(&p, r, 2);
    assert_true(p.sent <= end - from + 2 * scene->block);
    back_up_round(&p, r, 3, false);
    assert_restores(&p, r, 3);
    assert_int_equal(p.sent, 0);
    /* A hint that is right: all else is left unread, by nodes. */
    fill(p.disk, from, end, 6);
    p.source.changed_from = from / scene->block * scene->block;
    p.source.changed_to =
        min_u64((end + scene->block - 1) / scene->block * scene->block, scene->capacity);
    back_up_round(&p, r, 4, true);
    assert_restores(&p, r, 4);
    play_asking(&p, r);

    pair_stop(&p.pair);
    repo_close(r);
    storage_close(p.s);
    free(p.disk);
}

static void disks_come_in_whole(void **state)
{
    static const struct scene scenes[] = {
        { 2, 9 * MIB + 512, 64 * KIB, 4 * MIB, 0, 1, NULL },
        { 0, 9 * MIB + 512, 128 * KIB, 4 * MIB, 0, 1, "secret" },
        { 2, 20 * MIB, 16 * KIB, 4 * MIB, 4 * KIB, 0, NULL }, /* two levels of nodes */
        { 3, 20 * MIB + 1024, 1 * MIB, 8 * MIB, 64 * KIB, COMPRESS_AUTO, "secret" },
        { 1, 9 * MIB + 7 * 512, 4 * MIB, 4 * MIB, 0, 3, NULL },
        { 2, 4 * MIB + 512, 16 * KIB, 1, 4 * KIB, 1, NULL }, /* credits of one block */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(scenes); i++)
        play(&scenes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(disks_come_in_whole) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
