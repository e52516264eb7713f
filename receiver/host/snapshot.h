/*
 * Snapshots of a VM: ours, from the written intention to the proof that nothing is left, and the
 * reading of everybody's.  Ours are found by their name, which holds a random token, and removed by
 * their id, alone, after name and id were seen together in the tree.  No other snapshot is touched.
 */
#ifndef RECEIVER_HOST_SNAPSHOT_H
#define RECEIVER_HOST_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "receiver/host/journal.h"

struct err;
struct host;
struct vm;

enum {
    SNAPSHOT_COUNT_MAX = 1024,
    SNAPSHOT_NAME_ROOM = 96,
};

enum snapshot_quiesce { QUIESCE_TRY, QUIESCE_REQUIRE, QUIESCE_NO };

/* One snapshot of the tree. */
struct snapshot_node {
    unsigned id;
    char *name;
    int64_t created; /* by the host's clock, seconds since 1970; 0: unknown */
    bool quiesced;
    unsigned depth; /* 0: a root */
    size_t children;
};
struct snapshot_tree {
    struct snapshot_node *items; /* parents before their children */
    size_t count;
    unsigned current; /* id of the one that the VM stands on; 0: none, or the host does not tell */
};

/*
 * From get.snapshotinfo, or from snapshot.get where that cannot be read.
 * 0, or -1 with host_vim's codes (ERR_SOURCE when neither can be read), ERR_LIMIT.
 */
int snapshot_tree_read(struct host *h, unsigned vmid, struct snapshot_tree *out, struct err *e);
void snapshot_tree_free(struct snapshot_tree *t);
int snapshot_parse_info(const char *text, size_t bytes, struct snapshot_tree *out, struct err *e);
int snapshot_parse_get(const char *text, struct snapshot_tree *out, struct err *e);

/* Does the snapshot `lower` stand below `upper`, or are they one?  False when either is missing. */
bool snapshot_is_below(const struct snapshot_tree *t, unsigned lower, unsigned upper);

/* A name of the form vmferry-INSTALL-run|keep-TOKEN. */
struct snapshot_tag {
    char install_id[JOURNAL_INSTALL_ROOM];
    enum journal_purpose purpose;
    char token[JOURNAL_TOKEN_ROOM];
};
bool snapshot_tag_read(const char *name, struct snapshot_tag *out);
void snapshot_tag_write(const struct snapshot_tag *tag, char out[SNAPSHOT_NAME_ROOM]);

struct snapshot_wish {
    enum journal_purpose purpose;
    enum snapshot_quiesce quiesce;
    const char *store;  /* what it is for, shown in the description: "mirror /backup" */
    int64_t expires;    /* of a kept one; 0 */
    uint64_t wait_ms;   /* for another task or receiver at work on this VM (--lock-wait) */
    uint64_t create_ms; /* for the creation; 0: 20 minutes */
    const char *held;   /* token of a kept snapshot whose entry we hold ourselves; NULL */
};

/* Our snapshot. */
struct snapshot {
    unsigned vmid;
    unsigned id;
    char name[SNAPSHOT_NAME_ROOM];
    int64_t made; /* our clock: its age counts from here */
    bool quiesced;
    char quiesce_problem[240]; /* why a try to quiesce failed; "" otherwise */
    struct journal_ticket *ticket;
    unsigned newest_before; /* highest id of a snapshot before ours; ids only grow */
    struct snapshot_disk {
        char slot[16];
        char *file;     /* "[ds] a/a.vmdk" */
        size_t parents; /* links below it */
    } * disks;          /* the VM's disks before; they must come back */
    size_t disk_count;
};

/*
 * Wait at most wait_ms until no task and no other run is at work on the VM's snapshots; held as in
 * struct snapshot_wish.  ERR_BUSY: one still is, and the text names it; then host_vim's codes.
 */
int snapshot_wait_turn(struct host *h, struct journal *j, const struct vm *vm, uint64_t wait_ms,
                       const char *held, struct err *e);

/*
 * Take a snapshot of vm (with its disks: host_vm_details).  The intention is in the journal before
 * the host hears of it.  When this fails the host holds none of ours, or the entry stays in the
 * journal for the reaper and the text says so.
 *
 * 0, or -1:
 *   ERR_BUSY         another task, or another receiver's run, is at work on this VM
 *   ERR_SOURCE       refused, failed, or did not appear in time
 *   ERR_UNSUPPORTED  QUIESCE_REQUIRE and it cannot be quiesced
 *   ERR_SPACE        the datastore is full
 * then host_vim's codes.
 */
int snapshot_create(struct host *h, struct journal *j, const struct vm *vm,
                    const struct snapshot_wish *wish, struct snapshot **out, struct err *e);

/* Reading begins: a journal step. */
int snapshot_reading(struct host *h, struct snapshot *s, struct err *e);

/* Is it still there under our name and id?  ERR_SOURCE when not. */
int snapshot_check(struct host *h, const struct snapshot *s, struct err *e);

/* We have removed another snapshot below it: the VM's disks from before need not come back. */
void snapshot_moved(struct snapshot *s);

/*
 * Remove it and wait until the host has finished: the task has ended, the tree no longer shows it,
 * no consolidation is needed and the VM's disks are those from before.  Every reader of the disks
 * must have closed them.  Not ended by a stop request.  On success the journal entry is closed. 0,
 * or -1: ERR_CLEANUP (it or its files remain; the entry stays), ERR_BUSY, ERR_NETWORK. s must be
 * freed in every case.
 */
int snapshot_remove(struct host *h, struct snapshot *s, struct err *e);

/* Frees s (NULL is allowed).  What was not removed stays in the journal. */
void snapshot_free(struct snapshot *s);

/*
 * The same for an entry of the journal whose process is gone: the reaper's tool.  *removed tells
 * whether a snapshot was found and removed; nothing found is 0 as well, and the entry is untouched.
 * 0, or -1: ERR_REFUSED (two of our token, or another id: nothing was done), ERR_CLEANUP, ERR_BUSY,
 * …
 */
int snapshot_remove_entry(struct host *h, unsigned vmid, const struct journal_entry *entry,
                          bool *removed, struct err *e);

/* Remove another receiver's snapshot that the user named by its token (cleanup --foreign). */
int snapshot_remove_foreign(struct host *h, unsigned vmid, const char *token, bool *removed,
                            struct err *e);

/* What the host's snapshot tasks of a VM are doing. */
struct snapshot_task {
    bool open;         /* one is queued or running */
    uint64_t progress; /* of it, in percent */
    bool failed;    /* none is open, and the newest one is of the operation asked for and failed */
    char text[300]; /* why */
};

/* operation: a part of the task's name, "createSnapshot".  host_vim's codes, ERR_CORRUPT. */
int snapshot_task_look(struct host *h, unsigned vmid, const char *operation,
                       struct snapshot_task *out, struct err *e);

#endif
