#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/repo/document.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/repo_care.h"
#include "receiver/repo/repo_private.h"
#include "receiver/repo/repo_verified.h"

enum {
    ITEM_BYTES = REPO_KEY_BYTES + 16,
    ITEMS_OF_ONE_MAX = 1 << 18, /* of one document */
    ITEMS_MAX = 1 << 25,
};

static const char PREFIX[] = "verified/";

/* --- lists --- */

static int compare_things(const void *a, const void *b)
{
    const struct repo_verified_item *x = a, *y = b;
    int order = memcmp(x->key.b, y->key.b, sizeof x->key.b);

    return order != 0 ? order : (x->number > y->number) - (x->number < y->number);
}

/* The newest of each thing first. */
static int compare_items(const void *a, const void *b)
{
    const struct repo_verified_item *x = a, *y = b;
    int order = compare_things(a, b);

    return order != 0 ? order : (x->time < y->time) - (x->time > y->time);
}

static void tidy(struct repo_verified *v)
{
    size_t kept = 0;

    if (v->count > 1)
        qsort(v->items, v->count, sizeof v->items[0], compare_items);
    for (size_t i = 0; i < v->count; i++)
        if (kept == 0 || compare_things(&v->items[kept - 1], &v->items[i]) != 0)
            v->items[kept++] = v->items[i];
    v->count = kept;
}

static int add(struct repo_verified *v, const struct repo_verified_item *items, size_t count,
               struct err *e)
{
    struct repo_verified_item *more;

    if (count > ITEMS_MAX - v->count)
        return err_set(e, ERR_CORRUPT, "too much was verified");
    more = reallocarray(v->items, v->count + count + 1, sizeof more[0]);
    if (more == NULL)
        return err_sys(e, "getting memory");
    v->items = more;
    if (count > 0)
        memcpy(more + v->count, items, count * sizeof items[0]);
    v->count += count;
    return 0;
}

uint64_t repo_verified_time(const struct repo_verified *v, const struct repo_key *key,
                            uint64_t number)
{
    const struct repo_verified_item wanted = { .key = *key, .number = number };
    const struct repo_verified_item *found =
        v->count == 0 ? NULL : bsearch(&wanted, v->items, v->count, sizeof wanted, compare_things);

    return found != NULL ? found->time : 0;
}

void repo_verified_free(struct repo_verified *v)
{
    free(v->items);
    *v = (struct repo_verified){ 0 };
}

/* --- documents --- */

static void list_fields(struct fields *f, struct repo_verified_item **items, uint32_t *count)
{
    void *list = *items;

    if (!field_array(f, &list, count, ITEMS_OF_ONE_MAX, sizeof **items, ITEM_BYTES))
        return;
    *items = list;
    for (uint32_t i = 0; i < *count; i++) {
        field_raw(f, (*items)[i].key.b, REPO_KEY_BYTES);
        field_u64(f, &(*items)[i].number, 0, INT64_MAX);
        field_u64(f, &(*items)[i].time, 1, INT64_MAX);
    }
}

static int take_document(struct repo *r, const char *name, struct repo_verified *v, struct err *e)
{
    struct repo_verified_item *items = NULL;
    struct bytes body = { 0 };
    uint32_t count = 0;
    struct fields f;
    int rc = document_get(r->storage, r->vault, DOCUMENT_VERIFIED, name, &body, e);

    if (rc == 0) {
        fields_read(&f, body.data, body.count, e);
        list_fields(&f, &items, &count);
        rc = fields_done(&f) != 0 ? err_add(e, "object %s", name) : add(v, items, count, e);
    }
    free(items);
    bytes_free(&body);
    return rc;
}

static bool says_nothing(const struct err *e)
{
    return e->code == ERR_CORRUPT || e->code == ERR_FORMAT || e->code == ERR_LIMIT ||
           e->code == ERR_UNSUPPORTED || e->code == ERR_NOT_FOUND || e->code == ERR_SOURCE;
}

/* names, if not NULL, gets the documents that were there: object_name each. */
static int load(struct repo *r, struct repo_verified *v, struct bytes *names, struct err *e)
{
    struct storage_list *list;
    struct storage_item item;
    int more;

    if (storage_list(r->storage, PREFIX, &list, e) != 0)
        return -1;
    while ((more = storage_next(list, &item, e)) > 0) {
        /* One that another check replaces meanwhile is in the one that it writes. */
        if (take_document(r, item.name, v, e) != 0 && !says_nothing(e)) {
            more = -1;
            break;
        }
        if (names != NULL && bytes_append(names, item.name, sizeof item.name, e) != 0) {
            more = -1;
            break;
        }
    }
    storage_list_end(list);
    tidy(v);
    return more;
}

int repo_verified_load(struct repo *r, struct repo_verified *out, struct err *e)
{
    *out = (struct repo_verified){ 0 };
    if (load(r, out, NULL, e) == 0)
        return 0;
    repo_verified_free(out);
    return -1;
}

/* What is there now, as things of the list. */
static int gather_present(struct repo *r, struct repo_verified *out, struct err *e)
{
    struct repo_generation_name *names = NULL;
    struct repo_pack *packs = NULL;
    size_t name_count = 0, pack_count = 0;
    int rc = -1;

    if (repo_generation_names(r, &names, &name_count, e) != 0 ||
        repo_packs(r, &packs, &pack_count, e) != 0)
        goto out;
    out->items = calloc(name_count + pack_count + 1, sizeof out->items[0]);
    if (out->items == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    for (size_t i = 0; i < name_count; i++)
        out->items[out->count++] =
            (struct repo_verified_item){ .key = names[i].vm, .number = names[i].number, .time = 1 };
    for (size_t i = 0; i < pack_count; i++)
        out->items[out->count++] = (struct repo_verified_item){ .key = packs[i].key, .time = 1 };
    tidy(out);
    rc = 0;

out:
    free(names);
    free(packs);
    return rc;
}

static void drop_absent(struct repo_verified *v, const struct repo_verified *present)
{
    size_t kept = 0;

    for (size_t i = 0; i < v->count; i++)
        if (repo_verified_time(present, &v->items[i].key, v->items[i].number) != 0)
            v->items[kept++] = v->items[i];
    v->count = kept;
}

static int put_document(struct repo *r, struct repo_verified_item *items, uint32_t count,
                        struct err *e)
{
    struct bytes body = { .ceiling = document_body_max(DOCUMENT_VERIFIED) };
    struct repo_key key;
    object_name name;
    struct fields f;
    int rc;

    randombytes_buf(key.b, sizeof key.b);
    name_of_key(name, "verified", &key);
    fields_write(&f, &body, e);
    list_fields(&f, &items, &count);
    rc = fields_done(&f);
    if (rc == 0)
        rc = document_put(r->storage, r->vault, DOCUMENT_VERIFIED, name, &body, e);
    bytes_free(&body);
    return rc;
}

/* The new ones are durable before the old ones go; who may not remove leaves them: no harm. */
static int replace(struct repo *r, struct repo_verified *v, const struct bytes *old, struct err *e)
{
    struct err none;

    for (size_t at = 0; at < v->count; at += ITEMS_OF_ONE_MAX)
        if (put_document(r, v->items + at, (uint32_t)min_u64(v->count - at, ITEMS_OF_ONE_MAX), e) !=
            0)
            return -1;
    if (storage_barrier(r->storage, e) != 0)
        return -1;
    for (size_t at = 0; at < old->count; at += STORAGE_NAME_ROOM)
        (void)storage_remove(r->storage, (const char *)old->data + at, &none);
    return 0;
}

int repo_verified_note(struct repo *r, const struct repo_verified_item *items, size_t count,
                       struct err *e)
{
    struct bytes old = { .ceiling = (size_t)1 << 20 };
    struct repo_verified v = { 0 }, present = { 0 };
    int rc = -1;

    if (r->read_only)
        return err_set(e, ERR_REFUSED, "the repository was opened for reading only");
    if (load(r, &v, &old, e) != 0 || add(&v, items, count, e) != 0 ||
        gather_present(r, &present, e) != 0)
        goto out;
    tidy(&v);
    drop_absent(&v, &present);
    rc = replace(r, &v, &old, e);

out:
    bytes_free(&old);
    repo_verified_free(&present);
    repo_verified_free(&v);
    return rc;
}
