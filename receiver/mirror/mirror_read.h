/*
 * Reading a mirror: list, find a generation by what the user typed, check, restore.
 * A `place` is the DIR that was given to `mirror` or one VM's folder in it.  Every function here
 * finishes a committed refresh first, which needs the lock exclusively for a moment.
 */
#ifndef RECEIVER_MIRROR_MIRROR_READ_H
#define RECEIVER_MIRROR_MIRROR_READ_H

#include "receiver/mirror/mirror.h"

struct mirror_list_disk {
    unsigned number;
    char slot[32];
    char file[64]; /* in a restore, and in the folder for the newest generation */
    const char *label;
    uint64_t capacity_bytes;
    uint64_t of_generation;  /* whose content this is; below the generation's number when the disk
                                was  excluded since; 0: never mirrored */
    uint64_t damaged_blocks; /* content of this generation that is lost */
    const char *read_path;
    uint64_t allocated_bytes, read_bytes, sampled_bytes, changed_bytes, sent_bytes, stored_bytes;
    uint64_t milliseconds;
    struct digest root;
};

struct mirror_list_item {
    const char *folder; /* path of the VM's folder */
    uint64_t number;
    char id[MIRROR_ID_HEX_BYTES];
    const char *vm;     /* display name at that time */
    const char *vm_now; /* of the newest generation */
    const char *uuid, *host, *host_uuid, *vmx_path;
    int64_t time;
    const char *kind, *outcome, *consistency, *data_channel, *read_path, *change_source, *snapshot;
    bool newest;
    bool damaged;     /* some disk has lost blocks: restore ends with ERR_CORRUPT */
    int64_t verified; /* when check last read all of it without finding fault; 0 never */
    uint64_t size_bytes, read_bytes, sent_bytes, changed_bytes, stored_bytes; /* sums over disks */
    const struct mirror_list_disk *disks;
    size_t disk_count;
};

struct mirror_list; /* owns all texts of its items */

/*
 * All generations below place, ordered by folder name, then number.  A mirror that cannot be read
 * is a problem in the list, not an end: mirror_list_problem.  ERR_NOT_FOUND when place is not there
 * or is neither a mirror nor a folder with mirrors in it (an empty folder is fine).
 */
int mirror_list_load(struct mirror_list **out, const char *place, const struct mirror_env *env,
                     struct err *e);
size_t mirror_list_count(const struct mirror_list *l);
const struct mirror_list_item *mirror_list_at(const struct mirror_list *l, size_t index);
size_t mirror_list_problem_count(const struct mirror_list *l);
const char *mirror_list_problem(const struct mirror_list *l, size_t index);
void mirror_list_free(struct mirror_list *l); /* NULL is allowed */

/*
 * The generation that the user means (GEN of the command line): `VM@N`, `N`, `VM@latest`, `VM@2026-11-20`,
 * `VM@2026-11-20T10:30[:15][Z]`, `HOST/VM@…`, `uuid:…@…`, an id prefix of at least 4 hex digits. VM
 * is the new or an old display name, or the folder's name.  *newer_partial (may be NULL) is the
 * number of a partial generation newer than the one found by `latest` or a date, else 0. 0, or -1:
 * ERR_NOT_FOUND (none, or more than one: the text lists them), ERR_USAGE (not that form).
 */
int mirror_find(const struct mirror_list *l, const char *gen, const struct mirror_list_item **out,
                uint64_t *newer_partial, struct err *e);

/* True when the VM operand `vm` (`NAME`, `HOST/NAME`, `uuid:…`) means this generation's VM. */
bool mirror_item_is_of_vm(const struct mirror_list_item *item, const char *vm);

struct mirror_restored {
    uint64_t disks, bytes; /* capacity of all disks */
};

/*
 * Write a generation to the folder `to`, which must be absent or empty (else ERR_REFUSED): images,
 * descriptors, config/.  Every block is compared with its digest and each disk with its root.
 * 0, or -1: ERR_CORRUPT (damaged, or bytes are not what was recorded; names file and offset),
 * ERR_SPACE, ERR_BUSY, ERR_NOT_FOUND (the generation is gone by now), ERR_STOPPED, ERR_SYSTEM; then
 * nothing is left in `to`.
 */
int mirror_restore(const struct mirror_list_item *gen, const char *to, const struct mirror_env *env,
                   struct mirror_restored *out, struct err *e);

struct mirror_check_options {
    bool read_data;
    unsigned k, n;       /* slice k of n, 1 <= k <= n; 1, 1: everything */
    uint64_t generation; /* 0: all kept ones */
    /* One call for each fault found. */
    void (*problem)(void *context, const char *object, const char *text);
    void *context;
};

struct mirror_checked {
    uint64_t objects;    /* files looked at */
    uint64_t read_bytes; /* of images and reverse deltas */
    uint64_t problems;
};

/*
 * Check one VM's folder.  0 when clean; -1 with ERR_CORRUPT when anything was found (the first
 * fault in e), or ERR_BUSY, ERR_NOT_FOUND, ERR_STOPPED, ERR_SYSTEM.
 */
int mirror_check(const char *folder, const struct mirror_check_options *options,
                 const struct mirror_env *env, struct mirror_checked *out, struct err *e);

/* The VM folders below place (or place itself), ordered; release with mirror_folders_free. */
int mirror_folders(const char *place, char ***out, size_t *count, struct err *e);

/* The names of the VM folders below place whose first mirror is not finished; the same. */
int mirror_unfinished(const char *place, char ***out, size_t *count, struct err *e);
void mirror_folders_free(char **folders, size_t count);

#endif
