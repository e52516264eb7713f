#include "tests/faults/collision.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/*
 * Why such pairs are easy: for long inputs each 8 bytes of data, XORed with a public key, add
 * low32 * high32 to one lane of the state and the data itself to its neighbour.  Where low32 of the
 * data is that of the key the product is 0 whatever high32 is.  Two such words of one lane, one
 * raised and the other lowered by the same amount in their high halves, leave all sums as they are.
 */
enum { STRIPE_BYTES = 64, STRIPE_KEY_STEP = 8 };

static uint64_t key_of(size_t stripe)
{
    uint64_t key;

    memcpy(&key, XXH3_kSecret + stripe * STRIPE_KEY_STEP, sizeof key);
    return key;
}

/* Words of lane 0 in the first two stripes of a block. */
void collision_make(uint8_t *a, uint8_t *b, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        a[i] = b[i] = (uint8_t)(i * 131 + i / 256);
    for (size_t stripe = 0; stripe < 2; stripe++) {
        uint64_t word = (key_of(stripe) & UINT32_MAX) | UINT64_C(0x1234567800000000);
        uint64_t other = stripe == 0 ? word + (UINT64_C(77) << 32) : word - (UINT64_C(77) << 32);

        memcpy(a + stripe * STRIPE_BYTES, &word, sizeof word);
        memcpy(b + stripe * STRIPE_BYTES, &other, sizeof other);
    }
}
