/* Work in several threads, results in order. */
#include <stdatomic.h>

#include "protocol/base/err.h"
#include "receiver/job/ordered.h"
#include "tests/unit/cmocka_all.h"

enum { ITEMS = 7, WORK = 5000 };

struct run {
    int made, taken, fail_next, fail_work, fail_take;
    atomic_int under_way;
};

struct item {
    int number, square;
};

static int next(void *context, void *item, struct err *e)
{
    struct run *r = context;
    struct item *i = item;

    if (r->made == WORK)
        return 0;
    if (r->made == r->fail_next)
        return err_set(e, ERR_SOURCE, "next %d", r->made);
    atomic_fetch_add(&r->under_way, 1);
    i->number = r->made++;
    return 1;
}

static int work(void *context, void *item, struct err *e)
{
    struct run *r = context;
    struct item *i = item;

    atomic_fetch_sub(&r->under_way, 1);
    i->square = i->number * i->number;
    return i->number == r->fail_work ? err_set(e, ERR_CORRUPT, "work %d", i->number) : 0;
}

static int take(void *context, void *item, struct err *e)
{
    struct run *r = context;
    const struct item *i = item;

    assert_int_equal(i->number, r->taken);
    assert_int_equal(i->square, i->number * i->number);
    if (i->number == r->fail_take)
        return err_set(e, ERR_SPACE, "take %d", i->number);
    r->taken++;
    return 0;
}

static int run(struct run *r, unsigned workers, struct err *e)
{
    struct item items[ITEMS];
    void *places[ITEMS];
    const struct ordered_config config = {
        .workers = workers,
        .items = places,
        .item_count = ITEMS,
        .next = next,
        .work = work,
        .take = take,
        .context = r,
    };
    int rc;

    for (int i = 0; i < ITEMS; i++)
        places[i] = &items[i];
    rc = ordered_run(&config, e);
    assert_int_equal(atomic_load(&r->under_way), 0);
    return rc;
}

static void all_is_taken_in_order(void **state)
{
    struct err e;

    (void)state;
    for (unsigned workers = 0; workers < 5; workers++) {
        struct run r = { .fail_next = -1, .fail_work = -1, .fail_take = -1 };

        assert_int_equal(run(&r, workers, &e), 0);
        assert_int_equal(r.taken, WORK);
    }
}

static void the_first_failure_ends_it(void **state)
{
    struct err e;

    (void)state;
    for (unsigned workers = 0; workers < 4; workers++) {
        struct run a = { .fail_next = 50, .fail_work = -1, .fail_take = -1 };
        struct run b = { .fail_next = -1, .fail_work = 60, .fail_take = -1 };
        struct run c = { .fail_next = -1, .fail_work = -1, .fail_take = 70 };

        assert_int_equal(run(&a, workers, &e), -1);
        assert_int_equal(e.code, ERR_SOURCE);
        assert_int_equal(run(&b, workers, &e), -1);
        assert_int_equal(e.code, ERR_CORRUPT);
        assert_int_equal(b.taken, 60);
        assert_int_equal(run(&c, workers, &e), -1);
        assert_int_equal(e.code, ERR_SPACE);
        assert_int_equal(c.taken, 70);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_taken_in_order),
        cmocka_unit_test(the_first_failure_ends_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
