/* A run and its disks.  Inside receiver/repo only. */
#ifndef RECEIVER_REPO_RUN_H
#define RECEIVER_REPO_RUN_H

#include "receiver/repo/generation.h"
#include "receiver/repo/repo_run.h"

struct sink;
struct storage_lock;

struct run_disk {
    struct repo_run *run;
    uint32_t index;
    char *slot, *uuid, *label;
    bool included;
    const struct repo_generation_disk *base; /* in the parent, borrowed; NULL: new */
    struct repo_disk_state state;
    struct digest_secret secret;
    struct tree_shape shape;
    struct partial found; /* what a cut run left; spine.position 0: nothing */
    uint32_t sequence;    /* of the next partial */
    bool sink_open, ended;
    struct tree_spine done; /* the finished tree */
    struct repo_disk_result result;
};

struct repo_run {
    struct repo *repo;
    struct storage_lock *vm_lock;
    struct repo_key vm;
    char *host_uuid, *host_name, *vm_uuid, *vmx_path, *vm_name;
    struct repo_generation parent; /* number 0: none */
    uint64_t newest;               /* number given last */
    uint64_t session;
    bool no_parent, only_look, committed;
    uint8_t ask_when;
    struct run_disk *disks;
    size_t count;
    struct repo_generation_file *files;
    uint32_t file_count;
};

/* Durable every so often: whichever comes first. */
enum { PARTIAL_MS = 60000 };
#define PARTIAL_BYTES ((uint64_t)256 << 20)

/* Make durable what has come of a disk, and publish how far that is. */
int run_partial(struct run_disk *d, const struct tree_spine *spine, struct err *e);

/* Append what `from` has of [first, end) to a tree; subtrees that fit are not read. */
int tree_copy(struct tree_builder *to, const struct tree_shape *to_shape, struct tree_reader *from,
              const struct tree_shape *from_shape, uint64_t first, uint64_t end, struct err *e);

int repo_sink_new(struct run_disk *d, struct sink **out, struct err *e);

#endif
