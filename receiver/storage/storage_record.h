/*
 * For tests: a storage in memory that keeps a log of what changed, from which the states are made
 * that a crash may leave behind: what the last barrier covers is there, of what came later any part
 * in any order, and what was not published is not there at all.  (That files are not torn when
 * their name appears is the directory's own promise, and tested there.)
 */
#ifndef RECEIVER_STORAGE_STORAGE_RECORD_H
#define RECEIVER_STORAGE_STORAGE_RECORD_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct storage;

int storage_record_new(struct storage **out, struct err *e);

/* Entries of the log so far: publishes, removals, barriers. */
size_t storage_record_count(const struct storage *s);

/*
 * A new storage in memory with what a crash after the first `count` entries may leave: everything
 * up to the last barrier among them, and of what came later what `pick` says: bit i (of 64, then
 * pseudo-random from it) tells whether the ith later publish or removal had reached the medium.
 */
int storage_record_after(struct storage *s, size_t count, uint64_t pick, struct storage **out,
                         struct err *e);

/* How many entries among the first `count` lie behind the last barrier. */
size_t storage_record_loose(const struct storage *s, size_t count);

#endif
