/* The manifest of a generation (FORMAT.md 3) and the identity of a mirror, in memory. */
#ifndef RECEIVER_MIRROR_MANIFEST_H
#define RECEIVER_MIRROR_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "protocol/block/digest.h"
#include "receiver/base/publish.h"
#include "receiver/mirror/record.h"

struct err;

enum {
    MIRROR_ID_BYTES = 16,
    MANIFEST_DISKS_MAX = 4096, /* with removed ones */
    MANIFEST_DAMAGES_MAX = 1 << 16,
    PATCH_HASH_BYTES = 16,
};

/* All members zero: never trusted. */
struct image_stat {
    uint64_t device, inode, size, mtime, mtime_ns, ctime, ctime_ns;
};

enum disk_state { DISK_READ, DISK_KEPT, DISK_ABSENT, DISK_REMOVED };

/* A patch as a manifest names it. */
struct patch_facts {
    bool there;
    uint64_t entries;
    uint64_t blocks_bytes;
    uint8_t hash[PATCH_HASH_BYTES];
};

struct manifest_disk {
    uint64_t number;
    unsigned state; /* enum disk_state */
    char *slot, *uuid, *label, *file, *was, *read_path;
    uint64_t capacity_bytes, block_bytes;
    struct digest_secret secret;
    struct digest root;
    uint64_t of;
    struct image_stat stat;
    uint64_t allocated_bytes, read_bytes, sampled_bytes, changed_bytes, sent_bytes, stored_bytes;
    uint64_t milliseconds;
    struct patch_facts redo, delta;
};

struct manifest_config {
    char *name;
    uint64_t size_bytes;
    uint8_t sha256[RECORD_SHA256_BYTES];
};

struct manifest_damage {
    uint64_t generation, disk, blocks;
};

struct manifest {
    uint8_t mirror[MIRROR_ID_BYTES];
    uint64_t number;
    uint8_t id[MIRROR_ID_BYTES];
    uint64_t time;
    char *kind, *outcome, *consistency, *data_channel, *read_path, *change_source, *snapshot;
    char *host_uuid, *host_name, *vm_uuid, *vmx_path, *vm_name;
    uint64_t keep, next_disk;
    struct manifest_config *configs;
    size_t config_count;
    struct manifest_damage *damages;
    size_t damage_count;
    struct manifest_disk *disks;
    size_t disk_count;
};

int manifest_load(struct manifest *out, int dir, const char *name, struct err *e);
int manifest_save(struct manifest *m, int dir, const char *name, enum publish_how how,
                  struct err *e);
void manifest_free(struct manifest *m); /* a zeroed one is allowed */

/* The disk of that number, or NULL. */
struct manifest_disk *manifest_disk(const struct manifest *m, uint64_t number);

/* Make room for one more; NULL with ERR_LIMIT or ERR_SYSTEM.  The new one is zeroed. */
struct manifest_disk *manifest_add_disk(struct manifest *m, struct err *e);
struct manifest_config *manifest_add_config(struct manifest *m, struct err *e);

/* Lost blocks of a disk in a generation: adds to what is noted already. */
int manifest_note_damage(struct manifest *m, uint64_t generation, uint64_t disk, uint64_t blocks,
                         struct err *e);

/* Replace *field by a copy of text. */
int text_set(char **field, const char *text, struct err *e);

struct mirror_identity {
    uint8_t mirror[MIRROR_ID_BYTES];
    char *host_uuid, *vm_uuid, *vmx_path, *vm_name;
    uint64_t made;
};

int identity_load(struct mirror_identity *out, int dir, struct err *e);
int identity_save(struct mirror_identity *i, int dir, struct err *e);
void identity_free(struct mirror_identity *i);

/* A new disk that is growing: what image-D.disk says. */
struct new_disk {
    uint64_t number;
    char *slot, *uuid;
    uint64_t capacity_bytes, block_bytes;
    struct digest_secret secret;
};

int new_disk_load(struct new_disk *out, int dir, uint64_t number, struct err *e);
int new_disk_save(struct new_disk *d, int dir, struct err *e);
void new_disk_free(struct new_disk *d);

void image_stat_of(struct image_stat *out, const struct stat *s);
bool image_stat_equal(const struct image_stat *a, const struct image_stat *b);

#endif
