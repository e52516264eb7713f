#include "protocol/wire/aead.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "protocol/base/err.h"
#include "protocol/wire/crypto.h"

/* --- AES-256-GCM: the expanded key, which libsodium wants at a multiple of 16 --- */

static int gcm_key_new(void **key, const uint8_t secret[AEAD_KEY_BYTES], struct err *e)
{
    void *state = aligned_alloc(16, (crypto_aead_aes256gcm_statebytes() + 15) / 16 * 16);

    if (state == NULL)
        return err_sys(e, "getting memory for a key");
    crypto_aead_aes256gcm_beforenm(state, secret);
    *key = state;
    return 0;
}

static int gcm_seal(void *key, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *ad,
                    size_t ad_bytes, const uint8_t *plain, size_t plain_bytes, uint8_t *sealed,
                    struct err *e)
{
    if (crypto_aead_aes256gcm_encrypt_afternm(sealed, NULL, plain, plain_bytes, ad, ad_bytes, NULL,
                                              nonce, key) != 0)
        return err_set(e, ERR_SYSTEM, "libsodium does not seal");
    return 0;
}

static int gcm_open(void *key, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *ad,
                    size_t ad_bytes, const uint8_t *sealed, size_t sealed_bytes, uint8_t *plain,
                    struct err *e)
{
    if (crypto_aead_aes256gcm_decrypt_afternm(plain, NULL, NULL, sealed, sealed_bytes, ad, ad_bytes,
                                              nonce, key) != 0)
        return err_set(e, ERR_CORRUPT, "authentication tag differs");
    return 0;
}

static void gcm_key_free(void *key)
{
    if (key != NULL)
        sodium_memzero(key, crypto_aead_aes256gcm_statebytes());
    free(key);
}

/* --- ChaCha20-Poly1305 as in RFC 8439: the key itself --- */

static int chacha_key_new(void **key, const uint8_t secret[AEAD_KEY_BYTES], struct err *e)
{
    void *copy = malloc(AEAD_KEY_BYTES);

    if (copy == NULL)
        return err_sys(e, "getting memory for a key");
    memcpy(copy, secret, AEAD_KEY_BYTES);
    *key = copy;
    return 0;
}

static int chacha_seal(void *key, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *ad,
                       size_t ad_bytes, const uint8_t *plain, size_t plain_bytes, uint8_t *sealed,
                       struct err *e)
{
    if (crypto_aead_chacha20poly1305_ietf_encrypt(sealed, NULL, plain, plain_bytes, ad, ad_bytes,
                                                  NULL, nonce, key) != 0)
        return err_set(e, ERR_SYSTEM, "libsodium does not seal");
    return 0;
}

static int chacha_open(void *key, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *ad,
                       size_t ad_bytes, const uint8_t *sealed, size_t sealed_bytes, uint8_t *plain,
                       struct err *e)
{
    if (crypto_aead_chacha20poly1305_ietf_decrypt(plain, NULL, NULL, sealed, sealed_bytes, ad,
                                                  ad_bytes, nonce, key) != 0)
        return err_set(e, ERR_CORRUPT, "authentication tag differs");
    return 0;
}

static void chacha_key_free(void *key)
{
    if (key != NULL)
        sodium_memzero(key, AEAD_KEY_BYTES);
    free(key);
}

static const struct aead gcm = {
    .name = "aes-256-gcm",
    .id = AEAD_AES_256_GCM,
    .key_new = gcm_key_new,
    .seal = gcm_seal,
    .open = gcm_open,
    .key_free = gcm_key_free,
};

static const struct aead chacha = {
    .name = "chacha20-poly1305",
    .id = AEAD_CHACHA20_POLY1305,
    .key_new = chacha_key_new,
    .seal = chacha_seal,
    .open = chacha_open,
    .key_free = chacha_key_free,
};

const struct aead *aead_sodium_find(uint8_t id)
{
    if (crypto_start(NULL) != 0)
        return NULL;
    /* libsodium has AES only for processors that have it themselves (AES-NI and PCLMUL). */
    if (id == AEAD_AES_256_GCM && crypto_aead_aes256gcm_is_available())
        return &gcm;
    return id == AEAD_CHACHA20_POLY1305 ? &chacha : NULL;
}

uint8_t aead_sodium_offer(void)
{
    uint8_t set = 0;

    for (uint8_t id = 1; id < AEAD_ID_END; id++)
        if (aead_sodium_find(id) != NULL)
            set |= aead_bit(id);
    return set;
}

const char *aead_name(uint8_t id)
{
    switch (id) {
    case AEAD_AES_256_GCM:
        return gcm.name;
    case AEAD_CHACHA20_POLY1305:
        return chacha.name;
    default:
        return "unknown";
    }
}
