/*
 * Every byte of a small repository flipped, every object removed, cut, and exchanged with another:
 * found, and never a wrong restore without an error.  VMFERRY_TEST_WHOLE=1 in the environment takes
 * all bytes instead of every 13th.
 */
#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "receiver/storage/storage_memory.h"
#include "tests/unit/repo/verify.h"


enum { STRIDE_USUAL = 13 };

struct scene {
    struct host h;
    struct storage *s;
    const char *passphrase;
    struct disk first, second;
    struct expected expected;
    struct err e;
};

static void fill(struct scene *f)
{
    struct disk *d;
    struct backup one = { .passphrase = f->passphrase }, two = one, cut = one;

    host_new(&f->h);
    assert_ok(storage_memory_new(&f->s, &f->e), &f->e);
    make_repo(f->s, f->passphrase);
    assert_ok(storage_remove(f->s, "reserve", &f->e), &f->e); /* no check looks into it */
    d = host_add(&f->h, "scsi0:0", UUID_A, 3 * BLOCK + 512);
    memset(d->data, 'a', 100);
    memset(d->data + 3 * BLOCK, 'b', 512);
    assert_ok(back_up(f->s, &f->h, &one, &f->e), &f->e);
    disk_copy(&f->first, d);
    memset(d->data + BLOCK, 'c', 50);
    two.walk.raw = true;
    assert_ok(back_up(f->s, &f->h, &two, &f->e), &f->e);
    disk_copy(&f->second, d);
    memset(d->data + 2 * BLOCK, 'd', 10);
    cut.walk.stop_at = 3;
    assert_int_equal(back_up(f->s, &f->h, &cut, &f->e), -1);
    f->expected = (struct expected){ .disks = { NULL, &f->first, &f->second }, .count = 2 };
    assert_int_equal(count_objects(f->s, "partial/", NULL), 1);
}

static int set_up(void **state, const char *passphrase)
{
    struct scene *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->passphrase = passphrase;
    fill(f);
    *state = f;
    return 0;
}

static int set_up_plain(void **state)
{
    return set_up(state, NULL);
}

static int set_up_sealed(void **state)
{
    return set_up(state, "it");
}

static int tear_down(void **state)
{
    struct scene *f = *state;

    storage_close(f->s);
    free(f->first.data);
    free(f->second.data);
    host_free(&f->h);
    free(f);
    return 0;
}

static unsigned faults(struct scene *f)
{
    return count_faults(f->s, f->passphrase, &f->expected, &f->h, &f->e);
}

/* The names now, in one block of memory; *count of them. */
static struct storage_item *objects(struct scene *f, size_t *count)
{
    size_t room = count_objects(f->s, "", NULL);
    struct storage_item *all = calloc(room, sizeof all[0]);
    struct storage_list *list;

    assert_non_null(all);
    assert_ok(storage_list(f->s, "", &list, &f->e), &f->e);
    for (*count = 0; *count < room; (*count)++)
        assert_int_equal(storage_next(list, &all[*count], &f->e), 1);
    storage_list_end(list);
    return all;
}

static void every_flipped_byte_is_found(void **state)
{
    struct scene *f = *state;
    unsigned stride = getenv("VMFERRY_TEST_WHOLE") != NULL ? 1 : STRIDE_USUAL;
    size_t count, tried = 0;
    struct storage_item *all = objects(f, &count);

    if (faults(f) != 0)
        fail_msg("%s", f->e.text);
    for (size_t i = 0; i < count; i++)
        for (uint64_t at = i % stride; at < all[i].size_bytes; at += stride, tried++) {
            uint8_t mask = (uint8_t)(1u << (at + i) % 8);

            assert_ok(storage_memory_flip(f->s, all[i].name, at, mask, &f->e), &f->e);
            if (faults(f) == 0)
                fail_msg("%s: nobody sees that byte %d is another", all[i].name, (int)at);
            assert_ok(storage_memory_flip(f->s, all[i].name, at, mask, &f->e), &f->e);
        }
    assert_int_equal(faults(f), 0);
    print_message("%zu bytes of %zu objects\n", tried, count);
    free(all);
}

/* A repository without this object: the damage is seen, or the object is one that may be missing.
 */
static void every_missing_or_cut_object_is_found(void **state)
{
    struct scene *f = *state;
    size_t count;
    struct storage_item *all = objects(f, &count);

    for (size_t i = 0; i < count; i++) {
        bool may_miss = strncmp(all[i].name, "partial/", 8) == 0;
        struct bytes b = { 0 };

        assert_ok(storage_load(f->s, all[i].name, &b, 1 << 20, &f->e), &f->e);
        assert_ok(storage_remove(f->s, all[i].name, &f->e), &f->e);
        if (!may_miss && faults(f) == 0)
            fail_msg("nobody misses %s", all[i].name);
        for (size_t cut = 0; cut < b.count; cut += b.count / 5 + 1) {
            assert_ok(storage_put(f->s, all[i].name, b.data, cut, &f->e), &f->e);
            if (faults(f) == 0)
                fail_msg("nobody sees that %s is cut at %zu", all[i].name, cut);
            assert_ok(storage_remove(f->s, all[i].name, &f->e), &f->e);
        }
        /* A byte too many. */
        b.ceiling++;
        assert_ok(bytes_append(&b, "x", 1, &f->e), &f->e);
        assert_ok(storage_put(f->s, all[i].name, b.data, b.count, &f->e), &f->e);
        if (faults(f) == 0)
            fail_msg("nobody sees that %s is longer", all[i].name);
        assert_ok(storage_remove(f->s, all[i].name, &f->e), &f->e);
        assert_ok(storage_put(f->s, all[i].name, b.data, b.count - 1, &f->e), &f->e);
        bytes_free(&b);
    }
    assert_int_equal(faults(f), 0);
    free(all);
}

static void every_two_exchanged_objects_are_found(void **state)
{
    struct scene *f = *state;
    size_t count;
    struct storage_item *all = objects(f, &count);

    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i; k++) {
            struct bytes a = { 0 }, b = { 0 };

            assert_ok(storage_load(f->s, all[i].name, &a, 1 << 20, &f->e), &f->e);
            assert_ok(storage_load(f->s, all[k].name, &b, 1 << 20, &f->e), &f->e);
            for (unsigned back = 0; back < 2; back++) {
                const struct bytes *x = back ? &a : &b, *y = back ? &b : &a;

                assert_ok(storage_remove(f->s, all[i].name, &f->e), &f->e);
                assert_ok(storage_remove(f->s, all[k].name, &f->e), &f->e);
                assert_ok(storage_put(f->s, all[i].name, x->data, x->count, &f->e), &f->e);
                assert_ok(storage_put(f->s, all[k].name, y->data, y->count, &f->e), &f->e);
                if (back == 0 && faults(f) == 0)
                    fail_msg("nobody sees that %s and %s are exchanged", all[i].name, all[k].name);
            }
            bytes_free(&a);
            bytes_free(&b);
        }
    assert_int_equal(faults(f), 0);
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_flipped_byte_is_found, set_up_plain, tear_down),
        cmocka_unit_test_setup_teardown(every_flipped_byte_is_found, set_up_sealed, tear_down),
        cmocka_unit_test_setup_teardown(every_missing_or_cut_object_is_found, set_up_plain,
                                        tear_down),
        cmocka_unit_test_setup_teardown(every_missing_or_cut_object_is_found, set_up_sealed,
                                        tear_down),
        cmocka_unit_test_setup_teardown(every_two_exchanged_objects_are_found, set_up_plain,
                                        tear_down),
        cmocka_unit_test_setup_teardown(every_two_exchanged_objects_are_found, set_up_sealed,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
