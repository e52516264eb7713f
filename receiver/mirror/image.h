/*
 * Files that are as long as a disk or its digests: sparse reading and writing, digest arrays
 * (FORMAT.md 4), and proving one against the other.
 */
#ifndef RECEIVER_MIRROR_IMAGE_H
#define RECEIVER_MIRROR_IMAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/digest.h"

struct err;
struct mirror_env;
struct patch_cursor;

enum {
    DIGEST_WINDOW = 1024, /* digests handled at a time: 16 KiB */
    SLICE_UNIT = 16,      /* blocks that a slice takes or leaves together */
};

/* Shape of a disk. */
struct shape {
    uint64_t capacity_bytes;
    uint32_t block_bytes;
};

static inline uint64_t shape_blocks(struct shape s)
{
    return block_count_of(s.capacity_bytes, s.block_bytes);
}

/* Bytes of one block; 0 for one behind the end. */
static inline size_t shape_block_bytes(struct shape s, uint64_t block)
{
    uint64_t at = block * s.block_bytes;

    if (block >= shape_blocks(s))
        return 0;
    return s.capacity_bytes - at < s.block_bytes ? (size_t)(s.capacity_bytes - at) : s.block_bytes;
}

/* Bytes of a run of blocks. */
static inline uint64_t shape_run_bytes(struct shape s, uint64_t block, uint64_t count)
{
    uint64_t end = (block + count) * s.block_bytes;

    return (end < s.capacity_bytes ? end : s.capacity_bytes) - block * s.block_bytes;
}

/* The next offset at or after `at` that is no hole, or `end` if there is none before it. */
uint64_t file_next_data(int fd, uint64_t at, uint64_t end);

/* A run of a file that is no hole; empty value { 0 }. */
struct data_run {
    uint64_t from, to;
};

/*
 * Bytes of [at, at + length) that lie in holes.  *known remembers the last run between calls that
 * ascend: tmpfs walks every page of a run to find its end, so that is asked once for each.
 */
uint64_t file_hole_bytes(int fd, uint64_t at, uint64_t length, struct data_run *known);

/* Let [at, at + length) read as zeros: a hole where the file system can, else written zeros. */
int file_punch(int fd, uint64_t at, uint64_t length, struct err *e);

/* Read with zeros behind the end of the file. */
int file_read_padded(int fd, void *out, size_t count, uint64_t at, uint64_t file_bytes,
                     struct err *e);

/* --- digest arrays --- */

/* Digests [first, first + count) of an array of `blocks`; zeros behind it. */
int digests_read(int fd, uint64_t blocks, uint64_t first, size_t count, struct digest *out,
                 struct err *e);

/* The first block at or after `first` whose digest may not be 0; `blocks` if there is none. */
uint64_t digests_next_data(int fd, uint64_t first, uint64_t blocks);

/* Writes digests in ascending order, gathered. */
struct digest_writer {
    int fd; /* borrowed */
    uint64_t first;
    size_t count;
    struct digest d[DIGEST_WINDOW];
};

int digest_put(struct digest_writer *w, uint64_t block, const struct digest *d, struct err *e);
/* A run of zeros: becomes a hole. */
int digest_put_zeros(struct digest_writer *w, uint64_t block, uint64_t count, struct err *e);
int digest_writer_flush(struct digest_writer *w, struct err *e);

/*
 * The root of an array of base_blocks digests, with the entries of `over` (may be NULL) in place of
 * its own, for a disk of this shape.
 */
int digests_root(int fd, uint64_t base_blocks, struct patch_cursor *over, struct shape shape,
                 const struct digest_secret *secret, const struct mirror_env *env,
                 struct digest *out, struct err *e);

/* --- one bit for each block, in a file without a name --- */

struct bitmap {
    int fd; /* -1: no bit is set */
};

int bitmap_new(struct bitmap *b, int dir, struct err *e);
int bitmap_set(struct bitmap *b, uint64_t block, struct err *e);
/* Is it set; *run, if not NULL, gets how many blocks from here on are the same (at least 1, at most
 * some thousands). */
int bitmap_get(const struct bitmap *b, uint64_t block, bool *set, uint64_t *run, struct err *e);
void bitmap_free(struct bitmap *b);

/* --- proof --- */

struct prove {
    int image_fd, digests_fd;
    uint64_t base_blocks; /* of the digest array */
    struct shape shape;
    const struct digest_secret *secret;
    unsigned k, n;        /* slice k of n, by units of SLICE_UNIT blocks; 1, 1: all */
    uint64_t deadline_ms; /* of io_clock_ms; 0: none */
    uint64_t first_block; /* where to begin; goes round */
    const struct mirror_env *env;
    const char *what; /* for progress */
    /* A block (or a hole of several) that is not what its digest says. -1 ends the proof. */
    int (*differs)(void *context, uint64_t block, uint64_t count, struct err *e);
    void *context;
    uint64_t read_bytes;  /* out */
    uint64_t image_bytes; /* of the file; found by image_prove */
};

/* Compare image and digests.  0 also when there are differences. */
int image_prove(struct prove *p, struct err *e);

/* ERR_STOPPED when the user asked us to end. */
int env_check(const struct mirror_env *env, struct err *e);
void env_warn(const struct mirror_env *env, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void env_progress(const struct mirror_env *env, const char *what, uint64_t done, uint64_t total);

#endif
