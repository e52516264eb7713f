/* A repository in a folder, whose process is killed or whose disk is full at any system call. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "receiver/storage/storage_directory.h"
#include "tests/unit/repo/fixture.h"


#ifdef __SANITIZE_ADDRESS__
enum { STRIDE = 5 };
#else
enum { STRIDE = 1 };
#endif

enum { STEPS_MAX = 400 };

struct scene {
    struct host h;
    char path[128], cache[128];
    struct disk first, second;
    struct err e;
};

/* A folder with one generation; the disk has changed since. */
static void begin(struct scene *f)
{
    struct backup b = { 0 };
    struct storage *s;
    struct disk *d;

    host_new(&f->h);
    snprintf(f->path, sizeof f->path, "%s/repo", f->h.dir);
    snprintf(f->cache, sizeof f->cache, "%s/cache", f->h.dir);
    d = host_add(&f->h, "scsi0:0", UUID_A, 6 * BLOCK);
    disk_set(d, 0, 1);
    disk_set(d, 4, 2);
    assert_ok(storage_directory_create(&s, f->path, &f->e), &f->e);
    make_repo(s, NULL);
    assert_ok(storage_remove(s, "reserve", &f->e), &f->e); /* 64 MiB for every step */
    assert_ok(back_up(s, &f->h, &b, &f->e), &f->e);
    storage_close(s);
    disk_copy(&f->first, d);
    disk_set(d, 1, 3);
    disk_set(d, 4, 0);
    disk_copy(&f->second, d);
}

static void end(struct scene *f)
{
    free(f->first.data);
    free(f->second.data);
    host_free(&f->h);
}

/* A backup in a process of its own: 0 done, 1 failed, 99 killed. */
static int back_up_forked(struct scene *f, unsigned long nth, enum fault_kind kind)
{
    struct backup b = { .cache_dir = f->cache };
    struct storage *s;
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        int rc = 1;

        fault_arm(nth, kind, ENOSPC, true);
        if (storage_directory_open(&s, f->path, &f->e) == 0 && back_up(s, &f->h, &b, &f->e) == 0)
            rc = 0;
        fault_disarm();
        _exit(rc != 0 && f->e.code == ERR_SPACE ? 8 : rc);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int has(struct scene *f, uint64_t number, const struct disk *d)
{
    struct storage *s;
    struct repo_key vm;
    struct repo *r;
    int rc;

    assert_ok(storage_directory_open(&s, f->path, &f->e), &f->e);
    assert_ok(open_repo(s, NULL, f->cache, REPO_SHARED, &f->h, &r, &f->e), &f->e);
    vm = only_vm(r);
    rc = generation_has(r, &vm, number, "scsi0:0", d, &f->e);
    repo_close(r);
    storage_close(s);
    return rc;
}

/* Every step in turn; returns how many there are. */
static unsigned long try_all(enum fault_kind kind, int expected)
{
    unsigned long nth = 1, seen = 0;

    for (;; nth += STRIDE) {
        struct scene f;
        struct backup b = { 0 };
        struct storage *s;
        int rc, second;

        assert_true(nth < STEPS_MAX);
        begin(&f);
        b.cache_dir = f.cache;
        rc = back_up_forked(&f, nth, kind);
        assert_true(rc == 0 || rc == expected);
        assert_int_equal(has(&f, 1, &f.first), 1);
        second = has(&f, 2, &f.second);
        if (second < 0)
            assert_int_equal(f.e.code, ERR_NOT_FOUND);
        assert_true(second != 0 && (rc != 0 || second == 1));
        seen += second < 0;
        /* The next one sweeps up and goes on. */
        assert_ok(storage_directory_open(&s, f.path, &f.e), &f.e);
        assert_ok(storage_sweep(s, &f.e), &f.e);
        assert_ok(back_up(s, &f.h, &b, &f.e), &f.e);
        assert_int_equal(b.number, second == 1 ? 3 : 2);
        storage_close(s);
        assert_int_equal(has(&f, b.number, &f.second), 1);
        end(&f);
        if (rc == 0)
            break;
    }
    assert_true(seen * STRIDE > 15);
    return nth;
}

static void a_kill_at_any_step_leaves_whole_generations(void **state)
{
    (void)state;
    print_message("%lu steps\n", try_all(FAULT_KILL, 99));
}

static void a_full_disk_at_any_step_leaves_whole_generations(void **state)
{
    (void)state;
    print_message("%lu steps\n", try_all(FAULT_ERROR, 8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_at_any_step_leaves_whole_generations),
        cmocka_unit_test(a_full_disk_at_any_step_leaves_whole_generations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
