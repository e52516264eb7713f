/* A run and its disks, and the open mirror behind it.  Inside receiver/mirror only. */
#ifndef RECEIVER_MIRROR_RUN_H
#define RECEIVER_MIRROR_RUN_H

#include "receiver/mirror/mirror.h"
#include "receiver/mirror/store.h"

struct sink;

struct mirror {
    struct store store;
    int dir_fd; /* DIR; -1 in a dry run without DIR */
    char *dir_path;
    char *name;   /* what the folder is, or will be, called */
    char *folder; /* dir_path/name */
    bool part;    /* the first mirror still grows in .NAME.part */
    bool dry;     /* nothing may change; the store may be missing */
    bool there;   /* the store is open */
    struct lock run_lock;
    /* of the VM, copied */
    char *host_uuid, *host_name, *vm_uuid, *vmx_path, *vm_name;
};

/* One disk of the VM in this run. */
struct run_disk {
    struct mirror *m;
    struct mirror_disk_state state;
    char slot[32];
    char *uuid, *label;
    bool included;
    struct manifest_disk *base; /* in the newest manifest, borrowed; NULL: new */
    struct digest_secret secret;
    struct shape shape;   /* from now on */
    struct shape old;     /* of the newest generation; capacity 0 when new */
    uint64_t lost_number; /* the disk whose image is missing and that this one replaces */

    /* Distrusted images: blocks that are not what their digests say. */
    struct bitmap differs;
    bool old_lost;          /* the digests were damaged too: no old content can be proved */
    struct image_stat stat; /* of the image at the start */
    bool was_suspect;

    bool sink_open, failed, ended;
    struct digest root;
    uint64_t changed_bytes, stored_bytes;
    struct patch_facts redo, delta;
};

struct mirror_run {
    struct mirror *m;
    struct run_disk *disks;
    size_t count;
    uint64_t keep;
    uint64_t number; /* the generation this becomes */
    uint64_t next_disk;
    int config_fd;
    struct manifest next; /* its configs and damages grow during the run */
    bool dry, first, committed;
};

/* Durable every so often: whichever comes first. */
enum { CHECKPOINT_MS = 30000 };
#define CHECKPOINT_BYTES ((uint64_t)256 << 20)

struct checkpoint {
    uint64_t generation;
    uint64_t position;    /* in blocks */
    uint64_t index_bytes; /* 0: no index */
    uint64_t blocks_bytes;
    uint8_t hash[PATCH_HASH_BYTES];
};

int checkpoint_save(const struct run_disk *d, const char *name, const struct checkpoint *c,
                    struct err *e);
/* -1 with ERR_NOT_FOUND or ERR_CORRUPT (also: of another disk). */
int checkpoint_load(const struct run_disk *d, const char *name, struct checkpoint *out,
                    struct err *e);

/* The block is unknown to the sink: its image lies, or it was the short last one before growth. */
int run_block_is_unknown(const struct run_disk *d, uint64_t block, bool *unknown, uint64_t *run,
                         struct err *e);

int redo_sink_new(struct run_disk *d, struct sink **out, struct err *e);
int fresh_sink_new(struct run_disk *d, struct sink **out, struct err *e);

/* Remove what is staged for a disk. */
int redo_drop(struct run_disk *d, struct err *e);
int fresh_drop(struct store *s, uint64_t number, struct err *e);

/*
 * Make sure that the digests say what is in the image: proves the array, and re-digests an image
 * that is not trusted (redigest.c).
 */
int run_prove_digests(struct run_disk *d, struct err *e);

/* Reverse delta, room, and damages of one disk before the commit (reverse.c).  *hole_bytes grows.
 */
int run_reverse(struct mirror_run *run, struct run_disk *d, uint64_t *hole_bytes, struct err *e);

/* Rename the part folder to its name (mirror.c). */
int mirror_publish_folder(struct mirror *m, struct err *e);

#endif
