#include "tests/unit/repo/collect.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/cmocka_all.h"

enum { LIVE_MAX = 4096, PACKS_MAX = 256 };

struct live {
    struct {
        enum repo_entry_type type;
        struct repo_id id;
    } all[LIVE_MAX];
    size_t count;
    unsigned wanted, unwanted; /* entries of the pack that is looked at */
};

static bool is_live(const struct live *l, enum repo_entry_type type, const struct repo_id *id)
{
    for (size_t i = 0; i < l->count; i++)
        if (l->all[i].type == type && memcmp(&l->all[i].id, id, sizeof *id) == 0)
            return true;
    return false;
}

static int mark(void *context, enum repo_entry_type type, const struct repo_id *id, struct err *e)
{
    struct live *l = context;

    (void)e;
    if (is_live(l, type, id))
        return 1;
    assert_true(l->count < LIVE_MAX);
    l->all[l->count].type = type;
    l->all[l->count++].id = *id;
    return 0;
}

static int count_entry(void *context, const struct repo_entry *entry, struct err *e)
{
    struct live *l = context;

    (void)e;
    if (is_live(l, entry->type, &entry->id))
        l->wanted++;
    else
        l->unwanted++;
    return 0;
}

static int want_entry(void *context, const struct repo_entry *entry, struct err *e)
{
    (void)e;
    return is_live(context, entry->type, &entry->id);
}

/* Which packs go, after what lives in them was copied. */
static int empty_packs(struct repo *r, struct live *l, struct repo_key *gone, size_t *count,
                       struct err *e)
{
    struct repo_pack *packs;
    size_t n;
    int rc = 0;

    *count = 0;
    if (repo_packs(r, &packs, &n, e) != 0)
        return -1;
    assert_true(n <= PACKS_MAX);
    for (size_t i = 0; i < n && rc == 0; i++) {
        l->wanted = l->unwanted = 0;
        if (packs[i].indexed)
            rc = repo_pack_entries(r, &packs[i].key, count_entry, l, e);
        if (rc == 0 && l->wanted > 0 && l->unwanted > 0)
            rc = repo_pack_copy(r, &packs[i].key, want_entry, l, e);
        if (rc == 0 && (l->wanted == 0 || l->unwanted > 0))
            gone[(*count)++] = packs[i].key;
    }
    free(packs);
    return rc == 0 ? repo_flush_packs(r, e) : -1;
}

int collect(struct storage *s, struct host *h, unsigned *removed, struct err *e)
{
    struct live *l = calloc(1, sizeof *l);
    struct repo_key gone[PACKS_MAX];
    size_t count = 0;
    struct repo *r;
    int rc = -1;

    assert_non_null(l);
    if (open_repo(s, NULL, NULL, REPO_EXCLUSIVE, h, &r, e) != 0)
        goto out;
    if (repo_mark_live(r, 0, mark, l, e) == 0 && empty_packs(r, l, gone, &count, e) == 0)
        rc = repo_packs_remove(r, gone, count, e);
    repo_close(r);

out:
    *removed = (unsigned)count;
    free(l);
    return rc;
}
