/*
 * What a run over VMs is asked (options), what it tells while it works (events), and what it leaves
 * (results).  The command line fills the options and shows events and results; the job reads
 * options and fills results.  The words in here are those of the summary on the command line's JSON
 * lines, so each enum has one table of names (run.c).
 *
 * Options are borrowed by the job for the time of the call.  Results belong to whoever holds the
 * struct run_result: free it with run_result_free.
 */
#ifndef RECEIVER_JOB_RUN_H
#define RECEIVER_JOB_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/base/err.h"
#include "protocol/block/digest.h"
#include "protocol/wire/messages.h"
#include "receiver/base/sizes.h"
#include "receiver/host/snapshot.h"

struct data_ports;
struct pacer;
struct state;
struct transport;

/* ---- Options ---- */

/* --data-channel */
enum data_choice { DATA_AUTO, DATA_TCP, DATA_SSH };

/* --data-security */
enum data_security { DATA_ENCRYPT, DATA_AUTH };

/* ADDR[:PORT]: a numeric address or a name; "" and 0 where it was not given. */
enum { DATA_ADDRESS_BYTES = 256 };
struct data_address {
    char address[DATA_ADDRESS_BYTES];
    uint16_t port;
};

struct data_options {
    enum data_choice channel;
    struct data_address listen; /* without address: the local address of the SSH connection; without
                                   port: 31031, 44046, 8000 in turn */
    struct data_address connect; /* what the agent dials; empty: what we listen on */
    enum data_security security;
};

/* Disks by slot: "scsi0:1". */
enum { DISK_SLOT_BYTES = 16 };
struct disk_list {
    const char *const *slots;
    size_t count;
};

/* How to (re)open the control connection; used for the first time and after it has died. */
struct run_connector {
    void *context;
    int (*open)(void *context, struct transport **out, struct err *e);
};

enum { PARALLEL_MAX = 16 };

/* What every run over VMs of a host takes. */
struct run_options {
    const char *host;      /* as the user wrote it, for messages and records */
    const char *host_name; /* of that: name or address alone */
    uint16_t host_port;
    const char *host_user;
    struct run_connector connect;
    struct state *state;  /* journal, install id */
    uint64_t lock_wait_s; /* 600 */
    struct data_options data;
    const char *agent_file; /* a file that was found; NULL: there is none, and that was said */
    const char *agent_dir;  /* NULL, or a datastore place "[ds] dir" */
    bool dry_run;           /* nothing is changed on either side */
    bool full;              /* hints and digests are ignored */
    bool yes;               /* questions are answered with yes */
    uint8_t compress;       /* as on the wire: COMPRESS_AUTO, 0 for none, 1..COMPRESS_LEVEL_MAX */
    uint64_t bwlimit;       /* bytes per second on the data channel; 0: none was given */
    enum snapshot_quiesce quiesce;
    struct disk_list exclude;
    struct disk_list only;         /* count 0: all */
    uint64_t max_snapshot_age_s;   /* 86400 */
    bool retain_snapshot;          /* the run's snapshot stays, as a hint for the next run */
    uint64_t max_retained_age_s;   /* 691200 */
    bool max_retained_age_given;   /* it then holds for those that are kept already, too */
    struct size_or_share min_free; /* 10 % */
    uint64_t stall_timeout_s;      /* 600 */
    int (*ask)(void *context, const char *question); /* 1 yes, 0 no; NULL: no terminal, so no */
    void *ask_context;
    unsigned parallel; /* VMs at once, at most PARALLEL_MAX; 0 as 1 */
    /* Set where several are at work: what they share.  NULL: nothing. */
    struct data_ports *ports;
    struct pacer *pacer; /* bwlimit holds for all of them together */
};

struct mirror_options {
    struct run_options run;
    const char *dir;
    const char *const *vms; /* names, patterns, #vmid, uuid:… as the user wrote them */
    size_t vm_count;
    bool keep_given;      /* else the value that the mirror remembers stays */
    uint32_t keep;        /* earlier generations kept as reverse deltas */
    uint32_t block_bytes; /* of disks that the mirror does not have yet; 0: its default */
};

/* ---- Results ---- */

enum vm_outcome { OUTCOME_OK, OUTCOME_PARTIAL, OUTCOME_FAILED, OUTCOME_SKIPPED };

/* In each of these, 0 means "not known (yet)" and is null in JSON. */
enum consistency {
    CONSISTENCY_UNKNOWN,
    CONSISTENCY_QUIESCED,
    CONSISTENCY_CRASH,
    CONSISTENCY_OFF,
    CONSISTENCY_SUSPENDED
};
enum data_carrier { CARRIER_UNKNOWN, CARRIER_TCP, CARRIER_SSH };
enum read_path {
    READ_PATH_UNKNOWN,
    READ_PATH_AGENT,
    READ_PATH_SSH_DD,
    READ_PATH_CLONE,
    READ_PATH_FILE /* an image of this machine */
};
enum change_source {
    CHANGE_UNKNOWN,
    CHANGE_FULL,
    CHANGE_DIGEST,
    CHANGE_RETAINED_SNAPSHOT,
    CHANGE_API,
    CHANGE_AUDIT
};

/* The word of the JSON summary for each; NULL for 0 of the enums with an unknown value. */
const char *vm_outcome_name(enum vm_outcome o);
const char *consistency_name(enum consistency c);
const char *data_carrier_name(enum data_carrier c);
const char *read_path_name(enum read_path p);
const char *change_source_name(enum change_source s);

struct disk_result {
    char disk[DISK_SLOT_BYTES];
    uint64_t capacity;
    enum read_path read_path;
    uint64_t allocated; /* bytes not known to be hole */
    uint64_t read;      /* bytes read from the source for the plan */
    uint64_t sampled;   /* bytes read only to check hints and maps */
    uint64_t changed;   /* plain bytes of blocks that differ from the store's last generation */
    uint64_t sent;      /* payload bytes on the data channel, source to sink */
    uint64_t stored;    /* bytes added to the store */
    bool root_known;
    struct digest root;
    uint64_t ms;
    bool left_out;  /* excluded, or not readable: see why */
    struct err why; /* code ERR_NONE when nothing is wrong with this disk */
};

enum { VM_UUID_BYTES = 48, GENERATION_ID_BYTES = 72 };

struct vm_result {
    char *vm; /* display name, raw */
    bool vmid_known;
    uint32_t vmid;
    char uuid[VM_UUID_BYTES]; /* instance UUID; "" when not known */
    uint64_t generation;      /* N; 0 when none was made */
    char id[GENERATION_ID_BYTES];
    enum vm_outcome outcome;
    bool cleanup_left; /* something of ours is still on the host */
    struct err why;    /* of a failure, of what made it partial, or of the clean-up */
    enum consistency consistency;
    enum data_carrier data_channel;
    enum read_path read_path;
    enum change_source change_source;
    struct disk_result *disks;
    size_t disk_count;
    uint64_t ms;
};

/* Empty value { 0 }. */
struct run_result {
    struct vm_result *vms;
    size_t count;
};

/*
 * Add a VM (its name is copied), or a disk to a VM, all zero otherwise; outcome starts as
 * OUTCOME_FAILED, so that forgetting to set it is no success.  The pointer is good until the next
 * addition to the same list.  NULL with ERR_SYSTEM.
 */
struct vm_result *run_result_add(struct run_result *r, const char *vm, struct err *e);
struct disk_result *vm_result_add_disk(struct vm_result *v, const char *slot, struct err *e);
void run_result_free(struct run_result *r);

/* Put the VMs of `from` behind those of r; `from` is empty afterwards.  ERR_SYSTEM. */
int run_result_move(struct run_result *r, struct run_result *from, struct err *e);

/* ---- Events ---- */

/* Where one disk of the VM in hand stands. */
struct disk_progress {
    const char *vm;
    const char *disk;
    const char *what; /* NULL for the stream of a disk; else other long work: "re-digesting …" */
    uint64_t done_bytes;  /* position: read, skipped as hole or as unchanged */
    uint64_t total_bytes; /* of the plan */
    uint64_t read_bytes;
    uint64_t sent_bytes;
    uint64_t same_bytes; /* read and found equal */
    bool ended;
};

/*
 * What a run tells while it works.  Any function may be NULL.  Calls may come from any thread; they
 * return at once.  Warnings need no event: log_warning reaches every report.
 */
struct run_events {
    void *context;
    /* Work on VM index (from 0) of count begins. */
    void (*vm_begin)(void *context, const char *vm, size_t index, size_t count);
    /* What is being done now, in a few words: "taking the snapshot". */
    void (*step)(void *context, const char *vm, const char *what);
    /* One line of the plan: "scsi0:0: 1.0 GiB, read below a snapshot, changes by digests". */
    void (*plan)(void *context, const char *vm, const char *line);
    void (*progress)(void *context, const struct disk_progress *p);
    /* Once for each VM of the result, also for an operand that names none. */
    void (*vm_end)(void *context, const struct vm_result *v);
};

#endif
