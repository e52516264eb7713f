/*
 * The keys of an open repository, and what is done with them: ids, sealing, key slots (FORMAT.md 2,
 * 4).  Inside receiver/repo only.
 *
 * Threads: everything here that takes a const vault may be called from several threads.
 */
#ifndef RECEIVER_REPO_VAULT_H
#define RECEIVER_REPO_VAULT_H

#include "receiver/repo/repo.h"

struct fields;
struct vault;

enum {
    VAULT_KEY_BYTES = 32,
    SEAL_NONCE_BYTES = 24,
    SEAL_TAG_BYTES = 16,
    SEAL_BYTES = SEAL_NONCE_BYTES + SEAL_TAG_BYTES, /* that sealing adds */
    WRAPPED_BYTES = 4 * VAULT_KEY_BYTES + SEAL_TAG_BYTES,
    SLOT_SALT_BYTES = 16,
    SLOT_LABEL_MAX = 255,
};

/* A vault without keys: of a repository that is not encrypted, or not opened yet. */
int vault_new(struct vault **out, const struct repo_key *repository, struct err *e);
void vault_free(struct vault *v); /* wipes; NULL is allowed */

const struct repo_key *vault_repository(const struct vault *v);
bool vault_sealed(const struct vault *v);

/* Give it new random keys. */
int vault_make_keys(struct vault *v, struct err *e);

/* The id of a block's or node's plain bytes. */
int vault_id(const struct vault *v, const void *plain, size_t count, struct repo_id *out,
             struct err *e);

/* The key of a VM (FORMAT.md 8); path is NULL where it does not count. */
int vault_vm_key(const struct vault *v, const char *host_uuid, const char *vm_uuid,
                 const char *path, struct repo_key *out, struct err *e);

/* The key of a host's asking ids (FORMAT.md 9a): 32 bytes. */
int vault_ask_key(const struct vault *v, const char *host_uuid, uint8_t out[VAULT_KEY_BYTES],
                  struct err *e);

/* out gets count + SEAL_BYTES: nonce, ciphertext, tag. */
int vault_seal(const struct vault *v, const void *ad, size_t ad_bytes, const void *plain,
               size_t count, uint8_t *out, struct err *e);

/* The inverse: count - SEAL_BYTES bytes to out.  ERR_CORRUPT when anything is not as it was. */
int vault_open(const struct vault *v, const void *ad, size_t ad_bytes, const uint8_t *in,
               size_t count, uint8_t *out, struct err *e);

/* --- key slots --- */

enum slot_kind { SLOT_ARGON2ID = 1, SLOT_KEY_FILE = 2 };

struct slot {
    uint8_t kind; /* enum slot_kind */
    uint64_t passes, memory_bytes;
    uint8_t salt[SLOT_SALT_BYTES];
    uint64_t made;
    char *label; /* owned */
    uint8_t nonce[SEAL_NONCE_BYTES];
    uint8_t wrapped[WRAPPED_BYTES];
};

/* The body of a slot's document, read or written. */
void slot_fields(struct fields *f, struct slot *s);
void slot_free(struct slot *s); /* a zeroed one is allowed */

/*
 * Wrap the vault's keys into *s, whose kind, label and made are set and for a passphrase passes and
 * memory too.  secret is the passphrase, or REPO_KEY_FILE_BYTES bytes of a key file.
 */
int slot_wrap(struct slot *s, const struct vault *v, const uint8_t config_hash[32],
              const void *secret, size_t count, struct err *e);

/* Take the keys out of a slot.  ERR_AUTH: not the secret of this slot; ERR_CORRUPT: the slot was
 * made for another `config`; ERR_SYSTEM (not enough memory for the guess). */
int slot_unwrap(const struct slot *s, struct vault *v, const uint8_t config_hash[32],
                const void *secret, size_t count, struct err *e);

#endif
