/*
 * A VMDK chain in files of this machine, as a user names it: the folder of the file that was named
 * and the folders of --volume are the only places that its descriptors can lead to.
 */
#ifndef RECEIVER_IMAGE_LOCAL_CHAIN_H
#define RECEIVER_IMAGE_LOCAL_CHAIN_H

#include <stddef.h>

struct err;
struct vmdk_chain;
struct vmdk_files;

enum { LOCAL_VOLUMES_MAX = 64 };

/* Empty value: { 0 }. */
struct local_chain {
    struct vmdk_files *files;
    struct vmdk_chain *chain;
    char *tip; /* the absolute name of the file that was named */
};

/*
 * Open the chain whose tip is file.  volumes: `DIR`, or `/vmfs/volumes/NAME=DIR` for a copy of a
 * datastore that absolute parent hints name.  flags: enum vmdk_flags.
 * 0, or -1: ERR_USAGE (a volume that is no folder), ERR_NOT_FOUND, and what vmdk_chain_open says;
 * then *out is empty.
 */
int local_chain_open(struct local_chain *out, const char *file, const char *const *volumes,
                     size_t volume_count, unsigned flags, struct err *e);
void local_chain_close(struct local_chain *l); /* the empty value is allowed */

#endif
