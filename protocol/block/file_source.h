/*
 * A flat file as a source: a raw image, or the -flat file of a vmfs disk.
 */
#ifndef PROTOCOL_BLOCK_FILE_SOURCE_H
#define PROTOCOL_BLOCK_FILE_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct source;

/*
 * Open path read-only; the last part of it must be a regular file, no link, of exactly
 * capacity_bytes (0: any size but 0).  *seeks_holes tells whether the file system answers
 * SEEK_HOLE; where it does not, the whole file is one extent of data. 0, or -1: ERR_SOURCE (locked
 * by a running VM), ERR_NOT_FOUND, ERR_CORRUPT (another size), ERR_UNSUPPORTED (no regular file),
 * ERR_SYSTEM.
 */
int file_source_open(struct source **out, const char *path, uint64_t capacity_bytes,
                     bool *seeks_holes, struct err *e);

/*
 * The same over *fd, open for reading, which the source takes (*fd becomes -1) when it succeeds;
 * path is only for messages.
 */
int file_source_take(struct source **out, int *fd, const char *path, uint64_t capacity_bytes,
                     bool *seeks_holes, struct err *e);

#endif
