#include "receiver/job/repo_prune.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/base/failpoint.h"
#include "receiver/job/id_set.h"
#include "receiver/repo/repo_care.h"
#include "receiver/storage/storage.h"

enum {
    PARTIAL_DAYS = 14,      /* so long an unfinished run counts */
    LIVE_BLOCK_BYTES = 8,   /* of an id: to take a dead block for a live one only costs room */
    COPY_PERCENT = 50,      /* packs of which less is alive are copied */
    SMALL_BYTES = 32 << 20, /* half of a whole pack */
    SMALL_MANY = 16,        /* of one kind are merged */
    PACKS_MAX = 1 << 24,
};
#define ROOM_LEAST ((uint64_t)16 << 20) /* with less the reserve is given up first */

/* What was found in one pack. */
struct judged {
    struct repo_key key;
    uint64_t size_bytes, live_bytes;
    bool small, nodes;
    bool damaged; /* an entry in it is: what else is alive there is copied, so that it can go */
    enum { STAYS, DEAD, EMPTIED } fate;
};

struct repo_prune {
    struct repo *r; /* the one at work */
    struct prune_facts facts;
    uint64_t since;       /* partials that are older do not count */
    struct id_set *nodes; /* whole ids: what is below one that is known is not looked at again */
    struct id_set *blocks;
    struct id_set *fresh_nodes,
        *fresh_blocks;    /* alive only since the plan; NULL while it is made */
    struct judged *packs; /* by key; those without index are not among them */
    size_t pack_count;
};

/* Of one pack. */
struct tally {
    struct repo_prune *p;
    const struct repo_key *pack;
    uint64_t live_bytes, all_bytes, fresh, damaged, nodes;
};

static bool is_live(const struct repo_prune *p, const struct repo_entry *entry)
{
    return id_set_has(entry->type == REPO_NODE ? p->nodes : p->blocks, &entry->id);
}

static bool is_fresh(const struct repo_prune *p, const struct repo_entry *entry)
{
    const struct id_set *s = entry->type == REPO_NODE ? p->fresh_nodes : p->fresh_blocks;

    return s != NULL && id_set_has(s, &entry->id);
}

/* --- what is alive --- */

static int mark(void *context, enum repo_entry_type type, const struct repo_id *id, struct err *e)
{
    struct repo_prune *p = context;
    bool node = type == REPO_NODE;
    int is_new, there;

    /* Before it counts: a block that is referred to and missing ends everything. */
    there = repo_holds(p->r, node, id, e);
    if (there < 0)
        return -1;
    if (there == 0) {
        char hex[REPO_ID_HEX_BYTES];

        repo_id_hex(id, hex);
        return err_set(e, ERR_CORRUPT,
                       "%s %.16s… is referred to, but missing or damaged: nothing is removed "
                       "(`vmferry check --read-data` tells where)",
                       node ? "node" : "block", hex);
    }
    is_new = id_set_add(node ? p->nodes : p->blocks, id, e);
    if (is_new < 0)
        return -1;
    if (is_new > 0 && p->fresh_nodes != NULL &&
        id_set_add(node ? p->fresh_nodes : p->fresh_blocks, id, e) < 0)
        return -1;
    return node && is_new == 0 ? 1 : 0;
}

static int mark_all(struct repo_prune *p, struct err *e)
{
    return repo_mark_live(p->r, p->since, mark, p, e);
}

/* --- packs --- */

static int count_entry(void *context, const struct repo_entry *entry, struct err *e)
{
    struct tally *t = context;
    bool damaged = repo_entry_damaged(t->p->r, t->pack, entry);

    (void)e;
    t->all_bytes += entry->stored_bytes;
    t->damaged += damaged;
    t->nodes += entry->type == REPO_NODE;
    /* What is alive has another entry where this one is damaged: the marking saw to that. */
    if (is_live(t->p, entry) && !damaged)
        t->live_bytes += entry->stored_bytes;
    t->fresh += is_fresh(t->p, entry);
    return 0;
}

static int judge_pack(struct repo_prune *p, const struct repo_pack *pack, struct err *e)
{
    struct tally t = { .p = p, .pack = &pack->key };
    struct judged *j = &p->packs[p->pack_count];

    p->facts.packs++;
    p->facts.bytes += pack->size_bytes;
    if (!pack->indexed)
        return 0; /* a backup may be about to give it one: looked at when we are alone */
    if (repo_pack_entries(p->r, &pack->key, count_entry, &t, e) != 0)
        return -1;
    *j = (struct judged){ .key = pack->key, .size_bytes = pack->size_bytes };
    j->live_bytes = t.live_bytes;
    j->small = pack->size_bytes < SMALL_BYTES;
    j->nodes = t.nodes > 0;
    j->damaged = t.damaged > 0;
    if (t.live_bytes == 0)
        j->fate = DEAD;
    else if (t.damaged > 0 || t.live_bytes < t.all_bytes / 100 * COPY_PERCENT)
        j->fate = EMPTIED;
    p->pack_count++;
    return 0;
}

/*
 * Each run of a backup leaves small packs.  Many of them become a few large ones; some stay, or
 * each prune would copy them again.
 */
static void merge_small(struct repo_prune *p, bool nodes)
{
    size_t count = 0;

    for (size_t i = 0; i < p->pack_count; i++)
        count += p->packs[i].small && p->packs[i].nodes == nodes && p->packs[i].fate != DEAD;
    for (size_t i = 0; i < p->pack_count && count >= SMALL_MANY; i++)
        if (p->packs[i].small && p->packs[i].nodes == nodes && p->packs[i].fate != DEAD)
            p->packs[i].fate = EMPTIED;
}

static void count_fates(struct repo_prune *p)
{
    p->facts.dead_packs = p->facts.dead_bytes = 0;
    p->facts.copied_packs = p->facts.copied_bytes = 0;
    for (size_t i = 0; i < p->pack_count; i++) {
        const struct judged *j = &p->packs[i];

        p->facts.dead_packs += j->fate == DEAD;
        p->facts.dead_bytes += j->fate == DEAD ? j->size_bytes : 0;
        p->facts.copied_packs += j->fate == EMPTIED;
        p->facts.copied_bytes += j->fate == EMPTIED ? j->live_bytes : 0;
    }
}

static int judge_packs(struct repo_prune *p, struct err *e)
{
    struct repo_pack *packs = NULL;
    size_t count = 0;
    int rc = -1;

    if (repo_packs(p->r, &packs, &count, e) != 0)
        return -1;
    p->packs = calloc(count > 0 ? count : 1, sizeof p->packs[0]);
    if (p->packs == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    for (size_t i = 0; i < count; i++)
        if (judge_pack(p, &packs[i], e) != 0)
            goto out;
    merge_small(p, false);
    merge_small(p, true);
    count_fates(p);
    rc = 0;

out:
    free(packs);
    return rc;
}

/* --- copies --- */

static int wanted(void *context, const struct repo_entry *entry, struct err *e)
{
    const struct tally *t = context;

    (void)e;
    return is_live(t->p, entry) && !repo_entry_damaged(t->p->r, t->pack, entry);
}

static int copy_packs(struct repo_prune *p, struct err *e)
{
    for (size_t i = 0; i < p->pack_count; i++) {
        struct tally t = { .p = p, .pack = &p->packs[i].key };

        if (p->packs[i].fate == EMPTIED && repo_pack_copy(p->r, t.pack, wanted, &t, e) != 0)
            return -1;
    }
    return repo_flush_packs(p->r, e);
}

/* Without room for copies what is dead can go all the same. */
static void leave_copies(struct repo_prune *p)
{
    p->facts.not_copied_packs = p->facts.copied_packs;
    for (size_t i = 0; i < p->pack_count; i++)
        if (p->packs[i].fate == EMPTIED)
            p->packs[i].fate = STAYS;
    count_fates(p);
}

static int make_copies(struct repo_prune *p, struct err *e)
{
    uint64_t room;

    if (p->facts.copied_packs == 0)
        return 0;
    if (storage_room(repo_storage(p->r), &room, e) != 0)
        return -1;
    if (room >= p->facts.copied_bytes + ROOM_LEAST) {
        if (copy_packs(p, e) == 0)
            return 0;
        /* What was written by then has no index, and goes with what is dead. */
        if (e->code != ERR_SPACE)
            return -1;
    }
    leave_copies(p);
    return 0;
}

static int plan(struct repo_prune *p, bool dry_run, struct err *e)
{
    if (mark_all(p, e) != 0 || judge_packs(p, e) != 0)
        return -1;
    p->facts.live_entries = id_set_count(p->nodes) + id_set_count(p->blocks);
    if (!dry_run && make_copies(p, e) != 0)
        return -1;
    return failpoint("repo.planned", e);
}

int repo_prune_plan(struct repo_prune **out, struct repo *r, bool dry_run, struct err *e)
{
    struct repo_prune *p = calloc(1, sizeof *p);

    if (p == NULL)
        return err_sys(e, "getting memory");
    p->r = r;
    p->since = (uint64_t)(clock_now() - (int64_t)PARTIAL_DAYS * 86400);
    if (id_set_new(&p->nodes, REPO_ID_BYTES, e) != 0 ||
        id_set_new(&p->blocks, LIVE_BLOCK_BYTES, e) != 0 || plan(p, dry_run, e) != 0) {
        repo_prune_free(p);
        return -1;
    }
    *out = p;
    return 0;
}

/* --- alone --- */

static int compare_keys(const void *a, const void *b)
{
    const struct judged *x = a, *y = b;

    return memcmp(x->key.b, y->key.b, sizeof x->key.b);
}

static bool was_planned(const struct repo_prune *p, const struct repo_key *key)
{
    const struct judged wanted_pack = { .key = *key };
    const struct judged *j = p->pack_count == 0 ? NULL
                                                : bsearch(&wanted_pack, p->packs, p->pack_count,
                                                          sizeof p->packs[0], compare_keys);

    return j != NULL && j->fate != STAYS;
}

/* 1: it may go.  Nobody else is at work: what is in no index now never will be. */
static int may_go(struct repo_prune *p, const struct repo_pack *pack, struct err *e)
{
    struct tally t = { .p = p, .pack = &pack->key };

    if (!pack->indexed)
        return pack->stored;
    if (!was_planned(p, &pack->key))
        return 0;
    if (repo_pack_entries(p->r, &pack->key, count_entry, &t, e) != 0)
        return -1;
    return t.fresh == 0;
}

static int choose(struct repo_prune *p, struct bytes *out, struct err *e)
{
    struct repo_pack *packs = NULL;
    size_t count = 0;
    int rc = 0;

    if (repo_packs(p->r, &packs, &count, e) != 0)
        return -1;
    for (size_t i = 0; i < count && rc == 0; i++) {
        int go = may_go(p, &packs[i], e);

        if (go > 0) {
            p->facts.removed_packs++;
            p->facts.removed_bytes += packs[i].size_bytes;
            rc = bytes_append(out, &packs[i].key, sizeof packs[i].key, e);
        } else {
            rc = go;
        }
    }
    free(packs);
    return rc;
}

/* On a full disk there may be no room even for the small objects of a removal. */
static int make_room(struct repo_prune *p, struct err *e)
{
    uint64_t room;

    if (storage_room(repo_storage(p->r), &room, e) != 0)
        return -1;
    if (room >= ROOM_LEAST)
        return 0;
    p->facts.reserve_used = true;
    return repo_reserve_drop(p->r, e);
}

static int remove_packs(struct repo_prune *p, const struct bytes *packs, struct err *e)
{
    const struct repo_key *keys = (const struct repo_key *)(const void *)packs->data;

    if (packs->count > 0 && repo_packs_remove(p->r, keys, packs->count / sizeof keys[0], e) != 0) {
        p->facts.removed_packs = p->facts.removed_bytes = 0;
        return -1;
    }
    return repo_damaged_tidy(p->r, &p->facts.removed_notes, e);
}

int repo_prune_finish(struct repo_prune *p, struct repo *r, struct err *e)
{
    struct bytes packs = { .ceiling = (size_t)PACKS_MAX * sizeof(struct repo_key) };
    struct err none;
    int rc = -1;

    p->r = r;
    /* Nobody else writes now: what is half written is of somebody who died. */
    if (storage_sweep(repo_storage(r), e) != 0 ||
        id_set_new(&p->fresh_nodes, REPO_ID_BYTES, e) != 0 ||
        id_set_new(&p->fresh_blocks, LIVE_BLOCK_BYTES, e) != 0 || make_room(p, e) != 0 ||
        mark_all(p, e) != 0 || choose(p, &packs, e) != 0 ||
        repo_partials_drop(r, p->since, &p->facts.removed_partials, e) != 0 ||
        remove_packs(p, &packs, e) != 0)
        goto out;
    /* Where there is no room for it yet, the next one makes it. */
    p->facts.reserve_missing = repo_reserve_restore(r, &none) < 0;
    rc = 0;

out:
    bytes_free(&packs);
    return rc;
}

const struct prune_facts *repo_prune_facts(const struct repo_prune *p)
{
    return &p->facts;
}

void repo_prune_free(struct repo_prune *p)
{
    if (p == NULL)
        return;
    id_set_free(p->nodes);
    id_set_free(p->blocks);
    id_set_free(p->fresh_nodes);
    id_set_free(p->fresh_blocks);
    free(p->packs);
    free(p);
}
