/* One VM into its mirror. */
#ifndef RECEIVER_JOB_MIRROR_VM_H
#define RECEIVER_JOB_MIRROR_VM_H

#include <stdbool.h>

#include "receiver/job/run.h"

struct err;
struct host;
struct journal;
struct transport;
struct vm;

struct mirror_vm_job {
    const struct mirror_options *options;
    const struct run_events *events;
    struct host *host;
    struct transport **transport;
    struct journal *journal;
    struct vm *vm;    /* details are added */
    bool uuid_shared; /* the host has another VM with its instance UUID */
};

/*
 * Bring the mirror up to date and fill *result, whose outcome says how it went.  Whatever happens,
 * the snapshot and the agent are taken back, or result->cleanup_left is set.
 */
void mirror_vm_run(const struct mirror_vm_job *job, struct vm_result *result);

#endif
