/*
 * Wall-clock times as text.  Times are seconds since 1970 in UTC; they are information and never
 * decide order (generation numbers do).  For waiting and measuring see io_clock_ms.
 */
#ifndef RECEIVER_BASE_CLOCK_H
#define RECEIVER_BASE_CLOCK_H

#include <stdint.h>

struct err;

int64_t clock_now(void);

/* RFC 3339 in UTC, "2026-11-20T08:15:00Z"; years 0 to 9999, others are clamped. */
enum { CLOCK_TEXT_BYTES = 24 };
char *clock_format(char out[CLOCK_TEXT_BYTES], int64_t time);

/* Local time for people, "2026-11-20 09:15". */
char *clock_format_local(char out[CLOCK_TEXT_BYTES], int64_t time);

/*
 * RFC 3339 with any zone and any fraction (which is dropped), "2026-11-20T08:15:00.5+01:00".
 * 0, or -1 with ERR_FORMAT.
 */
int clock_parse(int64_t *out, const char *text, struct err *e);

/* The times that a person's text may mean: from <= t < end. */
struct clock_span {
    int64_t from;
    int64_t end;
};

/*
 * A day or a moment as in GEN: "2026-11-20" (that day), "2026-11-20T14" (that hour),
 * "2026-11-20T14:30" (that minute), "2026-11-20T14:30:05"; a blank serves as T; "Z" or "+01:00" may
 * follow a time, without it the time is local.  0, or -1 with ERR_USAGE.
 */
int clock_parse_span(struct clock_span *out, const char *text, struct err *e);

#endif
