#include "receiver/base/sizes.h"

#include <stdio.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/utf8.h"

enum { RATE_MIN = 1024, DURATION_MAX_DAYS = 3650 };

/* "TEXT: why", with the text made fit to show. */
static int refuse(struct err *e, const char *text, const char *why)
{
    char shown[80];

    utf8_show(shown, sizeof shown, text);
    return err_set(e, ERR_USAGE, "\"%s\": %s", shown, why);
}

/* Leading decimal digits; returns what follows, NULL when there are none or they are too many. */
static const char *take_digits(uint64_t *out, const char *text)
{
    uint64_t value = 0;
    const char *at = text;

    for (; *at >= '0' && *at <= '9'; at++) {
        if (!checked_mul(value, 10, &value) || !checked_add(value, (uint64_t)(*at - '0'), &value))
            return NULL;
    }
    if (at == text)
        return NULL;
    *out = value;
    return at;
}

int number_parse(uint64_t *out, const char *text, uint64_t low, uint64_t high, struct err *e)
{
    uint64_t value = 0;
    const char *rest = take_digits(&value, text);
    char why[96];

    if (rest == NULL || *rest != 0 || value < low || value > high) {
        snprintf(why, sizeof why, "not a whole number from %llu to %llu", (unsigned long long)low,
                 (unsigned long long)high);
        return refuse(e, text, why);
    }
    *out = value;
    return 0;
}

/* A size followed by tail, which may be empty. */
static int size_parse_tail(uint64_t *out, const char *text, const char *tail, struct err *e)
{
    static const char letters[] = "kKmMgGtT";
    uint64_t value = 0;
    const char *rest = take_digits(&value, text);
    const char *letter;

    if (rest == NULL)
        return refuse(e, text, "not a size; write it like 512k, 64M, 10G or 2T");
    if (*rest != 0 && (letter = strchr(letters, *rest)) != NULL) {
        unsigned power = (unsigned)(letter - letters) / 2 + 1;

        if (!checked_mul(value, UINT64_C(1) << (10 * power), &value))
            return refuse(e, text, "the size is too large");
        rest++;
    }
    if (*rest != 0 && strcmp(rest, tail) != 0)
        return refuse(e, text, "not a size; write it like 512k, 64M, 10G or 2T");
    if (value > INT64_MAX)
        return refuse(e, text, "the size is too large");
    *out = value;
    return 0;
}

int size_parse(uint64_t *out_bytes, const char *text, struct err *e)
{
    return size_parse_tail(out_bytes, text, "", e);
}

int size_or_share_parse(struct size_or_share *out, const char *text, struct err *e)
{
    struct size_or_share value = { .is_share = false };
    const char *rest = take_digits(&value.bytes, text);

    if (rest != NULL && strcmp(rest, "%") == 0) {
        if (value.bytes < 1 || value.bytes > 100)
            return refuse(e, text, "a share is from 1% to 100%");
        value.is_share = true;
        value.percent = (unsigned)value.bytes;
        value.bytes = 0;
    } else if (size_parse(&value.bytes, text, NULL) != 0) {
        return refuse(e, text, "neither a size like 10G nor a share like 10%");
    }
    *out = value;
    return 0;
}

int duration_parse(uint64_t *out_seconds, const char *text, struct err *e)
{
    uint64_t value = 0, unit = 1;
    const char *rest = take_digits(&value, text);

    if (rest == NULL)
        return refuse(e, text, "not a time; write it like 30s, 5m, 2h or 7d");
    switch (*rest) {
    case 0:
    case 's':
        break;
    case 'm':
        unit = 60;
        break;
    case 'h':
        unit = 3600;
        break;
    case 'd':
        unit = 86400;
        break;
    default:
        return refuse(e, text, "not a time; write it like 30s, 5m, 2h or 7d");
    }
    if (*rest != 0 && rest[1] != 0)
        return refuse(e, text, "not a time; write it like 30s, 5m, 2h or 7d");
    if (!checked_mul(value, unit, &value) || value > DURATION_MAX_DAYS * UINT64_C(86400))
        return refuse(e, text, "more than ten years");
    *out_seconds = value;
    return 0;
}

int rate_parse(uint64_t *out_bytes_per_second, const char *text, struct err *e)
{
    uint64_t value = 0;

    if (size_parse_tail(&value, text, "/s", e) != 0)
        return -1;
    if (value < RATE_MIN)
        return refuse(e, text, "a rate is at least 1k (bytes per second)");
    *out_bytes_per_second = value;
    return 0;
}

char *size_text(char out[SIZE_TEXT_BYTES], uint64_t bytes)
{
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double value = (double)bytes / 1024;
    size_t unit = 0;

    if (bytes < 1024) {
        snprintf(out, SIZE_TEXT_BYTES, "%u B", (unsigned)bytes);
        return out;
    }
    /* 1023.95 would be printed as "1024": it belongs to the next unit. */
    while (value >= 1023.5 && unit + 1 < ARRAY_COUNT(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(out, SIZE_TEXT_BYTES, value < 99.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}

char *size_text_short(char out[SIZE_TEXT_BYTES], uint64_t bytes)
{
    char *blank;

    size_text(out, bytes);
    blank = strchr(out, ' ');
    if (blank != NULL) {
        blank[0] = bytes == 0 ? 0 : blank[1];
        blank[1] = 0;
    }
    return out;
}

char *rate_text(char out[SIZE_TEXT_BYTES], uint64_t bytes, uint64_t ms)
{
    double rate = ms == 0 ? 0 : (double)bytes * 1000 / (double)ms;
    char size[SIZE_TEXT_BYTES];

    if (ms == 0)
        snprintf(out, SIZE_TEXT_BYTES, "-");
    else
        snprintf(out, SIZE_TEXT_BYTES, "%.*s/s", SIZE_TEXT_BYTES - 3,
                 size_text(size, rate < 0x1p64 ? (uint64_t)rate : UINT64_MAX));
    return out;
}

char *duration_text(char out[SIZE_TEXT_BYTES], uint64_t seconds)
{
    unsigned long long s = seconds;

    if (s < 60)
        snprintf(out, SIZE_TEXT_BYTES, "%llus", s);
    else if (s < 3600)
        snprintf(out, SIZE_TEXT_BYTES, "%llum%02llus", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, SIZE_TEXT_BYTES, "%lluh%02llum", s / 3600, s / 60 % 60);
    else
        snprintf(out, SIZE_TEXT_BYTES, "%llud%02lluh", s / 86400, s / 3600 % 24);
    return out;
}

char *share_text(char out[SIZE_TEXT_BYTES], uint64_t part, uint64_t whole)
{
    if (whole == 0)
        snprintf(out, SIZE_TEXT_BYTES, "-");
    else if (part >= whole)
        snprintf(out, SIZE_TEXT_BYTES, "100 %%");
    else if (whole > UINT64_MAX / 100)
        snprintf(out, SIZE_TEXT_BYTES, "%u %%", (unsigned)(part / (whole / 100)));
    else
        snprintf(out, SIZE_TEXT_BYTES, "%u %%", (unsigned)(part * 100 / whole));
    return out;
}
