#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "receiver/base/utf8.h"

static void only_shortest_forms_of_real_characters_are_utf8(void **state)
{
    static const struct {
        const char *bytes;
        size_t count, length;
        uint32_t c;
    } rows[] = {
        { "a", 1, 1, 'a' },
        { "\xc3\xa9", 2, 2, 0xe9 },
        { "\xe2\x82\xac", 3, 3, 0x20ac },
        { "\xf0\x9f\x98\x80", 4, 4, 0x1f600 },
        { "\xf4\x8f\xbf\xbf", 4, 4, 0x10ffff },
        { "\xc3", 1, 0, 0 }, /* cut */
        { "\xf0\x9f\x98", 3, 0, 0 },
        { "\x80", 1, 0, 0 },     /* no start */
        { "\xc0\xaf", 2, 0, 0 }, /* overlong slash */
        { "\xe0\x80\xaf", 3, 0, 0 },
        { "\xf0\x80\x80\xaf", 4, 0, 0 },
        { "\xed\xa0\x80", 3, 0, 0 },     /* surrogate */
        { "\xf4\x90\x80\x80", 4, 0, 0 }, /* past the last character */
        { "\xff", 1, 0, 0 },
        { "\xc3(", 2, 0, 0 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        char *exact = malloc(rows[i].count);
        uint32_t c = 0;

        assert_non_null(exact);
        memcpy(exact, rows[i].bytes, rows[i].count);
        assert_int_equal(utf8_decode(exact, rows[i].count, &c), rows[i].length);
        if (rows[i].length > 0)
            assert_int_equal(c, rows[i].c);
        free(exact);
    }
}

static void what_could_fool_a_terminal_is_made_visible(void **state)
{
    static const struct {
        const char *raw, *shown;
    } rows[] = {
        { "web01", "web01" },
        { "b\xc3\xbcro \xe4\xb8\xad", "b\xc3\xbcro \xe4\xb8\xad" },
        { "a\x1b[31mb", "a\\x1b[31mb" },
        { "two\nlines\t\r", "two\\nlines\\t\\x0d" },
        { "\x7f", "\\x7f" },
        { "\xc2\x9b"
          "31m",
          "\\u009b31m" }, /* C1: another escape */
        { "\xe2\x80\xae"
          "gpj.exe",
          "\\u202egpj.exe" }, /* right to left */
        { "\xe2\x81\xa6", "\\u2066" },
        { "\xe2\x80\x8b", "\\u200b" },
        { "\xef\xbb\xbf", "\\ufeff" },
        { "\xf3\xa0\x81\x81", "\\U000e0041" },
        { "\xff\xfe", "\\xff\\xfe" },
        { "cut\xe2\x82", "cut\\xe2\\x82" },
        { "back\\slash", "back\\slash" },
        { "\\x1b", "\\\\x1b" }, /* what only looks like an escape */
        { "C:\\new", "C:\\\\new" },
        { "", "" },
    };
    char out[64];

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        assert_true(utf8_show(out, sizeof out, rows[i].raw));
        assert_string_equal(out, rows[i].shown);
    }
}

static void a_cut_never_splits_a_character_or_an_escape(void **state)
{
    static const char raw[] = "a\xe2\x82\xac\x1b"
                              "b";
    char *whole = malloc(64);

    (void)state;
    assert_non_null(whole);
    assert_true(utf8_show(whole, 64, raw));
    for (size_t room = 1; room <= strlen(whole) + 1; room++) {
        char *out = malloc(room);

        assert_non_null(out);
        assert_int_equal(utf8_show(out, room, raw), room == strlen(whole) + 1);
        assert_memory_equal(out, whole, strlen(out));
        assert_true(strlen(out) == 0 || strlen(out) == 1 || strlen(out) == 4 || strlen(out) == 8 ||
                    strlen(out) == 9);
        free(out);
    }
    free(whole);
}

static void columns_are_those_of_a_terminal(void **state)
{
    (void)state;
    assert_int_equal(utf8_columns("web01"), 5);
    assert_int_equal(utf8_columns("\xe4\xb8\xad\xe6\x96\x87"), 4);
    assert_int_equal(utf8_columns("e\xcc\x81"), 1);
    assert_int_equal(utf8_columns("\xf0\x9f\x98\x80"), 2);
    assert_int_equal(utf8_columns(""), 0);
}

static void a_cut_text_ends_with_an_ellipsis_and_keeps_the_width(void **state)
{
    char out[64];

    (void)state;
    assert_int_equal(utf8_cut(out, sizeof out, "webserver", 9), 9);
    assert_string_equal(out, "webserver");
    assert_int_equal(utf8_cut(out, sizeof out, "webserver", 8), 8);
    assert_string_equal(out, "webserv\xe2\x80\xa6");
    assert_int_equal(utf8_cut(out, sizeof out, "webserver", 1), 1);
    assert_string_equal(out, "\xe2\x80\xa6");
    assert_int_equal(utf8_cut(out, sizeof out, "webserver", 0), 0);
    assert_string_equal(out, "");
    /* A wide character that would stick out by one column stays out. */
    assert_int_equal(utf8_cut(out, sizeof out, "\xe4\xb8\xad\xe6\x96\x87\xe4\xb8\xad", 4), 3);
    assert_string_equal(out, "\xe4\xb8\xad\xe2\x80\xa6");
    /* A small buffer cuts, too, and never runs over. */
    for (size_t room = 4; room < 12; room++) {
        char *exact = malloc(room);

        assert_non_null(exact);
        utf8_cut(exact, room, "webserver", 40);
        assert_true(strlen(exact) < room);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_shortest_forms_of_real_characters_are_utf8),
        cmocka_unit_test(what_could_fool_a_terminal_is_made_visible),
        cmocka_unit_test(a_cut_never_splits_a_character_or_an_escape),
        cmocka_unit_test(columns_are_those_of_a_terminal),
        cmocka_unit_test(a_cut_text_ends_with_an_ellipsis_and_keeps_the_width),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
