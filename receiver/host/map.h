/*
 * The extent map that `vmkfstools -t 0` prints.  It is used only if it parses wholly: adjacent,
 * ascending, without a gap, and exactly as long as the disk.  A map is a hint that is sampled,
 * since a wrong one would turn data into zeros.
 */
#ifndef RECEIVER_HOST_MAP_H
#define RECEIVER_HOST_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "protocol/block/extent.h"

struct err;
struct host;

enum { MAP_EXTENTS_MAX = 1 << 20, MAP_BYTES_MAX = 128 << 20 };

struct disk_map {
    struct extent *items; /* EXTENT_DATA and EXTENT_ZERO in turn, merged */
    size_t count;
    uint64_t capacity_bytes;
    uint64_t data_bytes;
};

/* 0, or -1: ERR_FORMAT (not wholly such a map; the text says where), ERR_LIMIT, ERR_SYSTEM. */
int disk_map_read(struct disk_map *out, const char *text, size_t bytes, uint64_t capacity_bytes,
                  struct err *e);
void disk_map_free(struct disk_map *m);

/* Ask the host for the map of a descriptor.  Failures are no reason to stop: read everything then.
 */
int disk_map_fetch(struct host *h, const char *descriptor_path, uint64_t capacity_bytes,
                   struct disk_map *out, struct err *e);

/* The extent from offset_bytes on to the end of its run. */
struct extent disk_map_at(const struct disk_map *m, uint64_t offset_bytes);

#endif
