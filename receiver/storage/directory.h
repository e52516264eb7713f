/* The open directory behind storage_directory.h.  Inside receiver/storage only. */
#ifndef RECEIVER_STORAGE_DIRECTORY_H
#define RECEIVER_STORAGE_DIRECTORY_H

#include "receiver/storage/storage.h"

/* Written bytes after which the medium is asked to begin. */
#define SYNC_STEP_BYTES ((uint64_t)8 << 20)

/* root is taken over on success. */
int directory_new(struct storage **out, int root, const char *path, struct err *e);

#endif
