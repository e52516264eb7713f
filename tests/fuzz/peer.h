/*
 * The other end of a hub's connections, in the same thread: it holds the right keys and sends what
 * the input says.  Both stream targets are built on it.
 */
#ifndef TESTS_FUZZ_PEER_H
#define TESTS_FUZZ_PEER_H

#include <stdbool.h>

#include "protocol/stream/hub.h"
#include "protocol/wire/record.h"

struct peer {
    struct hub *hub;
    uint32_t connection;
    int fd; /* ours; the hub owns the other end */
    struct record_key send, receive;
    bool over;   /* the hub gave up */
    uint8_t *in; /* bytes that have not made a whole record yet */
    size_t in_bytes;
    /* Called for each message of the hub; it must be one that decodes. */
    void (*hear)(void *context, const struct message_header *h, const uint8_t *body, size_t bytes);
    void *context;
};

/* Add a connection to the hub and take its hello. */
void peer_start(struct peer *p, struct hub *hub, uint32_t connection);
void peer_end(struct peer *p);

/* Seal a payload and send it; what the socket does not take is dropped with the connection. */
void peer_send(struct peer *p, const uint8_t *payload, size_t bytes);
void peer_hello(struct peer *p);

/* peer_say_<message>(p, stream, &m) */
#define MESSAGE(name, number, version, way, tail_max)                                              \
    static inline void peer_say_##name(struct peer *p, uint32_t stream,                            \
                                       const struct msg_##name *m)                                 \
    {                                                                                              \
        static uint8_t payload[MSG_FIXED_##name + (tail_max)];                                     \
        struct push out = { .at = payload, .left = sizeof payload };                               \
                                                                                                   \
        msg_##name##_encode(m, stream, &out);                                                      \
        if (!out.full)                                                                             \
            peer_send(p, payload, sizeof payload - out.left);                                      \
    }
#define FIELD(type, name)
#define ARRAY(name, count)
#define END(name)
#include "protocol/wire/messages.def"
#undef MESSAGE
#undef FIELD
#undef ARRAY
#undef END

/* Turns of the hub's loop, and reading of what it says. */
void peer_turn(struct peer *p, unsigned turns);

#endif
