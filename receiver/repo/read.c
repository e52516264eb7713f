/* The content of disks and files, and walks over their trees. */
#include "receiver/repo/repo_read.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "receiver/repo/node.h"
#include "receiver/repo/repo_private.h"

/* --- a disk as a source --- */

struct disk_source {
    struct source base;
    struct repo *repo;
    struct tree_shape shape;
    pthread_mutex_t lock; /* guards the reader */
    struct tree_reader *reader;
};

static struct disk_source *source_of(struct source *s)
{
    return (struct disk_source *)(void *)s;
}

static uint64_t block_end(const struct disk_source *d, uint64_t block)
{
    return min_u64((block + 1) * d->shape.block_bytes, d->shape.capacity_bytes);
}

/* Cells are copied out under the lock: one block at a time is as fast as its reading allows. */
static int cell_at(struct disk_source *d, uint64_t block, struct repo_cell *out, uint64_t *run,
                   struct err *e)
{
    const struct repo_cell *cells;
    int rc;

    pthread_mutex_lock(&d->lock);
    rc = tree_reader_at(d->reader, block, &cells, run, e);
    if (rc == 0) {
        *out = cells == NULL ? (struct repo_cell){ 0 } : cells[0];
        if (cells != NULL) {
            uint64_t n = 1;

            while (n < *run && cell_is_zero(&cells[n]) == cell_is_zero(out))
                n++;
            *run = n;
        }
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

static int source_extent(struct source *s, uint64_t offset_bytes, struct extent *out, struct err *e)
{
    struct disk_source *d = source_of(s);
    uint64_t block = offset_bytes / d->shape.block_bytes, run;
    struct repo_cell cell;

    if (cell_at(d, block, &cell, &run, e) != 0)
        return -1;
    out->offset_bytes = offset_bytes;
    out->length_bytes = block_end(d, block + run - 1) - offset_bytes;
    out->kind = cell_is_zero(&cell) ? EXTENT_ZERO : EXTENT_DATA;
    return 0;
}

/* Part of one block. */
static int read_part(struct disk_source *d, uint64_t block, size_t from, uint8_t *out, size_t count,
                     struct err *e)
{
    size_t whole = (size_t)(block_end(d, block) - block * d->shape.block_bytes), got = 0;
    struct repo_cell cell;
    uint8_t *to = out, *spare = NULL;
    uint64_t run;
    int rc = -1;

    if (cell_at(d, block, &cell, &run, e) != 0)
        return -1;
    if (cell_is_zero(&cell)) {
        memset(out, 0, count);
        return 0;
    }
    if (count < whole) {
        to = spare = malloc(whole);
        if (spare == NULL)
            return err_sys(e, "getting memory for a block");
    }
    if (repo_get(d->repo, ENTRY_BLOCK, &cell.id, to, whole, &got, e) != 0)
        goto out;
    if (got != whole) {
        err_set(e, ERR_CORRUPT, "the block has %zu bytes, not %zu", got, whole);
        goto out;
    }
    if (spare != NULL)
        memcpy(out, spare + from, count);
    rc = 0;

out:
    free(spare);
    return rc;
}

static int source_read_bytes(struct source *s, uint64_t offset_bytes, void *out, size_t count,
                             struct err *e)
{
    struct disk_source *d = source_of(s);
    uint8_t *to = out;

    while (count > 0) {
        uint64_t block = offset_bytes / d->shape.block_bytes;
        size_t from = (size_t)(offset_bytes % d->shape.block_bytes);
        size_t now = (size_t)min_u64(count, block_end(d, block) - offset_bytes);

        if (read_part(d, block, from, to, now, e) != 0)
            return err_add(e, "byte %" PRIu64, offset_bytes);
        to += now;
        offset_bytes += now;
        count -= now;
    }
    return 0;
}

static void source_free(struct source *s)
{
    struct disk_source *d = source_of(s);

    tree_reader_free(d->reader);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

/* A disk of a manifest that has content. */
static int open_tree(struct repo *r, const struct repo_generation_disk *disk,
                     struct tree_shape *shape, struct tree_reader **out, struct err *e)
{
    if (disk->state == REPO_DISK_ABSENT)
        return err_set(e, ERR_NOT_FOUND, "disk %s was never read", disk->slot);
    if (tree_shape_of(shape, disk->capacity_bytes, disk->block_bytes, e) != 0)
        return -1;
    return tree_reader_new(out, r, &disk->secret, shape, &disk->top, e);
}

int repo_disk_open(struct source **out, struct repo *r, const struct repo_generation_disk *disk,
                   struct err *e)
{
    static const struct source_ops ops = { source_extent, source_read_bytes, source_free };
    struct disk_source *d = calloc(1, sizeof *d);

    if (d == NULL)
        return err_sys(e, "getting memory");
    d->repo = r;
    pthread_mutex_init(&d->lock, NULL);
    if (open_tree(r, disk, &d->shape, &d->reader, e) != 0) {
        source_free(&d->base);
        return -1;
    }
    d->base = (struct source){ .ops = &ops,
                               .capacity_bytes = disk->capacity_bytes,
                               .allocated_bytes = disk->capacity_bytes };
    *out = &d->base;
    return 0;
}

/* --- files --- */

int repo_file_read(struct repo *r, const struct repo_generation_file *file, struct bytes *out,
                   struct err *e)
{
    uint8_t sum[crypto_hash_sha256_BYTES];
    size_t start = out->count, size = (size_t)file->size_bytes;

    if (file->size_bytes > REPO_FILE_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "file %s is too large", file->name);
    if (out->ceiling < start + size)
        out->ceiling = start + size;
    if (bytes_reserve(out, size, e) == NULL)
        return -1;
    for (uint32_t i = 0; i < file->block_count; i++) {
        size_t count = 0;

        if (repo_get(r, ENTRY_BLOCK, &file->blocks[i], out->data + out->count,
                     start + size - out->count, &count, e) != 0)
            goto bad;
        out->count += count;
    }
    if (out->count - start != size) {
        err_set(e, ERR_CORRUPT, "it has %zu bytes, not %zu", out->count - start, size);
        goto bad;
    }
    crypto_hash_sha256(sum, out->data + start, size);
    if (memcmp(sum, file->sha256, sizeof sum) == 0)
        return 0;
    err_set(e, ERR_CORRUPT, "its content is not what was stored");

bad:
    out->count = start;
    return err_add(e, "file %s", file->name);
}

/* --- walking --- */

/* Ask about the nodes that begin at this block, from the top; *skip is how many blocks to leave
 * out, 0: go in. */
static int ask_nodes(struct tree_reader *t, const struct tree_shape *shape, uint64_t block,
                     const struct repo_walk *walk, uint64_t *skip, struct err *e)
{
    *skip = 0;
    for (unsigned level = shape->levels; level > 0; level--) {
        struct repo_cell cell;
        bool there;
        int answer;

        if (block % tree_span(level) != 0)
            continue;
        if (tree_reader_node(t, level, block, &cell, &there, e) != 0)
            return -1;
        answer =
            !there || cell_is_zero(&cell) ? 1 : walk->node(walk->context, level, block, &cell, e);
        if (answer < 0)
            return -1;
        if (answer > 0) {
            *skip = min_u64(tree_span(level), shape->blocks - block);
            return 0;
        }
    }
    return 0;
}

/* The next run of cells without zeros. */
static int give_blocks(const struct repo_walk *walk, uint64_t first, const struct repo_cell *cells,
                       uint64_t count, struct err *e)
{
    uint64_t at = 0;

    while (at < count && walk->block != NULL) {
        uint64_t end = at;

        while (end < count && !cell_is_zero(&cells[end]))
            end++;
        if (end > at && walk->block(walk->context, first + at, cells + at, (size_t)(end - at), e))
            return -1;
        at = end + 1;
    }
    return 0;
}

int repo_disk_walk(struct repo *r, const struct repo_generation_disk *disk,
                   const struct repo_walk *walk, struct err *e)
{
    struct tree_shape shape;
    struct tree_reader *t;
    uint64_t block = 0;
    int rc = -1;

    if (open_tree(r, disk, &shape, &t, e) != 0)
        return -1;
    while (block < shape.blocks) {
        const struct repo_cell *cells;
        uint64_t count = 0;

        if (repo_check_stop(r, e) != 0)
            goto out;
        if (walk->node != NULL && block % TREE_FAN_OUT == 0 &&
            ask_nodes(t, &shape, block, walk, &count, e) != 0)
            goto out;
        if (count == 0) {
            if (tree_reader_at(t, block, &cells, &count, e) != 0)
                goto out;
            if (cells != NULL && give_blocks(walk, block, cells, count, e) != 0)
                goto out;
        }
        block += count;
    }
    rc = 0;

out:
    tree_reader_free(t);
    return rc;
}

/* --- differences --- */

struct differ {
    struct tree_reader *a, *b;
    struct tree_shape shape;
    int (*range)(void *context, uint64_t first_block, uint64_t count, struct err *e);
    void *context;
    uint64_t from, end; /* the range that is collected */
};

static int add_range(struct differ *d, uint64_t first, uint64_t count, struct err *e)
{
    if (d->end == first && d->end > d->from) {
        d->end += count;
        return 0;
    }
    if (d->end > d->from && d->range(d->context, d->from, d->end - d->from, e) != 0)
        return -1;
    d->from = first;
    d->end = first + count;
    return 0;
}

/* Blocks from here on under the highest node that both have in common, 0 if there is none. */
static int common_node(struct differ *d, uint64_t block, uint64_t *count, struct err *e)
{
    *count = 0;
    for (unsigned level = d->shape.levels; level > 0 && *count == 0; level--) {
        struct repo_cell a, b;
        bool a_there, b_there;

        if (block % tree_span(level) != 0)
            continue;
        if (tree_reader_node(d->a, level, block, &a, &a_there, e) != 0 ||
            tree_reader_node(d->b, level, block, &b, &b_there, e) != 0)
            return -1;
        if (a_there && b_there && memcmp(&a, &b, sizeof a) == 0)
            *count = min_u64(tree_span(level), d->shape.blocks - block);
    }
    return 0;
}

static int differ_step(struct differ *d, uint64_t block, uint64_t *count, struct err *e)
{
    static const struct repo_cell zero;
    const struct repo_cell *a, *b;
    uint64_t a_count, b_count;

    if (common_node(d, block, count, e) != 0)
        return -1;
    if (*count > 0)
        return 0;
    if (tree_reader_at(d->a, block, &a, &a_count, e) != 0 ||
        tree_reader_at(d->b, block, &b, &b_count, e) != 0)
        return -1;
    *count = min_u64(a_count, b_count);
    for (uint64_t i = 0; i < *count && (a != NULL || b != NULL); i++) {
        const struct repo_cell *x = a == NULL ? &zero : &a[i], *y = b == NULL ? &zero : &b[i];

        if (memcmp(x, y, sizeof *x) != 0 && add_range(d, block + i, 1, e) != 0)
            return -1;
    }
    return 0;
}

int repo_disk_diff(struct repo *r, const struct repo_generation_disk *a,
                   const struct repo_generation_disk *b,
                   int (*range)(void *context, uint64_t first_block, uint64_t count, struct err *e),
                   void *context, struct err *e)
{
    struct differ d = { .range = range, .context = context };
    int rc = -1;

    if (a->capacity_bytes != b->capacity_bytes || a->block_bytes != b->block_bytes ||
        memcmp(&a->secret, &b->secret, sizeof a->secret) != 0)
        return err_set(e, ERR_USAGE, "the disks %s and %s cannot be compared block by block",
                       a->slot, b->slot);
    if (open_tree(r, a, &d.shape, &d.a, e) != 0 || open_tree(r, b, &d.shape, &d.b, e) != 0)
        goto out;
    for (uint64_t block = 0, count; block < d.shape.blocks; block += count)
        if (differ_step(&d, block, &count, e) != 0)
            goto out;
    if (d.end > d.from && range(context, d.from, d.end - d.from, e) != 0)
        goto out;
    rc = 0;

out:
    tree_reader_free(d.a);
    tree_reader_free(d.b);
    return rc;
}
