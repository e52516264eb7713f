#include "tests/unit/repo/verify.h"

#include <stdlib.h>
#include <string.h>

#include "receiver/repo/generation.h"
#include "receiver/repo/repo_private.h"
#include "tests/unit/cmocka_all.h"

struct faults {
    unsigned count;
    struct err *first;
};

static void note(struct faults *f, const struct err *e)
{
    if (f->count++ == 0)
        *f->first = *e;
}

static void note_unless(struct faults *f, int rc, const struct err *e)
{
    if (rc != 0)
        note(f, e);
}

/* --- a pack against its index object --- */

struct pack_check {
    const struct pack_index *index;
    uint32_t found;
};

static int check_entry(void *context, const struct entry_header *h, uint32_t offset, struct err *e)
{
    struct pack_check *c = context;

    c->found++;
    for (uint32_t i = 0; i < c->index->count; i++) {
        const struct index_entry *n = &c->index->entries[i];

        if (n->offset == offset && index_entry_type(n) == h->type &&
            memcmp(&n->id, &h->id, sizeof h->id) == 0 &&
            (n->payload_codec & 0xffffff) == h->payload_bytes &&
            n->payload_codec >> 24 == h->codec && (n->plain_type & 0xffffff) == h->plain_bytes)
            return 0;
    }
    return err_set(e, ERR_CORRUPT, "the index does not say what is at byte %u", offset);
}

static void check_pack(struct faults *f, struct repo *r, const struct repo_key *key)
{
    struct pack_index index;
    struct pack_check c = { .index = &index };
    struct pack_walk walk = { .read_data = true, .entry = check_entry, .context = &c };
    uint64_t size = 0;
    struct err e;

    if (pack_index_get(r->storage, r->vault, key, &index, &e) != 0) {
        note(f, &e);
        return;
    }
    if (pack_walk(r->storage, r->vault, key, &walk, &size, &e) != 0) {
        note(f, &e);
    } else if (c.found != index.count || size != index.size_bytes) {
        err_set(&e, ERR_CORRUPT, "index and pack differ");
        note(f, &e);
    }
    pack_index_free(&index);
}

static void check_object(struct faults *f, struct repo *r, const char *name)
{
    struct partial p;
    struct repo_key key;
    uint64_t number;
    uint32_t disk, sequence;
    struct err e;

    if (name_is_pack(name, &key) || name_is_index(name, &key)) {
        check_pack(f, r, &key);
    } else if (name_is_partial(name, &key, &number, &disk, &sequence)) {
        int rc = partial_get(r, name, &p, &e);

        note_unless(f, rc, &e);
        if (rc == 0)
            partial_free(&p);
    }
}

static void check_generations(struct faults *f, struct repo *r, const struct expected *x)
{
    struct repo_generation_name *names;
    size_t count;
    struct err e;

    if (repo_generation_names(r, &names, &count, &e) != 0) {
        note(f, &e);
        return;
    }
    if (count != x->count) {
        err_set(&e, ERR_CORRUPT, "%zu generations", count);
        note(f, &e);
    }
    for (size_t i = 0; i < count; i++) {
        const struct disk *d = names[i].number <= x->count ? x->disks[names[i].number] : NULL;
        int has;

        assert_non_null(d);
        has = generation_has(r, &names[i].vm, names[i].number, d->slot, d, &e);
        if (has == 0)
            fail_msg("generation %d came out wrong without an error", (int)names[i].number);
        note_unless(f, has == 1 ? 0 : -1, &e);
    }
    free(names);
}

unsigned count_faults(struct storage *s, const char *passphrase, const struct expected *x,
                      struct host *h, struct err *first)
{
    struct faults f = { .first = first };
    struct storage_list *list;
    struct storage_item item;
    struct repo *r;
    struct err e;

    h->warnings[0] = 0;
    if (open_repo(s, passphrase, NULL, REPO_SHARED, h, &r, &e) != 0) {
        note(&f, &e);
        return f.count;
    }
    if (h->warnings[0] != 0) {
        err_set(&e, ERR_CORRUPT, "%.400s", h->warnings);
        note(&f, &e);
    }
    check_generations(&f, r, x);
    assert_ok(storage_list(s, "", &list, &e), &e);
    while (storage_next(list, &item, &e) > 0)
        check_object(&f, r, item.name);
    storage_list_end(list);
    repo_close(r);
    return f.count;
}
