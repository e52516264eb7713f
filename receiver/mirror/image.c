#include "receiver/mirror/image.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/tree.h"
#include "receiver/mirror/mirror.h"
#include "receiver/mirror/patch.h"

/* --- sparse files --- */

uint64_t file_next_data(int fd, uint64_t at, uint64_t end)
{
    off_t found;

    if (at >= end)
        return end;
    found = lseek(fd, (off_t)at, SEEK_DATA);
    if (found < 0)
        return errno == ENXIO ? end : at; /* where it is not supported, all may be data */
    return min_u64((uint64_t)found, end);
}

uint64_t file_hole_bytes(int fd, uint64_t at, uint64_t length, struct data_run *known)
{
    uint64_t end = at + length;
    uint64_t holes = 0;

    while (at < end) {
        off_t hole;

        if (at < known->from || at >= known->to) {
            uint64_t data = file_next_data(fd, at, end);

            holes += data - at;
            if (data >= end)
                break;
            hole = lseek(fd, (off_t)data, SEEK_HOLE);
            if (hole < 0 || (uint64_t)hole <= data)
                break; /* where it is not supported, all is data */
            *known = (struct data_run){ data, (uint64_t)hole };
        }
        at = known->to;
    }
    return holes;
}

static int write_zeros(int fd, uint64_t at, uint64_t length, struct err *e)
{
    static const uint8_t zeros[64 << 10];

    while (length > 0) {
        size_t count = (size_t)min_u64(length, sizeof zeros);

        if (io_pwrite_all(fd, zeros, count, at, e) != 0)
            return -1;
        at += count;
        length -= count;
    }
    return 0;
}

int file_punch(int fd, uint64_t at, uint64_t length, struct err *e)
{
    if (length == 0)
        return 0;
    while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)length) !=
           0) {
        if (errno == EINTR)
            continue;
        if (errno == EOPNOTSUPP || errno == ENOSYS)
            return write_zeros(fd, at, length, e);
        return err_sys(e, "making a hole at byte %" PRIu64, at);
    }
    return 0;
}

int file_read_padded(int fd, void *out, size_t count, uint64_t at, uint64_t file_bytes,
                     struct err *e)
{
    size_t there = at >= file_bytes ? 0 : (size_t)min_u64(count, file_bytes - at);

    memset((uint8_t *)out + there, 0, count - there);
    return there > 0 ? io_pread_all(fd, out, there, at, e) : 0;
}

/* --- digest arrays --- */

int digests_read(int fd, uint64_t blocks, uint64_t first, size_t count, struct digest *out,
                 struct err *e)
{
    return file_read_padded(fd, out, count * DIGEST_BYTES, first * DIGEST_BYTES,
                            blocks * DIGEST_BYTES, e);
}

uint64_t digests_next_data(int fd, uint64_t first, uint64_t blocks)
{
    return file_next_data(fd, first * DIGEST_BYTES, blocks * DIGEST_BYTES) / DIGEST_BYTES;
}

int digest_writer_flush(struct digest_writer *w, struct err *e)
{
    size_t count = w->count;

    w->count = 0;
    if (count == 0)
        return 0;
    return io_pwrite_all(w->fd, w->d, count * DIGEST_BYTES, w->first * DIGEST_BYTES, e);
}

int digest_put(struct digest_writer *w, uint64_t block, const struct digest *d, struct err *e)
{
    if (w->count == DIGEST_WINDOW || (w->count > 0 && block != w->first + w->count))
        if (digest_writer_flush(w, e) != 0)
            return -1;
    if (w->count == 0)
        w->first = block;
    w->d[w->count++] = *d;
    return 0;
}

int digest_put_zeros(struct digest_writer *w, uint64_t block, uint64_t count, struct err *e)
{
    if (digest_writer_flush(w, e) != 0)
        return -1;
    return file_punch(w->fd, block * DIGEST_BYTES, count * DIGEST_BYTES, e);
}

/* Put the entries of `over` that touch [first, first + count) over d. */
static int overlay(struct patch_cursor *over, uint64_t first, size_t count, struct digest *d,
                   struct err *e)
{
    while (over != NULL && over->have && over->entry.block < first + count) {
        const struct patch_entry *n = &over->entry;
        uint64_t from = max_u64(n->block, first);
        uint64_t to = min_u64(n->block + n->count, first + count);

        for (uint64_t b = from; b < to; b++)
            d[b - first] = n->digest;
        if (n->block + n->count > first + count)
            break;
        if (patch_step(over, e) != 0)
            return -1;
    }
    return 0;
}

int digests_root(int fd, uint64_t base_blocks, struct patch_cursor *over, struct shape shape,
                 const struct digest_secret *secret, const struct mirror_env *env,
                 struct digest *out, struct err *e)
{
    uint64_t blocks = shape_blocks(shape);
    struct digest d[DIGEST_WINDOW];
    struct tree *t = NULL;
    uint64_t at = 0;
    int rc = -1;

    base_blocks = min_u64(base_blocks, blocks);
    if (tree_new(&t, secret, shape.capacity_bytes, shape.block_bytes, e) != 0)
        return -1;
    while (at < blocks) {
        uint64_t next = digests_next_data(fd, at, base_blocks);
        size_t count;

        if (next >= base_blocks)
            next = blocks;
        if (over != NULL && over->have)
            next = min_u64(next, max_u64(over->entry.block, at));
        if (tree_add_zeros(t, next - at, e) != 0)
            goto out;
        at = next;
        if (at == blocks)
            break;
        count = (size_t)min_u64(DIGEST_WINDOW, blocks - at);
        if (env_check(env, e) != 0 || digests_read(fd, base_blocks, at, count, d, e) != 0 ||
            overlay(over, at, count, d, e) != 0 || tree_add(t, d, count, e) != 0)
            goto out;
        at += count;
    }
    rc = tree_root(t, out, e);

out:
    tree_free(t);
    return rc;
}

/* --- bitmap --- */

int bitmap_new(struct bitmap *b, int dir, struct err *e)
{
    b->fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (b->fd < 0) {
        /* File systems without O_TMPFILE: a name for a moment. */
        static const char name[] = "scratch";

        b->fd = openat(dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (b->fd < 0 || unlinkat(dir, name, 0) != 0)
            return err_sys(e, "making a scratch file");
    }
    return 0;
}

int bitmap_set(struct bitmap *b, uint64_t block, struct err *e)
{
    uint8_t byte = 0;

    if (pread(b->fd, &byte, 1, (off_t)(block / 8)) < 0)
        return err_sys(e, "reading a scratch file");
    byte = (uint8_t)(byte | 1u << (block % 8));
    return io_pwrite_all(b->fd, &byte, 1, block / 8, e);
}

int bitmap_get(const struct bitmap *b, uint64_t block, bool *set, uint64_t *run, struct err *e)
{
    uint8_t bytes[512];
    ssize_t got;
    uint64_t bit = block % 8, n = 0;

    *set = false;
    if (run != NULL)
        *run = sizeof bytes * 8;
    if (b->fd < 0)
        return 0;
    got = pread(b->fd, bytes, run != NULL ? sizeof bytes : 1, (off_t)(block / 8));
    if (got < 0)
        return err_sys(e, "reading a scratch file");
    if (got == 0)
        return 0;
    *set = bytes[0] >> bit & 1;
    if (run == NULL)
        return 0;
    while (bit + n < (uint64_t)got * 8 && (bytes[(bit + n) / 8] >> ((bit + n) % 8) & 1) == *set)
        n++;
    *run = n;
    return 0;
}

void bitmap_free(struct bitmap *b)
{
    io_drop(&b->fd);
}

/* --- proof --- */

/* One window of digests against the image. */
static int prove_window(struct prove *p, uint64_t first, size_t count, uint8_t *block,
                        struct err *e)
{
    struct digest d[DIGEST_WINDOW];
    uint64_t end = p->shape.capacity_bytes;

    if (digests_read(p->digests_fd, p->base_blocks, first, count, d, e) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        uint64_t at = (first + i) * p->shape.block_bytes;
        size_t bytes = shape_block_bytes(p->shape, first + i);
        bool hole;
        struct digest is = { { 0 } };

        if ((first + i) / SLICE_UNIT % p->n != p->k - 1)
            continue;
        if (env_check(p->env, e) != 0)
            return -1;
        hole = file_next_data(p->image_fd, at, end) >= at + bytes;
        if (!hole) {
            if (file_read_padded(p->image_fd, block, bytes, at, p->image_bytes, e) != 0)
                return -1;
            p->read_bytes += bytes;
            is = digest_of(p->secret, block, bytes);
        }
        if (!digest_equal(&is, &d[i]) && p->differs(p->context, first + i, 1, e) != 0)
            return -1;
    }
    return 0;
}

static bool past(const struct prove *p)
{
    return p->deadline_ms != 0 && io_clock_ms() >= p->deadline_ms;
}

/* Windows [from, to) of the disk; windows where neither file has data are equal unread. */
static int prove_range(struct prove *p, uint64_t from, uint64_t to, uint8_t *block, struct err *e)
{
    uint64_t blocks = shape_blocks(p->shape);

    for (uint64_t w = from; w < to && !past(p); w++) {
        uint64_t first = w * DIGEST_WINDOW;
        uint64_t data =
            file_next_data(p->image_fd, first * p->shape.block_bytes, p->shape.capacity_bytes) /
            p->shape.block_bytes;
        uint64_t next = digests_next_data(p->digests_fd, first, p->base_blocks);
        uint64_t skip;

        if (next >= p->base_blocks)
            next = blocks;
        skip = min_u64(data, next) / DIGEST_WINDOW;
        if (skip > w) {
            w = skip;
            if (w >= to)
                break;
            first = w * DIGEST_WINDOW;
        }
        if (first >= blocks)
            break;
        env_progress(p->env, p->what, first * p->shape.block_bytes, p->shape.capacity_bytes);
        if (prove_window(p, first, (size_t)min_u64(DIGEST_WINDOW, blocks - first), block, e) != 0)
            return -1;
    }
    return 0;
}

int image_prove(struct prove *p, struct err *e)
{
    uint64_t windows = (shape_blocks(p->shape) + DIGEST_WINDOW - 1) / DIGEST_WINDOW;
    uint64_t start = windows > 0 ? p->first_block / DIGEST_WINDOW % windows : 0;
    uint8_t *block = malloc(p->shape.block_bytes);
    struct stat s;
    int rc;

    if (block == NULL)
        return err_sys(e, "getting memory for a block");
    if (fstat(p->image_fd, &s) != 0) {
        free(block);
        return err_sys(e, "looking at it");
    }
    p->image_bytes = (uint64_t)s.st_size; /* a file that was cut reads as zeros behind its end */
    /* What we wrote ourselves a moment ago would come from the cache and prove little. */
    posix_fadvise(p->image_fd, 0, 0, POSIX_FADV_DONTNEED);
    rc = prove_range(p, start, windows, block, e);
    if (rc == 0)
        rc = prove_range(p, 0, start, block, e);
    if (rc == 0)
        env_progress(p->env, p->what, p->shape.capacity_bytes, p->shape.capacity_bytes);
    free(block);
    return rc;
}

/* --- surroundings --- */

int env_check(const struct mirror_env *env, struct err *e)
{
    if (env->stop != NULL && atomic_load_explicit(env->stop, memory_order_relaxed))
        return err_set(e, ERR_STOPPED, "stopped");
    return 0;
}

void env_warn(const struct mirror_env *env, const char *format, ...)
{
    char text[640];
    va_list args;

    if (env->warn == NULL)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    env->warn(env->context, text);
}

void env_progress(const struct mirror_env *env, const char *what, uint64_t done, uint64_t total)
{
    if (env->progress != NULL && what != NULL)
        env->progress(env->context, what, done, total);
}
