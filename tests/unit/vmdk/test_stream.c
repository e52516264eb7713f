/* streamOptimized: by directory, from a pipe, and written. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "protocol/vmdk/codec.h"
#include "protocol/vmdk/descriptor.h"
#include "protocol/vmdk/stream.h"
#include "receiver/base/codec_zlib.h"
#include "tests/unit/vmdk/images.h"

enum { SECTOR = 512, GRAIN = 65536 };

/* ---- a disk in memory as source ---- */

struct memory {
    struct source source;
    const uint8_t *bytes;
};

static int memory_extent_at(struct source *s, uint64_t at, struct extent *out, struct err *e)
{
    const uint8_t *b = ((struct memory *)s)->bytes;
    uint64_t end = at;

    (void)e;
    while (end < s->capacity_bytes && (b[end] == 0) == (b[at] == 0))
        end++;
    *out = (struct extent){ at, end - at, b[at] == 0 ? EXTENT_ZERO : EXTENT_DATA };
    return 0;
}

static int memory_read(struct source *s, uint64_t at, void *out, size_t count, struct err *e)
{
    (void)e;
    memcpy(out, ((struct memory *)s)->bytes + at, count);
    return 0;
}

static const struct source_ops memory_ops = { memory_extent_at, memory_read, NULL };

/* ---- pipe ends ---- */

static int to_bytes(void *context, const void *data, size_t bytes, struct err *e)
{
    return bytes_append(context, data, bytes, e);
}

struct pipe_end {
    const uint8_t *data;
    size_t bytes, at, step; /* at most step bytes at a time */
};

static int from_bytes(void *context, void *out, size_t room, size_t *got, struct err *e)
{
    struct pipe_end *p = context;

    (void)e;
    *got = room < p->step ? room : p->step;
    if (*got > p->bytes - p->at)
        *got = p->bytes - p->at;
    memcpy(out, p->data + p->at, *got);
    p->at += *got;
    return 0;
}

struct rebuilt {
    uint8_t *disk;
    uint64_t capacity;
    size_t grains;
};

static int on_begin(void *context, uint64_t capacity_bytes, const char *text, size_t bytes,
                    struct err *e)
{
    struct rebuilt *r = context;

    (void)e;
    (void)text;
    (void)bytes;
    r->capacity = capacity_bytes;
    r->disk = calloc(1, capacity_bytes);
    assert_non_null(r->disk);
    return 0;
}

static int on_grain(void *context, uint64_t offset, const void *data, size_t bytes, struct err *e)
{
    struct rebuilt *r = context;

    (void)e;
    assert_true(offset < r->capacity && bytes <= r->capacity - offset);
    memcpy(r->disk + offset, data, bytes);
    r->grains++;
    return 0;
}

static int scan(const uint8_t *data, size_t bytes, struct rebuilt *r, struct err *e)
{
    struct pipe_end p = { data, bytes, 0, 7001 };
    struct vmdk_stream_input input = { from_bytes, &p };
    struct vmdk_stream_sink sink = { on_begin, on_grain, r };

    *r = (struct rebuilt){ 0 };
    return vmdk_stream_scan(&input, &codec_zlib, &sink, e);
}

/* ---- writing ---- */

static void text_of(uint64_t sectors, struct bytes *out)
{
    struct descriptor_extent x = {
        .access = ACCESS_RW, .sectors = sectors, .type = "SPARSE", .name = (char[]){ "disk.vmdk" }
    };
    struct descriptor_ddb ddb = { (char[]){ "adapterType" }, (char[]){ "lsilogic" } };
    struct descriptor d = { .version = 1,
                            .cid = 0x1234,
                            .parent_cid = DESCRIPTOR_CID_NONE,
                            .create_type = "streamOptimized",
                            .extents = &x,
                            .extent_count = 1,
                            .ddb = &ddb,
                            .ddb_count = 1 };
    struct err e;

    *out = (struct bytes){ .ceiling = 10240 };
    if (descriptor_write(&d, out, &e) != 0)
        fail_msg("%s", e.text);
}

static void write_stream(const uint8_t *disk, uint64_t sectors, struct bytes *out)
{
    struct memory m = { { &memory_ops, sectors * SECTOR, sectors * SECTOR, 0 }, disk };
    struct vmdk_stream_output output = { to_bytes, out };
    struct vmdk_stream_writer *w;
    struct bytes text;
    struct err e;

    *out = (struct bytes){ .ceiling = 256 << 20 };
    text_of(sectors, &text);
    {
        struct vmdk_stream_config config = { &codec_zlib, &output, sectors * SECTOR,
                                             (char *)text.data, text.count };

        if (vmdk_stream_writer_new(&w, &config, &e) != 0 ||
            vmdk_stream_write_source(w, &m.source, &e) != 0)
            fail_msg("%s", e.text);
    }
    assert_true(vmdk_stream_writer_bytes(w) == out->count);
    vmdk_stream_writer_free(w);
    bytes_free(&text);
}

static void put_file(struct folder *f, const char *name, const uint8_t *data, size_t bytes)
{
    int fd = file_make(f, name);

    put_bytes(fd, 0, data, bytes);
    close(fd);
}

/* Grains of data, of zeros, and of what does not compress. */
static uint8_t *make_disk(uint64_t sectors, uint64_t seed)
{
    struct layer l;
    uint8_t *disk = calloc(1, sectors * SECTOR);

    assert_non_null(disk);
    layer_random(&l, sectors, 64, seed);
    layer_over(&l, disk, sectors);
    for (uint64_t i = 0; i < sectors * SECTOR / GRAIN; i += 3)
        memset(disk + i * GRAIN + 100, (int)i, GRAIN / 2);
    layer_free(&l);
    return disk;
}

static void compare_chain(struct folder *f, const char *name, const uint8_t *disk, uint64_t sectors)
{
    struct vmdk_config config = { .files = f->files, .codec = &codec_zlib };
    struct vmdk_chain *c;
    struct source *s;
    uint8_t *buffer = malloc(300000);
    struct err e;

    assert_non_null(buffer);
    if (vmdk_chain_open(&c, &config, folder_path(f, name), &e) != 0)
        fail_msg("%s", e.text);
    s = vmdk_chain_source(c);
    assert_true(s->capacity_bytes == sectors * SECTOR);
    for (uint64_t at = 0, r = sectors; at < s->capacity_bytes;) {
        uint64_t count = 1 + next_random(&r) % 300000;
        struct extent x;

        if (count > s->capacity_bytes - at)
            count = s->capacity_bytes - at;
        if (source_read(s, at, buffer, (size_t)count, &e) != 0 ||
            source_extent_at(s, at, &x, &e) != 0)
            fail_msg("%s", e.text);
        assert_memory_equal(buffer, disk + at, count);
        for (uint64_t i = at; x.kind == EXTENT_ZERO && i < at + x.length_bytes; i++)
            assert_int_equal(disk[i], 0);
        at += count;
    }
    if (vmdk_chain_verify(c, &e) != 0)
        fail_msg("%s", e.text);
    vmdk_chain_close(c);
    free(buffer);
}

static const uint64_t sizes[] = { 1, 127, 128, 20483, 8192, 65537 };

static void what_is_written_is_read_by_us_and_by_qemu(void **state)
{
    struct folder f;

    (void)state;
    folder_make(&f);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *disk = make_disk(sizes[i], i + 1), *raw;
        struct rebuilt r;
        struct bytes out;
        struct err e;
        size_t bytes;

        write_stream(disk, sizes[i], &out);
        assert_int_equal(out.count % SECTOR, 0);
        put_file(&f, "ours.vmdk", out.data, out.count);
        compare_chain(&f, "ours.vmdk", disk, sizes[i]);
        if (scan(out.data, out.count, &r, &e) != 0)
            fail_msg("%s", e.text);
        assert_true(r.capacity == sizes[i] * SECTOR);
        assert_memory_equal(r.disk, disk, r.capacity);
        free(r.disk);
        run("qemu-img convert -f vmdk -O raw %s %s", folder_path(&f, "ours.vmdk"),
            folder_path(&f, "ours.raw"));
        raw = slurp(folder_path(&f, "ours.raw"), &bytes);
        assert_int_equal(bytes, sizes[i] * SECTOR);
        assert_memory_equal(raw, disk, bytes);
        free(raw);
        free(disk);
        bytes_free(&out);
    }
    folder_remove(&f);
}

static void what_qemu_writes_is_read_by_directory_and_in_order(void **state)
{
    struct folder f;

    (void)state;
    folder_make(&f);
    for (size_t i = 0; i < 4; i++) {
        uint8_t *disk = make_disk(sizes[i + 2], i + 40), *data;
        struct rebuilt r;
        struct err e;
        size_t bytes;
        int fd = file_make(&f, "disk.raw");

        put_bytes(fd, 0, disk, sizes[i + 2] * SECTOR);
        close(fd);
        run("qemu-img convert -f raw -O vmdk -o subformat=streamOptimized %s %s",
            folder_path(&f, "disk.raw"), folder_path(&f, "qemu.vmdk"));
        compare_chain(&f, "qemu.vmdk", disk, sizes[i + 2]);
        data = slurp(folder_path(&f, "qemu.vmdk"), &bytes);
        if (scan(data, bytes, &r, &e) == 0) {
            assert_memory_equal(r.disk, disk, r.capacity);
        } else { /* its last record may fill its sector, and then no end marker follows */
            assert_non_null(strstr(e.text, "cut short"));
            assert_memory_equal(r.disk, disk, r.capacity);
        }
        free(r.disk);
        free(data);
        free(disk);
    }
    folder_remove(&f);
}

/* Cut at every sector: never taken as whole. */
static void a_stream_that_is_cut_is_refused(void **state)
{
    uint8_t *disk = make_disk(1000, 5);
    struct folder f;
    struct bytes out;
    struct err e;

    (void)state;
    folder_make(&f);
    write_stream(disk, 1000, &out);
    for (size_t bytes = 0; bytes < out.count; bytes += SECTOR / 2) {
        struct rebuilt r;

        assert_int_equal(scan(out.data, bytes, &r, &e), -1);
        assert_int_equal(e.code, ERR_CORRUPT);
        free(r.disk);
    }
    put_file(&f, "cut.vmdk", out.data, out.count - SECTOR);
    {
        struct vmdk_config config = { .files = f.files, .codec = &codec_zlib };
        struct vmdk_chain *c;

        assert_int_equal(vmdk_chain_open(&c, &config, folder_path(&f, "cut.vmdk"), &e), -1);
        assert_non_null(strstr(e.text, "cut short"));
    }
    bytes_free(&out);
    free(disk);
    folder_remove(&f);
}

/* Each byte of the stream's own structure changed: refused, or the same disk. */
static void a_damaged_stream_is_never_another_disk(void **state)
{
    enum { DAMAGED_SECTORS = 140 };
    uint8_t *disk = calloc(1, DAMAGED_SECTORS * SECTOR);
    struct bytes out;

    (void)state;
    assert_non_null(disk);
    memset(disk + 1000, 'a', 3000);
    memset(disk + GRAIN + 70, 'b', 300);
    write_stream(disk, DAMAGED_SECTORS, &out);
    for (size_t at = 0; at < out.count; at += at < 512 || at >= 65536 ? 1 : 97) {
        struct rebuilt r;
        struct err e;

        /* The descriptor's words and the padding say nothing of the content. */
        out.data[at] ^= 0x10;
        if (scan(out.data, out.count, &r, &e) == 0) {
            assert_true(r.capacity == DAMAGED_SECTORS * SECTOR);
            assert_memory_equal(r.disk, disk, r.capacity);
        }
        free(r.disk);
        out.data[at] ^= 0x10;
    }
    bytes_free(&out);
    free(disk);
}

/* In a file: what the footer or a table says otherwise than header and records is refused. */
static void tables_and_records_of_a_file_must_agree(void **state)
{
    uint8_t *disk = make_disk(1000, 5), swapped[8], *entries;
    struct folder f;
    struct bytes out;
    struct err e;

    (void)state;
    folder_make(&f);
    memset(disk, 'x', 3 * GRAIN);
    for (unsigned i = 0; i < 3; i++) {
        struct vmdk_config config = { .files = f.files, .codec = &codec_zlib };
        struct vmdk_chain *c;
        uint8_t byte;

        write_stream(disk, 1000, &out);
        /* End, footer, its marker, directory, its marker, and before that the only table. */
        entries = out.data + out.count - 5 * SECTOR - 4 * SECTOR;
        memcpy(swapped, entries + 4, 4);
        memcpy(swapped + 4, entries, 4);
        if (i == 1)
            out.data[out.count - 2 * SECTOR + 64] ^= 1; /* the footer's overHead */
        if (i == 2)
            memcpy(entries, swapped, sizeof swapped);
        put_file(&f, "s.vmdk", out.data, out.count);
        bytes_free(&out);
        if (vmdk_chain_open(&c, &config, folder_path(&f, "s.vmdk"), &e) != 0) {
            assert_int_equal(i, 1);
            assert_non_null(strstr(e.text, "differs from its header"));
            continue;
        }
        assert_int_equal(source_read(vmdk_chain_source(c), 0, &byte, 1, &e), i == 0 ? 0 : -1);
        if (i == 2)
            assert_non_null(strstr(e.text, "the record is that of sector 128"));
        vmdk_chain_close(c);
    }
    free(disk);
    folder_remove(&f);
}

/* VirtualBox adds a line of no size, and rounds its header's capacity up to a grain. */
static void a_stream_as_virtualbox_writes_it(void **state)
{
    static const char extra[] = "NOACCESS 0 ZERO ";
    uint8_t *disk = make_disk(1000, 5), *line;
    struct rebuilt r;
    struct folder f;
    struct bytes out;
    struct err e;

    (void)state;
    folder_make(&f);
    memset(disk + 896 * SECTOR, 'x', 104 * SECTOR);
    write_stream(disk, 1000, &out);
    for (unsigned i = 0; i < 2; i++) { /* header and footer */
        uint8_t *header = i == 0 ? out.data : out.data + out.count - 2 * SECTOR;

        assert_memory_equal(header, "KDMV", 4);
        header[12] = 0; /* 1024 sectors instead of 1000 */
        header[13] = 4;
    }
    /* The ddb's title becomes the line: both have as many letters. */
    line = (uint8_t *)strstr((char *)out.data + SECTOR, "# The Disk Data Base");
    assert_non_null(line);
    memcpy(line, extra, sizeof extra - 1);
    memset(line + sizeof extra - 1, ' ', 20 - (sizeof extra - 1));
    if (scan(out.data, out.count, &r, &e) != 0)
        fail_msg("%s", e.text);
    assert_true(r.capacity == 1000 * SECTOR);
    assert_memory_equal(r.disk, disk, r.capacity);
    free(r.disk);
    put_file(&f, "s.vmdk", out.data, out.count);
    compare_chain(&f, "s.vmdk", disk, 1000);
    bytes_free(&out);
    free(disk);
    folder_remove(&f);
}

/* ---- hand-made records ---- */

struct record {
    uint64_t sector;
    int fill;
};

/* A stream of these grains with progress markers between them, and an end. */
static void make_records(struct bytes *out, uint64_t sectors, const struct record *records,
                         size_t count)
{
    uint8_t *disk = calloc(1, sectors * SECTOR);
    struct err e;

    assert_non_null(disk);
    write_stream(disk, sectors, out);
    free(disk);
    out->count = 65536; /* the head alone */
    for (size_t i = 0; i < count; i++) {
        uint8_t plain[GRAIN], packed[2 * GRAIN], head[12] = { 0 }, marker[SECTOR] = { 0 };
        uLongf bytes = sizeof packed;

        memset(plain, records[i].fill, sizeof plain);
        assert_int_equal(compress2(packed, &bytes, plain, sizeof plain, 6), Z_OK);
        for (size_t k = 0; k < 8; k++)
            head[k] = (uint8_t)(records[i].sector >> (8 * k));
        head[8] = (uint8_t)bytes;
        head[9] = (uint8_t)(bytes >> 8);
        assert_int_equal(bytes_append(out, head, sizeof head, &e), 0);
        assert_int_equal(bytes_append(out, packed, bytes, &e), 0);
        memset(packed, 0, SECTOR);
        if (out->count % SECTOR != 0)
            bytes_append(out, packed, SECTOR - out->count % SECTOR, &e);
        marker[12] = 4;
        marker[16] = (uint8_t)records[i].sector;
        assert_int_equal(bytes_append(out, marker, sizeof marker, &e), 0);
    }
    {
        uint8_t end[SECTOR] = { 0 };

        assert_int_equal(bytes_append(out, end, sizeof end, &e), 0);
    }
}

static void order_is_free_but_each_grain_comes_once(void **state)
{
    static const struct record good[] = { { 256, 2 }, { 0, 1 }, { 128, 3 } };
    static const struct record twice[] = { { 256, 2 }, { 0, 1 }, { 256, 2 } };
    static const struct record odd[] = { { 64, 2 } };
    static const struct record past[] = { { 384, 2 } };
    struct rebuilt r;
    struct bytes out;
    struct err e;

    (void)state;
    make_records(&out, 300, good, 3);
    if (scan(out.data, out.count, &r, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(r.grains, 3);
    assert_int_equal(r.disk[0], 1);
    assert_int_equal(r.disk[128 * SECTOR], 3);
    assert_int_equal(r.disk[300 * SECTOR - 1], 2);
    free(r.disk);
    bytes_free(&out);
    make_records(&out, 300, twice, 3);
    assert_int_equal(scan(out.data, out.count, &r, &e), -1);
    assert_non_null(strstr(e.text, "there before"));
    free(r.disk);
    bytes_free(&out);
    make_records(&out, 300, odd, 1);
    assert_int_equal(scan(out.data, out.count, &r, &e), -1);
    assert_non_null(strstr(e.text, "no grain starts"));
    free(r.disk);
    bytes_free(&out);
    make_records(&out, 300, past, 1);
    assert_int_equal(scan(out.data, out.count, &r, &e), -1);
    assert_non_null(strstr(e.text, "no grain starts"));
    free(r.disk);
    bytes_free(&out);
}

/* ---- the codec ---- */

static void only_one_whole_zlib_stream_is_unpacked(void **state)
{
    uint8_t plain[1000], packed[2000], out[1000];
    uLongf bytes = sizeof packed;
    size_t made;
    struct err e;

    (void)state;
    memset(plain, 7, sizeof plain);
    assert_int_equal(compress(packed, &bytes, plain, sizeof plain), Z_OK);
    assert_int_equal(codec_zlib.inflate(packed, bytes, out, sizeof out, &made, &e), 0);
    assert_int_equal(made, sizeof plain);
    assert_memory_equal(out, plain, sizeof plain);
    /* One byte too few, one too many, no room for the last byte, a wrong checksum. */
    assert_int_equal(codec_zlib.inflate(packed, bytes - 1, out, sizeof out, &made, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_int_equal(codec_zlib.inflate(packed, bytes + 1, out, sizeof out, &made, &e), -1);
    assert_int_equal(codec_zlib.inflate(packed, bytes, out, sizeof out - 1, &made, &e), -1);
    packed[bytes - 1] ^= 1;
    assert_int_equal(codec_zlib.inflate(packed, bytes, out, sizeof out, &made, &e), -1);
    assert_int_equal(codec_zlib.deflate(plain, sizeof plain, packed, 4, &made, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
}

static void without_a_codec_a_stream_is_refused(void **state)
{
    uint8_t *disk = make_disk(300, 6);
    struct folder f;
    struct bytes out;
    struct err e;
    struct vmdk_chain *c;

    (void)state;
    folder_make(&f);
    write_stream(disk, 300, &out);
    put_file(&f, "s.vmdk", out.data, out.count);
    {
        struct vmdk_config config = { .files = f.files };

        assert_int_equal(vmdk_chain_open(&c, &config, folder_path(&f, "s.vmdk"), &e), -1);
        assert_int_equal(e.code, ERR_UNSUPPORTED);
    }
    bytes_free(&out);
    free(disk);
    folder_remove(&f);
}

static void a_writer_is_told_what_it_cannot_write(void **state)
{
    struct bytes out = { .ceiling = 1 << 20 }, text;
    struct vmdk_stream_output output = { to_bytes, &out };
    struct vmdk_stream_writer *w;
    uint8_t grain[GRAIN] = { 1 };
    struct err e;

    (void)state;
    text_of(300, &text);
    {
        struct vmdk_stream_config config = { &codec_zlib, &output, 301 * SECTOR, (char *)text.data,
                                             text.count };

        assert_int_equal(vmdk_stream_writer_new(&w, &config, &e), -1);
        assert_int_equal(e.code, ERR_USAGE);
        config.capacity_bytes = 300 * SECTOR;
        assert_int_equal(vmdk_stream_writer_new(&w, &config, &e), 0);
    }
    bytes_free(&text);
    assert_int_equal(vmdk_stream_writer_grain(w, 1, grain, GRAIN, &e), -1);
    assert_int_equal(vmdk_stream_writer_grain(w, GRAIN, grain, GRAIN, &e), 0);
    assert_int_equal(vmdk_stream_writer_grain(w, GRAIN, grain, GRAIN, &e), -1);
    assert_int_equal(vmdk_stream_writer_grain(w, 0, grain, GRAIN, &e), -1);
    assert_int_equal(vmdk_stream_writer_grain(w, 2 * GRAIN, grain, GRAIN, &e), -1);
    assert_int_equal(vmdk_stream_writer_grain(w, 2 * GRAIN, grain, 300 * SECTOR - 2 * GRAIN, &e),
                     0);
    assert_int_equal(vmdk_stream_writer_end(w, &e), 0);
    assert_int_equal(vmdk_stream_writer_end(w, &e), -1);
    vmdk_stream_writer_free(w);
    bytes_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_by_us_and_by_qemu),
        cmocka_unit_test(what_qemu_writes_is_read_by_directory_and_in_order),
        cmocka_unit_test(a_stream_that_is_cut_is_refused),
        cmocka_unit_test(a_damaged_stream_is_never_another_disk),
        cmocka_unit_test(tables_and_records_of_a_file_must_agree),
        cmocka_unit_test(a_stream_as_virtualbox_writes_it),
        cmocka_unit_test(order_is_free_but_each_grain_comes_once),
        cmocka_unit_test(only_one_whole_zlib_stream_is_unpacked),
        cmocka_unit_test(without_a_codec_a_stream_is_refused),
        cmocka_unit_test(a_writer_is_told_what_it_cannot_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
