/* The merged index inside.  Only for receiver/repo/index*.c. */
#ifndef RECEIVER_REPO_INDEX_PRIVATE_H
#define RECEIVER_REPO_INDEX_PRIVATE_H

#include <pthread.h>

#include "receiver/base/lock.h"
#include "receiver/repo/index.h"

enum {
    SLOTS_LEAST = 1 << 12, /* it doubles when half of it is used */
    RUNS_MAX = 16,
    RUNS_MANY = 4, /* then the smaller ones are merged */
#ifdef VMFERRY_TEST_HOOKS
    SAVE_ENTRIES = 1 << 5 /* so that the small repositories of the fault kit have a cache */
#else
    SAVE_ENTRIES = 1 << 12 /* fewer new ones are read again by the next process */
#endif
};

/* A pack that entries of the table are in. */
struct pack_ref {
    struct repo_key key;
    bool indexed; /* its index object is published */
    bool in_run;
};

/* An entry that counts as missing. */
struct damaged_entry {
    struct repo_key pack;
    uint32_t offset;
};

struct index {
    struct storage *storage;
    const struct vault *vault;
    struct repo_env env;
    uint64_t epoch;
    int cache;             /* folder, or -1 */
    pthread_rwlock_t lock; /* guards the rest */
    struct sorted_run *runs[RUNS_MAX];
    size_t run_count;
    struct index_entry *slots; /* a power of two; plain_type 0: empty */
    size_t slot_count;
    size_t used;
    size_t unsaved; /* of them, in packs with an index object */
    struct pack_ref *packs;
    size_t pack_count, pack_room;
    struct damaged_entry *damaged; /* ascending */
    size_t damaged_count;
    uint64_t known_packs;
    bool adopts; /* index objects that are read are adopted */
    bool news;   /* since manifests were listed it was not looked whether there are more packs */
};

/* --- index.c; with the lock held for writing --- */

int index_table_add_pack(struct index *x, const struct repo_key *pack, bool indexed,
                         uint32_t *number, struct err *e);
int index_table_add(struct index *x, const struct index_entry *entry, struct err *e);
int index_compare_keys(const void *a, const void *b);
int index_compare_damaged(const void *a, const void *b);
void index_warn(const struct index *x, const char *text);

/* --- index_open.c; the same --- */

/* Read the index objects of packs that neither a run nor the table has. */
int index_bring_up_to_date(struct index *x, struct err *e);

/* --- index_cache.c --- */

int cache_open(struct index *x, const char *cache_dir, struct err *e);

/* Map the runs that count; none when anything is wrong with them. */
void cache_load(struct index *x);

/* Forget all runs, also in the cache folder. */
void cache_void(struct index *x);

/*
 * A new run over these packs (ascending), merged from the inputs; it replaces the runs whose bit is
 * set in `instead`, in memory and in the cache.
 */
int cache_add_run(struct index *x, const struct repo_key *packs, uint32_t pack_count,
                  struct run_input *inputs, size_t input_count, uint32_t instead, struct err *e);

#endif
