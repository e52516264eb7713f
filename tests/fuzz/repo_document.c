/*
 * Whole documents (FORMAT.md 2 of the repository), `config` and key slots.  The first byte: which
 * type, whether the right hash is put behind the body.
 */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/repo/config.h"
#include "receiver/repo/document.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/vault.h"
#include "tests/fuzz/fuzz.h"

static const char NAME[] = "config";

static const struct vault *vault(bool sealed)
{
    static struct vault *plain, *with_keys;
    struct repo_key key = { { 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a,
                              0x1b, 0x1c, 0x1d, 0x1e, 0x1f } };
    struct err e;

    if (plain == NULL) {
        FUZZ_CHECK(vault_new(&plain, &key, &e) == 0 && vault_new(&with_keys, &key, &e) == 0);
        FUZZ_CHECK(vault_make_keys(with_keys, &e) == 0);
    }
    return sealed ? with_keys : plain;
}

/* The hash as it should be for what stands before it. */
static void put_sum(uint8_t *data, size_t size)
{
    crypto_hash_sha256_state s;
    const uint8_t name[] = { sizeof NAME - 1, 0, 'c', 'o', 'n', 'f', 'i', 'g' };

    if (size < DOCUMENT_HEADER_BYTES + crypto_hash_sha256_BYTES)
        return;
    crypto_hash_sha256_init(&s);
    crypto_hash_sha256_update(&s, data, DOCUMENT_HEADER_BYTES);
    crypto_hash_sha256_update(&s, name, sizeof name);
    crypto_hash_sha256_update(&s, data + DOCUMENT_HEADER_BYTES,
                              size - DOCUMENT_HEADER_BYTES - crypto_hash_sha256_BYTES);
    crypto_hash_sha256_final(&s, data + size - crypto_hash_sha256_BYTES);
}

static void read_body(enum document_type type, const struct bytes *body)
{
    struct config c = { 0 };
    struct slot s = { 0 };
    struct fields f;
    struct err e;

    fields_read(&f, body->data, body->count, &e);
    if (type == DOCUMENT_CONFIG)
        config_fields(&f, &c);
    else
        slot_fields(&f, &s);
    if (fields_done(&f) == 0 && type == DOCUMENT_CONFIG)
        FUZZ_CHECK(block_size_valid(c.block_bytes) && (c.ids == 2) == (c.sealing == 1));
    if (f.failed == false && type == DOCUMENT_SLOT)
        FUZZ_CHECK(s.memory_bytes <= (uint64_t)4 << 30 && s.passes <= 64 && s.label != NULL);
    config_free(&c);
    slot_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes body = { 0 };
    enum document_type type;
    uint8_t *copy;
    struct err e;

    if (size == 0)
        return 0;
    type = (enum document_type)(data[0] >> 2 & 15);
    copy = fuzz_copy(data + 1, size - 1);
    if ((data[0] & 1) != 0)
        put_sum(copy, size - 1);
    (void)vault(false);
    fuzz_begin();
    if (document_decode(vault((data[0] & 2) != 0), type, NAME, copy, size - 1, &body, &e) == 0) {
        FUZZ_CHECK(body.count <= document_body_max(type));
        if (type == DOCUMENT_CONFIG || type == DOCUMENT_SLOT)
            read_body(type, &body);
    }
    bytes_free(&body);
    free(copy);
    fuzz_end();
    return 0;
}
