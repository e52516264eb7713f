/* What qemu-img makes is read as qemu-img reads it; and forms of hosted products that it has not.
 */
#include "tests/unit/cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "tests/unit/vmdk/images.h"

enum { SECTOR = 512 };

static struct folder f;

static int setup(void **state)
{
    (void)state;
    folder_make(&f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    folder_remove(&f);
    return 0;
}

static struct vmdk_chain *open_chain(const char *name)
{
    struct vmdk_config config = { .files = f.files };
    struct vmdk_chain *c;
    struct err e;

    if (vmdk_chain_open(&c, &config, folder_path(&f, name), &e) != 0)
        fail_msg("%s", e.text);
    return c;
}

/* The chain reads as the raw file says; holes of the raw file need not be read to compare. */
static void compare_raw(struct vmdk_chain *c, const char *raw)
{
    struct source *s = vmdk_chain_source(c);
    int fd = open(folder_path(&f, raw), O_RDONLY | O_CLOEXEC);
    uint8_t *ours = malloc(1 << 20), *theirs = malloc(1 << 20);
    struct extent x;
    struct err e;

    assert_true(fd >= 0 && ours != NULL && theirs != NULL);
    assert_true((uint64_t)lseek(fd, 0, SEEK_END) == s->capacity_bytes);
    for (uint64_t at = 0; at < s->capacity_bytes; at += x.length_bytes) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);

        if (source_extent_at(s, at, &x, &e) != 0)
            fail_msg("%s", e.text);
        assert_true(x.length_bytes > 0 && x.length_bytes <= s->capacity_bytes - at);
        /* Zeros that we claim, and a hole there: equal without reading. */
        if (x.kind == EXTENT_ZERO && (data < 0 || (uint64_t)data >= at + x.length_bytes))
            continue;
        if (x.length_bytes > 1 << 20)
            x.length_bytes = 1 << 20;
        if (source_read(s, at, ours, x.length_bytes, &e) != 0)
            fail_msg("%s", e.text);
        assert_int_equal(pread(fd, theirs, x.length_bytes, (off_t)at), x.length_bytes);
        if (memcmp(ours, theirs, x.length_bytes) != 0)
            fail_msg("bytes from %llu on differ", (unsigned long long)at);
    }
    close(fd);
    free(ours);
    free(theirs);
}

static void check_against_qemu(const char *name)
{
    struct vmdk_chain *c = open_chain(name);
    struct err e;

    run("qemu-img convert -f vmdk -O raw %s %s", folder_path(&f, name), folder_path(&f, "q.raw"));
    compare_raw(c, "q.raw");
    if (vmdk_chain_verify(c, &e) != 0)
        fail_msg("%s", e.text);
    vmdk_chain_close(c);
}

/* Data at both ends and in the middle, and runs of it. */
static void make_raw(const char *name, uint64_t sectors)
{
    uint8_t bytes[4096];
    int fd = file_make(&f, name);
    uint64_t size = sectors * SECTOR;

    file_size(fd, size);
    for (uint64_t i = 0, r = sectors; i < 60; i++) {
        uint64_t at = i == 0 ? 0 : i == 1 ? size - sizeof bytes : next_random(&r) % size;

        if (at > size - sizeof bytes)
            at = size - sizeof bytes;
        memset(bytes, (int)(i + 1), sizeof bytes);
        put_bytes(fd, at, bytes, sizeof bytes);
    }
    close(fd);
}

static void every_form_that_qemu_writes(void **state)
{
    static const char *const forms[] = { "monolithicSparse", "monolithicSparse,zeroed_grain=on",
                                         "monolithicFlat", "twoGbMaxExtentSparse",
                                         "twoGbMaxExtentFlat" };
    /* The last one is of several files where the form splits. */
    static const uint64_t sizes[] = { 20483, 131072, 4194304 + 4194304 + 999 };

    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            make_raw("in.raw", sizes[k]);
            run("cd %s && rm -f d*.vmdk && qemu-img convert -f raw -O vmdk -o subformat=%s in.raw "
                "d.vmdk",
                f.path, forms[i]);
            {
                struct vmdk_chain *c = open_chain("d.vmdk");
                struct err e;

                compare_raw(c, "in.raw");
                if (vmdk_chain_verify(c, &e) != 0)
                    fail_msg("%s", e.text);
                if (k == 2 && strncmp(forms[i], "two", 3) == 0)
                    assert_int_equal(vmdk_chain_link(c, 0)->extent_count, 3);
                vmdk_chain_close(c);
            }
        }
}

static void chains_that_qemu_writes(void **state)
{
    (void)state;
    run("cd %s && qemu-img create -q -f vmdk base.vmdk 20m && "
        "qemu-io -f vmdk -c 'write -P 1 0 3m' -c 'write -P 2 10m 5m' base.vmdk >/dev/null && "
        "qemu-img create -q -f vmdk -o zeroed_grain=on -b base.vmdk -F vmdk one.vmdk && "
        "qemu-io -f vmdk -c 'write -P 3 1m 1m' -c 'write -z 11m 1m' -c 'write -P 4 19m 1m' "
        "one.vmdk >/dev/null && "
        "qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse -b one.vmdk -F vmdk "
        "two.vmdk && qemu-io -f vmdk -c 'write -P 5 1100k 3k' two.vmdk >/dev/null",
        f.path);
    check_against_qemu("base.vmdk");
    check_against_qemu("one.vmdk");
    check_against_qemu("two.vmdk");
    {
        struct vmdk_chain *c = open_chain("two.vmdk");
        struct extent x;
        struct err e;

        assert_int_equal(vmdk_chain_link_count(c), 3);
        assert_int_equal(vmdk_chain_link_extent_at(c, 1, 11 << 20, &x, &e), 0);
        assert_int_equal(x.kind, EXTENT_ZERO);
        assert_true(x.length_bytes == 1 << 20);
        assert_int_equal(vmdk_chain_link_extent_at(c, 1, 12 << 20, &x, &e), 0);
        assert_int_equal(x.kind, EXTENT_PARENT);
        assert_true(x.length_bytes == 7 << 20);
        vmdk_chain_close(c);
    }
}

static void a_child_that_is_larger_than_its_parent(void **state)
{
    (void)state;
    run("cd %s && qemu-img create -q -f vmdk base.vmdk 3m && "
        "qemu-io -f vmdk -c 'write -P 1 0 3m' base.vmdk >/dev/null && "
        "qemu-img create -q -f vmdk -b base.vmdk -F vmdk big.vmdk 10m && "
        "qemu-io -f vmdk -c 'write -P 3 2m 2m' -c 'write -P 4 9m 64k' big.vmdk >/dev/null",
        f.path);
    check_against_qemu("big.vmdk");
    run("cd %s && qemu-img create -q -f vmdk -b base.vmdk -F vmdk small.vmdk 1m", f.path);
    check_against_qemu("small.vmdk");
    /* The same over a flat base, which has nothing at all behind its end. */
    run("cd %s && qemu-img create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 3m && "
        "qemu-io -f vmdk -c 'write -P 1 0 3m' flat.vmdk >/dev/null && "
        "qemu-img create -q -f vmdk -b flat.vmdk -F vmdk big.vmdk 10m && "
        "qemu-io -f vmdk -c 'write -P 4 9m 64k' big.vmdk >/dev/null",
        f.path);
    check_against_qemu("big.vmdk");
    {
        struct vmdk_chain *c = open_chain("big.vmdk");
        struct extent x;
        struct err e;

        assert_int_equal(source_extent_at(vmdk_chain_source(c), 3 << 20, &x, &e), 0);
        assert_int_equal(x.kind, EXTENT_ZERO);
        assert_true(x.length_bytes == 6 << 20);
        assert_int_equal(vmdk_chain_changed_at(c, 1, 65536, 0, &x, &e), 0);
        assert_true(x.offset_bytes == 9 << 20 && x.length_bytes == 65536);
        vmdk_chain_close(c);
    }
}

/* COWD and seSparse without zero grains are what qemu reads as we do. */
static void deltas_that_qemu_reads_too(void **state)
{
    static const char kinds[] = "csc";
    char name[32] = "base.vmdk", data[32], parent[32];
    uint64_t sectors = 70001;

    (void)state;
    make_raw("base-flat.vmdk", sectors);
    link_write(&f, "base.vmdk", "vmfs", "VMFS", "base-flat.vmdk", sectors, 1, 0, NULL);
    for (unsigned i = 0; i < 3; i++) {
        struct layer l;

        layer_random(&l, sectors, kinds[i] == 'c' ? 1 : 8, i + 50);
        for (size_t k = 0; k < l.grains; k++)
            if (kinds[i] == 'c' && l.states[k] != DATA)
                l.states[k] = ABSENT; /* qemu does not know COWD's zero grains */
        snprintf(parent, sizeof parent, "%s", name);
        snprintf(name, sizeof name, "d%u.vmdk", i);
        snprintf(data, sizeof data, "d%u-data.vmdk", i);
        if (kinds[i] == 'c')
            cowd_write(&f, data, &l, i);
        else
            sesparse_write(&f, data, &l, 4); /* reserved1 0, large grain numbers */
        layer_free(&l);
        link_write(&f, name, kinds[i] == 'c' ? "vmfsSparse" : "seSparse",
                   kinds[i] == 'c' ? "VMFSSPARSE" : "SESPARSE", data, sectors, i + 2, i + 1,
                   parent);
        check_against_qemu(name);
    }
}

/* Lines of several kinds; one file behind two of them; zeros without a file; an odd last line. */
static void extents_of_many_kinds(void **state)
{
    struct layer l;
    uint8_t *disk = calloc(1, 1000 * SECTOR), *flat;
    struct vmdk_chain *c;
    struct extent x;
    struct err e;
    size_t bytes;
    int fd;

    (void)state;
    assert_non_null(disk);
    make_raw("one-f001.vmdk", 300);
    flat = slurp(folder_path(&f, "one-f001.vmdk"), &bytes);
    layer_random(&l, 500, 128, 9);
    sparse_write(&f, "one-s001.vmdk", &l, 4);
    file_text(&f, "one.vmdk",
              "# Disk DescriptorFile\r\nversion=1\r\nCID=5\r\nparentCID=ffffffff\r\n"
              "createType=\"custom\"\r\nRW 100 FLAT \"one-f001.vmdk\" 200\r\n"
              "RW 200 ZERO\r\nRDONLY 500 SPARSE \"one-s001.vmdk\"\r\n"
              "rw 200 flat \"one-f001.vmdk\"\r\nNOACCESS 0 ZERO \r\n");
    memcpy(disk, flat + 200 * SECTOR, 100 * SECTOR);
    layer_over(&l, disk + 300 * SECTOR, 500);
    memcpy(disk + 800 * SECTOR, flat, 200 * SECTOR);
    fd = file_make(&f, "one.raw");
    put_bytes(fd, 0, disk, 1000 * SECTOR);
    close(fd);
    c = open_chain("one.vmdk");
    compare_raw(c, "one.raw");
    assert_string_equal(vmdk_chain_link(c, 0)->format, "split");
    assert_int_equal(source_extent_at(vmdk_chain_source(c), 150 * SECTOR, &x, &e), 0);
    assert_int_equal(x.kind, EXTENT_ZERO);
    assert_true(x.length_bytes >= 150 * SECTOR);
    vmdk_chain_close(c);
    layer_free(&l);
    free(disk);
    free(flat);
}

/* One file cannot be two extents when it has tables. */
static void a_sparse_file_is_one_extent(void **state)
{
    struct vmdk_config config = { .files = f.files };
    struct vmdk_chain *c;
    struct layer l;
    struct err e;

    (void)state;
    layer_random(&l, 500, 128, 9);
    sparse_write(&f, "s001.vmdk", &l, 4);
    layer_free(&l);
    file_text(&f, "one.vmdk",
              "# Disk DescriptorFile\nversion=1\nCID=5\nparentCID=ffffffff\n"
              "createType=\"custom\"\nRW 500 SPARSE \"s001.vmdk\"\nRW 500 SPARSE \"s001.vmdk\"\n");
    assert_int_equal(vmdk_chain_open(&c, &config, folder_path(&f, "one.vmdk"), &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    /* The data of a split disk is no disk. */
    assert_int_equal(vmdk_chain_open(&c, &config, folder_path(&f, "s001.vmdk"), &e), -1);
    assert_int_equal(e.code, ERR_FORMAT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_form_that_qemu_writes),
        TEST(chains_that_qemu_writes),
        TEST(a_child_that_is_larger_than_its_parent),
        TEST(deltas_that_qemu_reads_too),
        TEST(extents_of_many_kinds),
        TEST(a_sparse_file_is_one_extent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
