/* A set of ids. */
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/job/id_set.h"
#include "receiver/repo/repo.h"
#include "tests/unit/cmocka_all.h"

enum { COUNT = 50000 };

/* Half of them share their first bytes, as ids never do: places that collide. */
static struct repo_id id_of(uint32_t n)
{
    struct repo_id id = { { 0 } };

    if (n % 2 == 0)
        memcpy(id.b, &n, sizeof n);
    memcpy(id.b + 4, &n, sizeof n);
    id.b[20] = (uint8_t)n;
    return id;
}

static void what_was_added_is_there_and_nothing_else(void **state)
{
    struct id_set *s;
    struct err e;

    (void)state;
    for (size_t bytes = 8; bytes <= 32; bytes += 24) {
        assert_int_equal(id_set_new(&s, bytes, &e), 0);
        for (uint32_t n = 0; n < COUNT; n++) { /* the first is all zeros */
            struct repo_id id = id_of(n);

            assert_false(id_set_has(s, &id));
            assert_int_equal(id_set_add(s, &id, &e), 1);
            assert_int_equal(id_set_add(s, &id, &e), 0);
        }
        assert_int_equal(id_set_count(s), COUNT);
        for (uint32_t n = 0; n < 2 * COUNT; n++) {
            struct repo_id id = id_of(n);

            assert_int_equal(id_set_has(s, &id), n < COUNT);
        }
        id_set_free(s);
    }
    id_set_free(NULL);
}

static void ids_that_differ_at_their_end_are_told_apart(void **state)
{
    struct repo_id a = id_of(4), b = id_of(4);
    struct id_set *whole, *part;
    struct err e;

    (void)state;
    b.b[31] = 1;
    assert_int_equal(id_set_new(&whole, 32, &e), 0);
    assert_int_equal(id_set_new(&part, 8, &e), 0);
    assert_int_equal(id_set_add(whole, &a, &e), 1);
    assert_int_equal(id_set_add(part, &a, &e), 1);
    assert_false(id_set_has(whole, &b));
    assert_true(id_set_has(part, &b)); /* that is the bargain */
    id_set_free(whole);
    id_set_free(part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_added_is_there_and_nothing_else),
        cmocka_unit_test(ids_that_differ_at_their_end_are_told_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
