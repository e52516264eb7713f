/* Tables and headers that lie: refused with the file, the field and a reason, at once or when met.
 */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "tests/unit/vmdk/images.h"

enum { SECTOR = 512, SECTORS = 40000, PIECE = 3 << 20 };

static struct folder f;

/* Base and one delta of each kind, all grains of the first ones as data. */
static void make(const char *name, char kind, uint64_t sectors)
{
    char data[64];
    struct layer l;

    l = (struct layer){ .sectors = sectors,
                        .grain_sectors = kind == 's'   ? 8
                                         : kind == 'c' ? 1
                                                       : 128 };
    l.grains = (size_t)((sectors + l.grain_sectors - 1) / l.grain_sectors);
    l.states = malloc(l.grains);
    l.bytes = calloc(sectors, SECTOR);
    assert_true(l.states != NULL && l.bytes != NULL);
    memset(l.states, ABSENT, l.grains);
    memset(l.states, DATA, 4);
    memset(l.bytes, 'd', 4 * l.grain_sectors * SECTOR);
    l.states[4] = ZERO;
    snprintf(data, sizeof data, "%s-data.vmdk", name);
    if (kind == 's')
        sesparse_write(&f, data, &l, 2);
    else if (kind == 'c')
        cowd_write(&f, data, &l, 5);
    else
        sparse_write(&f, data, &l, 4);
    layer_free(&l);
}

static int setup(void **state)
{
    int fd;

    (void)state;
    folder_make(&f);
    fd = file_make(&f, "base-flat.vmdk");
    file_size(fd, SECTORS * SECTOR);
    close(fd);
    link_write(&f, "base.vmdk", "vmfs", "VMFS", "base-flat.vmdk", SECTORS, 0x10, 0, NULL);
    link_write(&f, "c.vmdk", "vmfsSparse", "VMFSSPARSE", "c-data.vmdk", SECTORS, 1, 0x10,
               "base.vmdk");
    link_write(&f, "s.vmdk", "seSparse", "SESPARSE", "s-data.vmdk", SECTORS, 1, 0x10, "base.vmdk");
    link_write(&f, "k.vmdk", "twoGbMaxExtentSparse", "SPARSE", "k-data.vmdk", SECTORS, 1, 0, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    folder_remove(&f);
    return 0;
}

/* Where a lie is found. */
enum when { OPEN, READ, VERIFY, NEVER };

static enum when try_it(const char *name, struct err *e)
{
    struct vmdk_config config = { .files = f.files };
    enum when found = NEVER;
    struct vmdk_chain *c;
    uint8_t *buffer = malloc(PIECE);

    assert_non_null(buffer);
    *e = (struct err){ 0 };
    if (vmdk_chain_open(&c, &config, folder_path(&f, name), e) != 0) {
        free(buffer);
        return OPEN;
    }
    /* Where the first tables and the second one of seSparse lead. */
    if (source_read(vmdk_chain_source(c), 0, buffer, PIECE, e) != 0 ||
        source_read(vmdk_chain_source(c), 16 << 20, buffer, PIECE, e) != 0)
        found = READ;
    else if (vmdk_chain_verify(c, e) != 0)
        found = VERIFY;
    if (found == READ) { /* whoever asks first is told */
        struct extent x = { 0 };
        struct err other;
        int rc = 0;

        for (uint64_t at = 0; at < SECTORS * SECTOR && rc == 0; at += x.length_bytes)
            rc = source_extent_at(vmdk_chain_source(c), at, &x, &other);
        assert_int_equal(rc, -1);
        assert_int_equal(vmdk_chain_verify(c, &other), -1);
    }
    vmdk_chain_close(c);
    free(buffer);
    return found;
}

struct lie {
    uint64_t at;
    unsigned width;
    uint64_t value;
    enum when when;
    enum err_code code;
    const char *text;
};

static void tell(char kind, const struct lie *lies, size_t count)
{
    char name[16] = { kind, 0 }, link[16], data[32];
    struct err e;

    snprintf(link, sizeof link, "%c.vmdk", kind);
    snprintf(data, sizeof data, "%c-data.vmdk", kind);
    make(name, kind, SECTORS);
    if (try_it(link, &e) != NEVER)
        fail_msg("the good file: %s", e.text);
    for (size_t i = 0; i < count; i++) {
        const struct lie *l = &lies[i];
        enum when found;

        make(name, kind, SECTORS);
        if (l->width == 8)
            patch64(&f, data, l->at, l->value);
        else if (l->width == 4)
            patch32(&f, data, l->at, (uint32_t)l->value);
        else
            patch(&f, data, l->at, &l->value, l->width);
        found = try_it(link, &e);
        if (found != l->when || (found != NEVER && e.code != l->code) ||
            (l->text != NULL && strstr(e.text, l->text) == NULL) ||
            (found != NEVER && strstr(e.text, data) == NULL))
            fail_msg("%s, lie %zu: found %d (not %d), code %d: %s", data, i, found, l->when, e.code,
                     e.text);
    }
}

static void cowd(void **state)
{
    /* Directory at sector 4, 10 entries; table at sector 5, grains from 37 on. */
    static const struct lie lies[] = {
        { 0, 1, 'X', OPEN, ERR_CORRUPT, "magic" },
        { 4, 4, 2, OPEN, ERR_UNSUPPORTED, "version" },
        { 8, 4, 7, OPEN, ERR_UNSUPPORTED, "flags" },
        { 12, 4, SECTORS + 1, OPEN, ERR_CORRUPT, "sectors" },
        { 16, 4, 0, OPEN, ERR_CORRUPT, "grain size" },
        { 16, 4, 3, OPEN, ERR_CORRUPT, "grain size" },
        { 16, 4, 4096, OPEN, ERR_CORRUPT, "grain size" },
        { 20, 4, 3, OPEN, ERR_CORRUPT, "in the header" },
        { 20, 4, 0xfffffff0, OPEN, ERR_CORRUPT, "past the end" },
        { 24, 4, 9, OPEN, ERR_CORRUPT, "entries" },
        { 24, 4, 11, OPEN, ERR_CORRUPT, "entries" },
        { 1648, 4, 1, OPEN, ERR_SOURCE, "uncleanShutdown" },
        { 2048, 4, 1, OPEN, ERR_CORRUPT, "into the header or the directory" },
        { 2048, 4, 4, OPEN, ERR_CORRUPT, "into the header or the directory" },
        { 2048, 4, 0x7fffffff, OPEN, ERR_CORRUPT, "past the end" },
        { 2052, 4, 5, VERIFY, ERR_CORRUPT, "shares sector" }, /* two tables are one */
        { 5 * SECTOR, 4, 4, READ, ERR_CORRUPT, "into the header or the directory" },
        { 5 * SECTOR, 4, 0xffffffff, READ, ERR_CORRUPT, "past the end" },
        { 5 * SECTOR, 4, 38, VERIFY, ERR_CORRUPT, "shares sector" }, /* the next grain's */
        { 5 * SECTOR, 4, 6, VERIFY, ERR_CORRUPT, "shares sector" },  /* the table's own */
    };

    struct err e;

    (void)state;
    tell('c', lies, sizeof lies / sizeof lies[0]);
    /* One table again and again: work without end out of a small file. */
    make("c", 'c', SECTORS);
    for (size_t i = 0; i < 10; i++)
        patch32(&f, "c-data.vmdk", 2048 + i * 4, 5);
    assert_int_equal(try_it("c.vmdk", &e), OPEN);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_non_null(strstr(e.text, "names 10 tables"));
}

static void sesparse(void **state)
{
    /* Directory at sector 4096, tables at 6144 (two of them), grains at 12288. */
    enum { GD = 4096 * SECTOR, GT = 6144 * SECTOR };
    static const struct lie lies[] = {
        { 0, 8, 0xcafebabf, OPEN, ERR_CORRUPT, "magic" },
        { 8, 8, UINT64_C(0x0000000200000002), OPEN, ERR_UNSUPPORTED, "version is 2.2" },
        { 16, 8, SECTORS + 8, OPEN, ERR_CORRUPT, "sectors" },
        { 24, 8, 16, OPEN, ERR_UNSUPPORTED, "grain size" },
        { 32, 8, 128, OPEN, ERR_UNSUPPORTED, "table size" },
        { 40, 8, 1, OPEN, ERR_UNSUPPORTED, "flags" },
        { 48, 8, 0x200, NEVER, ERR_NONE, NULL },
        { 48, 8, 0x201, OPEN, ERR_UNSUPPORTED, "reserved1" },
        { 56, 8, 0x200, OPEN, ERR_UNSUPPORTED, "reserved2" },
        { 72, 8, 1, OPEN, ERR_UNSUPPORTED, "reserved4" },
        { 80, 8, 2, OPEN, ERR_CORRUPT, "overlaps" }, /* the journal's header */
        { 88, 8, 2, OPEN, ERR_CORRUPT, "overlaps" },
        { 96, 8, 3, OPEN, ERR_UNSUPPORTED, "journal header" },
        { 112, 8, 3, OPEN, ERR_CORRUPT, "overlaps" },
        { 128, 8, UINT64_MAX, OPEN, ERR_CORRUPT, "overflows" },
        { 136, 8, 0, OPEN, ERR_CORRUPT, "too few" },
        { 152, 8, 64, OPEN, ERR_CORRUPT, "too few" },
        { 144, 8, 4097, OPEN, ERR_CORRUPT, "overlaps" },
        { 192, 8, 100, OPEN, ERR_CORRUPT, "overlaps" },
        { 208, 8, 1, OPEN, ERR_UNSUPPORTED, "padding" },
        { 504, 8, 1, OPEN, ERR_UNSUPPORTED, "padding" },
        { 512, 8, 0xcafebabe, OPEN, ERR_CORRUPT, "volatile" },
        { 536, 8, 1, OPEN, ERR_SOURCE, "replayJournal" },
        { 544, 8, 1, OPEN, ERR_UNSUPPORTED, "volatile" },
        { GD, 8, 1, OPEN, ERR_CORRUPT, "no known form" },
        { GD, 8, UINT64_C(0x1000000100000000), OPEN, ERR_CORRUPT, "no known form" },
        { GD, 8, UINT64_C(0x10000000ffffffff), OPEN, ERR_CORRUPT, "outside the region" },
        { GD + 8, 8, UINT64_C(0x1000000000000000), VERIFY, ERR_CORRUPT, "shares sector" },
        { GT, 8, 1, READ, ERR_CORRUPT, "type 0" },
        { GT, 8, UINT64_C(4) << 60, READ, ERR_CORRUPT, "unknown type" },
        { GT, 8, UINT64_C(0xf) << 60, READ, ERR_CORRUPT, "unknown type" },
        { GT, 8, UINT64_MAX >> 2, READ, ERR_CORRUPT, "outside the region" },
        { GT, 8, UINT64_C(3) << 60 | UINT64_C(0xfff) << 48, READ, ERR_CORRUPT, "past the file" },
        { GT, 8, UINT64_C(3) << 60 | UINT64_C(4) << 48, VERIFY, ERR_CORRUPT, "shares sector" },
    };

    (void)state;
    tell('s', lies, sizeof lies / sizeof lies[0]);
}

static void hosted_sparse(void **state)
{
    /* 313 grains: one table.  RGD 1, its table 2..5, GD 6, its table 7..10, grains from 128 on. */
    enum { RGT = 2 * SECTOR, GD = 6 * SECTOR, GT = 7 * SECTOR };
    static const struct lie lies[] = {
        { 0, 1, 'X', OPEN, ERR_CORRUPT, "KDMV" },
        { 4, 4, 0, OPEN, ERR_UNSUPPORTED, "version" },
        { 4, 4, 4, OPEN, ERR_UNSUPPORTED, "version" },
        { 8, 4, 0x107, OPEN, ERR_UNSUPPORTED, "flags" },
        { 8, 4, 0x10007, OPEN, ERR_CORRUPT, "compressAlgorithm" },
        { 8, 4, 0x20007, OPEN, ERR_CORRUPT, "markers" },
        { 12, 8, 0, OPEN, ERR_CORRUPT, "capacity" },
        { 12, 8, UINT64_C(1) << 60, OPEN, ERR_CORRUPT, "capacity" },
        { 12, 8, SECTORS + 1, OPEN, ERR_CORRUPT, "its descriptor" },
        { 20, 8, 0, OPEN, ERR_CORRUPT, "grainSize" },
        { 20, 8, 4, OPEN, ERR_CORRUPT, "grainSize" },
        { 20, 8, 100, OPEN, ERR_CORRUPT, "grainSize" },
        { 20, 8, 4096, OPEN, ERR_CORRUPT, "grainSize" },
        { 28, 8, UINT64_MAX, OPEN, ERR_CORRUPT, "descriptor" },
        { 44, 4, 0, OPEN, ERR_CORRUPT, "numGTEsPerGT" },
        { 44, 4, 1024, OPEN, ERR_CORRUPT, "numGTEsPerGT" },
        { 48, 8, 0, OPEN, ERR_CORRUPT, "rgdOffset" },
        { 48, 8, UINT64_C(1) << 40, OPEN, ERR_CORRUPT, "rgdOffset" },
        { 56, 8, 0, OPEN, ERR_CORRUPT, "gdOffset" },
        { 56, 8, UINT64_MAX, OPEN, ERR_CORRUPT, "gdOffset" },
        { 56, 8, UINT64_MAX - 1, OPEN, ERR_CORRUPT, "too large" },
        { 56, 8, 1 << 20, OPEN, ERR_CORRUPT, "gdOffset" },
        { 64, 8, 1 << 20, OPEN, ERR_CORRUPT, "overHead" },
        { 72, 1, 1, NEVER, ERR_NONE, NULL }, /* unclean, but both directories agree */
        { 73, 1, '\r', OPEN, ERR_CORRUPT, "text mode" },
        { 77, 2, 1, OPEN, ERR_CORRUPT, "compressAlgorithm" },
        { 77, 2, 2, OPEN, ERR_CORRUPT, "compressAlgorithm" },
        { 79, 1, 1, OPEN, ERR_UNSUPPORTED, "padding" },
        { GD, 4, 0, READ, ERR_CORRUPT, "directories differ" },
        { GD, 4, 0x7fffffff, OPEN, ERR_CORRUPT, "past the end" },
        { GD, 4, 2, VERIFY, ERR_CORRUPT, "shares sector" }, /* the copy itself */
        { GT, 4, 256, READ, ERR_CORRUPT, "differs from its redundant copy" },
        { RGT, 4, 0, READ, ERR_CORRUPT, "differs from its redundant copy" },
    };
    static const struct lie both[] = {
        { GT, 4, 129, READ, ERR_CORRUPT, "between two grains" },
        { GT, 4, 5, READ, ERR_CORRUPT, "into the metadata" },
        { GT, 4, 0x7fffff80, READ, ERR_CORRUPT, "past the end" },
        { GT, 4, 256, VERIFY, ERR_CORRUPT, "shares sector" },
    };
    struct err e;

    (void)state;
    tell('k', lies, sizeof lies / sizeof lies[0]);
    /* Both tables say the same wrong thing. */
    for (size_t i = 0; i < sizeof both / sizeof both[0]; i++) {
        make("k", 'k', SECTORS);
        patch32(&f, "k-data.vmdk", GT, (uint32_t)both[i].value);
        patch32(&f, "k-data.vmdk", RGT, (uint32_t)both[i].value);
        assert_int_equal(try_it("k.vmdk", &e), both[i].when);
        if (strstr(e.text, both[i].text) == NULL)
            fail_msg("%s", e.text);
    }
    /* Zero grains that the flags do not know. */
    make("k", 'k', SECTORS);
    patch32(&f, "k-data.vmdk", 8, 3);
    assert_int_equal(try_it("k.vmdk", &e), READ);
    assert_non_null(strstr(e.text, "do not allow"));
    /* Unclean without a copy. */
    make("k", 'k', SECTORS);
    patch32(&f, "k-data.vmdk", 8, 5);
    patch(&f, "k-data.vmdk", 72, "\1", 1);
    assert_int_equal(try_it("k.vmdk", &e), OPEN);
    assert_int_equal(e.code, ERR_SOURCE);
}

/* Cut anywhere: an error, never zeros in the place of data. */
static void files_that_are_cut_short(void **state)
{
    static const char kinds[] = "csk";

    (void)state;
    for (const char *k = kinds; *k != '\0'; k++) {
        char name[2] = { *k, 0 }, link[16], data[32];
        uint64_t last_bytes = *k == 'c' ? 41 * SECTOR : *k == 'k' ? 640 * SECTOR : 0;
        uint8_t *whole;
        size_t bytes;
        struct err e;

        snprintf(link, sizeof link, "%c.vmdk", *k);
        snprintf(data, sizeof data, "%c-data.vmdk", *k);
        make(name, *k, SECTORS);
        whole = slurp(folder_path(&f, data), &bytes);
        if (last_bytes == 0)
            last_bytes = (12288 + 2 * 8 + 4 * 8 + 1 * 8) * SECTOR; /* the last grain, about */
        for (size_t step = 0; step < 40; step++) {
            uint64_t size = 1 + last_bytes * step / 40;

            assert_int_equal(truncate(folder_path(&f, data), (off_t)size), 0);
            if (try_it(link, &e) == NEVER)
                fail_msg("%s of %llu bytes was taken", data, (unsigned long long)size);
            make(name, *k, SECTORS);
        }
        free(whole);
    }
}

/* Sparse all over: tables are looked at in parts of the file that are used, with little memory. */
static void grains_far_apart_are_still_compared(void **state)
{
    struct err e;
    uint64_t far = UINT64_C(3) << 60 | UINT64_C(1) << 36; /* grain 2^48: outside its region */

    (void)state;
    make("s", 's', SECTORS);
    patch64(&f, "s-data.vmdk", 200, UINT64_C(1) << 36); /* grains region: 32 TiB */
    patch64(&f, "s-data.vmdk", 6144 * SECTOR, far);
    assert_int_equal(try_it("s.vmdk", &e), READ);
    far = UINT64_C(3) << 60 | UINT64_C(1) << 14; /* grain 2^26: 256 GiB on */
    patch64(&f, "s-data.vmdk", 6144 * SECTOR, far);
    assert_int_equal(truncate(folder_path(&f, "s-data.vmdk"), (off_t)1 << 40), 0);
    assert_int_equal(try_it("s.vmdk", &e), NEVER);
    patch64(&f, "s-data.vmdk", 6144 * SECTOR + 8, far);
    assert_int_equal(try_it("s.vmdk", &e), VERIFY);
    assert_non_null(strstr(e.text, "shares sector"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cowd),
        TEST(sesparse),
        TEST(hosted_sparse),
        TEST(files_that_are_cut_short),
        TEST(grains_far_apart_are_still_compared),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
