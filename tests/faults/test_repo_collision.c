/*
 * Two blocks with one XXH3-128 (collision.h) in a repository: both on one disk, both on two VMs,
 * and a disk that changes from one to the other.  Identity is a cryptographic hash, and what tells
 * changes is keyed with a secret of each disk: every one of them comes back as it was.
 */
#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "receiver/storage/storage_memory.h"
#include "tests/faults/collision.h"
#include "tests/unit/repo/fixture.h"

enum { ROUNDS = 4, BLOCKS = 8 };

static uint8_t pair[2][BLOCK];

struct scene {
    struct storage *s;
    const char *passphrase;
    struct host hosts[2];
    struct disk was[2][ROUNDS + 1]; /* what each generation must be */
    struct err e;
};

static int set_up(void **state, const char *passphrase)
{
    static const char *const uuids[] = { "60 00 C2 91 00 00 00 00-00 00 00 00 00 00 00 0a",
                                         "60 00 C2 92 00 00 00 00-00 00 00 00 00 00 00 0b" };
    struct scene *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->passphrase = passphrase;
    collision_make(pair[0], pair[1], BLOCK);
    assert_ok(storage_memory_new(&f->s, &f->e), &f->e);
    make_repo(f->s, passphrase);
    for (size_t i = 0; i < 2; i++) {
        host_new(&f->hosts[i]);
        host_add(&f->hosts[i], "scsi0:0", uuids[i], BLOCKS * (uint64_t)BLOCK);
    }
    f->hosts[1].vm.uuid = "another VM of the same host";
    *state = f;
    return 0;
}

static int set_up_plain(void **state)
{
    return set_up(state, NULL);
}

static int set_up_sealed(void **state)
{
    return set_up(state, "it");
}

static int tear_down(void **state)
{
    struct scene *f = *state;

    for (size_t i = 0; i < 2; i++) {
        for (size_t n = 0; n <= ROUNDS; n++)
            free(f->was[i][n].data);
        host_free(&f->hosts[i]);
    }
    storage_close(f->s);
    free(f);
    return 0;
}

static void put(struct host *h, size_t block, size_t which)
{
    memcpy(h->disks[0].data + block * BLOCK, pair[which], BLOCK);
}

static void back_up_one(struct scene *f, size_t vm, uint64_t sent, uint64_t fresh)
{
    struct backup b = { .passphrase = f->passphrase };

    assert_ok(back_up(f->s, &f->hosts[vm], &b, &f->e), &f->e);
    assert_in_range(b.number, 1, ROUNDS);
    assert_int_equal(b.walk.sent, sent);
    assert_int_equal(b.fresh, fresh * BLOCK);
    disk_copy(&f->was[vm][b.number], &f->hosts[vm].disks[0]);
}

/* No two generations hold the same by chance: each is right for one VM only. */
static void assert_all(struct scene *f)
{
    struct repo_generation_name *names;
    unsigned right[2] = { 0, 0 };
    struct repo *r;
    size_t count;

    assert_ok(open_repo(f->s, f->passphrase, NULL, REPO_SHARED, NULL, &r, &f->e), &f->e);
    assert_ok(repo_generation_names(r, &names, &count, &f->e), &f->e);
    assert_int_equal(count, 2 * ROUNDS);
    for (size_t i = 0; i < count; i++)
        for (size_t vm = 0; vm < 2; vm++) {
            int has = generation_has(r, &names[i].vm, names[i].number, "scsi0:0",
                                     &f->was[vm][names[i].number], &f->e);

            if (has < 0)
                fail_msg("%s", f->e.text);
            right[vm] += has == 1;
        }
    assert_int_equal(right[0], ROUNDS);
    assert_int_equal(right[1], ROUNDS);
    free(names);
    repo_close(r);
}

static void each_comes_back_as_it_was(void **state)
{
    struct scene *f = *state;

    /* Both on one disk, then the other way round on another VM: no new block, and none mixed up. */
    put(&f->hosts[0], 2, 0);
    put(&f->hosts[0], 5, 1);
    back_up_one(f, 0, 2, 2);
    put(&f->hosts[1], 2, 1);
    put(&f->hosts[1], 5, 0);
    put(&f->hosts[1], 6, 1);
    back_up_one(f, 1, 3, 0);
    /* One becomes the other at its place: that is a change. */
    put(&f->hosts[0], 2, 1);
    back_up_one(f, 0, 1, 0);
    put(&f->hosts[0], 2, 0);
    put(&f->hosts[0], 5, 0);
    back_up_one(f, 0, 2, 0);
    back_up_one(f, 0, 0, 0);
    put(&f->hosts[1], 6, 0);
    back_up_one(f, 1, 1, 0);
    put(&f->hosts[1], 0, 1);
    back_up_one(f, 1, 1, 0);
    back_up_one(f, 1, 0, 0);
    assert_all(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_comes_back_as_it_was, set_up_plain, tear_down),
        cmocka_unit_test_setup_teardown(each_comes_back_as_it_was, set_up_sealed, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
