/*
 * Reading a local disk image into a store's sink, as a source end on a host would feed it: holes
 * are not read, unchanged blocks are told as such, changed ones come packed.  Reading, digesting
 * and packing run in several threads; the sink gets its blocks in order from the caller's.
 */
#ifndef RECEIVER_JOB_IMAGE_READ_H
#define RECEIVER_JOB_IMAGE_READ_H

#include <stdint.h>

#include "protocol/block/digest.h"

struct err;
struct sink;
struct source;

struct image_read {
    /* given */
    struct source *source; /* borrowed */
    struct sink *sink;     /* borrowed; as large as the source */
    uint8_t compress;      /* COMPRESS_AUTO, 0 for none, or a level */
    /* Between pieces; -1 ends it.  May be NULL. */
    int (*watch)(void *context, const struct image_read *d, struct err *e);
    void *context;
    /* found */
    uint64_t done_bytes;      /* position */
    uint64_t allocated_bytes; /* not known to be holes */
    uint64_t read_bytes;
    uint64_t same_bytes; /* read and found equal */
    /* What the sink was given of changed blocks: packed, or plain where it knew the block. */
    uint64_t sent_bytes;
    struct digest root;
};

/*
 * Read it all, up to the sink's `end`.  0, or -1: what the source and the sink say, ERR_SYSTEM, and
 * what watch says.
 */
int image_read(struct image_read *d, struct err *e);

#endif
