/*
 * Stands in for protocol/block/file_source.c in the agent of tests/faults: disks of any size whose
 * content is computed.  The path says which:
 *
 *     /stub/full/N     every page of 4 KiB holds something, the same each 1 MiB; N places spread
 *                      over the disk (N > 0: 10 of them) hold something that only N has
 *     /stub/sparse/N   ten blocks, spread over the disk, hold something that only N has
 */
#include "protocol/block/file_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "tests/faults/stub_source.h"

enum { PAGE = 4096, PERIOD = 1 << 20, TAG_BYTES = 8 };

struct stub {
    struct source source;
    struct stub_disk disk;
    uint8_t period[PERIOD];
};

/* --- content, also for those who check what came --- */

bool stub_is_special(const struct stub_disk *d, uint64_t page)
{
    uint64_t pages = d->capacity_bytes / PAGE, step = pages / STUB_PLACES;

    return d->version > 0 && page % step == step / 2 && page / step < STUB_PLACES;
}

void stub_page(const struct stub_disk *d, uint64_t page, uint8_t out[PAGE])
{
    uint64_t tag = page % (PERIOD / PAGE) + 1;

    if (stub_is_special(d, page))
        tag = UINT64_C(1) << 60 | d->version << 52 | page;
    else if (!d->full)
        tag = 0;
    for (size_t i = 0; i < PAGE; i += sizeof tag)
        memcpy(out + i, &tag, sizeof tag);
}

/* --- the source --- */

static int stub_extent(struct source *s, uint64_t offset, struct extent *out, struct err *e)
{
    struct stub *st = (struct stub *)s;
    uint64_t pages = s->capacity_bytes / PAGE, step = pages / STUB_PLACES;
    uint64_t page = offset / PAGE, next = page / step * step + step / 2;

    (void)e;
    *out = (struct extent){ .offset_bytes = offset,
                            .length_bytes = s->capacity_bytes - offset,
                            .kind = EXTENT_DATA };
    if (st->disk.full)
        return 0;
    if (page > next)
        next += step;
    if (page == next) {
        out->length_bytes = (page + 1) * PAGE - offset;
        return 0;
    }
    out->kind = EXTENT_ZERO;
    if (next < pages && next / step < STUB_PLACES)
        out->length_bytes = next * PAGE - offset;
    return 0;
}

/*
 * A buffer that was filled before still has its pages' tags: writing them again would cost more
 * than the digests that are to be measured.
 */
static void give_page(const struct stub *st, uint64_t page, uint8_t *out)
{
    const uint8_t *plain = st->period + page % (PERIOD / PAGE) * PAGE;

    if (stub_is_special(&st->disk, page))
        stub_page(&st->disk, page, out);
    else if (memcmp(out, plain, TAG_BYTES) != 0 ||
             memcmp(out + PAGE - TAG_BYTES, plain, TAG_BYTES) != 0)
        memcpy(out, plain, PAGE);
}

static int stub_read(struct source *s, uint64_t offset, void *out, size_t count, struct err *e)
{
    const struct stub *st = (const struct stub *)s;
    uint8_t *at = out;

    if (offset % PAGE != 0 || count % PAGE != 0)
        return err_set(e, ERR_SOURCE, "the stub reads whole pages");
    for (size_t i = 0; i < count; i += PAGE)
        give_page(st, (offset + i) / PAGE, at + i);
    return 0;
}

static void stub_close(struct source *s)
{
    free(s);
}

int file_source_open(struct source **out, const char *path, uint64_t capacity_bytes,
                     bool *seeks_holes, struct err *e)
{
    static const struct source_ops ops = { stub_extent, stub_read, stub_close };
    struct stub *st = calloc(1, sizeof *st);
    char kind[16];
    unsigned version;

    if (st == NULL)
        return err_sys(e, "opening a stub");
    if (sscanf(path, "/stub/%15[a-z]/%u", kind, &version) != 2 ||
        capacity_bytes < PAGE * STUB_PLACES || capacity_bytes % PERIOD != 0) {
        free(st);
        return err_set(e, ERR_NOT_FOUND, "%s is no stub", path);
    }
    st->disk = (struct stub_disk){ .capacity_bytes = capacity_bytes,
                                   .version = version,
                                   .full = strcmp(kind, "full") == 0 };
    for (uint64_t page = 0; page < PERIOD / PAGE; page++) {
        struct stub_disk plain = { .capacity_bytes = capacity_bytes, .full = st->disk.full };

        stub_page(&plain, page, st->period + page * PAGE);
    }
    st->source.ops = &ops;
    st->source.capacity_bytes = capacity_bytes;
    st->source.allocated_bytes = st->disk.full ? capacity_bytes : (uint64_t)STUB_PLACES * PAGE;
    st->source.flags = st->disk.full ? 0 : SOURCE_HOLES_CLAIMED;
    *seeks_holes = !st->disk.full;
    *out = &st->source;
    return 0;
}

/* For chains; there are none here. */
int file_source_take(struct source **out, int *fd, const char *path, uint64_t capacity_bytes,
                     bool *seeks_holes, struct err *e)
{
    (void)out;
    (void)fd;
    (void)capacity_bytes;
    (void)seeks_holes;
    return err_set(e, ERR_UNSUPPORTED, "%s: no chain here", path);
}
