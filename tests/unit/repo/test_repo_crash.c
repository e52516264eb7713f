/*
 * What a crash may leave, enumerated: a story of backups is recorded, cut after each of its steps,
 * and of what was not behind a barrier then any part is lost.  In every state the generations that
 * had been acknowledged restore, what is listed is whole, and the next backup works.
 */
#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "receiver/repo/repo_private.h"
#include "receiver/storage/storage_memory.h"
#include "receiver/storage/storage_record.h"
#include "tests/unit/repo/collect.h"


enum {
    TRUTHS_MAX = 128,
    STORIES = 6,
    CHAPTERS = 60,
    CONTENTS = 21, /* of blocks; as many as the disks have, so that some of them die */
    STATES_LEAST = 2000,
    ALL_UP_TO = 5, /* so many loose steps: every subset of them */
    SOME = 24,     /* else so many */
};

/* Under the address sanitizer every state costs ten times more. */
#ifdef __SANITIZE_ADDRESS__
enum { STRIDE = 7 };
#else
enum { STRIDE = 1 };
#endif

struct truth {
    struct disk disks[2];
    size_t acknowledged; /* entries of the log when it was */
    size_t forgotten;    /* and when it began to be forgotten; 0: never */
};

struct story {
    struct storage *s;
    struct host h;
    struct truth truths[TRUTHS_MAX]; /* by generation, from 1 */
    unsigned generations;
    size_t made; /* entries of the log when the repository had been made */
};

static void tell(struct story *t, struct backup b)
{
    struct truth *truth = &t->truths[t->generations + 1];
    struct err e;

    assert_ok(back_up(t->s, &t->h, &b, &e), &e);
    t->generations++;
    assert_int_equal(b.number, t->generations);
    for (size_t i = 0; i < 2; i++)
        disk_copy(&truth->disks[i], &t->h.disks[i]);
    truth->acknowledged = storage_record_count(t->s);
}

static void cut(struct story *t, uint64_t block)
{
    struct backup b = { .walk.stop_at = block };
    struct err e;

    assert_int_equal(back_up(t->s, &t->h, &b, &e), -1);
}

static void record(struct story *t)
{
    struct backup usual = { 0 };
    struct disk *a, *b;
    struct err e;

    host_new(&t->h);
    a = host_add(&t->h, "scsi0:0", UUID_A, 12 * BLOCK + 512);
    b = host_add(&t->h, "scsi0:1", UUID_B, 1030 * (uint64_t)BLOCK);
    disk_set(a, 0, 1);
    disk_set(a, 12, 2);
    disk_set(b, 5, 3);
    disk_set(b, 1029, 4);
    assert_ok(storage_record_new(&t->s, &e), &e);
    make_repo(t->s, NULL);
    t->made = storage_record_count(t->s);
    cut(t, 11);
    tell(t, usual);
    disk_set(a, 3, 5);
    disk_set(b, 1029, 0);
    tell(t, usual);
    disk_set(a, 4, 6);
    cut(t, 8);
    disk_set(a, 9, 7);
    cut(t, 12);
    disk_set(a, 4, 0);
    tell(t, usual);
    tell(t, usual);
    disk_set(b, 700, 8);
    tell(t, usual);
}

static uint64_t roll(uint64_t *seed, uint64_t sides)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (*seed >> 33) % sides;
}

static void forget_one(struct story *t, uint64_t *seed)
{
    uint64_t number = 1 + roll(seed, t->generations);
    struct truth *truth = &t->truths[number];
    struct repo_key vm;
    struct repo *r;
    struct err e;

    if (number == t->generations || truth->forgotten != 0)
        return;
    truth->forgotten = storage_record_count(t->s);
    assert_ok(open_repo(t->s, NULL, NULL, REPO_SHARED, &t->h, &r, &e), &e);
    vm = only_vm(r);
    assert_ok(repo_forget(r, &vm, number, &e), &e);
    repo_close(r);
}

/* Small disks, many runs, some of them cut, some without commit; some are forgotten, and now and
 * then what nothing needs is collected. */
static void record_at_random(struct story *t, uint64_t seed)
{
    struct err e;

    host_new(&t->h);
    host_add(&t->h, "scsi0:0", UUID_A, 12 * BLOCK + 512);
    host_add(&t->h, "scsi0:1", UUID_B, 9 * (uint64_t)BLOCK);
    assert_ok(storage_record_new(&t->s, &e), &e);
    make_repo(t->s, NULL);
    t->made = storage_record_count(t->s);
    for (unsigned i = 0; i < CHAPTERS; i++) {
        struct backup usual = { 0 }, dropped = { .stop_before_commit = true };
        unsigned removed;

        for (uint64_t n = roll(&seed, 4); n > 0; n--) {
            struct disk *d = &t->h.disks[roll(&seed, 2)];

            disk_set(d, roll(&seed, d->capacity / BLOCK), (unsigned)roll(&seed, CONTENTS));
        }
        if (roll(&seed, 4) == 0 && t->generations > 1)
            forget_one(t, &seed);
        if (roll(&seed, 9) == 0)
            assert_ok(collect(t->s, &t->h, &removed, &e), &e);
        if (roll(&seed, 8) == 0)
            cut(t, 2 + roll(&seed, 6));
        else if (roll(&seed, 8) == 0)
            assert_ok(back_up(t->s, &t->h, &dropped, &e), &e);
        else
            tell(t, usual);
    }
}

static void end_story(struct story *t)
{
    storage_close(t->s);
    for (unsigned g = 1; g <= t->generations; g++)
        for (size_t i = 0; i < 2; i++)
            free(t->truths[g].disks[i].data);
    host_free(&t->h);
}

/* The generation is there and what it was. */
static void check_generation(struct story *t, struct repo *r, const struct repo_key *vm,
                             uint64_t number, size_t count, uint64_t pick)
{
    struct err e = { ERR_NONE, 0, "" };

    assert_in_range(number, 1, t->generations);
    for (size_t i = 0; i < 2; i++) {
        const struct disk *d = &t->truths[number].disks[i];
        int has = generation_has(r, vm, number, d->slot, d, &e);

        if (has != 1)
            fail_msg("cut after step %zu, pick %llx: generation %d, %s: %s", count,
                     (unsigned long long)pick, (int)number, d->slot,
                     has < 0 ? e.text : "wrong content");
    }
}

static void check_listed(struct story *t, struct repo *r, size_t count, uint64_t pick)
{
    struct repo_generation_name *names;
    size_t listed, acknowledged = 0;
    struct err e;

    assert_ok(repo_generation_names(r, &names, &listed, &e), &e);
    /* All are there; the newest ones are looked into, and one of the others. */
    for (size_t i = 0; i < listed; i++)
        if (i + 3 >= listed || i == (count + pick) % listed)
            check_generation(t, r, &names[i].vm, names[i].number, count, pick);
    for (unsigned g = 1; g <= t->generations; g++)
        acknowledged += t->truths[g].acknowledged <= count &&
                        (t->truths[g].forgotten == 0 || count <= t->truths[g].forgotten);
    if (listed < acknowledged)
        fail_msg("cut after step %zu, pick %llx: %zu of %zu generations", count,
                 (unsigned long long)pick, listed, acknowledged);
    free(names);
}

static void check_state(struct story *t, size_t count, uint64_t pick, bool go_on)
{
    struct backup b = { 0 };
    struct storage *s;
    struct repo *r;
    struct err e;

    assert_ok(storage_record_after(t->s, count, pick, &s, &e), &e);
    if (open_repo(s, NULL, NULL, REPO_SHARED, &t->h, &r, &e) != 0) {
        /* Only before it was made may there be none. */
        if (count >= t->made || e.code != ERR_NOT_FOUND)
            fail_msg("cut after step %zu, pick %llx: %s", count, (unsigned long long)pick, e.text);
        storage_close(s);
        return;
    }
    check_listed(t, r, count, pick);
    repo_close(r);
    t->h.warnings[0] = 0;
    if (go_on) {
        assert_ok(back_up(s, &t->h, &b, &e), &e);
        assert_generation(s, &t->h, b.number, NULL);
    }
    storage_close(s);
}

/* All states of a story; how many. */
static size_t check_story(struct story *t, uint64_t seed)
{
    size_t steps = storage_record_count(t->s), states = 0;

    /* The next backup has all that ever was: whatever an index still offers must be there. */
    for (unsigned i = 0; i < CONTENTS; i++)
        disk_set(&t->h.disks[i < 12 ? 0 : 1], i < 12 ? i : i - 12, i + 1);
    for (size_t count = 0; count <= steps; count++) {
        size_t loose = storage_record_loose(t->s, count);
        uint64_t picks = loose <= ALL_UP_TO ? (uint64_t)1 << loose : SOME;

        for (uint64_t i = 0; i < picks; i++) {
            uint64_t pick = i;

            if (loose > ALL_UP_TO)
                pick = i == 0 ? 0 : i == 1 ? UINT64_MAX : roll(&seed, UINT64_MAX);
            if (++states % STRIDE == 0)
                check_state(t, count, pick, states % 3 == 0);
        }
    }
    return states;
}

static void every_state_after_a_crash_is_whole(void **state)
{
    struct story t = { 0 };
    size_t states;

    (void)state;
    record(&t);
    states = check_story(&t, 1);
    end_story(&t);
    for (uint64_t seed = 1; seed <= STORIES; seed++) {
        t = (struct story){ 0 };
        record_at_random(&t, seed);
        states += check_story(&t, seed);
        end_story(&t);
    }
    print_message("%zu states\n", states);
    assert_true(states >= STATES_LEAST);
}

/* The nth change fails, and all after it: an error, and nothing that was is lost. */
static void every_failing_step_leaves_all_or_nothing(void **state)
{
    struct story t = { 0 };

    (void)state;
    record(&t);
    for (uint64_t nth = 1; nth < 200; nth += STRIDE) {
        struct backup b = { 0 }, after = { 0 };
        struct storage *s;
        struct err e;
        int rc;

        assert_ok(storage_record_after(t.s, t.truths[2].acknowledged, UINT64_MAX, &s, &e), &e);
        storage_memory_fail(s, nth, nth % 2 ? ERR_SPACE : ERR_SOURCE);
        rc = back_up(s, &t.h, &b, &e);
        storage_memory_fail(s, 0, 0);
        if (rc != 0)
            assert_true(e.code == (nth % 2 ? ERR_SPACE : ERR_SOURCE) || e.code == ERR_SYSTEM);
        assert_ok(back_up(s, &t.h, &after, &e), &e);
        assert_generation(s, &t.h, after.number, NULL);
        /* Failing after the manifest was published leaves open whether it counts. */
        assert_in_range(after.number, rc == 0 ? 4 : 3, 4);
        storage_close(s);
        if (rc == 0 && after.stored == 0 && nth > 60)
            break;
    }
    end_story(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_after_a_crash_is_whole),
        cmocka_unit_test(every_failing_step_leaves_all_or_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
