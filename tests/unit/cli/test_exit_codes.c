#include "tests/unit/cmocka_all.h"

#include <signal.h>

#include "receiver/base/stop.h"
#include "receiver/cli/exit_codes.h"
#include "receiver/job/run.h"

static struct run_result r;

static int reset(void **state)
{
    (void)state;
    run_result_free(&r);
    stop_reset();
    return 0;
}

static void add(enum vm_outcome outcome, enum err_code code, bool cleanup_left)
{
    struct err e;
    struct vm_result *v = run_result_add(&r, "vm", &e);

    assert_non_null(v);
    v->outcome = outcome;
    v->why.code = code;
    v->cleanup_left = cleanup_left;
}

static void each_error_has_the_code_of_the_table(void **state)
{
    static const int wanted[ERR_CODE_COUNT] = {
        [ERR_NONE] = 0,     [ERR_SYSTEM] = 1,  [ERR_USAGE] = 2,        [ERR_NOT_FOUND] = 2,
        [ERR_SOURCE] = 4,   [ERR_CORRUPT] = 5, [ERR_BUSY] = 6,         [ERR_AUTH] = 7,
        [ERR_SPACE] = 8,    [ERR_CLEANUP] = 9, [ERR_UNSUPPORTED] = 10, [ERR_REFUSED] = 11,
        [ERR_NETWORK] = 12, [ERR_FORMAT] = 10, [ERR_LIMIT] = 10,       [ERR_PEER] = 5,
        [ERR_STOPPED] = 1,
    };

    (void)state;
    for (int c = 0; c < ERR_CODE_COUNT; c++)
        assert_int_equal(exit_code_of((enum err_code)c), wanted[c]);
    assert_int_equal(exit_code_of((enum err_code)99), 1);
    stop_raise(SIGTERM);
    assert_int_equal(exit_code_of(ERR_STOPPED), 128 + SIGTERM);
    for (int code = 0; code <= 12; code++)
        assert_non_null(exit_code_meaning(code));
    assert_null(exit_code_meaning(13));
    assert_null(exit_code_meaning(-1));
}

static void one_vm_gives_its_own_code(void **state)
{
    (void)state;
    add(OUTCOME_OK, ERR_NONE, false);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 0);
    reset(state);
    add(OUTCOME_FAILED, ERR_SOURCE, false);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 4);
    reset(state);
    add(OUTCOME_OK, ERR_CLEANUP, true);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 9);
    reset(state);
    add(OUTCOME_PARTIAL, ERR_UNSUPPORTED, false);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 3);
    reset(state);
    /* With data not safe the failure's own code counts, not the clean-up. */
    add(OUTCOME_FAILED, ERR_NETWORK, true);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 12);
}

static void a_failure_without_a_reason_is_no_success(void **state)
{
    (void)state;
    add(OUTCOME_FAILED, ERR_NONE, false);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 1);
}

static void several_vms_give_3_before_9(void **state)
{
    (void)state;
    add(OUTCOME_OK, ERR_NONE, false);
    add(OUTCOME_OK, ERR_NONE, false);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 0);
    add(OUTCOME_OK, ERR_CLEANUP, true);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 9);
    add(OUTCOME_FAILED, ERR_SPACE, false);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 3);
    reset(state);
    add(OUTCOME_OK, ERR_NONE, false);
    add(OUTCOME_PARTIAL, ERR_UNSUPPORTED, false);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 3);
    reset(state);
    add(OUTCOME_FAILED, ERR_SOURCE, false);
    add(OUTCOME_FAILED, ERR_SOURCE, false);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 3);
    reset(state);
    add(OUTCOME_FAILED, ERR_CLEANUP, true);
    add(OUTCOME_OK, ERR_NONE, false);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 3);
}

static void the_runs_own_failure_counts_when_no_vm_was_reached(void **state)
{
    (void)state;
    assert_int_equal(exit_code_of_run(&r, ERR_AUTH), 7);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 0);
    add(OUTCOME_OK, ERR_NONE, false);
    assert_int_equal(exit_code_of_run(&r, ERR_NETWORK), 12);
    add(OUTCOME_OK, ERR_NONE, false);
    assert_int_equal(exit_code_of_run(&r, ERR_NETWORK), 3);
}

static void a_signal_wins(void **state)
{
    (void)state;
    add(OUTCOME_OK, ERR_NONE, false);
    add(OUTCOME_FAILED, ERR_STOPPED, false);
    stop_raise(SIGINT);
    assert_int_equal(exit_code_of_run(&r, ERR_NONE), 130);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_error_has_the_code_of_the_table, reset, reset),
        cmocka_unit_test_setup_teardown(one_vm_gives_its_own_code, reset, reset),
        cmocka_unit_test_setup_teardown(a_failure_without_a_reason_is_no_success, reset, reset),
        cmocka_unit_test_setup_teardown(several_vms_give_3_before_9, reset, reset),
        cmocka_unit_test_setup_teardown(the_runs_own_failure_counts_when_no_vm_was_reached, reset,
                                        reset),
        cmocka_unit_test_setup_teardown(a_signal_wins, reset, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
