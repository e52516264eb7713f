/*
 * Reading a repository: generations, the content of their disks, and single entries.
 */
#ifndef RECEIVER_REPO_REPO_READ_H
#define RECEIVER_REPO_REPO_READ_H

#include "receiver/repo/repo.h"

struct bytes;
struct source;

enum repo_disk_kind { REPO_DISK_READ = 1, REPO_DISK_KEPT = 2, REPO_DISK_ABSENT = 3 };

/* A place in a tree: of a block, or of a node above.  Both zero: zeros. */
struct repo_cell {
    struct repo_id id;
    struct digest digest;
};

struct repo_generation_disk {
    uint8_t state; /* enum repo_disk_kind; absent: no content */
    char *slot, *uuid, *label, *read_path;
    uint64_t capacity_bytes;
    uint32_t block_bytes;
    uint8_t levels;
    struct digest_secret secret;
    struct digest root;
    struct repo_cell top;
    uint64_t allocated_bytes, read_bytes, sampled_bytes, changed_bytes, sent_bytes, stored_bytes;
    uint64_t milliseconds;
    uint64_t of; /* the generation whose content this is */
};

struct repo_generation_file {
    char *name;
    uint64_t size_bytes;
    uint8_t sha256[32];
    uint32_t block_count;
    struct repo_id *blocks;
};

/* A manifest (FORMAT.md 8). */
struct repo_generation {
    struct repo_key vm, key;
    uint64_t number, parent;
    uint64_t time, committed;
    char *kind, *outcome, *consistency, *data_channel, *read_path, *change_source, *snapshot;
    char *host_uuid, *host_name, *vm_uuid, *vmx_path, *vm_name, *program;
    struct repo_generation_file *files;
    uint32_t file_count;
    struct repo_generation_disk *disks;
    uint32_t disk_count;
};

void repo_generation_free(struct repo_generation *g); /* a zeroed one is allowed */

/* A name in `generations/`: nothing is read for it. */
struct repo_generation_name {
    struct repo_key vm;
    uint64_t number;
};

/* All of them, ordered by VM key, then number; free(*out). */
int repo_generation_names(struct repo *r, struct repo_generation_name **out, size_t *count,
                          struct err *e);

/* Those of one VM, ascending. */
int repo_generation_numbers(struct repo *r, const struct repo_key *vm, uint64_t **out,
                            size_t *count, struct err *e);

/* ERR_NOT_FOUND, ERR_CORRUPT (names the object), ERR_LIMIT, ERR_SYSTEM, ERR_NETWORK. */
int repo_generation_load(struct repo *r, const struct repo_key *vm, uint64_t number,
                         struct repo_generation *out, struct err *e);

/*
 * The content of a disk as a source (protocol/block/source.h): zeros are known without reading,
 * every block that is read is proved by its id, every node by its id and its digests.  r and disk
 * are borrowed.  Several threads may read it.  ERR_CORRUPT when a block is damaged or missing, in
 * all entries that there are of it; the text names the pack.
 */
int repo_disk_open(struct source **out, struct repo *r, const struct repo_generation_disk *disk,
                   struct err *e);

/* The content of a file, proved, appended to out, whose ceiling is raised. */
int repo_file_read(struct repo *r, const struct repo_generation_file *file, struct bytes *out,
                   struct err *e);

/*
 * Walk over the nodes and blocks of one disk, in order; zeros are left out, and so is what is below
 * a node for which `node` returns 1.  `node` is called with each node's id before it is read, and
 * returns 0 to go in, 1 to leave it out, -1 to end.  `block` gets runs of cells of adjacent blocks.
 * Either may be NULL.
 */
struct repo_walk {
    int (*node)(void *context, unsigned level, uint64_t first_block, const struct repo_cell *cell,
                struct err *e);
    int (*block)(void *context, uint64_t first_block, const struct repo_cell *cells, size_t count,
                 struct err *e);
    void *context;
};
int repo_disk_walk(struct repo *r, const struct repo_generation_disk *disk,
                   const struct repo_walk *walk, struct err *e);

/*
 * A manifest that was listed could not be found: 0 when somebody has forgotten it meanwhile, -1
 * with ERR_NOT_FOUND (or another error) when the whole repository is gone.
 */
int repo_still_there(struct repo *r, struct err *e);

/* Is there an entry of this id, one that is not known to be damaged?  1, 0, -1. */
int repo_holds(struct repo *r, bool node, const struct repo_id *id, struct err *e);

/*
 * Read an entry of this id, at most plain_bytes long, and prove it: 0 when at least one of those
 * that there are is what it should be, -1 with ERR_CORRUPT when none is, or another error.
 */
int repo_prove(struct repo *r, bool node, const struct repo_id *id, uint32_t plain_bytes,
               struct err *e);

/*
 * Ranges of blocks in which two disks of one digest secret, capacity and block size differ, in
 * order; equal subtrees are not read.  ERR_USAGE when the two cannot be compared so.
 */
int repo_disk_diff(struct repo *r, const struct repo_generation_disk *a,
                   const struct repo_generation_disk *b,
                   int (*range)(void *context, uint64_t first_block, uint64_t count, struct err *e),
                   void *context, struct err *e);

#endif
