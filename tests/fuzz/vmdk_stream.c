/*
 * streamOptimized from a pipe: each grain once and inside the disk; a whole stream that is written
 * again is read again as the same disk, and its file as well.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/digest.h"
#include "protocol/vmdk/codec.h"
#include "protocol/vmdk/descriptor.h"
#include "protocol/vmdk/stream.h"
#include "receiver/base/codec_zlib.h"
#include "tests/fuzz/fuzz.h"

enum { KEPT_MAX = 8, STEP = 613 };

/* What a stream told. */
struct told {
    uint64_t capacity;
    uint64_t sum; /* of offsets and contents, whatever their order */
    uint64_t grains;
    bool begun;
    struct vmdk_stream_writer *writer; /* NULL: none */
    bool ascending;
    uint64_t next;
};

struct from {
    const uint8_t *data;
    size_t left;
};

static int read_from(void *context, void *out, size_t room, size_t *got, struct err *e)
{
    struct from *f = context;

    (void)e;
    FUZZ_CHECK(room > 0);
    *got = (size_t)min_u64(min_u64(room, STEP), f->left);
    memcpy(out, f->data, *got);
    f->data += *got;
    f->left -= *got;
    return 0;
}

static int on_begin(void *context, uint64_t capacity_bytes, const char *text, size_t bytes,
                    struct err *e)
{
    struct told *t = context;

    (void)e;
    FUZZ_CHECK(!t->begun && capacity_bytes > 0 && bytes <= 1 << 20);
    FUZZ_CHECK(bytes == 0 || text[bytes - 1] != '\0');
    t->begun = true;
    t->capacity = capacity_bytes;
    return 0;
}

static uint64_t sum_of(uint64_t offset, const uint8_t *data, size_t bytes)
{
    uint64_t h = offset * UINT64_C(0x9e3779b97f4a7c15) + 1;

    for (size_t i = 0; i < bytes; i++)
        h = (h ^ data[i]) * UINT64_C(0x100000001b3);
    return h;
}

static int on_grain(void *context, uint64_t offset, const void *data, size_t bytes, struct err *e)
{
    struct told *t = context;

    (void)e;
    FUZZ_CHECK(t->begun && bytes > 0 && offset < t->capacity && bytes <= t->capacity - offset);
    t->ascending = t->ascending && offset >= t->next && bytes <= VMDK_STREAM_GRAIN_BYTES &&
                   offset % VMDK_STREAM_GRAIN_BYTES == 0 &&
                   bytes == min_u64(VMDK_STREAM_GRAIN_BYTES, t->capacity - offset);
    t->next = offset + bytes;
    t->grains++;
    if (!block_is_zero(data, bytes))
        t->sum += sum_of(offset, data, bytes);
    if (t->writer != NULL)
        FUZZ_CHECK(vmdk_stream_writer_grain(t->writer, offset, data, bytes, e) == 0);
    return 0;
}

static int write_to(void *context, const void *data, size_t bytes, struct err *e)
{
    return bytes_append(context, data, bytes, e);
}

/* zlib; and what does not begin as zlib does is a grain of that byte, so that records can change.
 */
static int inflate_loosely(const void *in, size_t in_bytes, void *out, size_t room, size_t *made,
                           struct err *e)
{
    const uint8_t *first = in;

    if (first[0] == 0x78)
        return codec_zlib.inflate(in, in_bytes, out, room, made, e);
    memset(out, first[0], room);
    *made = room;
    return 0;
}

static const struct vmdk_codec loose = { inflate_loosely, NULL };

static int scan(const uint8_t *data, size_t size, struct told *t, struct err *e)
{
    struct from f = { data, size };
    struct vmdk_stream_input input = { read_from, &f };
    struct vmdk_stream_sink sink = { on_begin, on_grain, t };

    return vmdk_stream_scan(&input, &loose, &sink, e);
}

/* Write what the stream says, and read that. */
static void write_again(const uint8_t *data, size_t size, const struct told *first)
{
    char text[256];
    struct bytes out = { .ceiling = 16 << 20 };
    struct vmdk_stream_output output = { write_to, &out };
    struct told second = { .ascending = true }, third = { .ascending = true };
    struct vmdk_stream_config config = { .codec = &codec_zlib,
                                         .output = &output,
                                         .capacity_bytes = first->capacity,
                                         .descriptor = text };
    struct err e;

    config.descriptor_bytes =
        (size_t)snprintf(text, sizeof text,
                         "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
                         "createType=\"streamOptimized\"\nRW %llu SPARSE \"a\"\n",
                         (unsigned long long)(first->capacity / 512));
    FUZZ_CHECK(vmdk_stream_writer_new(&second.writer, &config, &e) == 0);
    FUZZ_CHECK(scan(data, size, &second, &e) == 0);
    FUZZ_CHECK(vmdk_stream_writer_end(second.writer, &e) == 0);
    FUZZ_CHECK(vmdk_stream_writer_bytes(second.writer) == out.count);
    FUZZ_CHECK(scan(out.data, out.count, &third, &e) == 0);
    FUZZ_CHECK(third.capacity == first->capacity && third.sum == first->sum);
    vmdk_stream_writer_free(second.writer);
    bytes_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct told t = { .ascending = true };
    struct err e;
    uint8_t *exact;

    fuzz_begin();
    exact = fuzz_copy(data, size);
    if (scan(exact, size, &t, &e) == 0) {
        if (t.ascending && t.capacity <= UINT64_C(1) << 40 && t.grains <= KEPT_MAX)
            write_again(exact, size, &t);
    } else {
        FUZZ_CHECK(e.code != ERR_SYSTEM && e.text[0] != '\0');
    }
    free(exact);
    fuzz_end();
    return 0;
}
