/* `config`: what a repository is (FORMAT.md 3).  Inside receiver/repo only. */
#ifndef RECEIVER_REPO_CONFIG_H
#define RECEIVER_REPO_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "receiver/repo/repo.h"

struct fields;
struct storage;
struct vault;

enum { CONFIG_FORMAT = 1, CONFIG_HASH_BYTES = 32 };

struct config {
    struct repo_key repository; /* in the document's header */
    uint64_t features_read, features_write;
    uint32_t block_bytes;
    uint8_t ids, sealing, append_only;
    uint64_t made;
    char *program;
    uint8_t hash[CONFIG_HASH_BYTES]; /* of the whole object */
};

/* The body; a format that we do not know is a failure. */
void config_fields(struct fields *f, struct config *c);

/*
 * Read `config`.  ERR_NOT_FOUND: there is no repository; ERR_UNSUPPORTED: a newer format or
 * features that reading, or unless read_only writing, needs; ERR_CORRUPT, ERR_SYSTEM, ERR_NETWORK.
 */
int config_load(struct config *c, struct storage *s, bool read_only, struct err *e);

/* Publish it; repository is taken from the vault, hash is filled in before anything is published
 * when `publish` is false.  */
int config_save(struct config *c, struct storage *s, const struct vault *v, bool publish,
                struct err *e);
void config_free(struct config *c);

#endif
