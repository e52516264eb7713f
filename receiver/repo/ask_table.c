#include "receiver/repo/ask_table.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/stream/sink.h"
#include "receiver/repo/repo_private.h"
#include "receiver/repo/repo_read.h"

enum {
    SLOTS_FIRST = 1 << 12, /* a power of two; doubled when half of them are taken */
    CANDIDATES_MAX = 4     /* blocks with equal heads that are looked at */
};

_Static_assert((int)SINK_TOKEN_BYTES == (int)REPO_ID_BYTES, "a token is a block id");

/* --- a set of ids under the first bytes of something --- */

struct item {
    uint64_t head;
    struct repo_id id;
};

/* Empty value: { 0 }. */
struct id_map {
    struct item *items;
    uint32_t *slots; /* index + 1 into items; 0: free */
    size_t count, slot_count;
};

static uint64_t head_of(const uint8_t *bytes)
{
    uint64_t head;

    memcpy(&head, bytes, sizeof head);
    return head;
}

static void map_free(struct id_map *m)
{
    free(m->items);
    free(m->slots);
    *m = (struct id_map){ 0 };
}

static void map_seat(struct id_map *m, size_t index)
{
    size_t at = (size_t)m->items[index].head & (m->slot_count - 1);

    while (m->slots[at] != 0)
        at = (at + 1) & (m->slot_count - 1);
    m->slots[at] = (uint32_t)index + 1;
}

static int map_grow(struct id_map *m, struct err *e)
{
    size_t count = m->slot_count > 0 ? 2 * m->slot_count : SLOTS_FIRST;
    struct item *items = realloc(m->items, count / 2 * sizeof items[0]);
    uint32_t *slots;

    if (items == NULL)
        return err_sys(e, "getting memory for what may be asked for");
    m->items = items;
    slots = calloc(count, sizeof slots[0]);
    if (slots == NULL)
        return err_sys(e, "getting memory for what may be asked for");
    free(m->slots);
    m->slots = slots;
    m->slot_count = count;
    for (size_t i = 0; i < m->count; i++)
        map_seat(m, i);
    return 0;
}

/* Ids under this head, at most room of them. */
static size_t map_find(const struct id_map *m, uint64_t head, struct repo_id *out, size_t room)
{
    size_t found = 0, at = (size_t)head & (m->slot_count - 1);

    if (m->slot_count == 0)
        return 0;
    for (; m->slots[at] != 0 && found < room; at = (at + 1) & (m->slot_count - 1)) {
        const struct item *i = &m->items[m->slots[at] - 1];

        if (i->head == head)
            out[found++] = i->id;
    }
    return found;
}

/* 1: added; 0: there already, or one of too many under this head; -1. */
static int map_add(struct id_map *m, uint64_t head, const struct repo_id *id, struct err *e)
{
    struct repo_id same[CANDIDATES_MAX];
    size_t found = map_find(m, head, same, CANDIDATES_MAX);

    for (size_t i = 0; i < found; i++)
        if (memcmp(same[i].b, id->b, sizeof id->b) == 0)
            return 0;
    if (found == CANDIDATES_MAX)
        return 0;
    if (m->count >= m->slot_count / 2 && map_grow(m, e) != 0)
        return -1;
    m->items[m->count] = (struct item){ .head = head, .id = *id };
    map_seat(m, m->count++);
    return 1;
}

/* --- tables --- */

enum table_state { TABLE_NONE, TABLE_MAKING, TABLE_READY };

struct ask_table {
    struct ask_table *next;
    char *host_uuid;
    uint8_t key[ASK_KEY_BYTES];
    enum table_state state; /* guarded by the lock of the tables */
    struct id_map seen;     /* nodes; in an encrypted repository blocks too.  Its maker's */
    pthread_mutex_t lock;   /* guards blocks */
    struct id_map blocks;
};

struct ask_tables {
    pthread_mutex_t lock; /* guards the list and the states in it */
    pthread_cond_t changed;
    struct ask_table *first;
};

int ask_tables_new(struct ask_tables **out, struct err *e)
{
    struct ask_tables *t = calloc(1, sizeof *t);

    if (t == NULL)
        return err_sys(e, "getting memory");
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    *out = t;
    return 0;
}

void ask_tables_free(struct ask_tables *t)
{
    if (t == NULL)
        return;
    while (t->first != NULL) {
        struct ask_table *first = t->first;

        t->first = first->next;
        map_free(&first->blocks);
        map_free(&first->seen);
        free(first->host_uuid);
        pthread_mutex_destroy(&first->lock);
        free(first);
    }
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static struct ask_table *table_find(struct ask_tables *tables, const char *host_uuid)
{
    for (struct ask_table *t = tables->first; t != NULL; t = t->next)
        if (strcmp(t->host_uuid, host_uuid) == 0)
            return t;
    return NULL;
}

/* With the lock held. */
static struct ask_table *table_new(struct repo *r, const char *host_uuid, struct err *e)
{
    struct ask_table *t = calloc(1, sizeof *t);

    if (t == NULL) {
        err_sys(e, "getting memory");
        return NULL;
    }
    t->host_uuid = strdup(host_uuid);
    if (t->host_uuid == NULL || vault_ask_key(r->vault, host_uuid, t->key, e) != 0) {
        if (t->host_uuid == NULL)
            err_sys(e, "getting memory");
        free(t->host_uuid);
        free(t);
        return NULL;
    }
    pthread_mutex_init(&t->lock, NULL);
    t->next = r->asks->first;
    r->asks->first = t;
    return t;
}

/* --- making one --- */

struct maker {
    struct repo *repo;
    struct ask_table *table;
    uint8_t *plain; /* of a block in an encrypted repository */
};

/* What is lost to reading is no reason to have no table. */
static bool is_damage(const struct err *e)
{
    return e->code == ERR_CORRUPT || e->code == ERR_FORMAT || e->code == ERR_UNSUPPORTED ||
           e->code == ERR_NOT_FOUND || e->code == ERR_SOURCE || e->code == ERR_LIMIT;
}

static bool is_full(struct ask_table *t)
{
    return ask_table_count(t) >= ASK_TABLE_BLOCKS_MAX;
}

static int make_node(void *context, unsigned level, uint64_t first_block,
                     const struct repo_cell *cell, struct err *e)
{
    struct maker *m = context;
    int added;

    (void)level;
    (void)first_block;
    if (is_full(m->table))
        return 1;
    if (repo_check_stop(m->repo, e) != 0)
        return -1;
    added = map_add(&m->table->seen, head_of(cell->id.b), &cell->id, e);
    return added < 0 ? -1 : added == 0;
}

static int add_block(struct ask_table *t, const uint8_t ask_id[ASK_ID_BYTES],
                     const struct repo_id *id, struct err *e)
{
    int added;

    pthread_mutex_lock(&t->lock);
    added = map_add(&t->blocks, head_of(ask_id), id, e);
    pthread_mutex_unlock(&t->lock);
    return added < 0 ? -1 : 0;
}

static int add_hash(struct ask_table *t, const struct repo_id *id, struct err *e)
{
    uint8_t ask_id[ASK_ID_BYTES];

    ask_id_of_hash(t->key, id->b, ask_id);
    return add_block(t, ask_id, id, e);
}

/* Its asking id can only be made from its bytes. */
static int make_sealed_block(struct maker *m, const struct repo_id *id, struct err *e)
{
    int added = map_add(&m->table->seen, head_of(id->b), id, e);
    uint8_t ask_id[ASK_ID_BYTES];
    size_t count;

    if (added <= 0)
        return added;
    if (repo_check_stop(m->repo, e) != 0)
        return -1;
    if (repo_get(m->repo, ENTRY_BLOCK, id, m->plain, BLOCK_BYTES_MAX, &count, e) != 0)
        return is_damage(e) ? 0 : -1;
    ask_id_of(m->table->key, m->plain, count, ask_id);
    return add_block(m->table, ask_id, id, e);
}

static int make_blocks(void *context, uint64_t first_block, const struct repo_cell *cells,
                       size_t count, struct err *e)
{
    struct maker *m = context;

    (void)first_block;
    for (size_t i = 0; i < count && !is_full(m->table); i++)
        if ((m->plain != NULL ? make_sealed_block(m, &cells[i].id, e)
                              : add_hash(m->table, &cells[i].id, e)) != 0)
            return -1;
    return 0;
}

static int make_disks(struct maker *m, const struct repo_generation *g, struct err *e)
{
    struct repo_walk walk = { .node = make_node, .block = make_blocks, .context = m };

    for (uint32_t i = 0; i < g->disk_count; i++)
        if (g->disks[i].state != REPO_DISK_ABSENT &&
            repo_disk_walk(m->repo, &g->disks[i], &walk, e) != 0 && !is_damage(e))
            return -1;
    return 0;
}

/* *ours is false when the generation is another host's. */
static int make_generation(struct maker *m, const struct repo_generation_name *n, bool *ours,
                           struct err *e)
{
    struct repo_generation g = { 0 };
    int rc = 0;

    *ours = true;
    if (repo_generation_load(m->repo, &n->vm, n->number, &g, e) != 0)
        return is_damage(e) ? 0 : -1;
    *ours = strcmp(g.host_uuid, m->table->host_uuid) == 0;
    if (*ours)
        rc = make_disks(m, &g, e);
    repo_generation_free(&g);
    return rc;
}

/* Newest first for each VM; all generations of a VM are of one host. */
static int make_all(struct maker *m, struct err *e)
{
    struct repo_generation_name *names;
    size_t count;
    int rc = 0;

    if (repo_generation_names(m->repo, &names, &count, e) != 0)
        return -1;
    for (size_t end = count; end > 0 && rc == 0 && !is_full(m->table);) {
        size_t first = end - 1;
        bool ours = true;

        while (first > 0 &&
               memcmp(&names[first - 1].vm, &names[end - 1].vm, sizeof names[0].vm) == 0)
            first--;
        for (size_t i = end; i > first && ours && rc == 0 && !is_full(m->table); i--)
            rc = make_generation(m, &names[i - 1], &ours, e);
        end = first;
    }
    free(names);
    return rc;
}

/* Of all generations, or add one.  The caller has put the table into its state of making. */
static int make(struct repo *r, struct ask_table *t, const struct repo_generation *g, struct err *e)
{
    struct maker m = { .repo = r, .table = t };
    int rc = 0;

    if (vault_sealed(r->vault)) {
        m.plain = malloc(BLOCK_BYTES_MAX);
        if (m.plain == NULL)
            rc = err_sys(e, "getting memory for a block");
    }
    if (rc == 0)
        rc = g == NULL ? make_all(&m, e) : make_disks(&m, g, e);
    free(m.plain);
    return rc;
}

static void making_ended(struct ask_tables *tables, struct ask_table *t, bool ready)
{
    pthread_mutex_lock(&tables->lock);
    t->state = ready ? TABLE_READY : TABLE_NONE;
    pthread_cond_broadcast(&tables->changed);
    pthread_mutex_unlock(&tables->lock);
}

int ask_table_of(struct ask_table **out, struct repo *r, const char *host_uuid, struct err *e)
{
    struct ask_tables *tables = r->asks;
    struct ask_table *t;
    bool makes = false;
    int rc = 0;

    pthread_mutex_lock(&tables->lock);
    t = table_find(tables, host_uuid);
    if (t == NULL)
        t = table_new(r, host_uuid, e);
    while (t != NULL && t->state == TABLE_MAKING)
        pthread_cond_wait(&tables->changed, &tables->lock);
    if (t != NULL && t->state == TABLE_NONE) {
        t->state = TABLE_MAKING;
        makes = true;
    }
    pthread_mutex_unlock(&tables->lock);
    if (t == NULL)
        return -1;
    if (makes) {
        rc = make(r, t, NULL, e);
        making_ended(tables, t, rc == 0);
    }
    *out = t;
    return rc;
}

void ask_table_committed(struct repo *r, const struct repo_generation *g)
{
    struct ask_tables *tables = r->asks;
    struct ask_table *t;
    struct err e;

    pthread_mutex_lock(&tables->lock);
    t = table_find(tables, g->host_uuid);
    while (t != NULL && t->state == TABLE_MAKING)
        pthread_cond_wait(&tables->changed, &tables->lock);
    if (t != NULL && t->state == TABLE_READY)
        t->state = TABLE_MAKING;
    else
        t = NULL; /* made when somebody asks */
    pthread_mutex_unlock(&tables->lock);
    if (t == NULL)
        return;
    (void)make(r, t, g, &e); /* what cannot be read is not known, no more */
    making_ended(tables, t, true);
}

/* --- using it --- */

uint64_t ask_table_count(struct ask_table *t)
{
    uint64_t count;

    pthread_mutex_lock(&t->lock);
    count = t->blocks.count;
    pthread_mutex_unlock(&t->lock);
    return count;
}

/* 1: this is the block that is asked for, as it was read; 0; -1. */
static int prove(const struct ask_table *t, struct repo *r, const struct digest_secret *secret,
                 const struct sink_question *q, const struct repo_id *id, uint8_t *scratch,
                 struct err *e)
{
    int has = repo_has(r, ENTRY_BLOCK, id, e);
    uint8_t ask_id[ASK_ID_BYTES];
    struct digest digest;
    size_t count;

    if (has <= 0)
        return has;
    if (repo_get(r, ENTRY_BLOCK, id, scratch, q->plain_bytes, &count, e) != 0)
        return is_damage(e) ? 0 : -1; /* also one that lies in a pack still being written */
    if (count != q->plain_bytes)
        return 0;
    ask_id_of(t->key, scratch, count, ask_id);
    digest = digest_of(secret, scratch, count);
    return memcmp(ask_id, q->ask_id, sizeof ask_id) == 0 && digest_equal(&digest, &q->digest);
}

int ask_table_answer(struct ask_table *t, struct repo *r, const struct digest_secret *secret,
                     const struct sink_question *q, uint8_t *scratch, struct sink_answer *out,
                     struct err *e)
{
    struct repo_id ids[CANDIDATES_MAX];
    size_t found;

    pthread_mutex_lock(&t->lock);
    found = map_find(&t->blocks, head_of(q->ask_id), ids, CANDIDATES_MAX);
    pthread_mutex_unlock(&t->lock);
    for (size_t i = 0; i < found && !out->known; i++) {
        int rc = prove(t, r, secret, q, &ids[i], scratch, e);

        if (rc < 0)
            return -1;
        out->known = rc > 0;
        memcpy(out->token, ids[i].b, sizeof out->token);
    }
    return 0;
}
