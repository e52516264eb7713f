/*
 * Handshake of a data connection, and the bootstrap through which the agent gets the session's
 * secret.  Functions on byte buffers only: sockets, time-outs and the book of used connection
 * numbers are the caller's.  Normative text: PROTOCOL.md.
 *
 * Initiator is who sends M1 (the end that dialled, the agent as a rule), responder who answers M2
 * (the end that owns the secret, the receiver).  A responder:
 *
 *     read HANDSHAKE_M1_BYTES, for at most HANDSHAKE_MS, and answer nothing until
 *     handshake_read_m1(secret, m1, &offer, e) == 0
 *         and offer.connection is expected and unused; then burn it for good
 *     handshake_choose(&offer, aeads, modes, &choice, e)
 *     handshake_answer(secret, m1, &choice, m2, &keys, e); send m2
 *
 * and an initiator: handshake_offer, send m1, read HANDSHAKE_M2_BYTES, handshake_finish.  Both then
 * start two record keys; the first record each way proves the keys, and no data are sent or
 * believed before the other end's first record has been opened.
 */
#ifndef PROTOCOL_WIRE_HANDSHAKE_H
#define PROTOCOL_WIRE_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/wire/aead.h"
#include "protocol/wire/record.h"

struct err;

enum {
    WIRE_VERSION = 1, /* of bootstrap, handshake and records together; there is no negotiation */
    SESSION_ID_BYTES = 16,
    SESSION_KEY_BYTES = 32,
    HANDSHAKE_NONCE_BYTES = 32,
    HANDSHAKE_M1_BYTES = 96,
    HANDSHAKE_M2_BYTES = 80,
    HANDSHAKE_MS = 5000, /* from accept to the end of the handshake */
};

/* What both ends know through SSH.  Wiped by session_secret_wipe when the session ends. */
struct session_secret {
    uint8_t id[SESSION_ID_BYTES];   /* not secret */
    uint8_t key[SESSION_KEY_BYTES]; /* S: random, for one session only */
};

/* A fresh id and key.  0, or -1 with ERR_SYSTEM. */
int session_secret_make(struct session_secret *s, struct err *e);
void session_secret_wipe(struct session_secret *s);

/* What M1 says. */
struct handshake_offer {
    uint32_t connection; /* number within the session, each used once; 0 is the control link */
    uint8_t aead_set;
    uint8_t mode_set;
};

/* What M2 says. */
struct handshake_choice {
    uint8_t aead; /* enum aead_id */
    uint8_t mode; /* enum record_mode */
};

/* Result of a handshake at one end; feed them to record_key_start, then handshake_keys_wipe. */
struct handshake_keys {
    uint32_t connection;
    struct handshake_choice choice;
    uint8_t send[AEAD_KEY_BYTES];
    uint8_t receive[AEAD_KEY_BYTES];
};
void handshake_keys_wipe(struct handshake_keys *keys);

/* --- initiator --- */

/* Write M1 with a fresh nonce.  0, or -1 with ERR_SYSTEM. */
int handshake_offer(const struct session_secret *s, const struct handshake_offer *offer,
                    uint8_t m1[HANDSHAKE_M1_BYTES], struct err *e);

/*
 * Check M2, the answer to this m1, and derive the keys.
 * 0, or -1 with ERR_AUTH (M2 is not from the owner of the secret) or ERR_PEER (another version, or
 * a choice that was not offered).
 */
int handshake_finish(const struct session_secret *s, const uint8_t m1[HANDSHAKE_M1_BYTES],
                     const uint8_t m2[HANDSHAKE_M2_BYTES], struct handshake_keys *keys,
                     struct err *e);

/* --- responder --- */

/*
 * Which session an M1 claims, unproved: for a listener that serves several sessions.
 * False when m1 is no M1 at all.
 */
bool handshake_m1_session(const uint8_t m1[HANDSHAKE_M1_BYTES], uint8_t id[SESSION_ID_BYTES]);

/*
 * Check M1 and say what it offers.  Nothing may be sent to the peer when it fails, and the caller
 * then checks that offer->connection is expected and unused, and burns it.
 * 0, or -1 with ERR_AUTH (no M1 of this session) or ERR_PEER (of this session, but another version,
 * or an offer that makes no sense).
 */
int handshake_read_m1(const struct session_secret *s, const uint8_t m1[HANDSHAKE_M1_BYTES],
                      struct handshake_offer *offer, struct err *e);

/*
 * The best choice of what is offered and what this end has (aead_set) and wants (mode_set):
 * AES-256-GCM before ChaCha20-Poly1305, ENCRYPT before AUTH.
 * 0, or -1 with ERR_PEER: nothing in common.
 */
int handshake_choose(const struct handshake_offer *offer, uint8_t aead_set, uint8_t mode_set,
                     struct handshake_choice *choice, struct err *e);

/*
 * Write M2 with a fresh nonce for an m1 that handshake_read_m1 accepts (it is checked again), and
 * derive the keys.  0, or -1 as handshake_read_m1, with ERR_PEER when the choice was not offered,
 * or ERR_SYSTEM.
 */
int handshake_answer(const struct session_secret *s, const uint8_t m1[HANDSHAKE_M1_BYTES],
                     const struct handshake_choice *choice, uint8_t m2[HANDSHAKE_M2_BYTES],
                     struct handshake_keys *keys, struct err *e);

/* --- the same with given nonces: for test vectors and fuzzing only --- */

void handshake_offer_with(const struct session_secret *s, const struct handshake_offer *offer,
                          const uint8_t nonce[HANDSHAKE_NONCE_BYTES],
                          uint8_t m1[HANDSHAKE_M1_BYTES]);
int handshake_answer_with(const struct session_secret *s, const uint8_t m1[HANDSHAKE_M1_BYTES],
                          const struct handshake_choice *choice,
                          const uint8_t nonce[HANDSHAKE_NONCE_BYTES],
                          uint8_t m2[HANDSHAKE_M2_BYTES], struct handshake_keys *keys,
                          struct err *e);

#endif
