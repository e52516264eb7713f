/*
 * One run over VMs of a host, whatever store they go to: connect, clean up after earlier runs, and
 * for each VM look, take a snapshot, read, commit, give everything back.  The store is a table of
 * functions; mirror_job.c and repo_job.c have one each.
 */
#ifndef RECEIVER_JOB_VM_JOB_H
#define RECEIVER_JOB_VM_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "receiver/host/retained.h"
#include "receiver/job/run.h"

struct err;
struct host;
struct journal;
struct sink;
struct transport;
struct vm;
struct vm_job;

/* One disk of the VM as the host has it. */
struct store_disk {
    const char *slot, *uuid, *label;
    uint64_t capacity_bytes;
    bool included;
};

struct store_disk_facts {
    const char *read_path;
    uint64_t allocated_bytes, read_bytes, sampled_bytes, sent_bytes;
    uint64_t milliseconds;
};

/* What goes into the store's record of a generation. */
struct store_facts {
    int64_t time;
    const char *kind, *outcome, *consistency, *data_channel, *read_path, *change_source, *snapshot;
    const struct store_disk_facts *disks; /* one for each disk of begin */
    size_t count;
};

/* The generation that a commit made. */
struct store_made {
    uint64_t number;
    char id[GENERATION_ID_BYTES];
};

/* What a store has of the VM before this run. */
struct store_head {
    char store_id[RETAINED_STORE_ID_ROOM]; /* of the VM's place in this store, the same for ever */
    uint64_t generation;                   /* the newest; 0: none, and no id */
    char generation_id[GENERATION_ID_BYTES];
    uint64_t next; /* the number that a commit of this run would get */
};

/*
 * A store, for each VM in this order (with --parallel for several at once, each in a thread): open,
 * begin, head, then sinks, files, commit, complete, close.  `s` is what open made; close comes once
 * for it, also after a failure.  Codes are those of the store's own functions.
 */
struct vm_store {
    /* Find the VM's place; long work of the store may happen here. */
    int (*open)(const struct vm_job *job, void **s, struct err *e);
    /* *first: the store has no generation of this VM yet. */
    int (*begin)(void *s, const struct store_disk *disks, size_t count, bool *first, struct err *e);
    void (*head)(void *s, struct store_head *out);
    /* Does the newest generation have this disk, and is nothing wrong with it?  Then *root says
     * what it is. */
    bool (*held)(void *s, size_t index, struct digest *root);
    /* Throw away what an unfinished run has staged of a disk: before its sink is asked for. */
    int (*unstage)(void *s, size_t index, struct err *e);
    int (*sink)(void *s, size_t index, struct sink **out, struct err *e);
    int (*file)(void *s, const char *name, const void *data, size_t count, struct err *e);
    int (*commit)(void *s, const struct store_facts *facts, struct store_made *out, struct err *e);
    /* Bytes of an included disk, after the commit. */
    int (*result)(void *s, size_t index, uint64_t *changed_bytes, uint64_t *stored_bytes);
    /* Behind the commit, when the snapshot is gone; may turn the result into a failure.  NULL:
     * nothing is left to do. */
    void (*complete)(void *s, struct vm_result *result);
    void (*close)(void *s);
};

/* A run over VMs. */
struct vms_job {
    const struct run_options *options;
    const char *const *vms; /* names, patterns, #vmid, uuid:… as the user wrote them */
    size_t vm_count;
    const struct vm_store *store;
    const void *context;    /* for the store: its options */
    const char *store_name; /* what snapshots are for: "mirror /backup" */
};

/* One VM of it. */
struct vm_job {
    const struct vms_job *job;
    const struct run_options *options;
    const struct run_events *events;
    struct host *host;
    struct transport **transport;
    struct journal *journal;
    struct vm *vm;    /* details are added */
    bool uuid_shared; /* the host has another VM with its instance UUID */
};

/*
 * Each VM's fate, also of an operand that names none, stands in *out (which starts empty and is
 * freed by the caller in every case); one VM's failure does not stop the next. 0 when the VMs'
 * results tell everything, or -1 for what ended the run as a whole, as a rule before the first VM:
 * ERR_AUTH, ERR_NETWORK, ERR_UNSUPPORTED (no ESXi shell), ERR_STOPPED, ….
 */
int vms_run(const struct vms_job *job, const struct run_events *events, struct run_result *out,
            struct err *e);

/*
 * Store one VM and fill *result, whose outcome says how it went.  Whatever happens, the snapshot
 * and the agent are taken back, or result->cleanup_left is set.
 */
void vm_run(const struct vm_job *job, struct vm_result *result);

#endif
