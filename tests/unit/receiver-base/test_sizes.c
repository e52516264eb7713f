#include "tests/unit/cmocka_all.h"

#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/sizes.h"

static void sizes_are_powers_of_1024(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        { "0", 0 },
        { "1", 1 },
        { "4096", 4096 },
        { "1k", 1024 },
        { "1K", 1024 },
        { "64M", 64u << 20 },
        { "3g", UINT64_C(3) << 30 },
        { "2T", UINT64_C(2) << 40 },
        { "8388607T", UINT64_C(8388607) << 40 },
        { "9223372036854775807", INT64_MAX },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
        uint64_t bytes = 7;
        struct err e;

        assert_int_equal(size_parse(&bytes, good[i].text, &e), 0);
        assert_int_equal(bytes, good[i].bytes);
    }
}

static void what_is_no_size_is_refused_and_changes_nothing(void **state)
{
    static const char *const bad[] = {
        "",
        " 1",
        "1 ",
        "+1",
        "-1",
        "0x10",
        "1.5G",
        "k",
        "1kk",
        "1kB",
        "1KiB",
        "1M/s",
        "1P",
        "10%",
        "8388608T",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999T",
        "\xd9\xa1" /* an Arabic digit */,
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        uint64_t bytes = 7;
        struct err e;

        assert_int_equal(size_parse(&bytes, bad[i], &e), -1);
        assert_int_equal(e.code, ERR_USAGE);
        assert_int_equal(bytes, 7);
    }
}

static void numbers_keep_their_range(void **state)
{
    uint64_t n = 7;
    struct err e;

    (void)state;
    assert_int_equal(number_parse(&n, "65535", 1, 65535, &e), 0);
    assert_int_equal(n, 65535);
    assert_int_equal(number_parse(&n, "65536", 1, 65535, &e), -1);
    assert_int_equal(number_parse(&n, "0", 1, 65535, &e), -1);
    assert_int_equal(number_parse(&n, "1k", 1, 65535, &e), -1);
    assert_int_equal(number_parse(&n, "", 0, 1, &e), -1);
    assert_int_equal(number_parse(&n, "18446744073709551615", 0, UINT64_MAX, &e), 0);
    assert_int_equal(number_parse(&n, "18446744073709551616", 0, UINT64_MAX, &e), -1);
    assert_int_equal(n, UINT64_MAX);
}

static void a_share_is_from_1_to_100_percent(void **state)
{
    struct size_or_share s;
    struct err e;

    (void)state;
    assert_int_equal(size_or_share_parse(&s, "10%", &e), 0);
    assert_true(s.is_share);
    assert_int_equal(s.percent, 10);
    assert_int_equal(size_or_share_parse(&s, "5G", &e), 0);
    assert_false(s.is_share);
    assert_int_equal(s.bytes, UINT64_C(5) << 30);
    assert_int_equal(s.percent, 0);
    assert_int_equal(size_or_share_parse(&s, "0%", &e), -1);
    assert_int_equal(size_or_share_parse(&s, "101%", &e), -1);
    assert_int_equal(size_or_share_parse(&s, "%", &e), -1);
    assert_int_equal(size_or_share_parse(&s, "5%G", &e), -1);
}

static void durations_have_units(void **state)
{
    static const struct {
        const char *text;
        uint64_t seconds;
    } good[] = {
        { "30s", 30 },
        { "5m", 300 },
        { "2h", 7200 },
        { "7d", 604800 },
        { "600", 600 },
        { "0", 0 },
        { "3650d", UINT64_C(3650) * 86400 },
    };
    static const char *const bad[] = {
        "", "s", "5M", "5ms", "1h30m", "1.5h", "-1s", "3651d", "18446744073709551615d", "5 m", "1w",
    };
    struct err e;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
        uint64_t seconds = 9;

        assert_int_equal(duration_parse(&seconds, good[i].text, &e), 0);
        assert_int_equal(seconds, good[i].seconds);
    }
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        uint64_t seconds = 9;

        assert_int_equal(duration_parse(&seconds, bad[i], &e), -1);
        assert_int_equal(e.code, ERR_USAGE);
        assert_int_equal(seconds, 9);
    }
}

static void no_rate_means_no_limit(void **state)
{
    uint64_t rate = 9;
    struct err e;

    (void)state;
    assert_int_equal(rate_parse(&rate, "20M", &e), 0);
    assert_int_equal(rate, 20u << 20);
    assert_int_equal(rate_parse(&rate, "20M/s", &e), 0);
    assert_int_equal(rate_parse(&rate, "1k", &e), 0);
    assert_int_equal(rate_parse(&rate, "0", &e), -1);
    assert_int_equal(rate_parse(&rate, "1023", &e), -1);
    assert_int_equal(rate_parse(&rate, "20M/", &e), -1);
    assert_int_equal(rate, 1024);
}

static void people_see_the_digits_that_matter(void **state)
{
    char t[SIZE_TEXT_BYTES];

    (void)state;
    assert_string_equal(size_text(t, 0), "0 B");
    assert_string_equal(size_text(t, 1023), "1023 B");
    assert_string_equal(size_text(t, 1024), "1.0 KiB");
    assert_string_equal(size_text(t, 1536), "1.5 KiB");
    assert_string_equal(size_text(t, (1u << 20) - 1), "1.0 MiB");
    assert_string_equal(size_text(t, UINT64_C(40) << 30), "40.0 GiB");
    assert_string_equal(size_text(t, UINT64_C(500) << 30), "500 GiB");
    assert_string_equal(size_text(t, UINT64_C(62) << 40), "62.0 TiB");
    assert_string_equal(size_text(t, UINT64_MAX), "16.0 EiB");
    assert_string_equal(size_text_short(t, 0), "0");
    assert_string_equal(size_text_short(t, 512), "512B");
    assert_string_equal(size_text_short(t, UINT64_C(40) << 30), "40.0G");
    assert_string_equal(rate_text(t, 10u << 20, 1000), "10.0 MiB/s");
    assert_string_equal(rate_text(t, 10u << 20, 0), "-");
    assert_string_equal(duration_text(t, 0), "0s");
    assert_string_equal(duration_text(t, 59), "59s");
    assert_string_equal(duration_text(t, 185), "3m05s");
    assert_string_equal(duration_text(t, 7620), "2h07m");
    assert_string_equal(duration_text(t, 273600), "3d04h");
}

static void only_all_is_100_percent(void **state)
{
    char t[SIZE_TEXT_BYTES];

    (void)state;
    assert_string_equal(share_text(t, 0, 0), "-");
    assert_string_equal(share_text(t, 999, 1000), "99 %");
    assert_string_equal(share_text(t, 1000, 1000), "100 %");
    assert_string_equal(share_text(t, 1, 1000), "0 %");
    assert_string_equal(share_text(t, UINT64_MAX / 2, UINT64_MAX), "50 %");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_powers_of_1024),
        cmocka_unit_test(what_is_no_size_is_refused_and_changes_nothing),
        cmocka_unit_test(numbers_keep_their_range),
        cmocka_unit_test(a_share_is_from_1_to_100_percent),
        cmocka_unit_test(durations_have_units),
        cmocka_unit_test(no_rate_means_no_limit),
        cmocka_unit_test(people_see_the_digits_that_matter),
        cmocka_unit_test(only_all_is_100_percent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
