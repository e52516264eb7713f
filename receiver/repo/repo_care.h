/*
 * Looking after a repository: forgetting, pins and tags; packs, their damage and their removal.
 * These are the steps; what goes and what stays is decided by who calls them (reliability rules in
 * FORMAT.md 7).
 */
#ifndef RECEIVER_REPO_REPO_CARE_H
#define RECEIVER_REPO_REPO_CARE_H

#include "receiver/repo/repo_read.h"

/* --- generations --- */

/*
 * From here to repo_close nobody else forgets: what may go is decided from what is there, and two
 * who decide at once could each keep what the other takes.  Before the generations are looked at.
 * ERR_BUSY, ERR_STOPPED, ERR_SYSTEM, …
 */
int repo_forget_begin(struct repo *r, struct err *e);

/*
 * Remove a manifest, durably.  The number is not given again.  Blocks stay until they are
 * collected. -1: ERR_NOT_FOUND, ERR_REFUSED (pinned, an append-only repository, read-only),
 * ERR_SYSTEM, …
 */
int repo_forget(struct repo *r, const struct repo_key *vm, uint64_t number, struct err *e);

/* A pinned generation is not forgotten.  ERR_NOT_FOUND. */
int repo_pin(struct repo *r, const struct repo_key *vm, uint64_t number, bool pinned,
             struct err *e);
/* 1, 0, -1. */
int repo_is_pinned(struct repo *r, const struct repo_key *vm, uint64_t number, struct err *e);

/* At most REPO_TEXT_MAX bytes; adding one that is there, or removing one that is not, is fine. */
int repo_tag_add(struct repo *r, const struct repo_key *vm, uint64_t number, const char *tag,
                 struct err *e);
int repo_tag_remove(struct repo *r, const struct repo_key *vm, uint64_t number, const char *tag,
                    struct err *e);
/* Call `each` for every tag of the generation. */
int repo_tags(struct repo *r, const struct repo_key *vm, uint64_t number,
              int (*each)(void *context, const char *tag, struct err *e), void *context,
              struct err *e);

/* --- what is alive --- */

enum repo_entry_type { REPO_BLOCK = 1, REPO_NODE = 2 };

/*
 * Walk over everything that manifests, and partial manifests made at partials_since (seconds since
 * 1970) or later, refer to.  `mark` returns 0 to go on, 1 for a node below which nothing new can
 * come (it was marked before), -1 to end.  Whatever cannot be read ends the walk: nothing may be
 * removed then.
 */
int repo_mark_live(struct repo *r, uint64_t partials_since,
                   int (*mark)(void *context, enum repo_entry_type type, const struct repo_id *id,
                               struct err *e),
                   void *context, struct err *e);

/*
 * Remove the partial manifests that repo_mark_live leaves out with the same partials_since, durably
 * and before any pack: a later run would believe them.  Under the exclusive lock.
 */
int repo_partials_drop(struct repo *r, uint64_t partials_since, uint64_t *removed, struct err *e);

/* --- objects --- */

/*
 * Read every small object (keys, partials, retired numbers, pins, tags, epochs, notes) and look at
 * the names of all: `found` is told of each that cannot be read or is not what its name says, and,
 * with ours = false, of names that mean nothing here.  It returns 0 to go on.
 */
int repo_objects_check(struct repo *r,
                       int (*found)(void *context, const char *name, bool ours,
                                    const struct err *why, struct err *e),
                       void *context, struct err *e);

/* --- packs --- */

struct repo_pack {
    struct repo_key key;
    bool stored, indexed;
    uint64_t size_bytes; /* of the pack, 0 if it is not stored */
};

/* All packs that have an object of either kind, ordered by key; free(*out). */
int repo_packs(struct repo *r, struct repo_pack **out, size_t *count, struct err *e);

struct repo_entry {
    enum repo_entry_type type;
    struct repo_id id;
    uint32_t offset;
    uint32_t stored_bytes; /* with its header */
    uint32_t plain_bytes;
};

/* Call `each` for every entry that the pack's index object lists, ordered by id. */
int repo_pack_entries(struct repo *r, const struct repo_key *pack,
                      int (*each)(void *context, const struct repo_entry *entry, struct err *e),
                      void *context, struct err *e);

/*
 * Compare a pack with its index object; with read_data prove every entry.  `damaged` is called for
 * each entry that is not what it should be while the rest can still be read.  0 when all is well,
 * -1 with ERR_CORRUPT when not (the first fault in e), or another error.
 */
int repo_pack_check(struct repo *r, const struct repo_key *pack, bool read_data,
                    int (*damaged)(void *context, const struct repo_entry *entry, struct err *e),
                    void *context, struct err *e);

/* Make the index object of a pack anew from the pack, instead of the one it may have.  Under the
 * exclusive lock; open the repository again afterwards. */
int repo_pack_index(struct repo *r, const struct repo_key *pack, struct err *e);

/*
 * Copy entries that `wanted` says 1 to, proved and as they are, into new packs; repo_flush_packs
 * makes them durable.  -1 also when one of them is damaged.
 */
int repo_pack_copy(struct repo *r, const struct repo_key *pack,
                   int (*wanted)(void *context, const struct repo_entry *entry, struct err *e),
                   void *context, struct err *e);
int repo_flush_packs(struct repo *r, struct err *e);

/*
 * Retract packs from every index, then delete them (FORMAT.md 7, steps 3 and 4).  Only under the
 * exclusive lock (ERR_REFUSED), and never in an append-only repository.  Only close the repository
 * afterwards, also after a failure: what went is a part, and every part is safe.
 */
int repo_packs_remove(struct repo *r, const struct repo_key *packs, size_t count, struct err *e);

enum { REPO_DAMAGED_MAX = 1 << 18 }; /* noted at once */

/* From now on these entries count as missing: the next backup that has their content stores it
 * again.  Open the repository again to see the effect.  ERR_LIMIT, ERR_REFUSED, … */
struct repo_damaged {
    struct repo_key pack;
    struct repo_entry entry;
};
int repo_note_damaged(struct repo *r, const struct repo_damaged *damaged, size_t count,
                      struct err *e);

/* Whether the entry of this pack counted as missing when the repository was opened. */
bool repo_entry_damaged(struct repo *r, const struct repo_key *pack,
                        const struct repo_entry *entry);

/* Remove the notes of damage all of whose packs are gone.  Under the exclusive lock; may follow
 * repo_packs_remove. */
int repo_damaged_tidy(struct repo *r, uint64_t *removed, struct err *e);

/* --- room --- */

/* Give up the reserve, so that removing works on a full disk. */
int repo_reserve_drop(struct repo *r, struct err *e);

/* Make it again: 0 it was there, 1 it is there again, -1 (ERR_SPACE is no failure of the caller's:
 * who comes when there is room makes it). */
int repo_reserve_restore(struct repo *r, struct err *e);

#endif
