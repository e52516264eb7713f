/*
 * The asking id of a block: what a source end names a block by when it asks whether the sink's
 * store has it.  BLAKE2b-256 under a key of the host, of the SHA-256 of the plain bytes: who keeps
 * SHA-256 as the block's id can make it without the bytes, and without the key it says nothing.
 * Vectors: PROTOCOL.md 8.
 */
#ifndef PROTOCOL_BLOCK_ASK_ID_H
#define PROTOCOL_BLOCK_ASK_ID_H

#include <stddef.h>
#include <stdint.h>

enum { ASK_KEY_BYTES = 32, ASK_ID_BYTES = 32, ASK_HASH_BYTES = 32 };

void ask_id_of(const uint8_t key[ASK_KEY_BYTES], const void *plain, size_t count,
               uint8_t out[ASK_ID_BYTES]);

/* The same from the SHA-256 of the plain bytes. */
void ask_id_of_hash(const uint8_t key[ASK_KEY_BYTES], const uint8_t hash[ASK_HASH_BYTES],
                    uint8_t out[ASK_ID_BYTES]);

#endif
