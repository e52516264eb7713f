/*
 * The one growable buffer, with a ceiling.  Empty value: { 0 } plus a ceiling; release with
 * bytes_free.
 */
#ifndef PROTOCOL_BASE_BYTES_H
#define PROTOCOL_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>

struct err;

struct bytes {
    uint8_t *data; /* not a string unless bytes_text was asked for */
    size_t count;
    size_t room;
    size_t ceiling; /* count never passes it; 0 means that nothing fits */
};

/* Append count bytes.  0, or -1 with ERR_LIMIT (past the ceiling) or ERR_SYSTEM (no memory). */
int bytes_append(struct bytes *b, const void *data, size_t count, struct err *e);

/* Make room for count more bytes and return where they go; the caller adds to b->count.  NULL as
 * above. */
uint8_t *bytes_reserve(struct bytes *b, size_t count, struct err *e);

/* The content as text with a NUL behind it that does not count; owned by b.  NULL as above. */
char *bytes_text(struct bytes *b, struct err *e);

void bytes_free(struct bytes *b);

#endif
