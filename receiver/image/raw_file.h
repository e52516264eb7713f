/*
 * A disk as a sparse raw file: exactly as long as the disk, holes where it is zero.  The file
 * appears whole or not at all (receiver/base/publish.h).
 */
#ifndef RECEIVER_IMAGE_RAW_FILE_H
#define RECEIVER_IMAGE_RAW_FILE_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct source;

struct raw_config {
    bool replace; /* a file of that name; else it is ERR_REFUSED */
    /* Asked between pieces: -1 ends the work; may be NULL.  done_bytes counts up to the capacity.
     */
    int (*progress)(void *context, uint64_t done_bytes, uint64_t read_bytes, struct err *e);
    /* Asked once when all is read, before the file appears; may be NULL. */
    int (*finished)(void *context, struct err *e);
    void *context;
};

struct raw_result {
    uint64_t read_bytes;    /* from the source */
    uint64_t written_bytes; /* what was not zero */
};

/*
 * Write all of source to path.  0, or -1: ERR_REFUSED (path is there, or is no regular file),
 * ERR_NOT_FOUND (its folder), ERR_SPACE, and what the source, progress and finished say.
 */
int raw_file_write(struct source *source, const char *path, const struct raw_config *config,
                   struct raw_result *result, struct err *e);

#endif
