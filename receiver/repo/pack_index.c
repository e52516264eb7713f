/* The document that lists a pack's entries (FORMAT.md 6). */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/repo/document.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/names.h"
#include "receiver/repo/pack.h"
#include "receiver/repo/vault.h"

enum { INDEX_ENTRY_BYTES = 48 };

void pack_index_free(struct pack_index *x)
{
    free(x->entries);
    *x = (struct pack_index){ 0 };
}

static int compare(const void *a, const void *b)
{
    return index_entry_compare(a, b);
}

static void entry_fields(struct fields *f, struct index_entry *n)
{
    uint32_t payload = n->payload_codec & 0xffffff, plain = n->plain_type & 0xffffff, zero = 0;
    uint8_t type = (uint8_t)(n->plain_type >> 24), codec = (uint8_t)(n->payload_codec >> 24);

    field_raw(f, n->id.b, sizeof n->id.b);
    field_u32(f, &n->offset, PACK_HEADER_BYTES, PACK_BYTES_MAX);
    field_u32(f, &payload, 1, ENTRY_PAYLOAD_MAX);
    field_u32(f, &plain, 1, ENTRY_PLAIN_MAX);
    field_u8(f, &type, ENTRY_BLOCK, ENTRY_NODE);
    field_u8(f, &codec, CODEC_RAW, CODEC_ZSTD);
    field_raw(f, &zero, 2);
    if (!f->failed && zero != 0)
        field_fault(f, "a reserved field is used");
    n->payload_codec = payload | (uint32_t)codec << 24;
    n->plain_type = plain | (uint32_t)type << 24;
}

static void index_fields(struct fields *f, struct pack_index *x)
{
    void *entries = x->entries;

    field_raw(f, x->pack.b, sizeof x->pack.b);
    field_u8(f, &x->kind, PACK_BLOCKS, PACK_NODES);
    field_u64(f, &x->size_bytes, PACK_HEADER_BYTES + PACK_END_BYTES, PACK_BYTES_MAX);
    field_array(f, &entries, &x->count, PACK_ENTRIES_MAX, sizeof x->entries[0], INDEX_ENTRY_BYTES);
    x->entries = entries;
    for (uint32_t i = 0; i < x->count && !f->failed; i++) {
        struct index_entry *n = &x->entries[i];

        entry_fields(f, n);
        if (!f->failed && i > 0 && index_entry_compare(n - 1, n) > 0)
            field_fault(f, "its entries are not in order");
        if (!f->failed && (uint64_t)n->offset + ENTRY_HEADER_BYTES + (n->payload_codec & 0xffffff) +
                                  PACK_END_BYTES >
                              x->size_bytes)
            field_fault(f, "an entry leaves the pack");
    }
}

int pack_index_encode(struct pack_index *x, struct bytes *out, struct err *e)
{
    struct fields f;

    if (x->count > 1)
        qsort(x->entries, x->count, sizeof x->entries[0], compare);
    fields_write(&f, out, e);
    index_fields(&f, x);
    return fields_done(&f);
}

int pack_index_decode(struct pack_index *x, const void *data, size_t count, struct err *e)
{
    struct fields f;

    *x = (struct pack_index){ 0 };
    fields_read(&f, data, count, e);
    index_fields(&f, x);
    if (fields_done(&f) == 0)
        return 0;
    pack_index_free(x);
    return -1;
}

int pack_index_put(struct storage *s, const struct vault *v, struct pack_index *x, struct err *e)
{
    struct bytes body = { .ceiling = DOCUMENT_BODY_MAX };
    object_name name;
    int rc = pack_index_encode(x, &body, e);

    name_of_index(name, &x->pack);
    if (rc == 0)
        rc = document_put(s, v, DOCUMENT_INDEX, name, &body, e);
    bytes_free(&body);
    return rc;
}

int pack_index_get(struct storage *s, const struct vault *v, const struct repo_key *pack,
                   struct pack_index *out, struct err *e)
{
    struct bytes body = { 0 };
    object_name name;
    int rc;

    name_of_index(name, pack);
    rc = document_get(s, v, DOCUMENT_INDEX, name, &body, e);
    if (rc == 0 && pack_index_decode(out, body.data, body.count, e) != 0)
        rc = err_add(e, "object %s", name);
    bytes_free(&body);
    if (rc == 0 && memcmp(out->pack.b, pack->b, sizeof pack->b) != 0) {
        pack_index_free(out);
        rc = err_set(e, ERR_CORRUPT, "object %s: it lists another pack", name);
    }
    return rc;
}
