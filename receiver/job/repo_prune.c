#include "receiver/job/repo_prune.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/job/id_set.h"
#include "receiver/repo/repo_care.h"
#include "receiver/storage/storage.h"

enum {
    PARTIAL_DAYS = 14,    /* so long an unfinished run counts */
    LIVE_BLOCK_BYTES = 8, /* of an id: to take a dead block for a live one only costs room */
    COPY_PERCENT = 50,    /* packs of which less is alive are copied */
    PACKS_MAX = 1 << 24,
};
#define ROOM_LEAST ((uint64_t)16 << 20) /* with less the reserve is given up first */

struct repo_prune {
    struct repo *r; /* the one at work */
    struct prune_facts facts;
    struct id_set *nodes; /* whole ids: what is below one that is known is not looked at again */
    struct id_set *blocks;
    struct id_set *fresh_nodes,
        *fresh_blocks;      /* alive only since the plan; NULL while it is made */
    struct repo_key *packs; /* that may go */
    size_t pack_count;
};

/* Of one pack. */
struct tally {
    struct repo_prune *p;
    uint64_t live_bytes, all_bytes, fresh;
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
    int64_t since = clock_now() - (int64_t)PARTIAL_DAYS * 86400;

    return repo_mark_live(p->r, (uint64_t)since, mark, p, e);
}

/* --- packs --- */

static int count_entry(void *context, const struct repo_entry *entry, struct err *e)
{
    struct tally *t = context;

    (void)e;
    t->all_bytes += entry->stored_bytes;
    if (is_live(t->p, entry))
        t->live_bytes += entry->stored_bytes;
    t->fresh += is_fresh(t->p, entry);
    return 0;
}

static int wanted(void *context, const struct repo_entry *entry, struct err *e)
{
    struct repo_prune *p = context;

    (void)e;
    if (!is_live(p, entry))
        return 0;
    p->facts.copied_bytes += entry->stored_bytes;
    return 1;
}

static int judge_pack(struct repo_prune *p, const struct repo_pack *pack, bool dry_run,
                      struct err *e)
{
    struct tally t = { .p = p };

    p->facts.packs++;
    p->facts.bytes += pack->size_bytes;
    if (!pack->indexed)
        return 0; /* a backup may be about to give it one: looked at when we are alone */
    if (repo_pack_entries(p->r, &pack->key, count_entry, &t, e) != 0)
        return -1;
    if (t.live_bytes == 0) {
        p->facts.dead_packs++;
        p->facts.dead_bytes += pack->size_bytes;
    } else if (t.live_bytes < t.all_bytes / 100 * COPY_PERCENT) {
        p->facts.copied_packs++;
        if (dry_run)
            p->facts.copied_bytes += t.live_bytes;
        else if (repo_pack_copy(p->r, &pack->key, wanted, p, e) != 0)
            return -1;
    } else {
        return 0;
    }
    p->packs[p->pack_count++] = pack->key;
    return 0;
}

static int plan(struct repo_prune *p, bool dry_run, struct err *e)
{
    struct repo_pack *packs = NULL;
    size_t count = 0;
    int rc = -1;

    if (mark_all(p, e) != 0 || repo_packs(p->r, &packs, &count, e) != 0)
        return -1;
    p->facts.live_entries = id_set_count(p->nodes) + id_set_count(p->blocks);
    p->packs = calloc(count > 0 ? count : 1, sizeof p->packs[0]);
    if (p->packs == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    for (size_t i = 0; i < count; i++)
        if (judge_pack(p, &packs[i], dry_run, e) != 0)
            goto out;
    rc = dry_run ? 0 : repo_flush_packs(p->r, e);

out:
    free(packs);
    return rc;
}

int repo_prune_plan(struct repo_prune **out, struct repo *r, bool dry_run, struct err *e)
{
    struct repo_prune *p = calloc(1, sizeof *p);

    if (p == NULL)
        return err_sys(e, "getting memory");
    p->r = r;
    if (id_set_new(&p->nodes, REPO_ID_BYTES, e) != 0 ||
        id_set_new(&p->blocks, LIVE_BLOCK_BYTES, e) != 0 || plan(p, dry_run, e) != 0) {
        repo_prune_free(p);
        return -1;
    }
    *out = p;
    return 0;
}

/* --- alone --- */

static bool was_planned(const struct repo_prune *p, const struct repo_key *key)
{
    for (size_t i = 0; i < p->pack_count; i++)
        if (memcmp(p->packs[i].b, key->b, sizeof key->b) == 0)
            return true;
    return false;
}

/* 1: it may go.  Nobody else is at work: what is in no index now never will be. */
static int may_go(struct repo_prune *p, const struct repo_pack *pack, struct err *e)
{
    struct tally t = { .p = p };

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
static int make_room(struct repo *r, struct err *e)
{
    uint64_t room;

    if (storage_room(repo_storage(r), &room, e) != 0)
        return -1;
    return room < ROOM_LEAST ? repo_reserve_drop(r, e) : 0;
}

int repo_prune_finish(struct repo_prune *p, struct repo *r, struct err *e)
{
    struct bytes packs = { .ceiling = (size_t)PACKS_MAX * sizeof(struct repo_key) };
    struct err none;
    int rc = -1;

    p->r = r;
    if (id_set_new(&p->fresh_nodes, REPO_ID_BYTES, e) != 0 ||
        id_set_new(&p->fresh_blocks, LIVE_BLOCK_BYTES, e) != 0 || make_room(r, e) != 0 ||
        mark_all(p, e) != 0 || choose(p, &packs, e) != 0)
        goto out;
    rc = 0;
    if (packs.count > 0)
        rc = repo_packs_remove(r, (const struct repo_key *)(const void *)packs.data,
                               packs.count / sizeof(struct repo_key), e);
    if (rc != 0)
        p->facts.removed_packs = p->facts.removed_bytes = 0;
    else
        (void)repo_reserve_restore(r,
                                   &none); /* where there is no room yet, the next one makes it */

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
