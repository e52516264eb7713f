/*
 * One connection of a session after its handshake: sealed records, one message each, both ways over
 * a pair of non-blocking descriptors (a socket twice, or the two pipes of an SSH channel).
 *
 * Sending may be done by any thread and never blocks: messages are sealed into a queue, and the
 * loop thread writes it out.  Producers of bulk ask link_room first; control messages always fit,
 * up to a hard ceiling at which the link is given up.  Receiving belongs to the loop thread alone.
 */
#ifndef PROTOCOL_STREAM_LINK_H
#define PROTOCOL_STREAM_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/wire/handshake.h"
#include "protocol/wire/messages.h"

struct err;
struct link;

enum {
    LINK_QUEUE_MARK = 2 << 20,    /* no room for bulk above it */
    LINK_QUEUE_CEILING = 8 << 20, /* ERR_LIMIT above it */
};

struct link_config {
    int in_fd, out_fd; /* owned by the link from then on; they may be equal */
    const struct handshake_keys *keys;
    const struct aead *aead;
    size_t payload_max;          /* longest message accepted; may grow later */
    void (*wake)(void *context); /* called when there is something to write again */
    void *context;
};

/* 0, or -1 (ERR_SYSTEM); then the descriptors stay the caller's. */
int link_new(struct link **out, const struct link_config *config, struct err *e);
void link_free(struct link *l); /* NULL is allowed */

uint32_t link_connection(const struct link *l);

/* Accept messages up to payload_max bytes.  0, or -1 with ERR_SYSTEM. */
int link_accept_up_to(struct link *l, size_t payload_max, struct err *e);

/* Room for bulk: the queue is below its mark. */
bool link_room(struct link *l);

/*
 * True once after link_room has said no and half the room is free again: whoever was told no must
 * then be woken, and has something to do.  It is the link that remembers, since the queue fills and
 * empties between two looks.
 */
bool link_room_came(struct link *l);
size_t link_queued(struct link *l);

/*
 * Lay out a message of payload_bytes in the queue and return where its payload goes; every
 * successful link_reserve is followed by link_commit from the same thread.  NULL: ERR_LIMIT,
 * ERR_NETWORK (dead).
 */
uint8_t *link_reserve(struct link *l, size_t payload_bytes, struct err *e);
int link_commit(struct link *l, struct err *e);

/*
 * Between the two the loop is woken for a good deal of bulk only, not for each message: for whoever
 * sends many in a row and does nothing else meanwhile.  link_let_go wakes it for the rest.
 */
void link_hold(struct link *l);
void link_let_go(struct link *l);

/* link_send_<message>(l, stream, &message, e): 0, or -1 as above. */
#define MESSAGE(name, number, version, way, tail_max)                                              \
    static inline int link_send_##name(struct link *l, uint32_t stream,                            \
                                       const struct msg_##name *m, struct err *e)                  \
    {                                                                                              \
        size_t payload_bytes = MSG_FIXED_##name + m->tail_bytes;                                   \
        struct push p = { .left = payload_bytes };                                                 \
                                                                                                   \
        p.at = link_reserve(l, payload_bytes, e);                                                  \
        if (p.at == NULL)                                                                          \
            return -1;                                                                             \
        msg_##name##_encode(m, stream, &p);                                                        \
        return link_commit(l, e);                                                                  \
    }
#define FIELD(type, name)
#define ARRAY(name, count)
#define END(name)
#include "protocol/wire/messages.def"

/* --- the loop thread --- */

int link_in_fd(const struct link *l);
int link_out_fd(const struct link *l);

/* Close the descriptors; nothing is sent or received any more, reserving fails.  link_free still
 * follows. */
void link_kill(struct link *l);

/* Write what the peer takes.  0, or -1 with ERR_NETWORK. */
int link_flush(struct link *l, struct err *e);

/* Read what has arrived.  0, or -1: ERR_NETWORK (ended or failed). */
int link_receive(struct link *l, struct err *e);

/*
 * The next whole message that has arrived; body is borrowed until the next call of link_receive or
 * link_next.  1, 0 when there is none, or -1: ERR_CORRUPT, ERR_PEER, ERR_LIMIT.
 */
int link_next(struct link *l, struct message_header *header, const uint8_t **body,
              size_t *body_bytes, struct err *e);

/*
 * A record was begun so long ago that it will not end: patience_ms, and its bytes at 16 KiB a
 * second.  Its length stands unproved in front of it, and what comes meanwhile, signs of life
 * included, would disappear in it.
 */
bool link_is_late(const struct link *l, uint64_t now_ms, uint64_t patience_ms);

/* Times of io_clock_ms at which bytes came last and were queued last. */
uint64_t link_heard_ms(const struct link *l);
uint64_t link_spoke_ms(struct link *l);

#endif
