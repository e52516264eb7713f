/* The contents behind storage_memory.h and storage_record.h.  Inside receiver/storage only. */
#ifndef RECEIVER_STORAGE_MEMORY_H
#define RECEIVER_STORAGE_MEMORY_H

#include "receiver/storage/storage.h"

/* Bytes that several storages may share; they are never changed while shared. */
struct blob {
    atomic_uint users;
    size_t count;
    uint8_t *data;
};

struct blob *blob_keep(struct blob *b);
void blob_give(struct blob *b); /* NULL is allowed */

/* Let name be this content, which is kept.  No name is replaced: ERR_REFUSED. */
int memory_add(struct storage *s, const char *name, struct blob *blob, struct err *e);

/* What was written to an upload of a memory storage so far; the caller keeps it before publish. */
struct blob *memory_upload_blob(struct storage_upload *u);
const char *memory_upload_name(const struct storage_upload *u);

#endif
