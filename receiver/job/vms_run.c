#include "receiver/job/vm_job.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/base/state.h"
#include "receiver/base/stop.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/host/reaper.h"
#include "receiver/job/vms_pool.h"
#include "receiver/ssh/transport.h"

static bool asked_to_stop(void *context)
{
    (void)context;
    return stop_requested();
}

/*
 * What earlier runs (vm_uuid NULL), or the failed run of one VM, left on this host goes; what
 * cannot go is said, and stops nothing.  *left tells whether something stays.
 */
static int reap(struct host *h, struct journal *j, const struct run_options *o, const char *vm_uuid,
                bool *left, struct err *e)
{
    struct reaper_options options = {
        .vm_uuid = vm_uuid,
        .retained_age = o->max_retained_age_given ? o->max_retained_age_s : 0,
    };
    struct reaped_list list = { 0 };
    int rc = reaper_run(h, j, &options, &list, e);

    *left = rc != 0 || list.failed > 0 || list.waiting > 0;
    for (size_t i = 0; i < list.count; i++) {
        if (list.items[i].kind == REAPED_FAILED)
            log_warning("%s", list.items[i].text);
        else if (list.items[i].kind == REAPED_REMOVED)
            log_note("%s", list.items[i].text);
        else
            log_info("%s", list.items[i].text);
    }
    reaped_list_free(&list);
    return rc;
}

/* The VMs that the operands mean, each once, in their order; misses become results. */
struct choice {
    size_t *picked;
    size_t count;
};

static int add_failure(struct run_result *out, const struct run_events *events, const char *name,
                       const struct err *why, struct err *e)
{
    struct vm_result *v = run_result_add(out, name, e);

    if (v == NULL)
        return -1;
    v->outcome = OUTCOME_FAILED;
    v->why = *why;
    if (events->vm_end != NULL)
        events->vm_end(events->context, v);
    return 0;
}

static int choose(const struct vms_job *o, const struct vm_list *vms,
                  const struct run_events *events, struct choice *c, struct run_result *out,
                  struct err *e)
{
    size_t *found = calloc(vms->count + 1, sizeof *found);
    bool *taken = calloc(vms->count + 1, sizeof *taken);
    int rc = -1;

    c->picked = calloc(vms->count + 1, sizeof *c->picked);
    if (found == NULL || taken == NULL || c->picked == NULL) {
        err_sys(e, "getting memory for VMs");
        goto out;
    }
    for (size_t i = 0; i < o->vm_count; i++) {
        size_t count = 0;
        struct err why;

        if (vm_select(vms, o->vms[i], found, &count, &why) != 0) {
            if (add_failure(out, events, o->vms[i], &why, e) != 0)
                goto out;
            continue;
        }
        for (size_t k = 0; k < count; k++)
            if (!taken[found[k]]) {
                taken[found[k]] = true;
                c->picked[c->count++] = found[k];
            }
    }
    rc = 0;
out:
    free(found);
    free(taken);
    return rc;
}

/*
 * A snapshot of a failed run that came late may go now.  What the run itself could not remove is
 * left alone: it was tried three times a moment ago, and stays in the journal.
 */
static void tidy(const struct vm_job *job, const struct vm_result *v)
{
    bool left;
    struct err e;

    if (v->outcome != OUTCOME_FAILED || v->cleanup_left || job->options->dry_run ||
        !(*job->transport)->ops->alive(*job->transport, NULL))
        return;
    reap(job->host, job->journal, job->options, job->vm->instance_uuid, &left, &e);
}

static void run_one(const struct vm_job *job, struct vm_result *v)
{
    vm_run(job, v);
    tidy(job, v);
}

static int run_vms(const struct vms_job *o, const struct run_events *events, struct host *h,
                   struct transport **t, struct journal *j, struct run_result *out, struct err *e)
{
    struct vm_list vms = { 0 };
    struct choice c = { 0 };
    struct vms_pool pool = {
        .job = o,
        .events = events,
        .host = h,
        .transport = t,
        .journal = j,
        .vms = &vms,
        .run = run_one,
    };
    int rc = -1;

    if (host_vms(h, &vms, e) != 0 || choose(o, &vms, events, &c, out, e) != 0)
        goto out;
    pool.picked = c.picked;
    pool.count = c.count;
    rc = vms_pool_run(&pool, out, e);
out:
    free(c.picked);
    vm_list_free(&vms);
    return rc;
}

int vms_run(const struct vms_job *job, const struct run_events *events, struct run_result *out,
            struct err *e)
{
    const struct run_options *o = job->options;
    struct host_hooks hooks = { .stop = asked_to_stop };
    struct transport *t = NULL;
    struct journal *j = NULL;
    struct host h;
    bool host_ready = false, left;
    int rc = -1;

    if (journal_open(&j, state_fd(o->state), state_install_id(o->state), e) != 0)
        return err_add(e, "%s", state_dir(o->state));
    if (o->connect.open(o->connect.context, &t, e) != 0)
        goto out;
    if (host_init(&h, t, o->host_name, o->host_port, o->host_user, &hooks, e) != 0)
        goto out;
    host_ready = true;
    if (host_identify(&h, e) != 0)
        goto out;
    log_info("%s: %s", o->host_name, h.product);
    if (!o->dry_run && reap(&h, j, o, NULL, &left, e) != 0)
        goto out;
    rc = run_vms(job, events, &h, &t, j, out, e);

out:
    /* A failed login names the host itself; what belongs to one VM is in its result. */
    if (rc != 0 && host_ready && e->code != ERR_STOPPED)
        err_add(e, "%s", o->host_name);
    if (host_ready)
        host_end(&h);
    if (t != NULL)
        t->ops->close(t);
    journal_close(j);
    return rc;
}
