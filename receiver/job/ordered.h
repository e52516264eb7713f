/*
 * Work in several threads whose results are taken in the order in which it was found: blocks of a
 * disk are read, hashed and packed side by side, and stored one behind the other.
 */
#ifndef RECEIVER_JOB_ORDERED_H
#define RECEIVER_JOB_ORDERED_H

#include <stddef.h>

struct err;

enum { ORDERED_WORKERS_MAX = 8 };

struct ordered_config {
    unsigned workers;   /* 0: everything in the caller's thread */
    void *const *items; /* room for what is under way; more than workers, so that none waits */
    size_t item_count;  /* at least 1 */
    /* Fill an item with what comes next: 1, 0 when there is no more, -1.  The caller's thread. */
    int (*next)(void *context, void *item, struct err *e);
    /* The work on it: 0 or -1.  Any thread, several at once. */
    int (*work)(void *context, void *item, struct err *e);
    /* Its result, in order: 0 or -1.  The caller's thread. */
    int (*take)(void *context, void *item, struct err *e);
    void *context;
};

/* 0 when all is taken, or -1 with the first failure in order; no work is under way afterwards. */
int ordered_run(const struct ordered_config *config, struct err *e);

/* Workers that pay on this machine: its processors, at most ORDERED_WORKERS_MAX. */
unsigned ordered_workers(void);

#endif
