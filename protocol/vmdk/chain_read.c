/*
 * What a chain holds at an offset: each link is asked from the tip down until one knows.
 *
 * The length that is asked for starts small and doubles while the answer stays of one kind, so that
 * a short answer never costs a look at long tables, and a long one few calls.  Where a link above
 * said that it holds nothing, it is not asked again: the links below may need many looks there.
 */
#include <inttypes.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/vmdk/chain_private.h"

#define WINDOW_FIRST (UINT64_C(256) << 10)
#define WINDOW_MAX (UINT64_C(1) << 30)
/* An extent is cut after this: the tables of more are read when the walk comes there. */
#define EXTENT_DATA_MAX (UINT64_C(1) << 30)
#define EXTENT_EMPTY_MAX (UINT64_C(1) << 37)

/* So many links are remembered; a longer chain is right, too, only slower. */
enum { ABSENT_LINKS = 40 };

/* Where a walk in ascending order need not ask: link i holds nothing before until[i]. */
struct absent {
    uint64_t until[ABSENT_LINKS];
};

/* Where a run of the chain lies. */
struct place {
    struct run run;
    const struct link *link;
    const struct slot *slot; /* EXTENT_DATA */
};

/* link_run_at, unless it is known that there is nothing. */
static int ask_link(struct vmdk_chain *c, size_t index, uint64_t at, uint64_t limit, bool places,
                    struct absent *absent, struct run *out, const struct slot **slot, struct err *e)
{
    if (index < ABSENT_LINKS && at < absent->until[index]) {
        *out = (struct run){ min_u64(limit, absent->until[index] - at), 0, EXTENT_PARENT };
        return 0;
    }
    if (link_run_at(&c->links[index], at, limit, places, out, slot, e) != 0)
        return -1;
    if (index < ABSENT_LINKS && out->kind == EXTENT_PARENT)
        absent->until[index] = at + out->length_bytes;
    return 0;
}

/*
 * The first link that knows the bytes at `at`, and how far its answer goes.  absent is empty at the
 * first call of a walk.
 */
static int resolve(struct vmdk_chain *c, uint64_t at, uint64_t limit, bool places,
                   struct absent *absent, struct place *out, struct err *e)
{
    *out = (struct place){ .run = { .kind = EXTENT_ZERO } };
    for (size_t i = 0; i < c->link_count; i++) {
        const struct link *l = &c->links[i];

        if (at >= l->info.capacity_bytes)
            break; /* the child is larger than its parent: zeros behind that */
        limit = min_u64(limit, l->info.capacity_bytes - at);
        out->link = l;
        if (ask_link(c, i, at, limit, places, absent, &out->run, &out->slot, e) != 0)
            return -1;
        limit = out->run.length_bytes;
        if (out->run.kind != EXTENT_PARENT)
            return 0;
    }
    out->run = (struct run){ limit, 0, EXTENT_ZERO };
    return 0;
}

static int check_whole(const struct vmdk_chain *c, struct err *e)
{
    if (c->problem.code == ERR_NONE)
        return 0;
    return err_set(e, c->problem.code, "%s", c->problem.text);
}

/* How much of one kind is worth knowing at once. */
static uint64_t length_max(enum extent_kind kind)
{
    return kind == EXTENT_DATA ? EXTENT_DATA_MAX : EXTENT_EMPTY_MAX;
}

/* After a short answer the next one is likely to be short as well. */
static uint64_t next_window(uint64_t window, bool was_filled)
{
    return was_filled ? min_u64(window * 2, WINDOW_MAX) : WINDOW_FIRST;
}

static int chain_extent_at(struct source *s, uint64_t offset_bytes, struct extent *out,
                           struct err *e)
{
    struct vmdk_chain *c = (struct vmdk_chain *)s;
    uint64_t left = s->capacity_bytes - offset_bytes, window = WINDOW_FIRST, length = 0;
    enum extent_kind kind = EXTENT_ZERO;
    struct absent absent = { 0 };

    if (check_whole(c, e) != 0)
        return -1;
    while (length < left && (length == 0 || length < length_max(kind))) {
        uint64_t asked = min_u64(window, left - length);
        struct place p;

        if (resolve(c, offset_bytes + length, asked, false, &absent, &p, e) != 0)
            return -1;
        if (length > 0 && p.run.kind != kind)
            break;
        kind = p.run.kind;
        length += p.run.length_bytes;
        window = next_window(window, p.run.length_bytes == asked);
    }
    *out = (struct extent){ offset_bytes, length, kind };
    return 0;
}

static int chain_read(struct source *s, uint64_t offset_bytes, void *out, size_t count,
                      struct err *e)
{
    struct vmdk_chain *c = (struct vmdk_chain *)s;
    struct absent absent = { 0 };
    uint8_t *to = out;

    if (check_whole(c, e) != 0)
        return -1;
    while (count > 0) {
        struct place p;
        size_t step;

        if (resolve(c, offset_bytes, count, true, &absent, &p, e) != 0)
            return -1;
        step = (size_t)p.run.length_bytes;
        if (p.run.kind != EXTENT_DATA)
            memset(to, 0, step);
        else if (p.slot->x->ops->read(p.slot->x, offset_bytes - p.slot->start_bytes, &p.run, to,
                                      step, e) != 0)
            return err_add(e, "%s",
                           p.slot->file.place != NULL ? p.slot->file.place : p.link->file.place);
        to += step;
        offset_bytes += step;
        count -= step;
    }
    return 0;
}

static void chain_close(struct source *s)
{
    vmdk_chain_close((struct vmdk_chain *)s);
}

const struct source_ops chain_ops = { chain_extent_at, chain_read, chain_close };

/* ---- one link ---- */

int vmdk_chain_link_extent_at(struct vmdk_chain *c, size_t index, uint64_t offset_bytes,
                              struct extent *out, struct err *e)
{
    const struct link *l = &c->links[index];
    uint64_t left = l->info.capacity_bytes - offset_bytes, window = WINDOW_FIRST, length = 0;
    enum extent_kind kind = EXTENT_PARENT;

    while (length < left && (length == 0 || length < length_max(kind))) {
        const struct slot *slot;
        struct run r;

        if (link_run_at(l, offset_bytes + length, min_u64(window, left - length), false, &r, &slot,
                        e) != 0)
            return -1;
        if (length > 0 && r.kind != kind)
            break;
        kind = r.kind;
        length += r.length_bytes;
        window = min_u64(window * 2, WINDOW_MAX);
    }
    *out = (struct extent){ offset_bytes, length, kind };
    return 0;
}

/* Does a link above `index` hold the byte at `at`?  *length is how far that answer goes. */
static int held_above(struct vmdk_chain *c, size_t index, uint64_t at, uint64_t limit,
                      struct absent *absent, bool *held, uint64_t *length, struct err *e)
{
    *held = false;
    for (size_t i = 0; i < index; i++) {
        const struct link *l = &c->links[i];
        const struct slot *slot;
        struct run r;

        if (at >= l->info.capacity_bytes)
            break;
        limit = min_u64(limit, l->info.capacity_bytes - at);
        if (ask_link(c, i, at, limit, false, absent, &r, &slot, e) != 0)
            return -1;
        limit = r.length_bytes;
        if (r.kind != EXTENT_PARENT) {
            *held = true;
            break;
        }
    }
    *length = limit;
    return 0;
}

int vmdk_chain_changed_at(struct vmdk_chain *c, size_t index, uint32_t block_bytes,
                          uint64_t offset_bytes, struct extent *out, struct err *e)
{
    uint64_t capacity = c->source.capacity_bytes, at = offset_bytes, window = WINDOW_FIRST;
    uint64_t start = capacity; /* none yet */
    struct absent absent = { 0 };

    if (check_whole(c, e) != 0)
        return -1;
    while (at < capacity && (start == capacity || at - start < EXTENT_DATA_MAX)) {
        uint64_t asked = min_u64(window, capacity - at), length, past;
        bool held;

        if (held_above(c, index, at, asked, &absent, &held, &length, e) != 0)
            return -1;
        window = next_window(window, length == asked);
        if (!held && start != capacity)
            break;
        if (held && start == capacity)
            start = at - at % block_bytes;
        at += length;
        past = at % block_bytes;
        if (held && past != 0) /* the rest of its block belongs to it */
            at = min_u64(at + block_bytes - past, capacity);
    }
    *out = (struct extent){ start, start == capacity ? 0 : at - start, EXTENT_DATA };
    return 0;
}
