/*
 * A hub from inside: what hub.c (links and the loop) and stream.c (streams and their walks) share.
 */
#ifndef PROTOCOL_STREAM_HUB_PRIVATE_H
#define PROTOCOL_STREAM_HUB_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "protocol/base/err.h"
#include "protocol/stream/hub.h"

struct link_slot {
    struct link *link; /* NULL: the slot is free */
    bool up;           /* the other end's hello was seen */
    unsigned version;  /* that both ends speak; since it is up */
    bool closing;      /* ends when its queue is written */
    bool dead;         /* kept only while streams may still hold it */
    unsigned streams;
    size_t payload_max; /* what its streams may be sent */
};

struct stream {
    struct hub *hub;
    struct link_slot *slot;
    const struct stream_ops *ops;
    void *walk;
    uint32_t id;
    bool threaded, ending;
    bool announced; /* the source may be in a long read */
    enum stream_state state;
    struct err why;
    struct stream_message *first, *last;
    size_t inbox_max;
    uint64_t events;  /* counts what a waiting walk should look at */
    uint64_t seen;    /* events at its last step */
    uint64_t wake_ms; /* 0: none */
    pthread_t thread;
    pthread_cond_t look;  /* the walk's thread: there are events */
    pthread_cond_t ended; /* everybody else: the stream does not run any more */

    struct stream_message *taken; /* the walk's own: out of the inbox, not received yet */
    /* Changed with and without the lock. */
    _Atomic size_t inbox_bytes;   /* `taken` included */
    _Atomic uint64_t quiet_since; /* ms: when the last message was received */
};

struct hub {
    struct hub_config config;
    struct pool *pool;
    int wake_fd[2];
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t links_changed;
    struct link_slot links[HUB_LINKS_MAX];
    struct stream *streams[HUB_STREAMS_MAX];
    uint32_t last_stream; /* highest id so far: older unknown ones have ended */
    bool ending;
    bool over;
    struct err why_over;
};

/* The live link of a connection, or NULL.  Under the lock. */
struct link_slot *hub_slot_of(struct hub *h, uint32_t connection);

/* --- stream.c, for the loop --- */

/* Something happened that the walk should look at.  Under the lock. */
void hub_poke_locked(struct stream *st);

/*
 * Put a message into the inbox of its stream; hub_poke_receivers wakes the walks when all that has
 * arrived is there.  0, or -1 with ERR_PEER, ERR_SYSTEM.
 */
int hub_deliver(struct hub *h, struct link_slot *slot, const struct message_header *header,
                const uint8_t *body, size_t body_bytes, struct err *e);

void hub_poke_receivers(struct hub *h, const struct link_slot *slot);

/* A stream's source end may be in a long read.  Under the lock. */
bool hub_announced(struct hub *h);

/* A sink that waits for its source longer than the stall time-out gives up. */
void hub_tend_streams(struct hub *h, uint64_t now);

/* Without threads: a step for each walk that has something to look at. */
void hub_step_inline(struct hub *h);

#endif
