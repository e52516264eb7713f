/* A streamOptimized extent written in order, in the layout of VMware's ovftool. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "protocol/block/digest.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/codec.h"
#include "protocol/vmdk/descriptor.h"
#include "protocol/vmdk/packed.h"
#include "protocol/vmdk/sparse_header.h"
#include "protocol/vmdk/stream.h"

enum {
    SECTOR = DESCRIPTOR_SECTOR_BYTES,
    GRAIN_SECTORS = VMDK_STREAM_GRAIN_BYTES / SECTOR,
    TABLE_BYTES = SPARSE_TABLE_SECTORS * SECTOR,
    DESCRIPTOR_SECTORS = 20, /* VirtualBox writes into this room: less is overrun */
    OVERHEAD_SECTORS = 128,
    HEADER_VERSION = 3,
    PACKED_ROOM = 2 * VMDK_STREAM_GRAIN_BYTES,
};

struct vmdk_stream_writer {
    struct vmdk_stream_config config;
    uint64_t at;    /* bytes written */
    uint64_t next;  /* the lowest offset that a grain may have */
    uint64_t table; /* that is being filled */
    bool table_used;
    bool ended;
    uint32_t tables; /* entries of the directory */
    uint32_t *directory;
    uint32_t entries[SPARSE_TABLE_ENTRIES];
    uint8_t grain[VMDK_STREAM_GRAIN_BYTES];
    uint8_t record[SPARSE_RECORD_BYTES + PACKED_ROOM + SECTOR];
};

static int put(struct vmdk_stream_writer *w, const void *data, size_t bytes, struct err *e)
{
    if (w->config.output->write(w->config.output->context, data, bytes, e) != 0)
        return -1;
    w->at += bytes;
    return 0;
}

/* The sector that comes next, for a table: 32 bits. */
static int sector_of(const struct vmdk_stream_writer *w, uint32_t *sector, struct err *e)
{
    if (w->at / SECTOR > UINT32_MAX)
        return err_set(e, ERR_LIMIT, "the stream is longer than its tables can say: 2 TiB");
    *sector = (uint32_t)(w->at / SECTOR);
    return 0;
}

static void make_header(const struct vmdk_stream_writer *w, uint64_t directory_sector,
                        uint8_t out[SPARSE_HEADER_BYTES])
{
    struct push p = { .at = out, .left = SPARSE_HEADER_BYTES };

    memset(out, 0, SPARSE_HEADER_BYTES);
    push_copy(&p, "KDMV", 4);
    push_u32(&p, HEADER_VERSION);
    push_u32(&p, SPARSE_NEWLINE_TEST | SPARSE_COMPRESSED | SPARSE_MARKERS);
    push_u64(&p, w->config.capacity_bytes / SECTOR);
    push_u64(&p, GRAIN_SECTORS);
    push_u64(&p, 1); /* the descriptor */
    push_u64(&p, DESCRIPTOR_SECTORS);
    push_u32(&p, SPARSE_TABLE_ENTRIES);
    push_u64(&p, 0); /* no redundant directory */
    push_u64(&p, directory_sector);
    push_u64(&p, OVERHEAD_SECTORS);
    push_u8(&p, 0); /* clean */
    push_copy(&p, "\n \r\n", 4);
    push_u16(&p, 1); /* deflate */
}

static int put_head(struct vmdk_stream_writer *w, struct err *e)
{
    static const uint8_t zeros[SECTOR];
    uint8_t raw[SPARSE_HEADER_BYTES];
    size_t past = w->config.descriptor_bytes % SECTOR;

    make_header(w, SPARSE_DIRECTORY_AT_END, raw);
    if (put(w, raw, sizeof raw, e) != 0 ||
        put(w, w->config.descriptor, w->config.descriptor_bytes, e) != 0 ||
        (past != 0 && put(w, zeros, SECTOR - past, e) != 0))
        return -1;
    while (w->at < OVERHEAD_SECTORS * SECTOR)
        if (put(w, zeros, SECTOR, e) != 0)
            return -1;
    return 0;
}

static int put_marker(struct vmdk_stream_writer *w, uint64_t sectors, enum sparse_marker type,
                      struct err *e)
{
    uint8_t raw[SECTOR] = { 0 };
    struct push p = { .at = raw, .left = sizeof raw };

    push_u64(&p, sectors);
    push_u32(&p, 0);
    push_u32(&p, (uint32_t)type);
    return put(w, raw, sizeof raw, e);
}

/* count numbers and zeros up to the end of their sector. */
static int put_numbers(struct vmdk_stream_writer *w, const uint32_t *numbers, size_t count,
                       struct err *e)
{
    for (size_t at = 0; at < count; at += SECTOR / 4) {
        uint8_t raw[SECTOR] = { 0 };
        struct push p = { .at = raw, .left = sizeof raw };

        for (size_t i = at; i < count && i < at + SECTOR / 4; i++)
            push_u32(&p, numbers[i]);
        if (put(w, raw, sizeof raw, e) != 0)
            return -1;
    }
    return 0;
}

static int end_table(struct vmdk_stream_writer *w, struct err *e)
{
    if (!w->table_used)
        return 0;
    if (put_marker(w, SPARSE_TABLE_SECTORS, MARKER_TABLE, e) != 0 ||
        sector_of(w, &w->directory[w->table], e) != 0 ||
        put_numbers(w, w->entries, SPARSE_TABLE_ENTRIES, e) != 0)
        return -1;
    memset(w->entries, 0, sizeof w->entries);
    w->table_used = false;
    return 0;
}

static int check_config(const struct vmdk_stream_config *c, struct err *e)
{
    struct descriptor *d;
    int rc = -1;

    if (c->capacity_bytes == 0 || c->capacity_bytes % SECTOR != 0 ||
        c->capacity_bytes / SECTOR > DESCRIPTOR_SECTORS_MAX)
        return err_set(e, ERR_USAGE, "a stream of %" PRIu64 " bytes", c->capacity_bytes);
    if (c->descriptor_bytes > DESCRIPTOR_SECTORS * SECTOR)
        return err_set(e, ERR_USAGE, "the descriptor is longer than %d bytes",
                       DESCRIPTOR_SECTORS * SECTOR);
    if (descriptor_read(&d, c->descriptor, c->descriptor_bytes, e) != 0) {
        if (e != NULL)
            e->code = ERR_USAGE;
        return -1;
    }
    if (d->extent_count != 1 || strcmp(d->extents[0].type, "SPARSE") != 0 ||
        d->capacity_bytes != c->capacity_bytes)
        err_set(e, ERR_USAGE,
                "the descriptor of the stream must have one SPARSE extent of its "
                "size");
    else
        rc = 0;
    descriptor_free(d);
    return rc;
}

int vmdk_stream_writer_new(struct vmdk_stream_writer **out, const struct vmdk_stream_config *config,
                           struct err *e)
{
    const uint64_t cover = (uint64_t)GRAIN_SECTORS * SPARSE_TABLE_ENTRIES * SECTOR;
    struct vmdk_stream_writer *w;

    if (check_config(config, e) != 0)
        return -1;
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return err_sys(e, "writing a stream");
    w->config = *config;
    w->tables = (uint32_t)((config->capacity_bytes + cover - 1) / cover);
    w->directory = calloc(w->tables, sizeof *w->directory);
    if (w->directory == NULL) {
        err_sys(e, "writing a stream");
        goto fail;
    }
    if (put_head(w, e) != 0)
        goto fail;
    w->config.descriptor = NULL; /* lent until here */
    *out = w;
    return 0;

fail:
    vmdk_stream_writer_free(w);
    return -1;
}

/* The compressed grain at offset, which is a whole one in w->grain. */
static int put_grain(struct vmdk_stream_writer *w, uint64_t offset_bytes, struct err *e)
{
    struct push p = { .at = w->record, .left = SPARSE_RECORD_BYTES };
    uint64_t grain = offset_bytes / VMDK_STREAM_GRAIN_BYTES;
    uint64_t table = grain / SPARSE_TABLE_ENTRIES;
    size_t packed, bytes;

    if (table != w->table && end_table(w, e) != 0)
        return -1;
    w->table = table;
    if (w->config.codec->deflate(w->grain, sizeof w->grain, w->record + SPARSE_RECORD_BYTES,
                                 PACKED_ROOM, &packed, e) != 0 ||
        sector_of(w, &w->entries[grain % SPARSE_TABLE_ENTRIES], e) != 0)
        return -1;
    push_u64(&p, offset_bytes / SECTOR);
    push_u32(&p, (uint32_t)packed);
    bytes = (SPARSE_RECORD_BYTES + packed + SECTOR - 1) / SECTOR * SECTOR;
    memset(w->record + SPARSE_RECORD_BYTES + packed, 0, bytes - SPARSE_RECORD_BYTES - packed);
    w->table_used = true;
    return put(w, w->record, bytes, e);
}

int vmdk_stream_writer_grain(struct vmdk_stream_writer *w, uint64_t offset_bytes, const void *data,
                             size_t bytes, struct err *e)
{
    uint64_t capacity = w->config.capacity_bytes;

    if (w->ended || offset_bytes % VMDK_STREAM_GRAIN_BYTES != 0 || offset_bytes < w->next ||
        offset_bytes >= capacity ||
        bytes != min_u64(VMDK_STREAM_GRAIN_BYTES, capacity - offset_bytes))
        return err_set(e, ERR_USAGE, "a grain of %zu bytes at byte %" PRIu64, bytes, offset_bytes);
    w->next = offset_bytes + VMDK_STREAM_GRAIN_BYTES;
    if (block_is_zero(data, bytes))
        return 0;
    memmove(w->grain, data, bytes);
    memset(w->grain + bytes, 0, sizeof w->grain - bytes);
    return put_grain(w, offset_bytes, e);
}

int vmdk_stream_writer_end(struct vmdk_stream_writer *w, struct err *e)
{
    uint8_t raw[SPARSE_HEADER_BYTES];
    uint32_t directory_sector = 0;

    if (w->ended)
        return err_set(e, ERR_USAGE, "the stream has ended before");
    if (end_table(w, e) != 0 ||
        put_marker(w, ((uint64_t)w->tables * 4 + SECTOR - 1) / SECTOR, MARKER_DIRECTORY, e) != 0 ||
        sector_of(w, &directory_sector, e) != 0 ||
        put_numbers(w, w->directory, w->tables, e) != 0 || put_marker(w, 1, MARKER_FOOTER, e) != 0)
        return -1;
    make_header(w, directory_sector, raw);
    if (put(w, raw, sizeof raw, e) != 0 || put_marker(w, 0, MARKER_END, e) != 0)
        return -1;
    w->ended = true;
    return 0;
}

uint64_t vmdk_stream_writer_bytes(const struct vmdk_stream_writer *w)
{
    return w->at;
}

void vmdk_stream_writer_free(struct vmdk_stream_writer *w)
{
    if (w == NULL)
        return;
    free(w->directory);
    free(w);
}

int vmdk_stream_write_source(struct vmdk_stream_writer *w, struct source *source, struct err *e)
{
    uint64_t capacity = w->config.capacity_bytes, at = 0;

    if (source->capacity_bytes != capacity)
        return err_set(e, ERR_USAGE, "the disk has another size than the stream");
    while (at < capacity) {
        size_t bytes = (size_t)min_u64(VMDK_STREAM_GRAIN_BYTES, capacity - at);
        struct extent x;

        if (source_extent_at(source, at, &x, e) != 0)
            return -1;
        if (x.kind == EXTENT_ZERO && x.length_bytes >= bytes) {
            uint64_t end = at + x.length_bytes;

            at = end == capacity ? end : end - end % VMDK_STREAM_GRAIN_BYTES;
            continue;
        }
        if (source_read(source, at, w->grain, bytes, e) != 0 ||
            vmdk_stream_writer_grain(w, at, w->grain, bytes, e) != 0)
            return -1;
        at += bytes;
    }
    return vmdk_stream_writer_end(w, e);
}
