#include "receiver/restore/output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"

enum { PAGE = 4096 };

static const uint8_t zeros[64 << 10];

bool output_takes_one_disk(const char *to)
{
    struct stat s;

    return strcmp(to, "-") == 0 || (stat(to, &s) == 0 && S_ISBLK(s.st_mode));
}

int output_check_one(unsigned count, const char *slot, struct err *e)
{
    if (count == 1)
        return 0;
    if (count > 1)
        return err_set(e, ERR_USAGE, "it has %u disks: say which with --only-disk", count);
    return err_set(e, ERR_NOT_FOUND, "it has no content of a disk%s%s", slot != NULL ? " " : "",
                   slot != NULL ? slot : "");
}

int output_create(struct output *o, int dir, const char *name, uint64_t capacity_bytes,
                  struct err *e)
{
    *o = OUTPUT_EMPTY;
    o->kind = OUTPUT_IMAGE;
    o->name = name;
    o->capacity_bytes = capacity_bytes;
    o->fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (o->fd < 0 || ftruncate(o->fd, (off_t)capacity_bytes) != 0)
        return err_sys(e, "making %s", name);
    return 0;
}

static int open_stream(struct output *o, struct err *e)
{
    struct stat s;
    int flags;

    o->kind = OUTPUT_STREAM;
    o->name = "standard output";
    if (isatty(STDOUT_FILENO))
        return err_set(e, ERR_REFUSED,
                       "standard output is a terminal: redirect it to a file or a pipe");
    o->fd = dup(STDOUT_FILENO);
    if (o->fd < 0 || fstat(o->fd, &s) != 0 || (flags = fcntl(o->fd, F_GETFL)) < 0)
        return err_sys(e, "standard output");
    /* At the end of a file zeros need no writing. */
    o->may_skip =
        S_ISREG(s.st_mode) && (flags & O_APPEND) == 0 && lseek(o->fd, 0, SEEK_CUR) == s.st_size;
    return 0;
}

static int open_device(struct output *o, const char *to, bool force, struct err *e)
{
    uint64_t size;
    int sector = 0;
    struct stat s;

    o->kind = OUTPUT_DEVICE;
    o->name = to;
    if (!force)
        return err_set(e, ERR_REFUSED,
                       "%s is a block device, and all that it holds would be lost: with "
                       "--force-device that is meant",
                       to);
    /* On a block device O_EXCL fails while it, or a part of it, is mounted or in use. */
    o->fd = open(to, O_RDWR | O_EXCL | O_CLOEXEC);
    if (o->fd < 0)
        return errno == EBUSY
                   ? err_set(e, ERR_REFUSED, "%s is mounted or in use: give another device", to)
                   : err_sys(e, "opening %s", to);
    if (fstat(o->fd, &s) != 0 || !S_ISBLK(s.st_mode))
        return err_set(e, ERR_REFUSED, "%s is no block device any more", to);
    if (ioctl(o->fd, BLKGETSIZE64, &size) != 0 || ioctl(o->fd, BLKSSZGET, &sector) != 0)
        return err_sys(e, "asking for the size of %s", to);
    if (size < o->capacity_bytes)
        return err_set(e, ERR_SPACE,
                       "%s has %" PRIu64 " bytes and the disk has %" PRIu64
                       ": give a device that is as large",
                       to, size, o->capacity_bytes);
    o->align_bytes = sector > PAGE ? (uint32_t)sector : PAGE;
    return 0;
}

int output_open(struct output *o, const char *to, bool force_device, uint64_t capacity_bytes,
                struct err *e)
{
    *o = OUTPUT_EMPTY;
    o->capacity_bytes = capacity_bytes;
    return strcmp(to, "-") == 0 ? open_stream(o, e) : open_device(o, to, force_device, e);
}

static int write_on(struct output *o, const void *data, size_t count, struct err *e)
{
    if (io_write_all(o->fd, data, count, e) != 0) {
        if (e->os == EPIPE)
            e->code = ERR_SYSTEM; /* who read it went away: that is no network */
        return err_add(e, "%s", o->name);
    }
    o->position_bytes += count;
    return 0;
}

int output_write(struct output *o, const void *data, size_t count, uint64_t offset_bytes,
                 struct err *e)
{
    atomic_store(&o->dirty, true);
    if (o->kind == OUTPUT_STREAM)
        return write_on(o, data, count, e);
    return io_pwrite_all(o->fd, data, count, offset_bytes, e) == 0 ? 0 : err_add(e, "%s", o->name);
}

/* --- zeros --- */

static int write_zeros(struct output *o, uint64_t offset, uint64_t count, struct err *e)
{
    while (count > 0) {
        size_t now = (size_t)min_u64(count, sizeof zeros);

        if (output_write(o, zeros, now, offset, e) != 0)
            return -1;
        offset += now;
        count -= now;
    }
    return 0;
}

static bool not_offered(int os)
{
    return os == EOPNOTSUPP || os == EINVAL || os == ENOTTY || os == ENOSYS;
}

/* 1: it was done; 0: this device does not do it; -1. */
static int zero_at_once(struct output *o, uint64_t offset, uint64_t count, struct err *e)
{
    uint64_t range[2] = { offset, count };

    /* The kernel promises zeros for both, unlike for BLKDISCARD; the first gives room back. */
    if (!atomic_load(&o->no_punch)) {
        if (fallocate(o->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                      (off_t)count) == 0)
            return 1;
        if (!not_offered(errno))
            return err_sys(e, "%s: writing zeros", o->name);
        atomic_store(&o->no_punch, true);
    }
    if (!atomic_load(&o->no_zeroing)) {
        if (ioctl(o->fd, BLKZEROOUT, range) == 0)
            return 1;
        if (!not_offered(errno))
            return err_sys(e, "%s: writing zeros", o->name);
        atomic_store(&o->no_zeroing, true);
    }
    return 0;
}

static int zero_device(struct output *o, uint64_t offset, uint64_t count, struct err *e)
{
    uint64_t end = offset + count;

    atomic_store(&o->dirty, true);
    while (offset < end) {
        uint64_t now = min_u64(end - offset, OUTPUT_ZEROS_BYTES);
        int rc = 0;

        if (offset % o->align_bytes != 0)
            now = min_u64(now, o->align_bytes - offset % o->align_bytes);
        else if (now >= o->align_bytes)
            rc = zero_at_once(o, offset, now -= now % o->align_bytes, e);
        if (rc < 0 || (rc == 0 && write_zeros(o, offset, now, e) != 0))
            return -1;
        offset += now;
    }
    return 0;
}

static int zero_stream(struct output *o, uint64_t offset, uint64_t count, struct err *e)
{
    off_t at;

    if (!o->may_skip)
        return write_zeros(o, offset, count, e);
    at = lseek(o->fd, 0, SEEK_CUR);
    if (at < 0 || ftruncate(o->fd, at + (off_t)count) != 0 ||
        lseek(o->fd, (off_t)count, SEEK_CUR) < 0)
        return err_sys(e, "%s: making a hole", o->name);
    o->position_bytes += count;
    return 0;
}

int output_zeros(struct output *o, uint64_t offset_bytes, uint64_t count, struct err *e)
{
    switch (o->kind) {
    case OUTPUT_DEVICE:
        return zero_device(o, offset_bytes, count, e);
    case OUTPUT_STREAM:
        return zero_stream(o, offset_bytes, count, e);
    default:
        return 0; /* a new image is all holes */
    }
}

/* --- the end --- */

/* A pipe has nothing that could be made durable. */
static int sync_stream(struct output *o, struct err *e)
{
    if (o->position_bytes != o->capacity_bytes)
        return err_set(e, ERR_CORRUPT, "%s: %" PRIu64 " bytes of %" PRIu64 " were written", o->name,
                       o->position_bytes, o->capacity_bytes);
    if (fsync(o->fd) != 0 && errno != EINVAL && errno != EROFS && errno != ENOTSUP)
        return err_sys(e, "%s: making it durable", o->name);
    return 0;
}

int output_finish(struct output *o, struct err *e)
{
    int rc = o->kind == OUTPUT_STREAM ? sync_stream(o, e) : io_sync(o->fd, e);

    if (rc != 0 || io_close(&o->fd, e) != 0)
        return o->kind == OUTPUT_STREAM ? -1 : err_add(e, "%s", o->name);
    return 0;
}

void output_drop(struct output *o, bool failed, struct err *e)
{
    io_drop(&o->fd);
    if (failed && o->kind != OUTPUT_IMAGE && atomic_load(&o->dirty))
        err_add(e, "%s got a part of the disk only", o->name);
}
