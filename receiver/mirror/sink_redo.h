/* Inside of the redo sink: what its two files share. */
#ifndef RECEIVER_MIRROR_SINK_REDO_H
#define RECEIVER_MIRROR_SINK_REDO_H

#include <stdint.h>

#include "protocol/stream/sink.h"
#include "receiver/mirror/run.h"

/* The files of one disk's redo. */
struct redo_names {
    char index[LAYOUT_NAME_ROOM], blocks[LAYOUT_NAME_ROOM], staged[LAYOUT_NAME_ROOM];
    char checkpoint[LAYOUT_NAME_ROOM];
};

/* A window of the base's digests. */
struct redo_window {
    uint64_t first;
    size_t count;
    struct digest d[DIGEST_WINDOW];
};

struct redo_sink {
    struct sink base;
    struct run_disk *d;
    struct redo_names names;
    int index_fd, blocks_fd, digests_fd;
    uint64_t blocks, old_blocks;
    struct patch_writer writer;
    struct patch_cursor staged;      /* what is not carried or dropped yet */
    struct patch_cursor staged_held; /* for held, which runs ahead */
    struct redo_window window;
    uint64_t position;
    uint64_t since_bytes, since_ms; /* blocks_bytes and clock of the last checkpoint */
};

/* The head that the entries of this redo carry. */
struct patch_head redo_head(const struct redo_sink *r);

/*
 * Take over what an unfinished run made durable: afterwards all of it that is sound stands in
 * `staged`, and *blocks_bytes of the blocks count.  0, or -1 when there is nothing usable.
 */
int redo_take_over(struct redo_sink *r, uint64_t *blocks_bytes, struct err *e);

#endif
