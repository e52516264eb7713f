/*
 * The repository store: deduplicated, compressed, optionally sealed blocks of many VMs and
 * generations.  FORMAT.md beside this file is the normative layout; this header makes and opens a
 * repository and keeps its keys.  repo_run.h adds a generation, repo_read.h lists and reads them.
 *
 * Threads: an open repository may be used from several threads where a function says so; otherwise
 * one at a time.  The callbacks of struct repo_env are called from whichever thread is at work.
 */
#ifndef RECEIVER_REPO_REPO_H
#define RECEIVER_REPO_REPO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/digest.h"

struct err;
struct secret;
struct storage;
struct repo;

enum {
    REPO_KEY_BYTES = 16, /* of a repository, pack, VM, generation: random, no secret */
    REPO_KEY_HEX_BYTES = 2 * REPO_KEY_BYTES + 1,
    REPO_ID_BYTES = 32, /* of a block or node: a hash of its plain bytes */
    REPO_ID_HEX_BYTES = 2 * REPO_ID_BYTES + 1,
    REPO_SLOT_HEX_BYTES = 17,
    REPO_BLOCK_BYTES = 128 << 10, /* for new disks, unless init asked otherwise */
    REPO_DISKS_MAX = 256,
    REPO_FILES_MAX = 256,
    REPO_FILE_BYTES_MAX = 16 << 20,
    REPO_TEXT_MAX = 1024,
    REPO_KEY_FILE_BYTES = 32,
};

struct repo_key {
    uint8_t b[REPO_KEY_BYTES];
};

struct repo_id {
    uint8_t b[REPO_ID_BYTES];
};

/* What the store needs from its surroundings; every member may be empty. */
struct repo_env {
    void (*warn)(void *context, const char *text); /* no failure, but worth knowing; one line */
    void (*progress)(void *context, const char *what, uint64_t done_bytes, uint64_t total_bytes);
    void *context;
    const atomic_bool *stop; /* turns true: long work ends with ERR_STOPPED */
    uint64_t lock_wait_ms;   /* 0: one try */
};

/* What opens an encrypted repository: one of the two, both borrowed for the call. */
struct repo_unlock {
    const struct secret *passphrase;
    const char *key_file; /* path of a file that repo_slot_export wrote */
};

/* How much work a guess of the passphrase is; zeros: 4 passes over 192 MiB. */
struct repo_hardness {
    uint64_t passes;
    uint64_t memory_bytes;
};

struct repo_create_options {
    uint32_t block_bytes; /* 0: REPO_BLOCK_BYTES */
    bool append_only;     /* forget and prune refuse for ever */
    bool encrypt;         /* wants passphrase */
    const struct secret *passphrase;
    struct repo_hardness hardness;
};

/*
 * Make a repository in an empty storage, durably.  0, or -1: ERR_REFUSED (there is something),
 * ERR_USAGE (block size, no or an empty passphrase), ERR_SPACE, ERR_SYSTEM.
 */
int repo_create(struct storage *s, const struct repo_create_options *options, struct err *e);

enum repo_access {
    REPO_SHARED,   /* read, back up: others may do the same */
    REPO_EXCLUSIVE /* prune's deletion, repair: nobody else is at work */
};

struct repo_open_options {
    enum repo_access access;
    bool read_only; /* nothing will be written: unknown write features are accepted */
    struct repo_unlock unlock;
    /* The folder of the merged index, made where its last component is missing; NULL: the index is
     * kept in memory (a file without a name). */
    const char *cache_dir;
    struct repo_env env; /* copied */
};

/*
 * Take the repository lock, read config and keys, and bring the merged index up to date.  The
 * storage is borrowed.  0, or -1: ERR_NOT_FOUND (no repository here: perhaps not mounted), ERR_BUSY
 * (locked), ERR_AUTH (wrong passphrase or key file), ERR_USAGE (encrypted, and nothing given to
 * open it), ERR_REFUSED (a passphrase given for one that is not encrypted), ERR_UNSUPPORTED
 * (format, features), ERR_CORRUPT (names the object), ERR_STOPPED, ERR_SYSTEM, ERR_NETWORK.
 */
int repo_open(struct repo **out, struct storage *s, const struct repo_open_options *options,
              struct err *e);

/* After the runs in it have ended.  What is in no finished pack is lost, and nothing refers to it.
 * NULL is allowed. */
void repo_close(struct repo *r);

struct repo_facts {
    struct repo_key key;
    uint32_t block_bytes; /* for new disks */
    bool encrypted, append_only;
    uint64_t made; /* seconds since 1970 */
    uint64_t epoch;
    uint64_t entries, packs; /* in the merged index; an id twice counts twice */
};

/*
 * What `config` says of the repository in a storage, without opening it: whether a passphrase is
 * wanted, and the key that names its cache.  Epoch, entries and packs stay 0.  ERR_NOT_FOUND,
 * ERR_UNSUPPORTED, ERR_CORRUPT, ERR_SYSTEM, ERR_NETWORK.
 */
int repo_identify(struct storage *s, struct repo_facts *out, struct err *e);

/* Any thread. */
void repo_facts(struct repo *r, struct repo_facts *out);
struct storage *repo_storage(const struct repo *r);

/* --- key slots of an encrypted repository (ERR_USAGE for another one) --- */

struct repo_slot {
    char name[REPO_SLOT_HEX_BYTES];
    bool key_file;
    uint64_t made;
    char label[256];
};

/* Add a slot for this passphrase; *name, if not NULL, gets its name. */
int repo_slot_add(struct repo *r, const struct secret *passphrase,
                  const struct repo_hardness *hardness, const char *label,
                  char name[REPO_SLOT_HEX_BYTES], struct err *e);

/* Add a slot for a new random key, and write that to a new private file (ERR_REFUSED: exists). */
int repo_slot_export(struct repo *r, const char *path, const char *label,
                     char name[REPO_SLOT_HEX_BYTES], struct err *e);

/* Remove a slot; the last one, and the one that opened this repository unless `own`, is
 * ERR_REFUSED; ERR_NOT_FOUND. */
int repo_slot_remove(struct repo *r, const char *name, bool own, struct err *e);

/* The slots, ordered by name; free(*out).  *own is the index of the one that opened it. */
int repo_slot_list(struct repo *r, struct repo_slot **out, size_t *count, size_t *own,
                   struct err *e);

/* Write text forms: 32, 64 digits and a NUL. */
void repo_key_hex(const struct repo_key *key, char out[REPO_KEY_HEX_BYTES]);
void repo_id_hex(const struct repo_id *id, char out[REPO_ID_HEX_BYTES]);

#endif
