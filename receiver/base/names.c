#include "receiver/base/names.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

size_t utf8_character(const char *text)
{
    const uint8_t *b = (const uint8_t *)text;
    uint32_t code, least;
    size_t count;

    if (b[0] == 0)
        return 0;
    if (b[0] < 0x80)
        return 1;
    if (b[0] >= 0xc2 && b[0] <= 0xdf) {
        count = 2;
        code = b[0] & 0x1f;
        least = 0x80;
    } else if ((b[0] & 0xf0) == 0xe0) {
        count = 3;
        code = b[0] & 0x0f;
        least = 0x800;
    } else if (b[0] >= 0xf0 && b[0] <= 0xf4) {
        count = 4;
        code = b[0] & 0x07;
        least = 0x10000;
    } else {
        return 0;
    }
    for (size_t i = 1; i < count; i++) {
        if ((b[i] & 0xc0) != 0x80) /* a NUL too */
            return 0;
        code = code << 6 | (b[i] & 0x3f);
    }
    if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    return count;
}

/* Must the character of `count` bytes (0: an invalid byte) at `at` be written as %XX? */
static bool must_escape(const char *raw, const char *at, size_t count)
{
    uint8_t b = (uint8_t)at[0];

    if (count == 0 || b < 0x20 || b == 0x7f || b == '/' || b == '\\')
        return true;
    if (count == 2 && b == 0xc2 && (uint8_t)at[1] < 0xa0) /* C1 control characters */
        return true;
    if (at == raw && (b == '.' || b == '-'))
        return true;
    return (b == ' ' || b == '.') && at[1] == 0;
}

void name_made_safe(const char *raw, char out[NAME_SAFE_ROOM])
{
    size_t used = 0;
    const char *at = raw;

    while (*at != 0) {
        size_t count = utf8_character(at);
        bool escape = must_escape(raw, at, count);
        size_t bytes = count > 0 ? count : 1;
        size_t needs = escape ? 3 * bytes : bytes;

        if (used + needs > NAME_SAFE_MAX)
            break;
        for (size_t i = 0; i < bytes; i++, at++) {
            if (escape)
                snprintf(out + used, 4, "%%%02X", (uint8_t)*at);
            else
                out[used] = *at;
            used += escape ? 3 : 1;
        }
    }
    /* A cut may have brought a blank or a dot to the end. */
    while (used > 0 && (out[used - 1] == ' ' || out[used - 1] == '.'))
        used--;
    out[used] = 0;
    if (used == 0)
        strcpy(out, "%00");
}
