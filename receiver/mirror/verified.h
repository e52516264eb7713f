/* When generations were last read wholly without a fault (record `verified`). */
#ifndef RECEIVER_MIRROR_VERIFIED_H
#define RECEIVER_MIRROR_VERIFIED_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct store;

struct verified {
    uint64_t (*at)[2]; /* generation, time; ascending */
    size_t count;
};

/* -1: ERR_NOT_FOUND (never), ERR_CORRUPT, ERR_SYSTEM. */
int verified_load(struct verified *out, const struct store *s, struct err *e);
/* 0 when never. */
int64_t verified_time(const struct verified *v, uint64_t generation);
/* All these generations were read at this time; what is no longer kept is forgotten. */
int verified_note(const struct store *s, const uint64_t *generations, size_t count, int64_t time,
                  struct err *e);
void verified_free(struct verified *v);

#endif
