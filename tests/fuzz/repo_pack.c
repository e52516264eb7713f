/*
 * Packs (FORMAT.md 5 of the repository), walked over with everything proved.  The first byte says
 * whether frame, headers and payloads get the sums that they should have.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "protocol/base/err.h"
#include "receiver/repo/names.h"
#include "receiver/repo/pack.h"
#include "receiver/repo/vault.h"
#include "receiver/storage/storage_memory.h"
#include "tests/fuzz/fuzz.h"

static const struct repo_key REPOSITORY = { { 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
                                              0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f } };

static void put_sum(uint8_t *at, const uint8_t *data, size_t count)
{
    struct push p = { .at = at, .left = 8 };

    push_u64(&p, XXH3_64bits(data, count));
}

static void put_sums(uint8_t *data, size_t size, const struct repo_key *pack)
{
    size_t at = PACK_HEADER_BYTES;

    if (size < PACK_HEADER_BYTES + PACK_END_BYTES)
        return;
    memcpy(data + 8, REPOSITORY.b, sizeof REPOSITORY.b);
    memcpy(data + 24, pack->b, sizeof pack->b);
    put_sum(data + PACK_HEADER_BYTES - 8, data, PACK_HEADER_BYTES - 8);
    put_sum(data + size - 8, data + size - PACK_END_BYTES, PACK_END_BYTES - 8);
    size -= PACK_END_BYTES;
    while (at < size && size - at >= ENTRY_HEADER_BYTES) {
        struct pull p = { .at = data + at + 44, .left = 4 };
        size_t payload = pull_u32(&p);

        if (payload > size - at - ENTRY_HEADER_BYTES)
            break;
        put_sum(data + at + 48, data + at + ENTRY_HEADER_BYTES, payload);
        put_sum(data + at + 56, data + at, 56);
        at += ENTRY_HEADER_BYTES + payload;
    }
}

static int see(void *context, const struct entry_header *h, uint32_t offset, struct err *e)
{
    uint32_t *last = context;

    (void)e;
    FUZZ_CHECK(offset > *last || *last == 0);
    FUZZ_CHECK(h->plain_bytes > 0 && h->plain_bytes <= ENTRY_PLAIN_MAX);
    *last = offset;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t last = 0;
    struct pack_walk walk = { .read_data = true, .entry = see, .context = &last };
    struct repo_key key = { { 0xab } };
    struct storage *s;
    struct vault *v;
    object_name name;
    uint64_t bytes;
    uint8_t *copy;
    struct err e;

    if (size == 0)
        return 0;
    copy = fuzz_copy(data + 1, size - 1);
    if ((data[0] & 1) != 0)
        put_sums(copy, size - 1, &key);
    FUZZ_CHECK(storage_memory_new(&s, &e) == 0 && vault_new(&v, &REPOSITORY, &e) == 0);
    name_of_pack(name, &key);
    FUZZ_CHECK(storage_put(s, name, copy, size - 1, &e) == 0);
    fuzz_begin();
    if (pack_walk(s, v, &key, &walk, &bytes, &e) == 0)
        FUZZ_CHECK(bytes == size - 1);
    fuzz_end();
    vault_free(v);
    storage_close(s);
    free(copy);
    return 0;
}
