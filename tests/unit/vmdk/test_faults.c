/* The n-th read, write or answer fails, for every n: an error with its code, never other bytes. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "protocol/vmdk/stream.h"
#include "receiver/base/codec_zlib.h"
#include "tests/unit/vmdk/images.h"

enum { SECTOR = 512, SECTORS = 9000, GRAIN = 65536 };

static unsigned calls, fails_at;

static int may_fail(struct err *e)
{
    return ++calls == fails_at ? err_set(e, ERR_NETWORK, "this call fails") : 0;
}

/* ---- files whose reads fail ---- */

struct failing_source {
    struct source source;
    struct source *under;
};

static int failing_extent_at(struct source *s, uint64_t at, struct extent *out, struct err *e)
{
    return may_fail(e) != 0 ? -1
                            : source_extent_at(((struct failing_source *)s)->under, at, out, e);
}

static int failing_read(struct source *s, uint64_t at, void *out, size_t count, struct err *e)
{
    return may_fail(e) != 0 ? -1
                            : source_read(((struct failing_source *)s)->under, at, out, count, e);
}

static void failing_close(struct source *s)
{
    source_close(((struct failing_source *)s)->under);
    free(s);
}

static const struct source_ops failing_ops = { failing_extent_at, failing_read, failing_close };

struct failing_files {
    struct vmdk_files files;
    struct vmdk_files *under;
};

static int failing_open(struct vmdk_files *files, const char *from, const char *name,
                        enum vmdk_role role, struct vmdk_file *out, struct err *e)
{
    struct failing_files *f = (struct failing_files *)files;
    struct failing_source *s;

    if (may_fail(e) != 0 || f->under->open(f->under, from, name, role, out, e) != 0)
        return -1;
    s = malloc(sizeof *s);
    assert_non_null(s);
    s->source = *out->source;
    s->source.ops = &failing_ops;
    s->under = out->source;
    out->source = &s->source;
    return 0;
}

/* Open, look and read all; 0, or -1 as the first that failed. */
static int use(struct folder *f, const char *name, const uint8_t *disk, struct err *e)
{
    struct failing_files failing = { { failing_open, NULL, NULL }, f->files };
    struct vmdk_config config = { .files = &failing.files,
                                  .codec = &codec_zlib,
                                  .cache_bytes = VMDK_CACHE_BYTES_MIN };
    static uint8_t buffer[SECTORS * SECTOR];
    struct source *s = NULL;
    struct vmdk_chain *c;
    struct extent x;
    int rc = -1;

    if (vmdk_chain_open(&c, &config, folder_path(f, name), e) != 0)
        return -1;
    s = vmdk_chain_source(c);
    for (uint64_t at = 0; at < s->capacity_bytes; at += x.length_bytes)
        if (source_extent_at(s, at, &x, e) != 0)
            goto out;
    for (size_t at = 0; at < s->capacity_bytes; at += GRAIN) {
        size_t count = s->capacity_bytes - at < GRAIN ? (size_t)s->capacity_bytes - at : GRAIN;

        if (source_read(s, at, buffer + at, count, e) != 0)
            goto out;
        assert_memory_equal(buffer + at, disk + at, count);
    }
    if (vmdk_chain_changed_at(c, vmdk_chain_link_count(c) - 1, GRAIN, 0, &x, e) != 0 ||
        vmdk_chain_verify(c, e) != 0)
        goto out;
    /* This table cannot tell whether files are the same as before. */
    assert_int_equal(vmdk_chain_unchanged(c, e), -1);
    assert_int_equal(e->code, ERR_UNSUPPORTED);
    rc = 0;

out:
    source_close(s); /* which closes the chain */
    return rc;
}

static void try_all(struct folder *f, const char *name, const uint8_t *disk)
{
    struct err e;

    for (fails_at = 1;; fails_at++) {
        int rc;

        calls = 0;
        e = (struct err){ 0 };
        rc = use(f, name, disk, &e);
        if (calls < fails_at) {
            if (rc != 0)
                fail_msg("%s", e.text);
            break;
        }
        assert_int_equal(rc, -1);
        assert_int_equal(e.code, ERR_NETWORK);
        assert_non_null(strstr(e.text, "this call fails"));
    }
    assert_true(fails_at > 10);
}

static void each_read_of_a_chain_may_fail(void **state)
{
    uint8_t *disk = calloc(1, SECTORS * SECTOR);
    struct folder f;
    struct layer l;
    int fd;

    (void)state;
    assert_non_null(disk);
    folder_make(&f);
    memset(disk, 'b', SECTORS * SECTOR);
    fd = file_make(&f, "base-flat.vmdk");
    put_bytes(fd, 0, disk, SECTORS * SECTOR);
    close(fd);
    link_write(&f, "base.vmdk", "vmfs", "VMFS", "base-flat.vmdk", SECTORS, 1, 0, NULL);
    layer_random(&l, SECTORS, 8, 5);
    sesparse_write(&f, "s-data.vmdk", &l, 3);
    layer_over(&l, disk, SECTORS);
    layer_free(&l);
    link_write(&f, "s.vmdk", "seSparse", "SESPARSE", "s-data.vmdk", SECTORS, 2, 1, "base.vmdk");
    layer_random(&l, SECTORS, 128, 6);
    sparse_write(&f, "k-data.vmdk", &l, 4);
    layer_over(&l, disk, SECTORS);
    layer_free(&l);
    link_write(&f, "k.vmdk", "twoGbMaxExtentSparse", "SPARSE", "k-data.vmdk", SECTORS, 3, 2,
               "s.vmdk");
    layer_random(&l, SECTORS, 16, 7);
    cowd_write(&f, "c-data.vmdk", &l, 3);
    layer_over(&l, disk, SECTORS);
    layer_free(&l);
    link_write(&f, "c.vmdk", "vmfsSparse", "VMFSSPARSE", "c-data.vmdk", SECTORS, 4, 3, "k.vmdk");
    try_all(&f, "c.vmdk", disk);
    free(disk);
    folder_remove(&f);
}

/* ---- streams ---- */

static const char text[] = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
                           "createType=\"streamOptimized\"\nRW 300 SPARSE \"a\"\n";

static int failing_write(void *context, const void *data, size_t bytes, struct err *e)
{
    return may_fail(e) != 0 ? -1 : bytes_append(context, data, bytes, e);
}

static int write_all(struct bytes *out, struct err *e)
{
    struct vmdk_stream_output output = { failing_write, out };
    struct vmdk_stream_config config = { &codec_zlib, &output, 300 * SECTOR, text,
                                         sizeof text - 1 };
    struct vmdk_stream_writer *w;
    uint8_t grain[GRAIN];
    int rc;

    memset(grain, 'g', sizeof grain);
    if (vmdk_stream_writer_new(&w, &config, e) != 0)
        return -1;
    rc = vmdk_stream_writer_grain(w, GRAIN, grain, sizeof grain, e);
    if (rc == 0)
        rc = vmdk_stream_writer_end(w, e);
    vmdk_stream_writer_free(w);
    return rc;
}

struct from {
    const struct bytes *bytes;
    size_t at;
};

static int failing_input(void *context, void *out, size_t room, size_t *got, struct err *e)
{
    struct from *f = context;
    size_t left = f->bytes->count - f->at;

    if (may_fail(e) != 0)
        return -1;
    *got = room < left ? room : left;
    memcpy(out, f->bytes->data + f->at, *got);
    f->at += *got;
    return 0;
}

static int failing_begin(void *context, uint64_t capacity, const char *descriptor, size_t bytes,
                         struct err *e)
{
    (void)context;
    assert_true(capacity == 300 * SECTOR && bytes == sizeof text - 1);
    assert_memory_equal(descriptor, text, bytes);
    return may_fail(e);
}

static int failing_grain(void *context, uint64_t offset, const void *data, size_t bytes,
                         struct err *e)
{
    (void)context;
    assert_true(offset == GRAIN && bytes == GRAIN && ((const char *)data)[0] == 'g');
    return may_fail(e);
}

static void each_step_of_a_stream_may_fail(void **state)
{
    struct bytes out;
    struct err e;
    int rc;

    (void)state;
    for (fails_at = 1;; fails_at++) {
        calls = 0;
        out = (struct bytes){ .ceiling = 1 << 20 };
        rc = write_all(&out, &e);
        if (calls < fails_at)
            break;
        assert_int_equal(rc, -1);
        assert_int_equal(e.code, ERR_NETWORK);
        bytes_free(&out);
    }
    assert_int_equal(rc, 0);
    for (fails_at = 1;; fails_at++) {
        struct from from = { &out, 0 };
        struct vmdk_stream_input input = { failing_input, &from };
        struct vmdk_stream_sink sink = { failing_begin, failing_grain, NULL };

        calls = 0;
        rc = vmdk_stream_scan(&input, &codec_zlib, &sink, &e);
        if (calls < fails_at)
            break;
        assert_int_equal(rc, -1);
        assert_int_equal(e.code, ERR_NETWORK);
    }
    assert_int_equal(rc, 0);
    bytes_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_read_of_a_chain_may_fail),
        cmocka_unit_test(each_step_of_a_stream_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
