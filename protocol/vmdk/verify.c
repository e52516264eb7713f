/*
 * All tables of a chain, looked at once.
 *
 * Reading a disk checks each entry that it uses: inside its file, outside the metadata, of a known
 * form.  What it cannot see is two entries on the same sectors, since that needs memory for the
 * whole file.  Here it is done with a bitmap of fixed size: one bit for each sector of a part of
 * the file.  A file whose used sectors reach further than one bitmap is gone through again for the
 * next part, beginning where the next used sector was seen, so empty parts cost nothing.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/vmdk/chain_private.h"
#include "protocol/vmdk/descriptor.h"

enum { BITMAP_BYTES = 16 << 20, SECTOR = DESCRIPTOR_SECTOR_BYTES };
#define BITMAP_SECTORS ((uint64_t)BITMAP_BYTES * 8)

struct marks {
    struct visitor visitor;
    uint8_t *bits;
    uint64_t from; /* the first sector of this part */
    uint64_t next; /* the lowest used sector behind it; UINT64_MAX: none */
};

static int mark(struct visitor *v, uint64_t file_bytes, uint64_t length_bytes, struct err *e)
{
    struct marks *m = (struct marks *)v;
    uint64_t start = file_bytes / SECTOR, to = m->from + BITMAP_SECTORS;
    uint64_t end = (file_bytes + length_bytes + SECTOR - 1) / SECTOR;

    if (length_bytes == 0)
        return 0;
    if (end > to)
        m->next = min_u64(m->next, max_u64(start, to));
    start = max_u64(start, m->from);
    end = min_u64(end, to);
    for (uint64_t at = start; at < end; at++) {
        uint64_t bit = at - m->from;
        uint8_t one = (uint8_t)(1u << (bit & 7));

        if ((bit & 7) == 0 && end - at >= 8 && m->bits[bit >> 3] == 0) {
            m->bits[bit >> 3] = 0xff;
            at += 7;
            continue;
        }
        if ((m->bits[bit >> 3] & one) != 0)
            return err_set(e, ERR_CORRUPT, "it shares sector %" PRIu64 " of the file with another",
                           at);
        m->bits[bit >> 3] |= one;
    }
    return 0;
}

/* Bytes of the bitmap that a file needs: all of it only when the file is long. */
static size_t bitmap_bytes(const struct slot *s)
{
    uint64_t sectors = s->x->grain_bytes == 0 ? 0 : s->x->file->capacity_bytes / SECTOR + 1;

    return (size_t)min_u64(BITMAP_BYTES, sectors / 8 + 1);
}

static int verify_slot(struct slot *s, struct marks *m, struct vmdk_link *info, struct err *e)
{
    size_t bytes = bitmap_bytes(s);
    bool first = true;

    m->from = 0;
    do {
        m->visitor.data_bytes = m->visitor.zero_bytes = 0;
        m->next = UINT64_MAX;
        memset(m->bits, 0, bytes);
        if (s->x->ops->visit(s->x, &m->visitor, e) != 0)
            return -1;
        if (first) {
            info->allocated_bytes += m->visitor.data_bytes;
            info->zero_bytes += m->visitor.zero_bytes;
        }
        first = false;
        m->from = m->next;
    } while (m->next != UINT64_MAX);
    return 0;
}

int vmdk_chain_verify(struct vmdk_chain *c, struct err *e)
{
    struct marks m = { .visitor = { .range = mark } };
    size_t most = 1;
    int rc = -1;

    for (size_t i = 0; i < c->link_count; i++)
        for (size_t k = 0; k < c->links[i].slot_count; k++)
            most = (size_t)max_u64(most, bitmap_bytes(&c->links[i].slots[k]));
    m.bits = malloc(most);
    if (m.bits == NULL)
        return err_sys(e, "getting memory to check tables");
    for (size_t i = 0; i < c->link_count; i++) {
        struct link *l = &c->links[i];
        struct vmdk_link found = { 0 };

        for (size_t k = 0; k < l->slot_count; k++)
            if (verify_slot(&l->slots[k], &m, &found, e) != 0) {
                err_add(e, "%s", vmdk_chain_extent_place(c, i, k));
                goto out;
            }
        l->info.allocated_bytes = found.allocated_bytes;
        l->info.zero_bytes = found.zero_bytes;
    }
    rc = 0;

out:
    free(m.bits);
    return rc;
}
