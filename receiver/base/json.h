/*
 * Our own JSON emitter.  It writes to a stream as it goes, keeps track of commas, and always makes
 * valid UTF-8: bytes that are no UTF-8 become U+FFFD, and everything that must not reach a terminal
 * is escaped as \uXXXX, so that a line of JSON is safe to look at.  Whole numbers are 64 bits wide.
 *
 *     json_start(&j, stdout);
 *     json_object(&j, NULL);
 *     json_text(&j, "vm", name);
 *     json_number(&j, "capacity", bytes);
 *     json_close(&j);
 *
 * key is NULL inside an array and at the top, a name inside an object: anything else is our own
 * mistake (assert).  Errors of the stream are the stream's: look at ferror in the end.
 */
#ifndef RECEIVER_BASE_JSON_H
#define RECEIVER_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { JSON_DEPTH_MAX = 16 };

struct json {
    FILE *out;
    unsigned depth;
    bool is_array[JSON_DEPTH_MAX];
    bool has_items[JSON_DEPTH_MAX];
};

void json_start(struct json *j, FILE *out);

void json_object(struct json *j, const char *key);
void json_array(struct json *j, const char *key);
void json_close(struct json *j); /* the innermost open object or array */

void json_text(struct json *j, const char *key, const char *text); /* NULL gives null */
void json_text_bytes(struct json *j, const char *key, const char *text, size_t count);
void json_number(struct json *j, const char *key, uint64_t value);
void json_integer(struct json *j, const char *key, int64_t value);
/* Seconds with milliseconds behind the point: 12.345. */
void json_seconds(struct json *j, const char *key, uint64_t ms);
void json_bool(struct json *j, const char *key, bool value);
void json_null(struct json *j, const char *key);
void json_time(struct json *j, const char *key, int64_t time); /* RFC 3339 in UTC */

/* The escaped text of a JSON string with its quotes, for tests and for single lines. */
void json_quote(FILE *out, const char *text, size_t count);

#endif
