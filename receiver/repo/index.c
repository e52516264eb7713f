#include "receiver/repo/index.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/repo/index_private.h"

/* --- the table --- */

static size_t slot_of(const struct index *x, const struct repo_id *id)
{
    uint64_t head;

    memcpy(&head, id->b, sizeof head); /* ids are even already */
    return (size_t)(head & (x->slot_count - 1));
}

static void table_put(struct index *x, const struct index_entry *n)
{
    size_t at = slot_of(x, &n->id);

    while (x->slots[at].plain_type != 0)
        at = (at + 1) & (x->slot_count - 1);
    x->slots[at] = *n;
    x->used++;
    if (x->packs[n->pack].indexed)
        x->unsaved++;
}

/* Room for one more, at most half full. */
static int table_grow(struct index *x, struct err *e)
{
    size_t before = x->slot_count;
    struct index_entry *old = x->slots, *slots;

    if (x->used < before / 2)
        return 0;
    slots = calloc(2 * before, sizeof slots[0]);
    if (slots == NULL)
        return err_sys(e, "getting memory for the index");
    x->slots = slots;
    x->slot_count = 2 * before;
    x->used = x->unsaved = 0;
    for (size_t i = 0; i < before; i++)
        if (old[i].plain_type != 0)
            table_put(x, &old[i]);
    free(old);
    return 0;
}

/* Take the entries of packs with an index object out of the table: *out, sorted. */
static int table_take(struct index *x, struct index_entry **out, size_t *count, struct err *e)
{
    struct index_entry *all = malloc((x->used > 0 ? x->used : 1) * sizeof all[0]);
    size_t kept = 0, n = 0;

    if (all == NULL)
        return err_sys(e, "getting memory for the index");
    for (size_t i = 0; i < x->slot_count; i++)
        if (x->slots[i].plain_type != 0)
            all[n++] = x->slots[i];
    assert(n == x->used);
    memset(x->slots, 0, x->slot_count * sizeof x->slots[0]);
    x->used = x->unsaved = 0;
    for (size_t i = 0; i < n; i++)
        if (x->packs[all[i].pack].indexed)
            all[kept++] = all[i];
        else
            table_put(x, &all[i]);
    *out = all;
    *count = kept;
    return 0;
}

static int compare_entries(const void *a, const void *b)
{
    return index_entry_compare(a, b);
}

int index_compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, REPO_KEY_BYTES);
}

static uint32_t key_place(const struct repo_key *keys, size_t count, const struct repo_key *key)
{
    const struct repo_key *at = bsearch(key, keys, count, sizeof keys[0], index_compare_keys);

    return at == NULL ? SORTED_RUN_NO_PACK : (uint32_t)(at - keys);
}

/* The packs of the table that become part of a run now, ascending. */
static struct repo_key *packs_to_save(const struct index *x, uint32_t *count)
{
    struct repo_key *keys = malloc((x->pack_count > 0 ? x->pack_count : 1) * sizeof keys[0]);

    *count = 0;
    if (keys == NULL)
        return NULL;
    for (size_t i = 0; i < x->pack_count; i++)
        if (x->packs[i].indexed && !x->packs[i].in_run)
            keys[(*count)++] = x->packs[i].key;
    if (*count > 1)
        qsort(keys, *count, sizeof keys[0], index_compare_keys);
    return keys;
}

/* With the lock held for writing. */
static int table_to_run(struct index *x, struct err *e)
{
    struct index_entry *entries = NULL;
    uint32_t *numbers = malloc((x->pack_count > 0 ? x->pack_count : 1) * sizeof numbers[0]);
    uint32_t key_count = 0;
    struct repo_key *keys = packs_to_save(x, &key_count);
    struct run_input in = { 0 };
    size_t count = 0;
    int rc = -1;

    if (numbers == NULL || keys == NULL) {
        err_sys(e, "getting memory for the index");
        goto out;
    }
    if (table_take(x, &entries, &count, e) != 0)
        goto out;
    for (size_t i = 0; i < x->pack_count; i++)
        numbers[i] = key_place(keys, key_count, &x->packs[i].key);
    if (count > 1)
        qsort(entries, count, sizeof entries[0], compare_entries);
    in = (struct run_input){ .entries = entries, .count = count, .packs = numbers };
    rc = cache_add_run(x, keys, key_count, &in, 1, 0, e);
    for (size_t i = 0; i < x->pack_count && rc == 0; i++)
        x->packs[i].in_run = x->packs[i].in_run || x->packs[i].indexed;
    for (size_t i = 0; i < count && rc != 0; i++)
        table_put(x, &entries[i]);

out:
    free(entries);
    free(numbers);
    free(keys);
    return rc;
}

/* --- merging runs --- */

void index_warn(const struct index *x, const char *text)
{
    if (x->env.warn != NULL)
        x->env.warn(x->env.context, text);
}

/* The smaller runs that are worth becoming one, as bits. */
static uint32_t small_runs(const struct index *x)
{
    uint32_t bits = 0;
    uint64_t sum = 0;
    size_t taken = 0;

    while (taken < x->run_count) {
        size_t best = RUNS_MAX;

        for (size_t i = 0; i < x->run_count; i++)
            if ((bits >> i & 1) == 0 && (best == RUNS_MAX || sorted_run_count(x->runs[i]) <
                                                                 sorted_run_count(x->runs[best])))
                best = i;
        /* At least half of them; a large one only when what is taken is no small part of it. */
        if (taken >= RUNS_MANY / 2 && sorted_run_count(x->runs[best]) > 2 * sum)
            break;
        bits |= (uint32_t)1 << best;
        sum += sorted_run_count(x->runs[best]);
        taken++;
    }
    return bits;
}

static int merge_runs(struct index *x, uint32_t bits, struct err *e)
{
    struct run_input inputs[RUNS_MAX] = { 0 };
    uint32_t *numbers[RUNS_MAX] = { NULL };
    struct repo_key *keys = NULL;
    size_t n = 0, all = 0, unique = 0;
    int rc = -1;

    for (size_t i = 0; i < x->run_count; i++)
        if ((bits >> i & 1) != 0)
            all += sorted_run_pack_count(x->runs[i]);
    keys = malloc((all > 0 ? all : 1) * sizeof keys[0]);
    if (keys == NULL)
        return err_sys(e, "getting memory for the index");
    all = 0;
    for (size_t i = 0; i < x->run_count; i++)
        if ((bits >> i & 1) != 0) {
            memcpy(keys + all, sorted_run_packs(x->runs[i]),
                   sorted_run_pack_count(x->runs[i]) * sizeof keys[0]);
            all += sorted_run_pack_count(x->runs[i]);
        }
    if (all > 1)
        qsort(keys, all, sizeof keys[0], index_compare_keys);
    for (size_t i = 0; i < all; i++)
        if (unique == 0 || index_compare_keys(&keys[unique - 1], &keys[i]) != 0)
            keys[unique++] = keys[i];
    for (size_t i = 0; i < x->run_count; i++) {
        struct sorted_run *r = x->runs[i];
        uint32_t packs = sorted_run_pack_count(r);

        if ((bits >> i & 1) == 0)
            continue;
        numbers[n] = malloc((packs > 0 ? packs : 1) * sizeof numbers[n][0]);
        if (numbers[n] == NULL) {
            err_sys(e, "getting memory for the index");
            goto out;
        }
        for (uint32_t k = 0; k < packs; k++)
            numbers[n][k] = key_place(keys, unique, &sorted_run_packs(r)[k]);
        inputs[n] = (struct run_input){ .run = r, .packs = numbers[n] };
        n++;
    }
    rc = cache_add_run(x, keys, (uint32_t)unique, inputs, n, bits, e);

out:
    for (size_t i = 0; i < RUNS_MAX; i++)
        free(numbers[i]);
    free(keys);
    return rc;
}

static int try_runs(struct index *x, struct err *e)
{
    if (x->run_count >= RUNS_MANY && merge_runs(x, small_runs(x), e) != 0)
        return -1;
    return table_to_run(x, e);
}

/* A cache that cannot be written is no reason to end a backup: go on without. */
static int make_runs(struct index *x, struct err *e)
{
    if (try_runs(x, e) == 0)
        return 0;
    if (x->cache < 0 || (e->code != ERR_SPACE && e->code != ERR_SYSTEM && e->code != ERR_SOURCE))
        return -1;
    err_add(e, "the index is kept in memory from here on");
    index_warn(x, e->text);
    io_drop(&x->cache);
    return try_runs(x, e);
}

int index_save(struct index *x, struct err *e)
{
    int rc = 0;

    pthread_rwlock_wrlock(&x->lock);
    if (x->unsaved >= SAVE_ENTRIES && x->cache >= 0)
        rc = make_runs(x, e);
    pthread_rwlock_unlock(&x->lock);
    return rc;
}

/* --- adding --- */

int index_table_add_pack(struct index *x, const struct repo_key *pack, bool indexed,
                         uint32_t *number, struct err *e)
{
    if (x->pack_count == x->pack_room) {
        size_t room = x->pack_room > 0 ? 2 * x->pack_room : 64;
        struct pack_ref *packs = realloc(x->packs, room * sizeof packs[0]);

        if (packs == NULL)
            return err_sys(e, "getting memory for the index");
        x->packs = packs;
        x->pack_room = room;
    }
    *number = (uint32_t)x->pack_count;
    x->packs[x->pack_count++] = (struct pack_ref){ .key = *pack, .indexed = indexed };
    x->known_packs++;
    return 0;
}

int index_add_pack(struct index *x, const struct repo_key *pack, uint32_t *number, struct err *e)
{
    int rc;

    pthread_rwlock_wrlock(&x->lock);
    rc = index_table_add_pack(x, pack, false, number, e);
    pthread_rwlock_unlock(&x->lock);
    return rc;
}

int index_table_add(struct index *x, const struct index_entry *entry, struct err *e)
{
    if (x->used >= INDEX_TABLE_ENTRIES && make_runs(x, e) != 0)
        return -1;
    assert(x->used < INDEX_TABLE_ENTRIES);
    if (table_grow(x, e) != 0)
        return -1;
    table_put(x, entry);
    return 0;
}

int index_add(struct index *x, const struct index_entry *entry, struct err *e)
{
    int rc;

    pthread_rwlock_wrlock(&x->lock);
    rc = index_table_add(x, entry, e);
    pthread_rwlock_unlock(&x->lock);
    return rc;
}

void index_pack_done(struct index *x, uint32_t number)
{
    pthread_rwlock_wrlock(&x->lock);
    x->packs[number].indexed = true;
    x->unsaved = x->used; /* an upper bound does */
    pthread_rwlock_unlock(&x->lock);
}

/* --- finding --- */

int index_compare_damaged(const void *a, const void *b)
{
    const struct damaged_entry *x = a, *y = b;
    int order = memcmp(x->pack.b, y->pack.b, sizeof x->pack.b);

    if (order != 0)
        return order;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

bool index_is_damaged(const struct index *x, const struct repo_key *pack, uint32_t offset)
{
    struct damaged_entry key = { *pack, offset };

    return x->damaged_count > 0 && bsearch(&key, x->damaged, x->damaged_count, sizeof x->damaged[0],
                                           index_compare_damaged) != NULL;
}

/* Note a place unless it counts as missing. */
static unsigned note(const struct index *x, const struct index_entry *n,
                     const struct repo_key *pack, struct place *out)
{
    if (index_is_damaged(x, pack, n->offset))
        return 0;
    *out = (struct place){ .pack = *pack,
                           .offset = n->offset,
                           .payload_bytes = n->payload_codec & 0xffffff,
                           .codec = (uint8_t)(n->payload_codec >> 24),
                           .plain_bytes = n->plain_type & 0xffffff,
                           .type = index_entry_type(n) };
    return 1;
}

static int find(struct index *x, enum entry_type type, const struct repo_id *id, struct place *out,
                unsigned room, struct err *e)
{
    unsigned found = 0;

    for (size_t at = slot_of(x, id); x->slots[at].plain_type != 0 && found < room;
         at = (at + 1) & (x->slot_count - 1)) {
        const struct index_entry *n = &x->slots[at];

        if (index_entry_type(n) == type && memcmp(n->id.b, id->b, sizeof id->b) == 0)
            found += note(x, n, &x->packs[n->pack].key, &out[found]);
    }
    for (size_t i = x->run_count; i > 0 && found < room; i--) {
        struct sorted_run *r = x->runs[i - 1];
        const struct index_entry *n = NULL;
        size_t count;

        if (sorted_run_find(r, id, type, &n, &count, e) != 0) {
            if (x->cache >= 0)
                err_add(e, "it will be made anew by the next command");
            return -1;
        }
        for (size_t k = 0; k < count && found < room; k++)
            found += note(x, &n[k], &sorted_run_packs(r)[n[k].pack], &out[found]);
    }
    return (int)found;
}

int index_find(struct index *x, enum entry_type type, const struct repo_id *id, struct place *out,
               unsigned room, struct err *e)
{
    int found;

    pthread_rwlock_rdlock(&x->lock);
    found = find(x, type, id, out, room, e);
    pthread_rwlock_unlock(&x->lock);
    if (found < 0 && e->code == ERR_CORRUPT) {
        pthread_rwlock_wrlock(&x->lock);
        cache_void(x);
        pthread_rwlock_unlock(&x->lock);
    }
    return found;
}

int index_find_named(struct index *x, enum entry_type type, const struct repo_id *id,
                     struct place *out, unsigned room, struct err *e)
{
    int found = index_find(x, type, id, out, room, e);
    int rc = 0;

    if (found != 0)
        return found;
    pthread_rwlock_wrlock(&x->lock);
    if (x->news) {
        x->news = false;
        rc = index_bring_up_to_date(x, e);
    }
    pthread_rwlock_unlock(&x->lock);
    /* Another thread may have brought it up to date while we waited. */
    return rc != 0 ? -1 : index_find(x, type, id, out, room, e);
}

void index_news(struct index *x)
{
    pthread_rwlock_wrlock(&x->lock);
    x->news = true;
    pthread_rwlock_unlock(&x->lock);
}

void index_counts(struct index *x, uint64_t *entries, uint64_t *packs, uint64_t *damaged)
{
    pthread_rwlock_rdlock(&x->lock);
    *entries = x->used;
    for (size_t i = 0; i < x->run_count; i++)
        *entries += sorted_run_count(x->runs[i]);
    *packs = x->known_packs;
    *damaged = x->damaged_count;
    pthread_rwlock_unlock(&x->lock);
}
