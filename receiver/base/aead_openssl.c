#include "receiver/base/aead_openssl.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

#include <openssl/evp.h>

#include "protocol/base/err.h"

/* One context for each direction of use: made once with the key, then only given new nonces. */
struct openssl_key {
    EVP_CIPHER_CTX *seal;
    EVP_CIPHER_CTX *open;
};

/* Fetched once: a fetch for each key would search the providers every time. */
static EVP_CIPHER *ciphers[AEAD_ID_END];
static pthread_once_t ciphers_once = PTHREAD_ONCE_INIT;

static void ciphers_fetch(void)
{
    ciphers[AEAD_AES_256_GCM] = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    ciphers[AEAD_CHACHA20_POLY1305] = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);
}

static void key_free(void *key)
{
    struct openssl_key *k = key;

    if (k == NULL)
        return;
    /* Freeing a context wipes the key schedule in it. */
    EVP_CIPHER_CTX_free(k->open);
    EVP_CIPHER_CTX_free(k->seal);
    free(k);
}

static int key_new(void **out, enum aead_id id, const uint8_t secret[AEAD_KEY_BYTES], struct err *e)
{
    struct openssl_key *k = calloc(1, sizeof *k);

    if (k == NULL)
        return err_sys(e, "getting memory for a key");
    k->seal = EVP_CIPHER_CTX_new();
    k->open = EVP_CIPHER_CTX_new();
    if (k->seal == NULL || k->open == NULL ||
        EVP_EncryptInit_ex2(k->seal, ciphers[id], secret, NULL, NULL) != 1 ||
        EVP_DecryptInit_ex2(k->open, ciphers[id], secret, NULL, NULL) != 1) {
        key_free(k);
        return err_set(e, ERR_SYSTEM, "OpenSSL does not take the key");
    }
    *out = k;
    return 0;
}

static int gcm_key_new(void **key, const uint8_t secret[AEAD_KEY_BYTES], struct err *e)
{
    return key_new(key, AEAD_AES_256_GCM, secret, e);
}

static int chacha_key_new(void **key, const uint8_t secret[AEAD_KEY_BYTES], struct err *e)
{
    return key_new(key, AEAD_CHACHA20_POLY1305, secret, e);
}

static int seal(void *key, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *ad,
                size_t ad_bytes, const uint8_t *plain, size_t plain_bytes, uint8_t *sealed,
                struct err *e)
{
    struct openssl_key *k = key;
    int done;

    if (ad_bytes > INT_MAX || plain_bytes > INT_MAX)
        return err_set(e, ERR_SYSTEM, "too long for OpenSSL");
    if (EVP_EncryptInit_ex2(k->seal, NULL, NULL, nonce, NULL) != 1 ||
        (ad_bytes > 0 && EVP_EncryptUpdate(k->seal, NULL, &done, ad, (int)ad_bytes) != 1) ||
        (plain_bytes > 0 &&
         EVP_EncryptUpdate(k->seal, sealed, &done, plain, (int)plain_bytes) != 1) ||
        EVP_EncryptFinal_ex(k->seal, sealed + plain_bytes, &done) != 1 ||
        EVP_CIPHER_CTX_ctrl(k->seal, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_BYTES, sealed + plain_bytes) !=
            1)
        return err_set(e, ERR_SYSTEM, "OpenSSL does not seal");
    return 0;
}

static int open_sealed(void *key, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *ad,
                       size_t ad_bytes, const uint8_t *sealed, size_t sealed_bytes, uint8_t *plain,
                       struct err *e)
{
    struct openssl_key *k = key;
    uint8_t tag[AEAD_TAG_BYTES];
    size_t plain_bytes;
    int done;

    if (sealed_bytes < AEAD_TAG_BYTES)
        return err_set(e, ERR_CORRUPT, "too short for an authentication tag");
    plain_bytes = sealed_bytes - AEAD_TAG_BYTES;
    if (ad_bytes > INT_MAX || plain_bytes > INT_MAX)
        return err_set(e, ERR_CORRUPT, "too long for OpenSSL");
    for (size_t i = 0; i < sizeof tag; i++)
        tag[i] = sealed[plain_bytes + i];
    if (EVP_DecryptInit_ex2(k->open, NULL, NULL, nonce, NULL) != 1 ||
        EVP_CIPHER_CTX_ctrl(k->open, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_BYTES, tag) != 1 ||
        (ad_bytes > 0 && EVP_DecryptUpdate(k->open, NULL, &done, ad, (int)ad_bytes) != 1) ||
        (plain_bytes > 0 &&
         EVP_DecryptUpdate(k->open, plain, &done, sealed, (int)plain_bytes) != 1) ||
        EVP_DecryptFinal_ex(k->open, plain + plain_bytes, &done) != 1)
        return err_set(e, ERR_CORRUPT, "authentication tag differs");
    return 0;
}

static const struct aead gcm = {
    .name = "aes-256-gcm",
    .id = AEAD_AES_256_GCM,
    .key_new = gcm_key_new,
    .seal = seal,
    .open = open_sealed,
    .key_free = key_free,
};

static const struct aead chacha = {
    .name = "chacha20-poly1305",
    .id = AEAD_CHACHA20_POLY1305,
    .key_new = chacha_key_new,
    .seal = seal,
    .open = open_sealed,
    .key_free = key_free,
};

const struct aead *aead_openssl_find(uint8_t id)
{
    pthread_once(&ciphers_once, ciphers_fetch);
    if (id == AEAD_AES_256_GCM && ciphers[id] != NULL)
        return &gcm;
    if (id == AEAD_CHACHA20_POLY1305 && ciphers[id] != NULL)
        return &chacha;
    return NULL;
}

uint8_t aead_openssl_offer(void)
{
    uint8_t set = 0;

    for (uint8_t id = 1; id < AEAD_ID_END; id++)
        if (aead_openssl_find(id) != NULL)
            set |= aead_bit(id);
    return set;
}
