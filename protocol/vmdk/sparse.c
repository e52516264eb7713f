/*
 * Hosted sparse extents: plain, and compressed ones (streams) by their directory.
 * Format: VMware, Virtual Disk Format 5.0, "Hosted Sparse Extents".
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
#include "protocol/vmdk/packed.h"
#include "protocol/vmdk/sparse_header.h"

enum { ENTRY_ZERO = 1, SECTOR = DESCRIPTOR_SECTOR_BYTES, TAIL_SECTORS = 3 };

struct sparse {
    struct grain_map map;
    const struct vmdk_codec *codec;
    struct packed_slot *slot;
    uint64_t descriptor_at, descriptor_bytes;
    bool zero_grains;
};

static bool overlaps(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

/* Does a range keep clear of the header and the descriptor? */
static bool is_clear(const struct sparse *s, uint64_t at, uint64_t bytes)
{
    return at >= SPARSE_HEADER_BYTES && !overlaps(at, bytes, s->descriptor_at, s->descriptor_bytes);
}

static const char *sparse_table_of(const struct grain_map *m, uint64_t entry, uint64_t *file_bytes)
{
    *file_bytes = entry * SECTOR;
    if (entry == 0)
        return NULL;
    if (!grain_map_inside(m, *file_bytes, SPARSE_TABLE_SECTORS * SECTOR))
        return "points past the end of the file";
    return is_clear((const struct sparse *)m, *file_bytes, SPARSE_TABLE_SECTORS * SECTOR)
               ? NULL
               : "points into the header or the descriptor";
}

static const char *sparse_grain_of(const struct grain_map *m, uint64_t entry, uint64_t used_bytes,
                                   struct grain *out)
{
    const struct sparse *s = (const struct sparse *)m;

    *out = (struct grain){ EXTENT_PARENT, 0 };
    if (entry == 0)
        return NULL;
    if (entry == ENTRY_ZERO && s->zero_grains) {
        out->kind = EXTENT_ZERO;
        return NULL;
    }
    *out = (struct grain){ EXTENT_DATA, entry * SECTOR };
    if (entry == ENTRY_ZERO)
        return "means zeros, which the header's flags do not allow";
    if (out->file_bytes < m->metadata_end)
        return "points into the metadata";
    if (m->packed)
        return grain_map_inside(m, out->file_bytes, SECTOR) ? NULL
                                                            : "points past the end of the file";
    if ((out->file_bytes - m->metadata_end) % m->x.grain_bytes != 0)
        return "points between two grains";
    return grain_map_inside(m, out->file_bytes, used_bytes) ? NULL
                                                            : "points past the end of the file";
}

static const struct grain_format plain_format = { "sparse", 4, 4, sparse_table_of,
                                                  sparse_grain_of };
static const struct grain_format packed_format = { "stream", 4, 4, sparse_table_of,
                                                   sparse_grain_of };

static int sparse_read(struct extent_file *x, uint64_t at, const struct run *r, void *out,
                       size_t count, struct err *e)
{
    struct sparse *s = (struct sparse *)x;
    uint64_t start = at - at % x->grain_bytes;
    struct packed_grain g = { .file = x->file,
                              .file_id = s->map.file_id,
                              .file_bytes = r->file_bytes,
                              .sector = start / SECTOR,
                              .full_bytes = (size_t)x->grain_bytes,
                              .used_bytes =
                                  (size_t)min_u64(x->grain_bytes, x->capacity_bytes - start) };

    if (!s->map.packed)
        return grain_map_read(x, at, r, out, count, e);
    if (s->codec == NULL)
        return err_set(e, ERR_UNSUPPORTED, "compressed grains cannot be read here");
    return packed_read(s->slot, s->codec, &g, (size_t)(at - start), out, count, e);
}

static int sparse_visit(struct extent_file *x, struct visitor *v, struct err *e)
{
    struct sparse *s = (struct sparse *)x;

    if (v->range(v, s->descriptor_at, s->descriptor_bytes, e) != 0)
        return err_add(e, "the descriptor");
    return grain_map_visit(x, v, e);
}

static void sparse_close(struct extent_file *x)
{
    free(x);
}

static const struct extent_file_ops sparse_ops = { grain_map_run_at, sparse_read, sparse_visit,
                                                   sparse_close };

/* ---- opening ---- */

static int bad_footer(const char *what, struct err *e)
{
    return err_set(e, ERR_CORRUPT,
                   "%s: the stream is cut short, or something was added behind its end", what);
}

/* Where the directory of a stream with a footer is. */
static int read_footer(struct source *file, const uint8_t header[SPARSE_HEADER_BYTES],
                       uint64_t *directory_sector, struct err *e)
{
    uint8_t raw[TAIL_SECTORS * SECTOR];
    uint8_t *footer = raw + SECTOR;
    struct pull marker = { .at = raw, .left = SECTOR };
    struct sparse_header h;

    if (file->capacity_bytes % SECTOR != 0 || file->capacity_bytes < 2 * sizeof raw)
        return bad_footer("the stream has no footer", e);
    if (source_read(file, file->capacity_bytes - sizeof raw, raw, sizeof raw, e) != 0)
        return -1;
    if (pull_u64(&marker) != 1 || pull_u32(&marker) != 0 || pull_u32(&marker) != MARKER_FOOTER)
        return bad_footer("the stream has no footer marker", e);
    if (!block_is_zero(raw + 2 * SECTOR, SECTOR))
        return bad_footer("the stream has no end marker", e);
    if (sparse_header_read(&h, footer, e) != 0)
        return err_add(e, "the stream's footer");
    if (memcmp(footer, header, SPARSE_DIRECTORY_AT) != 0 ||
        memcmp(footer + SPARSE_DIRECTORY_AT + 8, header + SPARSE_DIRECTORY_AT + 8,
               SPARSE_HEADER_BYTES - SPARSE_DIRECTORY_AT - 8) != 0)
        return bad_footer("the stream's footer differs from its header", e);
    if (h.directory_sector == SPARSE_DIRECTORY_AT_END)
        return bad_footer("the stream's footer names no directory", e);
    *directory_sector = h.directory_sector;
    return 0;
}

/* The directory (and its copy) inside the file, clear of header and descriptor. */
static int check_directory(const struct sparse *s, uint64_t at, const char *field, struct err *e)
{
    uint64_t bytes = s->map.table_count * s->map.format->directory_entry_bytes;

    if (!grain_map_inside(&s->map, at, bytes))
        return err_set(e, ERR_CORRUPT, "%s: the directory goes past the end of the file", field);
    if (!is_clear(s, at, bytes))
        return err_set(e, ERR_CORRUPT, "%s: the directory lies on the header or the descriptor",
                       field);
    return 0;
}

static int check_for_plan(const struct sparse_header *h, const struct extent_plan *p, struct err *e)
{
    if (sparse_header_capacity(h, p->capacity_bytes / SECTOR, e) != 0)
        return -1;
    if (h->overhead_sectors > p->file->capacity_bytes / SECTOR)
        return err_set(e, ERR_CORRUPT,
                       "the sparse header's overHead of %" PRIu64
                       " sectors goes past the end of the file",
                       h->overhead_sectors);
    if ((h->flags & SPARSE_COMPRESSED) != 0 && p->codec == NULL)
        return err_set(e, ERR_UNSUPPORTED,
                       "its grains are compressed, which cannot be read here: copy the file and "
                       "read it with vmferry convert");
    if (h->unclean && (h->flags & SPARSE_REDUNDANT) == 0)
        return err_set(e, ERR_SOURCE,
                       "uncleanShutdown is set and no redundant directory shows whether the "
                       "tables are whole: repair the disk with its own tools first");
    return 0;
}

static int fill(struct sparse *s, const struct sparse_header *h,
                const uint8_t raw[SPARSE_HEADER_BYTES], const struct extent_plan *p, struct err *e)
{
    struct grain_map *m = &s->map;
    uint64_t directory = h->directory_sector;

    m->packed = (h->flags & SPARSE_COMPRESSED) != 0;
    grain_map_init(m, m->packed ? &packed_format : &plain_format, p, h->grain_sectors * SECTOR,
                   SPARSE_TABLE_ENTRIES);
    m->x.ops = &sparse_ops;
    m->head_bytes = SPARSE_HEADER_BYTES;
    s->codec = p->codec;
    s->slot = p->slot;
    m->metadata_end = max_u64(h->overhead_sectors * SECTOR, SPARSE_HEADER_BYTES);
    s->zero_grains = (h->flags & SPARSE_ZERO_GRAINS) != 0;
    if (sparse_header_descriptor(h, p->file->capacity_bytes, &s->descriptor_at,
                                 &s->descriptor_bytes, e) != 0)
        return -1;
    if (directory == SPARSE_DIRECTORY_AT_END && read_footer(p->file, raw, &directory, e) != 0)
        return -1;
    m->directory_at = directory * SECTOR;
    if (check_directory(s, m->directory_at, "gdOffset", e) != 0)
        return -1;
    if ((h->flags & SPARSE_REDUNDANT) == 0)
        return 0;
    m->redundant_at = h->redundant_sector * SECTOR;
    return check_directory(s, m->redundant_at, "rgdOffset", e);
}

int sparse_open(struct extent_file **out, const struct extent_plan *p, struct err *e)
{
    uint8_t raw[SPARSE_HEADER_BYTES];
    struct sparse_header h;
    struct sparse *s;

    if (p->file->capacity_bytes < sizeof raw)
        return err_set(e, ERR_CORRUPT, "the file is too short for a sparse header");
    if (source_read(p->file, 0, raw, sizeof raw, e) != 0)
        return -1;
    if (sparse_header_read(&h, raw, e) != 0) {
        if (e != NULL && e->code == ERR_FORMAT) /* its descriptor promised otherwise */
            e->code = ERR_CORRUPT;
        return -1;
    }
    if (check_for_plan(&h, p, e) != 0)
        return -1;
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_sys(e, "opening a sparse extent");
    if (fill(s, &h, raw, p, e) != 0 || grain_map_check(&s->map, e) != 0) {
        free(s);
        return -1;
    }
    *out = &s->map.x;
    return 0;
}
