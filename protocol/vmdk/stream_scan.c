/* A streamOptimized extent read from a pipe: records in order, no directory needed. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "protocol/block/digest.h"
#include "protocol/vmdk/codec.h"
#include "protocol/vmdk/descriptor.h"
#include "protocol/vmdk/packed.h"
#include "protocol/vmdk/sparse_header.h"
#include "protocol/vmdk/stream.h"

enum { SECTOR = DESCRIPTOR_SECTOR_BYTES, SKIP_BYTES = 4096, MARKER_REST_AT = 16 };

/* Disks of more grains must come in ascending order: their seen grains are not kept. */
#define SEEN_GRAINS_MAX (UINT64_C(1) << 27)

struct scan {
    const struct vmdk_stream_input *input;
    const struct vmdk_codec *codec;
    const struct vmdk_stream_sink *sink;
    struct sparse_header header;
    uint8_t head[SPARSE_HEADER_BYTES]; /* the header as it came */
    uint64_t at;                       /* bytes taken */
    uint64_t capacity_sectors;
    uint64_t next_sector; /* behind the highest grain so far */
    uint8_t *seen;        /* a bit for each grain; NULL: they must ascend */
    uint8_t *packed, *grain;
    struct err *e;
};

static int bad(struct scan *s, uint64_t at, const char *what)
{
    return err_set(s->e, ERR_CORRUPT, "byte %" PRIu64 " of the stream: %s", at, what);
}

/* Up to count bytes; fewer only at the end of the input. */
static int take_some(struct scan *s, void *out, size_t count, size_t *got)
{
    uint8_t *to = out;

    *got = 0;
    while (*got < count) {
        size_t more = 0;

        if (s->input->read(s->input->context, to + *got, count - *got, &more, s->e) != 0)
            return -1;
        if (more == 0)
            break;
        *got += more;
        s->at += more;
    }
    return 0;
}

static int take(struct scan *s, void *out, size_t count)
{
    size_t got;

    if (take_some(s, out, count, &got) != 0)
        return -1;
    return got == count ? 0 : bad(s, s->at, "it ends here, cut short");
}

static int skip(struct scan *s, uint64_t count)
{
    uint8_t buffer[SKIP_BYTES];

    while (count > 0) {
        size_t step = (size_t)min_u64(count, sizeof buffer);

        if (take(s, buffer, step) != 0)
            return -1;
        count -= step;
    }
    return 0;
}

/* ---- head ---- */

/* What the descriptor adds to the header: the exact size, and that this is a whole disk. */
static int use_descriptor(struct scan *s, const char *text, size_t bytes)
{
    const struct descriptor_extent *only;
    struct descriptor *d;
    int rc = -1;

    if (descriptor_read(&d, text, bytes, s->e) != 0)
        return -1;
    only = descriptor_only_extent(d);
    if (only == NULL || strcmp(only->type, "SPARSE") != 0)
        err_set(s->e, ERR_CORRUPT, "the descriptor of a stream has one SPARSE extent");
    else if (d->parent_cid != DESCRIPTOR_CID_NONE)
        err_set(s->e, ERR_UNSUPPORTED, "the stream is the delta of a disk, not a whole one");
    else if (d->encrypted)
        err_set(s->e, ERR_UNSUPPORTED, "the stream is encrypted");
    else
        rc = sparse_header_capacity(&s->header, only->sectors, s->e);
    if (rc == 0)
        s->capacity_sectors = only->sectors;
    descriptor_free(d);
    return rc;
}

static int take_descriptor(struct scan *s)
{
    uint64_t overhead = s->header.overhead_sectors * SECTOR, start, bytes;
    char *text = NULL;
    int rc = -1;

    if (sparse_header_descriptor(&s->header, overhead, &start, &bytes, s->e) != 0)
        return -1;
    if (bytes > 0) {
        text = malloc((size_t)bytes);
        if (text == NULL)
            return err_sys(s->e, "reading a stream");
        if (skip(s, start - SPARSE_HEADER_BYTES) != 0 || take(s, text, (size_t)bytes) != 0)
            goto out;
    }
    while (bytes > 0 && text[bytes - 1] == '\0')
        bytes--;
    if (bytes > 0 && use_descriptor(s, text, (size_t)bytes) != 0)
        goto out;
    if (skip(s, overhead - s->at) != 0)
        goto out;
    rc = s->sink->begin(s->sink->context, s->capacity_sectors * SECTOR, text != NULL ? text : "",
                        (size_t)bytes, s->e);

out:
    free(text);
    return rc;
}

static int take_head(struct scan *s)
{
    uint64_t grain_bytes, grains;

    if (take(s, s->head, sizeof s->head) != 0 || sparse_header_read(&s->header, s->head, s->e) != 0)
        return -1;
    if ((s->header.flags & SPARSE_COMPRESSED) == 0)
        return err_set(s->e, ERR_UNSUPPORTED, "this is no compressed stream");
    if (s->codec == NULL)
        return err_set(s->e, ERR_UNSUPPORTED, "compressed grains cannot be read here");
    if (s->header.overhead_sectors == 0)
        return bad(s, 0, "the header's overHead is 0");
    s->capacity_sectors = s->header.capacity_sectors;
    grain_bytes = s->header.grain_sectors * SECTOR;
    grains = s->capacity_sectors / s->header.grain_sectors + 1;
    s->packed = malloc((size_t)packed_bytes_max(grain_bytes) + 2 * SECTOR);
    s->grain = malloc((size_t)grain_bytes);
    if (grains <= SEEN_GRAINS_MAX)
        s->seen = calloc(1, (size_t)(grains / 8 + 1));
    if (s->packed == NULL || s->grain == NULL || (grains <= SEEN_GRAINS_MAX && s->seen == NULL))
        return err_sys(s->e, "reading a stream");
    return take_descriptor(s);
}

/* ---- records ---- */

/* Each grain once. */
static int check_order(struct scan *s, uint64_t at, uint64_t sector)
{
    uint64_t grain = sector / s->header.grain_sectors;
    bool ascends = sector >= s->next_sector;

    if (sector % s->header.grain_sectors != 0 || sector >= s->capacity_sectors)
        return bad(s, at, "a grain of a sector that no grain starts at");
    if (!ascends && s->seen == NULL)
        return bad(s, at, "the grains of so large a disk must be in ascending order");
    if (!ascends && (s->seen[grain / 8] & 1u << (grain % 8)) != 0)
        return bad(s, at, "a grain that was there before");
    if (s->seen != NULL)
        s->seen[grain / 8] |= (uint8_t)(1u << (grain % 8));
    if (ascends)
        s->next_sector = sector + s->header.grain_sectors;
    return 0;
}

/* The grain whose record's first sector is there. */
static int take_grain(struct scan *s, const uint8_t first[SECTOR], uint64_t sector, uint32_t bytes)
{
    uint64_t at = s->at - SECTOR, grain_bytes = s->header.grain_sectors * SECTOR;
    uint64_t left = (s->capacity_sectors - sector) * SECTOR;
    size_t used = (size_t)min_u64(grain_bytes, left);
    struct packed_grain g = { .full_bytes = (size_t)grain_bytes, .used_bytes = used };
    uint64_t record = ((uint64_t)SPARSE_RECORD_BYTES + bytes + SECTOR - 1) / SECTOR * SECTOR;

    if (bytes > packed_bytes_max(grain_bytes))
        return bad(s, at, "a compressed grain of more than twice its size");
    memcpy(s->packed, first, SECTOR);
    if (take(s, s->packed + SECTOR, (size_t)record - SECTOR) != 0)
        return -1;
    if (packed_inflate(s->codec, &g, s->packed + SPARSE_RECORD_BYTES, bytes, s->grain, s->e) != 0)
        return err_add(s->e, "byte %" PRIu64 " of the stream", at);
    return s->sink->grain(s->sink->context, sector * SECTOR, s->grain, used, s->e);
}

static int take_footer(struct scan *s)
{
    uint8_t raw[SECTOR];
    uint64_t at = s->at;

    if (take(s, raw, sizeof raw) != 0)
        return -1;
    memcpy(raw + SPARSE_DIRECTORY_AT, s->head + SPARSE_DIRECTORY_AT, sizeof(uint64_t));
    return memcmp(raw, s->head, sizeof raw) == 0 ? 0
                                                 : bad(s, at, "the footer differs from the header");
}

/* A marker; *ended when it was the last one. */
static int take_marker(struct scan *s, const uint8_t raw[SECTOR], uint64_t count, uint32_t type,
                       bool *ended)
{
    uint64_t at = s->at - SECTOR, cover = s->header.grain_sectors * SPARSE_TABLE_ENTRIES;
    uint64_t tables =
        s->header.capacity_sectors / cover + (s->header.capacity_sectors % cover != 0);

    switch (type) {
    case MARKER_END:
        *ended = true;
        return block_is_zero(raw, SECTOR) ? 0 : bad(s, at, "an end marker that is not all zeros");
    case MARKER_TABLE:
        if (count != SPARSE_TABLE_SECTORS)
            return bad(s, at, "a grain table of another length than 4 sectors");
        return skip(s, count * SECTOR);
    case MARKER_DIRECTORY:
        if (count != (tables * 4 + SECTOR - 1) / SECTOR)
            return bad(s, at, "a grain directory of a wrong length");
        return skip(s, count * SECTOR);
    case MARKER_FOOTER:
        return count == 1 ? take_footer(s) : bad(s, at, "a footer of more than one sector");
    case MARKER_PROGRESS:
        return count == 0 ? 0 : bad(s, at, "a progress marker with something behind it");
    default:
        return bad(s, at, "a marker of an unknown type");
    }
}

static int take_records(struct scan *s)
{
    bool ended = false;

    while (!ended) {
        uint8_t raw[SECTOR];
        struct pull p = { .at = raw, .left = sizeof raw };
        uint64_t sector;
        uint32_t bytes, type;

        if (take(s, raw, sizeof raw) != 0)
            return -1;
        sector = pull_u64(&p);
        bytes = pull_u32(&p);
        type = pull_u32(&p);
        if (bytes == 0) {
            if (take_marker(s, raw, sector, type, &ended) != 0)
                return -1;
        } else if (check_order(s, s->at - SECTOR, sector) != 0 ||
                   take_grain(s, raw, sector, bytes) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Behind the end: padding. */
static int take_rest(struct scan *s)
{
    uint8_t buffer[SKIP_BYTES];
    size_t got;

    do {
        if (take_some(s, buffer, sizeof buffer, &got) != 0)
            return -1;
        if (got > 0 && !block_is_zero(buffer, got))
            return bad(s, s->at - got, "something follows the end marker");
    } while (got == sizeof buffer);
    return 0;
}

int vmdk_stream_scan(const struct vmdk_stream_input *input, const struct vmdk_codec *codec,
                     const struct vmdk_stream_sink *sink, struct err *e)
{
    struct scan s = { .input = input, .codec = codec, .sink = sink, .e = e };
    int rc = -1;

    if (take_head(&s) == 0 && take_records(&s) == 0 && take_rest(&s) == 0)
        rc = 0;
    free(s.seen);
    free(s.packed);
    free(s.grain);
    return rc;
}
