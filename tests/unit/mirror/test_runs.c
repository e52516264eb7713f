/* Runs that are cut and go on, disks side by side, and a disk of 62 TB. */
#include "tests/unit/cmocka_all.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/block/tree.h"
#include "protocol/stream/sink.h"
#include "tests/unit/mirror/fixture.h"

/* --- resuming --- */

static void a_cut_first_mirror_goes_on(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    struct walk w = { .stop_at = 30 };
    struct err e;

    assert_int_equal(host_run(h, &w, NULL, &e), -1);
    assert_int_equal(e.code, ERR_NETWORK);
    assert_int_equal(w.sent, 10);
    assert_int_equal(access(in_mirror(h, "web01", ""), F_OK), -1);
    /* The guest goes on writing in between: other content, zeros, data in a hole. */
    disk_set(d, 3, 77);
    disk_set(d, 6, 0);
    disk_set(d, 7, 78);
    w = (struct walk){ .stop_at = 60 };
    assert_int_equal(host_run(h, &w, NULL, &e), -1);
    assert_true(w.resumed);
    assert_int_equal(w.sent, 2 + 4);
    w = (struct walk){ 0 };
    must_run(h, &w);
    assert_true(w.resumed);
    assert_int_equal(w.sent, 2);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    must_be_clean(h, "web01");
    assert_int_equal(access(in_mirror(h, ".web01.part", ""), F_OK), -1);
}

/* As before a change hint: the VM has left the state that was staged. */
static void what_a_cut_refresh_staged_can_be_thrown_away(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A), was;
    struct walk w = { .stop_at = 60 };
    struct err e;

    must_run(h, NULL);
    disk_copy(&was, d);
    for (unsigned b = 0; b < 50; b += 2)
        disk_set(d, b, 100 + b);
    assert_int_equal(host_run(h, &w, NULL, &e), -1);
    memcpy(d->data, was.data, d->capacity);
    disk_set(d, 3, 300);
    w = (struct walk){ .unstage = true };
    must_run(h, &w);
    assert_true(w.resumed);
    assert_int_equal(w.sent, 1);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    must_be_clean(h, "web01");
    free(was.data);
}

static void it_tells_what_it_holds(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    struct mirror_head one, two;
    struct walk w = { 0 };
    struct digest root;
    struct mirror *m;
    struct err e;
    FILE *f;

    must_run(h, &w);
    assert_false(w.held); /* nothing was there */
    w = (struct walk){ 0 };
    must_run(h, &w);
    assert_true(w.held);
    root = w.held_root;
    assert_int_equal(mirror_open_vm(&m, h->place, &h->vm, false, &h->env, &e), 0);
    mirror_head(m, &one);
    mirror_close(m);
    assert_int_equal(one.number, 2);
    assert_int_equal(strlen(one.mirror), 32);
    assert_int_equal(strlen(one.id), 32);

    disk_set(d, 3, 300);
    w = (struct walk){ 0 };
    must_run(h, &w);
    assert_true(digest_equal(&w.held_root, &root)); /* of what was there before */
    w = (struct walk){ 0 };
    must_run(h, &w);
    assert_false(digest_equal(&w.held_root, &root));
    assert_int_equal(mirror_open_vm(&m, h->place, &h->vm, false, &h->env, &e), 0);
    mirror_head(m, &two);
    mirror_close(m);
    assert_int_equal(two.number, 4);
    assert_string_equal(two.mirror, one.mirror);
    assert_string_not_equal(two.id, one.id);

    /* An image that somebody has touched is not what was recorded. */
    assert_int_equal(chmod(in_mirror(h, "web01", "disk-scsi0-0.raw"), 0600), 0);
    f = fopen(in_mirror(h, "web01", "disk-scsi0-0.raw"), "r+b");
    assert_non_null(f);
    assert_int_equal(fputc('x', f), 'x');
    fclose(f);
    w = (struct walk){ 0 };
    must_run(h, &w);
    assert_true(w.distrusted);
    assert_false(w.held);
    w = (struct walk){ 0 };
    must_run(h, &w);
    assert_true(w.held);
}

static void a_cut_refresh_goes_on(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A), was;
    struct walk w = { .stop_at = 60 };
    struct err e;

    h->keep = 2;
    must_run(h, NULL);
    disk_copy(&was, d);
    for (unsigned b = 0; b < 50; b += 2)
        disk_set(d, b, 100 + b);
    assert_int_equal(host_run(h, &w, NULL, &e), -1);
    assert_int_equal(w.sent, 25);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", &was);
    disk_set(d, 2, 300);                                      /* changed again */
    disk_set(d, 4, 0);                                        /* zeros now */
    memcpy(d->data + 6 * BLOCK, was.data + 6 * BLOCK, BLOCK); /* back to what it was */
    memcpy(d->data + 8 * BLOCK, was.data + 8 * BLOCK, BLOCK); /* back to a hole */
    disk_set(d, 9, 301);
    w = (struct walk){ .stop_at = 20 };
    assert_int_equal(host_run(h, &w, NULL, &e), -1);
    assert_true(w.resumed);
    assert_int_equal(w.sent, 3);
    assert_int_equal(w.zero, 2);
    disk_set(d, 10, 302);
    w = (struct walk){ .stop_at = 45 };
    assert_int_equal(host_run(h, &w, NULL, &e), -1);
    assert_int_equal(w.sent, 1);
    w = (struct walk){ 0 };
    must_run(h, &w);
    assert_int_equal(w.sent + w.zero, 0);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    must_be_clean(h, "web01");
    must_restore(h, "1", "disk-scsi0-0.raw", &was);
    assert_string_equal(h->warnings, "");
    free(was.data);
}

static void random_cuts_and_changes_end_in_the_truth(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A), was = { 0 };
    unsigned runs = 0;
    struct err e;

    h->keep = 2;
    srand(20261120);
    while (runs < 12) {
        struct walk w = { .stop_at = rand() % 3 != 0 ? 1 + (unsigned)rand() % 110 : 0,
                          .full = rand() % 8 == 0,
                          .raw = rand() % 2 == 0 };

        if (host_run(h, &w, NULL, &e) == 0) {
            runs++;
            assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
            must_be_clean(h, "web01");
            if (runs > 1) {
                char gen[32];

                snprintf(gen, sizeof gen, "%u", runs - 1);
                must_restore(h, gen, "disk-scsi0-0.raw", &was);
            }
            free(was.data);
            disk_copy(&was, d);
            if (rand() % 3 == 0)
                disk_grow(d, d->capacity + 512 * (1 + (unsigned)rand() % 40));
        } else {
            assert_int_equal(e.code, ERR_NETWORK);
        }
        for (int i = rand() % 12; i > 0; i--)
            disk_set(d, (unsigned)rand() % block_count_of(d->capacity, BLOCK),
                     rand() % 3 == 0 ? 0 : (unsigned)rand() | 1);
    }
    free(was.data);
}

/* --- parallel disks --- */

struct feeder {
    struct sink *s;
    const struct disk *d;
    struct walk w;
    struct err e;
    int rc;
};

static void *feed(void *context)
{
    struct feeder *f = context;

    f->rc = walk_disk(f->s, f->d, &f->w, &f->e);
    f->s->ops->close(f->s);
    return NULL;
}

static void disks_come_in_parallel(void **state)
{
    struct host *h = *state;
    static const char *const slots[] = { "scsi0:0", "scsi0:1", "nvme0:0", "sata0:3" };
    struct mirror_run_options o = { .keep = 2, .block_bytes = BLOCK };
    struct mirror_facts f = some_facts(h);
    struct mirror_disk disks[4];
    struct mirror_committed c;
    struct feeder feeders[4];
    struct mirror_run *r = NULL;
    struct mirror *m = NULL;
    pthread_t threads[4];
    struct err e;

    for (unsigned i = 0; i < 4; i++) {
        char uuid[8];

        snprintf(uuid, sizeof uuid, "u%u", i);
        some_disk(h, slots[i], uuid);
    }
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 4; i++) {
            disk_set(&h->disks[i], 20 + i, 30 + round);
            disks[i] = (struct mirror_disk){ .slot = h->disks[i].slot,
                                             .uuid = h->disks[i].uuid,
                                             .capacity_bytes = h->disks[i].capacity,
                                             .included = true };
        }
        assert_ok(mirror_open_vm(&m, h->place, &h->vm, false, &h->env, &e), &e);
        assert_ok(mirror_run_begin(&r, m, &o, disks, 4, &e), &e);
        for (unsigned i = 0; i < 4; i++) {
            feeders[i] = (struct feeder){ .d = &h->disks[i] };
            assert_ok(mirror_run_sink(r, i, &feeders[i].s, &e), &e);
            assert_int_equal(pthread_create(&threads[i], NULL, feed, &feeders[i]), 0);
        }
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
            assert_ok(feeders[i].rc, &feeders[i].e);
        }
        assert_ok(mirror_run_commit(r, &f, &c, &e), &e);
        assert_ok(mirror_run_apply(r, &e), &e);
        mirror_run_end(r);
        mirror_close(m);
    }
    for (unsigned i = 0; i < 4; i++) {
        char file[64];

        snprintf(file, sizeof file, "disk-%s.raw", slots[i]);
        *strchr(file, ':') = '-';
        assert_image(in_mirror(h, "web01", ""), file, &h->disks[i]);
    }
    must_be_clean(h, "web01");
}

/* --- a disk of 62 TB with a few blocks --- */

enum { GIANT_BLOCKS = 10 };
#define GIANT ((uint64_t)62000 * 1000 * 1000 * 1000 / 512 * 512)

static uint64_t giant_block(unsigned i)
{
    return i == GIANT_BLOCKS - 1 ? GIANT / BLOCK : (uint64_t)i * i * 40000003;
}

static int give_giant(struct sink *s, struct tree *t, uint64_t block, unsigned seed, struct err *e)
{
    static uint8_t plain[BLOCK];
    size_t bytes = (size_t)min_u64(BLOCK, GIANT - block * BLOCK);
    struct sink_block b = { .offset_bytes = block * BLOCK,
                            .plain = plain,
                            .plain_bytes = bytes,
                            .packed = plain,
                            .packed_bytes = bytes,
                            .encoding = ENCODING_RAW };

    memset(plain, (int)seed, sizeof plain);
    b.digest = digest_of(&s->secret, plain, bytes);
    if (tree_add(t, &b.digest, 1, e) != 0)
        return -1;
    return s->ops->data(s, &b, e);
}

static int walk_giant(struct sink *s, unsigned seed, struct err *e)
{
    uint64_t blocks = block_count_of(GIANT, BLOCK), at = 0;
    struct digest root;
    struct tree *t = NULL;
    int rc = tree_new(&t, &s->secret, GIANT, BLOCK, e);

    for (unsigned i = 0; i <= GIANT_BLOCKS && rc == 0; i++) {
        uint64_t next = i < GIANT_BLOCKS ? giant_block(i) : blocks;
        struct digest held[8];
        struct held h;

        rc = s->ops->held(s, min_u64(at, blocks - 1) * BLOCK, GIANT, held, 8, &h, e);
        if (next > at && rc == 0)
            rc = s->ops->zero(s, at * BLOCK, min_u64((next - at) * BLOCK, GIANT - at * BLOCK), e);
        if (rc == 0)
            rc = tree_add_zeros(t, next - at, e);
        if (i < GIANT_BLOCKS && rc == 0)
            rc = give_giant(s, t, next, i == 3 ? seed : i + 1, e);
        at = next + 1;
    }
    if (rc == 0)
        rc = tree_root(t, &root, e);
    if (rc == 0)
        rc = s->ops->end(s, &root, e);
    tree_free(t);
    return rc;
}

static void a_giant_disk_costs_what_it_uses(void **state)
{
    struct host *h = *state;
    struct mirror_disk d = {
        .slot = "scsi0:0", .uuid = UUID_A, .capacity_bytes = GIANT, .included = true
    };
    struct mirror_run_options o = { .keep = 2, .block_bytes = BLOCK };
    struct mirror_facts f = some_facts(h);
    struct mirror_committed c;
    struct rusage usage;
    char out[128];
    struct err e;
    struct stat s;

    /* ext4 ends at 16 TiB; only a file system in memory is sure to take it. */
    if (strncmp(h->dir, "/dev/shm/", 9) != 0)
        skip();
    for (unsigned round = 0; round < 3; round++) {
        struct mirror_run *r = NULL;
        struct mirror *m = NULL;
        struct sink *sink;
        int rc;

        assert_ok(mirror_open_vm(&m, h->place, &h->vm, false, &h->env, &e), &e);
        assert_ok(mirror_run_begin(&r, m, &o, &d, 1, &e), &e);
        assert_ok(mirror_run_sink(r, 0, &sink, &e), &e);
        rc = walk_giant(sink, 100 + round, &e);
        sink->ops->close(sink);
        assert_ok(rc, &e);
        assert_ok(mirror_run_commit(r, &f, &c, &e), &e);
        assert_ok(mirror_run_apply(r, &e), &e);
        mirror_run_end(r);
        mirror_close(m);
    }
    must_be_clean(h, "web01");
    assert_ok(restore_gen(h, "1", out, &e), &e);
    strcat(out, "/disk-scsi0-0.raw");
    assert_int_equal(stat(out, &s), 0);
    assert_int_equal(s.st_size, GIANT);
    assert_true((uint64_t)s.st_blocks * 512 <= 16 * BLOCK);
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
    assert_true(usage.ru_maxrss <= 64 * 1024);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_cut_first_mirror_goes_on, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(a_cut_refresh_goes_on, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(what_a_cut_refresh_staged_can_be_thrown_away, host_setup,
                                        host_teardown),
        cmocka_unit_test_setup_teardown(it_tells_what_it_holds, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(random_cuts_and_changes_end_in_the_truth, host_setup,
                                        host_teardown),
        cmocka_unit_test_setup_teardown(disks_come_in_parallel, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(a_giant_disk_costs_what_it_uses, host_setup, host_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
