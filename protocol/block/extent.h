/* A run of bytes of a disk, all of one kind. */
#ifndef PROTOCOL_BLOCK_EXTENT_H
#define PROTOCOL_BLOCK_EXTENT_H

#include <stdint.h>

enum extent_kind {
    EXTENT_DATA = 0,   /* may hold anything: read it */
    EXTENT_ZERO = 1,   /* reads as zeros, known without reading */
    EXTENT_PARENT = 2, /* not in this link of a chain; never seen from a whole disk */
    EXTENT_KEPT = 3,   /* as it was when the sink's store last saw it: a change hint says so */
    EXTENT_CHECK = 4   /* said to be kept as well, but to be read, to see whether the hint lies */
};

enum { EXTENT_CHECKS_MAX = 64 }; /* blocks that a source gives as EXTENT_CHECK */

struct extent {
    uint64_t offset_bytes;
    uint64_t length_bytes;
    enum extent_kind kind;
};

#endif
