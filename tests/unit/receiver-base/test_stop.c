#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "receiver/base/stop.h"

static int reset(void **state)
{
    (void)state;
    stop_reset();
    return 0;
}

static bool readable(void)
{
    struct pollfd p = { .fd = stop_fd(), .events = POLLIN };

    return poll(&p, 1, 0) == 1;
}

static void a_signal_sets_the_flag_and_wakes_every_loop(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(stop_install(&e), 0);
    assert_false(stop_requested());
    assert_false(readable());
    assert_int_equal(stop_check(&e), 0);
    kill(getpid(), SIGTERM);
    assert_true(stop_requested());
    assert_true(*stop_flag());
    assert_true(readable());
    assert_int_equal(stop_signal(), SIGTERM);
    assert_false(stop_hurried());
    assert_int_equal(stop_check(&e), -1);
    assert_int_equal(e.code, ERR_STOPPED);
    assert_non_null(strstr(e.text, "TERM"));
}

static void the_first_signal_counts_and_the_second_hurries(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(stop_install(&e), 0);
    kill(getpid(), SIGINT);
    kill(getpid(), SIGHUP);
    assert_int_equal(stop_signal(), SIGINT);
    assert_true(stop_hurried());
}

static void sleeping_ends_with_the_signal(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(stop_install(&e), 0);
    assert_int_equal(stop_sleep(1, &e), 0);
    stop_raise(SIGTERM);
    assert_int_equal(stop_sleep(3600 * 1000, &e), -1);
    assert_int_equal(e.code, ERR_STOPPED);
}

static void a_broken_pipe_and_a_full_file_are_errors_not_ends(void **state)
{
    struct err e;
    int ends[2];

    (void)state;
    assert_int_equal(stop_install(&e), 0);
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    assert_int_equal(write(ends[1], "x", 1), -1);
    assert_int_equal(errno, EPIPE);
    close(ends[1]);
    raise(SIGXFSZ);
    assert_false(stop_requested());
}

static void a_signal_that_was_ignored_stays_ignored(void **state)
{
    struct err e;

    (void)state;
    signal(SIGHUP, SIG_IGN);
    assert_int_equal(stop_install(&e), 0);
    kill(getpid(), SIGHUP);
    assert_false(stop_requested());
    signal(SIGHUP, SIG_DFL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_signal_sets_the_flag_and_wakes_every_loop, reset),
        cmocka_unit_test_setup(the_first_signal_counts_and_the_second_hurries, reset),
        cmocka_unit_test_setup(sleeping_ends_with_the_signal, reset),
        cmocka_unit_test_setup(a_broken_pipe_and_a_full_file_are_errors_not_ends, reset),
        cmocka_unit_test_setup(a_signal_that_was_ignored_stays_ignored, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
