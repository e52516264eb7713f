#include "receiver/job/pacer.h"

#include <pthread.h>
#include <stdlib.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/stop.h"

enum { BURST_MS = 200, SECOND_US = 1000000, COUNT_MAX = 1 << 30 };

struct pacer {
    uint64_t rate;
    pthread_mutex_t lock; /* guards the rest */
    uint64_t due_us;      /* all that was taken has gone by then */
};

int pacer_new(struct pacer **out, uint64_t rate_bytes, struct err *e)
{
    struct pacer *p = calloc(1, sizeof *p);

    if (p == NULL)
        return err_sys(e, "getting memory");
    p->rate = rate_bytes;
    pthread_mutex_init(&p->lock, NULL);
    *out = p;
    return 0;
}

void pacer_free(struct pacer *p)
{
    if (p == NULL)
        return;
    pthread_mutex_destroy(&p->lock);
    free(p);
}

uint64_t pacer_due(struct pacer *p, size_t count, uint64_t now_ms)
{
    uint64_t now = now_ms * 1000, burst = BURST_MS * 1000, due;

    pthread_mutex_lock(&p->lock);
    /* Time in which nothing was taken is lost but for a little. */
    if (p->due_us + burst < now)
        p->due_us = now - burst;
    due = p->due_us;
    p->due_us += min_u64(count, COUNT_MAX) * SECOND_US / p->rate;
    pthread_mutex_unlock(&p->lock);
    return due > now ? (due - now) / 1000 : 0;
}

int pacer_take(struct pacer *p, size_t count, struct err *e)
{
    uint64_t wait_ms = pacer_due(p, count, io_clock_ms());

    return wait_ms > 0 ? stop_sleep(wait_ms, e) : stop_check(e);
}
