/* The generation that a user means, over a list of two VMs. */
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/restore/generation.h"
#include "tests/unit/cmocka_all.h"

#define ITEM(p, n, id_text, name, result)                                                          \
    {                                                                                              \
        .place = p, .number = n, .id = id_text, .vm = name, .vm_now = "web", .uuid = "u-" p,       \
        .host = "esx1", .time = INT64_C(1795176000) + (n)*60, .outcome = result                    \
    }

static const struct generation_item items[] = {
    ITEM("a", 1, "36793961aaaaaaaaaaaaaaaaaaaaaaaa", "old", "ok"),
    ITEM("a", 2, "abcd0000000000000000000000000000", "web", "ok"),
    ITEM("a", 12345, "abcd1000000000000000000000000000", "web", "partial"),
};

static const struct generation_item *at(const void *context, size_t index)
{
    (void)context;
    return &items[index];
}

static uint64_t found(const char *gen, uint64_t *partial)
{
    const struct generation_list l = { .count = ARRAY_COUNT(items), .at = at };
    const struct generation_item *g = NULL;
    struct err e;

    return generation_find(&l, gen, &g, partial, &e) == 0 ? g->number : 0;
}

static void numbers_names_and_ids(void **state)
{
    uint64_t partial = 9;

    (void)state;
    assert_int_equal(found("2", NULL), 2);
    assert_int_equal(found("12345", NULL), 12345);
    assert_int_equal(found("web@1", NULL), 1);
    assert_int_equal(found("old@2", NULL), 2);
    assert_int_equal(found("esx1/web@2", NULL), 2);
    assert_int_equal(found("uuid:U-A@2", NULL), 2);
    assert_int_equal(found("web@latest", &partial), 2);
    assert_int_equal(partial, 12345);
    assert_int_equal(found("abcd0", NULL), 2);
    assert_int_equal(found("abcd", NULL), 0); /* two of them */
    assert_int_equal(found("abc", NULL), 0);
    assert_int_equal(found("3", NULL), 0);
    assert_int_equal(found("nobody@1", NULL), 0);
}

static void an_id_of_digits_is_an_id(void **state)
{
    (void)state;
    assert_int_equal(found("36793961", NULL), 1);
    assert_int_equal(found("3679", NULL), 1);
    assert_int_equal(found("36793962", NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_names_and_ids),
        cmocka_unit_test(an_id_of_digits_is_an_id),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
