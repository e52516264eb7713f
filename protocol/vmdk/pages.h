/*
 * A cache of the pages that hold directories and tables, shared by all extent files of a chain.
 * Its size is fixed when it is made; reads may come from several threads, and no lock is held while
 * a file is read.
 */
#ifndef PROTOCOL_VMDK_PAGES_H
#define PROTOCOL_VMDK_PAGES_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct pages;
struct source;

enum { PAGE_BYTES = 16 << 10 };

/* 0, or -1: ERR_LIMIT (bytes is outside VMDK_CACHE_BYTES_MIN to _MAX), ERR_SYSTEM. */
int pages_new(struct pages **out, size_t bytes, struct err *e);
void pages_free(struct pages *p); /* NULL is allowed */

/*
 * Copy count bytes of file, which the cache knows as file_id.
 * 0, or -1: ERR_CORRUPT (past the end of the file), or what the file said.
 */
int pages_read(struct pages *p, struct source *file, uint32_t file_id, uint64_t offset_bytes,
               void *out, size_t count, struct err *e);

#endif
