/*
 * Authenticated encryption as a table of functions, so that each end plugs in what is fast and
 * sound there: libsodium in the agent (aead_sodium.c), OpenSSL in the receiver.  The bytes on the
 * wire are the same: sealed text = cipher text, as long as the plain text, then the tag.
 * Formats: AES-256-GCM is NIST SP 800-38D with 96-bit nonces, ChaCha20-Poly1305 is RFC 8439.
 */
#ifndef PROTOCOL_WIRE_AEAD_H
#define PROTOCOL_WIRE_AEAD_H

#include <stddef.h>
#include <stdint.h>

struct err;

enum {
    AEAD_KEY_BYTES = 32,
    AEAD_NONCE_BYTES = 12,
    AEAD_TAG_BYTES = 16,
};

/* Numbers of the protocol: never changed, never used again. */
enum aead_id { AEAD_AES_256_GCM = 1, AEAD_CHACHA20_POLY1305 = 2, AEAD_ID_END };

/* A set of AEADs as the handshake carries it: bit id - 1 for each. */
enum { AEAD_SET_ALL = (1u << (AEAD_ID_END - 1)) - 1 };

static inline uint8_t aead_bit(uint8_t id)
{
    if (id < 1 || id >= AEAD_ID_END)
        return 0;
    return (uint8_t)(1u << (id - 1));
}

struct aead {
    const char *name; /* for logs: "aes-256-gcm" */
    uint8_t id;

    /* Make *key from the secret, which is copied.  0, or -1 with ERR_SYSTEM and *key untouched. */
    int (*key_new)(void **key, const uint8_t secret[AEAD_KEY_BYTES], struct err *e);

    /*
     * Write plain_bytes + AEAD_TAG_BYTES to sealed, which may be plain itself (else they do not
     * overlap).  plain may be NULL when plain_bytes is 0.  0, or -1 with ERR_SYSTEM.
     */
    int (*seal)(void *key, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *ad,
                size_t ad_bytes, const uint8_t *plain, size_t plain_bytes, uint8_t *sealed,
                struct err *e);

    /*
     * The inverse: writes sealed_bytes - AEAD_TAG_BYTES to plain, which may be sealed itself.
     * 0, or -1 with ERR_CORRUPT (wrong tag, or too short for one); then plain holds nothing that
     * may be used.
     */
    int (*open)(void *key, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *ad,
                size_t ad_bytes, const uint8_t *sealed, size_t sealed_bytes, uint8_t *plain,
                struct err *e);

    /* Wipe and release.  NULL is allowed. */
    void (*key_free)(void *key);
};

/* libsodium's; NULL when the id is unknown or this machine lacks the instructions for it. */
const struct aead *aead_sodium_find(uint8_t id);

/* The set that aead_sodium_find answers here; 0 when libsodium cannot start (see crypto.h). */
uint8_t aead_sodium_offer(void);

/* "aes-256-gcm", "chacha20-poly1305", or "unknown". */
const char *aead_name(uint8_t id);

#endif
