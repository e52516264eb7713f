/* Inside of chain planning: the links of one disk, by their descriptors. */
#ifndef RECEIVER_HOST_CHAIN_LINKS_H
#define RECEIVER_HOST_CHAIN_LINKS_H

#include <stddef.h>

#include "receiver/host/chain.h"

struct descriptor;
struct host;
struct vm_disk;

/*
 * Read and parse the descriptor at path ("[ds] …" or absolute); absolute (DATASTORE_PATH_MAX bytes)
 * gets where it lies.  0, or -1: ERR_SOURCE (also where it is not to be found or is no
 * descriptor), ERR_LIMIT, host_read_file's codes.
 */
int chain_descriptor_read(struct host *h, const struct datastore_list *stores, const char *path,
                          char *absolute, struct descriptor **out, struct err *e);

/* What has been told of a disk before its links are read. */
struct chain_wish {
    struct host *host;
    const struct datastore_list *stores;
    const struct vm_disk *disk;
    const char *tip;          /* the link to begin with, "[ds] …" */
    const char *const *below; /* what the host says lies below it, in turn; it may say less */
    size_t below_count;
    enum chain_outcome outcome; /* of a chain that can be read */
};

/*
 * Follow the links from the tip down to the flat base and fill what out says of them; out->slot is
 * set.  0 with out->outcome as wished, or CHAIN_SKIPPED or CHAIN_REFUSED with a reason that names
 * the link; or -1: ERR_SOURCE (links that do not fit each other, or the disk).
 */
int chain_links_read(const struct chain_wish *wish, struct chain_disk *out, struct err *e);
void chain_links_free(struct chain_disk *d);

/* Set an outcome with its reason; both return 0. */
int chain_refuse(struct chain_disk *out, const char *path, const char *type, const char *what);
int chain_skip(struct chain_disk *out, const char *what);

#endif
