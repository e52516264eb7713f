/* Compressed grains of a stream in a file: found by its tables, unpacked one at a time. */
#ifndef PROTOCOL_VMDK_PACKED_H
#define PROTOCOL_VMDK_PACKED_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct source;
struct vmdk_codec;

/* The last grain that was unpacked, one for a whole chain: readers take small steps. */
struct packed_slot {
    pthread_mutex_t lock; /* guards all below */
    uint8_t *bytes;       /* owned; NULL at first */
    size_t count;
    uint32_t file_id;
    uint64_t file_bytes; /* of the record */
};

void packed_slot_init(struct packed_slot *s);
void packed_slot_free(struct packed_slot *s);

/* How to unpack a grain. */
struct packed_grain {
    struct source *file;
    uint32_t file_id;
    uint64_t file_bytes; /* where its record is */
    uint64_t sector;     /* the first virtual sector, which the record must name */
    size_t full_bytes;   /* of a grain */
    size_t used_bytes;   /* of it, inside the capacity: less only for the last one */
};

/* Compressed bytes that a grain may have: more than twice its size is refused. */
static inline uint64_t packed_bytes_max(uint64_t grain_bytes)
{
    return 2 * grain_bytes;
}

/*
 * Bytes of the grain from skip on.  0, or -1: ERR_CORRUPT (the record names another grain, leaves
 * the file, or does not unpack to a whole grain), ERR_SYSTEM, or what the file said.
 */
int packed_read(struct packed_slot *slot, const struct vmdk_codec *codec,
                const struct packed_grain *g, size_t skip, void *out, size_t count, struct err *e);

/* Unpack into bytes of full_bytes; a short last grain is filled up with zeros.  As above. */
int packed_inflate(const struct vmdk_codec *codec, const struct packed_grain *g, const void *packed,
                   size_t packed_bytes, uint8_t *bytes, struct err *e);

#endif
