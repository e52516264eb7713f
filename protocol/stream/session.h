/*
 * A session: the links between one agent and one receiver, the streams that run over them, and the
 * loop that serves both.  The same code runs at both ends.
 *
 * The loop (one thread; in a program without threads, the only one) polls the links, seals nothing,
 * reads no disk, sends heartbeats, and notices silence.  It never stops reading because it cannot
 * write: what arrives for a stream goes to the stream's inbox, which the credits granted bound.
 *
 * A stream has a *walk*: a state machine that reads or writes a disk.  With threads each walk runs in
 * a thread of its own; without, the loop runs its steps between two polls.  The walk is the same.
 */
#ifndef PROTOCOL_STREAM_SESSION_H
#define PROTOCOL_STREAM_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/stream/link.h"

struct err;
struct pool;
struct session;
struct stream;

enum {
    SESSION_LINKS_MAX = 64,
    SESSION_STREAMS_MAX = 64,
    SESSION_HEARTBEAT_MS = 10000,
    SESSION_SILENCE_MS = 30000,
    SESSION_STALL_MS = 600000,
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

/* What the owner of a session hears.  All calls come from the loop thread and must not block. */
struct session_handler {
    /* A message of stream 0 that the session does not know itself.  -1 ends the session. */
    int (*control)(void *context, struct session *s, const struct message_header *header,
                   const uint8_t *body, size_t body_bytes, struct err *e);
    /* A link has proved its keys. */
    void (*link_up)(void *context, struct session *s, uint32_t connection,
                    const struct msg_hello *hello);
    /* A link is gone; streams on it have failed with this error.  May be NULL. */
    void (*link_down)(void *context, struct session *s, uint32_t connection, const struct err *why);
};

struct session_config {
    const struct session_handler *handler;
    void *context;
    unsigned workers; /* of the pool that walks may use; 0: no threads at all, not even for walks */
    uint64_t heartbeat_ms, silence_ms, stall_ms; /* 0: the defaults above */
    const char *version; /* text for hello */
};

/* 0, or -1 (ERR_SYSTEM).  With workers > 0 but no thread to be had, it falls back to 0. */
int session_new(struct session **out, const struct session_config *config, struct err *e);

/* End all streams and links, join all threads, free.  NULL is allowed. */
void session_free(struct session *s);

unsigned session_workers(const struct session *s);
struct pool *session_pool(struct session *s);

/*
 * Take over a connection after its handshake and send our hello.  Any thread.
 * 0, or -1 (ERR_LIMIT, ERR_SYSTEM); then the descriptors stay the caller's.
 */
int session_link_add(struct session *s, int in_fd, int out_fd, const struct handshake_keys *keys,
                     const struct aead *aead, struct err *e);

/* Close a link once its queue is written.  Any thread; unknown numbers are ignored. */
void session_link_close(struct session *s, uint32_t connection);

/* Wait up to timeout_ms until a link is up.  Not from the loop thread.  0, or -1: ERR_NETWORK. */
int session_link_wait(struct session *s, uint32_t connection, uint64_t timeout_ms, struct err *e);

/* The link of a connection that is up, or NULL.  It lives until link_down is told or session_free. */
struct link *session_link(struct session *s, uint32_t connection);

/*
 * One turn of the loop: at most timeout_ms, less when there is work.  0, or -1 when the session is
 * over: the control link is dead (ERR_NETWORK, ERR_PEER…) or session_end was called (ERR_STOPPED).
 */
int session_turn(struct session *s, uint64_t timeout_ms, struct err *e);

/* Make session_turn return -1 soon, with ERR_STOPPED.  Any thread. */
void session_end(struct session *s);

/* End the wait of session_turn.  Any thread, and as a link's wake function. */
void session_wake(void *session);

/* --- streams --- */

/*
 * Start a walk as stream `id` over a link that is up.  The walk is the caller's and must live until
 * stream_end.  The inbox takes inbox_bytes_max of messages, none longer than payload_bytes_max (or
 * than control messages are).  0, or -1 (ERR_LIMIT, ERR_NETWORK, ERR_SYSTEM).
 */
int stream_start(struct session *s, uint32_t id, uint32_t connection, const struct stream_ops *ops,
                 void *walk, size_t inbox_bytes_max, size_t payload_bytes_max, struct stream **out,
                 struct err *e);

/* How a stream stands. */
enum stream_state { STREAM_RUNNING, STREAM_DONE, STREAM_FAILED };
enum stream_state stream_state(struct stream *st, struct err *why);

/* Wait until it no longer runs, at most timeout_ms.  Not from the loop thread. */
enum stream_state stream_wait(struct stream *st, uint64_t timeout_ms, struct err *why);

/* Stop the walk (the step under way ends first), forget the stream. */
void stream_end(struct stream *st);

/* Find streams that have ended, for an owner that serves them from the loop thread; NULL if none. */
struct stream *session_ended_stream(struct session *s);
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

/* The link of the stream, to send on.  A dead one refuses, and the step fails. */
struct link *stream_link(struct stream *st);

/* Ask for a step at this time of io_clock_ms, whatever else happens. */
void stream_wake_at(struct stream *st, uint64_t clock_ms);

/* Something happened that a waiting walk should look at.  Any thread. */
void stream_poke(struct stream *st);

#endif
