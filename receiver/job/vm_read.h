/*
 * Reading the disks of one VM, whatever store they go to: which disks, the agent's place, the
 * snapshot, the session, the transfer, and taking everything back, in the order that keeps the host
 * safe.  A run over VMs (mirror_job.c) calls these in turn:
 *
 *     vm_read_look       devices and chains; which disks are wanted and which can be read
 *     vm_read_begin      agent in place, snapshot taken, chains read again, session open
 *     vm_read_transfer   all disks to their sinks
 *     vm_read_settle     the source did not change; the source end has closed everything
 *     vm_read_release    snapshot and agent are gone; in every case, also after a failure
 *     vm_read_free
 */
#ifndef RECEIVER_JOB_VM_READ_H
#define RECEIVER_JOB_VM_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/hole_map.h"
#include "receiver/host/chain.h"
#include "receiver/host/datastores.h"
#include "receiver/host/inventory.h"
#include "receiver/host/place.h"
#include "receiver/host/room.h"
#include "receiver/job/run.h"
#include "receiver/stream/transfer.h"

struct agent_session;
struct host;
struct journal;
struct sink;
struct snapshot;
struct transport;
struct vmdk_files;

/* One disk of the VM, in the order of the chain plan. */
struct read_disk {
    char slot[DISK_SLOT_BYTES];
    bool wanted;   /* not left out by --exclude-disk or --only-disk */
    bool readable; /* wanted and can be read */
    uint64_t capacity_bytes;
    char uuid[64];
    struct err why; /* wanted but not readable */
    struct hole_map holes;
    struct transfer_disk transfer; /* the caller sets its sink; the rest is ours */
};

struct vm_read {
    /* given, borrowed */
    const struct run_options *options;
    const struct run_events *events;
    struct host *host;
    struct transport **transport; /* the host's; replaced when it had to be opened anew */
    struct journal *journal;
    const struct vm *vm; /* with details */
    const struct datastore_list *stores;
    const char *store; /* what the snapshot is for: "mirror /backup" */
    const char *held;  /* token of a kept snapshot that we hold (retain.h); NULL */
    bool keeps;        /* our snapshot is to be kept behind the run */
    bool twice;        /* what lies below our snapshot is read twice before it is believed */
    bool audit;        /* holes that are only claimed are read */

    /* found */
    enum chain_way way;
    struct chain_plan plan;
    struct read_disk *disks;
    size_t disk_count;
    size_t readable;    /* disks to be read; 0: the host is left alone */
    size_t left_unread; /* wanted disks that cannot be read */
    struct room_guard room;
    struct placed placed;
    bool agent_placed;
    enum read_path read_path;
    struct snapshot *snapshot; /* NULL: none was taken, or it is gone */
    int64_t frozen;            /* when the disks were frozen, seconds since 1970 */
    enum consistency consistency;
    struct agent_session *session;
    struct vmdk_files *dd_files; /* for chains that are read by dd; made with the first */
    uint64_t next_room_ms, next_check_ms;
    bool orphaned; /* an agent was not seen to end: it may still hold the disks open */
    bool lost;     /* the connection could not be opened again, with all tries */
    char *listen_address, *dial_address;
};

/*
 * Learn the disks.  0, or -1: ERR_UNSUPPORTED (a wanted disk of a form that is not read; a running
 * VM that cannot be snapshotted), ERR_NOT_FOUND (--only-disk names none of its disks), the host's
 * codes.
 */
int vm_read_look(struct vm_read *r, struct err *e);

/* Everything up to the open session.  After -1 vm_read_release is still due. */
int vm_read_begin(struct vm_read *r, struct err *e);

/* 0 when every readable disk is in its sink (whose `end` was called). */
int vm_read_transfer(struct vm_read *r, struct err *e);

/*
 * After a transfer that failed because a change hint was wrong: a new session in which the disks
 * are read whole, below the same snapshot.  Their sinks must be set anew.
 */
int vm_read_again(struct vm_read *r, struct err *e);

/* 0 when nothing changed below us meanwhile; the source end has ended. */
int vm_read_settle(struct vm_read *r, struct err *e);

/* Connect again if the connection is dead, and see that no agent holds a disk open any more. */
int vm_read_quiet(struct vm_read *r, struct err *e);

/*
 * End the source end, remove snapshot and agent.  0, or -1: ERR_CLEANUP or ERR_NETWORK, something
 * of ours is left on the host and the journal knows of it.
 */
int vm_read_release(struct vm_read *r, struct err *e);

void vm_read_free(struct vm_read *r);

/* The least direct data channel of the disks. */
enum data_carrier vm_read_carrier(const struct vm_read *r);

#endif
