#include "receiver/base/clock.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "protocol/base/err.h"
#include "receiver/base/utf8.h"

/* 0000-01-01T00:00:00Z and 9999-12-31T23:59:59Z. */
#define TIME_MIN INT64_C(-62167219200)
#define TIME_MAX INT64_C(253402300799)

int64_t clock_now(void)
{
    return (int64_t)time(NULL);
}

static int64_t clamp(int64_t time)
{
    if (time < TIME_MIN)
        return TIME_MIN;
    return time > TIME_MAX ? TIME_MAX : time;
}

char *clock_format(char out[CLOCK_TEXT_BYTES], int64_t time)
{
    time_t t = (time_t)clamp(time);
    struct tm tm;

    gmtime_r(&t, &tm);
    snprintf(out, CLOCK_TEXT_BYTES, "%04u-%02u-%02uT%02u:%02u:%02uZ",
             (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)(tm.tm_mon + 1) % 100,
             (unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100,
             (unsigned)tm.tm_sec % 100);
    return out;
}

char *clock_format_local(char out[CLOCK_TEXT_BYTES], int64_t time)
{
    time_t t = (time_t)clamp(time);
    struct tm tm;

    localtime_r(&t, &tm);
    snprintf(out, CLOCK_TEXT_BYTES, "%04u-%02u-%02u %02u:%02u",
             (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)(tm.tm_mon + 1) % 100,
             (unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100);
    return out;
}

/* What stood in a text: which fields, and the zone. */
struct parts {
    unsigned year, month, day, hour, minute, second;
    unsigned fields; /* 3: a day, 4: an hour, 5: a minute, 6: a second */
    bool has_zone;
    int zone_minutes; /* east of Greenwich */
};

/* Exactly count digits; false, with nothing taken, when they are not there. */
static bool take_number(const char **at, unsigned count, unsigned *out)
{
    unsigned value = 0;

    for (unsigned i = 0; i < count; i++) {
        char c = (*at)[i];

        if (c < '0' || c > '9')
            return false;
        value = value * 10 + (unsigned)(c - '0');
    }
    *out = value;
    *at += count;
    return true;
}

static bool take_char(const char **at, const char *any)
{
    if (**at == 0 || strchr(any, **at) == NULL)
        return false;
    (*at)++;
    return true;
}

static bool take_zone(const char **at, struct parts *p)
{
    unsigned hours = 0, minutes = 0;
    bool west = **at == '-';

    if (take_char(at, "Zz")) {
        p->has_zone = true;
        return true;
    }
    if (!take_char(at, "+-"))
        return true;
    if (!take_number(at, 2, &hours) || !take_char(at, ":") || !take_number(at, 2, &minutes) ||
        hours > 23 || minutes > 59)
        return false;
    p->has_zone = true;
    p->zone_minutes = (int)(hours * 60 + minutes) * (west ? -1 : 1);
    return true;
}

static bool take_time(const char **at, struct parts *p)
{
    unsigned digit = 0;

    if (!take_number(at, 2, &p->hour) || p->hour > 23)
        return false;
    p->fields = 4;
    if (!take_char(at, ":"))
        return true;
    if (!take_number(at, 2, &p->minute) || p->minute > 59)
        return false;
    p->fields = 5;
    if (!take_char(at, ":"))
        return true;
    if (!take_number(at, 2, &p->second) || p->second > 60)
        return false;
    p->fields = 6;
    if (!take_char(at, "."))
        return true;
    if (!take_number(at, 1, &digit))
        return false;
    while (take_number(at, 1, &digit))
        ;
    return true;
}

static unsigned days_in(unsigned year, unsigned month)
{
    static const unsigned days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && leap);
}

static bool take_all(const char *text, struct parts *p)
{
    const char *at = text;

    memset(p, 0, sizeof *p);
    if (!take_number(&at, 4, &p->year) || !take_char(&at, "-") || !take_number(&at, 2, &p->month) ||
        !take_char(&at, "-") || !take_number(&at, 2, &p->day))
        return false;
    if (p->month < 1 || p->month > 12 || p->day < 1 || p->day > days_in(p->year, p->month))
        return false;
    p->fields = 3;
    if (take_char(&at, "Tt ") && (!take_time(&at, p) || !take_zone(&at, p)))
        return false;
    return *at == 0;
}

static int64_t time_of(const struct parts *p)
{
    struct tm tm = {
        .tm_year = (int)p->year - 1900,
        .tm_mon = (int)p->month - 1,
        .tm_mday = (int)p->day,
        .tm_hour = (int)p->hour,
        .tm_min = (int)p->minute,
        .tm_sec = (int)p->second,
        .tm_isdst = -1,
    };

    if (p->has_zone)
        return (int64_t)timegm(&tm) - p->zone_minutes * 60;
    return (int64_t)mktime(&tm);
}

int clock_parse(int64_t *out, const char *text, struct err *e)
{
    struct parts p;
    char shown[64];

    if (!take_all(text, &p) || p.fields != 6 || !p.has_zone) {
        utf8_show(shown, sizeof shown, text);
        return err_set(e, ERR_FORMAT, "\"%s\" is no time like 2026-11-20T08:15:00Z", shown);
    }
    *out = time_of(&p);
    return 0;
}

int clock_parse_span(struct clock_span *out, const char *text, struct err *e)
{
    static const int64_t length[] = { [4] = 3600, [5] = 60, [6] = 1 };
    struct parts p, next;
    char shown[64];

    if (!take_all(text, &p)) {
        utf8_show(shown, sizeof shown, text);
        return err_set(e, ERR_USAGE, "\"%s\" is no date like 2026-11-20 or 2026-11-20T14:30",
                       shown);
    }
    out->from = time_of(&p);
    if (p.fields > 3) {
        out->end = out->from + length[p.fields];
        return 0;
    }
    /* A local day may have 23 or 25 hours; mktime knows where the next one starts. */
    next = p;
    next.day++;
    out->end = time_of(&next);
    return 0;
}
