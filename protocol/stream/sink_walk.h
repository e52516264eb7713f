/*
 * The sink end of a disk stream: tells the source what the store holds, checks what comes, and
 * hands verified blocks to a struct sink.  It keeps its place over re-openings: when a connection
 * dies, the same walk goes on in a new stream from the last block it has verified.
 */
#ifndef PROTOCOL_STREAM_SINK_WALK_H
#define PROTOCOL_STREAM_SINK_WALK_H

#include "protocol/stream/hub.h"
#include "protocol/stream/sink.h"

struct sink_walk;

/* Sums over all openings, in bytes of the disk unless said otherwise. */
struct sink_totals {
    uint64_t position_bytes; /* verified so far */
    uint64_t same_bytes, unread_bytes, zero_bytes, data_bytes;
    uint64_t read_bytes, sampled_bytes; /* as the source told at its end */
    uint64_t known_bytes;               /* of data_bytes: had already, and did not come */
    uint64_t sent_bytes;                /* payload bytes of blocks that came, and of questions */
    uint64_t openings;
};

struct sink_walk_config {
    struct sink *sink;   /* borrowed */
    bool full;           /* say nothing of what is held */
    size_t window_bytes; /* credit for data; at least one block and its header is taken */
    /* Called for every warning of the source, from the walk's thread.  May be NULL. */
    void (*warn)(void *context, const struct msg_warning *warning);
    /* Called before a block is stored that took payload_bytes to send, from the walk's thread: a
     * bound on the rate waits here.  0, or -1: the walk ends.  May be NULL. */
    int (*pace)(void *context, size_t payload_bytes, struct err *e);
    void *context;
};

/* 0, or -1 (ERR_LIMIT, ERR_SYSTEM). */
int sink_walk_new(struct sink_walk **out, const struct sink_walk_config *config, struct err *e);
void sink_walk_free(struct sink_walk *w); /* NULL is allowed */

/*
 * Make ready for the next opening, whose first one this may be, while no stream runs it.  Fills
 * what the stream_open message needs: block size, from, credit, secret.
 */
void sink_walk_open(struct sink_walk *w, struct msg_stream_open *open);

/* Start the stream of an opening that sink_walk_open has made ready: stream_start with its limits.
 */
int sink_walk_start(struct sink_walk *w, struct hub *s, uint32_t id, uint32_t connection,
                    struct stream **out, struct err *e);

/* Any thread, any time: for progress. */
void sink_walk_totals(struct sink_walk *w, struct sink_totals *out);

/* The root both ends agreed on; false before the stream is done. */
bool sink_walk_root(const struct sink_walk *w, struct digest *out);

#endif
