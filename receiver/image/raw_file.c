#include "receiver/image/raw_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/digest.h"
#include "protocol/block/source.h"
#include "receiver/base/publish.h"

enum {
    PIECE_BYTES = 1 << 20,
    ZERO_BYTES = 4 << 10, /* zeros among data become holes in blocks of this size */
    GAP_BYTES = 64 << 10, /* zeros between data that are shorter are read with it */
};

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

struct writer {
    struct source *source;
    const struct raw_config *config;
    struct raw_result *result;
    int fd;
    uint8_t *buffer; /* PIECE_BYTES */
};

/* What of a piece is not zero, in as few writes as that takes. */
static int write_piece(struct writer *w, uint64_t offset, size_t count, struct err *e)
{
    size_t at = 0;

    while (at < count) {
        size_t from = at;

        while (at < count && !block_is_zero(w->buffer + at, min_size(ZERO_BYTES, count - at)))
            at += min_size(ZERO_BYTES, count - at);
        if (at > from && io_pwrite_all(w->fd, w->buffer + from, at - from, offset + from, e) != 0)
            return -1;
        w->result->written_bytes += at - from;
        at += min_size(ZERO_BYTES, count - at);
    }
    return 0;
}

static int write_data(struct writer *w, const struct extent *x, struct err *e)
{
    for (uint64_t at = 0; at < x->length_bytes;) {
        size_t count = (size_t)min_u64(PIECE_BYTES, x->length_bytes - at);

        if (source_read(w->source, x->offset_bytes + at, w->buffer, count, e) != 0)
            return -1;
        w->result->read_bytes += count;
        if (write_piece(w, x->offset_bytes + at, count, e) != 0)
            return -1;
        at += count;
        if (w->config->progress != NULL &&
            w->config->progress(w->config->context, x->offset_bytes + at, w->result->read_bytes,
                                e) != 0)
            return -1;
    }
    return 0;
}

/* Short extents are taken together: a chain of small grains has many of them. */
static int next_run(struct writer *w, uint64_t offset, struct extent *out, struct err *e)
{
    struct extent x;

    if (source_extent_at(w->source, offset, out, e) != 0)
        return -1;
    while (out->offset_bytes + out->length_bytes < w->source->capacity_bytes &&
           out->length_bytes < PIECE_BYTES) {
        if (source_extent_at(w->source, out->offset_bytes + out->length_bytes, &x, e) != 0)
            return -1;
        if (x.kind != out->kind && (out->kind != EXTENT_DATA || x.length_bytes >= GAP_BYTES))
            break;
        out->length_bytes += x.length_bytes;
    }
    return 0;
}

static int write_all(struct writer *w, struct err *e)
{
    uint64_t capacity = w->source->capacity_bytes;
    struct extent x;

    for (uint64_t at = 0; at < capacity; at += x.length_bytes) {
        if (next_run(w, at, &x, e) != 0)
            return -1;
        if (x.kind == EXTENT_DATA && write_data(w, &x, e) != 0)
            return -1;
        if (w->config->progress != NULL &&
            w->config->progress(w->config->context, at + x.length_bytes, w->result->read_bytes,
                                e) != 0)
            return -1;
    }
    return 0;
}

/* The folder of path, open, and the name in it. */
static int open_folder(const char *path, int *dir, char **name, struct err *e)
{
    char *copy = strdup(path), *again = strdup(path);
    int rc = -1;

    if (copy == NULL || again == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    if (path[0] == 0 || path[strlen(path) - 1] == '/') {
        err_set(e, ERR_USAGE, "\"%s\" names no file", path);
        goto out;
    }
    *dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*dir < 0) {
        err_sys(e, "its folder");
        goto out;
    }
    *name = strdup(basename(again));
    rc = *name != NULL ? 0 : err_sys(e, "getting memory");

out:
    free(copy);
    free(again);
    return rc;
}

/* Told before the work, not after it. */
static int check_target(int dir, const char *name, bool replace, struct err *e)
{
    struct stat s;

    if (fstatat(dir, name, &s, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : err_sys(e, "looking at it");
    if (!S_ISREG(s.st_mode))
        return err_set(e, ERR_REFUSED, "it is there and is no regular file");
    if (!replace)
        return err_set(e, ERR_REFUSED, "it is there already: name another file, or say --yes");
    return 0;
}

int raw_file_write(struct source *source, const char *path, const struct raw_config *config,
                   struct raw_result *result, struct err *e)
{
    struct writer w = { .source = source, .config = config, .result = result, .fd = -1 };
    struct publish p = PUBLISH_EMPTY;
    char *name = NULL;
    int dir = -1, rc = -1;

    *result = (struct raw_result){ 0 };
    w.buffer = malloc(PIECE_BYTES);
    if (w.buffer == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    if (open_folder(path, &dir, &name, e) != 0 ||
        check_target(dir, name, config->replace, e) != 0 || publish_begin(&p, dir, 0600, e) != 0) {
        err_add(e, "%s", path);
        goto out;
    }
    w.fd = p.fd;
    if (ftruncate(p.fd, (off_t)source->capacity_bytes) != 0) {
        err_sys(e, "%s: making it as long as the disk", path);
        goto out;
    }
    if (write_all(&w, e) != 0)
        goto out;
    if (config->finished != NULL && config->finished(config->context, e) != 0)
        goto out;
    if (publish_commit(&p, name, source->capacity_bytes,
                       config->replace ? PUBLISH_REPLACE : PUBLISH_NEW, e) != 0) {
        err_add(e, "%s", path);
        goto out;
    }
    rc = 0;

out:
    publish_drop(&p);
    io_drop(&dir);
    free(name);
    free(w.buffer);
    return rc;
}
