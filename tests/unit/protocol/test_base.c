#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"

static void errors_gather_context(void **state)
{
    struct err e;

    (void)state;
    errno = ENOSPC;
    assert_int_equal(err_sys(&e, "writing"), -1);
    assert_int_equal(e.code, ERR_SPACE);
    assert_int_equal(err_add(&e, "disk %s", "scsi0:0"), -1);
    assert_string_equal(e.text, "disk scsi0:0: writing: No space left on device");
    assert_int_equal(err_set(NULL, ERR_LIMIT, "nobody listens"), -1);
}

static void a_long_text_is_cut(void **state)
{
    char longer[1000];
    struct err e;

    (void)state;
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    err_set(&e, ERR_LIMIT, "%s", longer);
    err_add(&e, "front");
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    assert_memory_equal(e.text, "front: x", 8);
}

static void arithmetic_that_does_not_fit_is_refused(void **state)
{
    uint64_t out = 7;

    (void)state;
    assert_false(checked_add(UINT64_MAX, 1, &out));
    assert_false(checked_mul(UINT64_MAX / 2, 3, &out));
    assert_int_equal(out, 7);
    assert_true(checked_mul(0, UINT64_MAX, &out));
    assert_int_equal(out, 0);
}

static void cursors_stay_inside(void **state)
{
    uint8_t b[16] = { 0 };
    struct push w = { .at = b, .left = 13 };
    struct pull r = { .at = b, .left = 13 };

    (void)state;
    push_u64(&w, 0x0102030405060708u);
    push_u32(&w, 0xa1b2c3d4u);
    push_u16(&w, 1);
    assert_true(w.full);
    assert_int_equal(b[0], 8);
    assert_int_equal(b[12], 0);
    assert_true(pull_u64(&r) == 0x0102030405060708u);
    assert_int_equal(pull_u32(&r), 0xa1b2c3d4u);
    assert_int_equal(pull_u16(&r), 0);
    assert_true(r.spent);
    assert_int_equal(pull_u8(&r), 0);
}

static void a_buffer_keeps_its_ceiling(void **state)
{
    struct bytes b = { .ceiling = 1000 };
    struct err e;
    char piece[300] = { 'a' };

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(bytes_append(&b, piece, sizeof piece, &e), 0);
    assert_int_equal(bytes_append(&b, piece, sizeof piece, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    assert_int_equal(b.count, 900);
    assert_int_equal(strlen(bytes_text(&b, &e)), 1);
    bytes_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_gather_context),
        cmocka_unit_test(a_long_text_is_cut),
        cmocka_unit_test(arithmetic_that_does_not_fit_is_refused),
        cmocka_unit_test(cursors_stay_inside),
        cmocka_unit_test(a_buffer_keeps_its_ceiling),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
