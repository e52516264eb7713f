/*
 * The text form of what we keep in the state directory: lines of key=value, one fact each, with
 * control bytes and the backslash of a value as \xNN.
 */
#ifndef RECEIVER_HOST_LINES_H
#define RECEIVER_HOST_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes;
struct err;

/* Append "key=text".  0, or -1: ERR_LIMIT (the ceiling of out), ERR_SYSTEM. */
int line_put(struct bytes *out, const char *key, const char *text, struct err *e);

/* The value behind the sign into room bytes; false when it does not fit or is no such text. */
bool line_text(const char *value, char *out, size_t room);

/* A value that is a whole decimal number of at most `most`. */
bool line_number(const char *value, uint64_t most, uint64_t *out);

/* A value that is exactly so many lower-case hex digits. */
bool line_hex(const char *value, size_t digits);

#endif
