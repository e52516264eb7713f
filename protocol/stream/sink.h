/*
 * Where the sink end of a disk stream puts a disk: a mirror, a repository, a disk on a host, memory
 * in tests.  The sink walk (sink_walk.h) speaks the protocol, decompresses, digests and checks;
 * what comes through here is verified plain data, in ascending order of offsets, each position
 * once.
 *
 * Threads: all calls for one sink come from one thread at a time.
 */
#ifndef PROTOCOL_STREAM_SINK_H
#define PROTOCOL_STREAM_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/ask_id.h"
#include "protocol/block/digest.h"

struct err;
struct sink;

/* How the bytes of a block came over the wire; numbers are the protocol's. */
enum block_encoding { ENCODING_RAW = 0, ENCODING_ZSTD = 1 };

/* What a store that tells blocks by their content made of one ahead of its `data`. */
struct sink_identity {
    uint8_t id[32]; /* the store's own */
    bool known;     /* it has these bytes: how they come does not matter any more */
};

struct sink_block {
    uint64_t offset_bytes; /* a multiple of the block size */
    const uint8_t *plain;  /* the block's bytes, not all zeros */
    size_t plain_bytes;    /* the block size, less at the end of the disk */
    struct digest digest;  /* of plain, computed by this end */
    const uint8_t *packed; /* the same block as it came */
    size_t packed_bytes;
    enum block_encoding encoding;
    const struct sink_identity *identity; /* from `identify`; NULL: it was not asked */
};

enum held_kind {
    HELD_UNKNOWN = 0, /* nothing is known: the source sends what is there */
    HELD_ZERO = 1,    /* known to be zeros */
    HELD_DIGESTS = 2  /* known: their digests are given */
};

struct held {
    uint64_t offset_bytes;
    uint64_t length_bytes; /* whole blocks, except at the end of the disk */
    enum held_kind kind;
};

struct sink_ops {
    /*
     * What the store holds from offset_bytes (a multiple of the block size) on, before anything
     * that this run brings: the longest run of one kind that is cheap to tell, at most limit_bytes.
     * For HELD_DIGESTS at most room digests are written to digests, one for each block of *out. 0,
     * or -1 (ERR_CORRUPT, ERR_SYSTEM).
     */
    int (*held)(struct sink *s, uint64_t offset_bytes, uint64_t limit_bytes, struct digest *digests,
                size_t room, struct held *out, struct err *e);
    /* The source has what was held here. */
    int (*same)(struct sink *s, uint64_t offset_bytes, uint64_t length_bytes, struct err *e);
    /* The source has zeros here, whatever was held. */
    int (*zero)(struct sink *s, uint64_t offset_bytes, uint64_t length_bytes, struct err *e);
    /* The source has this block here; borrowed until the call returns. */
    int (*data)(struct sink *s, const struct sink_block *block, struct err *e);
    /*
     * The whole disk has come and both ends agree on root.  Nothing is published yet: that happens
     * when all disks of the VM are here, outside this interface.
     */
    int (*end)(struct sink *s, const struct digest *root, struct err *e);
    void (*close)(
        struct sink *s); /* frees s too; what is staged and durable stays for the next run */
};

/*
 * Work that may be done ahead: from any thread, also beside all other calls but `close`. 0, or -1
 * (ERR_SYSTEM, ERR_CORRUPT).
 */
struct sink_ahead {
    int (*identify)(struct sink *s, const uint8_t *plain, size_t plain_bytes,
                    struct sink_identity *out, struct err *e);
};

/* A block that the source has and asks for before it sends it. */
struct sink_question {
    uint64_t offset_bytes;
    size_t plain_bytes;
    struct digest digest;  /* as the source says */
    const uint8_t *ask_id; /* ASK_ID_BYTES, under the sink's ask_key */
};

enum { SINK_TOKEN_BYTES = 32 };
struct sink_answer {
    bool known;                      /* the store has these very bytes, and their digest is right */
    bool pointless;                  /* nothing will be known: the source need not ask any more */
    uint8_t token[SINK_TOKEN_BYTES]; /* the sink's own word for a known block */
};

/* For stores that have blocks by their content.  Questions run ahead of what comes. */
struct sink_asks {
    /* 0, or -1 for a failure of the store itself; a block that cannot be read is not known. */
    int (*ask)(struct sink *s, const struct sink_question *q, struct sink_answer *out,
               struct err *e);
    /* The source has a block here that was answered with this token; beside `data` in its order. */
    int (*known)(struct sink *s, uint64_t offset_bytes, const struct digest *digest,
                 const uint8_t token[SINK_TOKEN_BYTES], struct err *e);
};

struct sink {
    const struct sink_ops *ops;
    const struct sink_ahead *ahead; /* NULL: there is none */
    uint64_t capacity_bytes;
    uint32_t block_bytes;
    struct digest_secret secret;
    /* What the source is to ask for. */
    const struct sink_asks *asks; /* NULL: it is never told to ask */
    uint8_t ask_when;             /* enum asking_when */
    uint8_t ask_key[ASK_KEY_BYTES];
};

#endif
