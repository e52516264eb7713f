/*
 * The sink of a disk that the newest generation has: what changes goes to the redo, the image is
 * not touched.  Entries that an earlier, unfinished run made durable (`staged`) are held by the
 * store; the run carries those that still hold into its own index as it goes over the disk, so that
 * the index is complete and sorted at its end.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/stream/sink.h"
#include "receiver/base/failpoint.h"
#include "receiver/mirror/sink_redo.h"

#include <zstd.h>

enum { ZERO_RUN_LEAST = 16 }; /* shorter runs of zeros go among the digests */

static struct redo_sink *redo_of(struct sink *s)
{
    return (struct redo_sink *)(void *)s;
}

static void names_of(struct redo_names *n, uint64_t number)
{
    layout_name(n->index, "redo-%" PRIu64 ".index", number);
    layout_name(n->blocks, "redo-%" PRIu64 ".blocks", number);
    layout_name(n->staged, "redo-%" PRIu64 ".staged", number);
    layout_name(n->checkpoint, "redo-%" PRIu64 ".checkpoint", number);
}

static int drop_files(struct store *s, const struct redo_names *n, struct err *e)
{
    /* The checkpoint first: without it nothing else counts. */
    if (file_remove(s->store_fd, n->checkpoint, e) != 0 || io_sync(s->store_fd, e) != 0 ||
        file_remove(s->store_fd, n->index, e) != 0 || file_remove(s->store_fd, n->blocks, e) != 0)
        return -1;
    return file_remove(s->store_fd, n->staged, e);
}

int redo_drop(struct run_disk *d, struct err *e)
{
    struct redo_names n;

    names_of(&n, d->state.number);
    return drop_files(&d->m->store, &n, e);
}

static int fail(struct redo_sink *r, struct err *e)
{
    r->d->failed = true;
    return err_add(e, "%s", r->d->state.file);
}

/* --- unknown blocks --- */

int run_block_is_unknown(const struct run_disk *d, uint64_t block, bool *unknown, uint64_t *run,
                         struct err *e)
{
    uint64_t old_blocks = d->old.capacity_bytes > 0 ? shape_blocks(d->old) : 0;
    bool short_tail = d->shape.capacity_bytes > d->old.capacity_bytes && old_blocks > 0 &&
                      d->old.capacity_bytes % d->old.block_bytes != 0;

    if (bitmap_get(&d->differs, block, unknown, run, e) != 0)
        return -1;
    /* The digest of a short block says nothing about the longer one that it became. */
    if (short_tail && block == old_blocks - 1) {
        *unknown = true;
        if (run != NULL)
            *run = 1;
    } else if (short_tail && run != NULL && block < old_blocks - 1) {
        *run = min_u64(*run, old_blocks - 1 - block);
    }
    return 0;
}

/* --- durability --- */

static int checkpoint(struct redo_sink *r, struct err *e)
{
    struct checkpoint c = { .generation = r->d->m->store.newest.number, .position = r->position };

    if (patch_writer_flush(&r->writer, c.hash, e) != 0 || io_sync(r->blocks_fd, e) != 0 ||
        io_sync(r->index_fd, e) != 0)
        return -1;
    c.index_bytes = r->writer.index_bytes;
    c.blocks_bytes = r->writer.blocks_bytes;
    if (checkpoint_save(r->d, r->names.checkpoint, &c, e) != 0)
        return -1;
    r->since_bytes = r->writer.blocks_bytes;
    r->since_ms = io_clock_ms();
    return 0;
}

static int advance(struct redo_sink *r, uint64_t position, struct err *e)
{
    r->position = position;
    if (r->writer.blocks_bytes - r->since_bytes < CHECKPOINT_BYTES &&
        io_clock_ms() - r->since_ms < CHECKPOINT_MS)
        return 0;
    return checkpoint(r, e);
}

/* --- staged entries --- */

static int put(struct redo_sink *r, const struct patch_entry *n, struct err *e)
{
    r->d->changed_bytes += shape_run_bytes(r->d->shape, n->block, n->count);
    return patch_put(&r->writer, n, e);
}

/* The staged entries before block `to` still hold. */
static int carry(struct redo_sink *r, uint64_t to, struct err *e)
{
    struct patch_cursor *c = &r->staged;

    while (c->have && c->entry.block < to) {
        struct patch_entry part = c->entry;
        uint64_t end = min_u64(part.block + part.count, to);

        if (end > r->position) {
            part.block = max_u64(part.block, r->position);
            part.count = end - part.block;
            if (put(r, &part, e) != 0)
                return -1;
        }
        if (c->entry.block + c->entry.count > to)
            break; /* the rest of a run of zeros */
        if (patch_step(c, e) != 0)
            return err_add(e, "%s", r->names.staged);
    }
    return 0;
}

static int skip_staged(struct redo_sink *r, uint64_t to, struct err *e)
{
    if (patch_forward(&r->staged, to, e) != 0)
        return err_add(e, "%s", r->names.staged);
    return 0;
}

/* What was not mentioned is as it was held. */
static int come_to(struct redo_sink *r, uint64_t block, struct err *e)
{
    if (block < r->position)
        return err_set(e, ERR_PEER, "block %" PRIu64 " comes out of order", block);
    if (carry(r, block, e) != 0)
        return -1;
    r->position = block;
    return 0;
}

/* --- the base's digests --- */

static int base_digest(struct redo_sink *r, uint64_t block, struct digest *out, struct err *e)
{
    struct redo_window *w = &r->window;

    if (block >= r->old_blocks) {
        *out = (struct digest){ { 0 } };
        return 0;
    }
    if (block < w->first || block >= w->first + w->count) {
        w->count = 0;
        w->first = block;
        if (digests_read(r->digests_fd, r->old_blocks, block,
                         (size_t)min_u64(DIGEST_WINDOW, r->old_blocks - block), w->d, e) != 0)
            return -1;
        w->count = (size_t)min_u64(DIGEST_WINDOW, r->old_blocks - block);
    }
    *out = w->d[block - w->first];
    return 0;
}

/* --- what is held --- */

/* Staged entries over the digests of [first, first + count). */
static int overlay(struct redo_sink *r, uint64_t first, size_t count, struct digest *d,
                   bool *staged, struct err *e)
{
    struct patch_cursor *c = &r->staged_held;

    if (c->fd < 0)
        return 0;
    if ((first < c->end || !c->have ? patch_seek(c, first, e) : patch_forward(c, first, e)) != 0)
        return err_add(e, "%s", r->names.staged);
    while (c->have && c->entry.block < first + count) {
        uint64_t from = max_u64(c->entry.block, first);
        uint64_t to = min_u64(c->entry.block + c->entry.count, first + count);

        for (uint64_t b = from; b < to; b++) {
            d[b - first] = c->entry.digest;
            staged[b - first] = true;
        }
        if (c->entry.block + c->entry.count > first + count)
            break;
        if (patch_step(c, e) != 0)
            return err_add(e, "%s", r->names.staged);
    }
    return 0;
}

/* Blocks from `first` on that are zeros by the array alone: a hole of it, and nothing staged. */
static int far_zeros(struct redo_sink *r, uint64_t first, uint64_t end, uint64_t *out,
                     struct err *e)
{
    struct patch_cursor *c = &r->staged_held;
    uint64_t at = digests_next_data(r->digests_fd, first, r->old_blocks);

    at = at >= r->old_blocks ? end : min_u64(at, end);
    if (c->fd >= 0) {
        if (patch_seek(c, first, e) != 0)
            return err_add(e, "%s", r->names.staged);
        if (c->have)
            at = min_u64(at, max_u64(c->entry.block, first));
    }
    for (uint64_t b = first; b < at && r->d->differs.fd >= 0;) {
        bool unknown;
        uint64_t run;

        if (bitmap_get(&r->d->differs, b, &unknown, &run, e) != 0)
            return -1;
        if (unknown)
            at = b;
        b += run;
    }
    *out = at - first;
    return 0;
}

/* Kinds of the next blocks: digests d, staged ones known whatever the image is like. */
static int cut_run(struct redo_sink *r, uint64_t first, size_t count, const struct digest *d,
                   const bool *staged, struct held *out, struct err *e)
{
    size_t n = 0, zeros = 0;
    enum held_kind kind = HELD_UNKNOWN;

    for (; n < count; n++) {
        bool unknown = false;
        bool zero = digest_is_zero(&d[n]);

        if (!staged[n] && run_block_is_unknown(r->d, first + n, &unknown, NULL, e) != 0)
            return -1;
        if (n == 0)
            kind = unknown ? HELD_UNKNOWN : zero ? HELD_ZERO : HELD_DIGESTS;
        if ((kind == HELD_UNKNOWN) != unknown || (kind == HELD_ZERO && !zero))
            break;
        /* A longer run of zeros is told as such. */
        zeros = zero ? zeros + 1 : 0;
        if (kind == HELD_DIGESTS && zeros == ZERO_RUN_LEAST) {
            n = n + 1 - zeros;
            break;
        }
    }
    out->kind = kind;
    out->length_bytes = shape_run_bytes(r->d->shape, first, n);
    return 0;
}

static int redo_held(struct sink *s, uint64_t offset_bytes, uint64_t limit_bytes,
                     struct digest *digests, size_t room, struct held *out, struct err *e)
{
    struct redo_sink *r = redo_of(s);
    struct shape shape = r->d->shape;
    struct digest d[DIGEST_WINDOW];
    bool staged[DIGEST_WINDOW] = { false };
    uint64_t first = offset_bytes / shape.block_bytes;
    uint64_t end =
        block_count_of(offset_bytes + min_u64(limit_bytes, shape.capacity_bytes - offset_bytes),
                       shape.block_bytes);
    uint64_t zeros = 0;
    size_t count;

    out->offset_bytes = offset_bytes;
    if (far_zeros(r, first, end, &zeros, e) != 0)
        return fail(r, e);
    if (zeros >= ZERO_RUN_LEAST || zeros == end - first) {
        out->kind = HELD_ZERO;
        out->length_bytes = shape_run_bytes(shape, first, zeros);
        return 0;
    }
    count = (size_t)min_u64(min_u64(end - first, room), DIGEST_WINDOW);
    if (digests_read(r->digests_fd, r->old_blocks, first, count, d, e) != 0 ||
        overlay(r, first, count, d, staged, e) != 0 ||
        cut_run(r, first, count, d, staged, out, e) != 0)
        return fail(r, e);
    memcpy(digests, d, count * sizeof d[0]);
    return 0;
}

/* --- what comes --- */

static int redo_same(struct sink *s, uint64_t offset_bytes, uint64_t length_bytes, struct err *e)
{
    struct redo_sink *r = redo_of(s);
    uint64_t end = block_count_of(offset_bytes + length_bytes, r->d->shape.block_bytes);

    if (come_to(r, offset_bytes / r->d->shape.block_bytes, e) != 0 || carry(r, end, e) != 0 ||
        advance(r, end, e) != 0)
        return fail(r, e);
    return 0;
}

/* One block becomes zeros, unless the image has them already: *skip tells. */
static int zero_block(struct redo_sink *r, uint64_t block, bool *skip, struct err *e)
{
    struct patch_entry n = { .block = block, .count = 1, .kind = PATCH_ZERO };
    struct digest was;
    bool differs;

    if (base_digest(r, block, &was, e) != 0 ||
        bitmap_get(&r->d->differs, block, &differs, NULL, e) != 0)
        return -1;
    *skip = digest_is_zero(&was) && !differs;
    return *skip ? 0 : put(r, &n, e);
}

static int redo_zero(struct sink *s, uint64_t offset_bytes, uint64_t length_bytes, struct err *e)
{
    struct redo_sink *r = redo_of(s);
    uint32_t size = r->d->shape.block_bytes;
    uint64_t at = offset_bytes / size;
    uint64_t end = block_count_of(offset_bytes + length_bytes, size);
    uint64_t old_end = min_u64(end, r->old_blocks);

    if (come_to(r, at, e) != 0 || skip_staged(r, end, e) != 0)
        return fail(r, e);
    while (at < old_end) {
        bool skip;

        if (zero_block(r, at, &skip, e) != 0)
            return fail(r, e);
        at++;
        /* Holes of the array are zeros already, unless the image lies somewhere. */
        if (skip && r->d->differs.fd < 0)
            at = digests_next_data(r->digests_fd, at, r->old_blocks);
    }
    return advance(r, end, e) == 0 ? 0 : fail(r, e);
}

/* Payload that apply will accept: one frame that tells its size, else the plain bytes. */
static int put_block(struct redo_sink *r, uint64_t block, const struct sink_block *b, struct err *e)
{
    bool frame = b->encoding == ENCODING_ZSTD && b->packed_bytes < b->plain_bytes &&
                 ZSTD_getFrameContentSize(b->packed, b->packed_bytes) == b->plain_bytes &&
                 ZSTD_findFrameCompressedSize(b->packed, b->packed_bytes) == b->packed_bytes;

    r->d->changed_bytes += b->plain_bytes;
    return patch_put_data(&r->writer, block, &b->digest, frame ? b->packed : b->plain,
                          frame ? b->packed_bytes : b->plain_bytes,
                          frame ? ENCODING_ZSTD : ENCODING_RAW, e);
}

static int take_block(struct redo_sink *r, uint64_t block, const struct sink_block *b,
                      struct err *e)
{
    struct digest was;
    bool unknown, staged;

    if (come_to(r, block, e) != 0 || base_digest(r, block, &was, e) != 0 ||
        run_block_is_unknown(r->d, block, &unknown, NULL, e) != 0)
        return -1;
    staged = r->staged.have && r->staged.entry.block <= block;
    /* The image has it (a full run sends everything), or a staged block is this one. */
    if (!unknown && digest_equal(&was, &b->digest))
        return skip_staged(r, block + 1, e);
    if (staged && digest_equal(&r->staged.entry.digest, &b->digest))
        return carry(r, block + 1, e);
    if (skip_staged(r, block + 1, e) != 0)
        return -1;
    return put_block(r, block, b, e);
}

static int redo_data(struct sink *s, const struct sink_block *b, struct err *e)
{
    struct redo_sink *r = redo_of(s);
    uint64_t block = b->offset_bytes / r->d->shape.block_bytes;

    if (take_block(r, block, b, e) != 0 || advance(r, block + 1, e) != 0)
        return fail(r, e);
    return 0;
}

/* The root of the new content, from the base's digests and the finished index. */
static int prove_root(struct redo_sink *r, const struct digest *root, struct err *e)
{
    struct patch_head head = redo_head(r);
    struct patch_cursor c;
    struct digest is;
    int rc;

    if (patch_cursor_open(&c, r->d->m->store.store_fd, r->names.index, &head, r->writer.index_bytes,
                          r->writer.blocks_bytes, e) != 0)
        return -1;
    rc = digests_root(r->digests_fd, r->old_blocks, &c, r->d->shape, &r->d->secret,
                      &r->d->m->store.env, &is, e);
    patch_cursor_close(&c);
    if (rc == 0 && !digest_equal(&is, root))
        rc = err_set(e, ERR_CORRUPT,
                     "what is held and what came do not make the other end's disk: the roots "
                     "differ");
    return rc;
}

static int redo_end(struct sink *s, const struct digest *root, struct err *e)
{
    struct redo_sink *r = redo_of(s);
    struct run_disk *d = r->d;

    if (come_to(r, r->blocks, e) != 0 || checkpoint(r, e) != 0 || prove_root(r, root, e) != 0)
        return fail(r, e);
    d->redo = (struct patch_facts){ .there = true,
                                    .entries = r->writer.entries,
                                    .blocks_bytes = r->writer.blocks_bytes };
    if (patch_writer_flush(&r->writer, d->redo.hash, e) != 0 ||
        failpoint("mirror.redo-durable", e) != 0)
        return fail(r, e);
    d->root = *root;
    d->ended = true;
    return 0;
}

static void redo_close(struct sink *s)
{
    struct redo_sink *r = redo_of(s);
    struct err e;

    if (!r->d->failed && !r->d->ended && checkpoint(r, &e) != 0)
        env_warn(&r->d->m->store.env, "%s: %s", r->d->state.file, e.text);
    r->d->sink_open = false;
    patch_writer_close(&r->writer);
    patch_cursor_close(&r->staged);
    patch_cursor_close(&r->staged_held);
    io_drop(&r->index_fd);
    io_drop(&r->blocks_fd);
    io_drop(&r->digests_fd);
    free(r);
}

/* --- opening --- */

static int open_cursors(struct redo_sink *r, uint64_t blocks_bytes, struct err *e)
{
    struct store *s = &r->d->m->store;
    struct patch_head head = redo_head(r);

    if (patch_cursor_open(&r->staged, s->store_fd, r->names.staged, &head, 0, blocks_bytes, e) != 0)
        return -1;
    return patch_cursor_open(&r->staged_held, s->store_fd, r->names.staged, &head, 0, blocks_bytes,
                             e);
}

static int open_files(struct redo_sink *r, uint64_t blocks_bytes, struct err *e)
{
    struct store *s = &r->d->m->store;
    struct patch_head head = redo_head(r);
    char digests[LAYOUT_NAME_ROOM];

    layout_name(digests, "digests-%" PRIu64, r->d->base->number);
    r->digests_fd = file_open(s->store_fd, digests, O_RDONLY, e);
    if (r->digests_fd < 0)
        return -1;
    r->blocks_fd =
        openat(s->store_fd, r->names.blocks, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (r->blocks_fd < 0 || ftruncate(r->blocks_fd, (off_t)blocks_bytes) != 0)
        return err_sys(e, "opening %s", r->names.blocks);
    r->index_fd = openat(s->store_fd, r->names.index,
                         O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (r->index_fd < 0)
        return err_sys(e, "opening %s", r->names.index);
    if (patch_writer_open(&r->writer, r->index_fd, r->blocks_fd, blocks_bytes, &head, e) != 0)
        return -1;
    r->since_bytes = blocks_bytes;
    return io_sync(s->store_fd, e);
}

int redo_sink_new(struct run_disk *d, struct sink **out, struct err *e)
{
    static const struct sink_ops ops = { redo_held, redo_same, redo_zero,
                                         redo_data, redo_end,  redo_close };
    struct redo_sink *r = calloc(1, sizeof *r);
    uint64_t blocks_bytes = 0;
    struct err none;

    if (r == NULL)
        return err_sys(e, "getting memory");
    r->d = d;
    r->index_fd = r->blocks_fd = r->digests_fd = -1;
    r->staged = r->staged_held = PATCH_CURSOR_EMPTY;
    r->blocks = shape_blocks(d->shape);
    r->old_blocks = shape_blocks(d->old);
    r->since_ms = io_clock_ms();
    r->base = (struct sink){ .ops = &ops,
                             .capacity_bytes = d->shape.capacity_bytes,
                             .block_bytes = d->shape.block_bytes,
                             .secret = d->secret };
    names_of(&r->names, d->state.number);
    d->changed_bytes = 0;
    d->state.resumed = redo_take_over(r, &blocks_bytes, &none) == 0;
    if (d->state.resumed) {
        if (open_cursors(r, blocks_bytes, e) != 0)
            goto fail;
    } else if (drop_files(&d->m->store, &r->names, e) != 0) {
        goto fail;
    }
    if (open_files(r, blocks_bytes, e) != 0)
        goto fail;
    *out = &r->base;
    return 0;

fail:
    d->failed = true; /* nothing to make durable */
    redo_close(&r->base);
    return -1;
}
