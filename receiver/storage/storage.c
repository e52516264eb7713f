#include "receiver/storage/storage.h"

#include <inttypes.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool storage_prefix_valid(const char *prefix)
{
    size_t count = strlen(prefix);
    char before = '/';

    if (count > STORAGE_NAME_MAX)
        return false;
    for (size_t i = 0; i < count; i++) {
        char c = prefix[i];

        if (c == '/' ? before == '/' : !is_name_byte(c) || (before == '/' && c == '.'))
            return false;
        before = c;
    }
    return true;
}

bool storage_name_valid(const char *name)
{
    size_t count = strlen(name);

    return count > 0 && name[count - 1] != '/' && storage_prefix_valid(name);
}

static int check_name(const char *name, struct err *e)
{
    if (storage_name_valid(name))
        return 0;
    return err_set(e, ERR_USAGE, "%.80s is no name of an object", name);
}

int storage_begin(struct storage *s, const char *name, struct storage_upload **out, struct err *e)
{
    if (check_name(name, e) != 0)
        return -1;
    if (s->ops->begin(s, name, out, e) != 0)
        return err_add(e, "object %s", name);
    return 0;
}

int storage_write(struct storage_upload *u, const void *data, size_t count, struct err *e)
{
    return u->storage->ops->write(u, data, count, e);
}

int storage_publish(struct storage_upload *u, struct err *e)
{
    return u->storage->ops->publish(u, e);
}

void storage_drop(struct storage_upload *u)
{
    if (u != NULL)
        u->storage->ops->drop(u);
}

int storage_put(struct storage *s, const char *name, const void *data, size_t count, struct err *e)
{
    struct storage_upload *u;

    if (storage_begin(s, name, &u, e) != 0)
        return -1;
    if (storage_write(u, data, count, e) != 0) {
        storage_drop(u);
        return err_add(e, "object %s", name);
    }
    return storage_publish(u, e);
}

int storage_read(struct storage *s, const char *name, uint64_t offset_bytes, void *out,
                 size_t count, struct err *e)
{
    if (check_name(name, e) != 0)
        return -1;
    if (s->ops->read(s, name, offset_bytes, out, count, e) != 0)
        return err_add(e, "object %s", name);
    return 0;
}

int storage_size(struct storage *s, const char *name, uint64_t *out_bytes, struct err *e)
{
    if (check_name(name, e) != 0)
        return -1;
    if (s->ops->size(s, name, out_bytes, e) != 0)
        return err_add(e, "object %s", name);
    return 0;
}

int storage_load(struct storage *s, const char *name, struct bytes *out, size_t most, struct err *e)
{
    uint64_t size;
    uint8_t *to;

    if (storage_size(s, name, &size, e) != 0)
        return -1;
    if (size > most)
        return err_set(e, ERR_LIMIT, "object %s: it has %" PRIu64 " bytes, at most %zu are allowed",
                       name, size, most);
    if (out->ceiling < out->count + (size_t)size)
        out->ceiling = out->count + (size_t)size;
    to = bytes_reserve(out, (size_t)size, e);
    if (to == NULL)
        return err_add(e, "object %s", name);
    if (storage_read(s, name, 0, to, (size_t)size, e) != 0)
        return -1;
    out->count += (size_t)size;
    return 0;
}

int storage_list(struct storage *s, const char *prefix, struct storage_list **out, struct err *e)
{
    if (!storage_prefix_valid(prefix))
        return err_set(e, ERR_USAGE, "%.80s is no prefix of objects", prefix);
    if (s->ops->list(s, prefix, out, e) != 0)
        return err_add(e, "listing %s%s", s->label, prefix);
    return 0;
}

int storage_next(struct storage_list *l, struct storage_item *out, struct err *e)
{
    return l->storage->ops->next(l, out, e);
}

void storage_list_end(struct storage_list *l)
{
    if (l != NULL)
        l->storage->ops->end(l);
}

int storage_remove(struct storage *s, const char *name, struct err *e)
{
    if (check_name(name, e) != 0)
        return -1;
    if (s->ops->remove(s, name, e) != 0)
        return err_add(e, "removing object %s", name);
    return 0;
}

int storage_adopt(struct storage *s, const char *name, struct err *e)
{
    if (check_name(name, e) != 0)
        return -1;
    if (s->ops->adopt == NULL)
        return 0;
    return s->ops->adopt(s, name, e) == 0 ? 0 : err_add(e, "object %s", name);
}

int storage_barrier(struct storage *s, struct err *e)
{
    if (s->ops->barrier(s, e) != 0)
        return err_add(e, "%s", s->label);
    return 0;
}

int storage_lock_take(struct storage *s, const char *name, enum lock_kind kind, uint64_t wait_ms,
                      const atomic_bool *stop, struct storage_lock **out, struct err *e)
{
    if (check_name(name, e) != 0)
        return -1;
    if (s->ops->lock(s, name, kind, wait_ms, stop, out, e) != 0)
        return err_add(e, "%s", s->label);
    return 0;
}

int storage_lock_proof(struct storage_lock *l, struct err *e)
{
    return l->storage->ops->proof(l, e);
}

void storage_lock_release(struct storage_lock *l)
{
    if (l != NULL)
        l->storage->ops->unlock(l);
}

int storage_room(struct storage *s, uint64_t *out_bytes, struct err *e)
{
    return s->ops->room(s, out_bytes, e);
}

int storage_sweep(struct storage *s, struct err *e)
{
    if (s->ops->sweep(s, e) != 0)
        return err_add(e, "%s", s->label);
    return 0;
}

void storage_close(struct storage *s)
{
    if (s != NULL)
        s->ops->close(s);
}
