/* An open repository inside.  Only for receiver/repo. */
#ifndef RECEIVER_REPO_REPO_PRIVATE_H
#define RECEIVER_REPO_REPO_PRIVATE_H

#include <pthread.h>

#include "protocol/base/bytes.h"
#include "receiver/repo/ask_table.h"
#include "receiver/repo/config.h"
#include "receiver/repo/index.h"
#include "receiver/repo/names.h"
#include "receiver/repo/repo.h"
#include "receiver/repo/vault.h"

enum { RESERVE_BYTES = 64 << 20, OPEN_PACK_ENTRIES = 1 << 16 };

/* A pack that is being written. */
struct open_pack {
    struct storage_upload *upload; /* NULL: none is open */
    uint32_t number;               /* in the index */
    uint64_t offset;
    struct bytes buffer;       /* not written yet */
    struct pack_index entries; /* what is in it so far */
    uint32_t entry_room;
};

struct repo {
    struct storage *storage;
    struct storage_lock *lock;
    struct storage_lock *forget_lock; /* of who forgets */
    struct config config;
    struct vault *vault;
    struct index *index;
    struct repo_env env;
    bool read_only, exclusive;
    uint64_t epoch;
    char own_slot[REPO_SLOT_HEX_BYTES]; /* that opened it */

    pthread_mutex_t write_lock; /* guards what follows */
    struct open_pack packs[2];  /* blocks, nodes */
    struct pack_index *closed;  /* packs without index object yet */
    size_t closed_count;
    bool poisoned; /* writing failed: nothing that is not durable can be relied on */

    struct ask_tables *asks;

    pthread_mutex_t opener_lock; /* guards what follows */
    struct opener *openers;      /* not in use */
};

/* --- entries (entries.c); any thread --- */

struct put_result {
    bool is_new;
    uint64_t stored_bytes; /* 0 unless new */
};

/*
 * Store an entry with this id, whose bytes come coded, unless there is one.  It is durable after
 * the next repo_flush.  ERR_SPACE, ERR_REFUSED (read-only), ERR_SYSTEM, ERR_NETWORK.
 */
int repo_put(struct repo *r, enum entry_type type, const struct repo_id *id, enum entry_codec codec,
             const void *coded, size_t coded_bytes, size_t plain_bytes, struct put_result *out,
             struct err *e);

/* Is there an entry: 1, 0, -1 on failure. */
int repo_has(struct repo *r, enum entry_type type, const struct repo_id *id, struct err *e);

/*
 * The plain bytes of an entry, proved: at most room of them; *count tells how many.  Every place
 * there is of it is tried.  ERR_CORRUPT (damaged, missing or too long: names id and pack),
 * ERR_SOURCE, ERR_SYSTEM, ERR_NETWORK.
 */
int repo_get(struct repo *r, enum entry_type type, const struct repo_id *id, uint8_t *out,
             size_t room, size_t *count, struct err *e);

/* Put a copy of an entry that stands in a pack, proved and as it is, beside the one there is. */
int repo_put_copy(struct repo *r, const struct repo_key *pack, uint32_t offset, uint32_t bytes,
                  struct err *e);

/* Make durable what was put, from any thread, with its index. */
int repo_flush(struct repo *r, struct err *e);

/* Drop what is not flushed. */
void repo_drop_packs(struct repo *r);
void repo_free_openers(struct repo *r);

void repo_warn(const struct repo *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
int repo_check_stop(const struct repo *r, struct err *e);

/* Write or read the reserve (reserve.c). */
int repo_reserve_make(struct storage *s, struct err *e);

#endif
