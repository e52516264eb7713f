/*
 * Bytes at an offset: what the source walk reads, and what every disk format plugs into.  A local
 * file, a VMDK link, a whole chain, `dd` over a channel, memory in tests.
 *
 * Threads: unless SOURCE_SEQUENTIAL is set, read and extent_at may be called from several threads.
 */
#ifndef PROTOCOL_BLOCK_SOURCE_H
#define PROTOCOL_BLOCK_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "protocol/block/extent.h"

struct err;
struct source;

enum source_flags {
    SOURCE_SEQUENTIAL = 1u << 0,   /* one call at a time, fast only in ascending order */
    SOURCE_HOLES_CLAIMED = 1u << 1 /* zero extents come from a map that reading should sample */
};

struct source_ops {
    /*
     * The longest known extent that starts at offset_bytes, which is below the capacity; it ends at
     * the capacity at the latest.  0, or -1 (ERR_SOURCE, ERR_CORRUPT, ERR_SYSTEM).
     */
    int (*extent_at)(struct source *s, uint64_t offset_bytes, struct extent *out, struct err *e);
    /*
     * Exactly count bytes.  The caller keeps inside the capacity.  Holes read as zeros.
     * 0, or -1 (ERR_SOURCE when the medium fails, ERR_CORRUPT, ERR_NETWORK, ERR_SYSTEM).
     */
    int (*read)(struct source *s, uint64_t offset_bytes, void *out, size_t count, struct err *e);
    void (*close)(struct source *s); /* frees s too */
};

struct source {
    const struct source_ops *ops;
    uint64_t capacity_bytes;
    uint64_t allocated_bytes; /* best knowledge of bytes that are no hole; capacity if unknown */
    unsigned flags;           /* enum source_flags */
};

static inline int source_extent_at(struct source *s, uint64_t offset_bytes, struct extent *out,
                                   struct err *e)
{
    return s->ops->extent_at(s, offset_bytes, out, e);
}

static inline int source_read(struct source *s, uint64_t offset_bytes, void *out, size_t count,
                              struct err *e)
{
    return s->ops->read(s, offset_bytes, out, count, e);
}

static inline void source_close(struct source *s)
{
    if (s != NULL)
        s->ops->close(s);
}

#endif
