/*
 * Pieces: the part of a disk that is in memory at the source end.  A piece is read at once (1 MiB,
 * or one block where blocks are larger) and its blocks are tested, digested, compared and packed as
 * one job of the pool, a few pieces at a time.
 */
#ifndef PROTOCOL_STREAM_PIECE_H
#define PROTOCOL_STREAM_PIECE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/base/err.h"
#include "protocol/block/ask_id.h"
#include "protocol/block/digest.h"
#include "protocol/stream/pool.h"

struct piece_set;
struct source;
struct stream;

enum {
    PIECE_BYTES = 1 << 20,
    PIECE_BLOCKS_MAX = PIECE_BYTES / BLOCK_BYTES_MIN,
    PIECES_MAX = 16,
};

enum piece_kind { PIECE_ZERO, PIECE_SAME, PIECE_DATA };

struct piece_block {
    /* filled before the job starts */
    bool known; /* the sink holds something with this digest, 0 for zeros */
    struct digest held;
    /* filled by the job */
    enum piece_kind kind;
    struct digest digest;
    uint8_t encoding;      /* enum block_encoding */
    const uint8_t *packed; /* inside the piece */
    size_t packed_bytes;
    bool asked; /* it has an asking id */
    uint8_t ask_id[ASK_ID_BYTES];
};

struct piece {
    struct job job;
    struct piece_set *set;
    struct stream *stream; /* poked when the job has ended */
    uint64_t offset_bytes;
    size_t count_bytes;
    unsigned block_count;
    unsigned emitted; /* the owner's count of blocks that are done with */
    struct piece_block blocks[PIECE_BLOCKS_MAX];
    bool asks; /* its blocks get asking ids */
    bool failed;
    struct err why;
    uint8_t *in, *out;
    bool taken, ready; /* guarded by the set */
};

/*
 * compress is that of stream_open.  memory_bytes bounds the buffers; two pieces are taken whatever
 * it says.  0, or -1 (ERR_SYSTEM).
 */
int piece_set_new(struct piece_set **out, struct source *source, struct pool *pool,
                  const struct digest_secret *secret, uint32_t block_bytes, uint8_t compress,
                  size_t memory_bytes, struct err *e);
void piece_set_free(struct piece_set *s); /* settles first; NULL is allowed */

/* Wait for the jobs under way. */
void piece_set_settle(struct piece_set *s);

/* Tell how the sending goes, for COMPRESS_AUTO: whether a finished piece had to wait. */
void piece_set_pressure(struct piece_set *s, bool waited);

/* Make asking ids in the jobs that start from now on, or none with NULL. */
void piece_set_ask(struct piece_set *s, const uint8_t key[ASK_KEY_BYTES]);

/* A free piece for the bytes from offset on, up to end at most; NULL when all are taken. */
struct piece *piece_take(struct piece_set *s, uint64_t offset_bytes, uint64_t end_bytes);
void piece_give(struct piece_set *s, struct piece *p);

/* Start its job (or run it at once, without threads). */
void piece_start(struct piece_set *s, struct piece *p, struct stream *stream);

bool piece_ready(struct piece_set *s, struct piece *p);

#endif
