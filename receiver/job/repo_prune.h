/*
 * Taking away what nothing refers to any more (receiver/repo/FORMAT.md 7).  Two halves, because the
 * repository is opened anew between them: looking and copying beside running backups, removing
 * alone.
 */
#ifndef RECEIVER_JOB_REPO_PRUNE_H
#define RECEIVER_JOB_REPO_PRUNE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct repo;
struct repo_prune;

struct prune_facts {
    uint64_t packs, bytes;           /* of the repository before */
    uint64_t live_entries;           /* what is referred to */
    uint64_t dead_packs, dead_bytes; /* nothing in them is */
    uint64_t copied_packs;           /* little in them is, or they are small, or damaged: what is
                                        alive there was copied into new packs */
    uint64_t copied_bytes;           /* room of the copies */
    uint64_t not_copied_packs;       /* for want of room: dead ones went first */
    uint64_t removed_packs, removed_bytes;
    uint64_t removed_partials; /* of runs that were cut so long ago that they no longer count */
    uint64_t removed_notes;    /* of damage that is gone */
    bool reserve_used;         /* the disk was full: the reserve was given up first */
    bool reserve_missing;      /* and there is no room yet to make it again */
};

/*
 * Find what is alive, and with dry_run false copy what is alive in packs that are mostly dead.
 * Whatever cannot be read, or is referred to and not there, ends it: ERR_CORRUPT.  Also ERR_SPACE,
 * ERR_STOPPED, ERR_SYSTEM, ERR_NETWORK.
 */
int repo_prune_plan(struct repo_prune **out, struct repo *r, bool dry_run, struct err *e);

/*
 * The same repository, opened exclusively: look at what came since, and remove.  Close the
 * repository afterwards, whatever is returned.
 */
int repo_prune_finish(struct repo_prune *p, struct repo *r, struct err *e);

/* So far. */
const struct prune_facts *repo_prune_facts(const struct repo_prune *p);
void repo_prune_free(struct repo_prune *p); /* NULL is allowed */

#endif
