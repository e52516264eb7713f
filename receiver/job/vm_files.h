/* The files that define a VM, read from the host for a store: configuration, never data. */
#ifndef RECEIVER_JOB_VM_FILES_H
#define RECEIVER_JOB_VM_FILES_H

#include <stddef.h>

struct datastore_list;
struct err;
struct host;
struct vm;

/* A file in memory. */
struct vm_config_file {
    char *name; /* without its folder, raw */
    unsigned char *data;
    size_t bytes;
};

struct vm_config {
    struct vm_config_file *items;
    size_t count;
};

/*
 * Read them; call it before the snapshot, so that the configuration names the disks that are
 * stored. A file that is gone or cannot be read is warned of and left out; without the .vmx it is
 * -1. 0, or -1: ERR_SOURCE (no .vmx), ERR_NETWORK, ERR_SYSTEM, host_vim's codes.
 */
int vm_config_read(struct host *h, const struct vm *vm, const struct datastore_list *stores,
                   struct vm_config *out, struct err *e);
void vm_config_free(struct vm_config *c);

#endif
