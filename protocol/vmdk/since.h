/*
 * A chain seen from an earlier moment: what was written since a link of it was frozen is data or
 * zeros, everything else is EXTENT_KEPT.  So a refresh costs what changed, when the sink's store
 * has the disk as it was when that link was frozen; whether it has is not known here.
 *
 * Some blocks of what is kept are given as EXTENT_CHECK: whoever walks the disk reads them and
 * finds the hint out when it lies.
 */
#ifndef PROTOCOL_VMDK_SINCE_H
#define PROTOCOL_VMDK_SINCE_H

#include <stddef.h>
#include <stdint.h>

#include "protocol/block/extent.h"

struct err;
struct source;
struct vmdk_chain;

enum { SINCE_CHECKS = EXTENT_CHECKS_MAX };

/*
 * The disk of c since link `index` (1 or more, below the tip) was frozen, in whole blocks.  It owns
 * the chain from then on: closing it closes c.  One block to be checked is drawn by each number of
 * random, if what it falls on is kept.
 * 0, or -1: ERR_SOURCE (the disk has grown since: the hint says nothing), ERR_LIMIT, ERR_SYSTEM;
 * then c stays the caller's.
 */
int vmdk_since_new(struct source **out, struct vmdk_chain *c, size_t index, uint32_t block_bytes,
                   const uint64_t random[SINCE_CHECKS], struct err *e);

/* The same since the link whose descriptor lies at `place` was frozen; ERR_NOT_FOUND: there is
 * none.
 */
int vmdk_since_place(struct source **out, struct vmdk_chain *c, const char *place,
                     uint32_t block_bytes, const uint64_t random[SINCE_CHECKS], struct err *e);

#endif
