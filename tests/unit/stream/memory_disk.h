/* A disk in memory as source, and a store in memory as sink. */
#ifndef TESTS_UNIT_STREAM_MEMORY_DISK_H
#define TESTS_UNIT_STREAM_MEMORY_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/source.h"
#include "protocol/stream/sink.h"

struct memory_source {
    struct source source;
    uint8_t *bytes;
    uint64_t grain;        /* holes are claimed in units of this; 0: none claimed */
    uint64_t lie_at;       /* this grain is claimed to be a hole though it is not; UINT64_MAX: none */
    uint64_t fail_at;      /* reads that touch this byte fail; UINT64_MAX: none */
    uint64_t changed_from, changed_to; /* a hint: all else is as before; both 0: no hint */
    uint64_t check_at;                 /* a block of 16 KiB there is to be checked; 0: none */
    uint64_t check_every;              /* as are those at its multiples; 0: none */
    uint64_t reads, bytes_read;
};

/* The source borrows bytes; closing it frees nothing. */
void memory_source_init(struct memory_source *m, uint8_t *bytes, uint64_t capacity, uint64_t grain);

struct memory_sink {
    struct sink sink;
    uint8_t *bytes;           /* what the store holds */
    struct digest *digests;
    bool known;               /* digests are told */
    uint64_t fail_at;         /* storing this byte fails; UINT64_MAX: none */
    uint64_t same, zero, data; /* bytes of each kind */
    const uint8_t *library;    /* blocks that the store has anyway, and may be asked for */
    size_t library_bytes;
    uint8_t *library_ids;
    bool pointless;            /* it answers that asking is of no use */
    uint64_t known_data, questions; /* bytes, blocks */
    uint64_t position;
    bool ended;
    struct digest root;
};

void memory_sink_init(struct memory_sink *m, uint8_t *bytes, uint64_t capacity, uint32_t block);
/* Make the digests what the bytes say. */
void memory_sink_learn(struct memory_sink *m);
/* Have the source ask for blocks of these bytes (borrowed), when: enum asking_when. */
void memory_sink_ask(struct memory_sink *m, uint8_t when, const uint8_t *library, size_t bytes);
void memory_sink_free(struct memory_sink *m);

#endif
