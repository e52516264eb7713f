/*
 * What a kept snapshot costs: the file of each disk that has grown above the frozen link since.
 */
#ifndef RECEIVER_HOST_RETAINED_ROOM_H
#define RECEIVER_HOST_RETAINED_ROOM_H

#include <stdbool.h>
#include <stdint.h>

struct datastore_list;
struct err;
struct host;
struct retained;

enum { RETAINED_FREE_SHARE = 4 }; /* deltas may take this part of the free room: a quarter */

struct retained_cost {
    uint64_t bytes;       /* of all its deltas */
    char crowded[128];    /* a datastore where they take too much of the free room; "" */
    uint64_t there_bytes; /* its deltas there */
    uint64_t free_bytes;  /* the free room there */
};

/*
 * Ask the host.  A delta that is not there any more costs nothing.
 * 0, or -1: host_run's codes, ERR_SOURCE (an answer that cannot be read).
 */
int retained_cost(struct host *h, const struct retained *r, const struct datastore_list *stores,
                  struct retained_cost *out, struct err *e);

/* From what `du -k` prints of those files. */
int retained_cost_read(const char *text, const struct retained *r,
                       const struct datastore_list *stores, struct retained_cost *out,
                       struct err *e);

#endif
