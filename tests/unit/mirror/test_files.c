/* receiver/base: publishing files, locks, safe names. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "receiver/base/lock.h"
#include "receiver/base/names.h"
#include "receiver/base/publish.h"
#include "tests/unit/mirror/fixture.h"

struct place {
    char path[64];
    int dir;
};

static int setup(void **state)
{
    struct place *p = malloc(sizeof *p);

    snprintf(p->path, sizeof p->path, "/tmp/vmferry-files-XXXXXX");
    assert_non_null(mkdtemp(p->path));
    p->dir = open(p->path, O_RDONLY | O_DIRECTORY);
    assert_true(p->dir >= 0);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    char command[100];

    close(p->dir);
    snprintf(command, sizeof command, "rm -r %s", p->path);
    assert_int_equal(system(command), 0);
    free(p);
    return 0;
}

static void must_contain(int dir, const char *name, const char *text)
{
    char b[64] = { 0 };
    int fd = openat(dir, name, O_RDONLY);

    assert_true(fd >= 0);
    assert_true(read(fd, b, sizeof b - 1) >= 0);
    close(fd);
    assert_string_equal(b, text);
}

static void new_never_replaces_and_replace_does(void **state)
{
    struct place *p = *state;
    struct stat s;
    struct err e;

    umask(0);
    assert_ok(publish_bytes(p->dir, "a", "one", 3, 0640, PUBLISH_NEW, &e), &e);
    assert_int_equal(fstatat(p->dir, "a", &s, 0), 0);
    assert_int_equal(s.st_mode & 07777, 0640);
    assert_int_equal(publish_bytes(p->dir, "a", "two", 3, 0600, PUBLISH_NEW, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    assert_int_equal(e.os, EEXIST);
    must_contain(p->dir, "a", "one");
    assert_ok(publish_bytes(p->dir, "a", "three", 5, 0600, PUBLISH_REPLACE, &e), &e);
    must_contain(p->dir, "a", "three");
    assert_ok(publish_remove(p->dir, "a", &e), &e);
    assert_ok(publish_remove(p->dir, "a", &e), &e);
}

static void a_file_of_another_length_is_not_published(void **state)
{
    struct place *p = *state;
    struct publish f;
    struct err e;

    assert_ok(publish_begin(&f, p->dir, 0600, &e), &e);
    assert_int_equal(write(f.fd, "abc", 3), 3);
    assert_int_equal(publish_commit(&f, "x", 4, PUBLISH_NEW, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_int_equal(faccessat(p->dir, "x", F_OK, 0), -1);
    publish_drop(&f);
}

static int count_entry(const struct place *p)
{
    char command[100];
    FILE *f;
    int n = -1;

    snprintf(command, sizeof command, "ls -A %s | wc -l", p->path);
    f = popen(command, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &n), 1);
    pclose(f);
    return n;
}

/* The old content or the new, whatever call fails, and nothing else in the folder. */
static void every_fault_leaves_all_or_nothing(void **state)
{
    struct place *p = *state;
    struct err e;

    for (unsigned long nth = 1;; nth++) {
        int rc;
        bool fired;

        assert_ok(publish_bytes(p->dir, "f", "old", 3, 0600, PUBLISH_REPLACE, &e), &e);
        fault_arm(nth, FAULT_ERROR, EIO, false);
        rc = publish_bytes(p->dir, "f", "new!", 4, 0600, PUBLISH_REPLACE, &e);
        fired = fault_fired();
        fault_disarm();
        assert_int_equal(rc, fired ? -1 : 0);
        if (!fired) {
            assert_true(nth > 4);
            break;
        }
        assert_int_equal(e.code, ERR_SYSTEM);
        assert_int_equal(count_entry(p), 1);
        /* Only the fsync of the folder comes after the rename. */
        if (nth < 5)
            must_contain(p->dir, "f", "old");
    }
}

static void a_sweep_takes_only_our_temporaries(void **state)
{
    struct place *p = *state;
    struct err e;

    assert_ok(publish_bytes(p->dir, ".vmferry-tmp-0123456789abcdef", "", 0, 0600, PUBLISH_NEW, &e),
              &e);
    assert_ok(publish_bytes(p->dir, ".vmferry-tmp-0123456789abcdeX", "", 0, 0600, PUBLISH_NEW, &e),
              &e);
    assert_ok(publish_bytes(p->dir, "vmferry-tmp-0123456789abcdef", "", 0, 0600, PUBLISH_NEW, &e),
              &e);
    assert_ok(publish_sweep(p->dir, &e), &e);
    assert_int_equal(count_entry(p), 2);
}

static void folders_are_renamed_without_replacing(void **state)
{
    struct place *p = *state;
    bool made;
    struct err e;

    assert_ok(publish_directory(p->dir, "d", 0700, &made, &e), &e);
    assert_true(made);
    assert_ok(publish_directory(p->dir, "d", 0700, &made, &e), &e);
    assert_false(made);
    assert_int_equal(publish_directory(p->dir, "d", 0700, NULL, &e), -1);
    assert_ok(publish_directory(p->dir, "other", 0700, NULL, &e), &e);
    assert_int_equal(publish_rename(p->dir, "d", p->dir, "other", PUBLISH_NEW, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    assert_ok(publish_rename(p->dir, "d", p->dir, "e", PUBLISH_NEW, &e), &e);
}

static void locks_exclude_and_share_and_die_with_their_holder(void **state)
{
    struct place *p = *state;
    struct lock a = LOCK_EMPTY, b = LOCK_EMPTY;
    atomic_bool stop = true;
    struct err e;
    int status;
    pid_t pid;

    assert_false(lock_is_held(p->dir, "l"));
    assert_ok(lock_take(&a, p->dir, "l", LOCK_SHARED, 0, NULL, &e), &e);
    assert_ok(lock_take(&b, p->dir, "l", LOCK_SHARED, 0, NULL, &e), &e);
    assert_int_equal(lock_change(&a, LOCK_EXCLUSIVE, 20, NULL, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    lock_release(&b);
    assert_ok(lock_change(&a, LOCK_EXCLUSIVE, 0, NULL, &e), &e);
    assert_true(lock_is_held(p->dir, "l"));
    assert_int_equal(lock_take(&b, p->dir, "l", LOCK_SHARED, 10000, &stop, &e), -1);
    assert_int_equal(e.code, ERR_STOPPED);
    lock_release(&a);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(lock_take(&a, p->dir, "l", LOCK_EXCLUSIVE, 0, NULL, &e) == 0 ? 0 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_ok(lock_take(&b, p->dir, "l", LOCK_EXCLUSIVE, 0, NULL, &e), &e);
    lock_release(&b);
}

static void names_are_made_safe(void **state)
{
    static const char *const cases[][2] = {
        { "web01", "web01" },
        { "", "%00" },
        { ".", "%2E" },
        { "..", "%2E%2E" },
        { "-rf", "%2Drf" },
        { "a/b\\c", "a%2Fb%5Cc" },
        { "../../etc", "%2E.%2F..%2Fetc" },
        { "x ", "x%20" },
        { "x.", "x%2E" },
        { "a b.c", "a b.c" },
        { "tab\there\n", "tab%09here%0A" },
        { "\x7f", "%7F" },
        { "M\xc3\xbcller", "M\xc3\xbcller" },
        { "bad\xff\xc3", "bad%FF%C3" },
        { "c1\xc2\x85", "c1%C2%85" },
        { "overlong\xc0\xaf", "overlong%C0%AF" },
        { "surrogate\xed\xa0\x80", "surrogate%ED%A0%80" },
    };
    char long_name[300], out[NAME_SAFE_ROOM];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        name_made_safe(cases[i][0], out);
        assert_string_equal(out, cases[i][1]);
    }
    memset(long_name, 'x', sizeof long_name);
    long_name[sizeof long_name - 1] = 0;
    memcpy(long_name + 199, "\xc3\xbc", 2); /* the cut would go through it */
    name_made_safe(long_name, out);
    assert_int_equal(strlen(out), 199);
    memcpy(long_name + 197, " . ", 3);
    name_made_safe(long_name, out);
    assert_int_equal(strlen(out), 197);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(new_never_replaces_and_replace_does, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_of_another_length_is_not_published, setup, teardown),
        cmocka_unit_test_setup_teardown(every_fault_leaves_all_or_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_sweep_takes_only_our_temporaries, setup, teardown),
        cmocka_unit_test_setup_teardown(folders_are_renamed_without_replacing, setup, teardown),
        cmocka_unit_test_setup_teardown(locks_exclude_and_share_and_die_with_their_holder, setup,
                                        teardown),
        cmocka_unit_test(names_are_made_safe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
