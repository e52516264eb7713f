/*
 * Reading a mirror: list, find a generation by what the user typed, check, restore.
 * A `place` is the DIR that was given to `mirror` or one VM's folder in it.  Every function here
 * finishes a committed refresh first, which needs the lock exclusively for a moment.
 */
#ifndef RECEIVER_MIRROR_MIRROR_READ_H
#define RECEIVER_MIRROR_MIRROR_READ_H

#include "receiver/mirror/mirror.h"
#include "receiver/restore/generation.h"

struct mirror_list; /* owns all texts of its items */

/*
 * All generations below place, ordered by folder name, then number.  A mirror that cannot be read
 * is a problem in the list, not an end: mirror_list_problem.  ERR_NOT_FOUND when place is not there
 * or is neither a mirror nor a folder with mirrors in it (an empty folder is fine).
 */
int mirror_list_load(struct mirror_list **out, const char *place, const struct mirror_env *env,
                     struct err *e);
size_t mirror_list_count(const struct mirror_list *l);
const struct generation_item *mirror_list_at(const struct mirror_list *l, size_t index);
size_t mirror_list_problem_count(const struct mirror_list *l);
const char *mirror_list_problem(const struct mirror_list *l, size_t index);
void mirror_list_free(struct mirror_list *l); /* NULL is allowed */

/* The list as generation_find and generation_is_of_vm (receiver/restore/generation.h) take it. */
struct generation_list mirror_list_generations(const struct mirror_list *l);

static inline int mirror_find(const struct mirror_list *l, const char *gen,
                              const struct generation_item **out, uint64_t *newer_partial,
                              struct err *e)
{
    const struct generation_list all = mirror_list_generations(l);

    return generation_find(&all, gen, out, newer_partial, e);
}

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
int mirror_restore(const struct generation_item *gen, const char *to, const struct mirror_env *env,
                   struct mirror_restored *out, struct err *e);

/*
 * Write one disk of the generation, and nothing else, to what output_takes_one_disk says
 * (receiver/restore/output.h): slot, or NULL where the generation has one disk only.
 * -1 also: ERR_USAGE (it has several disks), ERR_NOT_FOUND, and those of output_open.
 */
int mirror_restore_disk(const struct generation_item *gen, const char *slot, const char *to,
                        bool force_device, const struct mirror_env *env,
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
