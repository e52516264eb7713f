/* Names of the repository's objects (FORMAT.md 1).  Inside receiver/repo only. */
#ifndef RECEIVER_REPO_NAMES_H
#define RECEIVER_REPO_NAMES_H

#include "receiver/repo/repo.h"
#include "receiver/storage/storage.h"

#define NAME_CONFIG "config"
#define NAME_RESERVE "reserve"
#define NAME_LOCK "repository"
#define NAME_FORGET_LOCK "forget"
#define NAME_KEYS_LOCK "keys"

typedef char object_name[STORAGE_NAME_ROOM];

void name_of_pack(object_name out, const struct repo_key *pack);
void name_of_index(object_name out, const struct repo_key *pack);
void name_of_slot(object_name out, const char *slot);
void name_of_epoch(object_name out, uint64_t number);
/* folder is "generations", "retired" or "pins". */
void name_of_generation(object_name out, const char *folder, const struct repo_key *vm,
                        uint64_t number);
void name_of_partial(object_name out, const struct repo_key *vm, uint64_t session, uint32_t disk,
                     uint32_t sequence);
/* "generations/VM/" */
void prefix_of_vm(object_name out, const char *folder, const struct repo_key *vm);
void name_of_vm_lock(object_name out, const struct repo_key *vm);
void name_of_key(object_name out, const char *folder, const struct repo_key *key);

/* The inverse: false when the name is no such one. */
bool name_is_index(const char *name, struct repo_key *pack);
bool name_is_pack(const char *name, struct repo_key *pack);
bool name_is_generation(const char *name, const char *folder, struct repo_key *vm,
                        uint64_t *number);
bool name_is_epoch(const char *name, uint64_t *number);
bool name_is_partial(const char *name, struct repo_key *vm, uint64_t *session, uint32_t *disk,
                     uint32_t *sequence);

void hex_of(const uint8_t *bytes, size_t count, char *out); /* 2 * count + 1 */
bool hex_to(const char *text, size_t count, uint8_t *out);

#endif
