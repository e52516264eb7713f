#include "receiver/storage/storage_record.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/storage/memory.h"
#include "receiver/storage/storage_memory.h"

enum entry_kind { ENTRY_PUBLISH, ENTRY_REMOVE, ENTRY_BARRIER };

struct entry {
    enum entry_kind kind;
    char name[STORAGE_NAME_ROOM];
    struct blob *blob; /* of a publish */
};

struct recorder {
    struct storage base;
    struct storage *inner;
    pthread_mutex_t
        lock; /* guards the rest; held over the inner call, so that the log has its order */
    struct entry *entries;
    size_t count, room;
};

static struct recorder *recorder_of(struct storage *s)
{
    return (struct recorder *)(void *)s;
}

static int note(struct recorder *r, enum entry_kind kind, const char *name, struct blob *blob,
                struct err *e)
{
    struct entry *n;

    if (r->count == r->room) {
        size_t room = r->room > 0 ? 2 * r->room : 64;
        struct entry *entries = realloc(r->entries, room * sizeof entries[0]);

        if (entries == NULL)
            return err_sys(e, "getting memory for the log");
        r->entries = entries;
        r->room = room;
    }
    n = &r->entries[r->count++];
    n->kind = kind;
    snprintf(n->name, sizeof n->name, "%s", name);
    n->blob = blob != NULL ? blob_keep(blob) : NULL;
    return 0;
}

/* An upload carries the wrapper as its storage; the inner one is looked up through it. */
static int record_begin(struct storage *s, const char *name, struct storage_upload **out,
                        struct err *e)
{
    struct recorder *r = recorder_of(s);

    if (r->inner->ops->begin(r->inner, name, out, e) != 0)
        return -1;
    (*out)->storage = s;
    return 0;
}

static struct storage_upload *inner_upload(struct storage_upload *u)
{
    u->storage = recorder_of(u->storage)->inner;
    return u;
}

static int record_write(struct storage_upload *u, const void *data, size_t count, struct err *e)
{
    struct storage *own = u->storage;
    int rc = storage_write(inner_upload(u), data, count, e);

    u->storage = own;
    return rc;
}

static int record_publish(struct storage_upload *u, struct err *e)
{
    struct recorder *r = recorder_of(u->storage);
    struct blob *blob = blob_keep(memory_upload_blob(u));
    char name[STORAGE_NAME_ROOM];
    int rc;

    snprintf(name, sizeof name, "%s", memory_upload_name(u));
    pthread_mutex_lock(&r->lock);
    rc = storage_publish(inner_upload(u), e);
    if (rc == 0)
        rc = note(r, ENTRY_PUBLISH, name, blob, e);
    pthread_mutex_unlock(&r->lock);
    blob_give(blob);
    return rc;
}

static void record_drop(struct storage_upload *u)
{
    storage_drop(inner_upload(u));
}

static int record_read(struct storage *s, const char *name, uint64_t offset, void *out,
                       size_t count, struct err *e)
{
    struct storage *inner = recorder_of(s)->inner;

    return inner->ops->read(inner, name, offset, out, count, e);
}

static int record_size(struct storage *s, const char *name, uint64_t *out, struct err *e)
{
    struct storage *inner = recorder_of(s)->inner;

    return inner->ops->size(inner, name, out, e);
}

/* Lists and locks are the inner storage's own from here on. */
static int record_list(struct storage *s, const char *prefix, struct storage_list **out,
                       struct err *e)
{
    struct storage *inner = recorder_of(s)->inner;

    return inner->ops->list(inner, prefix, out, e);
}

static int record_remove(struct storage *s, const char *name, struct err *e)
{
    struct recorder *r = recorder_of(s);
    int rc;

    pthread_mutex_lock(&r->lock);
    rc = r->inner->ops->remove(r->inner, name, e);
    if (rc == 0)
        rc = note(r, ENTRY_REMOVE, name, NULL, e);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static int record_barrier(struct storage *s, struct err *e)
{
    struct recorder *r = recorder_of(s);
    int rc;

    pthread_mutex_lock(&r->lock);
    rc = r->inner->ops->barrier(r->inner, e);
    if (rc == 0)
        rc = note(r, ENTRY_BARRIER, "", NULL, e);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static int record_lock(struct storage *s, const char *name, enum lock_kind kind, uint64_t wait_ms,
                       const atomic_bool *stop, struct storage_lock **out, struct err *e)
{
    struct storage *inner = recorder_of(s)->inner;

    return inner->ops->lock(inner, name, kind, wait_ms, stop, out, e);
}

static int record_room(struct storage *s, uint64_t *out, struct err *e)
{
    return storage_room(recorder_of(s)->inner, out, e);
}

static int record_sweep(struct storage *s, struct err *e)
{
    return storage_sweep(recorder_of(s)->inner, e);
}

static void record_close(struct storage *s)
{
    struct recorder *r = recorder_of(s);

    for (size_t i = 0; i < r->count; i++)
        blob_give(r->entries[i].blob);
    free(r->entries);
    storage_close(r->inner);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

int storage_record_new(struct storage **out, struct err *e)
{
    static const struct storage_ops ops = {
        .begin = record_begin,
        .write = record_write,
        .publish = record_publish,
        .drop = record_drop,
        .read = record_read,
        .size = record_size,
        .list = record_list,
        .remove = record_remove,
        .barrier = record_barrier,
        .lock = record_lock,
        .room = record_room,
        .sweep = record_sweep,
        .close = record_close,
    };
    struct recorder *r = calloc(1, sizeof *r);

    if (r == NULL)
        return err_sys(e, "getting memory");
    if (storage_memory_new(&r->inner, e) != 0) {
        free(r);
        return -1;
    }
    r->base = (struct storage){ .ops = &ops, .label = "recorder" };
    pthread_mutex_init(&r->lock, NULL);
    *out = &r->base;
    return 0;
}

size_t storage_record_count(const struct storage *s)
{
    return ((const struct recorder *)(const void *)s)->count;
}

/* The entry behind the last barrier among the first count. */
static size_t loose_from(const struct recorder *r, size_t count)
{
    while (count > 0 && r->entries[count - 1].kind != ENTRY_BARRIER)
        count--;
    return count;
}

size_t storage_record_loose(const struct storage *s, size_t count)
{
    return count - loose_from((const struct recorder *)(const void *)s, count);
}

/* Bit i of pick; behind the 64th from a generator that it seeds (splitmix64). */
static bool picked(uint64_t pick, size_t i)
{
    uint64_t x = pick + (uint64_t)i * 0x9e3779b97f4a7c15u;

    if (i < 64)
        return (pick >> i & 1) != 0;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (x >> 31 & 1) != 0;
}

static int apply(struct storage *to, const struct entry *n, struct err *e)
{
    if (n->kind == ENTRY_REMOVE)
        return storage_remove(to, n->name, e);
    if (n->kind == ENTRY_PUBLISH && memory_add(to, n->name, n->blob, e) != 0 &&
        e->code != ERR_REFUSED)
        return -1;
    return 0;
}

int storage_record_after(struct storage *s, size_t count, uint64_t pick, struct storage **out,
                         struct err *e)
{
    struct recorder *r = recorder_of(s);
    size_t from = loose_from(r, count);
    struct storage *made;

    if (storage_memory_new(&made, e) != 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if ((i < from || picked(pick, i - from)) && apply(made, &r->entries[i], e) != 0) {
            storage_close(made);
            return -1;
        }
    *out = made;
    return 0;
}
