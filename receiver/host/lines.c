#include "receiver/host/lines.h"

#include <stdio.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"

int line_put(struct bytes *out, const char *key, const char *text, struct err *e)
{
    char hex[8];

    if (bytes_append(out, key, strlen(key), e) != 0 || bytes_append(out, "=", 1, e) != 0)
        return -1;
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        int n = 1;

        if (c < 0x20 || c == 0x7f || c == '\\')
            n = snprintf(hex, sizeof hex, "\\x%02x", c);
        else
            hex[0] = (char)c;
        if (bytes_append(out, hex, (size_t)n, e) != 0)
            return -1;
    }
    return bytes_append(out, "\n", 1, e);
}

bool line_text(const char *value, char *out, size_t room)
{
    size_t used = 0;

    while (*value != '\0') {
        unsigned byte = (unsigned char)*value;

        if (*value == '\\') {
            if (value[1] != 'x' || sscanf(value + 2, "%2x", &byte) != 1 || byte == 0 ||
                value[3] == '\0')
                return false;
            value += 4;
        } else {
            value++;
        }
        if (used + 1 >= room)
            return false;
        out[used++] = (char)byte;
    }
    out[used] = '\0';
    return true;
}

bool line_number(const char *value, uint64_t most, uint64_t *out)
{
    uint64_t number = 0;

    if (*value == '\0')
        return false;
    for (; *value != '\0'; value++) {
        if (*value < '0' || *value > '9' || !checked_mul(number, 10, &number) ||
            !checked_add(number, (uint64_t)(*value - '0'), &number) || number > most)
            return false;
    }
    *out = number;
    return true;
}

bool line_hex(const char *value, size_t digits)
{
    return strspn(value, "0123456789abcdef") == digits && value[digits] == '\0';
}
