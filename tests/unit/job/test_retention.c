/* Which generations stay. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "receiver/job/retention.h"
#include "tests/unit/cmocka_all.h"

#define NOW INT64_C(1795176000) /* 2026-11-20T12:00:00Z, a Friday */
#define HOUR INT64_C(3600)
#define DAY (24 * HOUR)

enum { MANY = 400 };

/* One a day, the newest an hour old. */
static void fill_days(struct retention_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        items[i] = (struct retention_item){
            .number = i + 1,
            .time = NOW - HOUR - (int64_t)(count - 1 - i) * DAY,
            .good = true,
        };
}

static size_t kept(const struct retention_item *items, size_t count)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        assert_true(items[i].reason[0] != 0);
        n += items[i].keep;
    }
    return n;
}

static void the_last_ones_stay(void **state)
{
    struct retention_item items[10];
    struct keep_policy p = { .last = 3 };

    (void)state;
    fill_days(items, 10);
    retention_decide(&p, NOW, 0, items, 10);
    assert_int_equal(kept(items, 10), 3);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(items[i].keep, i >= 7);
    assert_string_equal(items[0].reason, "no rule keeps it");
}

static void the_newest_good_one_stays_whatever_is_asked(void **state)
{
    struct retention_item items[4];
    struct keep_policy p = { .within_s = 1 };

    (void)state;
    fill_days(items, 4);
    items[3].good = false;
    retention_decide(&p, NOW, 0, items, 4);
    assert_false(items[0].keep);
    assert_false(items[1].keep);
    assert_true(items[2].keep); /* the newest good one */
    assert_true(items[3].keep); /* partial, newer */
}

static void partial_ones_stand_for_nobody(void **state)
{
    struct retention_item items[5];
    struct keep_policy p = { .last = 2 };

    (void)state;
    fill_days(items, 5);
    items[1].good = items[3].good = false;
    retention_decide(&p, NOW, 0, items, 5);
    assert_true(items[4].keep);
    assert_false(items[3].keep);
    assert_true(items[2].keep);
    assert_false(items[1].keep);
    assert_false(items[0].keep);
}

static void periods_take_the_newest_of_each(void **state)
{
    struct retention_item items[MANY];
    struct keep_policy p = { .periods = { [KEEP_MONTH] = 3 } };
    int64_t last = 0;
    size_t n = 0;

    (void)state;
    fill_days(items, MANY);
    retention_decide(&p, NOW, 0, items, MANY);
    assert_int_equal(kept(items, MANY), 3);
    for (size_t i = MANY; i-- > 0;) {
        if (!items[i].keep)
            continue;
        /* 20 November, 31 October, 30 September */
        assert_true(n == 0 || last - items[i].time == (n == 1 ? 20 : 31) * DAY);
        last = items[i].time;
        n++;
    }
    p = (struct keep_policy){ .periods = { [KEEP_YEAR] = 9 } };
    retention_decide(&p, NOW, 0, items, MANY);
    assert_int_equal(kept(items, MANY), 2);
    p = (struct keep_policy){ .periods = { [KEEP_WEEK] = 2 } };
    retention_decide(&p, NOW, 0, items, MANY);
    assert_int_equal(kept(items, MANY), 2);
    assert_true(items[MANY - 1].keep);
    assert_true(items[MANY - 6].keep); /* the Sunday before this Friday's week */
}

static void hours_without_a_generation_do_not_count(void **state)
{
    struct retention_item items[6];
    struct keep_policy p = { .periods = { [KEEP_HOUR] = 4 } };

    (void)state;
    fill_days(items, 6);
    items[5].time += 120;
    items[4].time = items[5].time - 60; /* the same hour */
    retention_decide(&p, NOW, 0, items, 6);
    assert_int_equal(kept(items, 6), 4);
    assert_false(items[4].keep);
    assert_false(items[0].keep);
}

static void pins_tags_and_youth(void **state)
{
    struct retention_item items[5];
    struct keep_policy p = { .last = 1 };

    (void)state;
    fill_days(items, 5);
    items[0].pinned = true;
    items[1].tagged = true;
    retention_decide(&p, NOW, (uint64_t)(26 * HOUR), items, 5);
    assert_true(items[0].keep);
    assert_true(items[1].keep);
    assert_false(items[2].keep);
    assert_true(items[3].keep); /* 25 hours old */
    assert_string_equal(items[3].reason, "too young");
    assert_string_equal(items[4].reason, "the newest good one, too young, last");
}

static void an_empty_policy_is_known(void **state)
{
    struct keep_policy p = { 0 };

    (void)state;
    assert_true(keep_policy_is_empty(&p));
    p.periods[KEEP_YEAR] = 1;
    assert_false(keep_policy_is_empty(&p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_ones_stay),
        cmocka_unit_test(the_newest_good_one_stays_whatever_is_asked),
        cmocka_unit_test(partial_ones_stand_for_nobody),
        cmocka_unit_test(periods_take_the_newest_of_each),
        cmocka_unit_test(hours_without_a_generation_do_not_count),
        cmocka_unit_test(pins_tags_and_youth),
        cmocka_unit_test(an_empty_policy_is_known),
    };

    setenv("TZ", "UTC", 1);
    tzset();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
