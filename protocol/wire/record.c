#include "protocol/wire/record.h"

#include <string.h>

#include "protocol/base/cursor.h"
#include "protocol/base/err.h"

#ifdef VMFERRY_TEST_HOOKS
#include <stdatomic.h>

void (*record_nonce_audit)(uint64_t key, const uint8_t nonce[AEAD_NONCE_BYTES]);
void (*record_key_audit)(uint64_t key, const uint8_t secret[AEAD_KEY_BYTES]);
static atomic_uint_least64_t keys_started;
#endif

int record_key_start(struct record_key *k, const struct aead *aead, enum record_mode mode,
                     const uint8_t secret[AEAD_KEY_BYTES], struct err *e)
{
    void *key;

    if (aead->key_new(&key, secret, e) != 0)
        return err_add(e, "%s", aead->name);
    *k = (struct record_key){ .aead = aead, .key = key, .mode = mode };
#ifdef VMFERRY_TEST_HOOKS
    k->audit = ++keys_started;
    if (record_key_audit != NULL)
        record_key_audit(k->audit, secret);
#endif
    return 0;
}

void record_key_end(struct record_key *k)
{
    if (k->aead != NULL)
        k->aead->key_free(k->key);
    *k = (struct record_key){ 0 };
}

/* Each nonce is given out once: also a record that then fails to seal has used its own. */
static int nonce_next(struct record_key *k, uint8_t nonce[AEAD_NONCE_BYTES], struct err *e)
{
    struct push p = { .at = nonce, .left = AEAD_NONCE_BYTES };

    if (k->aead == NULL || k->dead)
        return err_set(e, ERR_PEER, "the connection's key is no longer in use");
    if (k->counter >= RECORD_COUNT_MAX) {
        k->dead = true;
        return err_set(e, ERR_LIMIT, "the connection's key is used up");
    }
    push_u32(&p, 0);
    push_u64(&p, k->counter++);
    return 0;
}

int record_seal(struct record_key *k, uint8_t *record, size_t payload_bytes, struct err *e)
{
    struct push p = { .at = record, .left = RECORD_HEADER_BYTES };
    uint8_t nonce[AEAD_NONCE_BYTES];
    uint8_t *payload = record + RECORD_HEADER_BYTES;
    int rc;

    if (payload_bytes == 0 || payload_bytes > RECORD_PAYLOAD_MAX)
        return err_set(e, ERR_LIMIT, "a record of %zu bytes", payload_bytes);
    if (nonce_next(k, nonce, e) != 0)
        return -1;
#ifdef VMFERRY_TEST_HOOKS
    if (record_nonce_audit != NULL)
        record_nonce_audit(k->audit, nonce);
#endif
    push_u32(&p, (uint32_t)payload_bytes);
    push_u8(&p, RECORD_MESSAGE);
    push_u8(&p, 0);
    push_u16(&p, 0);
    if (k->mode == RECORD_ENCRYPT)
        rc = k->aead->seal(k->key, nonce, record, RECORD_HEADER_BYTES, payload, payload_bytes,
                           payload, e);
    else
        rc = k->aead->seal(k->key, nonce, record, RECORD_HEADER_BYTES + payload_bytes, NULL, 0,
                           payload + payload_bytes, e);
    if (rc != 0)
        k->dead = true;
    return rc;
}

int record_peek(const uint8_t header[RECORD_HEADER_BYTES], size_t payload_max, size_t *record_bytes,
                struct err *e)
{
    struct pull p = { .at = header, .left = RECORD_HEADER_BYTES };
    uint32_t payload_bytes = pull_u32(&p);
    uint8_t type = pull_u8(&p);
    uint8_t flags = pull_u8(&p);
    uint16_t reserved = pull_u16(&p);

    if (type != RECORD_MESSAGE || flags != 0 || reserved != 0)
        return err_set(e, ERR_PEER, "record of unknown type %u, flags 0x%02x, reserved 0x%04x",
                       type, flags, reserved);
    if (payload_bytes == 0)
        return err_set(e, ERR_PEER, "empty record");
    if (payload_bytes > RECORD_PAYLOAD_MAX || payload_bytes > payload_max)
        return err_set(e, ERR_LIMIT, "record of %u bytes, at most %zu are allowed here",
                       payload_bytes, payload_max);
    *record_bytes = (size_t)payload_bytes + RECORD_OVERHEAD_BYTES;
    return 0;
}

static int open_checked(struct record_key *k, uint8_t *record, size_t record_bytes, struct err *e)
{
    uint8_t nonce[AEAD_NONCE_BYTES], nothing;
    uint8_t *payload = record + RECORD_HEADER_BYTES;
    size_t said;

    if (nonce_next(k, nonce, e) != 0)
        return -1;
    if (record_bytes < RECORD_HEADER_BYTES)
        return err_set(e, ERR_CORRUPT, "record cut off in its header");
    if (record_peek(record, RECORD_PAYLOAD_MAX, &said, e) != 0)
        return -1;
    if (said != record_bytes)
        return err_set(e, ERR_CORRUPT, "record of %zu bytes says that it has %zu", record_bytes,
                       said);
    if (k->mode == RECORD_ENCRYPT)
        return k->aead->open(k->key, nonce, record, RECORD_HEADER_BYTES, payload,
                             record_bytes - RECORD_HEADER_BYTES, payload, e);
    return k->aead->open(k->key, nonce, record, record_bytes - RECORD_TAG_BYTES,
                         record + record_bytes - RECORD_TAG_BYTES, RECORD_TAG_BYTES, &nothing, e);
}

int record_open(struct record_key *k, uint8_t *record, size_t record_bytes, uint8_t **payload,
                size_t *payload_bytes, struct err *e)
{
    uint64_t number = k->counter;

    if (open_checked(k, record, record_bytes, e) != 0) {
        /* Nothing behind a bad record can be right: one error, then silence. */
        k->dead = true;
        return err_add(e, "record %llu", (unsigned long long)number);
    }
    *payload = record + RECORD_HEADER_BYTES;
    *payload_bytes = record_bytes - RECORD_OVERHEAD_BYTES;
    return 0;
}
