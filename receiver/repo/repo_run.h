/*
 * Adding a generation.  The life of a run, in this order:
 *
 *     repo_run_begin       takes the VM's lock; finds the parent and what an unfinished run left
 *     repo_run_sink        one for each included disk, fed from one thread each, to the `end` call
 *     repo_run_file        configuration files of the VM
 *     repo_run_commit      from here the generation exists and the VM's snapshot may go
 *     repo_run_end
 *
 * Without commit, what is durable counts as held in the next run of the VM.
 *
 * Threads: several runs of one open repository may be under way at once, and the sinks of one run
 * may be used in parallel, one thread each; everything else of a run belongs to one thread.
 */
#ifndef RECEIVER_REPO_REPO_RUN_H
#define RECEIVER_REPO_REPO_RUN_H

#include "receiver/repo/repo.h"

struct sink;
struct repo_run;

/* Which VM: texts are copied. */
struct repo_vm {
    const char *host_uuid; /* of the ESXi machine, "local" for images; identity */
    const char *host_name; /* as the user calls it; information, and the HOST of HOST/VM@N */
    const char *uuid;      /* instance UUID; identity */
    const char *vmx_path;  /* tells VMs of one instance UUID apart */
    const char *name;      /* display name now */
    bool uuid_shared;      /* the host has more than one VM with this instance UUID */
};

/* One disk of the VM as the host has it; all disks of the VM are given, also those not wanted. */
struct repo_disk {
    const char *slot;        /* "scsi0:0" */
    const char *uuid;        /* ddb.uuid, or "" */
    const char *label;       /* for people: "[datastore1] web01/web01.vmdk"; may be "" */
    uint64_t capacity_bytes; /* a multiple of 512; may be 0 only when not included */
    bool included;           /* false: as in the parent, if it has the disk */
};

/* What the store made of it. */
struct repo_disk_state {
    bool is_new;            /* the parent does not have it */
    bool resumed;           /* durable blocks of an unfinished run count as held */
    uint64_t resumed_bytes; /* up to here */
    /* Blocks of the repository are known to be damaged: hints about changes must not be used, the
     * whole disk must be in the plan. */
    bool distrusted;
    uint32_t block_bytes;
    uint64_t capacity_bytes;
    uint64_t old_capacity_bytes; /* in the parent; 0 when new */
};

/* Valid after the sink's `end`. */
struct repo_disk_result {
    uint64_t changed_bytes; /* plain bytes of blocks that differ from the parent */
    uint64_t new_bytes;     /* plain bytes of blocks that the repository did not have */
    uint64_t stored_bytes;  /* bytes that it grew by for this disk, nodes included */
    struct digest root;
};

struct repo_run_options {
    uint32_t block_bytes; /* for new disks; 0: the repository's */
    bool no_parent;       /* say nothing of what is held: the source sends everything */
    bool only_look;       /* for a dry run: no lock, no sink, no commit; read-only will do */
    /* Whether the source asks before it sends (enum asking_when of the protocol).  ASKING_SLOW is
     * ASKING_NEVER in an encrypted repository; ASKING_ALWAYS reads there, in repo_run_begin, all
     * blocks of the host's generations. */
    uint8_t ask_when;
};

/*
 * 0, or -1: ERR_BUSY (another run of this VM), ERR_USAGE (a slot twice, a block size),
 * ERR_UNSUPPORTED (a capacity that is no multiple of 512), ERR_CORRUPT (the manifest of the newest
 * generation is unreadable), ERR_REFUSED (read-only), ERR_STOPPED, ERR_SYSTEM, ERR_NETWORK.
 */
int repo_run_begin(struct repo_run **out, struct repo *r, const struct repo_vm *vm,
                   const struct repo_run_options *options, const struct repo_disk *disks,
                   size_t count, struct err *e);

/* The number of the parent, 0 when this is the VM's first generation. */
uint64_t repo_run_parent(const struct repo_run *run);

/* When the parent's disks were frozen, seconds since 1970. */
uint64_t repo_run_parent_time(const struct repo_run *run);

/* What the repository has of the VM, for whoever remembers having put it there. */
struct repo_head {
    struct repo_key repository, vm;
    uint64_t number; /* of the parent; 0: none, and no key */
    struct repo_key key;
    uint64_t next; /* the number that this run's generation gets */
};
void repo_run_head(const struct repo_run *run, struct repo_head *out);

/*
 * Does the parent hold the disk whole, as far as is known?  Then *root is that of its content.
 * False for a new disk as well.
 */
bool repo_run_held(const struct repo_run *run, size_t index, struct digest *root);

/*
 * Forget what an unfinished run has stored of a disk: what comes now is told against the parent
 * alone.  Before its sink is asked for.
 */
void repo_run_unstage(struct repo_run *run, size_t index);

/* The VM's key in the repository: for pins and tags of what the run makes. */
void repo_run_vm(const struct repo_run *run, struct repo_key *out);

const struct repo_disk_state *repo_run_disk(const struct repo_run *run, size_t index);

/*
 * The sink of an included disk (protocol/stream/sink.h).  One for each disk and run; a stream that
 * is only re-opened keeps its sink.  Close it before repo_run_commit and repo_run_end; close makes
 * durable what has come.
 */
int repo_run_sink(struct repo_run *run, size_t index, struct sink **out, struct err *e);

int repo_run_result(const struct repo_run *run, size_t index, struct repo_disk_result *out);

/* A file that defines the VM.  The name comes from the host; it is made safe and unique. ERR_LIMIT,
 * ERR_SPACE, ERR_SYSTEM. */
int repo_run_file(struct repo_run *run, const char *name, const void *data, size_t count,
                  struct err *e);

/* What goes into the manifest for `list` and for summaries. */
struct repo_disk_facts {
    const char *read_path; /* "agent", "ssh-dd", "clone", "file" */
    uint64_t allocated_bytes, read_bytes, sampled_bytes, sent_bytes;
    uint64_t milliseconds;
};

struct repo_run_facts {
    int64_t time;             /* seconds since 1970: when the snapshot was taken */
    const char *kind;         /* "full" or "changed" */
    const char *outcome;      /* "ok" or "partial" */
    const char *consistency;  /* "quiesced", "crash", "off", "suspended" */
    const char *data_channel; /* "tcp", "ssh"; "" for local images */
    const char *read_path;
    const char *change_source;           /* "full", "digest", … */
    const char *snapshot;                /* its name, "" when none was taken */
    const struct repo_disk_facts *disks; /* one for each disk given to repo_run_begin */
};

struct repo_committed {
    uint64_t number;
    struct repo_key key; /* of the generation: `id` in lists */
};

/*
 * Every included disk must have had its `end`.  Makes packs and index durable and publishes the
 * manifest.  After 0 the generation exists whatever happens to this process.  -1: ERR_SPACE,
 * ERR_BUSY (a lock was lost), ERR_STOPPED, ERR_SYSTEM, ERR_NETWORK; then it does not exist, unless
 * the very last barrier failed, which leaves open what a crash would show.
 */
int repo_run_commit(struct repo_run *run, const struct repo_run_facts *facts,
                    struct repo_committed *out, struct err *e);

/* Free the run; gives the VM's lock back.  NULL is allowed. */
void repo_run_end(struct repo_run *run);

#endif
