/* One run that adds generations of VMs of one host to a repository. */
#ifndef RECEIVER_JOB_REPO_JOB_H
#define RECEIVER_JOB_REPO_JOB_H

#include "receiver/job/run.h"

struct repo;

struct backup_options {
    struct run_options run;
    struct repo *repo;     /* open for writing, or with run.dry_run for reading */
    const char *repo_name; /* as the user wrote it */
    const char *const *vms;
    size_t vm_count;
    uint32_t block_bytes; /* of new disks; 0: the repository's */
    uint8_t ask_first;    /* enum asking_when */
    const char *const *tags;
    size_t tag_count;
};

/* As vms_run (vm_job.h) says. */
int repo_job(const struct backup_options *options, const struct run_events *events,
             struct run_result *out, struct err *e);

#endif
