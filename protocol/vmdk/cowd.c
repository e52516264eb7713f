/*
 * COWD: the delta of `vmfsSparse` links.
 * Format: VMware, Virtual Disk Format 5.0, "ESX Server Sparse Extents"; entry 1 is a zero grain
 * although that note does not say so.  documented, not seen: no delta written by a host was at
 * hand.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/descriptor.h"
#include "protocol/vmdk/grain_map.h"

enum {
    COWD_HEADER_BYTES = 2048,
    COWD_VERSION = 1,
    COWD_FLAGS = 3,
    COWD_GRAIN_SECTORS_MAX = 2048,
    COWD_TABLE_ENTRIES = 4096,
    COWD_TABLE_BYTES = COWD_TABLE_ENTRIES * 4,
    COWD_UNCLEAN_AT = 1648,
    COWD_ENTRY_ZERO = 1,
};

struct cowd_header {
    uint32_t version, flags, sectors, grain_sectors, directory_sector, directory_entries, unclean;
};

static uint64_t directory_end(const struct grain_map *m)
{
    uint64_t end = m->directory_at + m->table_count * m->format->directory_entry_bytes;

    return (end + DESCRIPTOR_SECTOR_BYTES - 1) / DESCRIPTOR_SECTOR_BYTES * DESCRIPTOR_SECTOR_BYTES;
}

static const char *cowd_table_of(const struct grain_map *m, uint64_t entry, uint64_t *file_bytes)
{
    *file_bytes = entry * DESCRIPTOR_SECTOR_BYTES;
    if (entry == 0)
        return NULL;
    if (*file_bytes < m->metadata_end)
        return "points into the header or the directory";
    return grain_map_inside(m, *file_bytes, COWD_TABLE_BYTES) ? NULL
                                                              : "points past the end of the file";
}

static const char *cowd_grain_of(const struct grain_map *m, uint64_t entry, uint64_t used_bytes,
                                 struct grain *out)
{
    *out = (struct grain){ EXTENT_PARENT, 0 };
    if (entry == 0)
        return NULL;
    if (entry == COWD_ENTRY_ZERO) {
        out->kind = EXTENT_ZERO;
        return NULL;
    }
    *out = (struct grain){ EXTENT_DATA, entry * DESCRIPTOR_SECTOR_BYTES };
    if (out->file_bytes < m->metadata_end)
        return "points into the header or the directory";
    return grain_map_inside(m, out->file_bytes, used_bytes) ? NULL
                                                            : "points past the end of the file";
}

static const struct grain_format cowd_format = { "COWD", 4, 4, cowd_table_of, cowd_grain_of };

static void cowd_close(struct extent_file *x)
{
    free(x);
}

static const struct extent_file_ops cowd_ops = { grain_map_run_at, grain_map_read, grain_map_visit,
                                                 cowd_close };

static int read_header(struct source *file, struct cowd_header *h, struct err *e)
{
    uint8_t raw[COWD_HEADER_BYTES];
    struct pull p = { .at = raw, .left = sizeof raw };
    struct pull late = { .at = raw + COWD_UNCLEAN_AT, .left = 4 };

    if (file->capacity_bytes < sizeof raw)
        return err_set(e, ERR_CORRUPT, "the file is too short for a COWD header");
    if (source_read(file, 0, raw, sizeof raw, e) != 0)
        return -1;
    if (memcmp(pull_bytes(&p, 4), "COWD", 4) != 0)
        return err_set(e, ERR_CORRUPT, "the magic is not COWD");
    h->version = pull_u32(&p);
    h->flags = pull_u32(&p);
    h->sectors = pull_u32(&p);
    h->grain_sectors = pull_u32(&p);
    h->directory_sector = pull_u32(&p);
    h->directory_entries = pull_u32(&p);
    h->unclean = pull_u32(&late);
    return 0;
}

static int check_header(const struct cowd_header *h, const struct extent_plan *p, struct err *e)
{
    if (h->version != COWD_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "the COWD version is %" PRIu32 " and not 1", h->version);
    if (h->flags != COWD_FLAGS)
        return err_set(e, ERR_UNSUPPORTED, "the COWD flags are 0x%" PRIx32 " and not 0x3",
                       h->flags);
    if (!is_power_of_two(h->grain_sectors) || h->grain_sectors > COWD_GRAIN_SECTORS_MAX)
        return err_set(e, ERR_CORRUPT,
                       "the COWD grain size of %" PRIu32 " sectors is no power of "
                       "two up to %d",
                       h->grain_sectors, COWD_GRAIN_SECTORS_MAX);
    if ((uint64_t)h->sectors * DESCRIPTOR_SECTOR_BYTES != p->capacity_bytes)
        return err_set(e, ERR_CORRUPT,
                       "the COWD header has %" PRIu32 " sectors, its descriptor %" PRIu64,
                       h->sectors, p->capacity_bytes / DESCRIPTOR_SECTOR_BYTES);
    if (h->directory_sector < COWD_HEADER_BYTES / DESCRIPTOR_SECTOR_BYTES)
        return err_set(e, ERR_CORRUPT, "the COWD directory at sector %" PRIu32 " is in the header",
                       h->directory_sector);
    if (h->unclean != 0)
        return err_set(e, ERR_SOURCE,
                       "uncleanShutdown is %" PRIu32
                       ": the delta is in use or was not closed; power the VM on and off, or "
                       "consolidate its disks",
                       h->unclean);
    return 0;
}

int cowd_open(struct extent_file **out, const struct extent_plan *p, struct err *e)
{
    struct cowd_header h;
    struct grain_map *m;

    if (read_header(p->file, &h, e) != 0 || check_header(&h, p, e) != 0)
        return -1;
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return err_sys(e, "opening a COWD extent");
    grain_map_init(m, &cowd_format, p, (uint64_t)h.grain_sectors * DESCRIPTOR_SECTOR_BYTES,
                   COWD_TABLE_ENTRIES);
    m->x.ops = &cowd_ops;
    m->head_bytes = COWD_HEADER_BYTES;
    m->directory_at = (uint64_t)h.directory_sector * DESCRIPTOR_SECTOR_BYTES;
    if (h.directory_entries != m->table_count) {
        err_set(e, ERR_CORRUPT,
                "the COWD directory has %" PRIu32 " entries; a disk of this size has %" PRIu64,
                h.directory_entries, m->table_count);
        goto fail;
    }
    if (!grain_map_inside(m, m->directory_at, m->table_count * m->format->directory_entry_bytes)) {
        err_set(e, ERR_CORRUPT, "the COWD directory goes past the end of the file");
        goto fail;
    }
    m->metadata_end = directory_end(m);
    if (grain_map_check(m, e) != 0)
        goto fail;
    *out = &m->x;
    return 0;

fail:
    free(m);
    return -1;
}
