/*
 * The folder that a restore makes: it appears whole, or nothing of it stays.
 */
#ifndef RECEIVER_RESTORE_TARGET_H
#define RECEIVER_RESTORE_TARGET_H

#include <stdbool.h>

#include "receiver/base/lock.h"

struct err;

/*
 * The files grow in a hidden folder beside the target that is renamed whole, or, when the target is
 * there already (it may be a mount point, or the only place where we may write), in one inside it.
 * Callers put their files below work_fd, durably; the rest is ours.
 */
struct restore_target {
    int parent_fd, target_fd, work_fd;
    bool inside;
    char name[256];      /* of the target in its parent */
    char work[256 + 32]; /* of the work folder, in parent or target */
    struct lock lock;
};

#define RESTORE_TARGET_EMPTY                                                                       \
    ((struct restore_target){ .parent_fd = -1, .target_fd = -1, .work_fd = -1, .lock = LOCK_EMPTY })

/*
 * `to` must be absent or an empty folder.  0, or -1: ERR_REFUSED (it is not), ERR_BUSY (another
 * restore to it is at work), ERR_NOT_FOUND (its parent), ERR_USAGE, ERR_SPACE, ERR_SYSTEM.  Close
 * in any case.
 */
int restore_target_open(struct restore_target *t, const char *to, struct err *e);

/* Everything is durable: let it appear. */
int restore_target_finish(struct restore_target *t, struct err *e);

/* Unless it is done, what grew is removed.  The empty value is allowed. */
void restore_target_close(struct restore_target *t, bool done);

#endif
