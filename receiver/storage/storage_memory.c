#include "receiver/storage/storage_memory.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/storage/memory.h"
#include "receiver/storage/name_list.h"

enum { POLL_MS = 5, LOCKS_MAX = 64 };

struct object {
    char name[STORAGE_NAME_ROOM];
    struct blob *blob;
};

struct named_lock {
    char name[STORAGE_NAME_ROOM];
    unsigned shared, exclusive, waiting;
};

struct memory {
    struct storage base;
    pthread_mutex_t lock;   /* guards the rest */
    struct object *objects; /* ascending by name */
    size_t count, room;
    struct named_lock locks[LOCKS_MAX];
    size_t lock_count;
    uint64_t fail_after; /* calls that still succeed, plus one; 0: all */
    int fail_code;
};

struct memory_upload {
    struct storage_upload base;
    struct blob *blob;
    size_t room;
    char name[STORAGE_NAME_ROOM];
};

struct memory_list {
    struct storage_list base;
    struct name_list names;
    size_t at;
};

struct memory_lock {
    struct storage_lock base;
    struct named_lock *lock;
    enum lock_kind kind;
};

static struct memory *memory_of(struct storage *s)
{
    return (struct memory *)(void *)s;
}

struct blob *blob_keep(struct blob *b)
{
    atomic_fetch_add(&b->users, 1);
    return b;
}

void blob_give(struct blob *b)
{
    if (b != NULL && atomic_fetch_sub(&b->users, 1) == 1) {
        free(b->data);
        free(b);
    }
}

/* --- objects, with the lock held --- */

/* Where name is, or would be. */
static size_t place_of(const struct memory *m, const char *name, bool *found)
{
    size_t low = 0, high = m->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(m->objects[middle].name, name);

        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = false;
    return low;
}

static struct object *find(struct memory *m, const char *name, struct err *e)
{
    bool found;
    size_t at = place_of(m, name, &found);

    if (found)
        return &m->objects[at];
    err_set(e, ERR_NOT_FOUND, "there is no such object");
    return NULL;
}

/* True when this change must fail. */
static int planned_failure(struct memory *m, struct err *e)
{
    if (m->fail_after == 0)
        return 0;
    if (m->fail_after > 1) {
        m->fail_after--;
        return 0;
    }
    return err_set(e, (enum err_code)m->fail_code, "a planned failure");
}

static int insert(struct memory *m, const char *name, struct blob *blob, struct err *e)
{
    bool found;
    size_t at = place_of(m, name, &found);

    if (found) {
        err_set(e, ERR_REFUSED, "%s is there already", name);
        if (e != NULL)
            e->os = EEXIST;
        return -1;
    }
    if (m->count == m->room) {
        size_t room = m->room > 0 ? 2 * m->room : 32;
        struct object *objects = realloc(m->objects, room * sizeof objects[0]);

        if (objects == NULL)
            return err_sys(e, "getting memory");
        m->objects = objects;
        m->room = room;
    }
    memmove(m->objects + at + 1, m->objects + at, (m->count - at) * sizeof m->objects[0]);
    snprintf(m->objects[at].name, sizeof m->objects[at].name, "%s", name);
    m->objects[at].blob = blob_keep(blob);
    m->count++;
    return 0;
}

int memory_add(struct storage *s, const char *name, struct blob *blob, struct err *e)
{
    struct memory *m = memory_of(s);
    int rc;

    pthread_mutex_lock(&m->lock);
    rc = insert(m, name, blob, e);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

/* --- uploads --- */

static int memory_begin(struct storage *s, const char *name, struct storage_upload **out,
                        struct err *e)
{
    struct memory_upload *u = calloc(1, sizeof *u);

    if (u != NULL)
        u->blob = calloc(1, sizeof *u->blob);
    if (u == NULL || u->blob == NULL) {
        free(u);
        return err_sys(e, "getting memory");
    }
    u->base.storage = s;
    atomic_init(&u->blob->users, 1);
    snprintf(u->name, sizeof u->name, "%s", name);
    *out = &u->base;
    return 0;
}

static int memory_write(struct storage_upload *base, const void *data, size_t count, struct err *e)
{
    struct memory_upload *u = (struct memory_upload *)(void *)base;
    struct memory *m = memory_of(base->storage);
    struct blob *b = u->blob;
    int rc;

    pthread_mutex_lock(&m->lock);
    rc = planned_failure(m, e);
    pthread_mutex_unlock(&m->lock);
    if (rc != 0)
        return -1;
    if (count > u->room - b->count) {
        size_t room = (b->count + count) * 2;
        uint8_t *data_now = realloc(b->data, room);

        if (data_now == NULL)
            return err_sys(e, "getting memory");
        b->data = data_now;
        u->room = room;
    }
    if (count > 0)
        memcpy(b->data + b->count, data, count);
    b->count += count;
    return 0;
}

static void memory_drop(struct storage_upload *base)
{
    struct memory_upload *u = (struct memory_upload *)(void *)base;

    blob_give(u->blob);
    free(u);
}

static int memory_publish(struct storage_upload *base, struct err *e)
{
    struct memory_upload *u = (struct memory_upload *)(void *)base;
    struct memory *m = memory_of(base->storage);
    int rc;

    pthread_mutex_lock(&m->lock);
    rc = planned_failure(m, e);
    if (rc == 0)
        rc = insert(m, u->name, u->blob, e);
    pthread_mutex_unlock(&m->lock);
    memory_drop(base);
    return rc;
}

struct blob *memory_upload_blob(struct storage_upload *base)
{
    return ((struct memory_upload *)(void *)base)->blob;
}

const char *memory_upload_name(const struct storage_upload *base)
{
    return ((const struct memory_upload *)(const void *)base)->name;
}

/* --- reading --- */

static int memory_read(struct storage *s, const char *name, uint64_t offset_bytes, void *out,
                       size_t count, struct err *e)
{
    struct memory *m = memory_of(s);
    struct object *o;
    int rc = -1;

    pthread_mutex_lock(&m->lock);
    o = find(m, name, e);
    if (o == NULL)
        goto out;
    if (offset_bytes > o->blob->count || count > o->blob->count - offset_bytes) {
        err_set(e, ERR_CORRUPT, "it has %zu bytes, %zu at %" PRIu64 " were wanted", o->blob->count,
                count, offset_bytes);
        goto out;
    }
    if (count > 0)
        memcpy(out, o->blob->data + offset_bytes, count);
    rc = 0;

out:
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static int memory_size(struct storage *s, const char *name, uint64_t *out_bytes, struct err *e)
{
    struct memory *m = memory_of(s);
    struct object *o;

    pthread_mutex_lock(&m->lock);
    o = find(m, name, e);
    if (o != NULL)
        *out_bytes = o->blob->count;
    pthread_mutex_unlock(&m->lock);
    return o != NULL ? 0 : -1;
}

static int memory_list(struct storage *s, const char *prefix, struct storage_list **out,
                       struct err *e)
{
    struct memory *m = memory_of(s);
    struct memory_list *l = calloc(1, sizeof *l);
    bool found;
    int rc = 0;

    if (l == NULL)
        return err_sys(e, "getting memory");
    l->base.storage = s;
    pthread_mutex_lock(&m->lock);
    for (size_t i = place_of(m, prefix, &found); rc == 0 && i < m->count; i++) {
        if (strncmp(m->objects[i].name, prefix, strlen(prefix)) != 0)
            break;
        rc = name_list_add(&l->names, m->objects[i].name, e);
    }
    pthread_mutex_unlock(&m->lock);
    if (rc != 0) {
        name_list_free(&l->names);
        free(l);
        return -1;
    }
    *out = &l->base;
    return 0;
}

static int memory_next(struct storage_list *base, struct storage_item *out, struct err *e)
{
    struct memory_list *l = (struct memory_list *)(void *)base;

    while (l->at < l->names.count) {
        const char *name = l->names.names[l->at++];

        if (memory_size(base->storage, name, &out->size_bytes, e) == 0) {
            snprintf(out->name, sizeof out->name, "%s", name);
            return 1;
        }
    }
    return 0;
}

static void memory_end(struct storage_list *base)
{
    struct memory_list *l = (struct memory_list *)(void *)base;

    name_list_free(&l->names);
    free(l);
}

static int memory_remove(struct storage *s, const char *name, struct err *e)
{
    struct memory *m = memory_of(s);
    bool found;
    size_t at;
    int rc;

    pthread_mutex_lock(&m->lock);
    rc = planned_failure(m, e);
    at = place_of(m, name, &found);
    if (rc == 0 && found) {
        blob_give(m->objects[at].blob);
        m->count--;
        memmove(m->objects + at, m->objects + at + 1, (m->count - at) * sizeof m->objects[0]);
    }
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static int memory_barrier(struct storage *s, struct err *e)
{
    struct memory *m = memory_of(s);
    int rc;

    pthread_mutex_lock(&m->lock);
    rc = planned_failure(m, e);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

/* --- locks --- */

/* The lock of that name; NULL when there are too many.  With m->lock held. */
static struct named_lock *lock_named(struct memory *m, const char *name)
{
    for (size_t i = 0; i < m->lock_count; i++)
        if (strcmp(m->locks[i].name, name) == 0)
            return &m->locks[i];
    if (m->lock_count == LOCKS_MAX)
        return NULL;
    snprintf(m->locks[m->lock_count].name, STORAGE_NAME_ROOM, "%s", name);
    return &m->locks[m->lock_count++];
}

/* One try; *waiting tells whether this taker is counted as waiting. */
static bool try_lock(struct named_lock *n, enum lock_kind kind, bool *waiting)
{
    if (kind == LOCK_SHARED) {
        if (n->exclusive > 0 || n->waiting > 0)
            return false;
        n->shared++;
        return true;
    }
    if (n->exclusive == 0 && n->shared == 0) {
        n->exclusive = 1;
        if (*waiting)
            n->waiting--;
        *waiting = false;
        return true;
    }
    if (!*waiting)
        n->waiting++;
    *waiting = true;
    return false;
}

static int wait_for(struct memory *m, struct named_lock *n, enum lock_kind kind, uint64_t wait_ms,
                    const atomic_bool *stop, struct err *e)
{
    uint64_t start = io_clock_ms();
    bool waiting = false;
    int rc = 0;

    for (;;) {
        bool got;

        pthread_mutex_lock(&m->lock);
        got = try_lock(n, kind, &waiting);
        pthread_mutex_unlock(&m->lock);
        if (got)
            return 0;
        if (stop != NULL && atomic_load(stop))
            rc = err_set(e, ERR_STOPPED, "stopped while waiting for the lock");
        else if (io_clock_ms() - start >= wait_ms)
            rc = err_set(e, ERR_BUSY, "somebody else holds the lock %s", n->name);
        if (rc != 0)
            break;
        nanosleep(&(struct timespec){ .tv_nsec = POLL_MS * 1000000L }, NULL);
    }
    pthread_mutex_lock(&m->lock);
    n->waiting -= waiting;
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static int memory_lock(struct storage *s, const char *name, enum lock_kind kind, uint64_t wait_ms,
                       const atomic_bool *stop, struct storage_lock **out, struct err *e)
{
    struct memory *m = memory_of(s);
    struct memory_lock *l = calloc(1, sizeof *l);

    if (l == NULL)
        return err_sys(e, "getting memory");
    pthread_mutex_lock(&m->lock);
    *l = (struct memory_lock){ .base.storage = s, .lock = lock_named(m, name), .kind = kind };
    pthread_mutex_unlock(&m->lock);
    if (l->lock == NULL) {
        free(l);
        return err_set(e, ERR_LIMIT, "too many locks");
    }
    if (wait_for(m, l->lock, kind, wait_ms, stop, e) != 0) {
        free(l);
        return -1;
    }
    *out = &l->base;
    return 0;
}

static int memory_proof(struct storage_lock *l, struct err *e)
{
    (void)l;
    (void)e;
    return 0;
}

static void memory_unlock(struct storage_lock *base)
{
    struct memory_lock *l = (struct memory_lock *)(void *)base;
    struct memory *m = memory_of(base->storage);

    pthread_mutex_lock(&m->lock);
    if (l->kind == LOCK_SHARED)
        l->lock->shared--;
    else
        l->lock->exclusive--;
    pthread_mutex_unlock(&m->lock);
    free(l);
}

static int memory_room(struct storage *s, uint64_t *out_bytes, struct err *e)
{
    (void)s;
    (void)e;
    *out_bytes = UINT64_MAX;
    return 0;
}

static int memory_sweep(struct storage *s, struct err *e)
{
    (void)s;
    (void)e;
    return 0;
}

static void memory_close(struct storage *s)
{
    struct memory *m = memory_of(s);

    for (size_t i = 0; i < m->count; i++)
        blob_give(m->objects[i].blob);
    free(m->objects);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

int storage_memory_new(struct storage **out, struct err *e)
{
    static const struct storage_ops ops = {
        memory_begin, memory_write,  memory_publish, memory_drop,   memory_read,    memory_size,
        memory_list,  memory_next,   memory_end,     memory_remove, memory_barrier, memory_lock,
        memory_proof, memory_unlock, memory_room,    memory_sweep,  memory_close,   NULL
    };
    struct memory *m = calloc(1, sizeof *m);

    if (m == NULL)
        return err_sys(e, "getting memory");
    m->base = (struct storage){ .ops = &ops, .label = "memory" };
    pthread_mutex_init(&m->lock, NULL);
    *out = &m->base;
    return 0;
}

/* --- for tests --- */

void storage_memory_fail(struct storage *s, uint64_t nth, int code)
{
    struct memory *m = memory_of(s);

    pthread_mutex_lock(&m->lock);
    m->fail_after = nth;
    m->fail_code = code;
    pthread_mutex_unlock(&m->lock);
}

/* A copy of an object's content that is its own, so that it can be changed. */
static int own(struct object *o, size_t count, struct err *e)
{
    struct blob *b = calloc(1, sizeof *b);

    if (b != NULL)
        b->data = malloc(count > 0 ? count : 1);
    if (b == NULL || b->data == NULL) {
        free(b);
        return err_sys(e, "getting memory");
    }
    atomic_init(&b->users, 1);
    b->count = count;
    if (count > 0)
        memcpy(b->data, o->blob->data, count);
    blob_give(o->blob);
    o->blob = b;
    return 0;
}

int storage_memory_flip(struct storage *s, const char *name, uint64_t offset, uint8_t mask,
                        struct err *e)
{
    struct object *o = find(memory_of(s), name, e);

    if (o == NULL)
        return -1;
    if (offset >= o->blob->count)
        return err_set(e, ERR_NOT_FOUND, "%s has no byte %" PRIu64, name, offset);
    if (own(o, o->blob->count, e) != 0)
        return -1;
    o->blob->data[offset] ^= mask;
    return 0;
}

int storage_memory_cut(struct storage *s, const char *name, uint64_t size, struct err *e)
{
    struct object *o = find(memory_of(s), name, e);

    if (o == NULL)
        return -1;
    if (size > o->blob->count)
        return err_set(e, ERR_NOT_FOUND, "%s has no byte %" PRIu64, name, size);
    return own(o, (size_t)size, e);
}
