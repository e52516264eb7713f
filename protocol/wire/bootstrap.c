#include "protocol/wire/bootstrap.h"

#include <stdio.h>
#include <string.h>

#include "protocol/base/cursor.h"
#include "protocol/base/err.h"

enum { MAGIC_BYTES = 8 };

static const uint8_t magic[MAGIC_BYTES] = { 'V', 'M', 'F', 'B', '\r', '\n', 0x1a, '\n' };

/* Begins with a line end, so that it stands alone whatever was printed before it. */
static const char greeting_text[] = "\nvmferry-agent ";
enum { GREETING_TEXT_BYTES = sizeof greeting_text - 1, GREETING_DIGITS = 8 };
_Static_assert(GREETING_TEXT_BYTES + GREETING_DIGITS + 1 == GREETING_BYTES, "greeting");

void bootstrap_encode(const struct bootstrap *b, uint8_t out[BOOTSTRAP_BYTES])
{
    struct push p = { .at = out, .left = BOOTSTRAP_BYTES };

    push_copy(&p, magic, sizeof magic);
    push_u16(&p, WIRE_VERSION);
    push_u8(&p, b->aead_set);
    push_u8(&p, b->mode_set);
    push_u32(&p, b->workers_max);
    push_u64(&p, b->memory_max_bytes);
    push_u32(&p, b->life_max_s);
    push_u32(&p, b->silence_max_ms);
    push_copy(&p, b->secret.id, sizeof b->secret.id);
    push_copy(&p, b->secret.key, sizeof b->secret.key);
    memset(p.at, 0, p.left);
}

static int check_ranges(const struct bootstrap *b, struct err *e)
{
    if (b->workers_max > BOOTSTRAP_WORKERS_MAX)
        return err_set(e, ERR_LIMIT, "bootstrap: %u workers", b->workers_max);
    if (b->memory_max_bytes < BOOTSTRAP_MEMORY_MIN || b->memory_max_bytes > BOOTSTRAP_MEMORY_MAX)
        return err_set(e, ERR_LIMIT, "bootstrap: %llu bytes of memory",
                       (unsigned long long)b->memory_max_bytes);
    if (b->life_max_s == 0 || b->life_max_s > BOOTSTRAP_LIFE_MAX_S)
        return err_set(e, ERR_LIMIT, "bootstrap: a life of %u s", b->life_max_s);
    if (b->silence_max_ms < BOOTSTRAP_SILENCE_MIN_MS ||
        b->silence_max_ms > BOOTSTRAP_SILENCE_MAX_MS)
        return err_set(e, ERR_LIMIT, "bootstrap: a silence of %u ms", b->silence_max_ms);
    return 0;
}

int bootstrap_decode(struct bootstrap *b, const uint8_t in[BOOTSTRAP_BYTES], struct err *e)
{
    struct pull p = { .at = in, .left = BOOTSTRAP_BYTES };
    bool ours = memcmp(pull_bytes(&p, MAGIC_BYTES), magic, MAGIC_BYTES) == 0;
    uint16_t version = pull_u16(&p);

    if (!ours)
        return err_set(e, ERR_PEER, "not a bootstrap");
    if (version != WIRE_VERSION)
        return err_set(e, ERR_PEER, "bootstrap of version %u of the protocol, not %d", version,
                       WIRE_VERSION);
    b->aead_set = pull_u8(&p);
    b->mode_set = pull_u8(&p);
    b->workers_max = pull_u32(&p);
    b->memory_max_bytes = pull_u64(&p);
    b->life_max_s = pull_u32(&p);
    b->silence_max_ms = pull_u32(&p);
    pull_copy(&p, b->secret.id, sizeof b->secret.id);
    pull_copy(&p, b->secret.key, sizeof b->secret.key);
    for (size_t i = 0; i < p.left; i++)
        if (p.at[i] != 0)
            return err_set(e, ERR_PEER, "bootstrap: reserved bytes are not zero");
    if (b->aead_set == 0 || (b->aead_set & ~AEAD_SET_ALL) != 0 || b->mode_set == 0 ||
        (b->mode_set & ~RECORD_MODE_SET_ALL) != 0)
        return err_set(e, ERR_PEER, "bootstrap: ciphers 0x%02x, modes 0x%02x", b->aead_set,
                       b->mode_set);
    return check_ranges(b, e);
}

void bootstrap_greeting(uint8_t out[GREETING_BYTES])
{
    char text[GREETING_BYTES + 1];

    snprintf(text, sizeof text, "%s%0*u\n", greeting_text, GREETING_DIGITS, (unsigned)WIRE_VERSION);
    memcpy(out, text, GREETING_BYTES);
}

/* The version in a whole greeting, or 0. */
static uint32_t greeting_version(const uint8_t at[GREETING_BYTES])
{
    uint32_t version = 0;

    if (memcmp(at, greeting_text, GREETING_TEXT_BYTES) != 0 || at[GREETING_BYTES - 1] != '\n')
        return 0;
    for (size_t i = 0; i < GREETING_DIGITS; i++) {
        uint8_t digit = at[GREETING_TEXT_BYTES + i];

        if (digit < '0' || digit > '9')
            return 0;
        version = version * 10 + (uint32_t)(digit - '0');
    }
    return version;
}

size_t bootstrap_find_greeting(const uint8_t *buffer, size_t count, uint32_t *version)
{
    for (size_t i = 0; i + GREETING_BYTES <= count; i++) {
        uint32_t v = greeting_version(buffer + i);

        if (v != 0) {
            *version = v;
            return i + GREETING_BYTES;
        }
    }
    return 0;
}
