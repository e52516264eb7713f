#include "receiver/repo/document.h"

#include <sodium.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "receiver/repo/vault.h"
#include "receiver/storage/storage.h"

static const uint8_t MAGIC[8] = { 'V', 'F', 'D', 'O', 'C', 0, 0, 1 };

enum { BODY_VERSION = 1, SUM_BYTES = crypto_hash_sha256_BYTES };

size_t document_body_max(enum document_type type)
{
    switch (type) {
    case DOCUMENT_INDEX:
        return DOCUMENT_BODY_MAX;
    case DOCUMENT_GENERATION:
    case DOCUMENT_PARTIAL:
    case DOCUMENT_DAMAGED:
    case DOCUMENT_VERIFIED:
        return 16 << 20;
    default:
        return 64 << 10;
    }
}

/* `config` and key slots are needed before there are keys. */
static bool is_sealed(const struct vault *v, enum document_type type)
{
    return vault_sealed(v) && type != DOCUMENT_CONFIG && type != DOCUMENT_SLOT;
}

/* What is proved besides the body: the header and the name. */
struct proof {
    uint8_t bytes[DOCUMENT_HEADER_BYTES + 2 + STORAGE_NAME_MAX];
    size_t count;
};

static void make_proof(struct proof *p, const void *header, const char *name)
{
    struct push to = { .at = p->bytes, .left = sizeof p->bytes };

    push_copy(&to, header, DOCUMENT_HEADER_BYTES);
    push_u16(&to, (uint16_t)strlen(name));
    push_copy(&to, name, strlen(name));
    p->count = sizeof p->bytes - to.left;
}

static void sum_of(const struct proof *p, const void *body, size_t count, uint8_t out[SUM_BYTES])
{
    crypto_hash_sha256_state s;

    crypto_hash_sha256_init(&s);
    crypto_hash_sha256_update(&s, p->bytes, p->count);
    crypto_hash_sha256_update(&s, body, count);
    crypto_hash_sha256_final(&s, out);
}

int document_encode(const struct vault *v, enum document_type type, const char *name,
                    const void *body, size_t count, struct bytes *out, struct err *e)
{
    bool sealed = is_sealed(v, type);
    size_t whole = DOCUMENT_HEADER_BYTES + count + (sealed ? (size_t)SEAL_BYTES : SUM_BYTES);
    struct proof proof;
    struct push p;
    uint8_t *at;

    if (count > document_body_max(type))
        return err_set(e, ERR_LIMIT, "object %s would have %zu bytes", name, count);
    if (out->ceiling < out->count + whole)
        out->ceiling = out->count + whole;
    at = bytes_reserve(out, whole, e);
    if (at == NULL)
        return -1;
    p = (struct push){ .at = at, .left = DOCUMENT_HEADER_BYTES };
    push_copy(&p, MAGIC, sizeof MAGIC);
    push_u8(&p, (uint8_t)type);
    push_u8(&p, sealed);
    push_u16(&p, BODY_VERSION);
    push_u32(&p, 0);
    push_copy(&p, vault_repository(v)->b, REPO_KEY_BYTES);
    push_u64(&p, count);
    make_proof(&proof, at, name);
    at += DOCUMENT_HEADER_BYTES;
    if (sealed) {
        if (vault_seal(v, proof.bytes, proof.count, body, count, at, e) != 0)
            return -1;
    } else {
        if (count > 0)
            memcpy(at, body, count);
        sum_of(&proof, body, count, at + count);
    }
    out->count += whole;
    return 0;
}

int document_repository(const void *data, size_t count, struct repo_key *out, struct err *e)
{
    if (count < DOCUMENT_HEADER_BYTES || memcmp(data, MAGIC, sizeof MAGIC) != 0)
        return err_set(e, ERR_FORMAT, "this is no object of a repository");
    memcpy(out->b, (const uint8_t *)data + 16, sizeof out->b);
    return 0;
}

/* What the header says besides the length of the body, which it returns. */
static int check_header(const struct vault *v, enum document_type type, const uint8_t *data,
                        size_t count, uint64_t *body, struct err *e)
{
    struct pull p = { .at = data, .left = count };
    const uint8_t *magic = pull_bytes(&p, sizeof MAGIC);
    uint8_t is_type = pull_u8(&p), sealed = pull_u8(&p);
    uint16_t version = pull_u16(&p);
    uint32_t zero = pull_u32(&p);
    const uint8_t *repository = pull_bytes(&p, REPO_KEY_BYTES);

    *body = pull_u64(&p);
    if (p.spent || memcmp(magic, MAGIC, sizeof MAGIC) != 0)
        return err_set(e, ERR_FORMAT, "it is no object of a repository");
    if (memcmp(repository, vault_repository(v)->b, REPO_KEY_BYTES) != 0)
        return err_set(e, ERR_CORRUPT, "it belongs to another repository");
    if (is_type != type || zero != 0 || sealed != is_sealed(v, type))
        return err_set(e, ERR_CORRUPT, "it is not what its name says");
    if (version != BODY_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "it is written by a newer program (version %u)",
                       version);
    if (*body > document_body_max(type))
        return err_set(e, ERR_LIMIT, "it is too large");
    return 0;
}

int document_decode(const struct vault *v, enum document_type type, const char *name,
                    const void *data, size_t count, struct bytes *out, struct err *e)
{
    const uint8_t *in = data;
    uint8_t sum[SUM_BYTES];
    struct proof proof;
    uint64_t body;
    size_t extra;
    uint8_t *to;

    if (check_header(v, type, in, count, &body, e) != 0)
        return -1;
    extra = is_sealed(v, type) ? (size_t)SEAL_BYTES : SUM_BYTES;
    if (count != DOCUMENT_HEADER_BYTES + body + extra)
        return err_set(e, ERR_CORRUPT, "it has not its full length");
    if (out->ceiling < out->count + (size_t)body)
        out->ceiling = out->count + (size_t)body;
    to = bytes_reserve(out, (size_t)body, e);
    if (to == NULL)
        return -1;
    make_proof(&proof, in, name);
    in += DOCUMENT_HEADER_BYTES;
    if (is_sealed(v, type)) {
        if (vault_open(v, proof.bytes, proof.count, in, (size_t)body + SEAL_BYTES, to, e) != 0)
            return -1;
    } else {
        sum_of(&proof, in, (size_t)body, sum);
        if (memcmp(sum, in + body, sizeof sum) != 0)
            return err_set(e, ERR_CORRUPT, "its checksum is wrong");
        if (body > 0)
            memcpy(to, in, (size_t)body);
    }
    out->count += (size_t)body;
    return 0;
}

int document_put(struct storage *s, const struct vault *v, enum document_type type,
                 const char *name, const struct bytes *body, struct err *e)
{
    struct bytes whole = { 0 };
    int rc = document_encode(v, type, name, body->data, body->count, &whole, e);

    if (rc == 0)
        rc = storage_put(s, name, whole.data, whole.count, e);
    bytes_free(&whole);
    return rc;
}

int document_get(struct storage *s, const struct vault *v, enum document_type type,
                 const char *name, struct bytes *out, struct err *e)
{
    struct bytes whole = { 0 };
    int rc = storage_load(s, name, &whole, document_body_max(type) + DOCUMENT_EXTRA_MAX, e);

    if (rc == 0 && document_decode(v, type, name, whole.data, whole.count, out, e) != 0)
        rc = err_add(e, "object %s", name);
    bytes_free(&whole);
    return rc;
}
