/*
 * The files of a chain of links, read by `dd` over exec channels where no agent may run.  Names are
 * resolved as everywhere on a host: a parent below one of its datastores, an extent beside its
 * descriptor.  Not many files have a dd of their own at a time, whatever the number of disks: hosts
 * allow ten channels.
 */
#ifndef RECEIVER_HOST_DD_FILES_H
#define RECEIVER_HOST_DD_FILES_H

#include <stdint.h>

struct datastore_list;
struct err;
struct host;
struct vmdk_files;

/*
 * h and stores are borrowed and outlive it.  stall_ms as in dd_source_open.  Its sources are
 * SOURCE_SEQUENTIAL.  0, or -1 with ERR_SYSTEM.
 */
int dd_files_new(struct vmdk_files **out, struct host *h, const struct datastore_list *stores,
                 uint64_t stall_ms, struct err *e);

#endif
