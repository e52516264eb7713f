/*
 * Bodies of documents.  One walk over a struct's fields both writes and reads it, so that each
 * field is typed once: the walk looks at `writing` and appends the field or fills it in.  Failures
 * stick: after the first one every call does nothing (and reading yields zeros), and fields_done
 * tells. Inside receiver/repo only.
 */
#ifndef RECEIVER_REPO_FIELDS_H
#define RECEIVER_REPO_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/base/bytes.h"
#include "protocol/base/cursor.h"

struct err;

struct fields {
    bool writing;
    bool failed;
    struct bytes *out; /* writing */
    struct pull in;    /* reading */
    struct err *e;
};

void fields_write(struct fields *f, struct bytes *out, struct err *e);
void fields_read(struct fields *f, const void *data, size_t count, struct err *e);

/* Numbers must be within least and most, in both directions. */
void field_u8(struct fields *f, uint8_t *v, uint64_t least, uint64_t most);
void field_u32(struct fields *f, uint32_t *v, uint64_t least, uint64_t most);
void field_u64(struct fields *f, uint64_t *v, uint64_t least, uint64_t most);
void field_raw(struct fields *f, void *bytes, size_t count);

/* At most REPO_TEXT_MAX bytes, no NUL inside; reading makes a new string and never yields NULL
 * without failing; writing takes NULL for "". */
void field_text(struct fields *f, char **text);

/*
 * A counted array of count items of size bytes each: reading allocates it, zeroed, if there can be
 * as many items of at least least_bytes each in what is left.  False when there is nothing to walk.
 */
bool field_array(struct fields *f, void **items, uint32_t *count, uint32_t most, size_t size,
                 size_t least_bytes);

/* The content is not what it should be: sticks like the others. */
void field_fault(struct fields *f, const char *text);

/* 0, or -1 with the first failure; reading also fails when anything is left. */
int fields_done(struct fields *f);

#endif
