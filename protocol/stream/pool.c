#include "protocol/stream/pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "protocol/base/err.h"
#include "protocol/stream/thread.h"

struct worker {
    struct pool *pool;
    pthread_t thread;
    unsigned number;
};

struct pool {
    pthread_mutex_t jobs_lock;
    pthread_cond_t jobs_come;
    struct job *first, *last;
    bool ending;
    unsigned workers;
    struct worker worker[POOL_WORKERS_MAX];
};

static void *work(void *context)
{
    struct worker *w = context;
    struct pool *p = w->pool;

    for (;;) {
        struct job *job;

        pthread_mutex_lock(&p->jobs_lock);
        while (p->first == NULL && !p->ending)
            pthread_cond_wait(&p->jobs_come, &p->jobs_lock);
        job = p->first;
        if (job != NULL) {
            p->first = job->next;
            if (p->first == NULL)
                p->last = NULL;
        }
        pthread_mutex_unlock(&p->jobs_lock);
        if (job == NULL)
            return NULL;
        job->run(job, w->number);
    }
}

int pool_new(struct pool **out, unsigned workers, struct err *e)
{
    struct pool *p = calloc(1, sizeof *p);

    if (p == NULL)
        return err_sys(e, "getting memory for workers");
    pthread_mutex_init(&p->jobs_lock, NULL);
    pthread_cond_init(&p->jobs_come, NULL);
    if (workers > POOL_WORKERS_MAX)
        workers = POOL_WORKERS_MAX;
    for (unsigned i = 0; i < workers; i++) {
        struct worker *w = &p->worker[i];

        w->pool = p;
        w->number = i;
        if (thread_start(&w->thread, work, w, NULL) != 0)
            break;
        p->workers++;
    }
    *out = p;
    return 0;
}

void pool_free(struct pool *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->jobs_lock);
    p->ending = true;
    pthread_cond_broadcast(&p->jobs_come);
    pthread_mutex_unlock(&p->jobs_lock);
    for (unsigned i = 0; i < p->workers; i++)
        pthread_join(p->worker[i].thread, NULL);
    pthread_cond_destroy(&p->jobs_come);
    pthread_mutex_destroy(&p->jobs_lock);
    free(p);
}

unsigned pool_workers(const struct pool *p)
{
    return p->workers;
}

void pool_submit(struct pool *p, struct job *job)
{
    if (p->workers == 0) {
        job->run(job, 0);
        return;
    }
    job->next = NULL;
    pthread_mutex_lock(&p->jobs_lock);
    if (p->last != NULL)
        p->last->next = job;
    else
        p->first = job;
    p->last = job;
    pthread_cond_signal(&p->jobs_come);
    pthread_mutex_unlock(&p->jobs_lock);
}
