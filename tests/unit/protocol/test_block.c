#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/tree.h"

enum { KIB = 1024, BLOCK = 16 * KIB };

static struct digest_secret secret_of(unsigned seed)
{
    struct digest_secret s;

    srand(seed);
    for (size_t i = 0; i < sizeof s.b; i++)
        s.b[i] = (uint8_t)rand();
    return s;
}

static void the_zero_test_sees_every_byte(void **state)
{
    static const size_t sizes[] = { 1, 7, 63, 64, 65, 127, 512, 4096 };
    uint8_t b[4096] = { 0 };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        assert_true(block_is_zero(b, sizes[i]));
        for (size_t at = 0; at < sizes[i]; at++) {
            b[at] = 0x80;
            assert_false(block_is_zero(b, sizes[i]));
            b[at] = 0;
        }
    }
}

static void digests_depend_on_the_secret_and_zero_is_zero(void **state)
{
    struct digest_secret s1 = secret_of(1), s2 = secret_of(2);
    uint8_t b[BLOCK] = { 0 };
    struct digest d1 = digest_of(&s1, b, sizeof b), d2;
    char hex[DIGEST_HEX_BYTES];

    (void)state;
    assert_true(digest_is_zero(&d1));
    b[5] = 1;
    d1 = digest_of(&s1, b, sizeof b);
    d2 = digest_of(&s2, b, sizeof b);
    assert_false(digest_is_zero(&d1));
    assert_false(digest_equal(&d1, &d2));
    digest_hex(&d1, hex);
    assert_true(digest_from_hex(&d2, hex));
    assert_true(digest_equal(&d1, &d2));
    hex[3] = 'G';
    assert_false(digest_from_hex(&d2, hex));
    assert_false(digest_from_hex(&d2, "00"));
}

/* The root of a disk given as digests, added in one of several ways. */
static struct digest root_of(const struct digest *digests, uint64_t blocks, unsigned way)
{
    struct digest_secret s = secret_of(3);
    struct tree *t = NULL, *other = NULL;
    struct digest root;
    struct err e;

    assert_int_equal(tree_new(&t, &s, blocks * BLOCK - 512, BLOCK, &e), 0);
    for (uint64_t i = 0; i < blocks;) {
        uint64_t zeros = 0;

        while (i + zeros < blocks && digest_is_zero(&digests[i + zeros]))
            zeros++;
        if (zeros > 0 && way > 0) {
            assert_int_equal(tree_add_zeros(t, zeros, &e), 0);
            i += zeros;
        } else {
            assert_int_equal(tree_add(t, &digests[i], 1, &e), 0);
            i++;
        }
        /* Way 2: hand over to another tree by its nodes, again and again. */
        if (way == 2 && rand() % 64 == 0) {
            uint64_t count = tree_export(t, NULL, 0);
            struct tree_node *nodes = calloc(count + 1, sizeof *nodes);

            tree_export(t, nodes, count);
            assert_int_equal(tree_new(&other, &s, blocks * BLOCK - 512, BLOCK, &e), 0);
            for (uint64_t k = 0; k < count; k++)
                assert_int_equal(tree_add_node(other, &nodes[k], &e), 0);
            assert_int_equal(tree_position(other), tree_position(t));
            free(nodes);
            tree_free(t);
            t = other;
        }
    }
    assert_int_equal(tree_root(t, &root, &e), 0);
    tree_free(t);
    return root;
}

static void a_root_does_not_depend_on_how_it_was_built(void **state)
{
    static const uint64_t sizes[] = { 1, 2, 1023, 1024, 1025, 2048, 5000 };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(sizes); k++) {
        uint64_t n = sizes[k];
        struct digest *d = calloc(n, sizeof *d);
        struct digest a, b, c;

        srand((unsigned)n);
        for (uint64_t i = 0; i < n; i++)
            if ((i / 700) % 2 == 0 && rand() % 3 != 0)
                d[i].b[rand() % DIGEST_BYTES] = (uint8_t)(1 + rand() % 255);
        a = root_of(d, n, 0);
        b = root_of(d, n, 1);
        c = root_of(d, n, 2);
        assert_true(digest_equal(&a, &b));
        assert_true(digest_equal(&a, &c));
        d[n / 2].b[3] ^= 1;
        b = root_of(d, n, 0);
        assert_false(digest_equal(&a, &b));
        free(d);
    }
}

static void an_empty_giant_costs_nothing(void **state)
{
    struct digest_secret s = secret_of(4);
    uint64_t capacity = (uint64_t)62 << 40;
    struct digest root;
    struct tree *t = NULL;
    struct err e;

    (void)state;
    assert_int_equal(tree_new(&t, &s, capacity, BLOCK, &e), 0);
    assert_int_equal(tree_add_zeros(t, 12345, &e), 0);
    assert_int_equal(tree_add_zeros(t, capacity / BLOCK - 12345, &e), 0);
    assert_int_equal(tree_root(t, &root, &e), 0);
    assert_false(digest_is_zero(&root));
    assert_int_equal(tree_add_zeros(t, 1, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    tree_free(t);
}

static void wrong_nodes_are_refused(void **state)
{
    struct digest_secret s = secret_of(5);
    struct tree_node node = { 1, { { 9 } } };
    struct digest d = { { 1 } };
    struct tree *t = NULL;
    struct err e;

    (void)state;
    assert_int_equal(tree_new(&t, &s, 3000 * (uint64_t)BLOCK, BLOCK, &e), 0);
    assert_int_equal(tree_add(t, &d, 1, &e), 0);
    assert_int_equal(tree_add_node(t, &node, &e), -1);
    node.level = 7;
    assert_int_equal(tree_add_node(t, &node, &e), -1);
    assert_int_equal(tree_root(t, &d, &e), -1);
    tree_free(t);
    assert_int_equal(tree_new(&t, &s, 0, BLOCK, &e), -1);
    assert_int_equal(tree_new(&t, &s, 1, 12345, &e), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_zero_test_sees_every_byte),
        cmocka_unit_test(digests_depend_on_the_secret_and_zero_is_zero),
        cmocka_unit_test(a_root_does_not_depend_on_how_it_was_built),
        cmocka_unit_test(an_empty_giant_costs_nothing),
        cmocka_unit_test(wrong_nodes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
