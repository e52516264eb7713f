#include "tests/unit/cmocka_all.h"

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "receiver/base/secret.h"
#include "receiver/base/stop.h"

static char dir[64], path[96];

static int setup(void **state)
{
    (void)state;
    stop_reset();
    strcpy(dir, "/tmp/vmferry-test-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/password", dir);
    return 0;
}

static int teardown(void **state)
{
    char link[96];

    (void)state;
    snprintf(link, sizeof link, "%s/link", dir);
    unlink(link);
    unlink(path);
    return rmdir(dir);
}

static void put(const void *data, size_t count, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, count), count);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void the_first_line_of_a_private_file_is_the_password(void **state)
{
    struct secret s = { 0 };
    struct err e;

    (void)state;
    put("p\xc3\xa4ss word\r\nsecond line\n", 24, 0600);
    assert_int_equal(secret_from_file(&s, path, &e), 0);
    assert_string_equal(s.text, "p\xc3\xa4ss word");
    assert_int_equal(s.count, strlen(s.text));
    put("no newline", 10, 0400);
    assert_int_equal(secret_from_file(&s, path, &e), 0);
    assert_string_equal(s.text, "no newline");
    secret_free(&s);
    assert_null(s.text);
}

static void a_file_that_others_can_read_is_refused(void **state)
{
    struct secret s = { 0 };
    struct err e;

    (void)state;
    put("word\n", 5, 0640);
    assert_int_equal(secret_from_file(&s, path, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    assert_non_null(strstr(e.text, "chmod 600"));
    put("word\n", 5, 0604);
    assert_int_equal(secret_from_file(&s, path, &e), -1);
    assert_null(s.text);
}

static void a_link_a_folder_and_a_missing_file_are_refused(void **state)
{
    char link[96];
    struct secret s = { 0 };
    struct err e;

    (void)state;
    put("word\n", 5, 0600);
    snprintf(link, sizeof link, "%s/link", dir);
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(secret_from_file(&s, link, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    assert_int_equal(secret_from_file(&s, dir, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    unlink(path);
    assert_int_equal(secret_from_file(&s, path, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_null(s.text);
}

static void another_users_file_is_refused(void **state)
{
    struct secret s = { 0 };
    struct err e;

    (void)state;
    if (geteuid() != 0)
        return; /* only root can give a file away */
    put("word\n", 5, 0600);
    assert_int_equal(chown(path, 1, 1), 0);
    assert_int_equal(secret_from_file(&s, path, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
}

static void empty_and_overlong_and_NUL_are_refused(void **state)
{
    char longer[SECRET_BYTES_MAX + 2];
    struct secret s = { 0 };
    struct err e;

    (void)state;
    memset(longer, 'x', sizeof longer);
    put("", 0, 0600);
    assert_int_equal(secret_from_file(&s, path, &e), -1);
    put("\nword\n", 6, 0600);
    assert_int_equal(secret_from_file(&s, path, &e), -1);
    put("a\0b\n", 4, 0600);
    assert_int_equal(secret_from_file(&s, path, &e), -1);
    put(longer, SECRET_BYTES_MAX + 1, 0600);
    assert_int_equal(secret_from_file(&s, path, &e), -1);
    put(longer, SECRET_BYTES_MAX, 0600);
    assert_int_equal(secret_from_file(&s, path, &e), 0);
    assert_int_equal(s.count, SECRET_BYTES_MAX);
    assert_int_equal(secret_set(&s, longer, SECRET_BYTES_MAX + 1, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    assert_int_equal(secret_set(&s, "a\0b", 3, &e), -1);
    assert_int_equal(s.count, SECRET_BYTES_MAX); /* the old one stands */
    secret_free(&s);
}

static void a_helper_prints_it_over_a_pipe(void **state)
{
    struct secret s = { 0 };
    struct err e;

    (void)state;
    assert_int_equal(secret_from_command(&s, "echo 'pass word'; echo more", 30, &e), 0);
    assert_string_equal(s.text, "pass word");
    /* It has no input of ours, and may end by the pipe that we close. */
    assert_int_equal(secret_from_command(&s, "cat; yes word", 30, &e), 0);
    assert_string_equal(s.text, "word");
    secret_free(&s);
}

static void a_helper_that_fails_is_an_error(void **state)
{
    struct secret s = { 0 };
    struct err e;

    (void)state;
    assert_int_equal(secret_from_command(&s, "echo hunter2; exit 3", 30, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    assert_non_null(strstr(e.text, "status 3"));
    assert_null(strstr(e.text, "hunter2"));
    assert_int_equal(secret_from_command(&s, "true", 30, &e), -1);
    assert_int_equal(secret_from_command(&s, "/nowhere/helper 2>/dev/null", 30, &e), -1);
    assert_int_equal(secret_from_command(&s, "exec sleep 60", 0, &e), -1);
    assert_null(s.text);
}

static void a_helper_that_hangs_is_ended_with_all_that_it_started(void **state)
{
    char command[192], text[32] = "";
    struct secret s = { 0 };
    struct err e;
    pid_t started;
    int fd;

    (void)state;
    setsid(); /* away from a terminal, if there is one */
    snprintf(command, sizeof command, "sleep 60 & echo $! > %s; wait", path);
    assert_int_equal(secret_from_command(&s, command, 1, &e), -1);
    fd = open(path, O_RDONLY);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    started = (pid_t)atoi(text);
    assert_true(started > 1);
    /* Nobody may have reaped it yet, but it must not run any more. */
    snprintf(command, sizeof command, "/proc/%d/cmdline", (int)started);
    for (int i = 0; i < 500; i++) {
        fd = open(command, O_RDONLY);
        if (fd < 0)
            return;
        if (read(fd, text, sizeof text) == 0) {
            close(fd);
            return;
        }
        close(fd);
        usleep(10000);
    }
    fail();
}

static void a_signal_ends_waiting_for_a_helper(void **state)
{
    struct secret s = { 0 };
    struct err e;

    (void)state;
    assert_int_equal(stop_install(&e), 0);
    stop_raise(SIGTERM);
    assert_int_equal(secret_from_command(&s, "exec sleep 60", 3600, &e), -1);
    assert_int_equal(e.code, ERR_STOPPED);
}

/* In a child with a terminal of its own: ask, and answer on standard output's file. */
static int ask_in_child(bool echo, const char *type, char *screen, size_t room)
{
    struct termios before, after;
    size_t have = 0;
    int master, status;
    pid_t pid = forkpty(&master, NULL, NULL, NULL);

    assert_true(pid >= 0);
    if (pid == 0) {
        struct secret s = { 0 };
        struct err e;
        int rc;

        tcgetattr(0, &before);
        rc = secret_from_terminal(&s, "Password: ", echo, &e);
        tcgetattr(0, &after);
        if (rc != 0 || before.c_lflag != after.c_lflag)
            _exit(2);
        _exit(strcmp(s.text, "pass word") == 0 ? 0 : 1);
    }
    /* Type only when the question stands there: the echo is off by then. */
    while (have < room - 1) {
        ssize_t got = read(master, screen + have, room - 1 - have);

        if (got <= 0)
            break;
        have += (size_t)got;
        screen[have] = 0;
        if (type != NULL && strstr(screen, "Password: ") != NULL) {
            assert_int_equal(write(master, type, strlen(type)), strlen(type));
            type = NULL;
        }
    }
    waitpid(pid, &status, 0);
    close(master);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void a_terminal_is_asked_without_echo(void **state)
{
    char screen[512] = "";

    (void)state;
    assert_int_equal(ask_in_child(false, "pass word\n", screen, sizeof screen), 0);
    assert_null(strstr(screen, "pass word"));
    assert_int_equal(ask_in_child(true, "pass word\n", screen, sizeof screen), 0);
    assert_non_null(strstr(screen, "pass word"));
    assert_int_equal(ask_in_child(false, "\n", screen, sizeof screen), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_line_of_a_private_file_is_the_password, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_file_that_others_can_read_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_link_a_folder_and_a_missing_file_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(another_users_file_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(empty_and_overlong_and_NUL_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_helper_prints_it_over_a_pipe, setup, teardown),
        cmocka_unit_test_setup_teardown(a_helper_that_fails_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(a_helper_that_hangs_is_ended_with_all_that_it_started,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_signal_ends_waiting_for_a_helper, setup, teardown),
        cmocka_unit_test_setup_teardown(a_terminal_is_asked_without_echo, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
