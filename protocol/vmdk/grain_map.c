#include "protocol/vmdk/grain_map.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/descriptor.h"
#include "protocol/vmdk/pages.h"

enum { BATCH = 512, BATCH_FIRST = 32, ENTRY_BYTES_MAX = 8 };

/* Entries of a directory or table, some of them at a time. */
struct batch {
    uint64_t entries[BATCH];
    size_t count;
};

bool sectors_to_bytes(uint64_t sectors, uint64_t *bytes)
{
    return checked_mul(sectors, DESCRIPTOR_SECTOR_BYTES, bytes);
}

uint64_t grain_map_tables(uint64_t capacity_bytes, uint64_t grain_bytes, uint32_t table_entries)
{
    uint64_t cover = grain_bytes * table_entries; /* both are bounded by their formats */

    return capacity_bytes / cover + (capacity_bytes % cover != 0);
}

bool grain_map_inside(const struct grain_map *m, uint64_t file_bytes, uint64_t length_bytes)
{
    uint64_t size = m->x.file->capacity_bytes;

    return file_bytes <= size && length_bytes <= size - file_bytes;
}

void grain_map_init(struct grain_map *m, const struct grain_format *format,
                    const struct extent_plan *p, uint64_t grain_bytes, uint32_t table_entries)
{
    m->x.format = format->name;
    m->x.file = p->file;
    m->x.capacity_bytes = p->capacity_bytes;
    m->x.grain_bytes = grain_bytes;
    m->format = format;
    m->pages = p->pages;
    m->file_id = p->file_id;
    m->table_entries = table_entries;
    m->table_count = grain_map_tables(p->capacity_bytes, grain_bytes, table_entries);
}

/* Whole tables go through here: with a cursor, reading a chain takes twice as long. */
static uint64_t entry_of(const uint8_t *raw)
{
    return (uint64_t)raw[0] | (uint64_t)raw[1] << 8 | (uint64_t)raw[2] << 16 |
           (uint64_t)raw[3] << 24;
}

/* count entries of `width` bytes from the first-th on, of what lies at file_bytes. */
static int read_entries(struct grain_map *m, uint64_t file_bytes, uint64_t first, size_t count,
                        unsigned width, struct batch *out, struct err *e)
{
    uint8_t raw[BATCH * ENTRY_BYTES_MAX];

    if (pages_read(m->pages, m->x.file, m->file_id, file_bytes + first * width, raw, count * width,
                   e) != 0)
        return -1;
    for (size_t i = 0; width == 4 && i < count; i++)
        out->entries[i] = entry_of(raw + 4 * i);
    for (size_t i = 0; width == 8 && i < count; i++)
        out->entries[i] = entry_of(raw + 8 * i) | entry_of(raw + 8 * i + 4) << 32;
    out->count = count;
    return 0;
}

/* ---- directory ---- */

static int bad_table(uint64_t table, uint64_t entry, const char *why, struct err *e)
{
    return err_set(e, ERR_CORRUPT, "the directory's entry %" PRIu64 " (0x%" PRIx64 ") %s", table,
                   entry, why);
}

/* Directory entries from table on; at most wanted of them. */
static int read_directory(struct grain_map *m, uint64_t table, uint64_t wanted, struct batch *out,
                          struct err *e)
{
    size_t count = (size_t)min_u64(BATCH, min_u64(wanted, m->table_count - table));

    return read_entries(m, m->directory_at, table, count, m->format->directory_entry_bytes, out, e);
}

int grain_map_check(struct grain_map *m, struct err *e)
{
    uint64_t table_bytes = (uint64_t)m->table_entries * m->format->entry_bytes;
    uint64_t most = m->x.file->capacity_bytes / table_bytes, named = 0;

    for (uint64_t table = 0; table < m->table_count;) {
        struct batch b;

        if (read_directory(m, table, BATCH, &b, e) != 0)
            return -1;
        for (size_t i = 0; i < b.count; i++) {
            uint64_t table_at;
            const char *why = m->format->table_of(m, b.entries[i], &table_at);

            if (why != NULL)
                return bad_table(table + i, b.entries[i], why, e);
            named += table_at != 0;
        }
        table += b.count;
    }
    return named <= most ? 0
                         : err_set(e, ERR_CORRUPT,
                                   "the directory names %" PRIu64 " tables, but only %" PRIu64
                                   " fit the file",
                                   named, most);
}

/* Where the copy of a table lies.  -1 when the copy of the directory says something else. */
static int redundant_table(struct grain_map *m, uint64_t table, bool present, uint64_t *file_bytes,
                           struct err *e)
{
    const char *why;
    struct batch b;

    if (read_entries(m, m->redundant_at, table, 1, m->format->directory_entry_bytes, &b, e) != 0)
        return -1;
    why = m->format->table_of(m, b.entries[0], file_bytes);
    if (why != NULL) {
        bad_table(table, b.entries[0], why, e);
        return err_add(e, "the redundant copy");
    }
    if ((*file_bytes != 0) != present)
        return err_set(e, ERR_CORRUPT,
                       "the two grain directories differ at entry %" PRIu64
                       ": repair the disk with its own tools first",
                       table);
    return 0;
}

/* ---- tables ---- */

static int bad_grain(uint64_t grain, uint64_t entry, const char *why, struct err *e)
{
    return err_set(e, ERR_CORRUPT, "the table entry of grain %" PRIu64 " (0x%" PRIx64 ") %s", grain,
                   entry, why);
}

/* Entries of the table at table_at; first counts inside the table. */
static int read_table(struct grain_map *m, uint64_t table, uint64_t table_at, uint64_t first,
                      size_t count, struct batch *out, struct err *e)
{
    struct batch copy;
    uint64_t copy_at;

    if (read_entries(m, table_at, first, count, m->format->entry_bytes, out, e) != 0)
        return -1;
    if (m->redundant_at == 0)
        return 0;
    if (redundant_table(m, table, true, &copy_at, e) != 0 ||
        read_entries(m, copy_at, first, count, m->format->entry_bytes, &copy, e) != 0)
        return -1;
    if (memcmp(copy.entries, out->entries, count * sizeof copy.entries[0]) != 0)
        return err_set(e, ERR_CORRUPT,
                       "grain table %" PRIu64
                       " differs from its redundant copy: repair the disk with its own tools first",
                       table);
    return 0;
}

static int decode_grain(const struct grain_map *m, uint64_t grain, uint64_t entry,
                        struct grain *out, struct err *e)
{
    uint64_t start = grain * m->x.grain_bytes;
    uint64_t used = min_u64(m->x.grain_bytes, m->x.capacity_bytes - start);
    const char *why = m->format->grain_of(m, entry, used, out);

    return why == NULL ? 0 : bad_grain(grain, entry, why, e);
}

/* May the next grain belong to the run that so far has `grains` of them? */
static bool continues(const struct grain_map *m, const struct grain *first, uint64_t grains,
                      const struct grain *next, bool places)
{
    if (next->kind != first->kind)
        return false;
    if (!places || next->kind != EXTENT_DATA)
        return true;
    return !m->packed && next->file_bytes == first->file_bytes + grains * m->x.grain_bytes;
}

/* The run at `at` as far as the next `most` entries of its table show it. */
static int table_run(struct grain_map *m, uint64_t table, uint64_t table_at, uint64_t at,
                     uint64_t limit, size_t most, bool places, struct run *out, struct err *e)
{
    uint64_t grain_bytes = m->x.grain_bytes;
    uint64_t grain = at / grain_bytes, skip = at % grain_bytes;
    uint64_t first = grain % m->table_entries;
    uint64_t wanted = (skip + limit + grain_bytes - 1) / grain_bytes;
    size_t count = (size_t)min_u64(min_u64(wanted, m->table_entries - first), most);
    struct grain start, next;
    struct batch b;
    uint64_t grains = 1;

    if (read_table(m, table, table_at, first, count, &b, e) != 0 ||
        decode_grain(m, grain, b.entries[0], &start, e) != 0)
        return -1;
    while (grains < count) {
        /* The same entry again means the same, unless it is a place. */
        if (b.entries[grains] == b.entries[0] && start.kind != EXTENT_DATA) {
            grains++;
            continue;
        }
        if (decode_grain(m, grain + grains, b.entries[grains], &next, e) != 0)
            return -1;
        if (!continues(m, &start, grains, &next, places))
            break;
        grains++;
    }
    out->kind = start.kind;
    /* A packed grain is named by its record, whatever part of it is wanted. */
    out->file_bytes = start.file_bytes + (m->packed ? 0 : skip);
    out->length_bytes = min_u64(grains * grain_bytes - skip, limit);
    return 0;
}

/* The run at `at` as far as a batch of the directory or `most` entries of a table show it. */
static int piece_at(struct grain_map *m, uint64_t at, uint64_t limit, size_t most, bool places,
                    struct run *out, struct err *e)
{
    uint64_t cover = m->x.grain_bytes * m->table_entries;
    uint64_t table = at / cover, table_at, copy_at, absent = 0;
    uint64_t wanted = (at % cover + limit + cover - 1) / cover;
    struct batch b;

    if (read_directory(m, table, wanted, &b, e) != 0)
        return -1;
    for (; absent < b.count; absent++) {
        const char *why = m->format->table_of(m, b.entries[absent], &table_at);

        if (why != NULL)
            return bad_table(table + absent, b.entries[absent], why, e);
        if (table_at != 0)
            break;
        if (m->redundant_at != 0 && redundant_table(m, table + absent, false, &copy_at, e) != 0)
            return -1;
    }
    if (absent == 0)
        return table_run(m, table, table_at, at, min_u64(limit, cover - at % cover), most, places,
                         out, e);
    *out = (struct run){ min_u64(absent * cover - at % cover, limit), 0, EXTENT_PARENT };
    return 0;
}

int grain_map_run_at(struct extent_file *x, uint64_t at, uint64_t limit, bool places,
                     struct run *out, struct err *e)
{
    struct grain_map *m = (struct grain_map *)x;
    size_t most = BATCH_FIRST; /* few, then more: most runs of a guest's writes are short */
    struct run next;

    if (piece_at(m, at, limit, most, places, out, e) != 0)
        return -1;
    while (out->length_bytes < limit) {
        if (places && m->packed && out->kind == EXTENT_DATA)
            break;
        most = (size_t)min_u64(most * 4, BATCH);
        if (piece_at(m, at + out->length_bytes, limit - out->length_bytes, most, places, &next,
                     e) != 0)
            return -1;
        if (next.kind != out->kind || (places && next.kind == EXTENT_DATA &&
                                       next.file_bytes != out->file_bytes + out->length_bytes))
            break;
        out->length_bytes += next.length_bytes;
    }
    return 0;
}

int grain_map_read(struct extent_file *x, uint64_t at, const struct run *r, void *out, size_t count,
                   struct err *e)
{
    struct grain_map *m = (struct grain_map *)x;

    (void)at;
    if (!grain_map_inside(m, r->file_bytes, count))
        return err_set(e, ERR_CORRUPT, "a grain at byte %" PRIu64 " lies past the end of the file",
                       r->file_bytes);
    return source_read(x->file, r->file_bytes, out, count, e);
}

/* ---- all of it ---- */

static int visit_entries(struct grain_map *m, uint64_t grain, const struct batch *b,
                         struct visitor *v, struct err *e)
{
    for (size_t i = 0; i < b->count; i++) {
        uint64_t start = (grain + i) * m->x.grain_bytes;
        uint64_t used = min_u64(m->x.grain_bytes, m->x.capacity_bytes - start);
        struct grain g;

        if (b->entries[i] == 0)
            continue;
        if (decode_grain(m, grain + i, b->entries[i], &g, e) != 0)
            return -1;
        if (g.kind == EXTENT_ZERO)
            v->zero_bytes += used;
        if (g.kind != EXTENT_DATA)
            continue;
        v->data_bytes += used;
        /* How long a packed grain is only its record says; its number there shows a double. */
        if (v->range(v, g.file_bytes, m->packed ? DESCRIPTOR_SECTOR_BYTES : used, e) != 0)
            return err_add(e, "grain %" PRIu64, grain + i);
    }
    return 0;
}

static int visit_table(struct grain_map *m, uint64_t table, uint64_t table_at, struct visitor *v,
                       struct err *e)
{
    uint64_t grains =
        m->x.capacity_bytes / m->x.grain_bytes + (m->x.capacity_bytes % m->x.grain_bytes != 0);
    uint64_t first = table * m->table_entries;
    uint64_t entries = min_u64(m->table_entries, grains - first);
    uint64_t copy_at;

    if (v->range(v, table_at, (uint64_t)m->table_entries * m->format->entry_bytes, e) != 0)
        return err_add(e, "grain table %" PRIu64, table);
    if (m->redundant_at != 0 &&
        (redundant_table(m, table, true, &copy_at, e) != 0 ||
         v->range(v, copy_at, (uint64_t)m->table_entries * m->format->entry_bytes, e) != 0))
        return err_add(e, "the copy of grain table %" PRIu64, table);
    for (uint64_t at = 0; at < entries;) {
        struct batch b;

        if (read_table(m, table, table_at, at, (size_t)min_u64(BATCH, entries - at), &b, e) != 0 ||
            visit_entries(m, first + at, &b, v, e) != 0)
            return -1;
        at += b.count;
    }
    return 0;
}

int grain_map_visit(struct extent_file *x, struct visitor *v, struct err *e)
{
    struct grain_map *m = (struct grain_map *)x;
    uint64_t directory_bytes = m->table_count * m->format->directory_entry_bytes;

    if (v->range(v, 0, m->head_bytes, e) != 0 ||
        v->range(v, m->directory_at, directory_bytes, e) != 0 ||
        (m->redundant_at != 0 && v->range(v, m->redundant_at, directory_bytes, e) != 0))
        return err_add(e, "the grain directory");
    for (uint64_t table = 0; table < m->table_count;) {
        struct batch b;

        if (read_directory(m, table, BATCH, &b, e) != 0)
            return -1;
        for (size_t i = 0; i < b.count; i++) {
            uint64_t table_at, copy_at;
            const char *why = m->format->table_of(m, b.entries[i], &table_at);

            if (why != NULL)
                return bad_table(table + i, b.entries[i], why, e);
            if (table_at == 0 && m->redundant_at != 0 &&
                redundant_table(m, table + i, false, &copy_at, e) != 0)
                return -1;
            if (table_at != 0 && visit_table(m, table + i, table_at, v, e) != 0)
                return -1;
        }
        table += b.count;
    }
    return 0;
}
