#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "receiver/base/utf8.h"
#include "receiver/cli/table.h"

static const struct table_column columns[] = {
    { "NAME", false, true },
    { "SIZE", true, false },
    { "PATH", false, true },
};

static char *printed(const struct table *t, unsigned width, unsigned indent)
{
    static char text[4096];
    FILE *out = fmemopen(text, sizeof text, "w");

    text[0] = 0;
    assert_non_null(out);
    table_print(t, out, width, indent);
    fclose(out);
    return text;
}

static void columns_are_as_wide_as_they_need(void **state)
{
    struct table *t;

    (void)state;
    assert_int_equal(table_new(&t, columns, 3, NULL), 0);
    assert_int_equal(table_row(t, (const char *[]){ "a", "1 B", "/p" }, NULL), 0);
    assert_int_equal(table_row(t, (const char *[]){ "longer", "10.0 GiB", NULL }, NULL), 0);
    assert_int_equal(table_row(t, (const char *[]){ "b", "2 B", "" }, NULL), 0);
    assert_string_equal(printed(t, 80, 2), "  NAME        SIZE  PATH\n"
                                           "  a            1 B  /p\n"
                                           "  longer  10.0 GiB  -\n"
                                           "  b            2 B\n");
    table_free(t);
}

static void a_table_without_rows_prints_nothing(void **state)
{
    struct table *t;

    (void)state;
    assert_int_equal(table_new(&t, columns, 3, NULL), 0);
    assert_string_equal(printed(t, 80, 0), "");
    table_free(t);
}

static void every_line_fits_into_80_columns(void **state)
{
    char name[200];
    struct table *t;
    char *rest, *line;
    int lines = 0;

    (void)state;
    assert_int_equal(table_new(&t, columns, 3, NULL), 0);
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = 0;
    for (int i = 0; i < 50; i++)
        assert_int_equal(table_row(t, (const char *[]){ name + i * 3, "1023 B", name }, NULL), 0);
    assert_int_equal(table_row(t,
                               (const char *[]){ "\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad"
                                                 "\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad"
                                                 "\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad"
                                                 "\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad"
                                                 "\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad",
                                                 "1 B", "x" },
                               NULL),
                     0);
    for (line = strtok_r(printed(t, 80, 0), "\n", &rest); line != NULL && lines < 30;
         line = strtok_r(NULL, "\n", &rest), lines++)
        assert_true(utf8_columns(line) <= 80);
    assert_true(lines > 5);
    table_free(t);
}

static void columns_that_may_not_shrink_stay_whole(void **state)
{
    struct table *t;

    (void)state;
    assert_int_equal(table_new(&t, columns, 3, NULL), 0);
    assert_int_equal(
        table_row(t, (const char *[]){ "webserver01", "123456789 GiB", "/vmfs/volumes/x" }, NULL),
        0);
    assert_string_equal(printed(t, 20, 0),
                        "NAME               SIZE  PATH\n"
                        "webserv\xe2\x80\xa6  123456789 GiB  /vmfs/v\xe2\x80\xa6\n");
    table_free(t);
}

static void names_are_escaped(void **state)
{
    struct table *t;

    (void)state;
    assert_int_equal(table_new(&t, columns, 3, NULL), 0);
    assert_int_equal(table_row(t, (const char *[]){ "a\x1b[2J\nb", "1 B", "\xff" }, NULL), 0);
    assert_string_equal(printed(t, 80, 0), "NAME         SIZE  PATH\n"
                                           "a\\x1b[2J\\nb   1 B  \\xff\n");
    table_free(t);
}

static void a_paragraph_breaks_at_blanks(void **state)
{
    char text[512];
    FILE *out = fmemopen(text, sizeof text, "w");

    (void)state;
    text_wrap(out, "ok    disk ", "one two three four averyveryverylongwordindeed five", 12, 24);
    text_wrap(out, "", "", 2, 24);
    fclose(out);
    assert_string_equal(text, "ok    disk  one two\n"
                              "            three four\n"
                              "            averyveryverylongwordindeed\n"
                              "            five\n"
                              "  \n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_as_wide_as_they_need),
        cmocka_unit_test(a_table_without_rows_prints_nothing),
        cmocka_unit_test(every_line_fits_into_80_columns),
        cmocka_unit_test(columns_that_may_not_shrink_stay_whole),
        cmocka_unit_test(names_are_escaped),
        cmocka_unit_test(a_paragraph_breaks_at_blanks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
