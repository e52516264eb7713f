/*
 * How the agent is started through SSH: it prints its greeting on standard output, the receiver
 * looks for that behind whatever the host printed before (banners, profile output), and answers on
 * the agent's standard input with one bootstrap, the only place where the session's secret travels.
 * Normative text: PROTOCOL.md.
 */
#ifndef PROTOCOL_WIRE_BOOTSTRAP_H
#define PROTOCOL_WIRE_BOOTSTRAP_H

#include <stddef.h>
#include <stdint.h>

#include "protocol/wire/handshake.h"

struct err;

enum {
    BOOTSTRAP_BYTES = 96,
    GREETING_BYTES = 24,
    GREETING_NOISE_MAX = 64 << 10, /* more than this before the greeting: give up */
};

struct bootstrap {
    struct session_secret secret;
    uint8_t aead_set;          /* what the receiver has */
    uint8_t mode_set;          /* what the user allows */
    uint32_t workers_max;      /* threads for reading and packing; 0: all in one thread */
    uint64_t memory_max_bytes; /* of the agent's buffers, MEMORY_MIN..MEMORY_MAX */
    uint32_t life_max_s;       /* the agent ends after this long, 1.. */
    uint32_t silence_max_ms;   /* and after this long without a word from the receiver, 1000.. */
};

enum {
    BOOTSTRAP_WORKERS_MAX = 64,
    BOOTSTRAP_MEMORY_MIN = 8 << 20,
    BOOTSTRAP_MEMORY_MAX = 1 << 30,
    BOOTSTRAP_LIFE_MAX_S = 30 * 24 * 3600,
    BOOTSTRAP_SILENCE_MIN_MS = 1000,
    BOOTSTRAP_SILENCE_MAX_MS = 24 * 3600 * 1000,
};

void bootstrap_encode(const struct bootstrap *b, uint8_t out[BOOTSTRAP_BYTES]);

/*
 * 0, or -1 with ERR_PEER (no bootstrap, another version, reserved bits) or ERR_LIMIT (a value
 * outside its range).  The caller wipes in and b->secret after use.
 */
int bootstrap_decode(struct bootstrap *b, const uint8_t in[BOOTSTRAP_BYTES], struct err *e);

/* The agent's first bytes on standard output: one line with its version of the protocol. */
void bootstrap_greeting(uint8_t out[GREETING_BYTES]);

/*
 * Look for a greeting in the count bytes that the agent's standard output has given so far.
 * Returns how many bytes it ends after (the protocol starts there) with *version filled, or 0: none
 * yet; read more, up to GREETING_NOISE_MAX + GREETING_BYTES in all.
 */
size_t bootstrap_find_greeting(const uint8_t *buffer, size_t count, uint32_t *version);

#endif
