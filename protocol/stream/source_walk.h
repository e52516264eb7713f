/*
 * The source end of a disk stream: one pass over a disk, no round trips.
 *
 * It sends its plan, takes the digests that the sink holds ahead of the reading, reads each planned
 * block once, tests it for zeros, digests it, compares it with the digest of the same position, and
 * sends it only when it differs.  Reading and packing run as jobs of the session's pool, a few
 * pieces of the disk at a time; without threads they run inside the step.
 */
#ifndef PROTOCOL_STREAM_SOURCE_WALK_H
#define PROTOCOL_STREAM_SOURCE_WALK_H

#include "protocol/stream/hub.h"

struct source;
struct source_walk;

struct source_walk_config {
    struct source *source;              /* borrowed; must outlive the walk */
    const struct msg_stream_open *open; /* what the sink asked for; checked here */
    struct pool *pool;
    size_t memory_bytes; /* for the pieces in flight; at least one block twice is taken */
    size_t window_bytes; /* for blocks that are asked for; at least one block, and only then */
};

/* What the sink may have under way to the source: digests, tree nodes, credits. */
enum { SOURCE_WALK_INBOX_BYTES = 512 << 10 };

extern const struct stream_ops source_walk_ops;

/* 0, or -1: ERR_PEER (a request that makes no sense), ERR_LIMIT, ERR_SYSTEM. */
int source_walk_new(struct source_walk **out, const struct source_walk_config *config,
                    struct err *e);

/* After stream_end; waits for reads under way.  NULL is allowed. */
void source_walk_free(struct source_walk *w);

#endif
