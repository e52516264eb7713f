/*
 * One VM's folder, open: what runs and readers share.  Inside receiver/mirror only.
 */
#ifndef RECEIVER_MIRROR_STORE_H
#define RECEIVER_MIRROR_STORE_H

#include "receiver/base/folder.h"
#include "receiver/base/lock.h"
#include "receiver/mirror/image.h"
#include "receiver/mirror/layout.h"
#include "receiver/mirror/manifest.h"
#include "receiver/mirror/mirror.h"
#include "receiver/mirror/patch.h"
#include "receiver/restore/descriptor.h"

struct store {
    struct mirror_env env;
    char *path;       /* of the folder, for messages */
    int folder_fd;    /* DIR/NAME */
    int store_fd;     /* DIR/NAME/.vmferry */
    struct lock lock; /* of the images; empty unless this is a reader */
    struct mirror_identity identity;
    struct manifest newest; /* number 0: there is none */
    /*
     * This process holds the run lock and is about to read the host: apply leaves out what is
     * damaged of a committed redo, and the run fetches it again.  Without it such damage ends
     * apply.
     */
    bool for_run;
    bool own;     /* the redo that is applied is of this very run: nothing is read after it */
    bool damaged; /* apply had to leave out blocks of a damaged redo */
};

#define STORE_EMPTY ((struct store){ .folder_fd = -1, .store_fd = -1, .lock = LOCK_EMPTY })

/*
 * Open the folder `name` in dir (AT_FDCWD allowed) without locking or finishing anything.
 * -1: ERR_NOT_FOUND (no mirror is there), ERR_CORRUPT, ERR_UNSUPPORTED, ERR_SYSTEM.
 */
int store_open(struct store *s, int dir, const char *name, const char *path,
               const struct mirror_env *env, struct err *e);
void store_close(struct store *s);

/* Read the manifest with the highest number into s->newest. */
int store_load_newest(struct store *s, struct err *e);

/* True when a commit or its mark waits to be finished. */
bool store_is_pending(const struct store *s);

/*
 * Finish what a crash left, under the exclusive lock (store_apply), and load the newest manifest.
 * Nothing pending: only the latter.
 */
int store_finish(struct store *s, struct err *e);

/* The same for a commit that this process has just made. */
int store_apply_own(struct store *s, struct err *e);

/* Open for reading: finish, then the shared lock. */
int store_open_reader(struct store *s, const char *folder, const struct mirror_env *env,
                      struct err *e);

/* Steps 4 and 5 of FORMAT.md 6 for the published commit; the caller holds the exclusive lock. */
int store_apply(struct store *s, struct err *e);

/* Is the image of this disk as the newest manifest says?  Also false when it is missing. */
bool store_trusts(const struct store *s, const struct manifest_disk *d);
/* Note that a disk's image does not match its digests. */
void store_suspect(const struct store *s, uint64_t disk);

int store_manifest(const struct store *s, uint64_t number, struct manifest *out, struct err *e);

/* The numbers of the kept generations, ascending; free(*out). */
int store_generations(const struct store *s, uint64_t **out, size_t *count, struct err *e);

struct patch_head store_head(const struct store *s, enum patch_role role,
                             const struct manifest_disk *d, uint64_t generation,
                             uint64_t capacity_bytes, const struct digest *root);
static inline struct shape shape_of(const struct manifest_disk *d)
{
    return (struct shape){ d->capacity_bytes, (uint32_t)d->block_bytes };
}

/* The text of the descriptor beside a disk's image. */
static inline int disk_descriptor(const struct manifest_disk *d, char *out, size_t room)
{
    const struct descriptor_disk disk = { d->slot, d->capacity_bytes, d->root };

    return descriptor_text(&disk, d->file, out, room);
}

int random_bytes(void *out, size_t count, struct err *e);
void id_hex(const uint8_t id[MIRROR_ID_BYTES], char out[MIRROR_ID_HEX_BYTES]);

#endif
