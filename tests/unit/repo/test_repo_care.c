/* Forgetting, pins and tags; packs collected, checked, healed and indexed anew. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "protocol/base/bytes.h"
#include "receiver/repo/repo_private.h"
#include "receiver/repo/repo_verified.h"
#include "receiver/storage/storage_memory.h"
#include "tests/unit/repo/collect.h"


struct scene {
    struct host h;
    struct storage *s;
    struct disk truths[GENERATIONS_MAX];
    unsigned generations;
    struct err e;
};

static int set_up(void **state)
{
    struct scene *f = calloc(1, sizeof *f);

    assert_non_null(f);
    host_new(&f->h);
    assert_ok(storage_memory_new(&f->s, &f->e), &f->e);
    make_repo(f->s, NULL);
    host_add(&f->h, "scsi0:0", UUID_A, 1100 * (uint64_t)BLOCK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *f = *state;

    for (unsigned i = 1; i <= f->generations; i++)
        free(f->truths[i].data);
    storage_close(f->s);
    host_free(&f->h);
    free(f);
    return 0;
}

/* A generation in which this block is another. */
static void back_up_with(struct scene *f, uint64_t block, unsigned seed)
{
    struct backup b = { 0 };

    disk_set(&f->h.disks[0], block, seed);
    assert_ok(back_up(f->s, &f->h, &b, &f->e), &f->e);
    f->generations++;
    disk_copy(&f->truths[b.number], &f->h.disks[0]);
}

static struct repo *open_exclusive(struct scene *f, struct repo_key *vm)
{
    struct repo *r;

    assert_ok(open_repo(f->s, NULL, NULL, REPO_EXCLUSIVE, &f->h, &r, &f->e), &f->e);
    *vm = only_vm(r);
    return r;
}

static void assert_restores(struct scene *f, uint64_t number)
{
    struct repo_key vm;
    struct repo *r = open_exclusive(f, &vm);
    int has = generation_has(r, &vm, number, "scsi0:0", &f->truths[number], &f->e);

    if (has != 1)
        fail_msg("generation %d: %s", (int)number, has < 0 ? f->e.text : "wrong content");
    repo_close(r);
}

static int join_tag(void *context, const char *tag, struct err *e)
{
    (void)e;
    strcat(context, tag);
    strcat(context, " ");
    return 0;
}

static void generations_are_forgotten_unless_pinned(void **state)
{
    struct scene *f = *state;
    struct repo_key vm;
    struct repo *r;
    char tags[100] = "";

    back_up_with(f, 1, 1);
    back_up_with(f, 2, 2);
    r = open_exclusive(f, &vm);
    assert_ok(repo_pin(r, &vm, 2, true, &f->e), &f->e);
    assert_ok(repo_pin(r, &vm, 2, true, &f->e), &f->e);
    assert_int_equal(repo_is_pinned(r, &vm, 2, &f->e), 1);
    assert_int_equal(repo_is_pinned(r, &vm, 1, &f->e), 0);
    assert_int_equal(repo_forget(r, &vm, 2, &f->e), -1);
    assert_int_equal(f->e.code, ERR_REFUSED);
    assert_int_equal(repo_forget(r, &vm, 3, &f->e), -1);
    assert_int_equal(f->e.code, ERR_NOT_FOUND);
    assert_int_equal(repo_pin(r, &vm, 3, true, &f->e), -1);
    assert_ok(repo_tag_add(r, &vm, 2, "before the upgrade", &f->e), &f->e);
    assert_ok(repo_tag_add(r, &vm, 2, "before the upgrade", &f->e), &f->e);
    assert_ok(repo_tags(r, &vm, 2, join_tag, tags, &f->e), &f->e);
    assert_string_equal(tags, "before the upgrade ");
    assert_ok(repo_tag_remove(r, &vm, 2, "before the upgrade", &f->e), &f->e);
    tags[0] = 0;
    assert_ok(repo_tags(r, &vm, 2, join_tag, tags, &f->e), &f->e);
    assert_string_equal(tags, "");
    assert_ok(repo_pin(r, &vm, 2, false, &f->e), &f->e);
    assert_ok(repo_forget(r, &vm, 2, &f->e), &f->e);
    assert_ok(repo_forget(r, &vm, 1, &f->e), &f->e);
    repo_close(r);
    assert_int_equal(count_objects(f->s, "generations/", NULL), 0);
    assert_int_equal(count_objects(f->s, "retired/", NULL), 1);
    back_up_with(f, 3, 3);
    assert_non_null(f->truths[3].data); /* not 1, not 2 */
}

static void what_nothing_refers_to_is_collected(void **state)
{
    struct scene *f = *state;
    uint64_t before, after;
    unsigned removed;
    struct repo_key vm;
    struct repo *r;

    for (unsigned i = 1; i <= 5; i++)
        back_up_with(f, i, i);
    back_up_with(f, 2, 20);
    count_objects(f->s, "packs/", &before);
    assert_ok(collect(f->s, &f->h, &removed, &f->e), &f->e);
    assert_int_equal(removed, 0); /* all is alive */
    r = open_exclusive(f, &vm);
    for (unsigned i = 1; i <= 5; i++)
        assert_ok(repo_forget(r, &vm, i, &f->e), &f->e);
    repo_close(r);
    assert_ok(collect(f->s, &f->h, &removed, &f->e), &f->e);
    assert_true(removed > 5);
    count_objects(f->s, "packs/", &after);
    assert_true(after < before - BLOCK / 2);
    assert_restores(f, 6);
    assert_int_equal(count_objects(f->s, "packs/", NULL), count_objects(f->s, "index/", NULL));
    assert_int_equal(count_objects(f->s, "epoch/", NULL), 1);
    assert_ok(collect(f->s, &f->h, &removed, &f->e), &f->e);
    assert_int_equal(removed, 0);
    back_up_with(f, 7, 7);
    assert_restores(f, 7);
}

/* A cached index of an earlier process must not offer what was collected meanwhile. */
static void a_cache_from_before_a_collection_is_void(void **state)
{
    struct scene *f = *state;
    struct backup b = { 0 };
    char cache[128];
    unsigned removed;
    struct repo_key vm;
    struct repo *r;

    snprintf(cache, sizeof cache, "%s/cache", f->h.dir);
    back_up_with(f, 1, 1);
    assert_ok(open_repo(f->s, NULL, cache, REPO_SHARED, &f->h, &r, &f->e), &f->e);
    repo_close(r);
    back_up_with(f, 1, 2);
    r = open_exclusive(f, &vm);
    assert_ok(repo_forget(r, &vm, 1, &f->e), &f->e);
    repo_close(r);
    assert_ok(collect(f->s, &f->h, &removed, &f->e), &f->e);
    assert_true(removed > 0);
    disk_set(&f->h.disks[0], 1, 1); /* as it was in generation 1 */
    b.cache_dir = cache;
    assert_ok(back_up(f->s, &f->h, &b, &f->e), &f->e);
    assert_true(b.fresh > 0);
    assert_generation(f->s, &f->h, 3, NULL);
}

struct found {
    struct repo_damaged all[8];
    struct repo_key pack;
    size_t count;
};

static int note_damaged(void *context, const struct repo_entry *entry, struct err *e)
{
    struct found *d = context;

    (void)e;
    d->all[d->count].pack = d->pack;
    d->all[d->count++].entry = *entry;
    return 0;
}

static struct repo_key largest_pack(struct scene *f, struct repo *r, char name[STORAGE_NAME_ROOM])
{
    struct repo_pack *packs;
    size_t count, best = 0;
    struct repo_key key;
    char hex[REPO_KEY_HEX_BYTES];

    assert_ok(repo_packs(r, &packs, &count, &f->e), &f->e);
    for (size_t i = 0; i < count; i++) {
        assert_true(packs[i].stored && packs[i].indexed);
        if (packs[i].size_bytes > packs[best].size_bytes)
            best = i;
    }
    key = packs[best].key;
    free(packs);
    repo_key_hex(&key, hex);
    snprintf(name, STORAGE_NAME_ROOM, "packs/%.2s/%s", hex, hex);
    return key;
}

static void damaged_blocks_are_set_aside_and_heal(void **state)
{
    struct scene *f = *state;
    char name[STORAGE_NAME_ROOM];
    struct backup b = { 0 };
    struct found d = { .count = 0 };
    struct repo_key vm;
    struct repo *r;

    disk_set(&f->h.disks[0], 3, 3);
    back_up_with(f, 4, 4);
    r = open_exclusive(f, &vm);
    d.pack = largest_pack(f, r, name);
    assert_ok(repo_pack_check(r, &d.pack, true, note_damaged, &d, &f->e), &f->e);
    assert_ok(storage_memory_flip(f->s, name, 1000, 2, &f->e), &f->e);
    assert_ok(repo_pack_check(r, &d.pack, false, note_damaged, &d, &f->e), &f->e);
    assert_int_equal(repo_pack_check(r, &d.pack, true, note_damaged, &d, &f->e), -1);
    assert_int_equal(f->e.code, ERR_CORRUPT);
    assert_int_equal(d.count, 1);
    assert_ok(repo_note_damaged(r, d.all, d.count, &f->e), &f->e);
    repo_close(r);
    assert_ok(back_up(f->s, &f->h, &b, &f->e), &f->e);
    assert_true(b.distrusted);
    assert_int_equal(b.walk.sent, 1);
    assert_int_equal(b.fresh, BLOCK);
    assert_restores(f, 1);
}

static void an_index_is_made_again_from_its_pack(void **state)
{
    struct scene *f = *state;
    char name[STORAGE_NAME_ROOM], index[STORAGE_NAME_ROOM + 8];
    struct bytes old = { 0 }, now = { 0 };
    struct repo_key vm, key;
    struct repo *r;

    back_up_with(f, 4, 4);
    r = open_exclusive(f, &vm);
    key = largest_pack(f, r, name);
    snprintf(index, sizeof index, "index%s", name + 5);
    assert_ok(storage_load(f->s, index, &old, 1 << 20, &f->e), &f->e);
    assert_ok(storage_remove(f->s, index, &f->e), &f->e);
    repo_close(r);
    r = open_exclusive(f, &vm);
    assert_int_equal(generation_has(r, &vm, 1, "scsi0:0", &f->truths[1], &f->e), -1);
    assert_ok(repo_pack_index(r, &key, &f->e), &f->e);
    repo_close(r);
    assert_restores(f, 1);
    assert_ok(storage_load(f->s, index, &now, 1 << 20, &f->e), &f->e);
    assert_int_equal(old.count, now.count);
    assert_memory_equal(old.data, now.data, now.count);
    bytes_free(&old);
    bytes_free(&now);
}

static uint64_t verified_time(struct repo *r, const struct repo_key *key, uint64_t number)
{
    struct repo_verified v;
    uint64_t time;
    struct err e;

    assert_ok(repo_verified_load(r, &v, &e), &e);
    time = repo_verified_time(&v, key, number);
    repo_verified_free(&v);
    return time;
}

/* The newest time counts, what is gone is forgotten, and a damaged document says nothing. */
static void times_of_verification_are_kept(void **state)
{
    struct scene *f = *state;
    struct repo_verified_item items[3];
    struct storage_list *list;
    struct storage_item there;
    struct repo_pack *packs;
    struct repo *r;
    size_t count;
    struct err e;

    back_up_with(f, 1, 1);
    back_up_with(f, 2, 2);
    assert_ok(open_repo(f->s, NULL, NULL, REPO_SHARED, &f->h, &r, &e), &e);
    assert_ok(repo_packs(r, &packs, &count, &e), &e);
    items[0] = (struct repo_verified_item){ packs[0].key, 0, 1000 };
    items[1] = (struct repo_verified_item){ only_vm(r), 1, 1000 };
    items[2] = (struct repo_verified_item){ only_vm(r), 9, 1000 }; /* there is none */
    assert_ok(repo_verified_note(r, items, 3, &e), &e);
    items[1].time = 900;
    items[2].number = 2;
    items[2].time = 800;
    assert_ok(repo_verified_note(r, items + 1, 2, &e), &e);
    assert_int_equal(count_objects(f->s, "verified/", NULL), 1);
    assert_int_equal(verified_time(r, &packs[0].key, 0), 1000);
    assert_int_equal(verified_time(r, &items[1].key, 1), 1000);
    assert_int_equal(verified_time(r, &items[1].key, 2), 800);
    assert_int_equal(verified_time(r, &items[1].key, 9), 0);
    assert_ok(repo_forget(r, &items[1].key, 1, &e), &e);
    items[0].time = 2000;
    assert_ok(repo_verified_note(r, items, 1, &e), &e);
    assert_int_equal(verified_time(r, &items[1].key, 1), 0);
    assert_int_equal(verified_time(r, &packs[0].key, 0), 2000);

    assert_ok(storage_list(f->s, "verified/", &list, &e), &e);
    assert_int_equal(storage_next(list, &there, &e), 1);
    storage_list_end(list);
    assert_ok(storage_remove(f->s, there.name, &e), &e);
    assert_ok(storage_put(f->s, there.name, "rubbish", 7, &e), &e);
    assert_int_equal(verified_time(r, &packs[0].key, 0), 0);
    assert_ok(repo_verified_note(r, items, 1, &e), &e);
    assert_int_equal(verified_time(r, &packs[0].key, 0), 2000);
    free(packs);
    repo_close(r);
}

static void old_partials_are_dropped(void **state)
{
    struct scene *f = *state;
    struct backup b = { .stop_before_commit = true };
    uint64_t removed, now = (uint64_t)time(NULL);
    size_t count;
    struct repo_key vm;
    struct repo *r;

    back_up_with(f, 1, 1);
    for (uint64_t i = 2; i < 40; i++)
        disk_set(&f->h.disks[0], i, (unsigned)i);
    assert_ok(back_up(f->s, &f->h, &b, &f->e), &f->e);
    count = count_objects(f->s, "partial/", NULL);
    assert_true(count > 0);
    assert_ok(open_repo(f->s, NULL, NULL, REPO_SHARED, &f->h, &r, &f->e), &f->e);
    assert_int_equal(repo_partials_drop(r, now + 100, &removed, &f->e), -1);
    assert_int_equal(f->e.code, ERR_REFUSED);
    repo_close(r);
    r = open_exclusive(f, &vm);
    assert_ok(repo_partials_drop(r, now - 1000, &removed, &f->e), &f->e);
    assert_int_equal(removed, 0);
    assert_int_equal(count_objects(f->s, "partial/", NULL), count);
    assert_ok(repo_partials_drop(r, now + 100, &removed, &f->e), &f->e);
    assert_int_equal(removed, count);
    assert_int_equal(count_objects(f->s, "partial/", NULL), 0);
    repo_close(r);
    /* The next run starts anew, and is whole. */
    b = (struct backup){ 0 };
    assert_ok(back_up(f->s, &f->h, &b, &f->e), &f->e);
    assert_false(b.walk.resumed);
    assert_generation(f->s, &f->h, 2, NULL);
}

static void only_who_is_alone_removes(void **state)
{
    struct scene *f = *state;
    struct repo_key key = { { 1 } };
    struct repo *r;

    assert_ok(open_repo(f->s, NULL, NULL, REPO_SHARED, &f->h, &r, &f->e), &f->e);
    assert_int_equal(repo_packs_remove(r, &key, 1, &f->e), -1);
    assert_int_equal(f->e.code, ERR_REFUSED);
    assert_ok(repo_reserve_drop(r, &f->e), &f->e);
    assert_int_equal(count_objects(f->s, "reserve", NULL), 0);
    assert_int_equal(repo_reserve_restore(r, &f->e), 1);
    assert_int_equal(repo_reserve_restore(r, &f->e), 0);
    assert_int_equal(count_objects(f->s, "reserve", NULL), 1);
    repo_close(r);
}

/* An entry that is whole and sealed rightly, but another block's: by a writer gone wrong. */
static void what_stands_under_an_id_is_compared(void **state)
{
    struct scene *f = *state;
    uint8_t block[BLOCK], out[BLOCK];
    struct put_result put;
    struct repo_id id;
    struct repo *r;
    size_t count;

    memset(block, 1, sizeof block);
    assert_ok(open_repo(f->s, NULL, NULL, REPO_SHARED, &f->h, &r, &f->e), &f->e);
    assert_ok(vault_id(r->vault, block, sizeof block, &id, &f->e), &f->e);
    block[BLOCK - 1] = 2;
    assert_ok(
        repo_put(r, ENTRY_BLOCK, &id, CODEC_RAW, block, sizeof block, sizeof block, &put, &f->e),
        &f->e);
    assert_true(put.is_new);
    assert_ok(repo_flush(r, &f->e), &f->e);
    assert_int_equal(repo_get(r, ENTRY_BLOCK, &id, out, sizeof out, &count, &f->e), -1);
    assert_int_equal(f->e.code, ERR_CORRUPT);
    assert_non_null(strstr(f->e.text, "not what its id says"));
    repo_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(generations_are_forgotten_unless_pinned, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_nothing_refers_to_is_collected, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_cache_from_before_a_collection_is_void, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(damaged_blocks_are_set_aside_and_heal, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_index_is_made_again_from_its_pack, set_up, tear_down),
        cmocka_unit_test_setup_teardown(old_partials_are_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(times_of_verification_are_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_who_is_alone_removes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_stands_under_an_id_is_compared, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
