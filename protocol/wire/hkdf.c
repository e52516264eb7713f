#include "protocol/wire/hkdf.h"

#include <assert.h>
#include <string.h>

#include <sodium.h>

void hkdf_extract(uint8_t key[HKDF_KEY_BYTES], const uint8_t *salt, size_t salt_bytes,
                  const uint8_t *input, size_t input_bytes)
{
    static const uint8_t no_salt[1];
    crypto_auth_hmacsha256_state state;

    crypto_auth_hmacsha256_init(&state, salt_bytes > 0 ? salt : no_salt, salt_bytes);
    crypto_auth_hmacsha256_update(&state, input, input_bytes);
    crypto_auth_hmacsha256_final(&state, key);
    sodium_memzero(&state, sizeof state);
}

void hkdf_expand(uint8_t *out, size_t out_bytes, const uint8_t key[HKDF_KEY_BYTES],
                 const uint8_t *info, size_t info_bytes)
{
    crypto_auth_hmacsha256_state state;
    uint8_t part[HKDF_KEY_BYTES];
    size_t part_bytes = 0;

    assert(out_bytes <= HKDF_OUT_MAX);
    /* T(n) = HMAC(key, T(n - 1) | info | n), T(0) empty; the output is T(1) | T(2) | ... */
    for (uint8_t n = 1; out_bytes > 0; n++) {
        size_t take = out_bytes < sizeof part ? out_bytes : sizeof part;

        crypto_auth_hmacsha256_init(&state, key, HKDF_KEY_BYTES);
        crypto_auth_hmacsha256_update(&state, part, part_bytes);
        if (info_bytes > 0)
            crypto_auth_hmacsha256_update(&state, info, info_bytes);
        crypto_auth_hmacsha256_update(&state, &n, 1);
        crypto_auth_hmacsha256_final(&state, part);
        part_bytes = sizeof part;
        memcpy(out, part, take);
        out += take;
        out_bytes -= take;
    }
    sodium_memzero(part, sizeof part);
    sodium_memzero(&state, sizeof state);
}
