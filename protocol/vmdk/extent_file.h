/*
 * One extent of a link, behind one table of functions: flat, zero, or with grain tables.  Internal
 * to protocol/vmdk.  Offsets are bytes of the extent unless they are named after the file.
 */
#ifndef PROTOCOL_VMDK_EXTENT_FILE_H
#define PROTOCOL_VMDK_EXTENT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/extent.h"

struct err;
struct packed_slot;
struct pages;
struct source;
struct vmdk_codec;

/* A run of one kind; data of it lie in one piece in the file when places were asked for. */
struct run {
    uint64_t length_bytes;
    uint64_t file_bytes; /* EXTENT_DATA with places: where it begins; packed: the record */
    enum extent_kind kind;
};

/* Told of all that a file's tables name, for vmdk_chain_verify. */
struct visitor {
    /* A table or the file bytes of grains. */
    int (*range)(struct visitor *v, uint64_t file_bytes, uint64_t length_bytes, struct err *e);
    uint64_t data_bytes, zero_bytes; /* of the extent; added up by the visited */
};

struct extent_file;

struct extent_file_ops {
    /*
     * The run at `at`, of at most limit bytes (the caller keeps both inside the capacity); it may
     * be cut short.  With places a run of data is contiguous in the file.
     */
    int (*run_at)(struct extent_file *x, uint64_t at, uint64_t limit, bool places, struct run *out,
                  struct err *e);
    /* Bytes of a run that run_at gave, from its start. */
    int (*read)(struct extent_file *x, uint64_t at, const struct run *r, void *out, size_t count,
                struct err *e);
    int (*visit)(struct extent_file *x, struct visitor *v, struct err *e);
    void (*close)(struct extent_file *x); /* frees x; the file is its owner's */
};

struct extent_file {
    const struct extent_file_ops *ops;
    const char *format;  /* for people */
    struct source *file; /* borrowed; NULL for a zero extent */
    uint64_t capacity_bytes;
    uint64_t grain_bytes; /* 0: none */
};

/* What opening an extent needs to know. */
struct extent_plan {
    struct source *file;
    uint32_t file_id; /* for the cache */
    struct pages *pages;
    const struct vmdk_codec *codec; /* NULL: none */
    struct packed_slot *slot;
    uint64_t capacity_bytes; /* as the descriptor's line says */
    uint64_t start_bytes;    /* flat: where the extent begins in the file */
    bool exact_size;         /* flat: the file has exactly the extent's size */
};

int flat_open(struct extent_file **out, const struct extent_plan *p, struct err *e);
int zero_open(struct extent_file **out, const struct extent_plan *p, struct err *e);
int cowd_open(struct extent_file **out, const struct extent_plan *p, struct err *e);
int sesparse_open(struct extent_file **out, const struct extent_plan *p, struct err *e);
int sparse_open(struct extent_file **out, const struct extent_plan *p, struct err *e);

#endif
