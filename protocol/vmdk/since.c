#include "protocol/vmdk/since.h"

#include <inttypes.h>
#include <stdlib.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"

struct since {
    struct source base;
    struct vmdk_chain *chain;
    struct source *disk; /* the chain's */
    size_t index;
    uint32_t block_bytes;
    size_t check_count;
    uint64_t checks[SINCE_CHECKS]; /* numbers of blocks, ascending */
};

/* The first block to be checked at or behind `block`, or UINT64_MAX. */
static uint64_t next_check(const struct since *s, uint64_t block)
{
    for (size_t i = 0; i < s->check_count; i++)
        if (s->checks[i] >= block)
            return s->checks[i];
    return UINT64_MAX;
}

/* What is kept from offset on, up to end: up to the next block to be checked, or that block. */
static struct extent kept(const struct since *s, uint64_t offset, uint64_t end)
{
    uint64_t block = offset / s->block_bytes, check = next_check(s, block);
    struct extent x = { offset, end - offset, EXTENT_KEPT };

    if (check == block) {
        x.kind = EXTENT_CHECK;
        x.length_bytes = min_u64(end, (block + 1) * s->block_bytes) - offset;
    } else if (check < UINT64_MAX / s->block_bytes) {
        x.length_bytes = min_u64(end, check * s->block_bytes) - offset;
    }
    return x;
}

static int since_extent_at(struct source *source, uint64_t offset_bytes, struct extent *out,
                           struct err *e)
{
    struct since *s = (struct since *)source;
    uint64_t start = offset_bytes - offset_bytes % s->block_bytes;
    struct extent changed;

    if (vmdk_chain_changed_at(s->chain, s->index, s->block_bytes, start, &changed, e) != 0)
        return -1;
    if (changed.length_bytes == 0) {
        *out = kept(s, offset_bytes, source->capacity_bytes);
        return 0;
    }
    if (changed.offset_bytes > offset_bytes) {
        *out = kept(s, offset_bytes, changed.offset_bytes);
        return 0;
    }
    if (source_extent_at(s->disk, offset_bytes, out, e) != 0)
        return -1;
    out->length_bytes =
        min_u64(out->length_bytes, changed.offset_bytes + changed.length_bytes - offset_bytes);
    return 0;
}

static int since_read(struct source *source, uint64_t offset_bytes, void *out, size_t count,
                      struct err *e)
{
    return source_read(((struct since *)source)->disk, offset_bytes, out, count, e);
}

static void since_close(struct source *source)
{
    struct since *s = (struct since *)source;

    source_close(s->disk);
    free(s);
}

static const struct source_ops since_ops = { since_extent_at, since_read, since_close };

int vmdk_since_new(struct source **out, struct vmdk_chain *c, size_t index, uint32_t block_bytes,
                   const uint64_t random[SINCE_CHECKS], struct err *e)
{
    struct source *disk = vmdk_chain_source(c);
    uint64_t blocks =
        disk->capacity_bytes / block_bytes + (disk->capacity_bytes % block_bytes != 0);
    const struct vmdk_link *link;
    struct since *s;

    if (index == 0 || index >= vmdk_chain_link_count(c))
        return err_set(e, ERR_LIMIT, "there is no link %zu to look back to", index);
    link = vmdk_chain_link(c, index);
    if (link->capacity_bytes != disk->capacity_bytes)
        return err_set(e, ERR_SOURCE, "%s has %" PRIu64 " bytes, the disk %" PRIu64, link->place,
                       link->capacity_bytes, disk->capacity_bytes);
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_sys(e, "opening a disk");
    s->base = (struct source){ .ops = &since_ops,
                               .capacity_bytes = disk->capacity_bytes,
                               .allocated_bytes = disk->allocated_bytes,
                               .flags = disk->flags };
    s->chain = c;
    s->disk = disk;
    s->index = index;
    s->block_bytes = block_bytes;
    /* One of each of equal parts, so that none is drawn twice and all of the disk is looked at. */
    for (uint64_t i = 0; i < SINCE_CHECKS; i++) {
        uint64_t from = blocks / SINCE_CHECKS * i + min_u64(i, blocks % SINCE_CHECKS);
        uint64_t part = blocks / SINCE_CHECKS + (i < blocks % SINCE_CHECKS);

        if (part > 0)
            s->checks[s->check_count++] = from + random[i] % part;
    }
    *out = &s->base;
    return 0;
}

int vmdk_since_place(struct source **out, struct vmdk_chain *c, const char *place,
                     uint32_t block_bytes, const uint64_t random[SINCE_CHECKS], struct err *e)
{
    size_t index;

    return vmdk_chain_find(c, place, &index, e) == 0 &&
                   vmdk_since_new(out, c, index, block_bytes, random, e) == 0
               ? 0
               : -1;
}
