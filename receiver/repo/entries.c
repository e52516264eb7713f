/*
 * Putting entries into packs and getting them out again.  One pack of each kind is open in a
 * process; a pack is published before its index object, and a barrier stands between.
 */
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/failpoint.h"
#include "receiver/repo/repo_private.h"

enum { BUFFER_BYTES = 1 << 20, ENTRIES_FIRST = 1024 };

/* What takes one entry out of storage: kept for the next one. */
struct opener {
    struct opener *next;
    struct entry_opener *entry;
    struct bytes raw;
};

/* --- openers --- */

static struct opener *take_opener(struct repo *r, struct err *e)
{
    struct opener *o;

    pthread_mutex_lock(&r->opener_lock);
    o = r->openers;
    if (o != NULL)
        r->openers = o->next;
    pthread_mutex_unlock(&r->opener_lock);
    if (o != NULL)
        return o;
    o = calloc(1, sizeof *o);
    if (o == NULL) {
        err_sys(e, "getting memory");
        return NULL;
    }
    o->raw.ceiling = ENTRY_HEADER_BYTES + ENTRY_PAYLOAD_MAX;
    if (entry_opener_new(&o->entry, e) != 0) {
        free(o);
        return NULL;
    }
    return o;
}

static void give_opener(struct repo *r, struct opener *o)
{
    pthread_mutex_lock(&r->opener_lock);
    o->next = r->openers;
    r->openers = o;
    pthread_mutex_unlock(&r->opener_lock);
}

/* --- putting --- */

static int open_pack(struct repo *r, struct open_pack *p, enum pack_kind kind, struct err *e)
{
    uint8_t header[PACK_HEADER_BYTES];
    struct repo_key key;
    object_name name;

    if (p->upload != NULL)
        return 0;
    randombytes_buf(key.b, sizeof key.b);
    name_of_pack(name, &key);
    if (index_add_pack(r->index, &key, &p->number, e) != 0 ||
        storage_begin(r->storage, name, &p->upload, e) != 0)
        return -1;
    p->entries = (struct pack_index){ .pack = key, .kind = (uint8_t)kind };
    p->entry_room = 0;
    p->offset = PACK_HEADER_BYTES;
    p->buffer.count = 0;
    p->buffer.ceiling = BUFFER_BYTES + ENTRY_HEADER_BYTES + ENTRY_PAYLOAD_MAX + PACK_HEADER_BYTES;
    pack_header_encode(vault_repository(r->vault), &key, kind, header);
    return bytes_append(&p->buffer, header, sizeof header, e);
}

static int write_buffer(struct open_pack *p, struct err *e)
{
    int rc = storage_write(p->upload, p->buffer.data, p->buffer.count, e);

    p->buffer.count = 0;
    return rc;
}

static struct index_entry *add_entry(struct open_pack *p, struct err *e)
{
    struct pack_index *x = &p->entries;

    if (x->count == p->entry_room) {
        uint32_t room = p->entry_room > 0 ? 2 * p->entry_room : ENTRIES_FIRST;
        struct index_entry *entries = realloc(x->entries, room * sizeof entries[0]);

        if (entries == NULL) {
            err_sys(e, "getting memory for the index");
            return NULL;
        }
        x->entries = entries;
        p->entry_room = room;
    }
    return &x->entries[x->count];
}

/* Write the end of an open pack and publish it; its entries wait for their index object. */
static int close_pack(struct repo *r, struct open_pack *p, struct err *e)
{
    uint8_t end[PACK_END_BYTES];
    struct storage_upload *upload = p->upload;
    struct pack_index *closed;

    if (upload == NULL)
        return 0;
    closed = realloc(r->closed, (r->closed_count + 1) * sizeof closed[0]);
    if (closed == NULL)
        return err_sys(e, "getting memory for the index");
    r->closed = closed;
    pack_end_encode(p->entries.count, p->offset, end);
    if (write_buffer(p, e) != 0 || storage_write(upload, end, sizeof end, e) != 0)
        return -1;
    p->upload = NULL;
    if (storage_publish(upload, e) != 0 || failpoint("repo.pack-published", e) != 0)
        return -1;
    p->entries.size_bytes = p->offset + sizeof end;
    for (uint32_t i = 0; i < p->entries.count; i++)
        p->entries.entries[i].pack = p->number;
    closed[r->closed_count++] = p->entries;
    p->entries = (struct pack_index){ 0 };
    return 0;
}

/* Publish the index objects of closed packs, which are made durable first. */
static int index_closed(struct repo *r, struct err *e)
{
    if (r->closed_count == 0)
        return 0;
    if (storage_barrier(r->storage, e) != 0 || failpoint("repo.packs-durable", e) != 0)
        return -1;
    for (size_t i = 0; i < r->closed_count; i++)
        if (pack_index_put(r->storage, r->vault, &r->closed[i], e) != 0 ||
            failpoint("repo.index-published", e) != 0)
            return -1;
    /* Durable too before a cache says that it is there. */
    if (storage_barrier(r->storage, e) != 0)
        return -1;
    for (size_t i = 0; i < r->closed_count; i++) {
        index_pack_done(r->index, r->closed[i].entries[0].pack);
        pack_index_free(&r->closed[i]);
    }
    r->closed_count = 0;
    return 0;
}

/* After a failure the packs of this process are not what the index in memory says. */
static int poison(struct repo *r)
{
    r->poisoned = true;
    return -1;
}

static int check_writable(const struct repo *r, struct err *e)
{
    if (r->read_only)
        return err_set(e, ERR_REFUSED, "the repository was opened for reading only");
    if (r->poisoned)
        return err_set(e, ERR_SYSTEM, "an earlier write to the repository failed");
    return 0;
}

/* Append a made entry to the open pack of its kind.  With the lock held. */
static int append(struct repo *r, const struct entry_header *h, const struct bytes *entry,
                  struct err *e)
{
    enum pack_kind kind = h->type == ENTRY_NODE ? PACK_NODES : PACK_BLOCKS;
    struct open_pack *p = &r->packs[kind - 1];
    struct index_entry *n;

    if (open_pack(r, p, kind, e) != 0)
        return -1;
    n = add_entry(p, e);
    if (n == NULL || bytes_append(&p->buffer, entry->data, entry->count, e) != 0)
        return -1;
    *n = (struct index_entry){ .id = h->id,
                               .pack = p->number,
                               .offset = (uint32_t)p->offset,
                               .payload_codec = (uint32_t)(entry->count - ENTRY_HEADER_BYTES) |
                                                (uint32_t)h->codec << 24,
                               .plain_type = h->plain_bytes | (uint32_t)h->type << 24 };
    if (index_add(r->index, n, e) != 0)
        return -1;
    p->entries.count++;
    p->offset += entry->count;
    if (p->buffer.count >= BUFFER_BYTES && write_buffer(p, e) != 0)
        return -1;
    if (p->offset < PACK_BYTES && p->entries.count < OPEN_PACK_ENTRIES)
        return 0;
    return close_pack(r, p, e) != 0 ? -1 : index_closed(r, e);
}

int repo_put(struct repo *r, enum entry_type type, const struct repo_id *id, enum entry_codec codec,
             const void *coded, size_t coded_bytes, size_t plain_bytes, struct put_result *out,
             struct err *e)
{
    struct entry_header h = { .type = (uint8_t)type,
                              .codec = (uint8_t)codec,
                              .id = *id,
                              .plain_bytes = (uint32_t)plain_bytes };
    struct bytes entry = { 0 };
    int has = repo_has(r, type, id, e);
    int rc = -1;

    *out = (struct put_result){ .is_new = false };
    if (has != 0)
        return has > 0 ? 0 : -1;
    if (entry_encode(r->vault, &h, coded, coded_bytes, &entry, e) != 0)
        goto out;
    pthread_mutex_lock(&r->write_lock);
    rc = check_writable(r, e);
    /* Another thread may have put it meanwhile. */
    has = rc == 0 ? repo_has(r, type, id, e) : 0;
    if (has < 0)
        rc = -1;
    if (rc == 0 && has == 0) {
        rc = append(r, &h, &entry, e);
        if (rc != 0)
            poison(r);
        out->is_new = true;
        out->stored_bytes = entry.count;
    }
    pthread_mutex_unlock(&r->write_lock);

out:
    bytes_free(&entry);
    return rc;
}

/* The bytes of an entry, proved; *out and what it points to belong to the opener. */
static int load_copy(struct repo *r, struct opener *o, const struct repo_key *pack, uint32_t offset,
                     uint32_t bytes, struct entry_header *h, struct err *e)
{
    object_name name;
    uint8_t *plain;
    int rc = -1;

    name_of_pack(name, pack);
    o->raw.count = 0;
    if (bytes_reserve(&o->raw, bytes, e) == NULL ||
        storage_read(r->storage, name, offset, o->raw.data, bytes, e) != 0)
        return -1;
    o->raw.count = bytes;
    plain = malloc(ENTRY_PLAIN_MAX);
    if (plain == NULL)
        return err_sys(e, "getting memory for a block");
    if (bytes < ENTRY_HEADER_BYTES)
        err_set(e, ERR_CORRUPT, "an entry cannot be so short");
    else if (entry_header_decode(o->raw.data, h, e) == 0)
        rc = h->payload_bytes == bytes - ENTRY_HEADER_BYTES
                 ? entry_decode(o->entry, r->vault, h, o->raw.data,
                                o->raw.data + ENTRY_HEADER_BYTES, plain, e)
                 : err_set(e, ERR_CORRUPT, "it is not what the index says");
    free(plain);
    return rc == 0 ? 0 : err_add(e, "object %s, byte %" PRIu32, name, offset);
}

int repo_put_copy(struct repo *r, const struct repo_key *pack, uint32_t offset, uint32_t bytes,
                  struct err *e)
{
    struct opener *o = take_opener(r, e);
    struct entry_header h;
    int rc;

    if (o == NULL)
        return -1;
    rc = load_copy(r, o, pack, offset, bytes, &h, e);
    pthread_mutex_lock(&r->write_lock);
    if (rc == 0)
        rc = check_writable(r, e);
    if (rc == 0 && append(r, &h, &o->raw, e) != 0)
        rc = poison(r);
    pthread_mutex_unlock(&r->write_lock);
    give_opener(r, o);
    return rc;
}

int repo_has(struct repo *r, enum entry_type type, const struct repo_id *id, struct err *e)
{
    struct place place;

    return index_find(r->index, type, id, &place, 1, e);
}

static int flush(struct repo *r, struct err *e)
{
    for (size_t i = 0; i < 2; i++)
        if (close_pack(r, &r->packs[i], e) != 0)
            return -1;
    if (index_closed(r, e) != 0 || storage_barrier(r->storage, e) != 0)
        return -1;
    return failpoint("repo.flushed", e);
}

int repo_flush(struct repo *r, struct err *e)
{
    int rc;

    pthread_mutex_lock(&r->write_lock);
    rc = check_writable(r, e);
    if (rc == 0 && flush(r, e) != 0)
        rc = poison(r);
    pthread_mutex_unlock(&r->write_lock);
    return rc;
}

void repo_drop_packs(struct repo *r)
{
    for (size_t i = 0; i < 2; i++) {
        storage_drop(r->packs[i].upload);
        r->packs[i].upload = NULL;
        bytes_free(&r->packs[i].buffer);
        pack_index_free(&r->packs[i].entries);
    }
    for (size_t i = 0; i < r->closed_count; i++)
        pack_index_free(&r->closed[i]);
    free(r->closed);
    r->closed = NULL;
    r->closed_count = 0;
}

/* --- getting --- */

void repo_free_openers(struct repo *r)
{
    while (r->openers != NULL) {
        struct opener *o = r->openers;

        r->openers = o->next;
        entry_opener_free(o->entry);
        bytes_free(&o->raw);
        free(o);
    }
}

/* The entry at one place must be what the index says. */
static int get_at(struct repo *r, struct opener *o, const struct place *place,
                  const struct repo_id *id, uint8_t *out, struct err *e)
{
    size_t whole = ENTRY_HEADER_BYTES + (size_t)place->payload_bytes;
    struct entry_header h;
    object_name name;

    name_of_pack(name, &place->pack);
    o->raw.count = 0;
    if (bytes_reserve(&o->raw, whole, e) == NULL ||
        storage_read(r->storage, name, place->offset, o->raw.data, whole, e) != 0)
        return -1;
    if (entry_header_decode(o->raw.data, &h, e) != 0)
        goto bad;
    if (h.type != place->type || h.codec != place->codec || h.plain_bytes != place->plain_bytes ||
        h.payload_bytes != place->payload_bytes || memcmp(h.id.b, id->b, sizeof id->b) != 0) {
        err_set(e, ERR_CORRUPT, "it is not what the index says");
        goto bad;
    }
    if (entry_decode(o->entry, r->vault, &h, o->raw.data, o->raw.data + ENTRY_HEADER_BYTES, out,
                     e) == 0)
        return 0;

bad:
    return err_add(e, "object %s, byte %" PRIu32, name, place->offset);
}

int repo_get(struct repo *r, enum entry_type type, const struct repo_id *id, uint8_t *out,
             size_t room, size_t *count, struct err *e)
{
    struct place places[INDEX_PLACES_MAX];
    char hex[REPO_ID_HEX_BYTES];
    struct opener *o;
    int found = index_find_named(r->index, type, id, places, INDEX_PLACES_MAX, e);
    int rc = -1;

    if (found < 0)
        return -1;
    repo_id_hex(id, hex);
    if (found == 0)
        return err_set(e, ERR_CORRUPT, "%s %s is missing: no pack has it",
                       type == ENTRY_NODE ? "node" : "block", hex);
    o = take_opener(r, e);
    if (o == NULL)
        return -1;
    for (int i = 0; i < found && rc != 0; i++) {
        if (places[i].plain_bytes > room)
            err_set(e, ERR_CORRUPT, "%s is longer than it can be", hex);
        else
            rc = get_at(r, o, &places[i], id, out, e);
        if (rc == 0)
            *count = places[i].plain_bytes;
    }
    give_opener(r, o);
    /* The index offers it and the pack is gone: that is damage, not a wrong name. */
    if (rc != 0 && e->code == ERR_NOT_FOUND)
        e->code = ERR_CORRUPT;
    return rc;
}
