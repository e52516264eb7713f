/*
 * The snapshot that one run keeps and the next one uses.  For each VM, in this order; the numbers
 * are those of the steps that no write can slip through:
 *
 *     retain_begin    (1) the VM's kept snapshot is held, its record checked against the store
 *     the snapshot of this run is created: (2), vm_read_begin
 *     retain_judge    (2) snapshots and chains against the record; which disks are read by the hint
 *     reading, END, commit: (3) and (4); the agent has ended: (5)
 *     retain_finish   (6) the kept snapshot before goes; (7) the new one's chains are read again
 * and its record is published retain_end
 *
 * A kept snapshot serves one store and one run: with that run's commit its record is of an old
 * generation, so it goes, whether the run keeps a new one or not.  A run of another store leaves it
 * alone and keeps none.  A run that fails before its commit leaves it as it was.
 */
#ifndef RECEIVER_JOB_RETAIN_H
#define RECEIVER_JOB_RETAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "receiver/host/retained.h"
#include "receiver/job/vm_job.h"

struct err;
struct journal_ticket;
struct vm_read;

/* Empty value { 0 }; freed with retain_end. */
struct retain {
    const struct vm_job *job;
    void *store; /* of job's vm_store, after its begin; replaced when it was opened anew */
    struct store_head head;
    struct journal_ticket *ticket; /* of the VM's kept snapshot, held; NULL: there is none */
    struct retained record;        /* of it */
    int64_t booted;                /* of the host; 0: not known */
    bool ours;                     /* it is kept for this store, so this run takes its place */
    bool usable;                   /* no doubt so far */
    bool keeps;                    /* this run's snapshot is to be kept */
    bool audit;                    /* hints and maps are ignored this time */
    size_t used;                   /* disks that are read by the hint */
    unsigned *ids;                 /* the VM's snapshots while it was read */
    size_t id_count;
};

/*
 * Hold the VM's kept snapshot, whatever store it is of, waiting for another process at most
 * --lock-wait.  0, or -1: ERR_BUSY, ERR_STOPPED, ERR_SYSTEM (the journal).
 */
int retain_begin(struct retain *k, const struct vm_job *job, void *store, struct err *e);

/* Its token, or NULL. */
const char *retain_token(const struct retain *k);

/*
 * Below the run's own snapshot: set what each disk is read by.  Why the hint is not used is said.
 * 0, or -1: the host's codes, ERR_SYSTEM.
 */
int retain_judge(struct retain *k, struct vm_read *r, struct err *e);

/*
 * Has the transfer failed because the hint is wrong?  RETAIN_MAYBE: the roots differ, of which what
 * is said to be kept is a part; whether that was it shows when everything is read.
 */
enum retain_fault { RETAIN_NONE, RETAIN_MAYBE, RETAIN_WRONG };
enum retain_fault retain_fault(const struct retain *k, const struct vm_read *r,
                               const struct err *why);

/* The hint is not used in this run any more. */
void retain_drop(struct retain *k);

/* It was wrong: the user is warned, and this host's change hints are off from now on. */
void retain_distrust(struct retain *k);

/* How the changes were found. */
enum change_source retain_source(const struct retain *k, const struct vm_read *r, bool first);

/*
 * Behind the commit, which made *made: r->snapshot is NULL afterwards if it is kept.  What is
 * doubtful is not kept, and said.  0, or -1: something is left on the host, and the journal knows.
 */
int retain_finish(struct retain *k, struct vm_read *r, const struct store_made *made,
                  struct err *e);

void retain_end(struct retain *k);

#endif
