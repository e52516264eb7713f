#include "protocol/block/digest.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

bool block_is_zero(const void *data, size_t count)
{
    const uint8_t *b = data;
    uint64_t head[8];

    /* Most blocks that are not zero show it in their first bytes; the rest is one pass of OR. */
    if (count < sizeof head) {
        for (size_t i = 0; i < count; i++)
            if (b[i] != 0)
                return false;
        return true;
    }
    memcpy(head, b, sizeof head);
    for (size_t i = 0; i < 8; i++)
        if (head[i] != 0)
            return false;
    /* The first 64 bytes are zeros; the block is when each byte equals the one 64 before it. */
    return memcmp(b, b + sizeof head, count - sizeof head) == 0;
}

bool digest_is_zero(const struct digest *d)
{
    static const struct digest zero;

    return digest_equal(d, &zero);
}

struct digest digest_of_data(const struct digest_secret *secret, const void *data, size_t count)
{
    XXH128_canonical_t canonical;
    struct digest d;

    XXH128_canonicalFromHash(&canonical,
                             XXH3_128bits_withSecret(data, count, secret->b, sizeof secret->b));
    memcpy(d.b, canonical.digest, sizeof d.b);
    if (digest_is_zero(&d))
        d.b[DIGEST_BYTES - 1] = 1; /* 0 is kept for zeros */
    return d;
}

struct digest digest_of(const struct digest_secret *secret, const void *data, size_t count)
{
    if (block_is_zero(data, count))
        return (struct digest){ { 0 } };
    return digest_of_data(secret, data, count);
}

void digest_hex(const struct digest *d, char out[DIGEST_HEX_BYTES])
{
    static const char hex[] = "0123456789abcdef";

    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        out[2 * i] = hex[d->b[i] >> 4];
        out[2 * i + 1] = hex[d->b[i] & 15];
    }
    out[2 * DIGEST_BYTES] = 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

bool digest_from_hex(struct digest *out, const char *text)
{
    struct digest d;

    if (strlen(text) != 2 * DIGEST_BYTES)
        return false;
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        d.b[i] = (uint8_t)(high << 4 | low);
    }
    *out = d;
    return true;
}
