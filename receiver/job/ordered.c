#include "receiver/job/ordered.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/stream/pool.h"

struct ordered;

struct place {
    struct job job; /* first */
    struct ordered *o;
    void *item;
    bool done; /* guarded by o->lock */
    int rc;
    struct err why;
};

struct ordered {
    const struct ordered_config *config;
    struct pool *pool;
    pthread_mutex_t lock; /* guards `done` of the places */
    pthread_cond_t some_done;
    struct place *places;
    size_t head, count; /* the oldest place under way, how many there are */
};

static void run_job(struct job *job, unsigned worker)
{
    struct place *p = (struct place *)(void *)job;
    struct ordered *o = p->o;

    (void)worker;
    p->rc = o->config->work(o->config->context, p->item, &p->why);
    pthread_mutex_lock(&o->lock);
    p->done = true;
    pthread_cond_signal(&o->some_done);
    pthread_mutex_unlock(&o->lock);
}

/* 1 when another one is under way, 0 when there are no more. */
static int start_next(struct ordered *o, struct err *e)
{
    struct place *p = &o->places[(o->head + o->count) % o->config->item_count];
    int more = o->config->next(o->config->context, p->item, e);

    if (more <= 0)
        return more;
    p->done = false;
    o->count++;
    pool_submit(o->pool, &p->job);
    return 1;
}

static struct place *wait_oldest(struct ordered *o)
{
    struct place *p = &o->places[o->head];

    pthread_mutex_lock(&o->lock);
    while (!p->done)
        pthread_cond_wait(&o->some_done, &o->lock);
    pthread_mutex_unlock(&o->lock);
    o->head = (o->head + 1) % o->config->item_count;
    o->count--;
    return p;
}

static int run(struct ordered *o, struct err *e)
{
    int more = 1;

    while (more > 0 || o->count > 0) {
        struct place *p;

        while (more > 0 && o->count < o->config->item_count)
            more = start_next(o, e);
        if (more < 0)
            return -1;
        if (o->count == 0)
            break;
        p = wait_oldest(o);
        if (p->rc != 0) {
            *e = p->why;
            return -1;
        }
        if (o->config->take(o->config->context, p->item, e) != 0)
            return -1;
    }
    return 0;
}

int ordered_run(const struct ordered_config *config, struct err *e)
{
    struct ordered o = { .config = config };
    int rc = -1;

    pthread_mutex_init(&o.lock, NULL);
    pthread_cond_init(&o.some_done, NULL);
    o.places = calloc(config->item_count, sizeof o.places[0]);
    if (o.places == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    for (size_t i = 0; i < config->item_count; i++) {
        o.places[i].job.run = run_job;
        o.places[i].o = &o;
        o.places[i].item = config->items[i];
    }
    if (pool_new(&o.pool, config->workers, e) != 0)
        goto out;
    rc = run(&o, e);
    while (o.count > 0)
        wait_oldest(&o);

out:
    pool_free(o.pool);
    free(o.places);
    pthread_cond_destroy(&o.some_done);
    pthread_mutex_destroy(&o.lock);
    return rc;
}

unsigned ordered_workers(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);

    return count < 1 ? 1 : count > ORDERED_WORKERS_MAX ? ORDERED_WORKERS_MAX : (unsigned)count;
}
