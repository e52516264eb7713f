/*
 * When packs and generations were last read wholly without finding fault: documents `verified/…`
 * (FORMAT.md 6).  For people and for lists; nothing is decided by it.
 */
#ifndef RECEIVER_REPO_REPO_VERIFIED_H
#define RECEIVER_REPO_REPO_VERIFIED_H

#include "receiver/repo/repo.h"

/* A generation: the VM's key and the number; a pack: its key, and number 0. */
struct repo_verified_item {
    struct repo_key key;
    uint64_t number;
    uint64_t time; /* seconds since 1970 */
};

/* Each thing once, with its newest time, ordered.  Empty value { 0 }. */
struct repo_verified {
    struct repo_verified_item *items;
    size_t count;
};

/*
 * What all documents say together; one that is damaged says nothing.  ERR_SYSTEM, ERR_NETWORK, ….
 */
int repo_verified_load(struct repo *r, struct repo_verified *out, struct err *e);

/* 0: never. */
uint64_t repo_verified_time(const struct repo_verified *v, const struct repo_key *key,
                            uint64_t number);

/*
 * Write down these too, each of which is there now; what is no longer in the repository is dropped.
 * ERR_REFUSED (opened for reading only), ERR_SPACE, ERR_SYSTEM, ERR_NETWORK.
 */
int repo_verified_note(struct repo *r, const struct repo_verified_item *items, size_t count,
                       struct err *e);

void repo_verified_free(struct repo_verified *v);

#endif
