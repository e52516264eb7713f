/*
 * A few worker threads for a walk's blocks.  With 0 workers a job runs in the thread that submits
 * it, so the same walk works where no thread can be made.
 */
#ifndef PROTOCOL_STREAM_POOL_H
#define PROTOCOL_STREAM_POOL_H

struct err;
struct pool;

struct job {
    struct job *next;
    /* worker: 0 .. workers - 1, for things a worker owns; 0 without threads */
    void (*run)(struct job *job, unsigned worker);
};

enum { POOL_WORKERS_MAX = 16 };

/* With workers > 0 and no thread to be had the pool has 0 workers.  0, or -1 (ERR_SYSTEM). */
int pool_new(struct pool **out, unsigned workers, struct err *e);

/* Waits for the jobs under way; jobs not begun are run all the same.  NULL is allowed. */
void pool_free(struct pool *p);

unsigned pool_workers(const struct pool *p);

/* Run the job, first come first served.  The job lives until its run has returned. */
void pool_submit(struct pool *p, struct job *job);

#endif
