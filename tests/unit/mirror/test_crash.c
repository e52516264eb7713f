/*
 * A process that dies, or a target that fills up, at any system call that changes files: the mirror
 * is the old generation or the new one, never a mix, and the next run brings it up to date.
 */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "tests/unit/mirror/fixture.h"

static const char UUID_C[] = "60 00 C2 93 00 00 00 00-00 00 00 00 00 00 00 0c";
static const char UUID_D[] = "60 00 C2 94 00 00 00 00-00 00 00 00 00 00 00 0d";

enum { STEPS_MAX = 2000 };

/* A fork under the address sanitizer costs a hundred times more: there every fifth step must do. */
#ifdef __SANITIZE_ADDRESS__
enum { STRIDE = 5 };
#else
enum { STRIDE = 1 };
#endif

/* What each generation must be. */
struct truth {
    struct disk disks[4][DISKS_MAX];
    size_t counts[4];
};

static void note_truth(struct truth *t, unsigned generation, const struct host *h)
{
    t->counts[generation] = h->count;
    for (size_t i = 0; i < h->count; i++)
        disk_copy(&t->disks[generation][i], &h->disks[i]);
}

static void truth_free(struct truth *t)
{
    for (unsigned g = 0; g < 4; g++)
        for (size_t i = 0; i < t->counts[g]; i++)
            free(t->disks[g][i].data);
}

/* Two disks that will change places, one that will go. */
static void before(struct host *h)
{
    struct disk *a = host_add(h, "scsi0:0", UUID_A, 10 * BLOCK + 512);
    struct disk *b = host_add(h, "scsi0:1", UUID_B, 8 * BLOCK);
    struct disk *c = host_add(h, "scsi0:2", UUID_C, 4 * BLOCK);

    disk_set(a, 0, 1);
    disk_set(a, 3, 2);
    disk_set(a, 4, 3);
    disk_set(a, 10, 4);
    disk_set(b, 1, 5);
    disk_set(b, 2, 6);
    disk_set(c, 0, 7);
}

/* Everything at once: changes, holes, growth, exchanged places, a disk that goes and one that
 * comes. */
static void after(struct host *h)
{
    struct disk *a = &h->disks[0], *b = &h->disks[1], *c = &h->disks[2];

    disk_set(a, 0, 11);
    disk_set(a, 3, 0);
    disk_set(a, 7, 12);
    disk_grow(a, 14 * BLOCK + 1024);
    disk_set(a, 13, 13);
    disk_set(b, 2, 14);
    disk_set(b, 6, 15);
    snprintf(a->slot, sizeof a->slot, "scsi0:1");
    snprintf(b->slot, sizeof b->slot, "scsi0:0");
    free(c->data);
    h->count--;
    disk_set(host_add(h, "scsi0:3", UUID_D, 6 * BLOCK), 2, 16);
}

static void file_of(const struct disk *d, char out[64])
{
    snprintf(out, 64, "disk-%s.raw", d->slot);
    *strchr(out, ':') = '-';
}

static bool folder_is(const char *folder, const struct truth *t, unsigned generation)
{
    for (size_t i = 0; i < t->counts[generation]; i++) {
        char file[64];

        file_of(&t->disks[generation][i], file);
        if (!image_is(folder, file, &t->disks[generation][i]))
            return false;
    }
    return true;
}

/* The number of the newest generation, after any command has opened the mirror; 0: no mirror. */
static uint64_t newest(struct host *h)
{
    struct mirror_list *l = NULL;
    uint64_t number = 0;
    struct err e;

    if (mirror_list_load(&l, h->place, &h->env, &e) != 0) {
        assert_int_equal(e.code, ERR_NOT_FOUND);
        return 0;
    }
    assert_int_equal(mirror_list_problem_count(l), 0);
    for (size_t i = 0; i < mirror_list_count(l); i++)
        number = max_u64(number, mirror_list_at(l, i)->number);
    mirror_list_free(l);
    return number;
}

static void must_be_sound(struct host *h, const struct truth *t, uint64_t number, unsigned long nth)
{
    struct problems p;
    struct err e;

    if (!folder_is(in_mirror(h, "web01", ""), t, (unsigned)number))
        fail_msg("killed at %lu: the images are not those of generation %lu", nth,
                 (unsigned long)number);
    assert_int_equal(access(in_mirror(h, "web01", "REFRESH-INTERRUPTED"), F_OK), -1);
    if (check_mirror(h, "web01", true, &p, &e) != 0)
        fail_msg("killed at %lu: %s: %s", nth, p.object, p.text);
    for (uint64_t g = 1; g <= number; g++) {
        char gen[32], out[128];

        snprintf(gen, sizeof gen, "web01@%lu", (unsigned long)g);
        assert_ok(restore_gen(h, gen, out, &e), &e);
        if (!folder_is(out, t, (unsigned)g))
            fail_msg("killed at %lu: generation %lu is wrong", nth, (unsigned long)g);
    }
}

/* One refresh that is hit at its nth step; false when it never got there. */
static bool hit_refresh(unsigned long nth, enum fault_kind kind, int os)
{
    struct truth t = { 0 };
    struct host h;
    uint64_t number;
    int status;

    host_new(&h);
    h.keep = 3;
    before(&h);
    note_truth(&t, 1, &h);
    assert_int_equal(host_run_forked(&h, 0, kind, 0), 0);
    after(&h);
    note_truth(&t, 2, &h);
    h.time += 3600;
    status = host_run_forked(&h, nth, kind, os);
    if (access(in_mirror(&h, "web01", ".vmferry/commit"), F_OK) == 0)
        assert_int_equal(access(in_mirror(&h, "web01", "REFRESH-INTERRUPTED"), F_OK), 0);
    if (status != 42 && nth % 2 == 0) {
        /* Straight on to the next run: it brings the disks up to date whatever it finds. */
        note_truth(&t, 3, &h);
        assert_int_equal(host_run_forked(&h, 0, kind, 0), 0);
        number = newest(&h);
        assert_true(number == 2 || number == 3);
        must_be_sound(&h, &t, number, nth);
        goto out;
    }
    if (status != 42) {
        assert_int_equal(status == 0 || status == (kind == FAULT_KILL ? 99 : 1), true);
        number = newest(&h);
        assert_true(number == 1 || number == 2);
        /* A run that says that it was good has made its generation. */
        if (status == 0)
            assert_int_equal(number, 2);
        must_be_sound(&h, &t, number, nth);
    }
    if (newest(&h) == 1)
        assert_int_equal(host_run_forked(&h, 0, kind, 0), 0);
    assert_int_equal(newest(&h), 2);
    must_be_sound(&h, &t, 2, nth);

out:
    truth_free(&t);
    host_free(&h);
    return status != 42;
}

static void a_refresh_killed_at_any_step_is_old_or_new(void **state)
{
    unsigned long nth = 1;

    (void)state;
    while (nth < STEPS_MAX && hit_refresh(nth, FAULT_KILL, 0))
        nth += STRIDE;
    assert_true(nth > 100 && nth < STEPS_MAX);
}

static void a_full_target_at_any_step_is_old_or_new(void **state)
{
    unsigned long nth = 1;

    (void)state;
    while (nth < STEPS_MAX && hit_refresh(nth, FAULT_ERROR, ENOSPC))
        nth += 3 * STRIDE;
    assert_true(nth > 100 && nth < STEPS_MAX);
}

static bool hit_first(unsigned long nth, enum fault_kind kind, int os)
{
    struct truth t = { 0 };
    struct host h;
    uint64_t number;
    int status;

    host_new(&h);
    before(&h);
    note_truth(&t, 1, &h);
    status = host_run_forked(&h, nth, kind, os);
    if (status != 42) {
        number = newest(&h);
        assert_true(number <= 1);
        if (status == 0)
            assert_int_equal(number, 1);
        if (number == 1)
            must_be_sound(&h, &t, 1, nth);
        /* The guest goes on: what was left of the first run must not show through. */
        truth_free(&t);
        disk_set(&h.disks[0], 3, 0);
        disk_set(&h.disks[0], 5, 40);
        disk_set(&h.disks[1], 2, 41);
        note_truth(&t, 1, &h);
    }
    /* The next run makes it whole; when the first had only the rename left, it is its refresh. */
    assert_int_equal(host_run_forked(&h, 0, kind, 0), 0);
    number = newest(&h);
    assert_true(number == 1 || number == 2);
    assert_true(folder_is(in_mirror(&h, "web01", ""), &t, 1));
    truth_free(&t);
    host_free(&h);
    return status != 42;
}

static void a_first_mirror_killed_at_any_step_is_absent_or_whole(void **state)
{
    unsigned long nth = 1;

    (void)state;
    while (nth < STEPS_MAX && hit_first(nth, FAULT_KILL, 0))
        nth += STRIDE;
    assert_true(nth > 50 && nth < STEPS_MAX);
    nth = 1;
    while (nth < STEPS_MAX && hit_first(nth, FAULT_ERROR, ENOSPC))
        nth += 3 * STRIDE;
    assert_true(nth > 50 && nth < STEPS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refresh_killed_at_any_step_is_old_or_new),
        cmocka_unit_test(a_full_target_at_any_step_is_old_or_new),
        cmocka_unit_test(a_first_mirror_killed_at_any_step_is_absent_or_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
