/*
 * The merged index: which entries there are and where (FORMAT.md 6).  What is durable in packs with
 * an index object lies in sorted runs, which are kept as a cache between processes; what this
 * process adds is in a table in memory until it is worth a run.
 *
 * Threads: index_find and index_find_named may be called from several threads; the rest from one at
 * a time, which may be beside finders.  Inside receiver/repo only.
 */
#ifndef RECEIVER_REPO_INDEX_H
#define RECEIVER_REPO_INDEX_H

#include "receiver/repo/pack.h"

struct index;

/* Where an entry is. */
struct place {
    struct repo_key pack;
    uint32_t offset; /* of its header */
    uint32_t payload_bytes, plain_bytes;
    uint8_t type, codec;
};

enum {
    INDEX_PLACES_MAX = 4,         /* of one id that are looked at */
    INDEX_TABLE_ENTRIES = 1 << 19 /* in memory; then they become a run */
};

/*
 * Bring the cache in cache_dir (NULL: none, runs are files without names) up to what the storage
 * lists.  An index object that is damaged is warned of and its pack counts as not there.
 * 0, or -1: ERR_STOPPED, ERR_SPACE, ERR_SYSTEM, ERR_NETWORK, ERR_LIMIT, ERR_USAGE (cache_dir).
 */
int index_open(struct index **out, struct storage *s, const struct vault *v, uint64_t epoch,
               const char *cache_dir, const struct repo_env *env, struct err *e);
void index_close(struct index *x); /* NULL is allowed */

/*
 * From now on dedup may count on packs of others: their index objects, which a process may have
 * published and died, become durable with our next barrier.
 */
int index_adopt(struct index *x, struct err *e);

/*
 * Places of this id, at most room of them: their number, 0 for none, -1 with ERR_CORRUPT when the
 * cache is damaged: it is removed and the next process makes it anew.
 */
int index_find(struct index *x, enum entry_type type, const struct repo_id *id, struct place *out,
               unsigned room, struct err *e);

/*
 * The same for an id that something published names.  Others may have published it, and the packs
 * it stands on, after the index was opened: if manifests were listed since, it is looked once
 * whether there are more packs.  Errors also as of index_open.
 */
int index_find_named(struct index *x, enum entry_type type, const struct repo_id *id,
                     struct place *out, unsigned room, struct err *e);

/* Manifests were listed. */
void index_news(struct index *x);

/* A pack that is being written; returns its number. */
int index_add_pack(struct index *x, const struct repo_key *pack, uint32_t *number, struct err *e);
/* An entry of it, with that number in `pack`. */
int index_add(struct index *x, const struct index_entry *entry, struct err *e);
/* The pack's index object is published, durably. */
void index_pack_done(struct index *x, uint32_t number);

/* Keep what is new for the next process, if it is worth it.  Failing is no harm but time. */
int index_save(struct index *x, struct err *e);

/* Whether the entry at this place counts as missing. */
bool index_is_damaged(const struct index *x, const struct repo_key *pack, uint32_t offset);

void index_counts(struct index *x, uint64_t *entries, uint64_t *packs, uint64_t *damaged);

#endif
