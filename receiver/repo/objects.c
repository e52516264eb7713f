/* Every object by its name: is it what the name says, and is the name one of ours (FORMAT.md 1)? */
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/repo/document.h"
#include "receiver/repo/repo_care.h"
#include "receiver/repo/repo_private.h"

/* Of the small objects; packs, their indexes and manifests are looked at with what is in them. */
static const struct kind {
    const char *prefix;
    enum document_type type;
} kinds[] = {
    { "keys/", DOCUMENT_SLOT },       { "partial/", DOCUMENT_PARTIAL },
    { "retired/", DOCUMENT_RETIRED }, { "pins/", DOCUMENT_PIN },
    { "tags/", DOCUMENT_TAG },        { "epoch/", DOCUMENT_EPOCH },
    { "damaged/", DOCUMENT_DAMAGED }, { "verified/", DOCUMENT_VERIFIED },
};

static const struct kind *kind_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++)
        if (strncmp(name, kinds[i].prefix, strlen(kinds[i].prefix)) == 0)
            return &kinds[i];
    return NULL;
}

static bool is_other(const char *name)
{
    struct repo_key key;
    uint64_t number;

    return strcmp(name, NAME_CONFIG) == 0 || strcmp(name, NAME_RESERVE) == 0 ||
           name_is_pack(name, &key) || name_is_index(name, &key) ||
           name_is_generation(name, "generations", &key, &number);
}

/* 0 when all is well with it, -1 with what is not; *ours tells whether the name is one of ours. */
static int look_at(struct repo *r, const char *name, bool *ours, struct err *e)
{
    const struct kind *k = kind_of(name);
    struct bytes body = { 0 };
    int rc;

    *ours = k != NULL || is_other(name);
    if (k == NULL)
        return *ours ? 0 : err_set(e, ERR_UNSUPPORTED, "it is no object of a repository");
    rc = document_get(r->storage, r->vault, k->type, name, &body, e);
    bytes_free(&body);
    /* Removed since it was listed. */
    return rc != 0 && e->code == ERR_NOT_FOUND ? repo_still_there(r, e) : rc;
}

int repo_objects_check(struct repo *r,
                       int (*found)(void *context, const char *name, bool ours,
                                    const struct err *why, struct err *e),
                       void *context, struct err *e)
{
    struct storage_list *list;
    struct storage_item item;
    int more;

    if (storage_list(r->storage, "", &list, e) != 0)
        return -1;
    while ((more = storage_next(list, &item, e)) > 0) {
        struct err why;
        bool ours;

        if (look_at(r, item.name, &ours, &why) == 0)
            continue;
        if (found(context, item.name, ours, &why, e) != 0) {
            more = -1;
            break;
        }
    }
    storage_list_end(list);
    return more;
}
