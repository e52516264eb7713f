/* The contract of storage.h, kept by the directory and by memory alike; then what only a directory
 * can do wrong. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/storage/storage.h"
#include "receiver/storage/storage_directory.h"
#include "receiver/storage/storage_memory.h"
#include "tests/unit/mirror/fixture.h"

struct fixture {
    struct host h; /* for its folder */
    char path[128];
    struct storage *s;
    struct err e;
};

static struct fixture *new_fixture(void)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    host_new(&f->h);
    snprintf(f->path, sizeof f->path, "%s/store", f->h.dir);
    return f;
}

static int set_up_directory(void **state)
{
    struct fixture *f = new_fixture();

    assert_ok(storage_directory_create(&f->s, f->path, &f->e), &f->e);
    *state = f;
    return 0;
}

static int set_up_memory(void **state)
{
    struct fixture *f = new_fixture();

    assert_ok(storage_memory_new(&f->s, &f->e), &f->e);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    storage_close(f->s);
    host_free(&f->h);
    free(f);
    return 0;
}

static void put(struct fixture *f, const char *name, const char *text)
{
    assert_ok(storage_put(f->s, name, text, strlen(text), &f->e), &f->e);
}

/* All names with the prefix, each with a blank behind it. */
static const char *listed(struct fixture *f, const char *prefix)
{
    static char out[1000];
    struct storage_list *list;
    struct storage_item item;
    int more;

    out[0] = 0;
    assert_ok(storage_list(f->s, prefix, &list, &f->e), &f->e);
    while ((more = storage_next(list, &item, &f->e)) > 0)
        snprintf(out + strlen(out), 200, "%s:%d ", item.name, (int)item.size_bytes);
    assert_int_equal(more, 0);
    storage_list_end(list);
    return out;
}

static void objects_are_put_read_listed_and_removed(void **state)
{
    struct fixture *f = *state;
    struct bytes b = { 0 };
    uint64_t size;
    char got[8];

    assert_string_equal(listed(f, ""), "");
    put(f, "config", "abc");
    put(f, "packs/ab/one", "0123456789");
    put(f, "packs/aa/two", "");
    put(f, "packs/ab/one-more", "x");
    assert_ok(storage_barrier(f->s, &f->e), &f->e);
    assert_string_equal(listed(f, ""),
                        "config:3 packs/aa/two:0 packs/ab/one:10 packs/ab/one-more:1 ");
    assert_string_equal(listed(f, "packs/"), "packs/aa/two:0 packs/ab/one:10 packs/ab/one-more:1 ");
    assert_string_equal(listed(f, "packs/ab/one"), "packs/ab/one:10 packs/ab/one-more:1 ");
    assert_string_equal(listed(f, "nothing/"), "");
    assert_ok(storage_read(f->s, "packs/ab/one", 3, got, 4, &f->e), &f->e);
    assert_memory_equal(got, "3456", 4);
    assert_ok(storage_size(f->s, "packs/ab/one", &size, &f->e), &f->e);
    assert_int_equal(size, 10);
    assert_ok(storage_load(f->s, "config", &b, 3, &f->e), &f->e);
    assert_memory_equal(b.data, "abc", 3);
    assert_int_equal(storage_load(f->s, "config", &b, 2, &f->e), -1);
    assert_int_equal(f->e.code, ERR_LIMIT);
    bytes_free(&b);
    assert_int_equal(storage_read(f->s, "packs/ab/one", 8, got, 3, &f->e), -1);
    assert_int_equal(f->e.code, ERR_CORRUPT);
    assert_int_equal(storage_read(f->s, "packs/ab/one", UINT64_MAX, got, 3, &f->e), -1);
    assert_int_equal(f->e.code, ERR_CORRUPT);
    assert_int_equal(storage_read(f->s, "packs/zz/one", 0, got, 1, &f->e), -1);
    assert_int_equal(f->e.code, ERR_NOT_FOUND);

    assert_ok(storage_remove(f->s, "packs/ab/one", &f->e), &f->e);
    assert_ok(storage_remove(f->s, "packs/ab/one", &f->e), &f->e);
    assert_ok(storage_remove(f->s, "gone/ab/one", &f->e), &f->e);
    assert_ok(storage_barrier(f->s, &f->e), &f->e);
    assert_string_equal(listed(f, "packs/ab/"), "packs/ab/one-more:1 ");
}

/* More objects than a directory keeps open, each read twice, before and after another took its
 * name. */
static void a_name_taken_again_reads_as_what_it_is_now(void **state)
{
    enum { OBJECTS = 40 };
    struct fixture *f = *state;
    char name[32], text[32], got[32];

    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < OBJECTS; i++) {
            snprintf(name, sizeof name, "many/%02u", i);
            snprintf(text, sizeof text, "round %u of %02u", round, i);
            put(f, name, text);
        }
        for (unsigned i = 0; i < 2 * OBJECTS; i++) {
            snprintf(name, sizeof name, "many/%02u", i / 2);
            snprintf(text, sizeof text, "round %u of %02u", round, i / 2);
            assert_ok(storage_read(f->s, name, 0, got, strlen(text), &f->e), &f->e);
            assert_memory_equal(got, text, strlen(text));
        }
        for (unsigned i = 0; i < OBJECTS; i++) {
            snprintf(name, sizeof name, "many/%02u", i);
            assert_ok(storage_remove(f->s, name, &f->e), &f->e);
            assert_int_equal(storage_read(f->s, name, 0, got, 1, &f->e), -1);
            assert_int_equal(f->e.code, ERR_NOT_FOUND);
        }
    }
}

static void an_object_is_never_replaced(void **state)
{
    struct fixture *f = *state;
    struct storage_upload *u;

    put(f, "a/b", "first");
    assert_ok(storage_begin(f->s, "a/b", &u, &f->e), &f->e);
    assert_ok(storage_write(u, "second", 6, &f->e), &f->e);
    assert_string_equal(listed(f, ""), "a/b:5 ");
    assert_int_equal(storage_publish(u, &f->e), -1);
    assert_int_equal(f->e.code, ERR_REFUSED);
    assert_int_equal(f->e.os, EEXIST);
    assert_string_equal(listed(f, ""), "a/b:5 ");
    assert_ok(storage_begin(f->s, "a/c", &u, &f->e), &f->e);
    storage_drop(u);
    assert_string_equal(listed(f, ""), "a/b:5 ");
}

static void names_are_checked(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = { "",     "/a", "a/",  "a//b", "../a", "a/../b", ".a",
                                       "a/.b", "A",  "a b", "a\n",  "\xc3", "a\\b",   "." };
    char longest[STORAGE_NAME_ROOM + 1];

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(storage_put(f->s, bad[i], "", 0, &f->e), -1);
        assert_int_equal(f->e.code, ERR_USAGE);
    }
    memset(longest, 'a', sizeof longest);
    longest[STORAGE_NAME_MAX + 1] = 0;
    assert_int_equal(storage_put(f->s, longest, "", 0, &f->e), -1);
    longest[STORAGE_NAME_MAX] = 0;
    put(f, longest, "x");
}

struct waiter {
    struct fixture *f;
    struct storage_lock *lock;
    int rc;
    struct err e;
};

static void *wait_exclusively(void *context)
{
    struct waiter *w = context;

    w->rc = storage_lock_take(w->f->s, "it", LOCK_EXCLUSIVE, 20000, NULL, &w->lock, &w->e);
    return NULL;
}

static void who_waits_for_all_goes_before_new_ones(void **state)
{
    struct fixture *f = *state;
    struct waiter w = { .f = f };
    struct storage_lock *a, *b, *c = NULL;
    pthread_t thread;
    int rc;

    assert_ok(storage_lock_take(f->s, "it", LOCK_SHARED, 0, NULL, &a, &f->e), &f->e);
    assert_ok(storage_lock_take(f->s, "it", LOCK_SHARED, 0, NULL, &b, &f->e), &f->e);
    assert_int_equal(storage_lock_take(f->s, "it", LOCK_EXCLUSIVE, 0, NULL, &c, &f->e), -1);
    assert_int_equal(f->e.code, ERR_BUSY);
    assert_ok(storage_lock_proof(a, &f->e), &f->e);
    assert_int_equal(pthread_create(&thread, NULL, wait_exclusively, &w), 0);
    /* Sooner or later it waits, and nobody new comes in. */
    do {
        rc = storage_lock_take(f->s, "it", LOCK_SHARED, 0, NULL, &c, &f->e);
        if (rc == 0)
            storage_lock_release(c);
    } while (rc == 0);
    assert_int_equal(f->e.code, ERR_BUSY);
    storage_lock_release(a);
    storage_lock_release(b);
    pthread_join(thread, NULL);
    assert_ok(w.rc, &w.e);
    assert_int_equal(storage_lock_take(f->s, "it", LOCK_SHARED, 0, NULL, &c, &f->e), -1);
    storage_lock_release(w.lock);
    assert_ok(storage_lock_take(f->s, "it", LOCK_SHARED, 0, NULL, &c, &f->e), &f->e);
    storage_lock_release(c);
    assert_string_equal(listed(f, ""), ""); /* locks are no objects */
}

/* --- only of directories --- */

static void what_is_no_object_is_not_listed(void **state)
{
    struct fixture *f = *state;
    char path[256];
    int fd;

    put(f, "packs/ab/one", "1");
    snprintf(path, sizeof path, "%s/packs/ab/link", f->path);
    assert_int_equal(symlink("one", path), 0);
    snprintf(path, sizeof path, "%s/packs/ab/.hidden", f->path);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
    snprintf(path, sizeof path, "%s/elsewhere", f->path);
    assert_int_equal(symlink("packs", path), 0);
    assert_string_equal(listed(f, ""), "packs/ab/one:1 ");
    assert_int_equal(storage_read(f->s, "elsewhere/ab/one", 0, path, 1, &f->e), -1);
    assert_int_equal(storage_read(f->s, "packs/ab/link", 0, path, 1, &f->e), -1);
}

static void a_folder_that_vanished_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct storage_list *list;
    struct storage_upload *u;
    uint64_t size;

    assert_int_equal(rmdir(f->path), 0);
    assert_int_equal(storage_begin(f->s, "packs/aa/x", &u, &f->e), -1);
    assert_int_equal(storage_list(f->s, "packs/", &list, &f->e), -1);
    assert_int_equal(f->e.code, ERR_NOT_FOUND);
    assert_int_equal(storage_size(f->s, "config", &size, &f->e), -1);
    assert_int_equal(storage_remove(f->s, "config", &f->e), -1);
    assert_int_equal(access(f->path, F_OK), -1);
}

static void sweeping_takes_the_remains_of_dead_uploads(void **state)
{
    struct fixture *f = *state;
    struct storage_upload *u;
    char path[256];
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        if (storage_begin(f->s, "packs/aa/x", &u, &f->e) == 0)
            (void)storage_write(u, "half", 4, &f->e);
        _exit(0); /* as if killed */
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    snprintf(path, sizeof path, "%s/packs/aa", f->path);
    assert_string_equal(listed(f, ""), "");
    assert_int_equal(rmdir(path), -1); /* there is something */
    assert_ok(storage_sweep(f->s, &f->e), &f->e);
    assert_int_equal(rmdir(path), 0);
}

static void a_new_one_wants_an_empty_folder(void **state)
{
    struct fixture *f = *state;
    struct storage *s;
    char path[256];

    put(f, "x", "1");
    assert_int_equal(storage_directory_create(&s, f->path, &f->e), -1);
    assert_int_equal(f->e.code, ERR_REFUSED);
    snprintf(path, sizeof path, "%s/none/deeper", f->path);
    assert_int_equal(storage_directory_create(&s, path, &f->e), -1);
    assert_int_equal(f->e.code, ERR_NOT_FOUND);
    snprintf(path, sizeof path, "%s/x", f->path);
    assert_int_equal(storage_directory_open(&s, path, &f->e), -1);
    assert_int_equal(f->e.code, ERR_USAGE);
}

/* Every call that changes files fails once, or from then on: whole or absent, and no lies about
 * durability. */
static void every_fault_leaves_all_or_nothing(void **state)
{
    struct fixture *f = *state;

    for (unsigned long nth = 1;; nth++) {
        bool for_ever = nth % 2 == 0;
        char name[32], got[3];
        uint64_t size;
        int rc;

        snprintf(name, sizeof name, "n/%02lx/object", nth);
        fault_arm(nth, FAULT_ERROR, EIO, for_ever);
        rc = storage_put(f->s, name, "abc", 3, &f->e);
        if (rc == 0)
            rc = storage_barrier(f->s, &f->e);
        fault_disarm();
        if (!fault_fired()) {
            assert_int_equal(rc, 0);
            break;
        }
        assert_int_equal(rc, -1);
        if (storage_size(f->s, name, &size, &f->e) == 0) {
            assert_ok(storage_read(f->s, name, 0, got, 3, &f->e), &f->e);
            assert_int_equal(size, 3);
        }
        /* A barrier that failed is no barrier the next time either: open anew. */
        storage_close(f->s);
        assert_ok(storage_directory_open(&f->s, f->path, &f->e), &f->e);
        assert_ok(storage_sweep(f->s, &f->e), &f->e);
    }
    assert_null(strstr(listed(f, "n/"), "tmp"));
}

static void a_failed_barrier_is_never_believed_again(void **state)
{
    struct fixture *f = *state;

    put(f, "a/x", "1");
    fault_arm(1, FAULT_ERROR, EIO, false);
    assert_int_equal(storage_barrier(f->s, &f->e), -1);
    fault_disarm();
    assert_int_equal(f->e.code, ERR_SYSTEM);
    assert_int_equal(storage_barrier(f->s, &f->e), -1);
}

#define BOTH(test)                                                                                 \
    cmocka_unit_test_setup_teardown(test, set_up_directory, tear_down),                            \
        cmocka_unit_test_setup_teardown(test, set_up_memory, tear_down)
#define DIRECTORY(test) cmocka_unit_test_setup_teardown(test, set_up_directory, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(objects_are_put_read_listed_and_removed),
        BOTH(a_name_taken_again_reads_as_what_it_is_now),
        BOTH(an_object_is_never_replaced),
        BOTH(names_are_checked),
        BOTH(who_waits_for_all_goes_before_new_ones),
        DIRECTORY(what_is_no_object_is_not_listed),
        DIRECTORY(a_folder_that_vanished_is_an_error),
        DIRECTORY(sweeping_takes_the_remains_of_dead_uploads),
        DIRECTORY(a_new_one_wants_an_empty_folder),
        DIRECTORY(every_fault_leaves_all_or_nothing),
        DIRECTORY(a_failed_barrier_is_never_believed_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
