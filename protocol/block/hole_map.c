#include "protocol/block/hole_map.h"

#include <inttypes.h>
#include <stdlib.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"

int hole_map_add(struct hole_map *m, uint64_t offset_bytes, uint64_t length_bytes, struct err *e)
{
    uint64_t end, last_end = 0;

    if (m->count > 0)
        last_end = m->ranges[m->count - 1].offset_bytes + m->ranges[m->count - 1].length_bytes;
    if (length_bytes == 0 || offset_bytes < last_end ||
        !checked_add(offset_bytes, length_bytes, &end))
        return err_set(e, ERR_CORRUPT, "the map of holes is out of order at byte %" PRIu64,
                       offset_bytes);
    if (m->count > 0 && offset_bytes == last_end) {
        m->ranges[m->count - 1].length_bytes += length_bytes;
        m->zero_bytes += length_bytes;
        return 0;
    }
    if (m->count == HOLE_MAP_RANGES_MAX)
        return err_set(e, ERR_LIMIT, "the map of holes has more than %d ranges",
                       HOLE_MAP_RANGES_MAX);
    if (m->count == m->room) {
        size_t room = m->room > 0 ? m->room * 2 : 64;
        struct hole_range *ranges = realloc(m->ranges, room * sizeof *ranges);

        if (ranges == NULL)
            return err_sys(e, "getting memory for a map of holes");
        m->ranges = ranges;
        m->room = room;
    }
    m->ranges[m->count++] = (struct hole_range){ offset_bytes, length_bytes };
    m->zero_bytes += length_bytes;
    return 0;
}

void hole_map_free(struct hole_map *m)
{
    free(m->ranges);
    *m = (struct hole_map){ 0 };
}

struct hole_source {
    struct source source;
    struct source *base;
    struct hole_map map;
};

static int hole_extent_at(struct source *s, uint64_t offset_bytes, struct extent *out,
                          struct err *e)
{
    struct hole_source *h = (struct hole_source *)s;
    size_t low = 0, high = h->map.count;

    (void)e;
    /* The first range that ends behind offset. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct hole_range *r = &h->map.ranges[middle];

        if (r->offset_bytes + r->length_bytes <= offset_bytes)
            low = middle + 1;
        else
            high = middle;
    }
    *out = (struct extent){ offset_bytes, s->capacity_bytes - offset_bytes, EXTENT_DATA };
    if (low == h->map.count)
        return 0;
    if (h->map.ranges[low].offset_bytes > offset_bytes) {
        out->length_bytes = h->map.ranges[low].offset_bytes - offset_bytes;
        return 0;
    }
    out->kind = EXTENT_ZERO;
    out->length_bytes =
        h->map.ranges[low].offset_bytes + h->map.ranges[low].length_bytes - offset_bytes;
    return 0;
}

static int hole_read(struct source *s, uint64_t offset_bytes, void *out, size_t count,
                     struct err *e)
{
    return source_read(((struct hole_source *)s)->base, offset_bytes, out, count, e);
}

static void hole_close(struct source *s)
{
    struct hole_source *h = (struct hole_source *)s;

    source_close(h->base);
    hole_map_free(&h->map);
    free(h);
}

static const struct source_ops hole_ops = { hole_extent_at, hole_read, hole_close };

int hole_source_new(struct source **out, struct source *base, struct hole_map *m, struct err *e)
{
    struct hole_source *h;

    if (m->count > 0 &&
        m->ranges[m->count - 1].offset_bytes + m->ranges[m->count - 1].length_bytes >
            base->capacity_bytes)
        return err_set(e, ERR_CORRUPT, "the map of holes goes past the end of the disk");
    h = calloc(1, sizeof *h);
    if (h == NULL)
        return err_sys(e, "getting memory for a disk");
    h->source = *base;
    h->source.ops = &hole_ops;
    h->source.allocated_bytes = base->capacity_bytes - m->zero_bytes;
    h->source.flags |= SOURCE_HOLES_CLAIMED;
    h->base = base;
    h->map = *m;
    *m = (struct hole_map){ 0 };
    *out = &h->source;
    return 0;
}
