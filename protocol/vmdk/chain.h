/*
 * A chain of VMDK links, from the tip that the caller names down to its base, read as one disk.
 * Formats: VMware, Virtual Disk Format 5.0, and what is known of seSparse; README.md here has the
 * list, and what is refused.
 *
 * A chain is a `struct source` that the source walk reads: data or zero at every offset.  Each link
 * can also be asked for itself: data, zero, or parent (not in this link), and from that the list of
 * what the links above a given one hold.
 *
 * Links are counted from the tip: 0 is the tip, the last one the base.
 *
 * Memory: one cache of table pages for the whole chain, of fixed size, plus the descriptors, which
 * are limited together; nothing grows with the size of the disk.
 *
 * Threads: once open, everything here but _close, _verify and _unchanged may be called from
 * several threads, unless the source's SOURCE_SEQUENTIAL is set (a file source had it).
 *
 * Errors: ERR_REFUSED (a name that leads out of the volumes; a chain that meets a file twice),
 * ERR_CORRUPT (file, field and reason are named), ERR_UNSUPPORTED (a known form that is not read:
 * raw device mapping, encryption, compressed without a codec …), ERR_SOURCE (a journal or dirty
 * mark, content ids that do not chain, an unfinished consolidation, a locked file: looking again
 * later may help), ERR_FORMAT (the tip is no VMDK), ERR_LIMIT, ERR_NOT_FOUND, ERR_SYSTEM.
 */
#ifndef PROTOCOL_VMDK_CHAIN_H
#define PROTOCOL_VMDK_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/extent.h"

struct descriptor;
struct err;
struct source;
struct vmdk_chain;
struct vmdk_codec;
struct vmdk_files;

enum {
    VMDK_LINKS_MAX = 256,
    VMDK_EXTENT_FILES_MAX = 2048,         /* of all links together */
    VMDK_DESCRIPTORS_BYTES_MAX = 4 << 20, /* text of all links together */
    VMDK_CACHE_BYTES_DEFAULT = 4 << 20,
    VMDK_CACHE_BYTES_MIN = 256 << 10,
    VMDK_CACHE_BYTES_MAX = 32 << 20,
};

enum vmdk_flags {
    /*
     * Only what an ESXi host keeps on its datastores: one extent to a link, of type VMFS,
     * VMFSSPARSE or SESPARSE, flat files of exactly their size.  Without it hosted forms are read
     * too.
     */
    VMDK_ONLY_ESXI = 1u << 0,
    /* When a link cannot be opened keep those above it, to be described: see vmdk_chain_problem. */
    VMDK_DESCRIBE = 1u << 1,
};

struct vmdk_config {
    struct vmdk_files *files;       /* lent until the chain is closed */
    const struct vmdk_codec *codec; /* lent; NULL: compressed extents are refused */
    size_t cache_bytes;             /* 0: VMDK_CACHE_BYTES_DEFAULT */
    unsigned flags;                 /* enum vmdk_flags */
};

/*
 * Open the chain whose tip is called tip, down to its base.  Headers and descriptors are checked
 * here, tables when they are met.  0 and *out, or -1 with a reason as above; then *out is
 * untouched.
 */
int vmdk_chain_open(struct vmdk_chain **out, const struct vmdk_config *config, const char *tip,
                    struct err *e);
void vmdk_chain_close(struct vmdk_chain *c); /* NULL is allowed */

/* The disk, which lives as long as the chain; closing it closes the chain.  Never both. */
struct source *vmdk_chain_source(struct vmdk_chain *c);

/* The chain as a source, for who needs no more: source_close ends it. */
int vmdk_source_open(struct source **out, const struct vmdk_config *config, const char *tip,
                     struct err *e);

/* Do the extents of every flat link know the holes of their file system? */
bool vmdk_chain_seeks_holes(const struct vmdk_chain *c);

/* ---- one link ---- */

#define VMDK_BYTES_UNKNOWN UINT64_MAX

struct vmdk_link {
    const char *place;                   /* of the file that holds the descriptor */
    const struct descriptor *descriptor; /* owned by the chain */
    const char *format;                  /* "flat", "COWD", "seSparse", "sparse", "stream" … */
    uint64_t capacity_bytes;
    uint64_t grain_bytes;     /* the smallest of its extents; 0 for flat */
    uint64_t file_bytes;      /* sizes of its extent files together */
    uint64_t allocated_bytes; /* held as data in this link; VMDK_BYTES_UNKNOWN before _verify */
    uint64_t zero_bytes;      /* known to be zero in this link; the same */
    size_t extent_count;
    bool embedded; /* the descriptor lies inside the extent */
};

size_t vmdk_chain_link_count(const struct vmdk_chain *c);
const struct vmdk_link *vmdk_chain_link(const struct vmdk_chain *c, size_t index);

/* The place of an extent's file, "" where it has none (ZERO). */
const char *vmdk_chain_extent_place(const struct vmdk_chain *c, size_t link, size_t extent);

/* ddb.NAME through the chain: the tip's value wins, then its parent's.  NULL if none has it. */
const char *vmdk_chain_ddb(const struct vmdk_chain *c, const char *name);

/* The link whose descriptor lies at place.  0, or -1 with ERR_NOT_FOUND. */
int vmdk_chain_find(const struct vmdk_chain *c, const char *place, size_t *index, struct err *e);

/*
 * With VMDK_DESCRIBE: why the chain ends before its base, in which case its source only gives that
 * reason; NULL when it is whole.
 */
const struct err *vmdk_chain_problem(const struct vmdk_chain *c);

/*
 * What link `index` itself holds: the longest known extent of one kind at offset_bytes, which is
 * below that link's capacity.  EXTENT_PARENT: nothing here (zeros, if it is the base).
 */
int vmdk_chain_link_extent_at(struct vmdk_chain *c, size_t index, uint64_t offset_bytes,
                              struct extent *out, struct err *e);

/*
 * What was written since link `index` was frozen: the first run of whole blocks at or behind
 * offset_bytes (a multiple of block_bytes, at most the capacity) of which a link above `index`
 * holds any byte, as data or as zeros.  Its kind is EXTENT_DATA; it may be cut where the next call
 * goes on. length_bytes 0: none is left.
 */
int vmdk_chain_changed_at(struct vmdk_chain *c, size_t index, uint32_t block_bytes,
                          uint64_t offset_bytes, struct extent *out, struct err *e);

/* ---- checks ---- */

/*
 * Read all tables of all links: every entry inside its file, no two tables or grains on the same
 * sectors.  Fills allocated_bytes and zero_bytes.  Needs up to 16 MiB while it runs;
 * files whose used part is longer than 64 GiB are gone through once for each such part.
 */
int vmdk_chain_verify(struct vmdk_chain *c, struct err *e);

/* Are all files still what they were when they were opened?  0, or -1 with ERR_SOURCE. */
int vmdk_chain_unchanged(struct vmdk_chain *c, struct err *e);

#endif
