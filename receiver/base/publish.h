/*
 * The one way in which files come to exist, change or change their name, so that after a crash each
 * is there whole or not at all: an exclusive temporary in the same directory, everything written,
 * its length checked, fsync, rename, fsync of the directory.  No other code renames.
 *
 * All names are single components relative to an open directory.  A directory descriptor given here
 * must be open for reading (O_DIRECTORY), not O_PATH.  Temporaries are called `.vmferry-tmp-` and
 * 16 hex digits; publish_sweep removes those that a crash left.
 */
#ifndef RECEIVER_BASE_PUBLISH_H
#define RECEIVER_BASE_PUBLISH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

enum publish_how {
    PUBLISH_NEW,     /* an existing name is never replaced: -1 with ERR_REFUSED and os = EEXIST */
    PUBLISH_REPLACE, /* the name shows the old content or the new one at every moment */
};

/* A file under way.  Empty value: PUBLISH_EMPTY; publish_drop accepts it. */
struct publish {
    int dir; /* borrowed */
    int fd;  /* write here; owned by this struct */
    bool made;
    char temp[32];
};

#define PUBLISH_EMPTY ((struct publish){ .dir = -1, .fd = -1 })

/*
 * Create the temporary with exactly these permission bits, whatever the umask.
 * 0, or -1 (ERR_SPACE, ERR_SYSTEM, …); then *p is the empty value.
 */
int publish_begin(struct publish *p, int dir, mode_t mode, struct err *e);

/*
 * Make what was written durable and let it appear as name.  length_bytes is what the caller means
 * to have written: another size of the file is ERR_CORRUPT.  0, or -1; then the temporary is gone
 * and the old file of that name, if any, is still there — unless the last step, the fsync of the
 * directory, failed, which leaves open which of the two a crash would show.  *p is empty
 * afterwards.
 */
int publish_commit(struct publish *p, const char *name, uint64_t length_bytes, enum publish_how how,
                   struct err *e);

/*
 * The same for batches: the name is there when this returns, but is durable only after the caller's
 * own fsync of the directory.
 */
int publish_commit_later(struct publish *p, const char *name, uint64_t length_bytes,
                         enum publish_how how, struct err *e);

/* Give up: removes the temporary.  Harmless after publish_commit. */
void publish_drop(struct publish *p);

/* All of the above for content in memory. */
int publish_bytes(int dir, const char *name, const void *data, size_t count, mode_t mode,
                  enum publish_how how, struct err *e);

/*
 * Rename inside one directory or between two, durably (both are fsynced).  What is renamed must be
 * durable already.  PUBLISH_NEW: rename without replace; where the file system cannot, link +
 * unlink, or for directories a check before the rename (the caller's lock keeps others out).
 */
int publish_rename(int from_dir, const char *from, int to_dir, const char *to, enum publish_how how,
                   struct err *e);

/* Make a directory durably.  An existing directory is fine when `made` is given and tells so. */
int publish_directory(int dir, const char *name, mode_t mode, bool *made, struct err *e);

/* Remove a file durably; one that is not there is no error. */
int publish_remove(int dir, const char *name, struct err *e);

/* Remove the temporaries that a crash left in dir.  Only under the lock that guards dir. */
int publish_sweep(int dir, struct err *e);

#endif
