#include "protocol/block/ask_id.h"

#include <sodium.h>

void ask_id_of_hash(const uint8_t key[ASK_KEY_BYTES], const uint8_t hash[ASK_HASH_BYTES],
                    uint8_t out[ASK_ID_BYTES])
{
    crypto_generichash(out, ASK_ID_BYTES, hash, ASK_HASH_BYTES, key, ASK_KEY_BYTES);
}

void ask_id_of(const uint8_t key[ASK_KEY_BYTES], const void *plain, size_t count,
               uint8_t out[ASK_ID_BYTES])
{
    uint8_t hash[ASK_HASH_BYTES];

    crypto_hash_sha256(hash, plain, count);
    ask_id_of_hash(key, hash, out);
}
