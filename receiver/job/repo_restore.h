/* A generation of a repository becomes a folder of its own. */
#ifndef RECEIVER_JOB_REPO_RESTORE_H
#define RECEIVER_JOB_REPO_RESTORE_H

#include "receiver/job/run.h"

struct err;
struct generation_item;
struct repo;
struct repo_env;

struct repo_restored {
    uint64_t disks, bytes; /* capacity of all disks */
};

/*
 * Write the generation behind an item of a repo_list to the folder `to`, which must be absent or
 * empty (else ERR_REFUSED): images, descriptors, config/.  only: these slots and nothing else; each
 * must be there (ERR_NOT_FOUND).  Every block is proved by its id and each disk by its root.
 * 0, or -1: ERR_CORRUPT, ERR_SPACE, ERR_BUSY, ERR_STOPPED, ERR_SYSTEM; then nothing is left in
 * `to`.  env: warn, progress and stop are used.
 */
int repo_restore(struct repo *r, const struct generation_item *item, const struct disk_list *only,
                 const char *to, const struct repo_env *env, struct repo_restored *out,
                 struct err *e);

/*
 * Write one disk of the generation, and nothing else, to what output_takes_one_disk says
 * (receiver/restore/output.h): slot, or NULL where the generation has one disk only.  Every block
 * is proved before it goes out, the disk by its root at the end.
 * -1 also: ERR_USAGE (it has several disks), ERR_NOT_FOUND, and those of output_open.
 */
int repo_restore_disk(struct repo *r, const struct generation_item *item, const char *slot,
                      const char *to, bool force_device, const struct repo_env *env,
                      struct repo_restored *out, struct err *e);

#endif
