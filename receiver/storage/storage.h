/*
 * Where the objects of a repository live: named byte strings that are made once, read in parts,
 * listed by prefix and removed, never changed.  A directory (storage_directory.h), memory
 * (storage_memory.h), later S3; nothing above this table knows a path.
 *
 * A name is 1 to STORAGE_NAME_MAX bytes of [a-z0-9._-] in parts that are divided by single slashes;
 * no part begins with a dot.
 *
 * Durability.  An object appears whole when its upload is published: from then on every reader sees
 * it, and a crash leaves it whole or absent, never torn.  It is durable (a crash no longer takes it
 * away) after the next storage_barrier that returns 0.  A removal counts only after the next
 * barrier too: until then a crash may bring the object back.  After a barrier that failed nothing
 * since the one before it may be taken for durable, and asking again does not mend that.
 *
 * Threads: all operations may be called from several threads; one upload, list or lock belongs to
 * one thread at a time.
 */
#ifndef RECEIVER_STORAGE_STORAGE_H
#define RECEIVER_STORAGE_STORAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "receiver/base/lock.h"

struct bytes;
struct err;
struct storage;
struct storage_upload;
struct storage_list;
struct storage_lock;

enum {
    STORAGE_NAME_MAX = 160,
    STORAGE_NAME_ROOM = STORAGE_NAME_MAX + 1,
    STORAGE_LIST_MAX = 1 << 24, /* objects of one listing; more is ERR_LIMIT, never a part of it */
};

struct storage_item {
    char name[STORAGE_NAME_ROOM];
    uint64_t size_bytes;
};

struct storage_ops {
    int (*begin)(struct storage *s, const char *name, struct storage_upload **out, struct err *e);
    int (*write)(struct storage_upload *u, const void *data, size_t count, struct err *e);
    int (*publish)(struct storage_upload *u, struct err *e);
    void (*drop)(struct storage_upload *u);
    int (*read)(struct storage *s, const char *name, uint64_t offset_bytes, void *out, size_t count,
                struct err *e);
    int (*size)(struct storage *s, const char *name, uint64_t *out_bytes, struct err *e);
    int (*list)(struct storage *s, const char *prefix, struct storage_list **out, struct err *e);
    int (*next)(struct storage_list *l, struct storage_item *out, struct err *e);
    void (*end)(struct storage_list *l);
    int (*remove)(struct storage *s, const char *name, struct err *e);
    int (*barrier)(struct storage *s, struct err *e);
    int (*lock)(struct storage *s, const char *name, enum lock_kind kind, uint64_t wait_ms,
                const atomic_bool *stop, struct storage_lock **out, struct err *e);
    int (*proof)(struct storage_lock *l, struct err *e);
    void (*unlock)(struct storage_lock *l);
    int (*room)(struct storage *s, uint64_t *out_bytes, struct err *e);
    int (*sweep)(struct storage *s, struct err *e);
    void (*close)(struct storage *s);
    int (*adopt)(struct storage *s, const char *name, struct err *e);
};

struct storage {
    const struct storage_ops *ops;
    const char *label; /* how people call it, for messages; owned by the storage */
};

/* The first member of what a back end hands out. */
struct storage_upload {
    struct storage *storage;
};
struct storage_list {
    struct storage *storage;
};
struct storage_lock {
    struct storage *storage;
};

/* Whether text is a name as above; a prefix may also be empty or end with a slash. */
bool storage_name_valid(const char *name);
bool storage_prefix_valid(const char *prefix);

/*
 * Begin to write the object `name`, which does not appear before it is published.
 * 0, or -1: ERR_SPACE, ERR_NOT_FOUND (the storage itself is gone), ERR_SYSTEM, ERR_NETWORK.
 */
int storage_begin(struct storage *s, const char *name, struct storage_upload **out, struct err *e);

/* Append.  After a failure the upload can only be dropped.  Errors as above. */
int storage_write(struct storage_upload *u, const void *data, size_t count, struct err *e);

/*
 * Let it appear; never replaces: an object of that name is -1 with ERR_REFUSED and os = EEXIST. The
 * upload is gone afterwards, whatever is returned.
 */
int storage_publish(struct storage_upload *u, struct err *e);

/* Give up.  NULL is allowed. */
void storage_drop(struct storage_upload *u);

/* All of the above for content in memory. */
int storage_put(struct storage *s, const char *name, const void *data, size_t count, struct err *e);

/*
 * Exactly count bytes from offset_bytes on.  0, or -1: ERR_NOT_FOUND (no such object), ERR_CORRUPT
 * (it ends before), ERR_SOURCE (the medium fails), ERR_SYSTEM, ERR_NETWORK.
 */
int storage_read(struct storage *s, const char *name, uint64_t offset_bytes, void *out,
                 size_t count, struct err *e);

/* Its length; ERR_NOT_FOUND and so on as above. */
int storage_size(struct storage *s, const char *name, uint64_t *out_bytes, struct err *e);

/* A whole object of at most `most` bytes (ERR_LIMIT), appended to out, whose ceiling is raised. */
int storage_load(struct storage *s, const char *name, struct bytes *out, size_t most,
                 struct err *e);

/*
 * All objects whose name begins with prefix, ascending by name (bytes).  A listing that fails or
 * would be too long is an error, never a part or an empty one.  What is published or removed
 * meanwhile may or may not be in it; everything that was there before and stays is.
 */
int storage_list(struct storage *s, const char *prefix, struct storage_list **out, struct err *e);
/* 1 and the next item, 0 at the end, -1 with an error. */
int storage_next(struct storage_list *l, struct storage_item *out, struct err *e);
void storage_list_end(struct storage_list *l); /* NULL is allowed */

/* Remove an object; one that is not there is no error.  ERR_SYSTEM, ERR_REFUSED (no right to). */
int storage_remove(struct storage *s, const char *name, struct err *e);

/*
 * What another process has published under this name, perhaps without a barrier before it died,
 * counts as published by us: our next barrier makes it durable.  0, also when it is gone, or -1.
 */
int storage_adopt(struct storage *s, const char *name, struct err *e);

/* Make durable what was published and removed so far, from any thread. */
int storage_barrier(struct storage *s, struct err *e);

/*
 * Take the lock `name` (one part of a name).  Who waits for an exclusive lock is let through before
 * new takers of a shared one.  The lock goes with its holder's process.  wait_ms 0: one try; *stop,
 * which may be NULL, ends the waiting when it turns true.
 * 0, or -1: ERR_BUSY, ERR_STOPPED, ERR_SYSTEM, ERR_NETWORK.
 */
int storage_lock_take(struct storage *s, const char *name, enum lock_kind kind, uint64_t wait_ms,
                      const atomic_bool *stop, struct storage_lock **out, struct err *e);

/* 0 while the lock is surely still held; -1 with ERR_BUSY when it was lost.  Before each step that
 * destroys, and before a manifest is published. */
int storage_lock_proof(struct storage_lock *l, struct err *e);
void storage_lock_release(struct storage_lock *l); /* NULL is allowed */

/* Free bytes as far as they are known, UINT64_MAX otherwise. */
int storage_room(struct storage *s, uint64_t *out_bytes, struct err *e);

/* Remove what uploads that died have left.  Only while nobody else can be writing. */
int storage_sweep(struct storage *s, struct err *e);

void storage_close(struct storage *s); /* NULL is allowed; frees s */

#endif
