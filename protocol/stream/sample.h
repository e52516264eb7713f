/*
 * A check of what a map claims: 64 random MiB (or all, if there is less) of the ranges that it
 * calls zeros are read and must be zeros.
 */
#ifndef PROTOCOL_STREAM_SAMPLE_H
#define PROTOCOL_STREAM_SAMPLE_H

#include <stdint.h>

struct err;
struct sample;
struct source;

enum { SAMPLE_COUNT = 64, SAMPLE_BYTES = 1 << 20 };

enum sample_result {
    SAMPLE_AGAIN,  /* one was read: call again */
    SAMPLE_CLEAN,  /* all were zeros */
    SAMPLE_MISS,   /* data at *offset_bytes, where the map says zeros */
    SAMPLE_FAILED, /* the error says why */
};

/* 0, or -1 (ERR_SYSTEM). */
int sample_new(struct sample **out, struct source *source, struct err *e);
void sample_free(struct sample *s); /* NULL is allowed */

enum sample_result sample_next(struct sample *s, uint64_t *offset_bytes, struct err *e);

/* Bytes read so far. */
uint64_t sample_bytes(const struct sample *s);

#endif
