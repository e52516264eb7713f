/* Threads with small explicit stacks, as they must be on a host. */
#ifndef PROTOCOL_STREAM_THREAD_H
#define PROTOCOL_STREAM_THREAD_H

#include <pthread.h>

struct err;

enum { THREAD_STACK_BYTES = 512 << 10 };

/* 0, or -1 with ERR_SYSTEM: then the caller does the work in its own thread, or fails. */
int thread_start(pthread_t *out, void *(*run)(void *), void *context, struct err *e);

/* A condition variable whose waits use the clock of io_clock_ms. */
void cond_init(pthread_cond_t *c);

/* Wait until the condition is signalled or the clock reaches until_ms (0: no limit). */
void cond_wait_until(pthread_cond_t *c, pthread_mutex_t *lock, unsigned long long until_ms);

#endif
