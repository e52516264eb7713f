/* Local disk images into a repository, through the same path as the disks of a host's VMs. */
#ifndef RECEIVER_JOB_BACKUP_FILES_H
#define RECEIVER_JOB_BACKUP_FILES_H

#include "receiver/job/run.h"

struct err;
struct repo;

struct backup_files_options {
    struct repo *repo;        /* open for writing; NULL only with dry_run */
    const char *const *files; /* NAME=DISK: equal NAMEs are one VM's disks, in order */
    size_t count;
    const char *const *volumes; /* where parents and extents of VMDK chains may lie */
    size_t volume_count;
    uint32_t block_bytes; /* of new disks; 0: the repository's */
    uint8_t compress;     /* COMPRESS_AUTO, 0 for none, or a level */
    bool full;            /* nothing that is held counts */
    bool dry_run;         /* the images are opened, and nothing is stored */
    const char *const *tags;
    size_t tag_count;
};

/*
 * One generation for each NAME.  A file whose name ends with .vmdk, but not with -flat.vmdk, is the
 * tip of a VMDK chain; every other one is a raw image, whatever is in it: what a guest wrote never
 * decides how its disk is read.  Each VM's fate stands in *out; one VM's failure does not stop the
 * next. 0, or -1: ERR_USAGE (an operand that is no NAME=DISK), ERR_STOPPED, ERR_SYSTEM.
 */
int backup_files(const struct backup_files_options *options, const struct run_events *events,
                 struct run_result *out, struct err *e);

#endif
