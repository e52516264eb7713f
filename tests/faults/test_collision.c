/*
 * Two blocks that a guest can choose so that XXH3-64 and XXH3-128 without a secret are equal: the
 * digest is keyed with a secret that the guest does not know, so a change from one to the other is
 * seen, sent and stored.
 */
#include "tests/unit/cmocka_all.h"

#include <stdint.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "tests/faults/collision.h"
#include "tests/unit/mirror/fixture.h"

static void the_pair_is_one(void **state)
{
    uint8_t a[BLOCK], b[BLOCK];
    XXH128_hash_t x, y;

    (void)state;
    collision_make(a, b, BLOCK);
    assert_memory_not_equal(a, b, BLOCK);
    assert_true(XXH3_64bits(a, BLOCK) == XXH3_64bits(b, BLOCK));
    x = XXH3_128bits(a, BLOCK);
    y = XXH3_128bits(b, BLOCK);
    assert_true(XXH128_isEqual(x, y));
    /* Of a piece of 4 KiB, too. */
    assert_true(XXH3_64bits(a, 4096) == XXH3_64bits(b, 4096));
}

static void a_change_between_the_two_is_sent(void **state)
{
    struct host h;
    struct disk *d;
    uint64_t number;
    struct err e;

    (void)state;
    host_new(&h);
    d = host_add(&h, "scsi0:0", "60 00 C2 91 00 00 00 00-00 00 00 00 00 00 00 0a", 8 * BLOCK);
    for (int round = 0; round < 4; round++) {
        uint8_t pair[2][BLOCK];
        struct walk w = { 0 };

        collision_make(pair[0], pair[1], BLOCK);
        memcpy(d->data + 3 * BLOCK, pair[round % 2], BLOCK);
        memcpy(d->data + 5 * BLOCK, pair[round / 2], BLOCK);
        assert_ok(host_run(&h, &w, &number, &e), &e);
        assert_int_equal(w.sent, round == 0 ? 2 : round == 2 ? 2 : 1);
        assert_image(in_mirror(&h, "web01", ""), "disk-scsi0-0.raw", d);
    }
    host_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pair_is_one),
        cmocka_unit_test(a_change_between_the_two_is_sent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
