/* A disk of 62 TiB with ten used blocks: little memory, little time, each block found. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "tests/unit/vmdk/images.h"

enum { SECTOR = 512, BLOCKS = 10, MEMORY_MAX_KIB = 64 << 10 };
#define CAPACITY (UINT64_C(62) << 40)

/* Where the blocks are: first, last, and between. */
static uint64_t block_at(unsigned i)
{
    return i == BLOCKS - 1 ? CAPACITY - 4096 : CAPACITY / BLOCKS / 4096 * 4096 * i;
}

/* ---- a base that is only claimed ---- */

static int huge_extent_at(struct source *s, uint64_t at, struct extent *out, struct err *e)
{
    (void)e;
    *out = (struct extent){ at, s->capacity_bytes - at, EXTENT_ZERO };
    return 0;
}

static int huge_read(struct source *s, uint64_t at, void *out, size_t count, struct err *e)
{
    (void)s;
    (void)at;
    (void)e;
    memset(out, 0, count);
    return 0;
}

static void huge_close(struct source *s)
{
    free(s);
}

static const struct source_ops huge_ops = { huge_extent_at, huge_read, huge_close };

/* A table of files of our own: the local one, but for the base. */
struct claimed_files {
    struct vmdk_files files;
    struct vmdk_files *local;
};

static int claimed_open(struct vmdk_files *files, const char *from, const char *name,
                        enum vmdk_role role, struct vmdk_file *out, struct err *e)
{
    struct claimed_files *c = (struct claimed_files *)files;

    if (strcmp(name, "huge-flat.vmdk") != 0)
        return c->local->open(c->local, from, name, role, out, e);
    *out = (struct vmdk_file){ .source = malloc(sizeof *out->source),
                               .place = strdup("/claimed/huge-flat.vmdk"),
                               .device = UINT64_MAX,
                               .size_bytes = CAPACITY };
    assert_true(out->source != NULL && out->place != NULL);
    *out->source = (struct source){ &huge_ops, CAPACITY, 0, SOURCE_HOLES_CLAIMED };
    return 0;
}

static long memory_kib(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kib = -1;

    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            break;
    fclose(f);
    return kib;
}

/* All that the walk and the list of changes ask for. */
static void look(const struct folder *f, struct vmdk_files *files, const char *name)
{
    struct vmdk_config config = { .files = files };
    struct vmdk_chain *c;
    unsigned found = 0, extents = 0, changed = 0;
    struct extent x;
    uint8_t byte;
    struct err e;

    if (vmdk_chain_open(&c, &config, folder_path(f, name), &e) != 0)
        fail_msg("%s", e.text);
    /* What is only claimed of the base is only claimed of the disk. */
    assert_int_equal(vmdk_chain_source(c)->flags,
                     vmdk_chain_link_count(c) > 1 ? SOURCE_HOLES_CLAIMED : 0);
    for (uint64_t at = 0; at < CAPACITY; at += x.length_bytes, extents++) {
        if (source_extent_at(vmdk_chain_source(c), at, &x, &e) != 0)
            fail_msg("%s", e.text);
        if (x.kind == EXTENT_ZERO)
            continue;
        for (unsigned i = 0; i < BLOCKS; i++)
            found += block_at(i) >= at && block_at(i) < at + x.length_bytes;
    }
    assert_int_equal(found, BLOCKS);
    assert_true(extents < 1000);
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (source_read(vmdk_chain_source(c), block_at(i), &byte, 1, &e) != 0)
            fail_msg("%s", e.text);
        assert_int_equal(byte, i + 1);
    }
    for (uint64_t at = 0; vmdk_chain_link_count(c) > 1; at = x.offset_bytes + x.length_bytes) {
        if (vmdk_chain_changed_at(c, 1, 65536, at, &x, &e) != 0)
            fail_msg("%s", e.text);
        if (x.length_bytes == 0)
            break;
        changed++;
    }
    assert_int_equal(changed, vmdk_chain_link_count(c) > 1 ? BLOCKS : 0);
    if (vmdk_chain_verify(c, &e) != 0)
        fail_msg("%s", e.text);
    assert_true(vmdk_chain_link(c, 0)->allocated_bytes <= BLOCKS * 65536);
    vmdk_chain_close(c);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(memory_kib() <= MEMORY_MAX_KIB);
#else
    (void)memory_kib;
#endif
}

static void a_vast_sesparse_delta(void **state)
{
    const uint64_t sectors = CAPACITY / SECTOR, tables = CAPACITY >> 24;
    const uint64_t directory = (tables * 8 / SECTOR + 2047) / 2048 * 2048, gt = 4096 + directory;
    const uint64_t grains = (gt + tables * 64 + 2047) / 2048 * 2048;
    const uint64_t regions[][2] = {
        { 1, 1 },      { 2, 2 },      { 2048, 2048 },     { 4096, directory }, { gt, tables * 64 },
        { grains, 0 }, { grains, 0 }, { grains, sectors }
    };
    struct claimed_files claimed = { .files = { .open = claimed_open } };
    struct folder f;
    int fd;

    (void)state;
    folder_make(&f);
    claimed.local = f.files;
    fd = file_make(&f, "d-sesparse.vmdk");
    put64(fd, 0, 0xcafebabe);
    put64(fd, 8, UINT64_C(0x0000000200000001));
    put64(fd, 16, sectors);
    put64(fd, 24, 8);
    put64(fd, 32, 64);
    for (size_t i = 0; i < 8; i++) {
        put64(fd, 80 + i * 16, regions[i][0]);
        put64(fd, 88 + i * 16, regions[i][1]);
    }
    put64(fd, 512, 0xcafecafe);
    for (unsigned i = 0; i < BLOCKS; i++) {
        uint64_t grain = block_at(i) / 4096, n = i * 5000;
        uint8_t bytes[4096];

        memset(bytes, (int)i + 1, sizeof bytes);
        put64(fd, 4096 * SECTOR + grain / 4096 * 8,
              UINT64_C(0x1000000000000000) | (tables - 1 - i));
        put64(fd, (gt + (tables - 1 - i) * 64) * SECTOR + grain % 4096 * 8,
              UINT64_C(3) << 60 | (n & 0xfff) << 48 | n >> 12);
        put_bytes(fd, (grains + n * 8) * SECTOR, bytes, sizeof bytes);
    }
    close(fd);
    link_write(&f, "huge.vmdk", "vmfs", "VMFS", "huge-flat.vmdk", sectors, 1, 0, NULL);
    link_write(&f, "d.vmdk", "seSparse", "SESPARSE", "d-sesparse.vmdk", sectors, 2, 1, "huge.vmdk");
    look(&f, &claimed.files, "d.vmdk");
    folder_remove(&f);
}

static void a_vast_hosted_sparse_disk(void **state)
{
    const uint64_t sectors = CAPACITY / SECTOR, tables = CAPACITY >> 25;
    const uint64_t gt = 1 + tables * 4 / SECTOR;
    const uint64_t over = (gt + BLOCKS * 4 + 127) / 128 * 128;
    struct folder f;
    int fd;

    (void)state;
    folder_make(&f);
    fd = file_make(&f, "s001.vmdk");
    put_bytes(fd, 0, "KDMV", 4);
    put32(fd, 4, 1);
    put32(fd, 8, 1);
    put64(fd, 12, sectors);
    put64(fd, 20, 128);
    put32(fd, 44, 512);
    put64(fd, 56, 1);
    put64(fd, 64, over);
    put_bytes(fd, 73, "\n \r\n", 4);
    for (unsigned i = 0; i < BLOCKS; i++) {
        uint64_t grain = block_at(i) / 65536, at = over + i * 128;
        uint8_t bytes[65536];

        memset(bytes, (int)i + 1, sizeof bytes);
        put32(fd, SECTOR + grain / 512 * 4, (uint32_t)(gt + i * 4));
        put32(fd, (gt + i * 4) * SECTOR + grain % 512 * 4, (uint32_t)at);
        put_bytes(fd, at * SECTOR, bytes, sizeof bytes);
    }
    close(fd);
    link_write(&f, "huge.vmdk", "twoGbMaxExtentSparse", "SPARSE", "s001.vmdk", sectors, 1, 0, NULL);
    look(&f, f.files, "huge.vmdk");
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_vast_sesparse_delta),
        cmocka_unit_test(a_vast_hosted_sparse_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
