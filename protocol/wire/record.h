/*
 * Sealed records: what runs over a connection after the handshake.  Normative text: PROTOCOL.md.
 *
 *   header 8 bytes: u32 payload bytes, u8 type, u8 flags (0), u16 reserved (0), little-endian
 *   payload         plain in mode AUTH, encrypted in mode ENCRYPT
 *   tag    16 bytes
 *
 * A record is sealed and opened in place: the caller lays out header, payload and tag one behind
 * the other.  Each direction of each connection has its own key, and the nonce is a counter from 0
 * that does not travel, so a lost, doubled, moved or altered record is ERR_CORRUPT.
 * A record_key belongs to one thread at a time.
 */
#ifndef PROTOCOL_WIRE_RECORD_H
#define PROTOCOL_WIRE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/wire/aead.h"

struct err;

enum {
    RECORD_HEADER_BYTES = 8,
    RECORD_TAG_BYTES = AEAD_TAG_BYTES,
    RECORD_OVERHEAD_BYTES = RECORD_HEADER_BYTES + RECORD_TAG_BYTES,
    /* The largest block and what a message puts in front of it; callers set tighter limits. */
    RECORD_PAYLOAD_MAX = (4 << 20) + (64 << 10),
};

enum { RECORD_MESSAGE = 1 }; /* the only type: one message of messages.def */

/* Records under one key; then the connection ends and a new one is made. */
#define RECORD_COUNT_MAX (UINT64_C(1) << 32)

enum record_mode {
    RECORD_ENCRYPT = 1, /* the payload is secret and authenticated */
    RECORD_AUTH = 2,    /* the payload is only authenticated: same AEAD, same counters */
    RECORD_MODE_END
};

/* A set of modes as handshake and bootstrap carry it: bit mode - 1 for each. */
enum { RECORD_MODE_SET_ALL = (1u << (RECORD_MODE_END - 1)) - 1 };

static inline uint8_t record_mode_bit(uint8_t mode)
{
    if (mode < 1 || mode >= RECORD_MODE_END)
        return 0;
    return (uint8_t)(1u << (mode - 1));
}

/* One direction of one connection.  Empty value: { 0 }. */
struct record_key {
    const struct aead *aead;
    void *key;
    uint64_t counter; /* of the next record */
    enum record_mode mode;
    bool dead; /* a record failed: nothing more is sealed or opened */
#ifdef VMFERRY_TEST_HOOKS
    uint64_t audit; /* number of this key in this process */
#endif
};

/* Fill *k, which is empty, from a traffic key of the handshake.  0, or -1 with ERR_SYSTEM. */
int record_key_start(struct record_key *k, const struct aead *aead, enum record_mode mode,
                     const uint8_t secret[AEAD_KEY_BYTES], struct err *e);

/* Wipe and leave empty.  The empty value is allowed. */
void record_key_end(struct record_key *k);

/*
 * Seal the record that starts at record: payload_bytes (1..RECORD_PAYLOAD_MAX) of payload stand
 * behind RECORD_HEADER_BYTES of room, and RECORD_TAG_BYTES of room follow them.  Header and tag are
 * written, the payload is encrypted where it stands.
 * 0, or -1 with ERR_LIMIT (the key is used up, or the payload is too long) or ERR_SYSTEM.
 */
int record_seal(struct record_key *k, uint8_t *record, size_t payload_bytes, struct err *e);

/*
 * Look at a header that has just arrived, before anything is allocated or waited for.
 * *record_bytes becomes the length of the whole record, header and tag included.
 * 0, or -1 with ERR_LIMIT (the payload is longer than payload_max or RECORD_PAYLOAD_MAX) or
 * ERR_PEER (empty payload, unknown type, flags or reserved bits).  The header is not authenticated
 * yet.
 */
int record_peek(const uint8_t header[RECORD_HEADER_BYTES], size_t payload_max, size_t *record_bytes,
                struct err *e);

/*
 * Open a whole record in place; *payload points into it.
 * 0, or -1 with ERR_CORRUPT (wrong tag, or record_bytes is not what the header says), ERR_LIMIT
 * (the key is used up) or what record_peek says.  After a failure k is dead and the record's bytes
 * may not be used.
 */
int record_open(struct record_key *k, uint8_t *record, size_t record_bytes, uint8_t **payload,
                size_t *payload_bytes, struct err *e);

#ifdef VMFERRY_TEST_HOOKS
/* Called with the number of the key, the direction of use and the nonce of every record sealed. */
extern void (*record_nonce_audit)(uint64_t key, const uint8_t nonce[AEAD_NONCE_BYTES]);
/* Called when a key gets its number. */
extern void (*record_key_audit)(uint64_t key, const uint8_t secret[AEAD_KEY_BYTES]);
#endif

#endif
