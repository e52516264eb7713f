/*
 * Objects in memory, for tests and for measuring.  With a log it also stands for what a crash may
 * leave: storage_memory_after.
 */
#ifndef RECEIVER_STORAGE_STORAGE_MEMORY_H
#define RECEIVER_STORAGE_STORAGE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct storage;

/* 0, or -1 with ERR_SYSTEM. */
int storage_memory_new(struct storage **out, struct err *e);

/* For tests: let the nth call that changes something from here on fail with this code, and all
 * later ones too; 0 ends that. */
void storage_memory_fail(struct storage *s, uint64_t nth, int code);

/* For tests: change one byte, or cut an object, in place.  -1 with ERR_NOT_FOUND. */
int storage_memory_flip(struct storage *s, const char *name, uint64_t offset, uint8_t mask,
                        struct err *e);
int storage_memory_cut(struct storage *s, const char *name, uint64_t size, struct err *e);

#endif
