/*
 * The sink of a disk that no generation has yet: its image grows in the store folder and appears
 * with the commit.  Holes of the image are its zeros.  What a run before made durable is held by
 * digests computed from the image itself, so whatever a crash left there cannot be taken for
 * something else.
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
#include "receiver/mirror/run.h"

enum { HELD_READ_BYTES = 4 << 20 };

struct fresh_sink {
    struct sink base;
    struct run_disk *d;
    int image_fd, digests_fd;
    char image[LAYOUT_NAME_ROOM], digests[LAYOUT_NAME_ROOM], checkpoint[LAYOUT_NAME_ROOM];
    struct digest_writer writer;
    uint8_t *buffer;      /* one block */
    uint64_t staged;      /* blocks before it came in a run before */
    uint64_t held_to;     /* blocks before it have their digests in the file */
    uint64_t position;    /* blocks before it have come in this run */
    uint64_t since_bytes; /* written since the last checkpoint */
    uint64_t since_ms;
};

static struct fresh_sink *fresh_of(struct sink *s)
{
    return (struct fresh_sink *)(void *)s;
}

static void names_of(uint64_t number, char image[LAYOUT_NAME_ROOM], char digests[LAYOUT_NAME_ROOM],
                     char checkpoint[LAYOUT_NAME_ROOM])
{
    layout_name(image, "image-%" PRIu64 ".raw", number);
    layout_name(digests, "image-%" PRIu64 ".digests", number);
    layout_name(checkpoint, "image-%" PRIu64 ".checkpoint", number);
}

int fresh_drop(struct store *s, uint64_t number, struct err *e)
{
    char image[LAYOUT_NAME_ROOM], digests[LAYOUT_NAME_ROOM], checkpoint[LAYOUT_NAME_ROOM];
    char disk[LAYOUT_NAME_ROOM];

    names_of(number, image, digests, checkpoint);
    layout_name(disk, "image-%" PRIu64 ".disk", number);
    /* The checkpoint first: without it nothing else counts. */
    if (file_remove(s->store_fd, checkpoint, e) != 0 || io_sync(s->store_fd, e) != 0 ||
        file_remove(s->store_fd, image, e) != 0 || file_remove(s->store_fd, digests, e) != 0)
        return -1;
    return file_remove(s->store_fd, disk, e);
}

/* --- durability --- */

static int checkpoint(struct fresh_sink *f, struct err *e)
{
    struct checkpoint c = { .position = max_u64(f->position, f->staged) };

    if (digest_writer_flush(&f->writer, e) != 0 || io_sync(f->image_fd, e) != 0 ||
        io_sync(f->digests_fd, e) != 0 || checkpoint_save(f->d, f->checkpoint, &c, e) != 0)
        return -1;
    f->since_bytes = 0;
    f->since_ms = io_clock_ms();
    return 0;
}

static int advance(struct fresh_sink *f, uint64_t position, uint64_t written, struct err *e)
{
    f->position = position;
    f->since_bytes += written;
    if (f->since_bytes < CHECKPOINT_BYTES && io_clock_ms() - f->since_ms < CHECKPOINT_MS)
        return 0;
    return checkpoint(f, e);
}

static int fail(struct fresh_sink *f, struct err *e)
{
    f->d->failed = true;
    return err_add(e, "%s", f->d->state.file);
}

/* --- what is held --- */

/* Digest blocks [first, first + count) from the image and note them. */
static int redigest(struct fresh_sink *f, uint64_t first, uint64_t count, struct digest *out,
                    struct err *e)
{
    struct shape shape = f->d->shape;

    for (uint64_t i = 0; i < count; i++) {
        size_t bytes = shape_block_bytes(shape, first + i);
        struct digest d;

        if (io_pread_all(f->image_fd, f->buffer, bytes, (first + i) * shape.block_bytes, e) != 0)
            return -1;
        d = digest_of(&f->base.secret, f->buffer, bytes);
        if (digest_put(&f->writer, first + i, &d, e) != 0)
            return -1;
        if (out != NULL)
            out[i] = d;
    }
    return digest_writer_flush(&f->writer, e);
}

static int held_zeros(struct fresh_sink *f, uint64_t first, uint64_t count, struct held *out,
                      struct err *e)
{
    out->kind = HELD_ZERO;
    out->length_bytes = shape_run_bytes(f->d->shape, first, count);
    if (digest_writer_flush(&f->writer, e) != 0 ||
        digest_put_zeros(&f->writer, first, count, e) != 0)
        return fail(f, e);
    f->held_to = max_u64(f->held_to, first + count);
    return 0;
}

static int fresh_held(struct sink *s, uint64_t offset_bytes, uint64_t limit_bytes,
                      struct digest *digests, size_t room, struct held *out, struct err *e)
{
    struct fresh_sink *f = fresh_of(s);
    struct shape shape = f->d->shape;
    uint64_t first = offset_bytes / shape.block_bytes;
    uint64_t end = min_u64(offset_bytes + min_u64(limit_bytes, shape.capacity_bytes - offset_bytes),
                           shape.capacity_bytes);
    uint64_t count = block_count_of(end, shape.block_bytes) - first;
    uint64_t data;

    out->offset_bytes = offset_bytes;
    if (first >= f->staged || count == 0) {
        out->kind = HELD_UNKNOWN;
        out->length_bytes = shape_run_bytes(shape, first, count);
        return 0;
    }
    count = min_u64(count, f->staged - first);
    data = file_next_data(f->image_fd, offset_bytes, shape.capacity_bytes);
    data = data == shape.capacity_bytes ? shape_blocks(shape) : data / shape.block_bytes;
    if (data > first)
        return held_zeros(f, first, min_u64(count, data - first), out, e);
    count = min_u64(min_u64(count, room), max_u64(HELD_READ_BYTES / shape.block_bytes, 1));
    if (redigest(f, first, count, digests, e) != 0)
        return fail(f, e);
    f->held_to = max_u64(f->held_to, first + count);
    out->kind = HELD_DIGESTS;
    out->length_bytes = shape_run_bytes(shape, first, count);
    return 0;
}

/* --- what comes --- */

static int fresh_same(struct sink *s, uint64_t offset_bytes, uint64_t length_bytes, struct err *e)
{
    struct fresh_sink *f = fresh_of(s);
    uint32_t size = f->d->shape.block_bytes;
    uint64_t first = offset_bytes / size;
    uint64_t end = block_count_of(offset_bytes + length_bytes, size);

    if (end > f->staged) {
        err_set(e, ERR_PEER, "block %" PRIu64 " is called the same, but is not held", f->staged);
        return fail(f, e);
    }
    if (end > f->held_to) {
        uint64_t from = max_u64(first, f->held_to);

        if (redigest(f, from, end - from, NULL, e) != 0)
            return fail(f, e);
        f->held_to = end;
    }
    return advance(f, end, 0, e) == 0 ? 0 : fail(f, e);
}

static int fresh_zero(struct sink *s, uint64_t offset_bytes, uint64_t length_bytes, struct err *e)
{
    struct fresh_sink *f = fresh_of(s);
    uint32_t size = f->d->shape.block_bytes;
    uint64_t first = offset_bytes / size;
    uint64_t end = block_count_of(offset_bytes + length_bytes, size);
    uint64_t to = min_u64(end, f->staged);

    /* Behind what is staged the file has only holes; before it older content may stand. */
    if (first < to) {
        if (file_punch(f->image_fd, offset_bytes, shape_run_bytes(f->d->shape, first, to - first),
                       e) != 0 ||
            digest_put_zeros(&f->writer, first, to - first, e) != 0)
            return fail(f, e);
        f->held_to = max_u64(f->held_to, to);
    }
    return advance(f, end, 0, e) == 0 ? 0 : fail(f, e);
}

static int fresh_data(struct sink *s, const struct sink_block *b, struct err *e)
{
    struct fresh_sink *f = fresh_of(s);
    uint64_t block = b->offset_bytes / f->d->shape.block_bytes;

    if (io_pwrite_all(f->image_fd, b->plain, b->plain_bytes, b->offset_bytes, e) != 0 ||
        digest_put(&f->writer, block, &b->digest, e) != 0 ||
        advance(f, block + 1, b->plain_bytes, e) != 0)
        return fail(f, e);
    f->held_to = max_u64(f->held_to, min_u64(block + 1, f->staged));
    return 0;
}

/* Bytes of blocks that are not zeros: all of them are new to the store. */
static int count_stored(struct fresh_sink *f, uint64_t *out, struct err *e)
{
    uint64_t blocks = shape_blocks(f->d->shape);
    struct digest d[DIGEST_WINDOW];
    uint64_t at = 0;

    *out = 0;
    while ((at = digests_next_data(f->digests_fd, at, blocks)) < blocks) {
        size_t count = (size_t)min_u64(DIGEST_WINDOW, blocks - at);

        if (digests_read(f->digests_fd, blocks, at, count, d, e) != 0)
            return -1;
        for (size_t i = 0; i < count; i++)
            if (!digest_is_zero(&d[i]))
                *out += shape_block_bytes(f->d->shape, at + i);
        at += count;
    }
    return 0;
}

static int fresh_end(struct sink *s, const struct digest *root, struct err *e)
{
    struct fresh_sink *f = fresh_of(s);
    struct run_disk *d = f->d;
    uint64_t blocks = shape_blocks(d->shape);
    struct digest is;

    if (f->position < blocks && f->held_to < min_u64(blocks, f->staged) &&
        redigest(f, f->held_to, min_u64(blocks, f->staged) - f->held_to, NULL, e) != 0)
        return fail(f, e);
    f->position = blocks;
    if (digest_writer_flush(&f->writer, e) != 0 ||
        digests_root(f->digests_fd, blocks, NULL, d->shape, &d->secret, &d->m->store.env, &is, e) !=
            0 ||
        count_stored(f, &d->changed_bytes, e) != 0)
        return fail(f, e);
    if (!digest_equal(&is, root)) {
        err_set(e, ERR_CORRUPT, "the image is not what the other end sent: the roots differ");
        return fail(f, e);
    }
    if (fchmod(f->image_fd, 0444) != 0) {
        err_sys(e, "making the image read-only");
        return fail(f, e);
    }
    if (checkpoint(f, e) != 0)
        return fail(f, e);
    d->stored_bytes = d->changed_bytes;
    d->root = *root;
    d->ended = true;
    return 0;
}

static void fresh_close(struct sink *s)
{
    struct fresh_sink *f = fresh_of(s);
    struct err e;

    if (!f->d->failed && !f->d->ended && f->image_fd >= 0 && f->digests_fd >= 0 &&
        checkpoint(f, &e) != 0)
        env_warn(&f->d->m->store.env, "%s: %s", f->d->state.file, e.text);
    f->d->sink_open = false;
    io_drop(&f->image_fd);
    io_drop(&f->digests_fd);
    free(f->buffer);
    free(f);
}

/* --- opening --- */

/* Open or make a file of `keep` bytes of old content, holes behind them, and `size` bytes in all.
 */
static int open_sparse(int dir, const char *name, uint64_t keep, uint64_t size, struct err *e)
{
    int fd;

    /* A disk that had ended is read-only already. */
    if (fchmodat(dir, name, 0600, 0) != 0 && errno != ENOENT) {
        err_sys(e, "making %s writable", name);
        return -1;
    }
    fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        err_sys(e, "creating %s", name);
        return -1;
    }
    if (ftruncate(fd, (off_t)min_u64(keep, size)) != 0 || ftruncate(fd, (off_t)size) != 0 ||
        fchmod(fd, 0600) != 0) {
        err_sys(e, "setting the size of %s", name);
        io_drop(&fd);
    }
    return fd;
}

static int open_files(struct fresh_sink *f, struct err *e)
{
    struct store *s = &f->d->m->store;
    uint64_t blocks = shape_blocks(f->d->shape);
    struct checkpoint c = { 0 };
    struct err none;

    if (checkpoint_load(f->d, f->checkpoint, &c, &none) != 0 ||
        !folder_has(s->store_fd, f->image)) {
        c.position = 0;
        if (file_remove(s->store_fd, f->checkpoint, e) != 0 || io_sync(s->store_fd, e) != 0)
            return -1;
    }
    f->staged = c.position;
    f->d->state.resumed = f->staged > 0;
    f->image_fd = open_sparse(s->store_fd, f->image, f->staged * f->d->shape.block_bytes,
                              f->d->shape.capacity_bytes, e);
    f->digests_fd = f->image_fd < 0 ? -1
                                    : open_sparse(s->store_fd, f->digests, f->staged * DIGEST_BYTES,
                                                  blocks * DIGEST_BYTES, e);
    if (f->digests_fd < 0)
        return -1;
    f->writer.fd = f->digests_fd;
    return io_sync(s->store_fd, e);
}

int fresh_sink_new(struct run_disk *d, struct sink **out, struct err *e)
{
    static const struct sink_ops ops = { fresh_held, fresh_same, fresh_zero,
                                         fresh_data, fresh_end,  fresh_close };
    struct fresh_sink *f = calloc(1, sizeof *f);

    if (f == NULL)
        return err_sys(e, "getting memory");
    f->d = d;
    f->image_fd = f->digests_fd = -1;
    f->since_ms = io_clock_ms();
    f->base = (struct sink){ .ops = &ops,
                             .capacity_bytes = d->shape.capacity_bytes,
                             .block_bytes = d->shape.block_bytes,
                             .secret = d->secret };
    names_of(d->state.number, f->image, f->digests, f->checkpoint);
    f->buffer = malloc(d->shape.block_bytes);
    if (f->buffer == NULL) {
        err_sys(e, "getting memory for a block");
        goto fail;
    }
    if (open_files(f, e) != 0)
        goto fail;
    *out = &f->base;
    return 0;

fail:
    d->failed = true; /* nothing to make durable */
    fresh_close(&f->base);
    return -1;
}
