/* Sealed records: as they come from a stranger, and as a peer seals them and the network damages
 * them. */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/wire/record.h"
#include "tests/fuzz/fuzz.h"

enum { PAYLOAD_MOST = 4096 };

static const uint8_t secret[AEAD_KEY_BYTES] = "a key of thirty-two bytes, almos";

static void stranger(struct pull *p, struct record_key *key)
{
    uint8_t *record = fuzz_copy(p->at, p->left), *payload;
    size_t bytes = 0, payload_bytes;
    struct err e;

    if (p->left >= RECORD_HEADER_BYTES && record_peek(record, PAYLOAD_MOST, &bytes, &e) == 0)
        FUZZ_CHECK(bytes > RECORD_OVERHEAD_BYTES && bytes <= PAYLOAD_MOST + RECORD_OVERHEAD_BYTES);
    FUZZ_CHECK(record_open(key, record, p->left, &payload, &payload_bytes, &e) != 0 && key->dead);
    free(record);
}

/* Several records; one bit of one of them may turn over, and they may come in another order. */
static void insider(struct pull *p, struct record_key *from, struct record_key *to)
{
    unsigned count = 1 + pull_u8(p) % 4, damaged = pull_u8(p), swapped = pull_u8(p);
    uint32_t bit = pull_u32(p);
    struct err e;

    for (unsigned i = 0; i < count; i++) {
        size_t bytes = 1 + p->left / count % PAYLOAD_MOST, payload_bytes, whole;
        uint8_t *record = calloc(1, bytes + RECORD_OVERHEAD_BYTES), *payload;
        bool bad = false;

        FUZZ_CHECK(record != NULL);
        memcpy(record + RECORD_HEADER_BYTES, p->at, bytes < p->left ? bytes : p->left);
        FUZZ_CHECK(record_seal(from, record, bytes, &e) == 0);
        if (i == swapped) { /* this one never comes */
            free(record);
            continue;
        }
        if (i == damaged) {
            bit %= (uint32_t)(bytes + RECORD_OVERHEAD_BYTES) * 8;
            record[bit / 8] ^= (uint8_t)(1u << bit % 8);
            bad = true;
        }
        bad = bad || i > swapped || i > damaged;
        FUZZ_CHECK(bad || (record_peek(record, PAYLOAD_MOST, &whole, &e) == 0 &&
                           whole == bytes + RECORD_OVERHEAD_BYTES));
        FUZZ_CHECK((record_open(to, record, bytes + RECORD_OVERHEAD_BYTES, &payload, &payload_bytes,
                                &e) == 0) == !bad);
        FUZZ_CHECK(bad || (payload_bytes == bytes && payload == record + RECORD_HEADER_BYTES &&
                           memcmp(payload, p->at, bytes < p->left ? bytes : p->left) == 0));
        free(record);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pull p = { .at = data, .left = size };
    uint8_t kind = pull_u8(&p);
    enum record_mode mode = (kind & 2) != 0 ? RECORD_AUTH : RECORD_ENCRYPT;
    const struct aead *aead =
        aead_sodium_find((kind & 4) != 0 ? AEAD_AES_256_GCM : AEAD_CHACHA20_POLY1305);
    struct record_key from = { 0 }, to = { 0 };
    struct err e;

    if (aead == NULL) /* a machine without AES */
        aead = aead_sodium_find(AEAD_CHACHA20_POLY1305);
    fuzz_begin();
    FUZZ_CHECK(record_key_start(&from, aead, mode, secret, &e) == 0 &&
               record_key_start(&to, aead, mode, secret, &e) == 0);
    if ((kind & 1) == 0)
        stranger(&p, &to);
    else
        insider(&p, &from, &to);
    record_key_end(&from);
    record_key_end(&to);
    fuzz_end();
    return 0;
}
