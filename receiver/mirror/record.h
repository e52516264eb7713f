/*
 * Records: text files of `key value` lines in a fixed order that end with a hash over themselves
 * (FORMAT.md 2).  One walk over a struct's fields both writes and reads it, so each field is typed
 * once: the codec looks at `writing` and either appends the field or fills it in.
 *
 * Failures stick: after the first one every call does nothing, and record_save / record_done tell.
 */
#ifndef RECEIVER_MIRROR_RECORD_H
#define RECEIVER_MIRROR_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/base/bytes.h"
#include "receiver/base/publish.h"

struct err;

enum { RECORD_BYTES_MAX = 4 << 20, RECORD_TEXT_MAX = 1024, RECORD_SHA256_BYTES = 32 };

struct record {
    bool writing;
    bool failed;
    struct bytes body;
    const char *at;  /* reading: the next byte; the body has a NUL behind it */
    const char *end; /* reading: the start of the line `sha256` */
    unsigned line;
    struct err *e;
};

/* Begin to write a record of this type. */
void record_write(struct record *r, const char *type, struct err *e);

/*
 * Read the file `name` in dir and check its hash, format and type.
 * -1: ERR_NOT_FOUND, ERR_CORRUPT, ERR_UNSUPPORTED (another format number), ERR_SYSTEM.
 */
int record_read(struct record *r, int dir, const char *name, const char *type, struct err *e);

/* Whole lines. */
void record_u64(struct record *r, const char *key, uint64_t *v, uint64_t least, uint64_t most);
void record_text(struct record *r, const char *key, char **text); /* read: malloc'ed */
void record_hex(struct record *r, const char *key, uint8_t *b, size_t count);
/* A number that stands as a word of `words` (NULL ends the list). */
void record_word(struct record *r, const char *key, const char *const *words, unsigned *v);

/* A line of several fields: the key, its fields, the end.  A text may only be the last field. */
void record_line(struct record *r, const char *key);
void record_field_u64(struct record *r, uint64_t *v, uint64_t least, uint64_t most);
void record_field_hex(struct record *r, uint8_t *b, size_t count);
void record_field_text(struct record *r, char **text);
/* The field `none` alone instead of what else would come; true when that is so. */
bool record_field_none(struct record *r, bool none);
void record_line_end(struct record *r);

/* True when the next line has this key (reading). */
bool record_more(const struct record *r, const char *key);

/* Report a fault of the content that the caller found: sticks like the others. */
void record_fault(struct record *r, const char *text);

/* End of writing: publish.  Frees the record in any case. */
int record_save(struct record *r, int dir, const char *name, enum publish_how how);
/* End of reading: everything must have been read.  Frees the record in any case. */
int record_done(struct record *r, const char *name);

void sha256_of(uint8_t out[RECORD_SHA256_BYTES], const void *data, size_t count);

/* Read a whole small file of at most `most` bytes; the caller frees out.  -1 as io and ERR_LIMIT.
 */
int file_load(int dir, const char *name, struct bytes *out, size_t most, struct err *e);

#endif
