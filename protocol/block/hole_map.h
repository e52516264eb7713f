/*
 * Ranges of a disk that are claimed to be zeros (a host's map), and a source that knows them.
 * Claims are only hints: the source is marked SOURCE_HOLES_CLAIMED, so that the walk samples them.
 */
#ifndef PROTOCOL_BLOCK_HOLE_MAP_H
#define PROTOCOL_BLOCK_HOLE_MAP_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct source;

enum { HOLE_MAP_RANGES_MAX = 1 << 20 };

struct hole_range {
    uint64_t offset_bytes, length_bytes;
};

/* Ascending, none touching or overlapping the next.  Empty value: { 0 }. */
struct hole_map {
    struct hole_range *ranges;
    size_t count, room;
    uint64_t zero_bytes;
};

/*
 * Add a range behind those that are there; one that touches the last makes it longer.
 * 0, or -1: ERR_CORRUPT (empty, or not behind the last), ERR_LIMIT (too many), ERR_SYSTEM.
 */
int hole_map_add(struct hole_map *m, uint64_t offset_bytes, uint64_t length_bytes, struct err *e);
void hole_map_free(struct hole_map *m);

/*
 * A source that reads base and knows the holes; owns both from then on (*m becomes empty).
 * 0, or -1: ERR_CORRUPT (the map goes past the end of the disk), ERR_SYSTEM; then nothing was
 * taken.
 */
int hole_source_new(struct source **out, struct source *base, struct hole_map *m, struct err *e);

#endif
