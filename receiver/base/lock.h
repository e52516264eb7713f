/*
 * Advisory locks on whole files that the kernel drops with their holder (open-file-description
 * locks), so there is never a stale one.  A lock file is made once and never removed: removing it
 * would let two holders lock two files of one name.
 *
 * Threads: two locks on one file conflict inside one process too.
 */
#ifndef RECEIVER_BASE_LOCK_H
#define RECEIVER_BASE_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct err;

enum lock_kind { LOCK_SHARED, LOCK_EXCLUSIVE };

/* Empty value: LOCK_EMPTY; lock_release accepts it. */
struct lock {
    int fd;
};

#define LOCK_EMPTY ((struct lock){ .fd = -1 })

/*
 * Take the lock file `name` in the open directory dir, making it (mode 0600) when it is missing; a
 * shared lock on a read-only file system needs one that is there.  Waits at most wait_ms (0: tries
 * once); *stop, which may be NULL, ends the waiting when it turns true.
 * 0, or -1: ERR_BUSY (held by somebody else), ERR_STOPPED, ERR_SYSTEM.
 */
int lock_take(struct lock *out, int dir, const char *name, enum lock_kind kind, uint64_t wait_ms,
              const atomic_bool *stop, struct err *e);

/*
 * Change the kind of a lock that is held.  From shared to exclusive another holder may come
 * between: what was read under the shared lock must be read again.  Errors as above; the old kind
 * stays then.
 */
int lock_change(struct lock *l, enum lock_kind kind, uint64_t wait_ms, const atomic_bool *stop,
                struct err *e);

/*
 * True when somebody else holds the lock file exclusively or shared (that is, when it could not be
 * taken exclusively just now); false also when it is missing.
 */
bool lock_is_held(int dir, const char *name);

void lock_release(struct lock *l);

#endif
