/*
 * A source walk from inside: what source_walk.c (its course, plan and reading) and source_emit.c
 * (what it says of the disk) share.
 */
#ifndef PROTOCOL_STREAM_SOURCE_WALK_PRIVATE_H
#define PROTOCOL_STREAM_SOURCE_WALK_PRIVATE_H

#include "protocol/block/source.h"
#include "protocol/block/tree.h"
#include "protocol/stream/ask_window.h"
#include "protocol/stream/piece.h"
#include "protocol/stream/pool.h"
#include "protocol/stream/source_walk.h"
#include "protocol/stream/told.h"

enum {
    PLAN_RUNS = 4096,          /* of one plan message */
    ANNOUNCE_BYTES = 64 << 20, /* reads announced at once, and the longest run without a word */
    /* With ASKING_SLOW: a link slower than this (100 Mbit/s) over so many bytes, and it asks. */
    SLOW_RATE_BYTES = 12500000,
    SLOW_OVER_BYTES = 2 << 20,
    OPS_MAX = 2 * PIECES_MAX + 2,
};
/* Planning may mean reading tables, so it keeps near the walk, whatever the size of the disk. */
#define PLAN_AHEAD_BYTES (UINT64_C(16) << 30)

/* A run of the plan that was sent and is not walked yet. */
struct plan_run {
    uint64_t offset_bytes, length_bytes;
    enum plan_kind kind;
    bool check; /* one block, read to see whether a hint lies; told apart until it is planned */
};

/* What is to be emitted, in the order of the disk: a piece that is being read, or a run without
 * data. */
struct op {
    struct piece *piece; /* of PLAN_READ */
    enum plan_kind kind;
    uint64_t offset_bytes, length_bytes;
};

struct source_walk {
    struct source *source;
    struct stream *stream;
    struct pool *pool;
    struct tree *tree;
    struct digest_secret secret;
    uint64_t capacity;
    uint32_t block;
    bool ignore_holes, ignore_hints;
    bool started, begun, ended;

    uint64_t may_send; /* message bytes */

    /* rate */
    uint64_t rate, next_send_us;

    /* asking before sending */
    uint8_t ask_when; /* enum asking_when; ASKING_NEVER before `asking` came */
    bool ask_told, asks;
    uint8_t ask_key[ASK_KEY_BYTES];
    bool lacking; /* the sink did not have the last block that was asked for */
    size_t window_bytes;
    struct ask_window *window; /* NULL: never asked in this opening */
    uint64_t measured_since_ms,
        measured_bytes;                    /* how fast the link is; 0: from the next block on */
    uint64_t blocked_since_ms, blocked_ms; /* how long blocks waited for it meanwhile */

    /* sampling of claimed holes */
    struct sample *sample;

    /* plan */
    uint64_t plan_at; /* planned and told up to here */
    size_t plan_room, plan_first, plan_count;
    struct plan_run plan[2 * PLAN_RUNS];

    /* blocks that are read only to check the hint, ascending */
    uint64_t checks[EXTENT_CHECKS_MAX];
    size_t check_first, check_count;

    /* walk */
    uint64_t walk_at;      /* handed to ops up to here */
    uint64_t announced_at; /* reads announced up to here */
    struct told told;
    struct op ops[OPS_MAX];
    size_t op_first, op_count;
    struct piece_set *pieces;

    /* emission */
    uint64_t emit_at;
    struct msg_run pending; /* length 0: none */
    struct msg_end totals;
};

/* --- source_emit.c --- */

/* From now on blocks are asked for.  0, or -1 (ERR_SYSTEM). */
int source_asking_begin(struct source_walk *w, struct err *e);

/* Say what can be said of the ops, in order.  Sets *progress when something was.  0, or -1. */
int source_emit(struct source_walk *w, bool *progress, struct err *e);

/* Say that all was said. */
int source_finish(struct source_walk *w, struct err *e);

#endif
