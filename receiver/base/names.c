#include "receiver/base/names.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "receiver/base/utf8.h"

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
        uint32_t c;
        size_t count = utf8_decode(at, strnlen(at, 4), &c);
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
