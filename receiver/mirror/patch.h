/*
 * Patches: which blocks of a disk get other content (FORMAT.md 5).  A redo turns the newest
 * generation into the next one, a reverse delta turns a generation into the one before.  An index
 * of fixed-size entries in ascending order, and a file with the packed blocks.  Everything streams:
 * a writer and a cursor need a few KiB, whatever the disk's size.
 */
#ifndef RECEIVER_MIRROR_PATCH_H
#define RECEIVER_MIRROR_PATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/digest.h"
#include "protocol/stream/sink.h"
#include "receiver/mirror/manifest.h"

struct err;

enum {
    PATCH_HEAD_BYTES = 128,
    PATCH_ENTRY_BYTES = 48,
    PATCH_BUFFER_ENTRIES = 256,
};

enum patch_role { PATCH_REDO = 1, PATCH_DELTA = 2 };
enum patch_kind { PATCH_DATA = 1, PATCH_ZERO = 2, PATCH_LOST = 3 };

struct patch_head {
    uint32_t role;
    uint32_t block_bytes;
    uint8_t mirror[MIRROR_ID_BYTES];
    uint64_t disk;
    uint64_t generation;
    uint64_t capacity_bytes;
    struct digest root;
};

struct patch_entry {
    uint64_t block;
    uint64_t count;          /* of blocks; 1 for data */
    uint64_t payload_offset; /* data */
    uint32_t packed_bytes;   /* data */
    uint8_t kind;
    uint8_t encoding;
    struct digest digest;
};

/* --- writing --- */

struct patch_writer {
    int index_fd, blocks_fd; /* borrowed */
    uint64_t index_bytes;    /* with what is still buffered */
    uint64_t blocks_bytes;
    uint64_t entries;
    uint64_t end;               /* block behind the last entry */
    struct patch_entry pending; /* the last entry while it may still grow; count 0: none */
    size_t buffered;
    uint8_t buffer[PATCH_BUFFER_ENTRIES * PATCH_ENTRY_BYTES];
    void *hash;
};

/* Write the header to the empty file index_fd; blocks go behind the first blocks_bytes of
 * blocks_fd. */
int patch_writer_open(struct patch_writer *w, int index_fd, int blocks_fd, uint64_t blocks_bytes,
                      const struct patch_head *head, struct err *e);
/* The next entry as it is; runs that touch become one. */
int patch_put(struct patch_writer *w, const struct patch_entry *entry, struct err *e);
/* Store a block: its packed bytes, and an entry for it. */
int patch_put_data(struct patch_writer *w, uint64_t block, const struct digest *digest,
                   const void *packed, size_t packed_bytes, enum block_encoding encoding,
                   struct err *e);
int patch_put_run(struct patch_writer *w, enum patch_kind kind, uint64_t block, uint64_t count,
                  const struct digest *digest, struct err *e);
/* Everything to the file; hash of the index so far.  Does not fsync. */
int patch_writer_flush(struct patch_writer *w, uint8_t hash[PATCH_HASH_BYTES], struct err *e);
void patch_writer_close(struct patch_writer *w); /* frees; the descriptors stay open */

/* --- reading --- */

struct patch_cursor {
    int fd;           /* owned */
    uint64_t entries; /* in all */
    uint64_t next;    /* index of the entry after `entry` */
    bool have;        /* entry is valid */
    struct patch_entry entry;
    struct patch_head head;
    uint64_t blocks;
    uint64_t blocks_bytes; /* payload must end at or before this */
    uint64_t end;          /* block behind the entry read last */
    uint64_t buffer_first, buffer_count;
    uint8_t buffer[PATCH_BUFFER_ENTRIES * PATCH_ENTRY_BYTES];
};

#define PATCH_CURSOR_EMPTY ((struct patch_cursor){ .fd = -1 })

/*
 * Open the index `name` in dir, which must have this header; index_bytes 0 takes the whole file.
 * Stands on the first entry.  -1: ERR_NOT_FOUND, ERR_CORRUPT, ERR_SYSTEM.
 */
int patch_cursor_open(struct patch_cursor *c, int dir, const char *name,
                      const struct patch_head *expected, uint64_t index_bytes,
                      uint64_t blocks_bytes, struct err *e);
/* Go on to the next entry; at the end have turns false. */
int patch_step(struct patch_cursor *c, struct err *e);
/* Stand on the first entry that ends behind `block`. */
int patch_seek(struct patch_cursor *c, uint64_t block, struct err *e);
/* The same for a block at or behind the present one, in short steps. */
int patch_forward(struct patch_cursor *c, uint64_t block, struct err *e);
void patch_cursor_close(struct patch_cursor *c);

/* Hash the first index_bytes of an open index. */
int patch_hash(int fd, uint64_t index_bytes, uint8_t hash[PATCH_HASH_BYTES], struct err *e);

/* Room to unpack blocks: two buffers of one block. */
struct patch_room {
    uint8_t *plain, *packed;
    void *zstd;
    size_t block_bytes;
};

int patch_room_new(struct patch_room *r, size_t block_bytes, struct err *e);
void patch_room_free(struct patch_room *r);

/*
 * Read a data entry's block of plain_bytes into r->plain and prove its digest.
 * -1: ERR_CORRUPT, ERR_SYSTEM, ERR_SOURCE.
 */
int patch_payload(int blocks_fd, const struct patch_entry *entry,
                  const struct digest_secret *secret, size_t plain_bytes, struct patch_room *r,
                  struct err *e);

#endif
