/*
 * The digest of a block: XXH3-128 under a random secret of the disk, which says "has this position
 * changed since last time" and nothing else (it is no identity: see the block id of a repository).
 * The digest of a block of zeros is 0 by definition, whatever its length.
 */
#ifndef PROTOCOL_BLOCK_DIGEST_H
#define PROTOCOL_BLOCK_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    DIGEST_BYTES = 16,
    DIGEST_SECRET_BYTES = 192,
    BLOCK_BYTES_MIN = 16 << 10,
    BLOCK_BYTES_MAX = 4 << 20,
};

struct digest {
    uint8_t b[DIGEST_BYTES];
};

/* Random bytes, made once for each disk of a store; kept by the store, lent to the source end. */
struct digest_secret {
    uint8_t b[DIGEST_SECRET_BYTES];
};

bool block_is_zero(const void *data, size_t count);

/* The digest of a block; tests for zeros itself. */
struct digest digest_of(const struct digest_secret *secret, const void *data, size_t count);

/* The same for a block that is known not to be all zeros. */
struct digest digest_of_data(const struct digest_secret *secret, const void *data, size_t count);

static inline bool digest_equal(const struct digest *a, const struct digest *b)
{
    return memcmp(a->b, b->b, DIGEST_BYTES) == 0;
}

bool digest_is_zero(const struct digest *d);

enum { DIGEST_HEX_BYTES = 2 * DIGEST_BYTES + 1 };
void digest_hex(const struct digest *d, char out[DIGEST_HEX_BYTES]);

/* The inverse of digest_hex; false when text is anything else than 32 lower-case hex digits. */
bool digest_from_hex(struct digest *out, const char *text);

static inline bool block_size_valid(uint64_t block_bytes)
{
    return block_bytes >= BLOCK_BYTES_MIN && block_bytes <= BLOCK_BYTES_MAX &&
           (block_bytes & (block_bytes - 1)) == 0;
}

/* Blocks of a disk; the last one may be shorter. */
static inline uint64_t block_count_of(uint64_t capacity_bytes, uint32_t block_bytes)
{
    return capacity_bytes / block_bytes + (capacity_bytes % block_bytes != 0);
}

#endif
