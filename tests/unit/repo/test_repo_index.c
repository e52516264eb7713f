/* The merged index: found is what was added, over memory, runs, merges of runs and processes; a
 * cache that is damaged or out of date is dropped. */
#include "tests/unit/cmocka_all.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "receiver/repo/index.h"
#include "receiver/repo/names.h"
#include "receiver/repo/vault.h"
#include "receiver/storage/storage_memory.h"
#include "tests/unit/mirror/fixture.h"

enum { PACK_ENTRIES = 4500 }; /* enough to be worth a run */

struct scene {
    struct host h;
    struct storage *s;
    struct vault *v;
    char cache[128];
    unsigned packs;
    struct err e;
};

static int set_up(void **state)
{
    struct scene *f = calloc(1, sizeof *f);
    struct repo_key key = { { 1, 2, 3 } };

    assert_non_null(f);
    host_new(&f->h);
    snprintf(f->cache, sizeof f->cache, "%s/cache", f->h.dir);
    assert_ok(storage_memory_new(&f->s, &f->e), &f->e);
    assert_ok(vault_new(&f->v, &key, &f->e), &f->e);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *f = *state;

    vault_free(f->v);
    storage_close(f->s);
    host_free(&f->h);
    free(f);
    return 0;
}

/* Entry n of everything: its id is a hash, so that ids are even. */
static struct index_entry entry_of(uint64_t n)
{
    struct index_entry x = { .offset = 64 + (uint32_t)(n % 1000) * 100,
                             .payload_codec = 50 + (uint32_t)(n % 7),
                             .plain_type = 16384 | ENTRY_BLOCK << 24 };

    crypto_hash_sha256(x.id.b, (const uint8_t *)&n, sizeof n);
    return x;
}

static struct repo_key pack_of(uint64_t n)
{
    struct repo_key key;
    uint8_t hash[32];

    crypto_hash_sha256(hash, (const uint8_t *)&n, 3);
    memcpy(key.b, hash, sizeof key.b);
    return key;
}

/* An index object with entries [pack * PACK_ENTRIES, …), which another process has put. */
static void put_pack(struct scene *f)
{
    struct pack_index x = { .pack = pack_of(f->packs), .kind = PACK_BLOCKS, .size_bytes = 1 << 20 };

    x.entries = calloc(PACK_ENTRIES, sizeof x.entries[0]);
    assert_non_null(x.entries);
    for (x.count = 0; x.count < PACK_ENTRIES; x.count++)
        x.entries[x.count] = entry_of(f->packs * (uint64_t)PACK_ENTRIES + x.count);
    assert_ok(pack_index_put(f->s, f->v, &x, &f->e), &f->e);
    pack_index_free(&x);
    f->packs++;
}

static unsigned warned;

static void count_warning(void *context, const char *text)
{
    (void)context;
    (void)text;
    warned++;
}

static struct index *open_index(struct scene *f, uint64_t epoch, const char *cache)
{
    struct repo_env env = { .warn = count_warning };
    struct index *x;

    warned = 0;
    assert_ok(index_open(&x, f->s, f->v, epoch, cache, &env, &f->e), &f->e);
    return x;
}

static int find(struct scene *f, struct index *x, uint64_t n, struct place *out)
{
    struct index_entry want = entry_of(n);

    return index_find(x, ENTRY_BLOCK, &want.id, out, 1, &f->e);
}

static void assert_has(struct scene *f, struct index *x, uint64_t first, uint64_t count)
{
    for (uint64_t n = first; n < first + count; n++) {
        struct index_entry want = entry_of(n);
        struct place p;

        if (find(f, x, n, &p) != 1)
            fail_msg("entry %d is not found: %s", (int)n, f->e.text);
        assert_int_equal(p.offset, want.offset);
        assert_int_equal(p.payload_bytes, want.payload_codec);
        assert_int_equal(p.plain_bytes, 16384);
    }
    assert_int_equal(find(f, x, 1000000000 + first, &(struct place){ 0 }), 0);
}

static void assert_packs(struct scene *f, struct index *x)
{
    for (unsigned i = 0; i < f->packs; i++) {
        struct repo_key key = pack_of(i);
        struct place p;

        assert_int_equal(find(f, x, i * (uint64_t)PACK_ENTRIES + i, &p), 1);
        assert_memory_equal(p.pack.b, key.b, sizeof key.b);
    }
    assert_has(f, x, 0, f->packs * (uint64_t)PACK_ENTRIES);
}

/* Each process finds one more pack, so the runs are merged now and then. */
static void runs_are_kept_and_merged(void **state)
{
    struct scene *f = *state;

    for (unsigned i = 0; i < 20; i++) {
        uint64_t entries, packs, damaged;
        struct index *x;

        put_pack(f);
        x = open_index(f, 3, f->cache);
        index_counts(x, &entries, &packs, &damaged);
        assert_int_equal(entries, f->packs * PACK_ENTRIES);
        assert_int_equal(packs, f->packs);
        if (i % 4 == 3)
            assert_packs(f, x);
        index_close(x);
    }
    assert_int_equal(warned, 0);
}

/* Files of the cache with this suffix; the last one's path goes to out. */
static unsigned cache_files(struct scene *f, const char *suffix, char out[256])
{
    DIR *dir = opendir(f->cache);
    struct dirent *entry;
    unsigned count = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        size_t n = strlen(entry->d_name);

        if (n >= strlen(suffix) && strcmp(entry->d_name + n - strlen(suffix), suffix) == 0) {
            snprintf(out, 256, "%s/%.100s", f->cache, entry->d_name);
            count++;
        }
    }
    closedir(dir);
    return count;
}

static void flip(const char *path, off_t at)
{
    int fd = open(path, O_RDWR);
    char c;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 4;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

static void a_damaged_cache_is_dropped(void **state)
{
    struct scene *f = *state;
    static const off_t places[] = { 0, 20, 130, 200, 4096, 65536 + 48 };
    char path[256];
    struct index *x;

    put_pack(f);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        index_close(open_index(f, 1, f->cache));
        assert_int_equal(cache_files(f, ".run", path), 1);
        flip(path, places[i]);
        x = open_index(f, 1, f->cache);
        if (places[i] >= 65536) {
            /* Entries are proved when they are looked at, not before. */
            int rc = 1;

            for (uint64_t n = 0; rc == 1 && n < PACK_ENTRIES; n++)
                rc = find(f, x, n, &(struct place){ 0 });
            assert_int_equal(rc, -1);
            assert_int_equal(f->e.code, ERR_CORRUPT);
            index_close(x);
            x = open_index(f, 1, f->cache);
        }
        assert_packs(f, x);
        index_close(x);
    }
    index_close(open_index(f, 1, f->cache));
    snprintf(path, sizeof path, "%s/runs", f->cache);
    flip(path, 30);
    x = open_index(f, 1, f->cache);
    assert_packs(f, x);
    index_close(x);
    assert_int_equal(cache_files(f, ".run", path), 1); /* the old one is cleared away */
}

static void an_old_epoch_or_a_pack_that_went_voids_the_cache(void **state)
{
    struct scene *f = *state;
    struct repo_key key = pack_of(0);
    struct index_entry other;
    object_name name;
    struct index *x;
    struct place p;

    put_pack(f);
    put_pack(f);
    index_close(open_index(f, 1, f->cache));
    name_of_index(name, &key);
    assert_ok(storage_remove(f->s, name, &f->e), &f->e);
    x = open_index(f, 1, f->cache); /* retracted: offered no more */
    assert_int_equal(find(f, x, 5, &p), 0);
    assert_int_equal(find(f, x, PACK_ENTRIES + 5, &p), 1);
    other = entry_of(PACK_ENTRIES + 5);
    assert_int_equal(index_find(x, ENTRY_NODE, &other.id, &p, 1, &f->e), 0);
    index_close(x);
    x = open_index(f, 2, f->cache);
    assert_int_equal(find(f, x, 5, &p), 0);
    assert_int_equal(find(f, x, PACK_ENTRIES + 5, &p), 1);
    index_close(x);
}

static void a_damaged_index_object_is_warned_of(void **state)
{
    struct scene *f = *state;
    struct repo_key key = pack_of(1);
    object_name name;
    struct index *x;
    struct place p;

    put_pack(f);
    put_pack(f);
    name_of_index(name, &key);
    assert_ok(storage_memory_flip(f->s, name, 5000, 1, &f->e), &f->e);
    x = open_index(f, 1, NULL);
    assert_int_equal(warned, 1);
    assert_has(f, x, 0, PACK_ENTRIES);
    assert_int_equal(find(f, x, PACK_ENTRIES, &p), 0);
    index_close(x);
}

/* More than fits in memory, without a folder for the cache: runs in files without names. */
static void what_is_too_much_for_memory_becomes_runs(void **state)
{
    struct scene *f = *state;
    struct index *x = open_index(f, 0, NULL);
    uint64_t n = 0, entries, packs, damaged;

    for (uint64_t pack = 0; n < INDEX_TABLE_ENTRIES + INDEX_TABLE_ENTRIES / 8; pack++) {
        struct repo_key key = pack_of(pack);
        uint32_t number;

        assert_ok(index_add_pack(x, &key, &number, &f->e), &f->e);
        for (unsigned i = 0; i < 40000; i++, n++) {
            struct index_entry entry = entry_of(n);

            entry.pack = number;
            assert_ok(index_add(x, &entry, &f->e), &f->e);
        }
        index_pack_done(x, number);
    }
    index_counts(x, &entries, &packs, &damaged);
    assert_int_equal(entries, n);
    assert_has(f, x, 0, 1000);
    assert_has(f, x, INDEX_TABLE_ENTRIES - 500, 1000);
    assert_has(f, x, n - 1000, 1000);
    index_close(x);
}

/* A cache folder that cannot be written to is done without. */
static void a_full_disk_under_the_cache_is_no_end(void **state)
{
    struct scene *f = *state;
    struct index *x = open_index(f, 0, f->cache);
    uint32_t number = 0;

    for (uint64_t n = 0; n <= INDEX_TABLE_ENTRIES; n++) {
        struct repo_key key = pack_of(n / 50000);
        struct index_entry entry = entry_of(n);

        if (n % 50000 == 0) {
            if (n > 0)
                index_pack_done(x, number);
            assert_ok(index_add_pack(x, &key, &number, &f->e), &f->e);
        }
        if (n == INDEX_TABLE_ENTRIES)
            fault_arm(1, FAULT_ERROR, ENOSPC, false);
        entry.pack = number;
        assert_ok(index_add(x, &entry, &f->e), &f->e);
    }
    fault_disarm();
    assert_true(fault_fired());
    assert_int_equal(warned, 1);
    assert_has(f, x, 0, 2000);
    assert_has(f, x, INDEX_TABLE_ENTRIES - 100, 101);
    index_close(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(runs_are_kept_and_merged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_cache_is_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_old_epoch_or_a_pack_that_went_voids_the_cache, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_index_object_is_warned_of, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_disk_under_the_cache_is_no_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_too_much_for_memory_becomes_runs, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
