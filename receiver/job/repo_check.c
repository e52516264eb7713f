#include "receiver/job/repo_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "receiver/base/clock.h"
#include "receiver/job/id_set.h"
#include "receiver/repo/repo_care.h"
#include "receiver/repo/repo_verified.h"

struct check {
    struct repo *r;
    const struct repo_check_options *o;
    const struct repo_env *env;
    struct repo_checked *out;
    struct id_set *whole; /* nodes below which everything is there */
    struct bytes damaged; /* struct repo_damaged, to be set aside */
    struct bytes good;    /* struct repo_verified_item: what was read without a fault */
    uint64_t began;       /* seconds since 1970 */
    struct err first;     /* the first fault */
    uint64_t missing;     /* of the disk in hand */
    struct repo_key pack; /* the one in hand */
    struct repo_generation_name *names; /* that were there before the packs were listed */
    size_t name_count;
    struct repo_pack *packs;
    size_t pack_count;
};

static int check_stop(const struct check *k, struct err *e)
{
    if (k->env->stop != NULL && atomic_load(k->env->stop))
        return err_set(e, ERR_STOPPED, "stopped");
    return 0;
}

static void progress(const struct check *k, const char *what, uint64_t done, uint64_t total)
{
    if (k->env->progress != NULL)
        k->env->progress(k->env->context, what, done, total);
}

static void fault(struct check *k, const char *object, const char *text)
{
    if (k->out->problems++ == 0)
        err_set(&k->first, ERR_CORRUPT, "%s: %s", object, text);
    if (k->o->problem != NULL)
        k->o->problem(k->o->context, object, text);
}

static bool is_damage(enum err_code code)
{
    return code == ERR_CORRUPT || code == ERR_FORMAT || code == ERR_LIMIT ||
           code == ERR_NOT_FOUND || code == ERR_UNSUPPORTED || code == ERR_SOURCE;
}

/* Damage is counted, and the check goes on; anything else ends it. */
static int judge(struct check *k, const char *object, const struct err *e)
{
    if (!is_damage(e->code))
        return -1;
    fault(k, object, e->text);
    return 0;
}

static int note_good(struct check *k, const struct repo_key *key, uint64_t number, uint64_t time,
                     struct err *e)
{
    const struct repo_verified_item item = { .key = *key, .number = number, .time = time };

    return bytes_append(&k->good, &item, sizeof item, e);
}

/* --- packs --- */

/* What is there once more, and whole, harms nobody. */
static int note_entry(void *context, const struct repo_entry *entry, struct err *e)
{
    struct check *k = context;
    const struct repo_damaged d = { .pack = k->pack, .entry = *entry };
    struct err why;

    if (repo_prove(k->r, entry->type == REPO_NODE, &entry->id, entry->plain_bytes, &why) == 0) {
        k->out->healed++;
        return 0;
    }
    if (!is_damage(why.code)) {
        *e = why;
        return -1;
    }
    k->out->damaged++;
    return bytes_append(&k->damaged, &d, sizeof d, e);
}

/* The pack is gone, or does not parse: what cannot be read of it any more. */
static int note_all(struct check *k, struct err *e)
{
    uint64_t healed = k->out->healed;
    struct err why;
    int rc = 0;

    if (repo_pack_entries(k->r, &k->pack, note_entry, k, &why) != 0 && !is_damage(why.code)) {
        *e = why;
        rc = -1;
    }
    k->out->healed = healed; /* most may stand in this very pack */
    return rc;
}

/* A pack is not what it should be; damaged and healed: what was counted before it. */
static int judge_pack(struct check *k, const char *name, uint64_t damaged, uint64_t healed,
                      struct err *e)
{
    const struct err why = *e;
    bool named = k->out->damaged > damaged || k->out->healed > healed;

    if (!is_damage(why.code))
        return -1;
    /* Without a name each of its entries is tried. */
    if (!named && note_all(k, e) != 0)
        return -1;
    if (named && k->out->damaged == damaged)
        return 0;
    return judge(k, name, &why);
}

static int check_pack(struct check *k, const struct repo_pack *p, struct err *e)
{
    bool in_slice = p->key.b[0] % k->o->n == k->o->k - 1;
    char name[REPO_KEY_HEX_BYTES + 8], hex[REPO_KEY_HEX_BYTES];
    uint64_t damaged = k->out->damaged, healed = k->out->healed, problems = k->out->problems;

    repo_key_hex(&p->key, hex);
    snprintf(name, sizeof name, "pack %s", hex);
    k->pack = p->key;
    if (!p->indexed) {
        k->out->unindexed++;
        return 0;
    }
    k->out->packs++;
    if (!p->stored) {
        fault(k, name, "it is in the index, but it is gone");
        return note_all(k, e);
    }
    if (repo_pack_check(k->r, &p->key, k->o->read_data && in_slice, note_entry, k, e) != 0 &&
        judge_pack(k, name, damaged, healed, e) != 0)
        return -1;
    if (!k->o->read_data || !in_slice)
        return 0;
    k->out->read_bytes += p->size_bytes;
    /* What is damaged there and healed elsewhere was proved elsewhere. */
    return k->out->problems == problems && k->out->damaged == damaged
               ? note_good(k, &p->key, 0, k->began, e)
               : 0;
}

static int check_packs(struct check *k, struct err *e)
{
    uint64_t done = 0, total = 0;

    if (repo_packs(k->r, &k->packs, &k->pack_count, e) != 0)
        return -1;
    for (size_t i = 0; i < k->pack_count; i++)
        total += k->packs[i].size_bytes;
    for (size_t i = 0; i < k->pack_count; i++) {
        if (check_stop(k, e) != 0 || check_pack(k, &k->packs[i], e) != 0)
            return -1;
        done += k->packs[i].size_bytes;
        progress(k, "checking packs", done, total);
    }
    return 0;
}

static int set_aside(struct check *k, struct err *e)
{
    const struct repo_damaged *d = (const struct repo_damaged *)(const void *)k->damaged.data;
    size_t count = k->damaged.count / sizeof d[0];

    for (size_t at = 0; at < count && k->o->set_aside;) {
        size_t now = count - at < REPO_DAMAGED_MAX ? count - at : REPO_DAMAGED_MAX;

        if (repo_note_damaged(k->r, d + at, now, e) != 0)
            return -1;
        at += now;
    }
    return 0;
}

/* --- small objects --- */

static int judge_object(void *context, const char *name, bool ours, const struct err *why,
                        struct err *e)
{
    struct check *k = context;
    char text[sizeof why->text + 40];

    if (ours) {
        *e = *why;
        return judge(k, name, e);
    }
    snprintf(text, sizeof text, "%s: %s; it is left alone", name, why->text);
    if (k->env->warn != NULL)
        k->env->warn(k->env->context, text);
    return 0;
}

/* --- generations --- */

static int visit_node(void *context, unsigned level, uint64_t first_block,
                      const struct repo_cell *cell, struct err *e)
{
    struct check *k = context;

    (void)level;
    (void)first_block;
    (void)e;
    return id_set_has(k->whole, &cell->id) ? 1 : 0;
}

static int visit_blocks(void *context, uint64_t first_block, const struct repo_cell *cells,
                        size_t count, struct err *e)
{
    struct check *k = context;

    (void)first_block;
    for (size_t i = 0; i < count; i++) {
        int has = repo_holds(k->r, false, &cells[i].id, e);

        if (has < 0)
            return -1;
        k->missing += has == 0;
    }
    return check_stop(k, e);
}

/* Every node of a disk of which nothing is missing is known to be whole from now on. */
static int note_node(void *context, unsigned level, uint64_t first_block,
                     const struct repo_cell *cell, struct err *e)
{
    struct check *k = context;
    int is_new = id_set_add(k->whole, &cell->id, e);

    (void)first_block;
    /* Below one that was known everything is known; nodes of the lowest level have none below. */
    return is_new < 0 ? -1 : is_new == 0 || level == 1 ? 1 : 0;
}

static int check_disk(struct check *k, const char *object, const struct repo_generation_disk *d,
                      struct err *e)
{
    const struct repo_walk look = { visit_node, visit_blocks, k };
    const struct repo_walk note = { note_node, NULL, k };
    char text[200];

    if (d->state == REPO_DISK_ABSENT)
        return 0;
    k->missing = 0;
    if (repo_disk_walk(k->r, d, &look, e) != 0) {
        if (e->code == ERR_STOPPED)
            return -1;
        err_add(e, "%s", d->slot);
        return judge(k, object, e);
    }
    if (k->missing == 0)
        return repo_disk_walk(k->r, d, &note, e);
    snprintf(text, sizeof text, "%s: %" PRIu64 " blocks are missing or damaged", d->slot,
             k->missing);
    fault(k, object, text);
    return 0;
}

static int check_files(struct check *k, const char *object, const struct repo_generation *g,
                       struct err *e)
{
    for (uint32_t i = 0; i < g->file_count; i++) {
        struct bytes body = { .ceiling = REPO_FILE_BYTES_MAX };
        int rc = repo_file_read(k->r, &g->files[i], &body, e);

        bytes_free(&body);
        if (rc != 0 && judge(k, object, e) != 0)
            return -1;
    }
    return 0;
}

static void name_of(const struct repo_generation *g, char *out, size_t room)
{
    snprintf(out, room, "%s@%" PRIu64, g->vm_name, g->number);
}

static int check_one(struct check *k, const struct repo_generation *g, struct err *e)
{
    char object[REPO_TEXT_MAX + 32];

    name_of(g, object, sizeof object);
    k->out->generations++;
    if (check_files(k, object, g, e) != 0)
        return -1;
    for (uint32_t i = 0; i < g->disk_count; i++)
        if (check_disk(k, object, &g->disks[i], e) != 0)
            return -1;
    return 0;
}

static int check_generations(struct check *k, struct err *e)
{
    struct repo_generation_name *names = NULL;
    size_t count = 0;
    int rc = -1;

    if (repo_generation_names(k->r, &names, &count, e) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct repo_generation g = { 0 };
        int loaded = repo_generation_load(k->r, &names[i].vm, names[i].number, &g, e);
        int done = 0;

        if (loaded == 0)
            done = check_one(k, &g, e);
        else if (e->code == ERR_NOT_FOUND) /* forgotten while we looked */
            done = repo_still_there(k->r, e);
        else
            done = judge(k, "a manifest", e);
        repo_generation_free(&g);
        if (done != 0)
            goto out;
        progress(k, "checking generations", i + 1, count);
    }
    rc = 0;

out:
    free(names);
    return rc;
}

/* --- what was verified --- */

/* When the packs that are there were read, the oldest of these times; 0: one of them never. */
static int oldest_pack(struct check *k, uint64_t *out, struct err *e)
{
    struct repo_verified v;
    uint64_t oldest = k->began;

    if (repo_verified_load(k->r, &v, e) != 0)
        return -1;
    for (size_t i = 0; i < k->pack_count; i++) {
        uint64_t time = repo_verified_time(&v, &k->packs[i].key, 0);

        /* Nothing refers to a pack that has no index. */
        if (k->packs[i].indexed && time < oldest)
            oldest = time;
    }
    repo_verified_free(&v);
    *out = oldest;
    return 0;
}

static int note_items(struct check *k, struct err *e)
{
    const struct repo_verified_item *items =
        (const struct repo_verified_item *)(const void *)k->good.data;
    size_t count = k->good.count / sizeof items[0];

    return count > 0 ? repo_verified_note(k->r, items, count, e) : 0;
}

/* With the packs of this slice perhaps everything was read by now. */
static int note_generations(struct check *k, struct err *e)
{
    uint64_t time;

    if (k->out->problems > 0)
        return 0;
    if (oldest_pack(k, &time, e) != 0)
        return -1;
    k->good.count = 0;
    for (size_t i = 0; i < k->name_count && time > 0; i++)
        if (note_good(k, &k->names[i].vm, k->names[i].number, time, e) != 0)
            return -1;
    return note_items(k, e);
}

/* A place where nothing can be written can be checked all the same. */
static void note_verified(struct check *k, bool packs)
{
    struct err e;

    if (!k->o->read_data || !k->o->set_aside)
        return;
    if ((note_items(k, &e) != 0 || (packs && note_generations(k, &e) != 0)) &&
        k->env->warn != NULL) {
        err_add(&e, "when it was verified could not be noted");
        k->env->warn(k->env->context, e.text);
    }
}

/* --- the whole --- */

static int begin(struct check *k, struct err *e)
{
    *k->out = (struct repo_checked){ 0 };
    k->began = (uint64_t)clock_now();
    k->damaged.ceiling = k->good.ceiling = (size_t)1 << 30;
    return id_set_new(&k->whole, REPO_ID_BYTES, e);
}

static int end(struct check *k, int rc, struct err *e)
{
    id_set_free(k->whole);
    bytes_free(&k->damaged);
    bytes_free(&k->good);
    free(k->names);
    free(k->packs);
    if (rc != 0 || k->out->problems == 0)
        return rc;
    *e = k->first;
    return -1;
}

int repo_check(struct repo *r, const struct repo_check_options *options, const struct repo_env *env,
               struct repo_checked *out, struct err *e)
{
    struct check k = { .r = r, .o = options, .env = env, .out = out };
    int rc;

    rc = begin(&k, e);
    if (rc == 0)
        rc = repo_generation_names(r, &k.names, &k.name_count, e);
    if (rc == 0)
        rc = check_packs(&k, e);
    if (rc == 0)
        rc = check_generations(&k, e);
    if (rc == 0)
        rc = repo_objects_check(r, judge_object, &k, e);
    /* Behind the walk, so that what is reported is what was found. */
    if (rc == 0)
        rc = set_aside(&k, e);
    if (rc == 0)
        note_verified(&k, true);
    return end(&k, rc, e);
}

/* Reading is the proof: the source compares every block with its id. */
static int read_disk(struct check *k, const char *object, const struct repo_generation_disk *d,
                     struct err *e)
{
    uint8_t *plain = malloc(d->block_bytes);
    struct source *s = NULL;
    uint64_t at = 0;
    int rc = -1;

    if (plain == NULL)
        return err_sys(e, "getting memory");
    if (repo_disk_open(&s, k->r, d, e) != 0)
        goto out;
    while (at < d->capacity_bytes) {
        struct extent x;

        if (check_stop(k, e) != 0 || source_extent_at(s, at, &x, e) != 0)
            goto out;
        if (x.kind != EXTENT_ZERO) {
            if (x.length_bytes > d->block_bytes)
                x.length_bytes = d->block_bytes;
            if (source_read(s, at, plain, (size_t)x.length_bytes, e) != 0)
                goto out;
            k->out->read_bytes += x.length_bytes;
        }
        at += x.length_bytes;
        progress(k, d->slot, at, d->capacity_bytes);
    }
    rc = 0;

out:
    source_close(s);
    free(plain);
    if (rc != 0 && e->code != ERR_STOPPED)
        rc = judge(k, object, e);
    return rc;
}

int repo_check_generation(struct repo *r, const struct repo_generation *g,
                          const struct repo_check_options *options, const struct repo_env *env,
                          struct repo_checked *out, struct err *e)
{
    struct check k = { .r = r, .o = options, .env = env, .out = out };
    char object[REPO_TEXT_MAX + 32];
    int rc;

    name_of(g, object, sizeof object);
    rc = begin(&k, e);
    if (rc == 0)
        rc = check_one(&k, g, e);
    for (uint32_t i = 0; i < g->disk_count && rc == 0 && options->read_data; i++)
        if (g->disks[i].state != REPO_DISK_ABSENT)
            rc = read_disk(&k, object, &g->disks[i], e);
    if (rc == 0 && out->problems == 0)
        rc = note_good(&k, &g->vm, g->number, k.began, e);
    if (rc == 0)
        note_verified(&k, false);
    return end(&k, rc, e);
}
