#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/clock.h"

static void times_are_written_in_utc(void **state)
{
    char t[CLOCK_TEXT_BYTES];

    (void)state;
    assert_string_equal(clock_format(t, 0), "1970-01-01T00:00:00Z");
    assert_string_equal(clock_format(t, 1795162500), "2026-11-20T08:15:00Z");
    assert_string_equal(clock_format(t, 951782400), "2000-02-29T00:00:00Z");
    assert_string_equal(clock_format(t, INT64_MAX), "9999-12-31T23:59:59Z");
    assert_string_equal(clock_format(t, INT64_MIN), "0000-01-01T00:00:00Z");
}

static void times_with_any_zone_are_read(void **state)
{
    static const struct {
        const char *text;
        int64_t time;
    } good[] = {
        { "1970-01-01T00:00:00Z", 0 },
        { "2026-11-20T08:15:00Z", 1795162500 },
        { "2026-11-20T09:15:00+01:00", 1795162500 },
        { "2026-11-20T02:45:00-05:30", 1795162500 },
        { "2026-11-20t08:15:00.123456z", 1795162500 },
    };
    static const char *const bad[] = {
        "",
        "2026-11-20",
        "2026-11-20T08:15:00",
        "2026-11-20T08:15Z",
        "2026-11-31T08:15:00Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-20T24:00:00Z",
        "2026-11-20T08:60:00Z",
        "2026-11-20T08:15:00.Z",
        "2026-11-20T08:15:00Z ",
        "2026-11-20T08:15:00+1:00",
        "+026-11-20T08:15:00Z",
        "2026-11-20T08:15:00+24:00",
    };
    struct err e;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
        int64_t time = 7;

        assert_int_equal(clock_parse(&time, good[i].text, &e), 0);
        assert_int_equal(time, good[i].time);
    }
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        int64_t time = 7;

        assert_int_equal(clock_parse(&time, bad[i], &e), -1);
        assert_int_equal(e.code, ERR_FORMAT);
        assert_int_equal(time, 7);
    }
}

static void in_zone(const char *zone)
{
    setenv("TZ", zone, 1);
    tzset();
}

static void a_date_is_a_local_day_and_a_time_its_own_precision(void **state)
{
    struct clock_span s;
    struct err e;

    (void)state;
    in_zone("CET-1CEST,M3.5.0,M10.5.0/3");
    assert_int_equal(clock_parse_span(&s, "2026-11-20", &e), 0);
    assert_int_equal(s.from, 1795129200); /* 2026-11-19T23:00:00Z */
    assert_int_equal(s.end - s.from, 86400);
    assert_int_equal(clock_parse_span(&s, "2026-11-20T09", &e), 0);
    assert_int_equal(s.end - s.from, 3600);
    assert_int_equal(clock_parse_span(&s, "2026-11-20 09:15", &e), 0);
    assert_int_equal(s.from, 1795162500);
    assert_int_equal(s.end - s.from, 60);
    assert_int_equal(clock_parse_span(&s, "2026-11-20T08:15:00Z", &e), 0);
    assert_int_equal(s.from, 1795162500);
    assert_int_equal(s.end - s.from, 1);
    /* The days on which the clocks change. */
    assert_int_equal(clock_parse_span(&s, "2026-03-29", &e), 0);
    assert_int_equal(s.end - s.from, 23 * 3600);
    assert_int_equal(clock_parse_span(&s, "2026-10-25", &e), 0);
    assert_int_equal(s.end - s.from, 25 * 3600);
    assert_int_equal(clock_parse_span(&s, "2026-12-31", &e), 0);
    assert_int_equal(s.end - s.from, 86400);
    in_zone("UTC0");
}

static void what_is_no_date_is_refused(void **state)
{
    static const char *const bad[] = { "",           "latest",    "2026",        "2026-11",
                                       "20-11-2026", "2026-11-2", "2026-11-20T", "2026-11-20T9",
                                       "2026-11-20x" };
    struct clock_span s;
    struct err e;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(clock_parse_span(&s, bad[i], &e), -1);
        assert_int_equal(e.code, ERR_USAGE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_written_in_utc),
        cmocka_unit_test(times_with_any_zone_are_read),
        cmocka_unit_test(a_date_is_a_local_day_and_a_time_its_own_precision),
        cmocka_unit_test(what_is_no_date_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
