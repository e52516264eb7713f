#include "tests/unit/cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "receiver/base/state.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/vmferry-test-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void the_directory_is_made_private_with_its_parents(void **state)
{
    char path[128];
    struct state *s = NULL;
    struct stat st;
    struct err e;

    (void)state;
    snprintf(path, sizeof path, "%s/a/b/c", dir);
    umask(0);
    assert_int_equal(state_open(&s, path, &e), 0);
    umask(022);
    assert_string_equal(state_dir(s), path);
    assert_int_equal(fstat(state_fd(s), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    state_close(s);
}

static void the_install_id_is_made_once_and_stays(void **state)
{
    char first[INSTALL_ID_BYTES], path[128];
    struct state *s = NULL;
    struct stat st;
    struct err e;

    (void)state;
    assert_int_equal(state_open(&s, dir, &e), 0);
    strcpy(first, state_install_id(s));
    assert_int_equal(strlen(first), 16);
    assert_int_equal(strspn(first, "0123456789abcdef"), 16);
    state_close(s);
    assert_int_equal(state_open(&s, dir, &e), 0);
    assert_string_equal(state_install_id(s), first);
    state_close(s);
    snprintf(path, sizeof path, "%s/install-id", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 17);
}

static void a_crash_before_publishing_leaves_no_half_id(void **state)
{
    char path[128];
    struct state *s = NULL;
    struct err e;
    int fd;

    (void)state;
    snprintf(path, sizeof path, "%s/install-id.part", dir);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "0123", 4), 4);
    close(fd);
    assert_int_equal(state_open(&s, dir, &e), 0);
    assert_int_equal(strlen(state_install_id(s)), 16);
    state_close(s);
    assert_int_equal(access(path, F_OK), -1);
}

static void a_damaged_id_is_never_replaced(void **state)
{
    char path[128];
    struct state *s = NULL;
    struct err e;
    int fd;

    (void)state;
    snprintf(path, sizeof path, "%s/install-id", dir);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "0123456789ABCDEF\n", 17), 17);
    close(fd);
    assert_int_equal(state_open(&s, dir, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_non_null(strstr(e.text, dir));
}

static void a_directory_that_others_write_to_is_refused(void **state)
{
    struct state *s = NULL;
    struct err e;

    (void)state;
    assert_int_equal(chmod(dir, 0770), 0);
    assert_int_equal(state_open(&s, dir, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(state_open(&s, dir, &e), 0);
    state_close(s);
}

static void the_default_follows_the_environment(void **state)
{
    char path[128];
    struct state *s = NULL;
    struct err e;

    (void)state;
    setenv("XDG_STATE_HOME", dir, 1);
    assert_int_equal(state_open(&s, NULL, &e), 0);
    snprintf(path, sizeof path, "%s/vmferry", dir);
    assert_string_equal(state_dir(s), path);
    state_close(s);
    /* A relative one does not count. */
    setenv("XDG_STATE_HOME", "relative", 1);
    setenv("HOME", dir, 1);
    assert_int_equal(state_open(&s, NULL, &e), 0);
    snprintf(path, sizeof path, "%s/.local/state/vmferry", dir);
    assert_string_equal(state_dir(s), path);
    state_close(s);
}

static void a_file_in_its_place_is_an_error(void **state)
{
    char path[128];
    struct state *s = NULL;
    struct err e;

    (void)state;
    snprintf(path, sizeof path, "%s/file", dir);
    close(open(path, O_WRONLY | O_CREAT, 0600));
    assert_int_equal(state_open(&s, path, &e), -1);
    assert_non_null(strstr(e.text, path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_directory_is_made_private_with_its_parents, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_install_id_is_made_once_and_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(a_crash_before_publishing_leaves_no_half_id, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_damaged_id_is_never_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(a_directory_that_others_write_to_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_default_follows_the_environment, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_in_its_place_is_an_error, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
