/* What a repository is, and who may open it. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "receiver/base/secret.h"
#include "receiver/repo/repo_private.h"
#include "tests/unit/repo/fixture.h"

static void a_key_for_an_open_repository_is_refused(void **state)
{
    struct fixture *f = *state;
    struct repo *r;

    make_repo(f->s, NULL);
    assert_int_equal(open_repo(f->s, "secret", NULL, REPO_SHARED, NULL, &r, &f->e), -1);
    assert_int_equal(f->e.code, ERR_REFUSED);
}

static void keys_are_added_exported_and_removed(void **state)
{
    struct fixture *f = *state;
    struct repo_hardness easy = { .passes = 1, .memory_bytes = 8 << 10 };
    struct repo_open_options o = { .access = REPO_SHARED };
    char path[128], first[REPO_SLOT_HEX_BYTES], second[REPO_SLOT_HEX_BYTES];
    struct secret other = { 0 };
    struct repo_slot *slots;
    size_t count, own;
    struct repo *r;

    make_repo(f->s, "one");
    assert_ok(open_repo(f->s, "one", NULL, REPO_SHARED, NULL, &r, &f->e), &f->e);
    assert_ok(secret_set(&other, "two", 3, &f->e), &f->e);
    assert_ok(repo_slot_add(r, &other, &easy, "the second", second, &f->e), &f->e);
    snprintf(path, sizeof path, "%s/key", f->h.dir);
    assert_ok(repo_slot_export(r, path, "in the safe", NULL, &f->e), &f->e);
    assert_int_equal(repo_slot_export(r, path, "again", NULL, &f->e), -1);
    assert_int_equal(f->e.code, ERR_REFUSED);
    assert_ok(repo_slot_list(r, &slots, &count, &own, &f->e), &f->e);
    assert_int_equal(count, 3);
    assert_true(own < 3);
    memcpy(first, slots[own].name, sizeof first);
    free(slots);
    assert_int_equal(repo_slot_remove(r, first, false, &f->e), -1);
    assert_int_equal(f->e.code, ERR_REFUSED);
    assert_ok(repo_slot_remove(r, first, true, &f->e), &f->e);
    repo_close(r);
    secret_free(&other);

    assert_int_equal(open_repo(f->s, "one", NULL, REPO_SHARED, NULL, &r, &f->e), -1);
    assert_int_equal(f->e.code, ERR_AUTH);
    assert_ok(open_repo(f->s, "two", NULL, REPO_SHARED, NULL, &r, &f->e), &f->e);
    repo_close(r);
    o.unlock.key_file = path;
    assert_ok(repo_open(&r, f->s, &o, &f->e), &f->e);
    assert_ok(repo_slot_remove(r, second, false, &f->e), &f->e);
    assert_ok(repo_slot_list(r, &slots, &count, &own, &f->e), &f->e);
    assert_int_equal(count, 1);
    assert_int_equal(repo_slot_remove(r, slots[0].name, true, &f->e), -1);
    assert_int_equal(f->e.code, ERR_REFUSED);
    free(slots);
    repo_close(r);
}

static void a_changed_config_is_noticed_by_its_keys(void **state)
{
    struct fixture *f = *state;
    struct config c;
    struct vault *v;
    struct repo *r;

    make_repo(f->s, "one");
    assert_ok(config_load(&c, f->s, false, &f->e), &f->e);
    assert_ok(vault_new(&v, &c.repository, &f->e), &f->e);
    c.append_only = 1;
    assert_ok(storage_remove(f->s, "config", &f->e), &f->e);
    assert_ok(config_save(&c, f->s, v, true, &f->e), &f->e);
    assert_int_equal(open_repo(f->s, "one", NULL, REPO_SHARED, NULL, &r, &f->e), -1);
    assert_int_equal(f->e.code, ERR_CORRUPT);
    vault_free(v);
    config_free(&c);
}

static void unknown_features_are_refused(void **state)
{
    struct fixture *f = *state;
    struct repo_open_options read_only = { .read_only = true };
    struct config c;
    struct vault *v;
    struct repo *r;

    make_repo(f->s, NULL);
    assert_ok(config_load(&c, f->s, false, &f->e), &f->e);
    assert_ok(vault_new(&v, &c.repository, &f->e), &f->e);
    c.features_write = 4;
    assert_ok(storage_remove(f->s, "config", &f->e), &f->e);
    assert_ok(config_save(&c, f->s, v, true, &f->e), &f->e);
    assert_int_equal(open_repo(f->s, NULL, NULL, REPO_SHARED, NULL, &r, &f->e), -1);
    assert_int_equal(f->e.code, ERR_UNSUPPORTED);
    assert_ok(repo_open(&r, f->s, &read_only, &f->e), &f->e);
    assert_int_equal(repo_flush(r, &f->e), -1);
    repo_close(r);

    c.features_read = 1;
    assert_ok(storage_remove(f->s, "config", &f->e), &f->e);
    assert_ok(config_save(&c, f->s, v, true, &f->e), &f->e);
    assert_int_equal(repo_open(&r, f->s, &read_only, &f->e), -1);
    assert_int_equal(f->e.code, ERR_UNSUPPORTED);
    vault_free(v);
    config_free(&c);
}

static void a_place_without_repository_is_never_one(void **state)
{
    struct fixture *f = *state;
    struct repo_create_options o = { 0 };
    struct repo *r;

    assert_int_equal(open_repo(f->s, NULL, NULL, REPO_SHARED, NULL, &r, &f->e), -1);
    assert_int_equal(f->e.code, ERR_NOT_FOUND);
    assert_int_equal(count_objects(f->s, "", NULL), 0);
    make_repo(f->s, NULL);
    assert_int_equal(repo_create(f->s, &o, &f->e), -1);
    assert_int_equal(f->e.code, ERR_REFUSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_key_for_an_open_repository_is_refused, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(keys_are_added_exported_and_removed, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(a_changed_config_is_noticed_by_its_keys, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(unknown_features_are_refused, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(a_place_without_repository_is_never_one, fixture_set_up,
                                        fixture_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
