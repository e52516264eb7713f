/* HKDF-SHA256, RFC 5869. */
#ifndef PROTOCOL_WIRE_HKDF_H
#define PROTOCOL_WIRE_HKDF_H

#include <stddef.h>
#include <stdint.h>

enum {
    HKDF_KEY_BYTES = 32,
    HKDF_OUT_MAX = 255 * HKDF_KEY_BYTES,
};

/* The pseudo-random key of input; salt may be NULL when salt_bytes is 0. */
void hkdf_extract(uint8_t key[HKDF_KEY_BYTES], const uint8_t *salt, size_t salt_bytes,
                  const uint8_t *input, size_t input_bytes);

/* out_bytes (at most HKDF_OUT_MAX) for this info; info may be NULL when info_bytes is 0. */
void hkdf_expand(uint8_t *out, size_t out_bytes, const uint8_t key[HKDF_KEY_BYTES],
                 const uint8_t *info, size_t info_bytes);

#endif
