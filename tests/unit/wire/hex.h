/* Hex text to bytes, for vectors; and the small seeded generator of the random tests. */
#ifndef TESTS_UNIT_WIRE_HEX_H
#define TESTS_UNIT_WIRE_HEX_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline size_t hex(uint8_t *out, size_t room, const char *text)
{
    size_t count = strlen(text) / 2;

    if (count > room || strlen(text) % 2 != 0)
        abort();
    for (size_t i = 0; i < count; i++) {
        unsigned v;

        if (sscanf(text + 2 * i, "%2x", &v) != 1)
            abort();
        out[i] = (uint8_t)v;
    }
    return count;
}

/* xorshift64: seed is not 0 */
static inline uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static inline void fill_random(uint64_t *seed, uint8_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (uint8_t)(next_random(seed) >> 32);
}

#endif
