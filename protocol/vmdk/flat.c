/* Extents without tables: a flat file, and zeros without a file. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/extent_file.h"

struct flat {
    struct extent_file x;
    uint64_t start_bytes;
};

static int flat_run_at(struct extent_file *x, uint64_t at, uint64_t limit, bool places,
                       struct run *out, struct err *e)
{
    uint64_t file_bytes = ((struct flat *)x)->start_bytes + at;
    struct extent found;

    if (places) { /* to be read: holes are zeros, and looking for them is dearer than reading */
        *out = (struct run){ limit, file_bytes, EXTENT_DATA };
        return 0;
    }
    if (source_extent_at(x->file, file_bytes, &found, e) != 0)
        return -1;
    if (found.length_bytes == 0 || found.kind == EXTENT_PARENT || found.kind == EXTENT_KEPT)
        return err_set(e, ERR_CORRUPT, "the map of the file is wrong at byte %" PRIu64, file_bytes);
    *out = (struct run){ min_u64(found.length_bytes, limit), file_bytes, found.kind };
    return 0;
}

static int flat_read(struct extent_file *x, uint64_t at, const struct run *r, void *out,
                     size_t count, struct err *e)
{
    (void)at;
    return source_read(x->file, r->file_bytes, out, count, e);
}

static int flat_visit(struct extent_file *x, struct visitor *v, struct err *e)
{
    for (uint64_t at = 0; at < x->capacity_bytes;) {
        struct run r = { 0 };

        if (flat_run_at(x, at, x->capacity_bytes - at, false, &r, e) != 0)
            return -1;
        if (r.kind == EXTENT_DATA)
            v->data_bytes += r.length_bytes;
        else
            v->zero_bytes += r.length_bytes;
        at += r.length_bytes;
    }
    return 0;
}

static void flat_close(struct extent_file *x)
{
    free(x);
}

static const struct extent_file_ops flat_ops = { flat_run_at, flat_read, flat_visit, flat_close };

int flat_open(struct extent_file **out, const struct extent_plan *p, struct err *e)
{
    uint64_t size = p->file->capacity_bytes, end;
    struct flat *f;

    if (!checked_add(p->start_bytes, p->capacity_bytes, &end) || end > size)
        return err_set(e, ERR_CORRUPT,
                       "the file has %" PRIu64 " bytes, its extent needs %" PRIu64
                       " from byte %" PRIu64,
                       size, p->capacity_bytes, p->start_bytes);
    if (p->exact_size && end != size)
        return err_set(e, ERR_CORRUPT, "the file has %" PRIu64 " bytes, its extent %" PRIu64, size,
                       p->capacity_bytes);
    f = calloc(1, sizeof *f);
    if (f == NULL)
        return err_sys(e, "opening a flat extent");
    f->x = (struct extent_file){ &flat_ops, "flat", p->file, p->capacity_bytes, 0 };
    f->start_bytes = p->start_bytes;
    *out = &f->x;
    return 0;
}

static int zero_run_at(struct extent_file *x, uint64_t at, uint64_t limit, bool places,
                       struct run *out, struct err *e)
{
    (void)x;
    (void)at;
    (void)places;
    (void)e;
    *out = (struct run){ limit, 0, EXTENT_ZERO };
    return 0;
}

static int zero_read(struct extent_file *x, uint64_t at, const struct run *r, void *out,
                     size_t count, struct err *e)
{
    (void)x;
    (void)at;
    (void)r;
    (void)e;
    memset(out, 0, count);
    return 0;
}

static int zero_visit(struct extent_file *x, struct visitor *v, struct err *e)
{
    (void)e;
    v->zero_bytes += x->capacity_bytes;
    return 0;
}

static const struct extent_file_ops zero_ops = { zero_run_at, zero_read, zero_visit, flat_close };

int zero_open(struct extent_file **out, const struct extent_plan *p, struct err *e)
{
    struct extent_file *x = calloc(1, sizeof *x);

    if (x == NULL)
        return err_sys(e, "opening an extent of zeros");
    *x = (struct extent_file){ &zero_ops, "zero", NULL, p->capacity_bytes, 0 };
    *out = x;
    return 0;
}
