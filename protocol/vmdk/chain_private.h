/* What chain.c, link.c, chain_read.c and verify.c share. */
#ifndef PROTOCOL_VMDK_CHAIN_PRIVATE_H
#define PROTOCOL_VMDK_CHAIN_PRIVATE_H

#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "protocol/vmdk/extent_file.h"
#include "protocol/vmdk/files.h"
#include "protocol/vmdk/packed.h"

/* One line of a link's descriptor, opened. */
struct slot {
    uint64_t start_bytes, length_bytes; /* of the link */
    struct vmdk_file file;              /* empty: a ZERO extent, or the link's own file */
    struct extent_file *x;
};

struct link {
    struct vmdk_link info;
    struct descriptor *descriptor;
    struct vmdk_file file; /* of the descriptor; its source is closed unless it is embedded */
    struct slot *slots;
    size_t slot_count;
};

struct vmdk_chain {
    struct source source; /* first: a chain is a source */
    struct vmdk_config config;
    struct pages *pages;
    struct packed_slot packed;
    struct link *links; /* VMDK_LINKS_MAX of them */
    size_t link_count;
    size_t file_count; /* extent files, all links; also the next number for the cache */
    size_t text_bytes; /* descriptors, all links */
    bool seeks_holes;
    struct err problem; /* ERR_NONE: the chain is whole */
};

/*
 * Open the link that name means (from is the place of its child, NULL for the tip) with its extents
 * and put it behind the others.  In the chain or not at all.
 */
int link_open(struct vmdk_chain *c, const char *from, const char *name, struct err *e);
void link_close(struct link *l);

/* The run of one link, as extent_file_ops.run_at; at and limit are bytes of the link. *slot is
 * where it lies. */
int link_run_at(const struct link *l, uint64_t at, uint64_t limit, bool places, struct run *out,
                const struct slot **slot, struct err *e);

/* Same file, by whatever name? */
bool file_is_same(const struct vmdk_file *a, const struct vmdk_file *b);

extern const struct source_ops chain_ops;

#endif
