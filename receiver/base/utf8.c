#include "receiver/base/utf8.h"

#include <stdio.h>
#include <string.h>

#include "protocol/base/checked.h"

struct range {
    uint32_t first, last;
};

static bool in_ranges(const struct range *r, size_t count, uint32_t c)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (c > r[mid].last)
            low = mid + 1;
        else if (c < r[mid].first)
            high = mid;
        else
            return true;
    }
    return false;
}

size_t utf8_decode(const char *text, size_t count, uint32_t *out)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    const uint8_t *t = (const uint8_t *)text;
    size_t length;
    uint32_t c;

    if (t[0] < 0x80)
        length = 1, c = t[0];
    else if (t[0] >= 0xc2 && t[0] < 0xe0)
        length = 2, c = t[0] & 0x1fu;
    else if (t[0] >= 0xe0 && t[0] < 0xf0)
        length = 3, c = t[0] & 0x0fu;
    else if (t[0] >= 0xf0 && t[0] < 0xf5)
        length = 4, c = t[0] & 0x07u;
    else
        return 0;
    if (count < length)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((t[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (t[i] & 0x3fu);
    }
    if (c < least[length] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *out = c;
    return length;
}

bool utf8_is_hostile(uint32_t c)
{
    /* Unicode 15: categories Cc, Zl, Zp, and of Cf what moves or hides text, and noncharacters. */
    static const struct range ranges[] = {
        { 0x0000, 0x001f }, { 0x007f, 0x009f },   { 0x00ad, 0x00ad },   { 0x034f, 0x034f },
        { 0x061c, 0x061c }, { 0x115f, 0x1160 },   { 0x17b4, 0x17b5 },   { 0x180b, 0x180f },
        { 0x200b, 0x200f }, { 0x2028, 0x202e },   { 0x2060, 0x206f },   { 0x3164, 0x3164 },
        { 0xfdd0, 0xfdef }, { 0xfeff, 0xfeff },   { 0xffa0, 0xffa0 },   { 0xfff0, 0xfffb },
        { 0xfffe, 0xffff }, { 0x1bca0, 0x1bca3 }, { 0x1d173, 0x1d17a }, { 0xe0000, 0xe0fff },
    };

    return in_ranges(ranges, ARRAY_COUNT(ranges), c) || (c & 0xfffe) == 0xfffe;
}

unsigned utf8_columns_of(uint32_t c)
{
    static const struct range combining[] = {
        { 0x0300, 0x036f }, { 0x0483, 0x0489 },   { 0x0591, 0x05bd }, { 0x0610, 0x061a },
        { 0x064b, 0x065f }, { 0x0e34, 0x0e3a },   { 0x0e47, 0x0e4e }, { 0x1ab0, 0x1aff },
        { 0x1dc0, 0x1dff }, { 0x20d0, 0x20ff },   { 0x3099, 0x309a }, { 0xfe00, 0xfe0f },
        { 0xfe20, 0xfe2f }, { 0x1f3fb, 0x1f3ff },
    };
    static const struct range wide[] = {
        { 0x1100, 0x115f },   { 0x231a, 0x231b },   { 0x23e9, 0x23ec },   { 0x2614, 0x2615 },
        { 0x26a1, 0x26a1 },   { 0x2705, 0x2705 },   { 0x274c, 0x274c },   { 0x2b50, 0x2b50 },
        { 0x2e80, 0x303e },   { 0x3041, 0x4dbf },   { 0x4e00, 0xa4cf },   { 0xa960, 0xa97c },
        { 0xac00, 0xd7a3 },   { 0xf900, 0xfaff },   { 0xfe30, 0xfe6f },   { 0xff00, 0xff60 },
        { 0xffe0, 0xffe6 },   { 0x1f300, 0x1f64f }, { 0x1f680, 0x1f6ff }, { 0x1f900, 0x1faff },
        { 0x20000, 0x3fffd },
    };

    if (in_ranges(combining, ARRAY_COUNT(combining), c))
        return 0;
    return in_ranges(wide, ARRAY_COUNT(wide), c) ? 2 : 1;
}

size_t utf8_columns(const char *text)
{
    size_t left = strlen(text);
    size_t columns = 0;

    while (left > 0) {
        uint32_t c = 0;
        size_t length = utf8_decode(text, left, &c);

        columns += length == 0 ? 1 : utf8_columns_of(c);
        length += length == 0;
        text += length;
        left -= length;
    }
    return columns;
}

/* What one character is shown as; returns its length in piece. */
static size_t show_one(char piece[16], const char *at, size_t length, uint32_t c)
{
    if (length == 0)
        return (size_t)snprintf(piece, 16, "\\x%02x", (uint8_t)*at);
    if (c == '\n' || c == '\t')
        return (size_t)snprintf(piece, 16, c == '\n' ? "\\n" : "\\t");
    if (c < 0x80 && utf8_is_hostile(c))
        return (size_t)snprintf(piece, 16, "\\x%02x", c);
    if (utf8_is_hostile(c))
        return (size_t)snprintf(piece, 16, c > 0xffff ? "\\U%08x" : "\\u%04x", c);
    if (c == '\\' && at[1] != 0 && strchr("\\ntxuU", at[1]) != NULL)
        return (size_t)snprintf(piece, 16, "\\\\");
    memcpy(piece, at, length);
    return length;
}

bool utf8_show(char *out, size_t room, const char *text)
{
    size_t left = strlen(text);
    size_t at = 0;
    bool whole = true;

    while (left > 0) {
        char piece[16];
        uint32_t c = 0;
        size_t length = utf8_decode(text, left, &c);
        size_t count = show_one(piece, text, length, c);

        if (count >= room - at) {
            whole = false;
            break;
        }
        memcpy(out + at, piece, count);
        at += count;
        length += length == 0;
        text += length;
        left -= length;
    }
    out[at] = 0;
    return whole;
}

size_t utf8_cut(char *out, size_t room, const char *shown, size_t columns)
{
    static const char ellipsis[] = "\xe2\x80\xa6";
    bool fits = utf8_columns(shown) <= columns && strlen(shown) < room;
    size_t limit = fits || columns == 0 ? columns : columns - 1;
    size_t left = strlen(shown);
    size_t at = 0, taken = 0;

    while (left > 0) {
        uint32_t c = ' ';
        size_t length = utf8_decode(shown, left, &c);
        size_t bytes = length > 0 ? length : 1;
        size_t end = fits ? room : room - (sizeof ellipsis - 1);

        if (taken + utf8_columns_of(c) > limit || at + bytes >= end)
            break;
        memcpy(out + at, shown, bytes);
        at += bytes;
        taken += utf8_columns_of(c);
        shown += bytes;
        left -= bytes;
    }
    if (!fits && columns > 0) {
        memcpy(out + at, ellipsis, sizeof ellipsis - 1);
        at += sizeof ellipsis - 1;
        taken++;
    }
    out[at] = 0;
    return taken;
}
