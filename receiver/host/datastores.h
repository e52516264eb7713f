/*
 * Datastores of a host, and the two ways to write a path in one: "[name] dir/file" as VMware shows
 * it,
 * "/vmfs/volumes/UUID/dir/file" as commands take it.  Names change, UUIDs do not, so commands
 * always get the second.
 */
#ifndef RECEIVER_HOST_DATASTORES_H
#define RECEIVER_HOST_DATASTORES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct host;

enum { DATASTORE_COUNT_MAX = 1024, DATASTORE_PATH_MAX = 2048 };

struct datastore {
    char *name;
    char *uuid;
    char *type; /* "VMFS-6", "NFS", … */
    char *path; /* "/vmfs/volumes/UUID" */
    uint64_t size_bytes;
    uint64_t free_bytes;
    bool files; /* VMs live here as plain files: VMFS, NFS, NFS41 */
};

struct datastore_list {
    struct datastore *items;
    size_t count;
};

/* Mounted ones.  0, or -1: ERR_SOURCE (no usable answer after three tries), ERR_NETWORK, … */
int host_datastores(struct host *h, struct datastore_list *out, struct err *e);
void datastore_list_free(struct datastore_list *l);

/* The datastore that a "[name] …" or "/vmfs/volumes/…" path lies in, or NULL. */
const struct datastore *datastore_of(const struct datastore_list *l, const char *path);

/*
 * Write the absolute path of "[name] dir/file" or of "/vmfs/volumes/name-or-uuid/dir/file"; parts
 * that are "..", "." or empty are refused.  out has room for DATASTORE_PATH_MAX bytes. 0, or -1:
 * ERR_NOT_FOUND (no such datastore), ERR_FORMAT (no path of either form), ERR_LIMIT.
 */
int datastore_absolute(const struct datastore_list *l, const char *path, char *out, struct err *e);

/* The inverse: "[name] dir/file". */
int datastore_shown(const struct datastore_list *l, const char *path, char *out, struct err *e);

/*
 * Resolve a name found in a file that lies in the folder of base (an absolute path): a bare name, a
 * relative path that stays in the same datastore, or an absolute one below /vmfs/volumes.
 * 0, or -1: ERR_REFUSED (leaves the datastore, or "vsan://…"), ERR_LIMIT, ERR_NOT_FOUND.
 */
int datastore_resolve(const struct datastore_list *l, const char *base, const char *name, char *out,
                      struct err *e);

int datastores_read_esxcli(const char *text, struct datastore_list *out, struct err *e);
int datastores_read_summary(const char *text, size_t bytes, struct datastore_list *out,
                            struct err *e);

#endif
