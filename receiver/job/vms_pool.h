/* Several VMs of a host at once: each worker has a connection of its own.  Inside receiver/job. */
#ifndef RECEIVER_JOB_VMS_POOL_H
#define RECEIVER_JOB_VMS_POOL_H

#include "receiver/job/vm_job.h"

struct vm_list;

struct vms_pool {
    /* given, borrowed */
    const struct vms_job *job;
    const struct run_events *events;
    struct host *host; /* of the first worker, which is the caller */
    struct transport **transport;
    struct journal *journal;
    struct vm_list *vms;
    const size_t *picked; /* which of them, in the order of the results */
    size_t count;
    /* The run of one VM, in any of the threads. */
    void (*run)(const struct vm_job *job, struct vm_result *result);
};

/*
 * Run all of them, at most job->options->parallel at once.  Those that were begun stand in *out in
 * their order.  0 when the results tell everything, or -1: ERR_STOPPED, ERR_SYSTEM.
 */
int vms_pool_run(const struct vms_pool *pool, struct run_result *out, struct err *e);

#endif
