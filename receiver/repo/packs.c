/* Looking after packs: lists, checks, copies, indexes made anew, removal. */
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/failpoint.h"
#include "receiver/repo/document.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/repo_care.h"
#include "receiver/repo/repo_private.h"

/* --- lists --- */

static int compare_packs(const void *a, const void *b)
{
    const struct repo_pack *x = a, *y = b;
    int order = memcmp(x->key.b, y->key.b, sizeof x->key.b);

    return order != 0 ? order : (int)y->stored - (int)x->stored;
}

static int list_kind(struct repo *r, const char *prefix, struct bytes *out, struct err *e)
{
    struct storage_list *list;
    struct storage_item item;
    int more;

    if (storage_list(r->storage, prefix, &list, e) != 0)
        return -1;
    while ((more = storage_next(list, &item, e)) > 0) {
        struct repo_pack p = { .indexed = false };

        p.stored = name_is_pack(item.name, &p.key);
        p.indexed = !p.stored && name_is_index(item.name, &p.key);
        p.size_bytes = p.stored ? item.size_bytes : 0;
        if ((p.stored || p.indexed) && bytes_append(out, &p, sizeof p, e) != 0) {
            more = -1;
            break;
        }
    }
    storage_list_end(list);
    return more;
}

int repo_packs(struct repo *r, struct repo_pack **out, size_t *count, struct err *e)
{
    struct bytes list = { .ceiling = (size_t)STORAGE_LIST_MAX * 2 * sizeof(struct repo_pack) };
    struct repo_pack *all;
    size_t n, kept = 0;

    /* A pack comes before its index: in this order every index that is found has its pack in the
     * list, also of a backup that is at work. */
    if (list_kind(r, "index/", &list, e) != 0 || failpoint("repo.index-listed", e) != 0 ||
        list_kind(r, "packs/", &list, e) != 0) {
        bytes_free(&list);
        return -1;
    }
    all = (struct repo_pack *)(void *)list.data;
    n = list.count / sizeof all[0];
    if (n > 1)
        qsort(all, n, sizeof all[0], compare_packs);
    /* The pack stands before its index. */
    for (size_t i = 0; i < n; i++)
        if (kept > 0 && memcmp(all[kept - 1].key.b, all[i].key.b, sizeof all[i].key.b) == 0)
            all[kept - 1].indexed = true;
        else
            all[kept++] = all[i];
    *out = all;
    *count = kept;
    return 0;
}

static struct repo_entry entry_of(const struct index_entry *n)
{
    return (struct repo_entry){ .type = (enum repo_entry_type)index_entry_type(n),
                                .id = n->id,
                                .offset = n->offset,
                                .stored_bytes = ENTRY_HEADER_BYTES + (n->payload_codec & 0xffffff),
                                .plain_bytes = n->plain_type & 0xffffff };
}

static struct repo_entry entry_of_header(const struct entry_header *h, uint32_t offset)
{
    return (struct repo_entry){ .type = (enum repo_entry_type)h->type,
                                .id = h->id,
                                .offset = offset,
                                .stored_bytes = ENTRY_HEADER_BYTES + h->payload_bytes,
                                .plain_bytes = h->plain_bytes };
}

int repo_pack_entries(struct repo *r, const struct repo_key *pack,
                      int (*each)(void *context, const struct repo_entry *entry, struct err *e),
                      void *context, struct err *e)
{
    struct pack_index x;
    int rc = 0;

    if (pack_index_get(r->storage, r->vault, pack, &x, e) != 0)
        return -1;
    for (uint32_t i = 0; i < x.count && rc == 0; i++) {
        struct repo_entry entry = entry_of(&x.entries[i]);

        rc = each(context, &entry, e);
    }
    pack_index_free(&x);
    return rc;
}

/* --- checking --- */

struct checker {
    struct pack_index index;
    uint32_t found;
    uint64_t damaged_count;
    struct err first;
    int (*damaged)(void *context, const struct repo_entry *entry, struct err *e);
    void *context;
};

static struct index_entry index_entry_of(const struct entry_header *h, uint32_t offset)
{
    return (struct index_entry){ .id = h->id,
                                 .offset = offset,
                                 .payload_codec = h->payload_bytes | (uint32_t)h->codec << 24,
                                 .plain_type = h->plain_bytes | (uint32_t)h->type << 24 };
}

static int compare_entries(const void *a, const void *b)
{
    return index_entry_compare(a, b);
}

/* The entry must be in the index, as it is. */
static int check_entry(void *context, const struct entry_header *h, uint32_t offset, struct err *e)
{
    struct checker *c = context;
    struct index_entry want = index_entry_of(h, offset);
    struct index_entry *n = NULL, *end = c->index.entries + c->index.count;

    if (c->index.count > 0)
        n = bsearch(&want, c->index.entries, c->index.count, sizeof want, compare_entries);
    /* One id may be there twice. */
    while (n != NULL && n > c->index.entries && compare_entries(n - 1, &want) == 0)
        n--;
    for (; n != NULL && n < end && compare_entries(n, &want) == 0; n++)
        if (n->offset == offset && n->payload_codec == want.payload_codec &&
            n->plain_type == want.plain_type) {
            c->found++;
            return 0;
        }
    return err_set(e, ERR_CORRUPT, "its index does not know the entry at byte %" PRIu32, offset);
}

static int note_damage(void *context, const struct entry_header *h, uint32_t offset, struct err *e)
{
    struct checker *c = context;
    struct repo_entry entry = entry_of_header(h, offset);

    if (c->damaged_count++ == 0)
        c->first = *e;
    return c->damaged != NULL ? c->damaged(c->context, &entry, e) : 0;
}

int repo_pack_check(struct repo *r, const struct repo_key *pack, bool read_data,
                    int (*damaged)(void *context, const struct repo_entry *entry, struct err *e),
                    void *context, struct err *e)
{
    struct checker c = { .damaged = damaged, .context = context };
    struct pack_walk walk = {
        .read_data = read_data, .entry = check_entry, .damaged = note_damage, .context = &c
    };
    uint64_t size = 0;
    int rc;

    if (pack_index_get(r->storage, r->vault, pack, &c.index, e) != 0)
        return -1;
    rc = pack_walk(r->storage, r->vault, pack, &walk, &size, e);
    if (rc == 0 && (c.found != c.index.count || size != c.index.size_bytes)) {
        char hex[REPO_KEY_HEX_BYTES];

        repo_key_hex(pack, hex);
        rc = err_set(e, ERR_CORRUPT, "pack %s: its index lists what is not in it", hex);
    }
    if (rc == 0 && c.damaged_count > 0) {
        *e = c.first;
        rc = -1;
    }
    pack_index_free(&c.index);
    return rc;
}

/* --- an index made anew --- */

struct collector {
    struct bytes entries;
};

static int collect_entry(void *context, const struct entry_header *h, uint32_t offset,
                         struct err *e)
{
    struct collector *c = context;
    struct index_entry n = index_entry_of(h, offset);

    return bytes_append(&c->entries, &n, sizeof n, e);
}

static int check_exclusive(struct repo *r, struct err *e)
{
    if (r->read_only || !r->exclusive)
        return err_set(e, ERR_REFUSED, "the repository was not opened for this alone");
    return storage_lock_proof(r->lock, e);
}

/* Every cache is void from here on. */
static int next_epoch(struct repo *r, struct err *e)
{
    struct bytes nothing = { 0 };
    object_name name, before;

    name_of_epoch(name, r->epoch + 1);
    name_of_epoch(before, r->epoch);
    if (document_put(r->storage, r->vault, DOCUMENT_EPOCH, name, &nothing, e) != 0 ||
        failpoint("repo.epoch-published", e) != 0 || storage_barrier(r->storage, e) != 0 ||
        failpoint("repo.epoch-durable", e) != 0)
        return -1;
    return r->epoch++ > 0 ? storage_remove(r->storage, before, e) : 0;
}

int repo_pack_index(struct repo *r, const struct repo_key *pack, struct err *e)
{
    struct collector c = { .entries = { .ceiling = (size_t)PACK_ENTRIES_MAX *
                                                   sizeof(struct index_entry) } };
    struct pack_walk walk = { .entry = collect_entry, .context = &c };
    uint8_t header[PACK_HEADER_BYTES];
    struct pack_index x = { .pack = *pack };
    object_name pack_name, name;
    int rc = -1;

    name_of_pack(pack_name, pack);
    name_of_index(name, pack);
    if (check_exclusive(r, e) != 0 ||
        pack_walk(r->storage, r->vault, pack, &walk, &x.size_bytes, e) != 0 ||
        storage_read(r->storage, pack_name, 0, header, sizeof header, e) != 0 ||
        pack_header_decode(header, vault_repository(r->vault), pack, &x.kind, e) != 0)
        goto out;
    x.entries = (struct index_entry *)(void *)c.entries.data;
    x.count = (uint32_t)(c.entries.count / sizeof x.entries[0]);
    r->poisoned = true;
    /* Between the two there is a pack without index: nothing wrong is offered at any moment. */
    if (next_epoch(r, e) != 0 || storage_remove(r->storage, name, e) != 0 ||
        storage_barrier(r->storage, e) != 0 || failpoint("repo.index-dropped", e) != 0 ||
        pack_index_put(r->storage, r->vault, &x, e) != 0 || failpoint("repo.index-remade", e) != 0)
        goto out;
    rc = storage_barrier(r->storage, e);

out:
    bytes_free(&c.entries);
    return rc;
}

/* --- copies --- */

struct copier {
    struct repo *r;
    const struct repo_key *pack;
    int (*wanted)(void *context, const struct repo_entry *entry, struct err *e);
    void *context;
};

static int copy_entry(void *context, const struct repo_entry *entry, struct err *e)
{
    struct copier *c = context;
    int answer = c->wanted(c->context, entry, e);

    if (answer <= 0)
        return answer;
    return repo_put_copy(c->r, c->pack, entry->offset, entry->stored_bytes, e);
}

int repo_pack_copy(struct repo *r, const struct repo_key *pack,
                   int (*wanted)(void *context, const struct repo_entry *entry, struct err *e),
                   void *context, struct err *e)
{
    struct copier c = { .r = r, .pack = pack, .wanted = wanted, .context = context };

    return repo_pack_entries(r, pack, copy_entry, &c, e) != 0 ? -1 : failpoint("repo.copied", e);
}

int repo_flush_packs(struct repo *r, struct err *e)
{
    return repo_flush(r, e);
}

/* --- removal --- */

int repo_packs_remove(struct repo *r, const struct repo_key *packs, size_t count, struct err *e)
{
    object_name name;

    if (check_exclusive(r, e) != 0)
        return -1;
    if (r->config.append_only != 0)
        return err_set(e, ERR_REFUSED, "the repository is append-only: nothing is removed");
    if (count == 0)
        return 0;
    /* From here on the index in memory offers what goes. */
    r->poisoned = true;
    if (next_epoch(r, e) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        name_of_index(name, &packs[i]);
        if (storage_remove(r->storage, name, e) != 0 || failpoint("repo.index-removed", e) != 0)
            return -1;
    }
    /* Retracted everywhere, durably: only then anything is deleted. */
    if (storage_barrier(r->storage, e) != 0 || failpoint("repo.retracted", e) != 0 ||
        storage_lock_proof(r->lock, e) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        name_of_pack(name, &packs[i]);
        if (storage_remove(r->storage, name, e) != 0 || failpoint("repo.pack-removed", e) != 0)
            return -1;
    }
    return storage_barrier(r->storage, e) != 0 ? -1 : failpoint("repo.collected", e);
}

bool repo_entry_damaged(struct repo *r, const struct repo_key *pack, const struct repo_entry *entry)
{
    return index_is_damaged(r->index, pack, entry->offset);
}

int repo_note_damaged(struct repo *r, const struct repo_damaged *damaged, size_t count,
                      struct err *e)
{
    struct bytes body = { .ceiling = document_body_max(DOCUMENT_DAMAGED) };
    uint32_t n = (uint32_t)count;
    struct repo_key key;
    object_name name;
    struct fields f;
    int rc;

    if (r->read_only || count > REPO_DAMAGED_MAX)
        return err_set(e, r->read_only ? ERR_REFUSED : ERR_LIMIT,
                       "%zu damaged entries cannot be noted", count);
    fields_write(&f, &body, e);
    field_u32(&f, &n, 0, REPO_DAMAGED_MAX);
    for (size_t i = 0; i < count; i++) {
        struct repo_damaged d = damaged[i];
        uint8_t type = (uint8_t)d.entry.type;

        field_raw(&f, d.pack.b, sizeof d.pack.b);
        field_u32(&f, &d.entry.offset, 0, UINT32_MAX);
        field_u8(&f, &type, REPO_BLOCK, REPO_NODE);
        field_raw(&f, d.entry.id.b, sizeof d.entry.id.b);
    }
    randombytes_buf(key.b, sizeof key.b);
    name_of_key(name, "damaged", &key);
    rc = fields_done(&f);
    if (rc == 0)
        rc = document_put(r->storage, r->vault, DOCUMENT_DAMAGED, name, &body, e);
    bytes_free(&body);
    return rc == 0 && failpoint("repo.damage-noted", e) == 0 ? storage_barrier(r->storage, e) : -1;
}
