#include "receiver/repo/pack.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "receiver/repo/names.h"
#include "receiver/repo/vault.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static const uint8_t PACK_MAGIC[8] = { 'V', 'F', 'P', 'A', 'C', 'K', 0, 1 };
static const uint8_t END_MAGIC[8] = { 'V', 'F', 'P', 'E', 'N', 'D', 0, 1 };
static const uint8_t ENTRY_MAGIC[4] = { 'V', 'F', 'E', 'N' };

enum {
    ENTRY_VERSION = 1,
    SEALED_PART = 48, /* bytes of an entry's header that are proved with its payload */
    WINDOW_LOG_MAX = 24,
    READ_BYTES = 4 << 20, /* of a walk */
};

void pack_header_encode(const struct repo_key *repository, const struct repo_key *pack,
                        enum pack_kind kind, uint8_t out[PACK_HEADER_BYTES])
{
    struct push p = { .at = out, .left = PACK_HEADER_BYTES };

    memset(out, 0, PACK_HEADER_BYTES);
    push_copy(&p, PACK_MAGIC, sizeof PACK_MAGIC);
    push_copy(&p, repository->b, sizeof repository->b);
    push_copy(&p, pack->b, sizeof pack->b);
    push_u8(&p, (uint8_t)kind);
    p = (struct push){ .at = out + PACK_HEADER_BYTES - 8, .left = 8 };
    push_u64(&p, XXH3_64bits(out, PACK_HEADER_BYTES - 8));
}

int pack_header_decode(const uint8_t in[PACK_HEADER_BYTES], const struct repo_key *repository,
                       const struct repo_key *pack, uint8_t *kind, struct err *e)
{
    static const uint8_t zeros[15];
    struct pull p = { .at = in + PACK_HEADER_BYTES - 8, .left = 8 };

    if (memcmp(in, PACK_MAGIC, sizeof PACK_MAGIC) != 0)
        return err_set(e, ERR_CORRUPT, "it does not begin as a pack");
    if (pull_u64(&p) != XXH3_64bits(in, PACK_HEADER_BYTES - 8))
        return err_set(e, ERR_CORRUPT, "its header is damaged");
    if (memcmp(in + 8, repository->b, REPO_KEY_BYTES) != 0)
        return err_set(e, ERR_CORRUPT, "it belongs to another repository");
    if (memcmp(in + 24, pack->b, REPO_KEY_BYTES) != 0)
        return err_set(e, ERR_CORRUPT, "it is another pack than its name says");
    *kind = in[40];
    if ((*kind != PACK_BLOCKS && *kind != PACK_NODES) || memcmp(in + 41, zeros, sizeof zeros) != 0)
        return err_set(e, ERR_CORRUPT, "its header is of no known kind");
    return 0;
}

void pack_end_encode(uint64_t entries, uint64_t offset, uint8_t out[PACK_END_BYTES])
{
    struct push p = { .at = out, .left = PACK_END_BYTES };

    push_copy(&p, END_MAGIC, sizeof END_MAGIC);
    push_u64(&p, entries);
    push_u64(&p, offset);
    push_u64(&p, XXH3_64bits(out, PACK_END_BYTES - 8));
}

int pack_end_decode(const uint8_t in[PACK_END_BYTES], uint64_t *entries, uint64_t *offset,
                    struct err *e)
{
    struct pull p = { .at = in + sizeof END_MAGIC, .left = PACK_END_BYTES - sizeof END_MAGIC };

    *entries = pull_u64(&p);
    *offset = pull_u64(&p);
    if (memcmp(in, END_MAGIC, sizeof END_MAGIC) != 0 ||
        pull_u64(&p) != XXH3_64bits(in, PACK_END_BYTES - 8))
        return err_set(e, ERR_CORRUPT, "its end is damaged or missing");
    return 0;
}

/* --- entries --- */

void entry_header_encode(const struct entry_header *h, uint8_t out[ENTRY_HEADER_BYTES])
{
    struct push p = { .at = out, .left = ENTRY_HEADER_BYTES };

    push_copy(&p, ENTRY_MAGIC, sizeof ENTRY_MAGIC);
    push_u8(&p, ENTRY_VERSION);
    push_u8(&p, h->type);
    push_u8(&p, h->codec);
    push_u8(&p, h->sealed);
    push_copy(&p, h->id.b, sizeof h->id.b);
    push_u32(&p, h->plain_bytes);
    push_u32(&p, h->payload_bytes);
    push_u64(&p, h->payload_sum);
    push_u64(&p, XXH3_64bits(out, ENTRY_HEADER_BYTES - 8));
}

int entry_header_decode(const uint8_t in[ENTRY_HEADER_BYTES], struct entry_header *out,
                        struct err *e)
{
    struct pull p = { .at = in, .left = ENTRY_HEADER_BYTES };
    const uint8_t *magic = pull_bytes(&p, sizeof ENTRY_MAGIC);
    uint8_t version = pull_u8(&p);

    out->type = pull_u8(&p);
    out->codec = pull_u8(&p);
    out->sealed = pull_u8(&p);
    pull_copy(&p, out->id.b, sizeof out->id.b);
    out->plain_bytes = pull_u32(&p);
    out->payload_bytes = pull_u32(&p);
    out->payload_sum = pull_u64(&p);
    if (memcmp(magic, ENTRY_MAGIC, sizeof ENTRY_MAGIC) != 0 ||
        pull_u64(&p) != XXH3_64bits(in, ENTRY_HEADER_BYTES - 8))
        return err_set(e, ERR_CORRUPT, "the header of an entry is damaged");
    if (version != ENTRY_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "an entry is written by a newer program (version %u)",
                       version);
    if ((out->type != ENTRY_BLOCK && out->type != ENTRY_NODE) || out->codec > CODEC_ZSTD ||
        out->sealed > 1 || out->plain_bytes == 0 || out->plain_bytes > ENTRY_PLAIN_MAX ||
        out->payload_bytes == 0 || out->payload_bytes > out->plain_bytes + SEAL_BYTES)
        return err_set(e, ERR_CORRUPT, "the header of an entry makes no sense");
    return 0;
}

/* What a seal proves besides the payload. */
struct entry_proof {
    uint8_t bytes[REPO_KEY_BYTES + SEALED_PART];
};

static void make_proof(struct entry_proof *p, const struct vault *v,
                       const uint8_t header[ENTRY_HEADER_BYTES])
{
    memcpy(p->bytes, vault_repository(v)->b, REPO_KEY_BYTES);
    memcpy(p->bytes + REPO_KEY_BYTES, header, SEALED_PART);
}

int entry_encode(const struct vault *v, const struct entry_header *like, const void *coded,
                 size_t coded_bytes, struct bytes *out, struct err *e)
{
    struct entry_header h = *like;
    struct entry_proof proof;
    size_t whole;
    uint8_t *at;

    h.sealed = vault_sealed(v);
    h.payload_bytes = (uint32_t)(coded_bytes + (h.sealed ? (size_t)SEAL_BYTES : 0));
    whole = ENTRY_HEADER_BYTES + (size_t)h.payload_bytes;
    if (out->ceiling < out->count + whole)
        out->ceiling = out->count + whole;
    at = bytes_reserve(out, whole, e);
    if (at == NULL)
        return -1;
    h.payload_sum = 0;
    entry_header_encode(&h, at); /* for the part that the seal proves */
    if (h.sealed) {
        make_proof(&proof, v, at);
        if (vault_seal(v, proof.bytes, sizeof proof.bytes, coded, coded_bytes,
                       at + ENTRY_HEADER_BYTES, e) != 0)
            return -1;
    } else {
        memcpy(at + ENTRY_HEADER_BYTES, coded, coded_bytes);
    }
    h.payload_sum = XXH3_64bits(at + ENTRY_HEADER_BYTES, h.payload_bytes);
    entry_header_encode(&h, at);
    out->count += whole;
    return 0;
}

struct entry_opener {
    ZSTD_DCtx *unpacker;
    uint8_t *opened; /* coded bytes of a sealed entry */
    size_t room;
};

int entry_opener_new(struct entry_opener **out, struct err *e)
{
    struct entry_opener *o = calloc(1, sizeof *o);

    if (o != NULL)
        o->unpacker = ZSTD_createDCtx();
    if (o == NULL || o->unpacker == NULL) {
        free(o);
        return err_sys(e, "getting memory");
    }
    ZSTD_DCtx_setParameter(o->unpacker, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    *out = o;
    return 0;
}

void entry_opener_free(struct entry_opener *o)
{
    if (o == NULL)
        return;
    ZSTD_freeDCtx(o->unpacker);
    free(o->opened);
    free(o);
}

/* Take the seal off, if there is one. */
static int unseal(struct entry_opener *o, const struct vault *v, const struct entry_header *h,
                  const uint8_t header[ENTRY_HEADER_BYTES], const uint8_t *payload,
                  const uint8_t **coded, size_t *coded_bytes, struct err *e)
{
    struct entry_proof proof;

    if (h->sealed != vault_sealed(v))
        return err_set(e, ERR_CORRUPT, "it is %s, and the repository is not",
                       h->sealed ? "sealed" : "not sealed");
    *coded = payload;
    *coded_bytes = h->payload_bytes;
    if (!h->sealed)
        return 0;
    if (h->payload_bytes < SEAL_BYTES)
        return err_set(e, ERR_CORRUPT, "its seal is broken");
    *coded_bytes = h->payload_bytes - SEAL_BYTES;
    if (o->room < *coded_bytes) {
        uint8_t *room = realloc(o->opened, h->payload_bytes);

        if (room == NULL)
            return err_sys(e, "getting memory for a block");
        o->opened = room;
        o->room = h->payload_bytes;
    }
    make_proof(&proof, v, header);
    *coded = o->opened;
    return vault_open(v, proof.bytes, sizeof proof.bytes, payload, h->payload_bytes, o->opened, e);
}

static int uncode(struct entry_opener *o, const struct entry_header *h, const uint8_t *coded,
                  size_t coded_bytes, uint8_t *out, struct err *e)
{
    size_t n;

    if (h->codec == CODEC_RAW) {
        if (coded_bytes != h->plain_bytes)
            return err_set(e, ERR_CORRUPT, "it has not its full length");
        memcpy(out, coded, coded_bytes);
        return 0;
    }
    if (ZSTD_getFrameContentSize(coded, coded_bytes) != h->plain_bytes ||
        ZSTD_findFrameCompressedSize(coded, coded_bytes) != coded_bytes)
        return err_set(e, ERR_CORRUPT, "it is not packed as it should be");
    n = ZSTD_decompressDCtx(o->unpacker, out, h->plain_bytes, coded, coded_bytes);
    if (ZSTD_isError(n) || n != h->plain_bytes)
        return err_set(e, ERR_CORRUPT, "it does not unpack");
    return 0;
}

int entry_decode(struct entry_opener *o, const struct vault *v, const struct entry_header *h,
                 const uint8_t header[ENTRY_HEADER_BYTES], const uint8_t *payload, uint8_t *out,
                 struct err *e)
{
    const uint8_t *coded = payload;
    struct repo_id id;
    size_t coded_bytes = 0;

    if (XXH3_64bits(payload, h->payload_bytes) != h->payload_sum)
        return err_set(e, ERR_CORRUPT, "its bytes are damaged");
    if (unseal(o, v, h, header, payload, &coded, &coded_bytes, e) != 0 ||
        uncode(o, h, coded, coded_bytes, out, e) != 0 ||
        vault_id(v, out, h->plain_bytes, &id, e) != 0)
        return -1;
    if (memcmp(id.b, h->id.b, sizeof id.b) != 0)
        return err_set(e, ERR_CORRUPT, "its content is not what its id says");
    return 0;
}

/* --- walking over a pack --- */

struct walker {
    const struct pack_walk *walk;
    const struct vault *vault;
    struct storage *storage;
    object_name name;
    uint64_t end; /* of the entries */
    uint64_t window_at;
    size_t window_bytes;
    uint8_t *window;
    struct entry_opener *opener;
    uint8_t *plain;
    size_t plain_room;
};

/* count bytes at offset, through a window that moves forward. */
static int look(struct walker *w, uint64_t offset, size_t count, const uint8_t **out, struct err *e)
{
    if (offset < w->window_at || offset + count > w->window_at + w->window_bytes) {
        /* Headers alone lie far apart: no need to read what is between them. */
        size_t most = w->walk->read_data ? READ_BYTES + ENTRY_HEADER_BYTES + ENTRY_PAYLOAD_MAX
                                         : ENTRY_HEADER_BYTES;
        uint64_t left = w->end - offset;

        w->window_bytes = 0;
        if (most > left)
            most = (size_t)left;
        if (storage_read(w->storage, w->name, offset, w->window, most, e) != 0)
            return -1;
        w->window_at = offset;
        w->window_bytes = most;
    }
    *out = w->window + (offset - w->window_at);
    return 0;
}

static int make_room(struct walker *w, size_t count, struct err *e)
{
    uint8_t *plain;

    if (w->plain_room >= count)
        return 0;
    plain = realloc(w->plain, count);
    if (plain == NULL)
        return err_sys(e, "getting memory for a block");
    w->plain = plain;
    w->plain_room = count;
    return 0;
}

static int prove_entry(struct walker *w, const struct entry_header *h, uint64_t offset,
                       struct err *e)
{
    const uint8_t *in;

    if (make_room(w, h->plain_bytes, e) != 0 ||
        look(w, offset, ENTRY_HEADER_BYTES + (size_t)h->payload_bytes, &in, e) != 0)
        return -1;
    if (entry_decode(w->opener, w->vault, h, in, in + ENTRY_HEADER_BYTES, w->plain, e) == 0)
        return 0;
    err_add(e, "entry at byte %" PRIu64, offset);
    if (e->code != ERR_CORRUPT || w->walk->damaged == NULL)
        return -1;
    return w->walk->damaged(w->walk->context, h, (uint32_t)offset, e);
}

static int walk_entries(struct walker *w, uint64_t *found, struct err *e)
{
    uint64_t at = PACK_HEADER_BYTES;

    *found = 0;
    while (at < w->end) {
        struct entry_header h;
        const uint8_t *in;

        if (w->end - at < ENTRY_HEADER_BYTES || *found == PACK_ENTRIES_MAX)
            return err_set(e, ERR_CORRUPT, "no entry fits at byte %" PRIu64, at);
        if (look(w, at, ENTRY_HEADER_BYTES, &in, e) != 0)
            return -1;
        if (entry_header_decode(in, &h, e) != 0)
            return err_add(e, "byte %" PRIu64, at);
        if (h.payload_bytes > w->end - at - ENTRY_HEADER_BYTES)
            return err_set(e, ERR_CORRUPT, "the entry at byte %" PRIu64 " leaves the pack", at);
        if (w->walk->entry != NULL && w->walk->entry(w->walk->context, &h, (uint32_t)at, e) != 0)
            return -1;
        if (w->walk->read_data && prove_entry(w, &h, at, e) != 0)
            return -1;
        at += ENTRY_HEADER_BYTES + (uint64_t)h.payload_bytes;
        (*found)++;
    }
    return 0;
}

static int check_frame(struct walker *w, const struct repo_key *pack, uint64_t size,
                       uint64_t *entries, struct err *e)
{
    uint8_t header[PACK_HEADER_BYTES], end[PACK_END_BYTES], kind;
    uint64_t offset;

    if (size < PACK_HEADER_BYTES + PACK_END_BYTES || size > PACK_BYTES_MAX)
        return err_set(e, ERR_CORRUPT, "a pack cannot have %" PRIu64 " bytes", size);
    if (storage_read(w->storage, w->name, 0, header, sizeof header, e) != 0 ||
        storage_read(w->storage, w->name, size - PACK_END_BYTES, end, sizeof end, e) != 0 ||
        pack_header_decode(header, vault_repository(w->vault), pack, &kind, e) != 0 ||
        pack_end_decode(end, entries, &offset, e) != 0)
        return -1;
    if (offset != size - PACK_END_BYTES)
        return err_set(e, ERR_CORRUPT, "it has not its full length");
    w->end = offset;
    return 0;
}

int pack_walk(struct storage *s, const struct vault *v, const struct repo_key *pack,
              const struct pack_walk *walk, uint64_t *size_bytes, struct err *e)
{
    struct walker w = { .walk = walk, .vault = v, .storage = s };
    /* Never more than the pack has. */
    size_t window =
        walk->read_data ? READ_BYTES + ENTRY_HEADER_BYTES + ENTRY_PAYLOAD_MAX : ENTRY_HEADER_BYTES;
    uint64_t entries, found;
    int rc = -1;

    name_of_pack(w.name, pack);
    if (storage_size(s, w.name, size_bytes, e) != 0)
        return -1;
    if (window > *size_bytes)
        window = (size_t)*size_bytes + 1;
    w.window = malloc(window);
    if (w.window == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    if (entry_opener_new(&w.opener, e) != 0 ||
        check_frame(&w, pack, *size_bytes, &entries, e) != 0 || walk_entries(&w, &found, e) != 0)
        goto out;
    rc = found == entries
             ? 0
             : err_set(e, ERR_CORRUPT, "it has %" PRIu64 " entries, not %" PRIu64, found, entries);

out:
    entry_opener_free(w.opener);
    free(w.window);
    free(w.plain);
    return rc == 0 ? 0 : err_add(e, "pack %s", w.name);
}
