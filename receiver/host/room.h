/*
 * Free room on the datastores of a VM: enough before a snapshot, and not too little while it lives,
 * since a full datastore stops every VM on it.
 */
#ifndef RECEIVER_HOST_ROOM_H
#define RECEIVER_HOST_ROOM_H

#include <stddef.h>
#include <stdint.h>

struct datastore_list;
struct err;
struct host;
struct vm;

enum { ROOM_PERCENT_DEFAULT = 10, ROOM_STORES_MAX = 64 };
#define ROOM_BYTES_LEAST (UINT64_C(1) << 30)

/* --min-free: bytes if not 0, else percent of the datastore, but never less than ROOM_BYTES_LEAST.
 */
struct room_rule {
    uint64_t bytes;
    unsigned percent;          /* 0 with bytes 0: ROOM_PERCENT_DEFAULT */
    uint64_t last_delta_bytes; /* what the last run's snapshot grew to; 0 unknown */
};

/* The reserve that rule asks of a datastore of size_bytes. */
uint64_t room_needed(const struct room_rule *rule, uint64_t size_bytes);

struct room_guard {
    struct room_store {
        char uuid[64];
        char name[128];
        uint64_t needed_bytes;
        uint64_t free_bytes; /* at the last look */
    } stores[ROOM_STORES_MAX];
    size_t count;
};

/*
 * Learn the datastores of vm (with details) and check the reserve on each.
 * 0, or -1: ERR_SPACE (naming datastore, free and needed), ERR_UNSUPPORTED (a disk on no datastore
 * that is listed), ERR_LIMIT.
 */
int room_check_before(struct room_guard *out, const struct vm *vm,
                      const struct datastore_list *stores, const struct room_rule *rule,
                      struct err *e);

/* Look again (every 10 s while reading): ERR_SPACE below half of the reserve. */
int room_poll(struct host *h, struct room_guard *g, struct err *e);

#endif
