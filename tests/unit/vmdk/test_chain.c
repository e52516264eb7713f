/* Chains of every kind of link, read and compared with what their layers say. */
#include "tests/unit/cmocka_all.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "protocol/vmdk/since.h"
#include "tests/unit/vmdk/images.h"

enum { SECTOR = 512, LINKS_MAX = 6, BLOCK = 64 << 10 };

struct disk {
    struct folder folder;
    uint64_t sectors;
    size_t links; /* 0 is the base here */
    char tip[32];
    struct layer layers[LINKS_MAX];
    uint8_t *bytes; /* what the chain reads as */
};

static void make_base(struct disk *d, uint64_t sectors)
{
    int fd;

    *d = (struct disk){ .sectors = sectors, .links = 1 };
    folder_make(&d->folder);
    layer_random(&d->layers[0], sectors, 128, sectors);
    d->bytes = calloc(1, (size_t)sectors * SECTOR);
    assert_non_null(d->bytes);
    layer_over(&d->layers[0], d->bytes, sectors);
    fd = file_make(&d->folder, "base-flat.vmdk");
    file_size(fd, sectors * SECTOR);
    for (uint64_t at = 0; at < sectors; at += 128) {
        uint64_t count = sectors - at < 128 ? sectors - at : 128;

        if (d->layers[0].states[at / 128] == DATA)
            put_bytes(fd, at * SECTOR, d->bytes + at * SECTOR, (size_t)count * SECTOR);
    }
    file_size(fd, sectors * SECTOR);
    link_write(&d->folder, "base.vmdk", "vmfs", "VMFS", "base-flat.vmdk", sectors, 0x100, 0, NULL);
    snprintf(d->tip, sizeof d->tip, "base.vmdk");
}

/* A delta on top: 'c' COWD, 'C' COWD with large grains, 's' seSparse, 'k' hosted sparse. */
static void add_link(struct disk *d, char kind, uint64_t seed)
{
    size_t i = d->links++;
    uint32_t grain = kind == 'c' ? 1 : kind == 'C' ? 16 : kind == 's' ? 8 : 128;
    struct layer *l = &d->layers[i];
    char name[32], data[32];

    snprintf(name, sizeof name, "x-%06zu.vmdk", i);
    snprintf(data, sizeof data, "x-%06zu-data.vmdk", i);
    layer_random(l, d->sectors, grain, seed);
    if (kind == 's')
        sesparse_write(&d->folder, data, l, seed);
    else if (kind == 'k')
        sparse_write(&d->folder, data, l, 4);
    else
        cowd_write(&d->folder, data, l, seed);
    link_write(&d->folder, name,
               kind == 's'   ? "seSparse"
               : kind == 'k' ? "twoGbMaxExtentSparse"
                             : "vmfsSparse",
               kind == 's'   ? "SESPARSE"
               : kind == 'k' ? "SPARSE"
                             : "VMFSSPARSE",
               data, d->sectors, (uint32_t)(0x100 + i), (uint32_t)(0x100 + i - 1), d->tip);
    snprintf(d->tip, sizeof d->tip, "%s", name);
    layer_over(l, d->bytes, d->sectors);
}

static void free_disk(struct disk *d)
{
    for (size_t i = 0; i < d->links; i++)
        layer_free(&d->layers[i]);
    free(d->bytes);
    folder_remove(&d->folder);
}

/* cache_bytes 0: the usual size. */
static struct vmdk_chain *open_disk(struct disk *d, unsigned flags, size_t cache_bytes)
{
    struct vmdk_config config = { .files = d->folder.files,
                                  .flags = flags,
                                  .cache_bytes = cache_bytes };
    struct vmdk_chain *c;
    struct err e;

    if (vmdk_chain_open(&c, &config, folder_path(&d->folder, d->tip), &e) != 0)
        fail_msg("%s", e.text);
    return c;
}

/* ---- comparisons ---- */

static bool is_zero(const uint8_t *bytes, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static void compare_reads(struct source *s, const uint8_t *bytes, uint64_t seed)
{
    uint8_t *buffer = malloc(1 << 20);
    struct err e;

    assert_non_null(buffer);
    for (uint64_t at = 0, r = seed + 1; at < s->capacity_bytes;) {
        uint64_t count = 1 + next_random(&r) % (next_random(&r) % 4 == 0 ? 1 << 20 : 70000);

        if (count > s->capacity_bytes - at)
            count = s->capacity_bytes - at;
        if (source_read(s, at, buffer, (size_t)count, &e) != 0)
            fail_msg("%s", e.text);
        if (memcmp(buffer, bytes + at, (size_t)count) != 0)
            fail_msg("bytes differ in %llu + %llu", (unsigned long long)at,
                     (unsigned long long)count);
        at += count;
    }
    free(buffer);
}

static void compare_extents(struct source *s, const uint8_t *bytes)
{
    struct err e;

    for (uint64_t at = 0; at < s->capacity_bytes;) {
        struct extent x;

        if (source_extent_at(s, at, &x, &e) != 0)
            fail_msg("%s", e.text);
        assert_true(x.offset_bytes == at && x.length_bytes > 0);
        assert_true(x.length_bytes <= s->capacity_bytes - at);
        assert_true(x.kind == EXTENT_DATA || x.kind == EXTENT_ZERO);
        if (x.kind == EXTENT_ZERO && !is_zero(bytes + at, x.length_bytes))
            fail_msg("no zeros at %llu", (unsigned long long)at);
        at += x.length_bytes;
    }
}

static enum extent_kind kind_of(const struct layer *l, uint64_t sector)
{
    uint8_t state = l->states[sector / l->grain_sectors];

    return state == DATA ? EXTENT_DATA : state == ABSENT ? EXTENT_PARENT : EXTENT_ZERO;
}

/* Each delta by itself says exactly what its layer has, in the longest runs. */
static void compare_links(struct vmdk_chain *c, const struct disk *d)
{
    struct err e;

    for (size_t i = 0; i + 1 < d->links; i++) {
        const struct layer *l = &d->layers[d->links - 1 - i];

        for (uint64_t at = 0; at < d->sectors * SECTOR;) {
            struct extent x;
            uint64_t end;

            if (vmdk_chain_link_extent_at(c, i, at, &x, &e) != 0)
                fail_msg("%s", e.text);
            end = at + x.length_bytes;
            for (uint64_t sector = at / SECTOR; sector < end / SECTOR; sector++)
                assert_int_equal(x.kind, kind_of(l, sector));
            if (end < d->sectors * SECTOR)
                assert_int_not_equal(x.kind, kind_of(l, end / SECTOR));
            at = end;
        }
    }
}

/* The blocks that the links above `index` hold, each once, and no others. */
static void compare_changed(struct vmdk_chain *c, const struct disk *d, size_t index)
{
    uint64_t blocks = (d->sectors * SECTOR + BLOCK - 1) / BLOCK;
    uint8_t *expected = calloc(1, blocks), *found = calloc(1, blocks);
    struct extent x = { 0, 1, EXTENT_DATA };
    struct err e;

    assert_true(expected != NULL && found != NULL);
    for (size_t i = 0; i < index; i++)
        for (uint64_t s = 0; s < d->sectors; s++)
            if (kind_of(&d->layers[d->links - 1 - i], s) != EXTENT_PARENT)
                expected[s * SECTOR / BLOCK] = 1;
    for (uint64_t at = 0; x.length_bytes > 0; at = x.offset_bytes + x.length_bytes) {
        if (vmdk_chain_changed_at(c, index, BLOCK, at, &x, &e) != 0)
            fail_msg("%s", e.text);
        assert_true(x.length_bytes == 0 || x.offset_bytes >= at);
        assert_int_equal(x.length_bytes == 0 ? 0 : x.offset_bytes % BLOCK, 0);
        for (uint64_t b = x.offset_bytes / BLOCK;
             x.length_bytes > 0 && b < (x.offset_bytes + x.length_bytes + BLOCK - 1) / BLOCK; b++)
            found[b]++;
    }
    assert_memory_equal(expected, found, blocks);
    free(expected);
    free(found);
}

/* Seen from the time when link `index` was frozen: kept, but for some blocks to be checked. */
static void compare_since(const struct disk *d, struct vmdk_chain *c, size_t index)
{
    uint64_t end = d->sectors * SECTOR;
    struct source *s;
    struct extent x;
    struct err e;
    uint64_t random[SINCE_CHECKS], seed = index + 1;
    unsigned checks = 0;

    for (size_t i = 0; i < SINCE_CHECKS; i++)
        random[i] = next_random(&seed);
    if (vmdk_since_new(&s, c, index, BLOCK, random, &e) != 0)
        fail_msg("%s", e.text);
    for (uint64_t at = 0; at < end; at += x.length_bytes) {
        uint64_t block = at - at % BLOCK;
        bool changed = false;

        if (source_extent_at(s, at, &x, &e) != 0)
            fail_msg("%s", e.text);
        assert_true(x.offset_bytes == at && x.length_bytes > 0 && x.length_bytes <= end - at);
        for (size_t i = 0; i < index; i++)
            for (uint64_t b = block; b < block + BLOCK && b < end; b += SECTOR)
                changed |= kind_of(&d->layers[d->links - 1 - i], b / SECTOR) != EXTENT_PARENT;
        assert_int_equal(x.kind == EXTENT_KEPT || x.kind == EXTENT_CHECK, !changed);
        /* What is kept is whole blocks; what is to be checked, single ones. */
        if (!changed)
            assert_true(at % BLOCK == 0 &&
                        (x.length_bytes % BLOCK == 0 || at + x.length_bytes == end));
        checks += x.kind == EXTENT_CHECK;
        assert_true(x.kind != EXTENT_CHECK || x.length_bytes <= BLOCK);
    }
    assert_true(checks <= SINCE_CHECKS);
    compare_reads(s, d->bytes, index);
    source_close(s);
}

static void compare_all(struct disk *d, unsigned flags, uint64_t seed)
{
    struct vmdk_chain *c = open_disk(d, flags, 0);
    struct err e;

    assert_int_equal(vmdk_chain_link_count(c), d->links);
    assert_true(vmdk_chain_source(c)->capacity_bytes == d->sectors * SECTOR);
    compare_extents(vmdk_chain_source(c), d->bytes);
    compare_reads(vmdk_chain_source(c), d->bytes, seed);
    compare_links(c, d);
    for (size_t i = 0; i < d->links; i++)
        compare_changed(c, d, i);
    for (size_t i = 1; i < d->links; i++)
        compare_since(d, open_disk(d, flags, 0), i);
    if (vmdk_chain_verify(c, &e) != 0 || vmdk_chain_unchanged(c, &e) != 0)
        fail_msg("%s", e.text);
    for (size_t i = 0; i + 1 < d->links; i++) {
        const struct layer *l = &d->layers[d->links - 1 - i];
        uint64_t data = 0, zero = 0;

        for (uint64_t s = 0; s < d->sectors; s++) {
            data += kind_of(l, s) == EXTENT_DATA;
            zero += kind_of(l, s) == EXTENT_ZERO;
        }
        assert_true(vmdk_chain_link(c, i)->allocated_bytes == data * SECTOR);
        assert_true(vmdk_chain_link(c, i)->zero_bytes == zero * SECTOR);
    }
    vmdk_chain_close(c);
}

/* ---- tests ---- */

static void chain_of(const char *kinds, uint64_t sectors, unsigned flags, uint64_t seed)
{
    struct disk d;

    make_base(&d, sectors);
    compare_all(&d, flags, seed);
    for (const char *k = kinds; *k != '\0'; k++)
        add_link(&d, *k, seed + (uint64_t)(k - kinds) * 7);
    compare_all(&d, flags, seed);
    free_disk(&d);
}

static void flat_base_alone(void **state)
{
    (void)state;
    chain_of("", 1, VMDK_ONLY_ESXI, 1);
    chain_of("", 20483, VMDK_ONLY_ESXI, 2);
}

static void cowd_deltas(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++)
        chain_of("c", 9001 + seed * 4095, VMDK_ONLY_ESXI, seed);
    chain_of("cCcc", 40000, VMDK_ONLY_ESXI, 11);
}

static void sesparse_deltas(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++)
        chain_of("s", 32768 + seed * 8191, VMDK_ONLY_ESXI, seed);
    chain_of("sss", 70001, VMDK_ONLY_ESXI, 12);
}

static void kinds_above_each_other(void **state)
{
    (void)state;
    chain_of("scsC", 50003, VMDK_ONLY_ESXI, 21);
    chain_of("kcsk", 66666, 0, 22);
    chain_of("kk", 65536 + 1, 0, 23);
}

/* The smallest cache gives the same bytes. */
static void a_cache_that_is_too_small(void **state)
{
    struct vmdk_config config = { .cache_bytes = VMDK_CACHE_BYTES_MIN - 1 };
    struct vmdk_chain *c;
    struct disk d;
    struct err e;

    (void)state;
    make_base(&d, 70001);
    add_link(&d, 's', 3);
    add_link(&d, 'c', 4);
    c = open_disk(&d, 0, VMDK_CACHE_BYTES_MIN);
    compare_reads(vmdk_chain_source(c), d.bytes, 5);
    vmdk_chain_close(c);
    config.files = d.folder.files;
    assert_int_equal(vmdk_chain_open(&c, &config, folder_path(&d.folder, d.tip), &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    free_disk(&d);
}

/* ---- threads ---- */

struct reader {
    struct vmdk_chain *chain;
    const struct disk *disk;
    uint64_t seed;
    bool right;
};

static void *read_at_random(void *context)
{
    struct reader *r = context;
    struct source *s = vmdk_chain_source(r->chain);
    uint8_t *buffer = malloc(200000);
    struct err e;

    r->right = buffer != NULL;
    for (unsigned i = 0; i < 300 && r->right; i++) {
        uint64_t at = next_random(&r->seed) % s->capacity_bytes;
        uint64_t count = 1 + next_random(&r->seed) % 200000;
        struct extent x;

        if (count > s->capacity_bytes - at)
            count = s->capacity_bytes - at;
        r->right = source_read(s, at, buffer, (size_t)count, &e) == 0 &&
                   memcmp(buffer, r->disk->bytes + at, (size_t)count) == 0 &&
                   source_extent_at(s, at, &x, &e) == 0 &&
                   vmdk_chain_link_extent_at(r->chain, 0, at, &x, &e) == 0;
    }
    free(buffer);
    return NULL;
}

static void several_threads_read_one_chain(void **state)
{
    enum { READERS = 4 };
    struct reader readers[READERS];
    pthread_t threads[READERS];
    struct vmdk_chain *c;
    struct disk d;

    (void)state;
    make_base(&d, 70001);
    add_link(&d, 's', 3);
    add_link(&d, 'c', 4);
    c = open_disk(&d, 0, VMDK_CACHE_BYTES_MIN);
    assert_int_equal(vmdk_chain_source(c)->flags & SOURCE_SEQUENTIAL, 0);
    for (size_t i = 0; i < READERS; i++) {
        readers[i] = (struct reader){ c, &d, i + 17, false };
        assert_int_equal(pthread_create(&threads[i], NULL, read_at_random, &readers[i]), 0);
    }
    for (size_t i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(readers[i].right);
    }
    vmdk_chain_close(c);
    free_disk(&d);
}

/* What info shows. */
static void what_a_chain_says_of_itself(void **state)
{
    struct disk d;
    struct vmdk_chain *c;
    size_t index = 99;
    struct err e;

    (void)state;
    make_base(&d, 9000);
    add_link(&d, 's', 3);
    add_link(&d, 'c', 4);
    c = open_disk(&d, 0, 0);
    assert_string_equal(vmdk_chain_link(c, 0)->format, "COWD");
    assert_string_equal(vmdk_chain_link(c, 1)->format, "seSparse");
    assert_string_equal(vmdk_chain_link(c, 2)->format, "flat");
    assert_int_equal(vmdk_chain_link(c, 0)->grain_bytes, 512);
    assert_int_equal(vmdk_chain_link(c, 1)->grain_bytes, 4096);
    assert_true(vmdk_chain_link(c, 1)->allocated_bytes == VMDK_BYTES_UNKNOWN);
    assert_string_equal(vmdk_chain_extent_place(c, 2, 0), folder_path(&d.folder, "base-flat.vmdk"));
    assert_string_equal(vmdk_chain_ddb(c, "adapterType"), "lsilogic");
    assert_null(vmdk_chain_ddb(c, "uuid"));
    assert_null(vmdk_chain_problem(c));
    assert_int_equal(vmdk_chain_find(c, folder_path(&d.folder, "base.vmdk"), &index, &e), 0);
    assert_int_equal(index, 2);
    assert_int_equal(vmdk_chain_find(c, "/nowhere", &index, &e), -1);
    vmdk_chain_close(c);
    free_disk(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flat_base_alone),
        cmocka_unit_test(cowd_deltas),
        cmocka_unit_test(sesparse_deltas),
        cmocka_unit_test(kinds_above_each_other),
        cmocka_unit_test(a_cache_that_is_too_small),
        cmocka_unit_test(what_a_chain_says_of_itself),
        cmocka_unit_test(several_threads_read_one_chain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
