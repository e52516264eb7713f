#include "receiver/job/vms_pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/base/stop.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/job/pacer.h"
#include "receiver/ssh/transport.h"
#include "receiver/stream/data_listener.h"

enum { STACK_BYTES = 8 << 20 };

/* What the workers share. */
struct work {
    const struct vms_pool *pool;
    struct run_options options; /* those of the job, with what is shared in them */
    struct run_result *results; /* one for each VM; empty: not begun */
    bool *uuid_shared;
    struct data_ports *ports;
    struct pacer *pacer;
    pthread_mutex_t ask_lock; /* one question at a time: of the login, of the store */
    pthread_mutex_t lock;     /* guards the rest */
    size_t next;
    struct err failure; /* what ended the whole run */
};

struct worker {
    struct work *work;
    pthread_t thread;
    struct host host;
    struct transport *transport;
    bool runs, host_ready;
};

/* --- what only one may do at a time --- */

static int open_alone(void *context, struct transport **out, struct err *e)
{
    struct work *w = context;
    const struct run_connector *c = &w->pool->job->options->connect;
    int rc;

    pthread_mutex_lock(&w->ask_lock);
    rc = c->open(c->context, out, e);
    pthread_mutex_unlock(&w->ask_lock);
    return rc;
}

static int ask_alone(void *context, const char *question)
{
    struct work *w = context;
    const struct run_options *o = w->pool->job->options;
    int answer;

    pthread_mutex_lock(&w->ask_lock);
    answer = o->ask(o->ask_context, question);
    pthread_mutex_unlock(&w->ask_lock);
    return answer;
}

/* --- one VM --- */

/* A worker's first connection, or one in place of a dead one that nobody could renew. */
static int ensure_connected(struct worker *k, struct host **host, struct transport ***transport,
                            struct err *e)
{
    const struct vms_pool *pool = k->work->pool;
    struct transport *fresh;

    if (!k->runs) {
        *host = pool->host;
        *transport = pool->transport;
    } else {
        *host = &k->host;
        *transport = &k->transport;
    }
    if (**transport != NULL && (**transport)->ops->alive(**transport, NULL))
        return 0;
    if (open_alone(k->work, &fresh, e) != 0)
        return -1;
    if (k->runs && !k->host_ready) {
        if (host_join(&k->host, fresh, pool->host, e) != 0) {
            fresh->ops->close(fresh);
            return -1;
        }
        k->transport = fresh;
        k->host_ready = true;
        return 0;
    }
    host_rebind(*host, fresh);
    if (**transport != NULL)
        (**transport)->ops->close(**transport);
    **transport = fresh;
    return 0;
}

static void run_one(struct worker *k, size_t index, struct vm_result *v)
{
    struct work *w = k->work;
    const struct vms_pool *pool = w->pool;
    struct vms_job shared = *pool->job;
    struct vm_job job = {
        .job = &shared,
        .options = &w->options,
        .events = pool->events,
        .journal = pool->journal,
        .vm = &pool->vms->items[pool->picked[index]],
        .uuid_shared = w->uuid_shared[index],
    };

    shared.options = &w->options;
    if (pool->events->vm_begin != NULL)
        pool->events->vm_begin(pool->events->context, job.vm->name, index, pool->count);
    if (ensure_connected(k, &job.host, &job.transport, &v->why) == 0)
        pool->run(&job, v);
    if (pool->events->vm_end != NULL)
        pool->events->vm_end(pool->events->context, v);
}

/* --- the workers --- */

/* The next VM and its place among the results; NULL when there is no more to do. */
static struct vm_result *take_next(struct work *w, size_t *index)
{
    const struct vms_pool *pool = w->pool;
    struct vm_result *v = NULL;
    struct err e;

    pthread_mutex_lock(&w->lock);
    if (w->next < pool->count && w->failure.code == ERR_NONE && stop_check(&e) == 0) {
        *index = w->next++;
        v = run_result_add(&w->results[*index], pool->vms->items[pool->picked[*index]].name, &e);
        if (v == NULL)
            w->failure = e;
    }
    pthread_mutex_unlock(&w->lock);
    return v;
}

static void *worker_main(void *context)
{
    struct worker *k = context;
    struct transport **transport;
    struct vm_result *v;
    struct host *host;
    size_t index;
    struct err e;

    /* Before a VM is taken: where the host wants no more connections the others do the work. */
    if (k->runs && ensure_connected(k, &host, &transport, &e) != 0) {
        if (e.code != ERR_STOPPED)
            log_warning("%s; fewer VMs at once", e.text);
        return NULL;
    }
    while ((v = take_next(k->work, &index)) != NULL)
        run_one(k, index, v);
    return NULL;
}

static void worker_end(struct worker *k)
{
    if (k->host_ready)
        host_end(&k->host);
    if (k->transport != NULL)
        k->transport->ops->close(k->transport);
}

/* A VM's run was written for a stack like that of a program's first thread. */
static int start(struct worker *k, struct err *e)
{
    pthread_attr_t attributes;
    int rc;

    if (pthread_attr_init(&attributes) != 0)
        return err_set(e, ERR_SYSTEM, "no thread");
    rc = pthread_attr_setstacksize(&attributes, STACK_BYTES);
    if (rc == 0)
        rc = pthread_create(&k->thread, &attributes, worker_main, k);
    pthread_attr_destroy(&attributes);
    if (rc == 0)
        return 0;
    errno = rc;
    return err_sys(e, "starting a thread");
}

/* The caller is the first worker.  With fewer threads than wished it only takes longer. */
static int run_workers(struct work *w, size_t count, struct err *e)
{
    struct worker *workers = calloc(count, sizeof *workers);
    size_t started = 1;
    struct err why;

    if (workers == NULL)
        return err_sys(e, "getting memory");
    for (size_t i = 0; i < count; i++)
        workers[i].work = w;
    for (; started < count; started++) {
        workers[started].runs = true;
        if (start(&workers[started], &why) != 0) {
            workers[started].runs = false;
            log_warning("%s; fewer VMs at once", why.text);
            break;
        }
    }
    worker_main(&workers[0]);
    for (size_t i = 1; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        worker_end(&workers[i]);
    }
    free(workers);
    return 0;
}

/* --- the whole --- */

static bool is_shared(const struct vm_list *vms, size_t index)
{
    for (size_t i = 0; i < vms->count; i++)
        if (i != index && vms->items[index].instance_uuid[0] != 0 &&
            strcmp(vms->items[i].instance_uuid, vms->items[index].instance_uuid) == 0)
            return true;
    return false;
}

static int set_up(struct work *w, size_t workers, struct err *e)
{
    const struct vms_pool *pool = w->pool;

    w->options = *pool->job->options;
    w->options.connect = (struct run_connector){ .context = w, .open = open_alone };
    if (w->options.ask != NULL) {
        w->options.ask = ask_alone;
        w->options.ask_context = w;
    }
    w->options.parallel = (unsigned)workers;
    w->results = calloc(pool->count + 1, sizeof *w->results);
    w->uuid_shared = calloc(pool->count + 1, sizeof *w->uuid_shared);
    if (w->results == NULL || w->uuid_shared == NULL)
        return err_sys(e, "getting memory for VMs");
    /* Before any worker learns more of its VM. */
    for (size_t i = 0; i < pool->count; i++)
        w->uuid_shared[i] = is_shared(pool->vms, pool->picked[i]);
    if (workers > 1 && data_ports_new(&w->ports, e) != 0)
        return -1;
    if (workers > 1 && w->options.bwlimit > 0 && pacer_new(&w->pacer, w->options.bwlimit, e) != 0)
        return -1;
    w->options.ports = w->ports;
    w->options.pacer = w->pacer;
    return 0;
}

static int gather(struct work *w, struct run_result *out, struct err *e)
{
    for (size_t i = 0; i < w->pool->count; i++)
        if (run_result_move(out, &w->results[i], e) != 0)
            return -1;
    if (w->failure.code == ERR_NONE)
        return 0;
    *e = w->failure;
    return -1;
}

int vms_pool_run(const struct vms_pool *pool, struct run_result *out, struct err *e)
{
    struct work w = { .pool = pool };
    unsigned most = pool->job->options->parallel;
    size_t workers = (size_t)min_u64(most > 0 ? most : 1, pool->count);
    int rc = -1;

    pthread_mutex_init(&w.ask_lock, NULL);
    pthread_mutex_init(&w.lock, NULL);
    if (set_up(&w, workers > 0 ? workers : 1, e) != 0)
        goto out;
    rc = run_workers(&w, workers > 0 ? workers : 1, e);
    if (gather(&w, out, e) != 0)
        rc = -1;
    if (rc == 0)
        rc = stop_check(e);

out:
    for (size_t i = 0; w.results != NULL && i < pool->count; i++)
        run_result_free(&w.results[i]);
    free(w.results);
    free(w.uuid_shared);
    pacer_free(w.pacer);
    data_ports_free(w.ports);
    pthread_mutex_destroy(&w.lock);
    pthread_mutex_destroy(&w.ask_lock);
    return rc;
}
