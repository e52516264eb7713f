/*
 * A directory storage over power cuts at every call: an object is whole or absent at any moment,
 * and what lay behind a barrier is as it was; so a repository in it keeps its promises.
 */
#include "tests/unit/cmocka_all.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "receiver/storage/storage.h"
#include "receiver/storage/storage_directory.h"
#include "tests/unit/storage/power.h"

enum { OBJECTS = 12, OBJECT_BYTES = 5000, SEEDS = 6 };

#ifdef __SANITIZE_ADDRESS__
enum { STEP = 3 };
#else
enum { STEP = 1 };
#endif

/* What the story has been told of each object. */
enum told { NEVER, MAYBE, SURELY, SURELY_GONE };

struct story {
    char dir[64], folder[96], aside[96];
    struct storage *s;
    enum told told[OBJECTS];
    unsigned long barriers;
};

static void check(int rc, const struct err *e)
{
    if (rc != 0)
        fail_msg("%s", e->text);
}

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *f)
{
    (void)s;
    (void)kind;
    (void)f;
    return remove(path);
}

static void begin(struct story *t)
{
    struct err e;

    memset(t, 0, sizeof *t);
    snprintf(t->dir, sizeof t->dir, "%s/vmferry-power-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(t->dir));
    snprintf(t->folder, sizeof t->folder, "%s/store", t->dir);
    snprintf(t->aside, sizeof t->aside, "%s/aside", t->dir);
    assert_int_equal(mkdir(t->aside, 0700), 0);
    check(storage_directory_create(&t->s, t->folder, &e), &e);
    power_on(t->folder, t->aside);
}

static void name_of(char out[32], unsigned object)
{
    snprintf(out, 32, "packs/%02x/%u", object % 3, object);
}

static void content_of(uint8_t out[OBJECT_BYTES], unsigned object)
{
    for (size_t i = 0; i < OBJECT_BYTES; i++)
        out[i] = (uint8_t)(i * (object + 3) >> 3 | 1);
}

/* Objects come in two writes each, batches end with a barrier, some go again. */
static void tell(struct story *t)
{
    uint8_t content[OBJECT_BYTES];
    char name[32];
    struct err e;

    for (unsigned i = 0; i < OBJECTS; i++) {
        struct storage_upload *u;

        name_of(name, i);
        content_of(content, i);
        if (storage_begin(t->s, name, &u, &e) != 0)
            return;
        if (storage_write(u, content, 3000, &e) != 0 ||
            storage_write(u, content + 3000, OBJECT_BYTES - 3000, &e) != 0) {
            storage_drop(u);
            return;
        }
        t->told[i] = MAYBE;
        if (storage_publish(u, &e) != 0)
            return;
        if (i % 4 == 1) {
            name_of(name, i - 1);
            if (t->told[i - 1] == SURELY)
                t->told[i - 1] = MAYBE;
            if (storage_remove(t->s, name, &e) != 0)
                return;
        }
        if (i % 3 != 2)
            continue;
        if (storage_barrier(t->s, &e) != 0)
            return;
        t->barriers++;
        for (unsigned k = 0; k <= i; k++)
            t->told[k] = k % 4 == 0 && k + 1 <= i ? SURELY_GONE : SURELY;
    }
}

static void check_object(struct story *t, unsigned object, unsigned long at, uint64_t seed)
{
    uint8_t content[OBJECT_BYTES], got[OBJECT_BYTES];
    uint64_t size;
    char name[32];
    bool there;
    struct err e;

    name_of(name, object);
    there = storage_size(t->s, name, &size, &e) == 0;
    if (!there)
        assert_int_equal(e.code, ERR_NOT_FOUND);
    if ((t->told[object] == SURELY && !there) ||
        ((t->told[object] == SURELY_GONE || t->told[object] == NEVER) && there))
        fail_msg("cut at call %lu, seed %d: %s is %s", at, (int)seed, name,
                 there ? "there" : "not there");
    if (!there)
        return;
    content_of(content, object);
    if (size != OBJECT_BYTES || storage_read(t->s, name, 0, got, sizeof got, &e) != 0 ||
        memcmp(got, content, sizeof got) != 0)
        fail_msg("cut at call %lu, seed %d: %s is torn", at, (int)seed, name);
}

static void end(struct story *t)
{
    storage_close(t->s);
    nftw(t->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void objects_are_whole_or_absent_after_a_power_cut(void **state)
{
    unsigned long calls, cuts = 0;
    struct story t;
    struct err e;

    (void)state;
    begin(&t);
    tell(&t);
    assert_int_equal(t.barriers, OBJECTS / 3);
    calls = power_calls();
    power_cut(0);
    end(&t);
    for (unsigned long at = 0; at <= calls; at += STEP)
        for (uint64_t seed = 1; seed <= SEEDS; seed++, cuts++) {
            begin(&t);
            power_limit(at);
            tell(&t);
            storage_close(t.s);
            power_cut(seed * 77 + at);
            check(storage_directory_open(&t.s, t.folder, &e), &e);
            check(storage_sweep(t.s, &e), &e);
            for (unsigned i = 0; i < OBJECTS; i++)
                check_object(&t, i, at, seed);
            end(&t);
        }
    print_message("%lu calls, %lu cuts\n", calls, cuts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_whole_or_absent_after_a_power_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
