/* Key slots as objects (FORMAT.md 4).  Inside receiver/repo only. */
#ifndef RECEIVER_REPO_SLOTS_H
#define RECEIVER_REPO_SLOTS_H

#include "receiver/repo/config.h"
#include "receiver/repo/vault.h"

/* Publish a slot; name may be NULL.  The caller makes it durable. */
int slot_publish_passphrase(struct storage *s, const struct vault *v,
                            const uint8_t hash[CONFIG_HASH_BYTES], const struct secret *passphrase,
                            const struct repo_hardness *hardness, const char *label,
                            char name[REPO_SLOT_HEX_BYTES], struct err *e);

/* Open the vault with whichever slot it is; own gets its name.  ERR_AUTH when none is. */
int slots_unlock(struct storage *s, struct vault *v, const uint8_t hash[CONFIG_HASH_BYTES],
                 const struct repo_unlock *unlock, char own[REPO_SLOT_HEX_BYTES], struct err *e);

#endif
