/*
 * May a run believe what the record of a kept snapshot claims: that the store's newest generation
 * has the disks as that snapshot froze them, so that only what was written above it since needs to
 * be read?
 *
 * What makes it true is this.  Nothing writes to the links at and below the one that the snapshot
 * froze, as long as they are the same files with the same content ids.  Everything written since
 * lies in the links above it, if the chain that is read stands on it.  And the store has that
 * content if its generation, or the root of the disk, is the recorded one.  Everything else that is
 * compared here is suspicion: where anything is not as it was left, all is read.
 */
#ifndef RECEIVER_JOB_HINT_JUDGE_H
#define RECEIVER_JOB_HINT_JUDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/digest.h"

struct chain_disk;
struct chain_plan;
struct retained;
struct snapshot_tree;
struct store_head;

enum {
    /* Every so many generations hints are ignored and everything is compared. */
    HINT_AUDIT_EVERY = 7,
    /*
     * How much the boot time of a host may seem to move: clocks drift and the answer takes time. A
     * restart moves it by no less than the time that the host had been up when the record was made.
     */
    HINT_BOOT_SECONDS = 30,
    HINT_WHY_ROOM = 300,
};

/* Is generation number `next` of a VM in a store an audit? */
bool hint_audit_is_due(uint64_t next);

/* What is known of host, VM and store before the run takes its snapshot. */
struct hint_view {
    const char *host_uuid;
    int64_t booted; /* by our clock; 0: not known */
    const char *vm_uuid, *vmx;
    unsigned vmid;
    const struct store_head *head;
};

/* Is there a doubt?  why (HINT_WHY_ROOM bytes) gets the first one. */
bool hint_doubt_before(const struct retained *r, const struct hint_view *v, char *why);

/*
 * The same below the run's own snapshot (id mine), by the VM's snapshots: name is the whole name
 * that the kept one must have.
 */
bool hint_doubt_tree(const struct retained *r, const struct snapshot_tree *tree, const char *name,
                     unsigned mine, char *why);

/* What the store says of a disk. */
struct hint_held {
    bool trusted;
    struct digest root;
};

/* What a judgement of one disk comes to. */
enum hint_verdict {
    HINT_GOOD,  /* only what lies above link *since of the chain has changed */
    HINT_WHOLE, /* this disk is read whole; the others are not concerned */
    HINT_DOUBT  /* something was done to the VM: no disk may use the hint */
};

enum hint_verdict hint_judge_disk(const struct retained *r, const struct chain_disk *c,
                                  const struct hint_held *held, size_t *since, char *why);

/*
 * Behind the removal of the snapshot before: is `now` what `then`, the plan that was read, must
 * have become?  On each disk at most one link has gone (none without `removed`), which was merged
 * into its neighbour; everything else is as it was.
 */
bool hint_doubt_after(const struct chain_plan *then, const struct chain_plan *now, bool removed,
                      char *why);

#endif
