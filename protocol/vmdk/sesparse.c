/*
 * seSparse: the delta of snapshots on VMFS6 and of disks above 2 TiB.
 * Format: no public document.  What several independent readers and a host's dump of a header agree
 * on; documented, not seen: no delta written by a host was at hand.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "protocol/block/digest.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/descriptor.h"
#include "protocol/vmdk/grain_map.h"

#define SESPARSE_MAGIC UINT64_C(0xcafebabe)
#define SESPARSE_VOLATILE_MAGIC UINT64_C(0xcafecafe)
#define SESPARSE_VERSION UINT64_C(0x0000000200000001) /* 2.1 */
#define SESPARSE_RESERVED_NEWER UINT64_C(0x200)       /* in reserved1 on newer hosts */
#define TABLE_MARK UINT64_C(0x10000000)

enum {
    SESPARSE_HEADER_BYTES = 512,
    SESPARSE_FIELDS_BYTES = 208,   /* of the constant header; the rest is zero */
    SESPARSE_VOLATILE_FIELDS = 32, /* bytes */
    SESPARSE_GRAIN_SECTORS = 8,
    SESPARSE_GRAIN_BYTES = SESPARSE_GRAIN_SECTORS * DESCRIPTOR_SECTOR_BYTES,
    SESPARSE_TABLE_SECTORS = 64,
    SESPARSE_TABLE_BYTES = SESPARSE_TABLE_SECTORS * DESCRIPTOR_SECTOR_BYTES,
    SESPARSE_TABLE_ENTRIES = 4096,
    RESERVED_COUNT = 4,
};

/* Entry types: the top 4 bits. */
enum { TYPE_ABSENT, TYPE_UNMAPPED, TYPE_ZERO, TYPE_DATA };

enum region_name {
    REGION_VOLATILE,
    REGION_JOURNAL_HEADER,
    REGION_JOURNAL,
    REGION_DIRECTORY,
    REGION_TABLES,
    REGION_FREE_BITMAP,
    REGION_BACKMAP,
    REGION_GRAINS,
    REGION_COUNT
};

static const char *const region_names[REGION_COUNT] = {
    "volatile header", "journal header", "journal", "grain directory",
    "grain tables",    "free bitmap",    "backmap", "grains",
};

struct region {
    uint64_t start_bytes, length_bytes;
};

struct sesparse_header {
    uint64_t version, sectors, grain_sectors, table_sectors, flags;
    uint64_t reserved[RESERVED_COUNT];
    struct region regions[REGION_COUNT];
};

struct sesparse {
    struct grain_map map;
    struct region tables, grains;
};

static const char *sesparse_table_of(const struct grain_map *m, uint64_t entry,
                                     uint64_t *file_bytes)
{
    const struct sesparse *s = (const struct sesparse *)m;
    uint64_t number = entry & UINT32_MAX;

    *file_bytes = 0;
    if (entry == 0)
        return NULL;
    if (entry >> 32 != TABLE_MARK)
        return "has no known form";
    if (number >= s->tables.length_bytes / SESPARSE_TABLE_BYTES)
        return "names a table outside the region of tables";
    *file_bytes = s->tables.start_bytes + number * SESPARSE_TABLE_BYTES;
    return grain_map_inside(m, *file_bytes, SESPARSE_TABLE_BYTES)
               ? NULL
               : "names a table past the end of the file";
}

static const char *sesparse_grain_of(const struct grain_map *m, uint64_t entry, uint64_t used_bytes,
                                     struct grain *out)
{
    const struct sesparse *s = (const struct sesparse *)m;
    /* The low 12 bits of the number stand above its other 48. */
    uint64_t number = (entry >> 48 & 0xfff) | (entry & UINT64_C(0xffffffffffff)) << 12;

    *out = (struct grain){ EXTENT_PARENT, 0 };
    switch (entry >> 60) {
    case TYPE_ABSENT:
        return entry == 0 ? NULL : "is of type 0 with bits behind it";
    case TYPE_UNMAPPED: /* by the guest: zeros, never what the parent has */
    case TYPE_ZERO:
        out->kind = EXTENT_ZERO;
        return NULL;
    case TYPE_DATA:
        break;
    default:
        return "is of an unknown type";
    }
    if (number >= s->grains.length_bytes / SESPARSE_GRAIN_BYTES)
        return "names a grain outside the region of grains";
    *out = (struct grain){ EXTENT_DATA, s->grains.start_bytes + number * SESPARSE_GRAIN_BYTES };
    return grain_map_inside(m, out->file_bytes, used_bytes) ? NULL
                                                            : "names a grain past the file's end";
}

static const struct grain_format sesparse_format = { "seSparse", 8, 8, sesparse_table_of,
                                                     sesparse_grain_of };

static void sesparse_close(struct extent_file *x)
{
    free(x);
}

static const struct extent_file_ops sesparse_ops = { grain_map_run_at, grain_map_read,
                                                     grain_map_visit, sesparse_close };

/* ---- headers ---- */

static int pull_region(struct pull *p, enum region_name name, struct region *out, struct err *e)
{
    uint64_t start = pull_u64(p), count = pull_u64(p), end;

    if (!sectors_to_bytes(start, &out->start_bytes) ||
        !sectors_to_bytes(count, &out->length_bytes) ||
        !checked_add(out->start_bytes, out->length_bytes, &end))
        return err_set(e, ERR_CORRUPT, "the seSparse region of the %s overflows",
                       region_names[name]);
    return 0;
}

static int read_header(struct source *file, struct sesparse_header *h, struct err *e)
{
    uint8_t raw[SESPARSE_HEADER_BYTES];
    struct pull p = { .at = raw, .left = sizeof raw };

    if (file->capacity_bytes < 2 * sizeof raw)
        return err_set(e, ERR_CORRUPT, "the file is too short for a seSparse header");
    if (source_read(file, 0, raw, sizeof raw, e) != 0)
        return -1;
    if (pull_u64(&p) != SESPARSE_MAGIC)
        return err_set(e, ERR_CORRUPT, "the magic is not that of seSparse");
    h->version = pull_u64(&p);
    h->sectors = pull_u64(&p);
    h->grain_sectors = pull_u64(&p);
    h->table_sectors = pull_u64(&p);
    h->flags = pull_u64(&p);
    for (size_t i = 0; i < RESERVED_COUNT; i++)
        h->reserved[i] = pull_u64(&p);
    for (enum region_name i = 0; i < REGION_COUNT; i++)
        if (pull_region(&p, i, &h->regions[i], e) != 0)
            return -1;
    if (!block_is_zero(raw + SESPARSE_FIELDS_BYTES, sizeof raw - SESPARSE_FIELDS_BYTES))
        return err_set(e, ERR_UNSUPPORTED, "the padding of the seSparse header is not zero");
    return 0;
}

static int check_fields(const struct sesparse_header *h, const struct extent_plan *p, struct err *e)
{
    if (h->version != SESPARSE_VERSION)
        return err_set(e, ERR_UNSUPPORTED,
                       "the seSparse version is %" PRIu64 ".%" PRIu64 " and not 2.1",
                       h->version >> 32, h->version & UINT32_MAX);
    if (h->grain_sectors != SESPARSE_GRAIN_SECTORS)
        return err_set(e, ERR_UNSUPPORTED,
                       "the seSparse grain size is %" PRIu64 " sectors and not 8",
                       h->grain_sectors);
    if (h->table_sectors != SESPARSE_TABLE_SECTORS)
        return err_set(e, ERR_UNSUPPORTED,
                       "the seSparse grain table size is %" PRIu64 " sectors and not 64",
                       h->table_sectors);
    if (h->flags != 0)
        return err_set(e, ERR_UNSUPPORTED, "the seSparse flags are 0x%" PRIx64 " and not 0",
                       h->flags);
    for (unsigned i = 0; i < RESERVED_COUNT; i++)
        if (h->reserved[i] != 0 && !(i == 0 && h->reserved[i] == SESPARSE_RESERVED_NEWER))
            return err_set(e, ERR_UNSUPPORTED, "the seSparse field reserved%u is 0x%" PRIx64, i + 1,
                           h->reserved[i]);
    if (h->sectors != p->capacity_bytes / DESCRIPTOR_SECTOR_BYTES)
        return err_set(e, ERR_CORRUPT,
                       "the seSparse header has %" PRIu64 " sectors, its descriptor %" PRIu64,
                       h->sectors, p->capacity_bytes / DESCRIPTOR_SECTOR_BYTES);
    return 0;
}

/* The regions stand in their order, none over another, those that matter large enough. */
static int check_regions(const struct sesparse_header *h, uint64_t tables, struct err *e)
{
    uint64_t end = SESPARSE_HEADER_BYTES;

    for (enum region_name i = 0; i < REGION_COUNT; i++) {
        const struct region *r = &h->regions[i];

        if (r->start_bytes < end)
            return err_set(e, ERR_CORRUPT,
                           "the seSparse region of the %s at sector %" PRIu64
                           " overlaps what stands before it",
                           region_names[i], r->start_bytes / DESCRIPTOR_SECTOR_BYTES);
        end = r->start_bytes + r->length_bytes;
    }
    if (h->regions[REGION_VOLATILE].start_bytes != SESPARSE_HEADER_BYTES ||
        h->regions[REGION_VOLATILE].length_bytes != SESPARSE_HEADER_BYTES)
        return err_set(e, ERR_UNSUPPORTED, "the seSparse volatile header is not sector 1");
    if (h->regions[REGION_JOURNAL_HEADER].start_bytes != 2 * SESPARSE_HEADER_BYTES ||
        h->regions[REGION_JOURNAL_HEADER].length_bytes != 2 * SESPARSE_HEADER_BYTES)
        return err_set(e, ERR_UNSUPPORTED, "the seSparse journal header is not at sector 2");
    if (h->regions[REGION_DIRECTORY].length_bytes / 8 < tables)
        return err_set(e, ERR_CORRUPT,
                       "the seSparse grain directory has %" PRIu64
                       " sectors, too few for this disk",
                       h->regions[REGION_DIRECTORY].length_bytes / DESCRIPTOR_SECTOR_BYTES);
    if (h->regions[REGION_TABLES].length_bytes / SESPARSE_TABLE_BYTES < tables)
        return err_set(e, ERR_CORRUPT,
                       "the seSparse region of grain tables has %" PRIu64
                       " sectors, too few for this disk",
                       h->regions[REGION_TABLES].length_bytes / DESCRIPTOR_SECTOR_BYTES);
    return 0;
}

static int check_volatile(struct source *file, struct err *e)
{
    uint8_t raw[SESPARSE_HEADER_BYTES];
    struct pull p = { .at = raw, .left = sizeof raw };
    uint64_t replay;

    if (source_read(file, SESPARSE_HEADER_BYTES, raw, sizeof raw, e) != 0)
        return -1;
    if (pull_u64(&p) != SESPARSE_VOLATILE_MAGIC)
        return err_set(e, ERR_CORRUPT, "the magic of the seSparse volatile header is wrong");
    pull_u64(&p); /* FreeGTNumber: whether it bounds the tables is not known */
    pull_u64(&p); /* nextTxnSeqNumber */
    replay = pull_u64(&p);
    if (replay != 0)
        return err_set(e, ERR_SOURCE,
                       "replayJournal is %" PRIu64
                       ": the journal of the delta must be replayed by its host; power the VM on "
                       "and off, or consolidate its disks",
                       replay);
    if (!block_is_zero(raw + SESPARSE_VOLATILE_FIELDS, sizeof raw - SESPARSE_VOLATILE_FIELDS))
        return err_set(e, ERR_UNSUPPORTED,
                       "the padding of the seSparse volatile header is not "
                       "zero");
    return 0;
}

int sesparse_open(struct extent_file **out, const struct extent_plan *p, struct err *e)
{
    struct sesparse_header h;
    struct sesparse *s;

    if (read_header(p->file, &h, e) != 0 || check_fields(&h, p, e) != 0 ||
        check_regions(
            &h, grain_map_tables(p->capacity_bytes, SESPARSE_GRAIN_BYTES, SESPARSE_TABLE_ENTRIES),
            e) != 0 ||
        check_volatile(p->file, e) != 0)
        return -1;
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_sys(e, "opening a seSparse extent");
    grain_map_init(&s->map, &sesparse_format, p, SESPARSE_GRAIN_BYTES, SESPARSE_TABLE_ENTRIES);
    s->map.x.ops = &sesparse_ops;
    s->map.head_bytes = h.regions[REGION_JOURNAL_HEADER].start_bytes;
    s->map.directory_at = h.regions[REGION_DIRECTORY].start_bytes;
    s->tables = h.regions[REGION_TABLES];
    s->grains = h.regions[REGION_GRAINS];
    if (!grain_map_inside(&s->map, s->map.directory_at, s->map.table_count * 8)) {
        err_set(e, ERR_CORRUPT, "the seSparse grain directory goes past the end of the file");
        goto fail;
    }
    if (grain_map_check(&s->map, e) != 0)
        goto fail;
    *out = &s->map.x;
    return 0;

fail:
    free(s);
    return -1;
}
