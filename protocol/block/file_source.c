#include "protocol/block/file_source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/source.h"

struct file_source {
    struct source source;
    int fd;
    bool seeks_holes;
};

static int file_extent_at(struct source *s, uint64_t offset_bytes, struct extent *out,
                          struct err *e)
{
    struct file_source *f = (struct file_source *)s;
    uint64_t end = s->capacity_bytes;
    off_t data, hole;

    *out = (struct extent){ offset_bytes, end - offset_bytes, EXTENT_DATA };
    if (!f->seeks_holes)
        return 0;
    data = lseek(f->fd, (off_t)offset_bytes, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
        out->kind = EXTENT_ZERO; /* a hole up to the end */
        return 0;
    }
    if (data < 0)
        return err_sys(e, "looking for data at byte %" PRIu64, offset_bytes);
    if ((uint64_t)data > offset_bytes) {
        out->kind = EXTENT_ZERO;
        out->length_bytes = min_u64((uint64_t)data, end) - offset_bytes;
        return 0;
    }
    hole = lseek(f->fd, (off_t)offset_bytes, SEEK_HOLE);
    if (hole < 0)
        return err_sys(e, "looking for a hole at byte %" PRIu64, offset_bytes);
    if ((uint64_t)hole > offset_bytes)
        out->length_bytes = min_u64((uint64_t)hole, end) - offset_bytes;
    return 0;
}

static int file_read(struct source *s, uint64_t offset_bytes, void *out, size_t count,
                     struct err *e)
{
    struct file_source *f = (struct file_source *)s;

    if (io_pread_all(f->fd, out, count, offset_bytes, e) == 0)
        return 0;
    e->code = ERR_SOURCE;
    return -1;
}

static void file_close(struct source *s)
{
    struct file_source *f = (struct file_source *)s;

    io_drop(&f->fd);
    free(f);
}

static const struct source_ops file_ops = { file_extent_at, file_read, file_close };

int file_source_take(struct source **out, int *fd, const char *path, uint64_t capacity_bytes,
                     bool *seeks_holes, struct err *e)
{
    struct file_source *f;
    struct stat st;

    if (fstat(*fd, &st) != 0)
        return err_sys(e, "%s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_UNSUPPORTED, "%s is not a regular file", path);
    if (st.st_size <= 0 || (capacity_bytes != 0 && (uint64_t)st.st_size != capacity_bytes))
        return err_set(e, ERR_CORRUPT, "%s has %" PRIu64 " bytes instead of %" PRIu64, path,
                       (uint64_t)st.st_size, capacity_bytes);
    f = calloc(1, sizeof *f);
    if (f == NULL)
        return err_sys(e, "getting memory for a disk");
    f->source.ops = &file_ops;
    f->source.capacity_bytes = (uint64_t)st.st_size;
    f->source.allocated_bytes = min_u64((uint64_t)st.st_blocks * 512, (uint64_t)st.st_size);
    f->fd = *fd;
    *fd = -1;
    f->seeks_holes = lseek(f->fd, 0, SEEK_HOLE) >= 0;
    if (!f->seeks_holes)
        f->source.allocated_bytes = f->source.capacity_bytes;
    *seeks_holes = f->seeks_holes;
    *out = &f->source;
    return 0;
}

int file_source_open(struct source **out, const char *path, uint64_t capacity_bytes,
                     bool *seeks_holes, struct err *e)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int rc;

    if (fd < 0) {
        err_sys(e, "%s", path);
        if (e->os == EBUSY || e->os == ETXTBSY || e->os == EACCES)
            e->code = ERR_SOURCE;
        if (e->os == ELOOP)
            e->code = ERR_UNSUPPORTED;
        return -1;
    }
    rc = file_source_take(out, &fd, path, capacity_bytes, seeks_holes, e);
    io_drop(&fd);
    return rc;
}
