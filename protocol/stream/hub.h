/*
 * A hub: one end of a session, with its links to the other end, the streams that run over them, and
 * the loop that serves both.  The same code runs at both ends.
 *
 * The loop (one thread; in a program without threads, the only one) polls the links, seals nothing,
 * reads no disk, sends heartbeats, and notices silence.  It never stops reading because it cannot
 * write: what arrives for a stream goes to the stream's inbox, which the credits granted bound.
 *
 * A stream has a *walk*: a state machine that reads or writes a disk.  With threads each walk runs
 * in a thread of its own; without, the loop runs its steps between two polls.  The walk is the
 * same.
 */
#ifndef PROTOCOL_STREAM_HUB_H
#define PROTOCOL_STREAM_HUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/stream/link.h"

struct err;
struct pool;
struct hub;
struct stream;

enum {
    HUB_LINKS_MAX = 64,
    HUB_STREAMS_MAX = 64,
    HUB_HEARTBEAT_MS = 10000,
    HUB_SILENCE_MS = 30000,
    HUB_STALL_MS = 600000,
    STREAM_INBOX_SLACK = 64 << 10, /* for what costs no credit */
};

/* What a walk's step answers. */
enum step {
    STEP_AGAIN,  /* did something: call again */
    STEP_WAIT,   /* nothing to do until an event of the stream, or stream_wake_at */
    STEP_DONE,   /* the stream has come to its good end */
    STEP_FAILED, /* to its bad end: the error says why */
};

struct stream_ops {
    enum step (*step)(void *walk, struct stream *s, struct err *e);
    /* No step runs any more: let go of the stream (jobs under way still poke it).  May be NULL. */
    void (*stop)(void *walk);
};

/* What the owner of a hub hears.  All calls come from the loop thread and must not block. */
struct hub_handler {
    /* A message of stream 0 that the hub does not know itself.  -1 ends the control link. */
    int (*control)(void *context, struct hub *h, const struct message_header *header,
                   const uint8_t *body, size_t body_bytes, struct err *e);
    /* A link has proved its keys. */
    void (*link_up)(void *context, struct hub *h, uint32_t connection,
                    const struct msg_hello *hello);
    /* A link is gone; streams on it have failed with this error.  May be NULL. */
    void (*link_down)(void *context, struct hub *h, uint32_t connection, const struct err *why);
};

struct hub_config {
    const struct hub_handler *handler;
    void *context;
    unsigned workers; /* of the pool that walks may use; 0: no threads at all, not even for walks */
    uint64_t heartbeat_ms, silence_ms, stall_ms; /* 0: the defaults above */
    const char *version;                         /* text for hello */
};

/* 0, or -1 (ERR_SYSTEM).  With workers > 0 but no thread to be had, it falls back to 0. */
int hub_new(struct hub **out, const struct hub_config *config, struct err *e);

/* End all streams and links, join all threads, free.  NULL is allowed. */
void hub_free(struct hub *h);

unsigned hub_workers(const struct hub *h);
struct pool *hub_pool(struct hub *h);

/*
 * Take over a connection after its handshake and send our hello.  Any thread.
 * 0, or -1 (ERR_LIMIT, ERR_SYSTEM); then the descriptors stay the caller's.
 */
int hub_link_add(struct hub *h, int in_fd, int out_fd, const struct handshake_keys *keys,
                 const struct aead *aead, struct err *e);

/* Close a link once its queue is written.  Any thread; unknown numbers are ignored. */
void hub_link_close(struct hub *h, uint32_t connection);

/* Wait up to timeout_ms until a link is up.  Not from the loop thread.  0, or -1: ERR_NETWORK. */
int hub_link_wait(struct hub *h, uint32_t connection, uint64_t timeout_ms, struct err *e);

/* The link of a connection that is up, or NULL.  It lives until link_down is told or hub_free. */
struct link *hub_link(struct hub *h, uint32_t connection);

/*
 * One turn of the loop: at most timeout_ms, less when there is work.  0, or -1 when the session is
 * over: the control link is dead (ERR_NETWORK, ERR_PEER…) or hub_end was called (ERR_STOPPED).
 */
int hub_turn(struct hub *h, uint64_t timeout_ms, struct err *e);

/* True once the control link is dead or hub_end took effect; why, if given, says how.  Any thread.
 */
bool hub_over(struct hub *h, struct err *why);

/* Make hub_turn return -1 soon, with ERR_STOPPED.  Any thread. */
void hub_end(struct hub *h);

/* End the wait of hub_turn.  Any thread, and as a link's wake function. */
void hub_wake(void *hub);

/* --- streams --- */

/*
 * Start a walk as stream `id` over a link that is up.  The walk is the caller's and must live until
 * stream_end.  The inbox takes inbox_bytes_max of messages, none longer than payload_bytes_max (or
 * than control messages are).  0, or -1 (ERR_LIMIT, ERR_NETWORK, ERR_SYSTEM).
 */
int stream_start(struct hub *h, uint32_t id, uint32_t connection, const struct stream_ops *ops,
                 void *walk, size_t inbox_bytes_max, size_t payload_bytes_max, struct stream **out,
                 struct err *e);

/* How a stream stands. */
enum stream_state { STREAM_RUNNING, STREAM_DONE, STREAM_FAILED };
enum stream_state stream_state(struct stream *st, struct err *why);

/* Wait until it no longer runs, at most timeout_ms.  Not from the loop thread. */
enum stream_state stream_wait(struct stream *st, uint64_t timeout_ms, struct err *why);

/* Stop the walk (the step under way ends first), forget the stream. */
void stream_end(struct stream *st);

/* Find streams that have ended, for an owner that serves them from the loop thread; NULL if none.
 */
struct stream *hub_ended_stream(struct hub *h);
void *stream_walk(const struct stream *st);
uint32_t stream_id(const struct stream *st);

/* --- for walks, from their step --- */

/* A message for the stream; free with stream_message_free.  NULL when the inbox is empty. */
struct stream_message {
    struct stream_message *next;
    uint16_t type;
    size_t body_bytes;
    uint8_t body[];
};
struct stream_message *stream_receive(struct stream *st);
void stream_message_free(struct stream_message *m);

/* Add what a `credit` message grants.  0, or -1 with ERR_PEER. */
int stream_credit_take(const struct stream_message *m, uint64_t *may_send, struct err *e);

/* The link of the stream, to send on.  A dead one refuses, and the step fails. */
struct link *stream_link(struct stream *st);

/* The protocol version that both ends of its link speak. */
unsigned stream_version(const struct stream *st);

/* Ask for a step at this time of io_clock_ms, whatever else happens. */
void stream_wake_at(struct stream *st, uint64_t clock_ms);

/* Something happened that a waiting walk should look at.  Any thread. */
void stream_poke(struct stream *st);

#endif
