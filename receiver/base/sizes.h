/*
 * Sizes, durations, rates and percentages as people write and read them.  Parsing is strict ASCII:
 * no sign, no blank, no fraction, no other digits; the whole text must be used.  Errors are
 * ERR_USAGE and quote the text.  Suffixes are powers of 1024: k, M, G, T (either case).
 */
#ifndef RECEIVER_BASE_SIZES_H
#define RECEIVER_BASE_SIZES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

/* A whole number between low and high, decimal digits only. */
int number_parse(uint64_t *out, const char *text, uint64_t low, uint64_t high, struct err *e);

/* "4096", "64k", "1G" in bytes; ERR_USAGE also past 2^63 - 1. */
int size_parse(uint64_t *out_bytes, const char *text, struct err *e);

/* A size that may be a share: "10%" (1 to 100) or "5G". */
struct size_or_share {
    bool is_share;
    uint64_t bytes;   /* unless is_share */
    unsigned percent; /* if is_share */
};
int size_or_share_parse(struct size_or_share *out, const char *text, struct err *e);

/* "30s", "5m", "2h", "7d"; a bare number is seconds.  At most 10 years. */
int duration_parse(uint64_t *out_seconds, const char *text, struct err *e);

/* Bytes per second: a size, also with "/s"; at least 1 KiB/s: no value means "no limit". */
int rate_parse(uint64_t *out_bytes_per_second, const char *text, struct err *e);

/* Room for every text below. */
enum { SIZE_TEXT_BYTES = 24 };

/* "0 B", "512 B", "1.5 KiB", "40.0 GiB": three or four digits that matter. */
char *size_text(char out[SIZE_TEXT_BYTES], uint64_t bytes);
/* The same for narrow columns: "0", "512B", "1.5K", "40.0G". */
char *size_text_short(char out[SIZE_TEXT_BYTES], uint64_t bytes);
/* "112 MiB/s" of bytes in ms milliseconds; "-" when ms is 0. */
char *rate_text(char out[SIZE_TEXT_BYTES], uint64_t bytes, uint64_t ms);
/* "12s", "3m05s", "2h07m", "3d04h". */
char *duration_text(char out[SIZE_TEXT_BYTES], uint64_t seconds);
/* A share of whole in percent, rounded down, so that "100 %" means all of it; "-" of nothing. */
char *share_text(char out[SIZE_TEXT_BYTES], uint64_t part, uint64_t whole);

#endif
