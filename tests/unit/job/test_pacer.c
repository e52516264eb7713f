/* A rate that several share. */
#include "tests/unit/cmocka_all.h"

#include "protocol/base/err.h"
#include "receiver/job/pacer.h"

enum { RATE = 1000000 };

static struct pacer *new_pacer(void)
{
    struct pacer *p;
    struct err e;

    assert_int_equal(pacer_new(&p, RATE, &e), 0);
    return p;
}

static void what_was_taken_is_waited_for_by_the_next(void **state)
{
    struct pacer *p = new_pacer();

    (void)state;
    assert_int_equal(pacer_due(p, 500000, 10000), 0);
    /* A little may come at once: a fifth of a second's worth. */
    assert_int_equal(pacer_due(p, 500000, 10000), 300);
    assert_int_equal(pacer_due(p, 1, 10000), 800);
    assert_int_equal(pacer_due(p, 1, 10800), 0);
    pacer_free(p);
}

static void time_that_nobody_used_is_lost(void **state)
{
    struct pacer *p = new_pacer();

    (void)state;
    assert_int_equal(pacer_due(p, RATE, 10000), 0);
    /* An hour later it is as at the beginning, not an hour's worth ahead. */
    assert_int_equal(pacer_due(p, RATE, 3610000), 0);
    assert_int_equal(pacer_due(p, RATE, 3610000), 800);
    assert_int_equal(pacer_due(p, RATE, 3610000), 1800);
    pacer_free(p);
}

/* However the bytes are cut into pieces and whoever takes them, the sum keeps to the rate. */
static void the_sum_keeps_to_the_rate(void **state)
{
    struct pacer *p = new_pacer();
    uint64_t now = 50000, sent = 0;

    (void)state;
    for (unsigned i = 0; i < 10000; i++) {
        size_t piece = 1 + i * 7919 % 65536;
        uint64_t wait = pacer_due(p, piece, now);

        if (i % 3 == 0)
            now += wait; /* this one waited; others come meanwhile */
        sent += piece;
    }
    now += pacer_due(p, 0, now);
    assert_in_range(now - 50000 + 201, sent * 1000 / RATE, sent * 1000 / RATE + 1000);
    pacer_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_taken_is_waited_for_by_the_next),
        cmocka_unit_test(time_that_nobody_used_is_lost),
        cmocka_unit_test(the_sum_keeps_to_the_rate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
