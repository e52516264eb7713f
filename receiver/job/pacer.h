/*
 * A bound on the rate of several transfers together: who has taken more than its share of time
 * waits, whoever it is.  Any thread.
 */
#ifndef RECEIVER_JOB_PACER_H
#define RECEIVER_JOB_PACER_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct pacer;

/* rate: bytes per second, above 0.  ERR_SYSTEM. */
int pacer_new(struct pacer **out, uint64_t rate_bytes, struct err *e);
void pacer_free(struct pacer *p); /* NULL is allowed */

/* Wait until count more bytes are due.  0, or -1 with ERR_STOPPED. */
int pacer_take(struct pacer *p, size_t count, struct err *e);

/* The same without waiting: milliseconds until they are due, counted from now_ms. */
uint64_t pacer_due(struct pacer *p, size_t count, uint64_t now_ms);

#endif
