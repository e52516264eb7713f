#include "receiver/job/image_read.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/block/tree.h"
#include "protocol/stream/level.h"
#include "protocol/stream/sink.h"
#include "protocol/wire/messages.h"
#include "receiver/job/ordered.h"

enum {
    PIECE_BYTES = 512 << 10,
    PIECE_BLOCKS_MAX = PIECE_BYTES / BLOCK_BYTES_MIN,
    PIECES_EACH = 6,        /* so many that one slow worker does not hold up the others */
    STEP_BYTES = 256 << 10, /* read at once: still in the processor's cache when it is packed */
    AUTO_LEVEL = 1,
};

/* What becomes of a block; the same for all of a run of zeros. */
enum fate { FATE_SAME, FATE_ZERO, FATE_DATA };

struct block {
    bool known; /* the store tells what it holds */
    struct digest held, is;
    enum fate fate;
    struct sink_identity identity;
    size_t packed_bytes; /* 0: it does not shrink */
};

/* A run of zeros of any length, or some blocks to be read. */
struct piece {
    uint64_t offset_bytes, length_bytes;
    bool hole;
    uint8_t *plain, *packed; /* of piece_bytes; packed has block_room for each block */
    struct block blocks[PIECE_BLOCKS_MAX];
};

struct reader {
    struct image_read *d;
    struct tree *tree;
    size_t piece_bytes, block_room;
    uint64_t found_bytes;         /* up to where pieces were made */
    struct extent extent;         /* the last one that was asked for */
    uint64_t same_from, same_end; /* a run that the sink was not told of yet */
    pthread_mutex_t packers_lock; /* guards what follows */
    ZSTD_CCtx *packers[ORDERED_WORKERS_MAX];
    size_t packer_count; /* not in use; the one used last comes first, its memory is warm */
};

static size_t block_bytes_at(const struct reader *r, uint64_t offset_bytes)
{
    const struct sink *s = r->d->sink;

    return (size_t)min_u64(s->block_bytes, s->capacity_bytes - offset_bytes);
}

/* --- what comes next --- */

/* The rest of the extent at an offset.  It is asked for once: on tmpfs the search for its end walks
 * over all its pages. */
static int extent_at(struct reader *r, uint64_t offset_bytes, struct extent *out, struct err *e)
{
    struct extent *x = &r->extent;
    uint64_t end = x->offset_bytes + x->length_bytes;

    if (offset_bytes < x->offset_bytes || offset_bytes >= end) {
        if (source_extent_at(r->d->source, offset_bytes, x, e) != 0)
            return -1;
        end = x->offset_bytes + x->length_bytes;
    }
    *out = *x;
    out->offset_bytes = offset_bytes;
    out->length_bytes = end - offset_bytes;
    return 0;
}

/* The extent at an offset, with those behind it of its kind, ended at a block's border: a block
 * that is a hole only in part is data. */
static int find_piece(struct reader *r, struct piece *p, struct err *e)
{
    const struct sink *s = r->d->sink;
    uint64_t at = r->found_bytes, end = at, limit = s->capacity_bytes;
    struct extent x = { 0 };

    p->hole = true;
    while (end < limit) {
        if (extent_at(r, end, &x, e) != 0)
            return -1;
        if (x.kind != EXTENT_ZERO)
            break;
        end += x.length_bytes;
    }
    if (end < limit)
        end -= end % s->block_bytes;
    if (end <= at) {
        p->hole = false;
        /* Behind this extent is for the next piece to find. */
        end = min_u64(limit, x.offset_bytes + x.length_bytes);
        end = min_u64(limit, (end + s->block_bytes - 1) / s->block_bytes * s->block_bytes);
        end = min_u64(max_u64(end, at + block_bytes_at(r, at)), at + r->piece_bytes);
    }
    p->offset_bytes = at;
    p->length_bytes = end - at;
    r->found_bytes = end;
    return 0;
}

/* What the store holds of the blocks of a piece. */
static int ask_held(struct reader *r, struct piece *p, struct err *e)
{
    struct sink *s = r->d->sink;
    struct digest digests[PIECE_BLOCKS_MAX];
    uint64_t at = p->offset_bytes, end = at + p->length_bytes;
    size_t i = 0;

    while (at < end) {
        struct held h;
        uint64_t blocks;

        if (s->ops->held(s, at, end - at, digests, PIECE_BLOCKS_MAX, &h, e) != 0)
            return -1;
        blocks = block_count_of(h.length_bytes, s->block_bytes);
        for (uint64_t k = 0; k < blocks; k++, i++) {
            p->blocks[i].known = h.kind != HELD_UNKNOWN;
            p->blocks[i].held = h.kind == HELD_DIGESTS ? digests[k] : (struct digest){ 0 };
        }
        at += h.length_bytes;
    }
    return 0;
}

static int next_piece(void *context, void *item, struct err *e)
{
    struct reader *r = context;
    struct piece *p = item;

    if (r->found_bytes == r->d->sink->capacity_bytes)
        return 0;
    if (find_piece(r, p, e) != 0)
        return -1;
    return p->hole || ask_held(r, p, e) == 0 ? 1 : -1;
}

/* --- the work on it --- */

static ZSTD_CCtx *take_packer(struct reader *r)
{
    ZSTD_CCtx *packer;

    pthread_mutex_lock(&r->packers_lock);
    packer = r->packers[--r->packer_count];
    pthread_mutex_unlock(&r->packers_lock);
    return packer;
}

static void give_packer(struct reader *r, ZSTD_CCtx *packer)
{
    pthread_mutex_lock(&r->packers_lock);
    r->packers[r->packer_count++] = packer;
    pthread_mutex_unlock(&r->packers_lock);
}

static int pack_block(const struct reader *r, struct piece *p, size_t i, ZSTD_CCtx *packer,
                      const uint8_t *plain, size_t count, struct err *e)
{
    size_t packed;

    if (r->d->compress == 0)
        return 0;
    packed = ZSTD_compress2(packer, p->packed + i * r->block_room, r->block_room, plain, count);
    if (ZSTD_isError(packed))
        return err_set(e, ERR_SYSTEM, "packing a block: %s", ZSTD_getErrorName(packed));
    if (packed < count)
        p->blocks[i].packed_bytes = packed;
    return 0;
}

static int work_block(struct reader *r, struct piece *p, size_t i, ZSTD_CCtx *packer,
                      const uint8_t *plain, size_t count, struct err *e)
{
    struct sink *s = r->d->sink;
    struct block *b = &p->blocks[i];

    b->packed_bytes = 0;
    b->is = digest_of(&s->secret, plain, count);
    if (b->known && digest_equal(&b->is, &b->held))
        b->fate = FATE_SAME;
    else
        b->fate = digest_is_zero(&b->is) ? FATE_ZERO : FATE_DATA;
    if (b->fate != FATE_DATA)
        return 0;
    b->identity.known = false;
    if (s->ahead != NULL && s->ahead->identify(s, plain, count, &b->identity, e) != 0)
        return -1;
    return b->identity.known ? 0 : pack_block(r, p, i, packer, plain, count, e);
}

static int work_steps(struct reader *r, struct piece *p, ZSTD_CCtx *packer, struct err *e)
{
    size_t step = (size_t)max_u64(r->d->sink->block_bytes, STEP_BYTES);
    size_t at = 0, have = 0;

    for (size_t i = 0; at < p->length_bytes; i++) {
        size_t count = block_bytes_at(r, p->offset_bytes + at);

        if (at == have) {
            have = (size_t)min_u64(p->length_bytes, have + step);
            if (source_read(r->d->source, p->offset_bytes + at, p->plain + at, have - at, e) != 0)
                return -1;
        }
        if (work_block(r, p, i, packer, p->plain + at, count, e) != 0)
            return -1;
        at += count;
    }
    return 0;
}

static int work_piece(void *context, void *item, struct err *e)
{
    struct reader *r = context;
    struct piece *p = item;
    ZSTD_CCtx *packer;
    int rc;

    if (p->hole)
        return 0;
    packer = take_packer(r);
    rc = work_steps(r, p, packer, e);
    give_packer(r, packer);
    return rc;
}

/* --- to the sink, in order --- */

/* Runs of equal blocks are told whole: a store takes over whole subtrees for them. */
static int tell_same(struct reader *r, struct err *e)
{
    struct sink *s = r->d->sink;
    uint64_t from = r->same_from, end = r->same_end;

    r->same_from = r->same_end = 0;
    return end > from ? s->ops->same(s, from, end - from, e) : 0;
}

static int put_data(struct reader *r, const struct piece *p, size_t i, size_t at, size_t count,
                    struct err *e)
{
    struct sink *s = r->d->sink;
    const struct block *b = &p->blocks[i];
    struct sink_block to = {
        .offset_bytes = p->offset_bytes + at,
        .plain = p->plain + at,
        .plain_bytes = count,
        .digest = b->is,
        .packed = b->packed_bytes > 0 ? p->packed + i * r->block_room : p->plain + at,
        .packed_bytes = b->packed_bytes > 0 ? b->packed_bytes : count,
        .encoding = b->packed_bytes > 0 ? ENCODING_ZSTD : ENCODING_RAW,
        .identity = s->ahead != NULL ? &b->identity : NULL,
    };

    r->d->sent_bytes += to.packed_bytes;
    return s->ops->data(s, &to, e);
}

static int put_block(struct reader *r, const struct piece *p, size_t i, size_t at, size_t count,
                     struct err *e)
{
    struct sink *s = r->d->sink;
    uint64_t offset = p->offset_bytes + at;

    if (p->blocks[i].fate == FATE_SAME) {
        if (r->same_end != offset || r->same_from == r->same_end) {
            if (tell_same(r, e) != 0)
                return -1;
            r->same_from = offset;
        }
        r->same_end = offset + count;
        r->d->same_bytes += count;
        return 0;
    }
    if (tell_same(r, e) != 0)
        return -1;
    return p->blocks[i].fate == FATE_ZERO ? s->ops->zero(s, offset, count, e)
                                          : put_data(r, p, i, at, count, e);
}

static int take_hole(struct reader *r, const struct piece *p, struct err *e)
{
    struct sink *s = r->d->sink;

    if (tell_same(r, e) != 0 || s->ops->zero(s, p->offset_bytes, p->length_bytes, e) != 0)
        return -1;
    return tree_add_zeros(r->tree, block_count_of(p->length_bytes, s->block_bytes), e);
}

static int take_piece(void *context, void *item, struct err *e)
{
    struct reader *r = context;
    struct image_read *d = r->d;
    const struct piece *p = item;

    if (p->hole && take_hole(r, p, e) != 0)
        return -1;
    for (size_t i = 0, at = 0; !p->hole && at < p->length_bytes; i++) {
        size_t count = block_bytes_at(r, p->offset_bytes + at);

        if (put_block(r, p, i, at, count, e) != 0 || tree_add(r->tree, &p->blocks[i].is, 1, e) != 0)
            return -1;
        at += count;
    }
    if (!p->hole) {
        d->allocated_bytes += p->length_bytes;
        d->read_bytes += p->length_bytes;
    }
    d->done_bytes = p->offset_bytes + p->length_bytes;
    return d->watch != NULL ? d->watch(d->context, d, e) : 0;
}

/* --- the whole --- */

static void free_pieces(void **items, size_t count)
{
    for (size_t i = 0; items != NULL && i < count; i++) {
        struct piece *p = items[i];

        if (p != NULL) {
            free(p->plain);
            free(p->packed);
        }
        free(p);
    }
    free(items);
}

static struct piece *new_piece(const struct reader *r, size_t blocks)
{
    struct piece *p = calloc(1, sizeof *p);

    if (p == NULL)
        return NULL;
    p->plain = malloc(r->piece_bytes);
    p->packed = malloc(blocks * r->block_room);
    return p;
}

static void **new_pieces(const struct reader *r, size_t count, struct err *e)
{
    void **items = calloc(count, sizeof *items);

    for (size_t i = 0; items != NULL && i < count; i++) {
        struct piece *p = new_piece(r, r->piece_bytes / r->d->sink->block_bytes);

        items[i] = p;
        if (p == NULL || p->plain == NULL || p->packed == NULL) {
            free_pieces(items, count);
            items = NULL;
        }
    }
    if (items == NULL)
        err_sys(e, "getting memory for blocks");
    return items;
}

/* One for each thread that can be at work. */
static int make_packers(struct reader *r, size_t count, struct err *e)
{
    int level = r->d->compress == COMPRESS_AUTO ? AUTO_LEVEL : r->d->compress;

    while (r->packer_count < count) {
        ZSTD_CCtx *packer = ZSTD_createCCtx();

        if (packer == NULL)
            return err_sys(e, "getting memory for packing");
        level_set(packer, level);
        r->packers[r->packer_count++] = packer;
    }
    return 0;
}

static void free_reader(struct reader *r)
{
    while (r->packer_count > 0)
        ZSTD_freeCCtx(r->packers[--r->packer_count]);
    pthread_mutex_destroy(&r->packers_lock);
    tree_free(r->tree);
}

int image_read(struct image_read *d, struct err *e)
{
    struct sink *s = d->sink;
    unsigned workers = (d->source->flags & SOURCE_SEQUENTIAL) != 0 ? 0 : ordered_workers();
    size_t count = workers > 0 ? (size_t)workers * PIECES_EACH : 1;
    struct reader r = {
        .d = d,
        .piece_bytes = max_u64(s->block_bytes, PIECE_BYTES),
        .block_room = ZSTD_compressBound(s->block_bytes),
        .packers_lock = PTHREAD_MUTEX_INITIALIZER,
    };
    struct ordered_config o = {
        .workers = workers,
        .item_count = count,
        .next = next_piece,
        .work = work_piece,
        .take = take_piece,
        .context = &r,
    };
    void **items = new_pieces(&r, count, e);
    int rc = -1;

    if (items == NULL || make_packers(&r, workers > 0 ? workers : 1, e) != 0 ||
        tree_new(&r.tree, &s->secret, s->capacity_bytes, s->block_bytes, e) != 0)
        goto out;
    o.items = items;
    if (ordered_run(&o, e) != 0 || tell_same(&r, e) != 0 || tree_root(r.tree, &d->root, e) != 0)
        goto out;
    rc = s->ops->end(s, &d->root, e);

out:
    free_pieces(items, count);
    free_reader(&r);
    return rc;
}
