/* Bringing the merged index up to what the repository lists. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/repo/document.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/index_private.h"
#include "receiver/repo/names.h"
#include "receiver/repo/repo_care.h"

enum { DAMAGED_MAX = 1 << 22, DAMAGED_BYTES = 53, DAMAGED_OF_ONE_MAX = REPO_DAMAGED_MAX };

/* --- what is listed --- */

/* The keys of all packs that have an index object, ascending as the names are. */
static int list_packs(struct index *x, struct bytes *out, struct err *e)
{
    struct storage_list *list;
    struct storage_item item;
    struct repo_key key;
    int more;

    out->ceiling = (size_t)STORAGE_LIST_MAX * sizeof key;
    if (storage_list(x->storage, "index/", &list, e) != 0)
        return -1;
    while ((more = storage_next(list, &item, e)) > 0) {
        if (name_is_index(item.name, &key) && bytes_append(out, &key, sizeof key, e) != 0) {
            more = -1;
            break;
        }
    }
    storage_list_end(list);
    return more;
}

/* Mark the listed packs that a run covers; false when the run names one that is not listed. */
static bool mark_covered(const struct sorted_run *r, const struct repo_key *listed, size_t count,
                         bool *covered)
{
    const struct repo_key *packs = sorted_run_packs(r);
    size_t at = 0;

    for (uint32_t i = 0; i < sorted_run_pack_count(r); i++) {
        while (at < count && index_compare_keys(&listed[at], &packs[i]) < 0)
            at++;
        if (at == count || index_compare_keys(&listed[at], &packs[i]) != 0)
            return false;
        covered[at] = true;
    }
    return true;
}

/* What the table has already, from its own process or from an earlier look. */
static void mark_table(const struct index *x, const struct repo_key *listed, size_t count,
                       bool *covered)
{
    for (size_t i = 0; i < x->pack_count; i++) {
        const struct repo_key *at =
            bsearch(&x->packs[i].key, listed, count, sizeof listed[0], index_compare_keys);

        if (at != NULL)
            covered[at - listed] = true;
    }
}

static void check_runs(struct index *x, const struct repo_key *listed, size_t count, bool *covered)
{
    for (size_t i = 0; i < x->run_count; i++)
        if (!mark_covered(x->runs[i], listed, count, covered)) {
            cache_void(x);
            memset(covered, 0, count);
            break;
        }
    if (count > 0)
        mark_table(x, listed, count, covered);
}

static int adopt_pack(struct index *x, const struct repo_key *pack, struct err *e)
{
    object_name name;

    name_of_index(name, pack);
    return storage_adopt(x->storage, name, e);
}

int index_adopt(struct index *x, struct err *e)
{
    int rc = 0;

    pthread_rwlock_wrlock(&x->lock);
    x->adopts = true;
    for (size_t i = 0; i < x->pack_count && rc == 0; i++)
        rc = adopt_pack(x, &x->packs[i].key, e);
    pthread_rwlock_unlock(&x->lock);
    return rc;
}

/* Read a pack's index object into the table. */
static int read_pack(struct index *x, const struct repo_key *pack, struct err *e)
{
    struct pack_index p = { 0 };
    uint32_t number = 0;
    int rc;

    if (pack_index_get(x->storage, x->vault, pack, &p, e) != 0) {
        if (e->code != ERR_CORRUPT && e->code != ERR_FORMAT && e->code != ERR_SOURCE &&
            e->code != ERR_LIMIT)
            return -1;
        index_warn(x, e->text);
        return 0;
    }
    rc = x->adopts ? adopt_pack(x, pack, e) : 0;
    if (rc == 0)
        rc = index_table_add_pack(x, pack, true, &number, e);
    for (uint32_t i = 0; i < p.count && rc == 0; i++) {
        p.entries[i].pack = number;
        rc = index_table_add(x, &p.entries[i], e);
    }
    pack_index_free(&p);
    return rc;
}

static int read_new_packs(struct index *x, const struct repo_key *listed, size_t count,
                          const bool *covered, struct err *e)
{
    size_t done = 0, wanted = 0;

    for (size_t i = 0; i < count; i++)
        wanted += !covered[i];
    x->known_packs = count - wanted;
    for (size_t i = 0; i < count; i++) {
        if (covered[i])
            continue;
        if (x->env.stop != NULL && atomic_load(x->env.stop))
            return err_set(e, ERR_STOPPED, "stopped while reading the index");
        if (x->env.progress != NULL && wanted > 64)
            x->env.progress(x->env.context, "reading the index", done, wanted);
        if (read_pack(x, &listed[i], e) != 0)
            return -1;
        done++;
    }
    return 0;
}

int index_bring_up_to_date(struct index *x, struct err *e)
{
    struct bytes listed = { 0 };
    bool *covered = NULL;
    size_t count;
    int rc = -1;

    if (list_packs(x, &listed, e) != 0)
        goto out;
    count = listed.count / sizeof(struct repo_key);
    covered = calloc(count > 0 ? count : 1, sizeof covered[0]);
    if (covered == NULL) {
        err_sys(e, "getting memory for the index");
        goto out;
    }
    check_runs(x, (const struct repo_key *)(void *)listed.data, count, covered);
    rc = read_new_packs(x, (const struct repo_key *)(void *)listed.data, count, covered, e);

out:
    free(covered);
    bytes_free(&listed);
    return rc;
}

/* --- damaged entries --- */

static int take_damaged(struct index *x, const struct bytes *body, struct err *e)
{
    uint32_t count = 0;
    struct fields f;
    struct damaged_entry *all;

    fields_read(&f, body->data, body->count, e);
    field_u32(&f, &count, 0, DAMAGED_OF_ONE_MAX);
    if (f.failed || count * (uint64_t)DAMAGED_BYTES != f.in.left ||
        x->damaged_count + count > DAMAGED_MAX)
        return err_set(e, ERR_CORRUPT, "a list of damaged entries is damaged itself");
    all = realloc(x->damaged, (x->damaged_count + count + 1) * sizeof all[0]);
    if (all == NULL)
        return err_sys(e, "getting memory for the index");
    x->damaged = all;
    for (uint32_t i = 0; i < count; i++) {
        struct damaged_entry *n = &x->damaged[x->damaged_count++];
        struct repo_id id;
        uint8_t type;

        field_raw(&f, n->pack.b, sizeof n->pack.b);
        field_u32(&f, &n->offset, 0, UINT32_MAX);
        field_u8(&f, &type, 0, UINT8_MAX);
        field_raw(&f, id.b, sizeof id.b);
    }
    return fields_done(&f);
}

static int read_damaged(struct index *x, struct err *e)
{
    struct storage_list *list;
    struct storage_item item;
    int more;

    if (storage_list(x->storage, "damaged/", &list, e) != 0)
        return -1;
    while ((more = storage_next(list, &item, e)) > 0) {
        struct bytes body = { 0 };
        int rc = document_get(x->storage, x->vault, DOCUMENT_DAMAGED, item.name, &body, e);

        if (rc == 0)
            rc = take_damaged(x, &body, e);
        bytes_free(&body);
        /* What cannot be read any more is found damaged again by check. */
        if (rc != 0 && e->code == ERR_CORRUPT)
            index_warn(x, e->text);
        else if (rc != 0) {
            more = -1;
            break;
        }
    }
    storage_list_end(list);
    if (x->damaged_count > 1)
        qsort(x->damaged, x->damaged_count, sizeof x->damaged[0], index_compare_damaged);
    return more;
}

/* --- opening --- */

int index_open(struct index **out, struct storage *s, const struct vault *v, uint64_t epoch,
               const char *cache_dir, const struct repo_env *env, struct err *e)
{
    struct index *x = calloc(1, sizeof *x);
    struct err why;

    if (x == NULL)
        return err_sys(e, "getting memory for the index");
    x->storage = s;
    x->vault = v;
    x->epoch = epoch;
    x->env = *env;
    x->cache = -1;
    pthread_rwlock_init(&x->lock, NULL);
    x->slot_count = SLOTS_LEAST;
    x->slots = calloc(x->slot_count, sizeof x->slots[0]);
    if (x->slots == NULL) {
        err_sys(e, "getting memory for the index");
        goto fail;
    }
    if (cache_open(x, cache_dir, e) != 0 || read_damaged(x, e) != 0)
        goto fail;
    cache_load(x);
    if (index_bring_up_to_date(x, e) != 0)
        goto fail;
    if (index_save(x, &why) != 0)
        index_warn(x, why.text);
    *out = x;
    return 0;

fail:
    index_close(x);
    return -1;
}

void index_close(struct index *x)
{
    if (x == NULL)
        return;
    for (size_t i = 0; i < x->run_count; i++)
        sorted_run_close(x->runs[i]);
    io_drop(&x->cache);
    pthread_rwlock_destroy(&x->lock);
    free(x->slots);
    free(x->packs);
    free(x->damaged);
    free(x);
}
