#include "receiver/job/hint_judge.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "receiver/host/chain.h"
#include "receiver/host/retained.h"
#include "receiver/host/snapshot.h"
#include "receiver/job/vm_job.h"

bool hint_audit_is_due(uint64_t next)
{
    return next % HINT_AUDIT_EVERY == 0;
}

__attribute__((format(printf, 2, 3))) static bool doubt(char *why, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vsnprintf(why, HINT_WHY_ROOM, format, list);
    va_end(list);
    return true;
}

bool hint_doubt_before(const struct retained *r, const struct hint_view *v, char *why)
{
    int64_t moved = v->booted - r->booted;
    int64_t most = r->uptime / 2 < HINT_BOOT_SECONDS ? r->uptime / 2 : HINT_BOOT_SECONDS;

    if (strcmp(r->store_id, v->head->store_id) != 0)
        return doubt(why, "the snapshot was kept for another store");
    if (v->head->generation != r->generation ||
        strcmp(v->head->generation_id, r->generation_id) != 0)
        return doubt(why,
                     "the store's newest generation is %" PRIu64
                     ", but the kept snapshot belongs to %" PRIu64,
                     v->head->generation, r->generation);
    if (strcmp(r->host_uuid, v->host_uuid) != 0 || strcasecmp(r->vm_uuid, v->vm_uuid) != 0 ||
        strcmp(r->vmx, v->vmx) != 0)
        return doubt(why, "the VM is another or was moved");
    if (r->vmid != v->vmid)
        return doubt(why, "the VM was registered anew");
    if (v->booted == 0 || r->booted == 0 || moved > most || -moved > HINT_BOOT_SECONDS)
        return doubt(why, "the host was restarted since");
    return false;
}

bool hint_doubt_tree(const struct retained *r, const struct snapshot_tree *tree, const char *name,
                     unsigned mine, char *why)
{
    size_t kept = tree->count, found = 0;
    bool own = false;

    for (size_t i = 0; i < tree->count; i++) {
        if (strcmp(tree->items[i].name, name) == 0) {
            kept = i;
            found++;
        }
        own |= tree->items[i].id == mine;
    }
    if (found == 0)
        return doubt(why, "the snapshot is gone");
    if (found > 1 || tree->items[kept].id != r->snapshot_id ||
        tree->items[kept].created != r->created)
        return doubt(why, "another snapshot has its name");
    if (!own || (tree->current != 0 && tree->current != mine))
        return doubt(why, "our new snapshot is not the current one");
    if (!snapshot_is_below(tree, r->snapshot_id, mine))
        return doubt(why, "the VM was reverted to a state before it");
    return false;
}

static bool same_link(const struct chain_link *a, const struct chain_link *b)
{
    return a->cid == b->cid && strcmp(a->type, b->type) == 0 &&
           strcmp(a->descriptor_path, b->descriptor_path) == 0 &&
           strcmp(a->data_path, b->data_path) == 0;
}

/* The chain must stand on exactly the links of the record, with the recorded one right above. */
static bool doubt_chain(const struct retained_disk *d, const struct chain_disk *c, char *why)
{
    size_t above;

    if (c->link_count <= d->link_count)
        return doubt(why, "disk %s: its chain is not what it was: %zu links", c->slot,
                     c->link_count);
    above = c->link_count - d->link_count;
    for (size_t i = 0; i < d->link_count; i++)
        if (!same_link(&d->links[i], &c->links[above + i]))
            return doubt(why, "disk %s: its chain is not what it was: %s", c->slot,
                         c->links[above + i].descriptor_path);
    if (strcmp(c->links[above - 1].descriptor_path, d->leaf_path) != 0)
        return doubt(why, "disk %s: the link above it is another: %s", c->slot,
                     c->links[above - 1].descriptor_path);
    return false;
}

enum hint_verdict hint_judge_disk(const struct retained *r, const struct chain_disk *c,
                                  const struct hint_held *held, size_t *since, char *why)
{
    const struct retained_disk *d = retained_disk(r, c->slot);

    if (d == NULL || c->outcome != CHAIN_READ) {
        doubt(why, "disk %s is new for it", c->slot);
        return HINT_WHOLE;
    }
    if (strcmp(d->uuid, c->uuid) != 0) {
        doubt(why, "disk %s: its uuid is another", c->slot);
        return HINT_WHOLE;
    }
    if (d->capacity_bytes != c->capacity_bytes) {
        doubt(why, "disk %s: its size is another", c->slot);
        return HINT_WHOLE;
    }
    if (doubt_chain(d, c, why))
        return HINT_DOUBT;
    if (!held->trusted) {
        doubt(why, "disk %s: the store does not trust what it has of it", c->slot);
        return HINT_WHOLE;
    }
    if (!digest_equal(&held->root, &d->root)) {
        doubt(why, "disk %s: the store has another content of it than was recorded", c->slot);
        return HINT_WHOLE;
    }
    *since = c->link_count - d->link_count;
    return HINT_GOOD;
}

/* ---- behind a removal ---- */

/* Which link of `then` is missing in `now`: the count where none is, or SIZE_MAX where more is
 * different. */
static size_t missing_link(const struct chain_disk *then, const struct chain_disk *now,
                           bool removed)
{
    size_t at = 0;

    if (now->link_count == then->link_count)
        return then->link_count;
    if (!removed || now->link_count + 1 != then->link_count)
        return SIZE_MAX;
    while (at < now->link_count &&
           strcmp(then->links[at].descriptor_path, now->links[at].descriptor_path) == 0)
        at++;
    return at;
}

static bool doubt_after(const struct chain_disk *then, const struct chain_disk *now, bool removed,
                        char *why)
{
    size_t gone = missing_link(then, now, removed);

    if (strcmp(then->slot, now->slot) != 0 || then->outcome != now->outcome ||
        then->capacity_bytes != now->capacity_bytes || strcmp(then->uuid, now->uuid) != 0)
        return doubt(why, "disk %s is not what it was", then->slot);
    if (then->outcome != CHAIN_READ)
        return false;
    if (gone == SIZE_MAX)
        return doubt(why, "disk %s: %zu links have become %zu", then->slot, then->link_count,
                     now->link_count);
    for (size_t i = 0; i < now->link_count; i++) {
        const struct chain_link *a = &then->links[i + (i >= gone)], *b = &now->links[i];
        /* The one that took the other's content has a new content id. */
        bool merged = gone < then->link_count && (i == gone || i + 1 == gone);

        if (merged ? strcmp(a->descriptor_path, b->descriptor_path) != 0 ||
                         strcmp(a->data_path, b->data_path) != 0
                   : !same_link(a, b))
            return doubt(why, "disk %s: the link %s is not what it was", then->slot,
                         b->descriptor_path);
    }
    if (then->leaf_path == NULL || now->leaf_path == NULL ||
        strcmp(then->leaf_path, now->leaf_path) != 0)
        return doubt(why, "disk %s: the live link is another", then->slot);
    return false;
}

bool hint_doubt_after(const struct chain_plan *then, const struct chain_plan *now, bool removed,
                      char *why)
{
    if (then->count != now->count)
        return doubt(why, "the VM has other disks");
    for (size_t i = 0; i < then->count; i++)
        if (doubt_after(&then->items[i], &now->items[i], removed, why))
            return true;
    return false;
}
