#include "receiver/repo/vault.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "receiver/repo/fields.h"

#define SLOT_PASSES_MAX 64
#define SLOT_MEMORY_MAX ((uint64_t)4 << 30)

struct secrets {
    uint8_t seal[VAULT_KEY_BYTES];
    uint8_t id[VAULT_KEY_BYTES];
    uint8_t name[VAULT_KEY_BYTES];
};

struct vault {
    struct repo_key repository;
    struct secrets *secrets; /* locked memory; NULL: not encrypted */
    EVP_MD *sha256;
    EVP_MAC *hmac;
    EVP_MAC_CTX *id_mac; /* keyed; copied for each id */
};

int vault_new(struct vault **out, const struct repo_key *repository, struct err *e)
{
    struct vault *v;

    if (sodium_init() < 0)
        return err_set(e, ERR_SYSTEM, "libsodium does not start");
    v = calloc(1, sizeof *v);
    if (v == NULL)
        return err_sys(e, "getting memory");
    v->repository = *repository;
    v->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    v->hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    if (v->sha256 == NULL || v->hmac == NULL) {
        vault_free(v);
        return err_set(e, ERR_SYSTEM, "OpenSSL has no SHA-256");
    }
    *out = v;
    return 0;
}

void vault_free(struct vault *v)
{
    if (v == NULL)
        return;
    EVP_MAC_CTX_free(v->id_mac);
    EVP_MAC_free(v->hmac);
    EVP_MD_free(v->sha256);
    sodium_free(v->secrets); /* wipes */
    free(v);
}

const struct repo_key *vault_repository(const struct vault *v)
{
    return &v->repository;
}

bool vault_sealed(const struct vault *v)
{
    return v->secrets != NULL;
}

static EVP_MAC_CTX *keyed(const struct vault *v, const uint8_t key[VAULT_KEY_BYTES])
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = { OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                            OSSL_PARAM_construct_end() };
    EVP_MAC_CTX *c = EVP_MAC_CTX_new(v->hmac);

    if (c != NULL && EVP_MAC_init(c, key, VAULT_KEY_BYTES, params) != 1) {
        EVP_MAC_CTX_free(c);
        return NULL;
    }
    return c;
}

/* Room for keys; what is in it is the caller's. */
static int make_room(struct vault *v, struct err *e)
{
    if (v->secrets == NULL)
        v->secrets = sodium_malloc(sizeof *v->secrets);
    if (v->secrets == NULL)
        return err_sys(e, "getting memory for keys");
    return 0;
}

static int keys_are_set(struct vault *v, struct err *e)
{
    EVP_MAC_CTX_free(v->id_mac);
    v->id_mac = keyed(v, v->secrets->id);
    if (v->id_mac == NULL)
        return err_set(e, ERR_SYSTEM, "OpenSSL has no HMAC-SHA-256");
    return 0;
}

int vault_make_keys(struct vault *v, struct err *e)
{
    if (make_room(v, e) != 0)
        return -1;
    randombytes_buf(v->secrets, sizeof *v->secrets);
    return keys_are_set(v, e);
}

static int hmac_of(const EVP_MAC_CTX *template, const void *data, size_t count, uint8_t out[32])
{
    EVP_MAC_CTX *c = EVP_MAC_CTX_dup(template);
    size_t made = 0;
    int rc = -1;

    if (c != NULL && EVP_MAC_update(c, data, count) == 1 && EVP_MAC_final(c, out, &made, 32) == 1 &&
        made == 32)
        rc = 0;
    EVP_MAC_CTX_free(c);
    return rc;
}

int vault_id(const struct vault *v, const void *plain, size_t count, struct repo_id *out,
             struct err *e)
{
    int rc;

    if (v->secrets != NULL)
        rc = hmac_of(v->id_mac, plain, count, out->b);
    else
        rc = EVP_Digest(plain, count, out->b, NULL, v->sha256, NULL) == 1 ? 0 : -1;
    return rc == 0 ? 0 : err_set(e, ERR_SYSTEM, "OpenSSL failed to hash");
}

/* SHA-256 of a text, or HMAC-SHA-256 of it under the name key when encrypted. */
static int name_hash(const struct vault *v, const struct bytes *text, uint8_t out[32],
                     struct err *e)
{
    EVP_MAC_CTX *mac;
    int rc = -1;

    if (v->secrets != NULL) {
        mac = keyed(v, v->secrets->name);
        rc = mac == NULL ? -1 : hmac_of(mac, text->data, text->count, out);
        EVP_MAC_CTX_free(mac);
    } else {
        rc = EVP_Digest(text->data, text->count, out, NULL, v->sha256, NULL) == 1 ? 0 : -1;
    }
    return rc == 0 ? 0 : err_set(e, ERR_SYSTEM, "OpenSSL failed to hash");
}

int vault_vm_key(const struct vault *v, const char *host_uuid, const char *vm_uuid,
                 const char *path, struct repo_key *out, struct err *e)
{
    struct bytes text = { .ceiling = 3 * REPO_TEXT_MAX + 16 };
    uint8_t hash[32];
    int rc = -1;

    /* Each text with its NUL, so that no two triples run together the same way. */
    if (bytes_append(&text, "vm", 3, e) != 0 ||
        bytes_append(&text, host_uuid, strlen(host_uuid) + 1, e) != 0 ||
        bytes_append(&text, vm_uuid, strlen(vm_uuid) + 1, e) != 0 ||
        (path != NULL && bytes_append(&text, path, strlen(path), e) != 0) ||
        name_hash(v, &text, hash, e) != 0)
        goto out;
    memcpy(out->b, hash, sizeof out->b);
    rc = 0;

out:
    bytes_free(&text);
    return rc;
}

int vault_ask_key(const struct vault *v, const char *host_uuid, uint8_t out[VAULT_KEY_BYTES],
                  struct err *e)
{
    struct bytes text = { .ceiling = REPO_TEXT_MAX + 64 };
    int rc = -1;

    if (bytes_append(&text, "ask", 4, e) == 0 &&
        bytes_append(&text, v->repository.b, sizeof v->repository.b, e) == 0 &&
        bytes_append(&text, host_uuid, strlen(host_uuid) + 1, e) == 0)
        rc = name_hash(v, &text, out, e);
    bytes_free(&text);
    return rc;
}

static int seal_with(const uint8_t key[VAULT_KEY_BYTES], const uint8_t nonce[SEAL_NONCE_BYTES],
                     const void *ad, size_t ad_bytes, const void *plain, size_t count, uint8_t *out)
{
    unsigned long long made;

    return crypto_aead_xchacha20poly1305_ietf_encrypt(out, &made, plain, count, ad, ad_bytes, NULL,
                                                      nonce, key);
}

static int open_with(const uint8_t key[VAULT_KEY_BYTES], const uint8_t nonce[SEAL_NONCE_BYTES],
                     const void *ad, size_t ad_bytes, const uint8_t *in, size_t count, uint8_t *out)
{
    unsigned long long made;

    return crypto_aead_xchacha20poly1305_ietf_decrypt(out, &made, NULL, in, count, ad, ad_bytes,
                                                      nonce, key);
}

int vault_seal(const struct vault *v, const void *ad, size_t ad_bytes, const void *plain,
               size_t count, uint8_t *out, struct err *e)
{
    assert(v->secrets != NULL);
    randombytes_buf(out, SEAL_NONCE_BYTES);
    if (seal_with(v->secrets->seal, out, ad, ad_bytes, plain, count, out + SEAL_NONCE_BYTES) != 0)
        return err_set(e, ERR_SYSTEM, "libsodium failed to seal");
    return 0;
}

int vault_open(const struct vault *v, const void *ad, size_t ad_bytes, const uint8_t *in,
               size_t count, uint8_t *out, struct err *e)
{
    assert(v->secrets != NULL);
    if (count < SEAL_BYTES || open_with(v->secrets->seal, in, ad, ad_bytes, in + SEAL_NONCE_BYTES,
                                        count - SEAL_NONCE_BYTES, out) != 0)
        return err_set(e, ERR_CORRUPT, "its seal is broken");
    return 0;
}

/* --- key slots --- */

void slot_fields(struct fields *f, struct slot *s)
{
    bool file;

    field_u8(f, &s->kind, SLOT_ARGON2ID, SLOT_KEY_FILE);
    file = s->kind == SLOT_KEY_FILE;
    field_u64(f, &s->passes, file ? 0 : 1, file ? 0 : SLOT_PASSES_MAX);
    field_u64(f, &s->memory_bytes, file ? 0 : crypto_pwhash_argon2id_MEMLIMIT_MIN,
              file ? 0 : SLOT_MEMORY_MAX);
    field_raw(f, s->salt, sizeof s->salt);
    field_u64(f, &s->made, 0, INT64_MAX);
    field_text(f, &s->label);
    field_raw(f, s->nonce, sizeof s->nonce);
    field_raw(f, s->wrapped, sizeof s->wrapped);
}

void slot_free(struct slot *s)
{
    free(s->label);
    *s = (struct slot){ 0 };
}

static int wrapping_key(const struct slot *s, const void *secret, size_t count,
                        uint8_t out[VAULT_KEY_BYTES], struct err *e)
{
    if (s->kind == SLOT_KEY_FILE) {
        if (count != REPO_KEY_FILE_BYTES)
            return err_set(e, ERR_AUTH, "the key file is not of this repository");
        memcpy(out, secret, VAULT_KEY_BYTES);
        return 0;
    }
    if (crypto_pwhash(out, VAULT_KEY_BYTES, secret, count, s->salt, s->passes,
                      (size_t)s->memory_bytes, crypto_pwhash_ALG_ARGON2ID13) != 0)
        return err_set(e, ERR_SYSTEM,
                       "not enough memory to work on the passphrase (its slot wants %llu MiB)",
                       (unsigned long long)(s->memory_bytes >> 20));
    return 0;
}

/* "vmferry slot 1", repository, and what stands before the nonce. */
static int slot_ad(const struct slot *s, const struct vault *v, struct bytes *out, struct err *e)
{
    struct slot copy = *s;
    struct fields f;

    out->ceiling = REPO_TEXT_MAX + 256;
    if (bytes_append(out, "vmferry slot 1", 14, e) != 0 ||
        bytes_append(out, v->repository.b, sizeof v->repository.b, e) != 0)
        return -1;
    fields_write(&f, out, e);
    slot_fields(&f, &copy);
    if (fields_done(&f) != 0)
        return -1;
    out->count -= sizeof s->nonce + sizeof s->wrapped;
    return 0;
}

int slot_wrap(struct slot *s, const struct vault *v, const uint8_t config_hash[32],
              const void *secret, size_t count, struct err *e)
{
    uint8_t key[VAULT_KEY_BYTES], plain[4 * VAULT_KEY_BYTES];
    struct bytes ad = { 0 };
    int rc = -1;

    randombytes_buf(s->salt, sizeof s->salt);
    randombytes_buf(s->nonce, sizeof s->nonce);
    memcpy(plain, config_hash, 32);
    memcpy(plain + 32, v->secrets->seal, 32);
    memcpy(plain + 64, v->secrets->id, 32);
    memcpy(plain + 96, v->secrets->name, 32);
    if (slot_ad(s, v, &ad, e) != 0 || wrapping_key(s, secret, count, key, e) != 0)
        goto out;
    rc = seal_with(key, s->nonce, ad.data, ad.count, plain, sizeof plain, s->wrapped);
    if (rc != 0)
        err_set(e, ERR_SYSTEM, "libsodium failed to seal");

out:
    sodium_memzero(key, sizeof key);
    sodium_memzero(plain, sizeof plain);
    bytes_free(&ad);
    return rc;
}

int slot_unwrap(const struct slot *s, struct vault *v, const uint8_t config_hash[32],
                const void *secret, size_t count, struct err *e)
{
    uint8_t key[VAULT_KEY_BYTES], plain[4 * VAULT_KEY_BYTES];
    struct bytes ad = { 0 };
    int rc = -1;

    if (slot_ad(s, v, &ad, e) != 0 || wrapping_key(s, secret, count, key, e) != 0)
        goto out;
    if (open_with(key, s->nonce, ad.data, ad.count, s->wrapped, sizeof s->wrapped, plain) != 0) {
        err_set(e, ERR_AUTH,
                s->kind == SLOT_KEY_FILE ? "the key file does not open this repository"
                                         : "the passphrase is wrong");
        goto out;
    }
    if (sodium_memcmp(plain, config_hash, 32) != 0) {
        err_set(e, ERR_CORRUPT,
                "the repository's config is not the one that its keys were made "
                "for: somebody may have changed it");
        goto out;
    }
    if (make_room(v, e) != 0)
        goto out;
    memcpy(v->secrets->seal, plain + 32, 32);
    memcpy(v->secrets->id, plain + 64, 32);
    memcpy(v->secrets->name, plain + 96, 32);
    rc = keys_are_set(v, e);

out:
    sodium_memzero(key, sizeof key);
    sodium_memzero(plain, sizeof plain);
    bytes_free(&ad);
    return rc;
}
