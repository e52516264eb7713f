#include "protocol/vmdk/sparse_header.h"

#include <inttypes.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "protocol/block/digest.h"
#include "protocol/vmdk/descriptor.h"

enum {
    NEWLINE_BYTES = 4,
    PAD_AT = 79,
    GRAIN_SECTORS_MIN = 8,
    GRAIN_SECTORS_MAX = 2048,
    VERSION_MAX = 3,
};

#define FLAGS_KNOWN                                                                                \
    (SPARSE_NEWLINE_TEST | SPARSE_REDUNDANT | SPARSE_ZERO_GRAINS | SPARSE_COMPRESSED |             \
     SPARSE_MARKERS)
#define FILE_SECTORS_MAX (UINT64_C(1) << 54) /* so that bytes fit 63 bits */

static int check_layout(const struct sparse_header *h, uint32_t entries, struct err *e)
{
    if (h->capacity_sectors == 0 || h->capacity_sectors > DESCRIPTOR_SECTORS_MAX)
        return err_set(e, ERR_CORRUPT, "the sparse header's capacity is %" PRIu64 " sectors",
                       h->capacity_sectors);
    if (!is_power_of_two(h->grain_sectors) || h->grain_sectors < GRAIN_SECTORS_MIN ||
        h->grain_sectors > GRAIN_SECTORS_MAX)
        return err_set(e, ERR_CORRUPT,
                       "the sparse header's grainSize of %" PRIu64
                       " sectors is no power of two from %d to %d",
                       h->grain_sectors, GRAIN_SECTORS_MIN, GRAIN_SECTORS_MAX);
    if (entries != SPARSE_TABLE_ENTRIES)
        return err_set(e, ERR_CORRUPT,
                       "the sparse header's numGTEsPerGT is %" PRIu32 " and not 512", entries);
    if (h->redundant_sector > FILE_SECTORS_MAX || h->overhead_sectors > FILE_SECTORS_MAX ||
        (h->directory_sector > FILE_SECTORS_MAX && h->directory_sector != SPARSE_DIRECTORY_AT_END))
        return err_set(e, ERR_CORRUPT, "a sector number of the sparse header is too large");
    if (h->directory_sector == 0)
        return err_set(e, ERR_CORRUPT, "the sparse header's gdOffset is 0");
    if ((h->flags & SPARSE_REDUNDANT) != 0 && h->redundant_sector == 0)
        return err_set(e, ERR_CORRUPT,
                       "the sparse header promises a redundant directory, but its "
                       "rgdOffset is 0");
    return 0;
}

static int check_flags(const struct sparse_header *h, unsigned algorithm, struct err *e)
{
    bool compressed = (h->flags & SPARSE_COMPRESSED) != 0;
    bool markers = (h->flags & SPARSE_MARKERS) != 0;

    if ((h->flags & ~(unsigned)FLAGS_KNOWN) != 0)
        return err_set(e, ERR_UNSUPPORTED, "the sparse header's flags 0x%" PRIx32 " are unknown",
                       h->flags);
    if (algorithm > 1 || (algorithm == 1) != compressed)
        return err_set(e, ERR_CORRUPT,
                       "the sparse header's compressAlgorithm %u does not fit its flags 0x%" PRIx32,
                       algorithm, h->flags);
    if (markers && !compressed)
        return err_set(e, ERR_CORRUPT, "the sparse header has markers without compression");
    if (h->directory_sector == SPARSE_DIRECTORY_AT_END && !markers)
        return err_set(e, ERR_CORRUPT,
                       "the sparse header's gdOffset needs a footer, but the file "
                       "has no markers");
    return 0;
}

int sparse_header_read(struct sparse_header *out, const uint8_t raw[SPARSE_HEADER_BYTES],
                       struct err *e)
{
    struct pull p = { .at = raw, .left = SPARSE_HEADER_BYTES };
    struct sparse_header h;
    const uint8_t *newlines;
    uint32_t entries;
    unsigned algorithm;

    if (memcmp(pull_bytes(&p, 4), "KDMV", 4) != 0)
        return err_set(e, ERR_FORMAT, "the magic is not KDMV");
    h.version = pull_u32(&p);
    h.flags = pull_u32(&p);
    h.capacity_sectors = pull_u64(&p);
    h.grain_sectors = pull_u64(&p);
    h.descriptor_sector = pull_u64(&p);
    h.descriptor_sectors = pull_u64(&p);
    entries = pull_u32(&p);
    h.redundant_sector = pull_u64(&p);
    h.directory_sector = pull_u64(&p);
    h.overhead_sectors = pull_u64(&p);
    h.unclean = pull_u8(&p) != 0;
    newlines = pull_bytes(&p, NEWLINE_BYTES);
    algorithm = pull_u16(&p);
    if (h.version < 1 || h.version > VERSION_MAX)
        return err_set(e, ERR_UNSUPPORTED, "the sparse header's version is %" PRIu32, h.version);
    if ((h.flags & SPARSE_NEWLINE_TEST) != 0 && memcmp(newlines, "\n \r\n", NEWLINE_BYTES) != 0)
        return err_set(e, ERR_CORRUPT, "the file was damaged by copying it in text mode");
    if (!block_is_zero(raw + PAD_AT, SPARSE_HEADER_BYTES - PAD_AT))
        return err_set(e, ERR_UNSUPPORTED, "the padding of the sparse header is not zero");
    if (check_flags(&h, algorithm, e) != 0 || check_layout(&h, entries, e) != 0)
        return -1;
    *out = h;
    return 0;
}

int sparse_header_descriptor(const struct sparse_header *h, uint64_t file_bytes,
                             uint64_t *start_bytes, uint64_t *length_bytes, struct err *e)
{
    uint64_t sectors = file_bytes / DESCRIPTOR_SECTOR_BYTES;

    *start_bytes = *length_bytes = 0;
    if (h->descriptor_sector == 0)
        return 0;
    if (h->descriptor_sectors > SPARSE_DESCRIPTOR_SECTORS_MAX || h->descriptor_sector > sectors ||
        h->descriptor_sectors > sectors - h->descriptor_sector)
        return err_set(e, ERR_CORRUPT,
                       "the sparse header's descriptor of %" PRIu64 " sectors at sector %" PRIu64
                       " is too long or lies past the end of the file",
                       h->descriptor_sectors, h->descriptor_sector);
    *start_bytes = h->descriptor_sector * DESCRIPTOR_SECTOR_BYTES;
    *length_bytes = h->descriptor_sectors * DESCRIPTOR_SECTOR_BYTES;
    return 0;
}

int sparse_header_capacity(const struct sparse_header *h, uint64_t line_sectors, struct err *e)
{
    bool rounds = (h->flags & SPARSE_COMPRESSED) != 0;

    if (h->capacity_sectors == line_sectors ||
        (rounds && h->capacity_sectors > line_sectors &&
         h->capacity_sectors - line_sectors < h->grain_sectors))
        return 0;
    return err_set(e, ERR_CORRUPT,
                   "the sparse header has %" PRIu64 " sectors, its descriptor %" PRIu64,
                   h->capacity_sectors, line_sectors);
}
