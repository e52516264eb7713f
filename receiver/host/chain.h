/*
 * What to read of a VM's disks, and whether it may be read: for each disk the chain of links from
 * the one that our snapshot froze, or from the disk itself where nothing writes to it, down to its
 * flat base.  Links of type vmfs, vmfsSparse and seSparse are read; everything else gets an outcome
 * of its own, never a guess.
 */
#ifndef RECEIVER_HOST_CHAIN_H
#define RECEIVER_HOST_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/base/err.h"

struct datastore_list;
struct host;
struct snapshot;
struct vm;

enum chain_way {
    CHAIN_BY_SNAPSHOT, /* take a snapshot, read what it freezes */
    CHAIN_DIRECTLY     /* no snapshot is possible or needed: the VM must stay off or suspended */
};

/*
 * How vm (with details) can be read.  why gets a warning for the user, or "".
 * 0, or -1 with ERR_UNSUPPORTED: a running VM whose devices forbid snapshots.
 */
int chain_way_of(const struct vm *vm, enum chain_way *way, char *why, size_t room, struct err *e);

enum { CHAIN_LINKS_MAX = 256 };

/* One link of a chain that is read: a descriptor and the one file beside it with its data. */
struct chain_link {
    char *descriptor_path, *data_path; /* absolute */
    char type[24];                     /* "vmfs", "vmfsSparse", "seSparse", as written */
    uint32_t cid;
};

enum chain_outcome {
    CHAIN_READ,        /* frozen below our snapshot (or would be: see chain_plan) */
    CHAIN_READ_DIRECT, /* read as it is; the VM is off or suspended */
    CHAIN_SKIPPED,     /* cannot be read, the rest of the VM can: the outcome is `partial` */
    CHAIN_REFUSED      /* a form that is not read: reason has ERR_UNSUPPORTED */
};

struct chain_disk {
    char slot[16];
    enum chain_outcome outcome;
    struct err reason; /* of CHAIN_SKIPPED and CHAIN_REFUSED; warning text of CHAIN_READ_DIRECT */
    uint64_t capacity_bytes; /* of every disk */
    char uuid[64];           /* ddb.uuid as written; the backing's where ddb has none; "" */
    /* CHAIN_READ and CHAIN_READ_DIRECT */
    struct chain_link *links; /* the tip first, the flat base last */
    size_t link_count;
    char adapter[24];    /* ddb.adapterType, "lsilogic" where missing */
    char content_id[40]; /* ddb.longContentID of the tip, "" where missing */
    bool thin;           /* the base */
    char *leaf_path;     /* absolute, of the live link above; NULL when there is none */
};

struct chain_plan {
    struct chain_disk *items;
    size_t count;
    bool before; /* made without a snapshot of a VM that will get one: a forecast */
};

/*
 * Read the VM's devices and descriptors anew and decide for each disk.  snapshot is ours, or NULL
 * before it is taken and for CHAIN_DIRECTLY.
 * 0, or -1: ERR_SOURCE (a disk does not stand on what our snapshot should have frozen, a descriptor
 * contradicts itself or its neighbour), host_vim's codes, ERR_SYSTEM.
 */
int chain_plan_read(struct host *h, const struct vm *vm, const struct snapshot *snapshot,
                    const struct datastore_list *stores, struct chain_plan *out, struct err *e);
void chain_plan_free(struct chain_plan *p);

/*
 * The same below a snapshot of ours that is the VM's current one, when another below it has gone
 * since: the file that it froze may have another name now, so the one right below the live link is
 * taken.  That the snapshot is the current one is for the caller to prove.
 */
int chain_plan_anew(struct host *h, const struct vm *vm, const struct datastore_list *stores,
                    struct chain_plan *out, struct err *e);

/*
 * After the last block (and on a timer): everything again, and compare.
 * 0, or -1: ERR_SOURCE (snapshot gone, chain, capacity or content id changed, VM switched on while
 * it was read directly).
 */
int chain_recheck(struct host *h, const struct vm *vm, const struct snapshot *snapshot,
                  const struct datastore_list *stores, const struct chain_plan *plan,
                  struct err *e);

#endif
