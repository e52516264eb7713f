/*
 * Documents: small objects that are read whole and prove themselves, their name and their type
 * (FORMAT.md 2).  Inside receiver/repo only.
 */
#ifndef RECEIVER_REPO_DOCUMENT_H
#define RECEIVER_REPO_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes;
struct err;
struct fields;
struct repo_key;
struct storage;
struct vault;

enum document_type {
    DOCUMENT_CONFIG = 1,
    DOCUMENT_SLOT = 2,
    DOCUMENT_INDEX = 3,
    DOCUMENT_GENERATION = 4,
    DOCUMENT_PARTIAL = 5,
    DOCUMENT_RETIRED = 6,
    DOCUMENT_PIN = 7,
    DOCUMENT_TAG = 8,
    DOCUMENT_EPOCH = 9,
    DOCUMENT_DAMAGED = 10,
    DOCUMENT_VERIFIED = 11,
};

enum {
    DOCUMENT_HEADER_BYTES = 40,
    DOCUMENT_BODY_MAX = 64 << 20,
    DOCUMENT_EXTRA_MAX = DOCUMENT_HEADER_BYTES + 40, /* bytes of an object that are not its body */
};

/* The largest body of a type. */
size_t document_body_max(enum document_type type);

/* The object of a body, appended to out (whose ceiling is raised), as it is stored under name. */
int document_encode(const struct vault *v, enum document_type type, const char *name,
                    const void *body, size_t count, struct bytes *out, struct err *e);

/*
 * The body of an object, appended to out.  ERR_FORMAT (no document), ERR_UNSUPPORTED (another
 * version), ERR_CORRUPT (damaged, or of another repository, name or type), ERR_LIMIT.
 */
int document_decode(const struct vault *v, enum document_type type, const char *name,
                    const void *data, size_t count, struct bytes *out, struct err *e);

/* The repository that a document says it is of, before there is a vault. */
int document_repository(const void *data, size_t count, struct repo_key *out, struct err *e);

/* Encode and publish; load and decode.  Errors name the object. */
int document_put(struct storage *s, const struct vault *v, enum document_type type,
                 const char *name, const struct bytes *body, struct err *e);
int document_get(struct storage *s, const struct vault *v, enum document_type type,
                 const char *name, struct bytes *out, struct err *e);

#endif
