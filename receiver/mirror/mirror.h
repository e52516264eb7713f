/*
 * The mirror store: one folder for each VM with plain sparse images, kept up to date by runs.
 * FORMAT.md beside this file is the normative layout, and mirror_read.h has list, find, check and
 * restore.
 *
 * The life of a run, in this order:
 *
 *     mirror_open_vm        find or make the folder, take the run lock, finish what a crash left
 *     mirror_run_begin      which disk is which; re-digest images that somebody touched (before the
 *                           snapshot is taken: it can take long)
 *     mirror_run_sink       one for each included disk, fed from one thread each, to the `end` call
 *     mirror_run_config_file
 *     mirror_run_commit     from here the run is good and the VM's snapshot may go
 *     mirror_run_apply      the images become the new generation
 *     mirror_run_end, mirror_close
 *
 * Leaving out commit keeps what is durable for the next run.
 * The program must ignore SIGXFSZ: a file size limit then is ERR_SPACE.
 *
 * Threads: the sinks of one run may be used in parallel, one thread each; everything else belongs
 * to one thread. The callbacks of struct mirror_env are called from whichever thread is at work.
 */
#ifndef RECEIVER_MIRROR_MIRROR_H
#define RECEIVER_MIRROR_MIRROR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/digest.h"

struct err;
struct sink;
struct mirror;
struct mirror_run;

enum {
    MIRROR_BLOCK_BYTES = 64 << 10, /* for new disks, unless asked otherwise */
    MIRROR_KEEP_MAX = 500,         /* earlier generations */
    MIRROR_DISKS_MAX = 256,        /* of a VM at one time */
    MIRROR_CONFIG_FILES_MAX = 256,
    MIRROR_CONFIG_BYTES_MAX = 16 << 20, /* of one file */
    MIRROR_TEXT_MAX = 1024,             /* bytes of any name given to the store */
    MIRROR_ID_HEX_BYTES = 33            /* an id as text, with its NUL */
};

/* What the store needs from its surroundings; every member may be empty. */
struct mirror_env {
    /* Something that a person should know and that is no failure; one line. */
    void (*warn)(void *context, const char *text);
    /* Long work without a stream: "re-digesting disk-scsi0-0.raw", bytes done and in all. */
    void (*progress)(void *context, const char *what, uint64_t done_bytes, uint64_t total_bytes);
    void *context;
    const atomic_bool *stop; /* turns true: long work ends with ERR_STOPPED */
    uint64_t lock_wait_ms;   /* 0: one try */
};

/* Which VM: texts are copied. */
struct mirror_vm {
    const char *host_uuid; /* of the ESXi machine; identity */
    const char *host_name; /* as the user calls it; information, and the HOST of HOST/VM@N */
    const char *uuid;      /* instance UUID; identity */
    const char *vmx_path;  /* tells VMs of one instance UUID apart */
    const char *name;      /* display name now */
    bool uuid_shared;      /* the host has more than one VM with this instance UUID */
};

/*
 * Open the mirror of a VM below the folder `dir`, which is made if only its last component is
 * missing.  The VM's folder is found by identity, whatever its name; a new one begins as a hidden
 * sibling. Takes the run lock (one run at a time), checks the target (sparse files, exclusive
 * create, rename, fsync of folders), and finishes a committed refresh if one is pending. With
 * dry_run nothing is made or changed; what would happen is warned of. 0, or -1: ERR_BUSY (another
 * run, or a reader while a refresh must be finished), ERR_UNSUPPORTED (no sparse files), ERR_SPACE,
 * ERR_CORRUPT (names the file), ERR_REFUSED (two folders claim the VM), ERR_STOPPED, ERR_SYSTEM.
 */
int mirror_open_vm(struct mirror **out, const char *dir, const struct mirror_vm *vm, bool dry_run,
                   const struct mirror_env *env, struct err *e);
void mirror_close(struct mirror *m); /* NULL is allowed; after mirror_run_end */

/* The number of the newest generation; 0 when there is none yet. */
uint64_t mirror_newest(const struct mirror *m);

/* What of the VM is here, for whoever remembers having put it here. */
struct mirror_head {
    char mirror[MIRROR_ID_HEX_BYTES];
    uint64_t number; /* of the newest generation; 0: none yet, and no id */
    char id[MIRROR_ID_HEX_BYTES];
};
void mirror_head(const struct mirror *m, struct mirror_head *out);

/* The stored number of earlier generations to keep. */
unsigned mirror_keep(const struct mirror *m);

/* --- a run --- */

struct mirror_run_options {
    int keep;             /* earlier generations from now on; -1: the stored value stays */
    bool keep_lower;      /* the user agreed to lose generations (--yes) */
    uint32_t block_bytes; /* for new disks; 0: MIRROR_BLOCK_BYTES */
};

/* One disk of the VM as the host has it; all disks of the VM are given, also those not wanted. */
struct mirror_disk {
    const char *slot;        /* "scsi0:0": letters, digits, one colon */
    const char *uuid;        /* ddb.uuid, or "" */
    const char *label;       /* for people: "[datastore1] web01/web01.vmdk"; may be "" */
    uint64_t capacity_bytes; /* a multiple of 512; may be 0 only when not included */
    uint64_t expected_bytes; /* what may come at most for a new disk, 0 unknown: is there room? */
    bool included;           /* false: its image, if there is one, stays as it is */
};

/* What the store made of it. */
struct mirror_disk_state {
    unsigned number; /* of the disk in this mirror, never reused; 0: excluded and never seen */
    bool is_new;     /* no generation has it yet */
    bool digests_distrusted; /* its image was re-digested: hints about changes must not be used, the
                                whole disk must be in the plan */
    bool resumed;            /* durable blocks of an earlier, unfinished run count as held */
    uint32_t block_bytes;
    uint64_t capacity_bytes;
    uint64_t old_capacity_bytes; /* of the newest generation; 0 when new */
    char old_slot[32];           /* "" when new or unchanged */
    char file[64];               /* name of the image after the run */
};

/* What a run did to one disk; valid after the sink's `end`, `stored` after mirror_run_commit. */
struct mirror_disk_result {
    uint64_t changed_bytes; /* plain bytes of blocks that differ from the newest generation */
    uint64_t stored_bytes;  /* bytes that the store grew by: data in holes, reverse delta */
    struct digest root;
};

/*
 * 0, or -1: ERR_REFUSED (keep is lowered without keep_lower), ERR_USAGE (keep or block size out of
 * range, a slot twice), ERR_UNSUPPORTED (a capacity that is no multiple of 512), ERR_SPACE (no room
 * or a file size limit), ERR_CORRUPT, ERR_STOPPED, ERR_SYSTEM.
 */
int mirror_run_begin(struct mirror_run **out, struct mirror *m,
                     const struct mirror_run_options *options, const struct mirror_disk *disks,
                     size_t count, struct err *e);

const struct mirror_disk_state *mirror_run_disk(const struct mirror_run *run, size_t index);

/*
 * Is the image just what its digests say, and nothing lost of it?  Then *root is that of its
 * content.  False for a new disk as well.
 */
bool mirror_run_held(const struct mirror_run *run, size_t index, struct digest *root);

/*
 * Throw away what an unfinished run has staged for a disk: what comes now is told against the
 * newest generation alone.  Before its sink is asked for.
 */
int mirror_run_unstage(struct mirror_run *run, size_t index, struct err *e);

/*
 * The sink of an included disk (protocol/stream/sink.h).  One at a time for each disk; close it
 * before asking for another, before mirror_run_commit and mirror_run_end.  A sink asked for anew
 * begins where the store's durable state is: a stream that is only re-opened keeps its sink. Close
 * makes durable what is staged.
 */
int mirror_run_sink(struct mirror_run *run, size_t index, struct sink **out, struct err *e);

int mirror_run_result(const struct mirror_run *run, size_t index, struct mirror_disk_result *out);

/*
 * A file that defines the VM (vmx, nvram, descriptors, …) for config/.  The name comes from the
 * host; it is made safe, and unique with a number.  0, or -1: ERR_LIMIT, ERR_SPACE, ERR_SYSTEM.
 */
int mirror_run_config_file(struct mirror_run *run, const char *name, const void *data, size_t count,
                           struct err *e);

/* What goes into the record of the generation, for `list` and for summaries. */
struct mirror_disk_facts {
    const char *read_path; /* "agent", "ssh-dd", "clone" */
    uint64_t allocated_bytes, read_bytes, sampled_bytes, sent_bytes;
    uint64_t milliseconds;
};

struct mirror_facts {
    int64_t time;             /* seconds since 1970: when the snapshot was taken */
    const char *kind;         /* "full" or "changed" */
    const char *outcome;      /* "ok" or "partial" */
    const char *consistency;  /* "quiesced", "crash", "off", "suspended" */
    const char *data_channel; /* "tcp", "ssh" */
    const char *read_path;
    const char *change_source;             /* "full", "digest", … */
    const char *snapshot;                  /* its name, "" when none was taken */
    const struct mirror_disk_facts *disks; /* one for each disk given to mirror_run_begin */
};

struct mirror_committed {
    uint64_t number;
    char id[MIRROR_ID_HEX_BYTES];
};

/*
 * Every included disk must have had its `end`.  Proves the digest roots, writes reverse deltas,
 * holds the room for apply, and publishes the commit record; for a first mirror the images and the
 * folder appear.  After 0 the run is good whatever happens to this process. -1: ERR_SPACE,
 * ERR_CORRUPT, ERR_STOPPED, ERR_SYSTEM; then the newest generation is what it was.
 */
int mirror_run_commit(struct mirror_run *run, const struct mirror_facts *facts,
                      struct mirror_committed *out, struct err *e);

/*
 * After commit: waits for readers and changes the images.  -1 (ERR_BUSY, ERR_SPACE, ERR_SYSTEM):
 * the generation is safe all the same, REFRESH-INTERRUPTED stands beside the images, and any later
 * command finishes it.  ERR_CORRUPT: the redo rotted; the images lack some of its blocks, `check`
 * says so, and the next run reads those disks whole.
 */
int mirror_run_apply(struct mirror_run *run, struct err *e);

/* Free the run.  Without a commit, what is durable counts as held in the next run. */
void mirror_run_end(struct mirror_run *run);

/*
 * Read a thirtieth of the newest generation's blocks, another one after each run, for at most
 * budget_ms, and compare with the digests.  A difference makes the next run re-digest that image.
 * 0, or -1: ERR_CORRUPT (names image and offset), ERR_BUSY, ERR_STOPPED, ERR_SYSTEM.
 */
int mirror_verify_slice(struct mirror *m, uint64_t budget_ms, uint64_t *read_bytes, struct err *e);

#endif
