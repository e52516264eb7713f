/* Manifests and what a cut run leaves, as documents (FORMAT.md 8, 9).  Inside receiver/repo only.
 */
#ifndef RECEIVER_REPO_GENERATION_H
#define RECEIVER_REPO_GENERATION_H

#include "receiver/repo/node.h"
#include "receiver/repo/repo_read.h"

struct bytes;
struct fields;

void generation_fields(struct fields *f, struct repo_generation *g);
int generation_decode(struct repo_generation *g, const void *data, size_t count, struct err *e);
/* Publish it; ERR_REFUSED with EEXIST when the number is taken. */
int generation_put(struct repo *r, struct repo_generation *g, struct err *e);

/* The highest number that was ever given to the VM (retired ones too), and the highest that is
 * there; 0: none. */
int generation_newest(struct repo *r, const struct repo_key *vm, uint64_t *given, uint64_t *there,
                      struct err *e);

/* Replace *field by a copy of text. */
int generation_text(char **field, const char *text, struct err *e);

/* --- unfinished runs --- */

struct partial {
    struct repo_key vm;
    uint64_t parent; /* generation it goes on from, 0 none */
    char *slot, *uuid;
    uint64_t capacity_bytes;
    uint32_t block_bytes;
    struct digest_secret secret;
    uint64_t time;
    struct tree_spine spine;
};

void partial_fields(struct fields *f, struct partial *p);
void partial_free(struct partial *p); /* a zeroed one is allowed */
int partial_decode(struct partial *p, const void *data, size_t count, struct err *e);
int partial_put(struct repo *r, const char *name, struct partial *p, struct err *e);
int partial_get(struct repo *r, const char *name, struct partial *out, struct err *e);

#endif
