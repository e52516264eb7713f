#include "protocol/stream/thread.h"

#include <errno.h>
#include <time.h>

#include "protocol/base/err.h"

int thread_start(pthread_t *out, void *(*run)(void *), void *context, struct err *e)
{
    pthread_attr_t attr;
    int rc;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
    rc = pthread_create(out, &attr, run, context);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        errno = rc;
        return err_sys(e, "starting a thread");
    }
    return 0;
}

void cond_init(pthread_cond_t *c)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
}

void cond_wait_until(pthread_cond_t *c, pthread_mutex_t *lock, unsigned long long until_ms)
{
    struct timespec until;

    if (until_ms == 0) {
        pthread_cond_wait(c, lock);
        return;
    }
    until.tv_sec = (time_t)(until_ms / 1000);
    until.tv_nsec = (long)(until_ms % 1000) * 1000000;
    pthread_cond_timedwait(c, lock, &until);
}
