/* Small objects that nothing needs any more: old partials, notes of damage in packs that are gone.
 */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/repo/document.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/generation.h"
#include "receiver/repo/repo_care.h"
#include "receiver/repo/repo_private.h"

enum { NAMES_BYTES_MAX = 1 << 26, DAMAGED_BYTES = REPO_KEY_BYTES + 4 + 1 + REPO_ID_BYTES };

/* Collect first, remove then: a listing need not stand being changed. */
static int remove_all(struct repo *r, const struct bytes *names, uint64_t *removed, struct err *e)
{
    if (names->count == 0)
        return 0;
    if (storage_lock_proof(r->lock, e) != 0)
        return -1;
    for (size_t at = 0; at < names->count; at += STORAGE_NAME_ROOM) {
        if (storage_remove(r->storage, (const char *)names->data + at, e) != 0)
            return -1;
        ++*removed;
    }
    return storage_barrier(r->storage, e);
}

/* Call `old` for every object below prefix; those that it says 1 to go. */
static int remove_old(struct repo *r, const char *prefix,
                      int (*old)(struct repo *r, const char *name, void *context, struct err *e),
                      void *context, uint64_t *removed, struct err *e)
{
    struct bytes names = { .ceiling = NAMES_BYTES_MAX };
    struct storage_list *list;
    struct storage_item item;
    int more, rc = -1;

    *removed = 0;
    if (r->read_only || !r->exclusive)
        return err_set(e, ERR_REFUSED, "the repository was not opened for this alone");
    if (storage_list(r->storage, prefix, &list, e) != 0)
        return -1;
    while ((more = storage_next(list, &item, e)) > 0) {
        int answer = old(r, item.name, context, e);

        if (answer < 0 ||
            (answer > 0 && bytes_append(&names, item.name, sizeof item.name, e) != 0)) {
            more = -1;
            break;
        }
    }
    storage_list_end(list);
    if (more == 0)
        rc = remove_all(r, &names, removed, e);
    bytes_free(&names);
    return rc;
}

/* --- partials --- */

static int is_old_partial(struct repo *r, const char *name, void *context, struct err *e)
{
    const uint64_t *since = context;
    struct partial p = { 0 };
    struct repo_key vm;
    uint32_t disk, sequence;
    uint64_t session;
    int old;

    if (!name_is_partial(name, &vm, &session, &disk, &sequence))
        return 0;
    if (partial_get(r, name, &p, e) != 0)
        return -1;
    old = p.time < *since;
    partial_free(&p);
    return old;
}

int repo_partials_drop(struct repo *r, uint64_t since, uint64_t *removed, struct err *e)
{
    return remove_old(r, "partial/", is_old_partial, &since, removed, e);
}

/* --- notes of damage --- */

static int has_object(struct repo *r, const char *name, struct err *e)
{
    uint64_t size;

    if (storage_size(r->storage, name, &size, e) == 0)
        return 1;
    return e->code == ERR_NOT_FOUND ? 0 : -1;
}

/* Is any pack that the note speaks of still there? */
static int concerns_packs(struct repo *r, const struct bytes *body, struct err *e)
{
    struct fields f;
    uint32_t count = 0;
    int has = 0;

    fields_read(&f, body->data, body->count, e);
    field_u32(&f, &count, 0, REPO_DAMAGED_MAX);
    for (uint32_t i = 0; i < count && has == 0; i++) {
        uint8_t entry[DAMAGED_BYTES];
        struct repo_key pack;
        object_name name;

        field_raw(&f, entry, sizeof entry);
        if (f.failed)
            return -1;
        memcpy(pack.b, entry, sizeof pack.b);
        name_of_pack(name, &pack);
        has = has_object(r, name, e);
        if (has != 0)
            break;
        name_of_index(name, &pack);
        has = has_object(r, name, e);
    }
    return f.failed ? -1 : has;
}

static int is_old_note(struct repo *r, const char *name, void *context, struct err *e)
{
    struct bytes body = { 0 };
    int rc = document_get(r->storage, r->vault, DOCUMENT_DAMAGED, name, &body, e);
    int concerns = rc == 0 ? concerns_packs(r, &body, e) : -1;

    (void)context;
    bytes_free(&body);
    if (concerns >= 0)
        return concerns == 0;
    /* One that cannot be read says nothing, but stays for whoever wants to look. */
    return e->code == ERR_CORRUPT || e->code == ERR_FORMAT || e->code == ERR_LIMIT ? 0 : -1;
}

int repo_damaged_tidy(struct repo *r, uint64_t *removed, struct err *e)
{
    return remove_old(r, "damaged/", is_old_note, NULL, removed, e);
}
