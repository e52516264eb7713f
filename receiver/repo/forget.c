/* Generations: forgetting, pins, tags. */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/failpoint.h"
#include "receiver/repo/document.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/generation.h"
#include "receiver/repo/repo_care.h"
#include "receiver/repo/repo_private.h"

enum { TAG_HASH_BYTES = 8 };

/* 1, 0, -1. */
static int has_object(struct repo *r, const char *name, struct err *e)
{
    uint64_t size;

    if (storage_size(r->storage, name, &size, e) == 0)
        return 1;
    return e->code == ERR_NOT_FOUND ? 0 : -1;
}

static int check_changeable(const struct repo *r, struct err *e)
{
    if (r->read_only)
        return err_set(e, ERR_REFUSED, "the repository was opened for reading only");
    return 0;
}

static int check_there(struct repo *r, const struct repo_key *vm, uint64_t number, struct err *e)
{
    object_name name;
    int has;

    name_of_generation(name, "generations", vm, number);
    has = has_object(r, name, e);
    if (has == 0)
        err_set(e, ERR_NOT_FOUND, "there is no generation %" PRIu64, number);
    return has > 0 ? 0 : -1;
}

/* Publish a small document that may be there already. */
static int put_once(struct repo *r, enum document_type type, const char *name,
                    const struct bytes *body, struct err *e)
{
    if (document_put(r->storage, r->vault, type, name, body, e) != 0 &&
        !(e->code == ERR_REFUSED && e->os == EEXIST))
        return -1;
    return storage_barrier(r->storage, e);
}

int repo_forget_begin(struct repo *r, struct err *e)
{
    if (check_changeable(r, e) != 0)
        return -1;
    if (storage_lock_take(r->storage, NAME_FORGET_LOCK, LOCK_EXCLUSIVE, r->env.lock_wait_ms,
                          r->env.stop, &r->forget_lock, e) != 0)
        return e->code == ERR_BUSY ? err_add(e, "somebody else forgets generations") : -1;
    return 0;
}

int repo_forget(struct repo *r, const struct repo_key *vm, uint64_t number, struct err *e)
{
    struct bytes nothing = { 0 };
    uint64_t given, there;
    object_name name;
    int pinned;

    if (check_changeable(r, e) != 0 || check_there(r, vm, number, e) != 0)
        return -1;
    if (r->config.append_only != 0)
        return err_set(e, ERR_REFUSED, "the repository is append-only: nothing is forgotten");
    pinned = repo_is_pinned(r, vm, number, e);
    if (pinned != 0)
        return pinned < 0 ? -1
                          : err_set(e, ERR_REFUSED, "generation %" PRIu64 " is pinned", number);
    if (generation_newest(r, vm, &given, &there, e) != 0)
        return -1;
    name_of_generation(name, "retired", vm, number);
    /* The number must outlive the manifest, or it would be given again. */
    if (number == given && (put_once(r, DOCUMENT_RETIRED, name, &nothing, e) != 0 ||
                            failpoint("repo.retired", e) != 0))
        return -1;
    name_of_generation(name, "generations", vm, number);
    if (storage_lock_proof(r->lock, e) != 0 || failpoint("repo.forget", e) != 0 ||
        storage_remove(r->storage, name, e) != 0 || failpoint("repo.manifest-removed", e) != 0 ||
        storage_barrier(r->storage, e) != 0)
        return -1;
    return failpoint("repo.forgotten", e);
}

int repo_pin(struct repo *r, const struct repo_key *vm, uint64_t number, bool pinned, struct err *e)
{
    struct bytes nothing = { 0 };
    object_name name;

    name_of_generation(name, "pins", vm, number);
    if (check_changeable(r, e) != 0)
        return -1;
    if (pinned)
        return check_there(r, vm, number, e) != 0 ? -1
                                                  : put_once(r, DOCUMENT_PIN, name, &nothing, e);
    if (storage_remove(r->storage, name, e) != 0)
        return -1;
    return storage_barrier(r->storage, e);
}

int repo_is_pinned(struct repo *r, const struct repo_key *vm, uint64_t number, struct err *e)
{
    object_name name;

    name_of_generation(name, "pins", vm, number);
    return has_object(r, name, e);
}

/* --- tags --- */

static void name_of_tag(object_name out, const struct repo_key *vm, uint64_t number,
                        const char *tag)
{
    uint8_t hash[crypto_hash_sha256_BYTES];
    char hex[2 * TAG_HASH_BYTES + 1];

    crypto_hash_sha256(hash, (const uint8_t *)tag, strlen(tag));
    hex_of(hash, TAG_HASH_BYTES, hex);
    name_of_generation(out, "tags", vm, number);
    snprintf(out + strlen(out), sizeof hex + 1, "-%s", hex);
}

int repo_tag_add(struct repo *r, const struct repo_key *vm, uint64_t number, const char *tag,
                 struct err *e)
{
    struct bytes body = { .ceiling = REPO_TEXT_MAX + 2 };
    char *text = strdup(tag);
    object_name name;
    struct fields f;
    int rc = -1;

    if (text == NULL)
        return err_sys(e, "getting memory");
    name_of_tag(name, vm, number, tag);
    fields_write(&f, &body, e);
    field_text(&f, &text);
    if (check_changeable(r, e) == 0 && check_there(r, vm, number, e) == 0 && fields_done(&f) == 0)
        rc = put_once(r, DOCUMENT_TAG, name, &body, e);
    bytes_free(&body);
    free(text);
    return rc;
}

int repo_tag_remove(struct repo *r, const struct repo_key *vm, uint64_t number, const char *tag,
                    struct err *e)
{
    object_name name;

    name_of_tag(name, vm, number, tag);
    if (check_changeable(r, e) != 0 || storage_remove(r->storage, name, e) != 0)
        return -1;
    return storage_barrier(r->storage, e);
}

static int give_tag(struct repo *r, const char *name,
                    int (*each)(void *context, const char *tag, struct err *e), void *context,
                    struct err *e)
{
    struct bytes body = { 0 };
    char *text = NULL;
    struct fields f;
    int rc = document_get(r->storage, r->vault, DOCUMENT_TAG, name, &body, e);

    if (rc == 0) {
        fields_read(&f, body.data, body.count, e);
        field_text(&f, &text);
        rc = fields_done(&f) != 0 ? err_add(e, "object %s", name) : each(context, text, e);
    }
    free(text);
    bytes_free(&body);
    return rc;
}

int repo_tags(struct repo *r, const struct repo_key *vm, uint64_t number,
              int (*each)(void *context, const char *tag, struct err *e), void *context,
              struct err *e)
{
    struct storage_list *list;
    struct storage_item item;
    object_name prefix;
    int more;

    name_of_generation(prefix, "tags", vm, number);
    strcat(prefix, "-");
    if (storage_list(r->storage, prefix, &list, e) != 0)
        return -1;
    while ((more = storage_next(list, &item, e)) > 0)
        if (give_tag(r, item.name, each, context, e) != 0) {
            more = -1;
            break;
        }
    storage_list_end(list);
    return more;
}
