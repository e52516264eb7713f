#include "receiver/mirror/patch.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <zstd.h>

static const char PATCH_MAGIC[] = "VFPATCH1";
enum { MAGIC_BYTES = 8, HEAD_SPARE = 48, WINDOW_LOG_MAX = 23, HASH_CHUNK = 64 << 10 };

/* --- header and entries as bytes --- */

static void encode_head(uint8_t out[PATCH_HEAD_BYTES], const struct patch_head *h)
{
    static const uint8_t spare[HEAD_SPARE];
    struct push p = { .at = out, .left = PATCH_HEAD_BYTES };

    push_copy(&p, PATCH_MAGIC, MAGIC_BYTES);
    push_u32(&p, h->role);
    push_u32(&p, h->block_bytes);
    push_copy(&p, h->mirror, sizeof h->mirror);
    push_u64(&p, h->disk);
    push_u64(&p, h->generation);
    push_u64(&p, h->capacity_bytes);
    push_copy(&p, h->root.b, sizeof h->root.b);
    push_copy(&p, spare, sizeof spare);
    push_u64(&p, XXH3_64bits(out, PATCH_HEAD_BYTES - 8));
    assert(!p.full && p.left == 0);
}

static void encode_entry(uint8_t out[PATCH_ENTRY_BYTES], const struct patch_entry *n)
{
    struct push p = { .at = out, .left = PATCH_ENTRY_BYTES };

    push_u64(&p, n->block);
    push_u64(&p, n->kind == PATCH_DATA ? n->payload_offset : n->count);
    push_u32(&p, n->packed_bytes);
    push_u8(&p, n->kind);
    push_u8(&p, n->encoding);
    push_u16(&p, 0);
    push_copy(&p, n->digest.b, sizeof n->digest.b);
    push_u64(&p, XXH3_64bits(out, PATCH_ENTRY_BYTES - 8));
    assert(!p.full && p.left == 0);
}

static bool entry_is_sound(const struct patch_entry *n, const struct patch_head *h,
                           uint64_t blocks_bytes, uint16_t reserved)
{
    uint64_t blocks = block_count_of(h->capacity_bytes, h->block_bytes);
    uint64_t end;

    if (reserved != 0 || n->count == 0 || !checked_add(n->block, n->count, &end) || end > blocks)
        return false;
    if (n->kind == PATCH_DATA)
        return n->packed_bytes > 0 && n->packed_bytes <= h->block_bytes &&
               n->encoding <= ENCODING_ZSTD && !digest_is_zero(&n->digest) &&
               checked_add(n->payload_offset, n->packed_bytes, &end) && end <= blocks_bytes;
    if (n->packed_bytes != 0 || n->encoding != 0)
        return false;
    return n->kind == PATCH_ZERO ? digest_is_zero(&n->digest)
                                 : n->kind == PATCH_LOST && h->role == PATCH_DELTA;
}

static bool decode_entry(const uint8_t in[PATCH_ENTRY_BYTES], const struct patch_head *h,
                         uint64_t blocks_bytes, struct patch_entry *out)
{
    struct pull p = { .at = in, .left = PATCH_ENTRY_BYTES };
    struct patch_entry n = { 0 };
    uint64_t second, sum;
    uint16_t reserved;

    n.block = pull_u64(&p);
    second = pull_u64(&p);
    n.packed_bytes = pull_u32(&p);
    n.kind = pull_u8(&p);
    n.encoding = pull_u8(&p);
    reserved = pull_u16(&p);
    pull_copy(&p, n.digest.b, sizeof n.digest.b);
    sum = pull_u64(&p);
    n.count = n.kind == PATCH_DATA ? 1 : second;
    n.payload_offset = n.kind == PATCH_DATA ? second : 0;
    if (sum != XXH3_64bits(in, PATCH_ENTRY_BYTES - 8) ||
        !entry_is_sound(&n, h, blocks_bytes, reserved))
        return false;
    *out = n;
    return true;
}

static int check_head(const uint8_t in[PATCH_HEAD_BYTES], const struct patch_head *expected,
                      struct err *e)
{
    uint8_t want[PATCH_HEAD_BYTES];
    struct pull p = { .at = in + PATCH_HEAD_BYTES - 8, .left = 8 };

    if (memcmp(in, PATCH_MAGIC, MAGIC_BYTES) != 0)
        return err_set(e, ERR_CORRUPT, "it is no index of a patch");
    if (pull_u64(&p) != XXH3_64bits(in, PATCH_HEAD_BYTES - 8))
        return err_set(e, ERR_CORRUPT, "the checksum of its header is wrong");
    encode_head(want, expected);
    if (memcmp(in, want, sizeof want) != 0)
        return err_set(e, ERR_CORRUPT, "it is of another disk or generation");
    return 0;
}

/* --- writing --- */

static int write_index(struct patch_writer *w, const void *data, size_t count, struct err *e)
{
    if (w->buffered + count > sizeof w->buffer) {
        if (io_write_all(w->index_fd, w->buffer, w->buffered, e) != 0)
            return -1;
        w->buffered = 0;
    }
    memcpy(w->buffer + w->buffered, data, count);
    w->buffered += count;
    w->index_bytes += count;
    XXH3_128bits_update(w->hash, data, count);
    return 0;
}

int patch_writer_open(struct patch_writer *w, int index_fd, int blocks_fd, uint64_t blocks_bytes,
                      const struct patch_head *head, struct err *e)
{
    uint8_t b[PATCH_HEAD_BYTES];

    w->index_fd = index_fd;
    w->blocks_fd = blocks_fd;
    w->blocks_bytes = blocks_bytes;
    w->index_bytes = w->entries = w->end = 0;
    w->pending.count = 0;
    w->buffered = 0;
    w->hash = XXH3_createState();
    if (w->hash == NULL)
        return err_sys(e, "getting memory");
    XXH3_128bits_reset(w->hash);
    encode_head(b, head);
    return write_index(w, b, sizeof b, e);
}

static int put_pending(struct patch_writer *w, struct err *e)
{
    uint8_t b[PATCH_ENTRY_BYTES];

    if (w->pending.count == 0)
        return 0;
    encode_entry(b, &w->pending);
    w->pending.count = 0;
    w->entries++;
    return write_index(w, b, sizeof b, e);
}

int patch_put(struct patch_writer *w, const struct patch_entry *entry, struct err *e)
{
    assert(entry->count > 0 && entry->block >= w->end);
    if (w->pending.count > 0 && w->pending.kind == entry->kind && entry->kind != PATCH_DATA &&
        entry->block == w->end && digest_equal(&w->pending.digest, &entry->digest)) {
        w->pending.count += entry->count;
    } else {
        if (put_pending(w, e) != 0)
            return -1;
        w->pending = *entry;
    }
    w->end = entry->block + entry->count;
    return 0;
}

int patch_put_data(struct patch_writer *w, uint64_t block, const struct digest *digest,
                   const void *packed, size_t packed_bytes, enum block_encoding encoding,
                   struct err *e)
{
    struct patch_entry n = { .block = block,
                             .count = 1,
                             .payload_offset = w->blocks_bytes,
                             .packed_bytes = (uint32_t)packed_bytes,
                             .kind = PATCH_DATA,
                             .encoding = (uint8_t)encoding,
                             .digest = *digest };

    if (io_pwrite_all(w->blocks_fd, packed, packed_bytes, w->blocks_bytes, e) != 0)
        return -1;
    w->blocks_bytes += packed_bytes;
    return patch_put(w, &n, e);
}

int patch_put_run(struct patch_writer *w, enum patch_kind kind, uint64_t block, uint64_t count,
                  const struct digest *digest, struct err *e)
{
    struct patch_entry n = { .block = block, .count = count, .kind = (uint8_t)kind };

    if (digest != NULL)
        n.digest = *digest;
    return patch_put(w, &n, e);
}

int patch_writer_flush(struct patch_writer *w, uint8_t hash[PATCH_HASH_BYTES], struct err *e)
{
    XXH128_canonical_t canonical;

    if (put_pending(w, e) != 0 || io_write_all(w->index_fd, w->buffer, w->buffered, e) != 0)
        return -1;
    w->buffered = 0;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(w->hash));
    memcpy(hash, canonical.digest, PATCH_HASH_BYTES);
    return 0;
}

void patch_writer_close(struct patch_writer *w)
{
    XXH3_freeState(w->hash);
    w->hash = NULL;
}

/* --- reading --- */

static int open_index(struct patch_cursor *c, uint64_t index_bytes, struct err *e)
{
    uint8_t b[PATCH_HEAD_BYTES];
    struct stat s;

    if (fstat(c->fd, &s) != 0)
        return err_sys(e, "looking at it");
    if (index_bytes == 0)
        index_bytes = (uint64_t)s.st_size;
    if (!S_ISREG(s.st_mode) || index_bytes > (uint64_t)s.st_size ||
        index_bytes < PATCH_HEAD_BYTES || (index_bytes - PATCH_HEAD_BYTES) % PATCH_ENTRY_BYTES != 0)
        return err_set(e, ERR_CORRUPT, "its length is wrong");
    if (io_pread_all(c->fd, b, sizeof b, 0, e) != 0 || check_head(b, &c->head, e) != 0)
        return -1;
    c->entries = (index_bytes - PATCH_HEAD_BYTES) / PATCH_ENTRY_BYTES;
    return patch_step(c, e);
}

int patch_cursor_open(struct patch_cursor *c, int dir, const char *name,
                      const struct patch_head *expected, uint64_t index_bytes,
                      uint64_t blocks_bytes, struct err *e)
{
    *c = PATCH_CURSOR_EMPTY;
    c->head = *expected;
    c->blocks_bytes = blocks_bytes;
    c->fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (c->fd < 0) {
        err_sys(e, "opening it");
        return err_add(e, "%s", name);
    }
    if (open_index(c, index_bytes, e) == 0)
        return 0;
    patch_cursor_close(c);
    return err_add(e, "%s", name);
}

/* Entry `index` into *out, through the buffer. */
static int entry_at(struct patch_cursor *c, uint64_t index, struct patch_entry *out, struct err *e)
{
    if (index < c->buffer_first || index >= c->buffer_first + c->buffer_count) {
        uint64_t count = min_u64(c->entries - index, PATCH_BUFFER_ENTRIES);

        c->buffer_count = 0;
        if (io_pread_all(c->fd, c->buffer, (size_t)count * PATCH_ENTRY_BYTES,
                         PATCH_HEAD_BYTES + index * PATCH_ENTRY_BYTES, e) != 0)
            return -1;
        c->buffer_first = index;
        c->buffer_count = count;
    }
    if (!decode_entry(c->buffer + (index - c->buffer_first) * PATCH_ENTRY_BYTES, &c->head,
                      c->blocks_bytes, out))
        return err_set(e, ERR_CORRUPT, "entry %" PRIu64 " of the index is damaged", index);
    return 0;
}

int patch_step(struct patch_cursor *c, struct err *e)
{
    c->have = false;
    if (c->next >= c->entries)
        return 0;
    if (entry_at(c, c->next, &c->entry, e) != 0)
        return -1;
    if (c->entry.block < c->end)
        return err_set(e, ERR_CORRUPT, "entry %" PRIu64 " of the index is out of order", c->next);
    c->end = c->entry.block + c->entry.count;
    c->next++;
    c->have = true;
    return 0;
}

int patch_seek(struct patch_cursor *c, uint64_t block, struct err *e)
{
    uint64_t low = 0, high = c->entries;

    /* The first entry whose end lies behind `block`: entries are sorted and do not overlap. */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        struct patch_entry n;

        if (entry_at(c, middle, &n, e) != 0)
            return -1;
        if (n.block + n.count > block)
            high = middle;
        else
            low = middle + 1;
    }
    c->next = low;
    c->end = 0;
    return patch_step(c, e);
}

int patch_forward(struct patch_cursor *c, uint64_t block, struct err *e)
{
    for (unsigned steps = 0; c->have && c->entry.block + c->entry.count <= block; steps++) {
        if (steps >= 2 * PATCH_BUFFER_ENTRIES)
            return patch_seek(c, block, e);
        if (patch_step(c, e) != 0)
            return -1;
    }
    return 0;
}

void patch_cursor_close(struct patch_cursor *c)
{
    io_drop(&c->fd);
    c->have = false;
}

int patch_hash(int fd, uint64_t index_bytes, uint8_t hash[PATCH_HASH_BYTES], struct err *e)
{
    uint8_t *chunk = malloc(HASH_CHUNK);
    XXH3_state_t *state = XXH3_createState();
    XXH128_canonical_t canonical;
    int rc = -1;

    if (chunk == NULL || state == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    XXH3_128bits_reset(state);
    for (uint64_t at = 0; at < index_bytes;) {
        size_t count = (size_t)min_u64(index_bytes - at, HASH_CHUNK);

        if (io_pread_all(fd, chunk, count, at, e) != 0)
            goto out;
        XXH3_128bits_update(state, chunk, count);
        at += count;
    }
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
    memcpy(hash, canonical.digest, PATCH_HASH_BYTES);
    rc = 0;

out:
    XXH3_freeState(state);
    free(chunk);
    return rc;
}

/* --- payload --- */

int patch_room_new(struct patch_room *r, size_t block_bytes, struct err *e)
{
    r->block_bytes = block_bytes;
    r->plain = malloc(block_bytes);
    r->packed = malloc(block_bytes);
    r->zstd = ZSTD_createDCtx();
    if (r->plain != NULL && r->packed != NULL && r->zstd != NULL &&
        !ZSTD_isError(ZSTD_DCtx_setParameter(r->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX)))
        return 0;
    patch_room_free(r);
    return err_sys(e, "getting memory for a block");
}

void patch_room_free(struct patch_room *r)
{
    free(r->plain);
    free(r->packed);
    ZSTD_freeDCtx(r->zstd);
    *r = (struct patch_room){ 0 };
}

static int unpack(const struct patch_entry *n, size_t plain_bytes, struct patch_room *r,
                  struct err *e)
{
    size_t frame;

    if (n->encoding == ENCODING_RAW) {
        if (n->packed_bytes != plain_bytes)
            return err_set(e, ERR_CORRUPT, "its length is wrong");
        memcpy(r->plain, r->packed, plain_bytes);
        return 0;
    }
    /* One frame that says its size and fills the packed bytes: nothing else is accepted. */
    frame = ZSTD_findFrameCompressedSize(r->packed, n->packed_bytes);
    if (ZSTD_isError(frame) || frame != n->packed_bytes ||
        ZSTD_getFrameContentSize(r->packed, n->packed_bytes) != plain_bytes ||
        ZSTD_decompressDCtx(r->zstd, r->plain, plain_bytes, r->packed, n->packed_bytes) !=
            plain_bytes)
        return err_set(e, ERR_CORRUPT, "it does not decompress");
    return 0;
}

int patch_payload(int blocks_fd, const struct patch_entry *entry,
                  const struct digest_secret *secret, size_t plain_bytes, struct patch_room *r,
                  struct err *e)
{
    struct digest d;

    assert(plain_bytes <= r->block_bytes);
    if (entry->packed_bytes > r->block_bytes)
        return err_set(e, ERR_CORRUPT, "block %" PRIu64 " is too long", entry->block);
    if (io_pread_all(blocks_fd, r->packed, entry->packed_bytes, entry->payload_offset, e) != 0 ||
        unpack(entry, plain_bytes, r, e) != 0)
        return err_add(e, "block %" PRIu64, entry->block);
    d = digest_of(secret, r->plain, plain_bytes);
    if (!digest_equal(&d, &entry->digest))
        return err_set(e, ERR_CORRUPT, "block %" PRIu64 " does not have its digest", entry->block);
    return 0;
}
