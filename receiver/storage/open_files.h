/*
 * Some files that were read last, kept open: the blocks of a disk lie in few packs, and opening one
 * part by part costs more than reading a block of it.  Objects are never changed, so an open file
 * says what its name says, until the object is removed.  Inside receiver/storage only.
 *
 * Threads: any.
 */
#ifndef RECEIVER_STORAGE_OPEN_FILES_H
#define RECEIVER_STORAGE_OPEN_FILES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "receiver/storage/storage.h"

enum { OPEN_FILES_MAX = 16 };

struct open_file {
    char name[STORAGE_NAME_ROOM];
    int fd; /* -1: the place is free */
    unsigned users;
    bool gone; /* removed while in use: closed with the last user */
    uint64_t used;
};

struct open_files {
    pthread_mutex_t lock; /* guards the rest */
    struct open_file files[OPEN_FILES_MAX];
    uint64_t clock;
};

void open_files_init(struct open_files *o);
void open_files_close(struct open_files *o); /* nobody uses one any more */

/* The open file of a name, to be given back; NULL: it is not kept. */
struct open_file *open_files_take(struct open_files *o, const char *name);

/*
 * Keep fd for this name; the caller has it and gives it back.  NULL: all places are in use, fd
 * stays the caller's.
 */
struct open_file *open_files_keep(struct open_files *o, const char *name, int fd);
void open_files_give(struct open_files *o, struct open_file *f);

/* The object is removed. */
void open_files_forget(struct open_files *o, const char *name);

#endif
