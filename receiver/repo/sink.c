/*
 * The sink that stores a disk stream in the repository.  What is held is the parent's tree, below
 * the position that a cut run reached the tree that it left.  Blocks go to packs unless any VM has
 * them; the new tree takes over the parent's subtrees where nothing changed.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/stream/sink.h"
#include "protocol/wire/messages.h"
#include "receiver/repo/repo_private.h"
#include "receiver/repo/run.h"

enum { ZERO_RUN_LEAST = 16 }; /* shorter runs of zeros go among the digests */

struct repo_sink {
    struct sink base;
    struct run_disk *d;
    struct tree_builder *builder;
    struct tree_reader *parent; /* NULL: new disk */
    struct tree_reader *found;  /* NULL: no cut run */
    struct tree_shape parent_shape;
    uint64_t parent_end; /* blocks of the parent that say something about ours */
    uint64_t since_ms, since_stored;
    struct repo_cell *cells; /* TREE_FAN_OUT, scratch */
    struct ask_table *asks;  /* NULL: nobody has asked yet */
    uint8_t *plain;          /* a block that is asked for, scratch */
    bool failed, warned;
};

static struct repo_sink *sink_of(struct sink *s)
{
    return (struct repo_sink *)(void *)s;
}

static int fail(struct repo_sink *s, struct err *e)
{
    s->failed = true;
    return err_add(e, "disk %s", s->d->slot);
}

static uint64_t run_bytes(const struct repo_sink *s, uint64_t first, uint64_t count)
{
    const struct tree_shape *shape = &s->d->shape;
    uint64_t end = min_u64((first + count) * shape->block_bytes, shape->capacity_bytes);

    return end - first * shape->block_bytes;
}

/* --- what is held --- */

enum view_kind { VIEW_UNKNOWN, VIEW_ZERO, VIEW_TREE };

struct view {
    enum view_kind kind;
    uint64_t end; /* block */
    struct tree_reader *tree;
    const struct tree_shape *shape;
};

/* Who knows about this block. */
static struct view view_at(const struct repo_sink *s, uint64_t block)
{
    const struct tree_shape *own = &s->d->shape;
    struct view v = { .kind = VIEW_UNKNOWN, .end = own->blocks, .shape = own };

    if (s->found != NULL && block < tree_reader_blocks(s->found)) {
        v.kind = VIEW_TREE;
        v.tree = s->found;
        v.end = tree_reader_blocks(s->found);
    } else if (s->parent != NULL && block < s->parent_end) {
        v.kind = VIEW_TREE;
        v.tree = s->parent;
        v.shape = &s->parent_shape;
        v.end = s->parent_end;
    } else if (s->parent != NULL && block < min_u64(s->parent_shape.blocks, own->blocks)) {
        v.end = block + 1; /* a short block that became longer, or the other way round */
    } else if (s->parent != NULL) {
        v.kind = VIEW_ZERO; /* the disk has grown */
    }
    return v;
}

static void warn_once(struct repo_sink *s, const char *text)
{
    if (!s->warned)
        repo_warn(s->d->run->repo,
                  "disk %s: %s; what cannot be told for that is read and stored again", s->d->slot,
                  text);
    s->warned = true;
}

static bool is_damage(const struct err *e)
{
    return e->code == ERR_CORRUPT || e->code == ERR_UNSUPPORTED;
}

/* Cut a run of cells where its kind changes. */
static int cut_run(struct repo_sink *s, const struct repo_cell *cells, size_t count,
                   struct digest *digests, struct held *out, size_t *blocks, struct err *e)
{
    size_t n = 0, zeros = 0;

    for (; n < count; n++) {
        bool zero = cell_is_zero(&cells[n]);
        int has = zero ? 1 : repo_has(s->d->run->repo, ENTRY_BLOCK, &cells[n].id, e);
        enum held_kind kind = has == 0 ? HELD_UNKNOWN : zero ? HELD_ZERO : HELD_DIGESTS;

        if (has < 0)
            return -1;
        if (n == 0)
            out->kind = kind;
        if ((out->kind == HELD_UNKNOWN) != (kind == HELD_UNKNOWN) ||
            (out->kind == HELD_ZERO && !zero))
            break;
        /* A longer run of zeros is told as such. */
        zeros = zero ? zeros + 1 : 0;
        if (out->kind == HELD_DIGESTS && zeros == ZERO_RUN_LEAST) {
            n = n + 1 - zeros;
            break;
        }
        digests[n] = cells[n].digest;
    }
    *blocks = n;
    return 0;
}

static int held_of_tree(struct repo_sink *s, const struct view *v, uint64_t first, uint64_t count,
                        struct digest *digests, size_t room, struct held *out, struct err *e)
{
    const struct repo_cell *cells;
    uint64_t told = 0;
    size_t blocks;

    if (tree_reader_at(v->tree, first, &cells, &told, e) != 0) {
        if (!is_damage(e))
            return -1;
        warn_once(s, e->text);
        out->kind = HELD_UNKNOWN;
        out->length_bytes = run_bytes(s, first, min_u64(count, told));
        return 0;
    }
    count = min_u64(count, told);
    if (cells == NULL) {
        out->kind = HELD_ZERO;
        out->length_bytes = run_bytes(s, first, count);
        return 0;
    }
    if (cut_run(s, cells, (size_t)min_u64(count, room), digests, out, &blocks, e) != 0)
        return -1;
    out->length_bytes = run_bytes(s, first, blocks);
    return 0;
}

static int sink_held(struct sink *base, uint64_t offset_bytes, uint64_t limit_bytes,
                     struct digest *digests, size_t room, struct held *out, struct err *e)
{
    struct repo_sink *s = sink_of(base);
    const struct tree_shape *shape = &s->d->shape;
    uint64_t first = offset_bytes / shape->block_bytes;
    uint64_t end =
        block_count_of(offset_bytes + min_u64(limit_bytes, shape->capacity_bytes - offset_bytes),
                       shape->block_bytes);
    struct view v = view_at(s, first);

    out->offset_bytes = offset_bytes;
    if (s->d->run->no_parent) {
        v.kind = VIEW_UNKNOWN;
        v.end = shape->blocks;
    }
    end = min_u64(end, v.end);
    if (v.kind == VIEW_TREE)
        return held_of_tree(s, &v, first, end - first, digests, room, out, e) == 0 ? 0 : fail(s, e);
    out->kind = v.kind == VIEW_ZERO ? HELD_ZERO : HELD_UNKNOWN;
    out->length_bytes = run_bytes(s, first, end - first);
    return 0;
}

/* --- what changed, for the report --- */

/* The cells of the parent from `block` on: NULL for zeros and for what cannot be told. */
static void parent_cells(struct repo_sink *s, uint64_t block, const struct repo_cell **cells,
                         uint64_t *count)
{
    struct err e;

    *cells = NULL;
    *count = s->d->shape.blocks - block;
    if (s->parent == NULL || block >= s->parent_shape.blocks)
        return;
    if (tree_reader_at(s->parent, block, cells, count, &e) != 0)
        *cells = NULL;
    *count = min_u64(*count, s->d->shape.blocks - block);
}

static bool differs_from_parent(struct repo_sink *s, uint64_t block, const struct repo_id *id)
{
    const struct repo_cell *cells;
    uint64_t count;

    parent_cells(s, block, &cells, &count);
    return cells == NULL || memcmp(cells[0].id.b, id->b, sizeof id->b) != 0;
}

/* [first, end) becomes zeros: what was there changes. */
static void count_zeroed(struct repo_sink *s, uint64_t first, uint64_t end)
{
    while (first < end) {
        const struct repo_cell *cells;
        uint64_t count;

        parent_cells(s, first, &cells, &count);
        count = min_u64(count, end - first);
        for (uint64_t i = 0; cells != NULL && i < count; i++)
            if (!cell_is_zero(&cells[i]))
                s->d->result.changed_bytes += run_bytes(s, first + i, 1);
        first += count;
    }
}

/* [first, end) is as the cut run left it: where that is not as in the parent. */
static int count_found(struct repo_sink *s, uint64_t first, uint64_t end, struct err *e)
{
    static const struct repo_cell zero;

    while (first < end) {
        const struct repo_cell *now, *was;
        uint64_t now_count = 0, was_count;
        bool now_zero;

        if (tree_reader_at(s->found, first, &now, &now_count, e) != 0)
            return -1;
        now_zero = now == NULL;
        if (!now_zero)
            now_count = min_u64(now_count, TREE_FAN_OUT);
        now_count = min_u64(now_count, end - first);
        if (!now_zero)
            memcpy(s->cells, now, (size_t)now_count * sizeof s->cells[0]);
        parent_cells(s, first, &was, &was_count);
        now_count = min_u64(now_count, was_count);
        for (uint64_t i = 0; i < now_count && (!now_zero || was != NULL); i++) {
            const struct repo_cell *a = now_zero ? &zero : &s->cells[i];
            const struct repo_cell *b = was == NULL ? &zero : &was[i];

            if (memcmp(a->id.b, b->id.b, sizeof a->id.b) != 0)
                s->d->result.changed_bytes += run_bytes(s, first + i, 1);
        }
        first += now_count;
    }
    return 0;
}

/* --- durability --- */

static int advance(struct repo_sink *s, struct err *e)
{
    struct tree_spine spine;
    uint64_t stored = s->d->result.stored_bytes + tree_builder_stored(s->builder);
    int rc;

    if (stored - s->since_stored < PARTIAL_BYTES && io_clock_ms() - s->since_ms < PARTIAL_MS)
        return 0;
    s->since_ms = io_clock_ms();
    if (stored == s->since_stored || tree_builder_position(s->builder) == s->d->shape.blocks)
        return 0;
    if (tree_builder_spine(s->builder, &spine, e) != 0)
        return -1;
    rc = run_partial(s->d, &spine, e);
    tree_spine_free(&spine);
    s->since_stored = stored;
    return rc;
}

/* --- what comes --- */

static int check_place(const struct repo_sink *s, uint64_t first, uint64_t end, struct err *e)
{
    if (first != tree_builder_position(s->builder) || end > s->d->shape.blocks)
        return err_set(e, ERR_PEER, "block %" PRIu64 " comes where %" PRIu64 " is due", first,
                       tree_builder_position(s->builder));
    return 0;
}

static int take_held(struct repo_sink *s, uint64_t first, uint64_t end, struct err *e)
{
    while (first < end) {
        struct view v = view_at(s, first);
        uint64_t to = min_u64(v.end, end);
        int rc;

        if (v.kind == VIEW_UNKNOWN)
            return err_set(e, ERR_PEER, "block %" PRIu64 " is called the same, but is not held",
                           first);
        if (v.kind == VIEW_TREE && v.tree == s->found && count_found(s, first, to, e) != 0)
            return -1;
        rc = v.kind == VIEW_ZERO
                 ? tree_builder_add_zeros(s->builder, to - first, e)
                 : tree_copy(s->builder, &s->d->shape, v.tree, v.shape, first, to, e);
        if (rc != 0)
            return -1;
        first = to;
    }
    return 0;
}

static int sink_same(struct sink *base, uint64_t offset_bytes, uint64_t length_bytes, struct err *e)
{
    struct repo_sink *s = sink_of(base);
    uint32_t size = s->d->shape.block_bytes;
    uint64_t first = offset_bytes / size, end = block_count_of(offset_bytes + length_bytes, size);

    if (check_place(s, first, end, e) != 0 || take_held(s, first, end, e) != 0 ||
        advance(s, e) != 0)
        return fail(s, e);
    return 0;
}

static int sink_zero(struct sink *base, uint64_t offset_bytes, uint64_t length_bytes, struct err *e)
{
    struct repo_sink *s = sink_of(base);
    uint32_t size = s->d->shape.block_bytes;
    uint64_t first = offset_bytes / size, end = block_count_of(offset_bytes + length_bytes, size);

    if (check_place(s, first, end, e) != 0)
        return fail(s, e);
    count_zeroed(s, first, end);
    if (tree_builder_add_zeros(s->builder, end - first, e) != 0 || advance(s, e) != 0)
        return fail(s, e);
    return 0;
}

static int put_block(struct repo_sink *s, const struct sink_block *b, const struct repo_id *id,
                     struct err *e)
{
    /* The bytes as they came, if they are one frame that tells its size, as entries want it. */
    bool frame = b->encoding == ENCODING_ZSTD && b->packed_bytes < b->plain_bytes &&
                 ZSTD_getFrameContentSize(b->packed, b->packed_bytes) == b->plain_bytes &&
                 ZSTD_findFrameCompressedSize(b->packed, b->packed_bytes) == b->packed_bytes;
    struct put_result put;

    if (repo_put(s->d->run->repo, ENTRY_BLOCK, id, frame ? CODEC_ZSTD : CODEC_RAW,
                 frame ? b->packed : b->plain, frame ? b->packed_bytes : b->plain_bytes,
                 b->plain_bytes, &put, e) != 0)
        return -1;
    s->d->result.stored_bytes += put.stored_bytes;
    if (put.is_new)
        s->d->result.new_bytes += b->plain_bytes;
    return 0;
}

/* Any thread. */
static int sink_identify(struct sink *base, const uint8_t *plain, size_t plain_bytes,
                         struct sink_identity *out, struct err *e)
{
    struct repo *r = sink_of(base)->d->run->repo;
    struct repo_id id;
    int has = -1;

    if (vault_id(r->vault, plain, plain_bytes, &id, e) == 0)
        has = repo_has(r, ENTRY_BLOCK, &id, e);
    memcpy(out->id, id.b, sizeof out->id);
    out->known = has > 0;
    return has < 0 ? -1 : 0;
}

static int id_of(const struct repo_sink *s, const struct sink_block *b, struct repo_id *out,
                 struct err *e)
{
    if (b->identity == NULL)
        return vault_id(s->d->run->repo->vault, b->plain, b->plain_bytes, out, e);
    memcpy(out->b, b->identity->id, sizeof out->b);
    return 0;
}

/* The next block, which the repository has by now. */
static int add_block(struct repo_sink *s, uint64_t block, const struct repo_cell *cell,
                     struct err *e)
{
    if (differs_from_parent(s, block, &cell->id))
        s->d->result.changed_bytes += run_bytes(s, block, 1);
    return tree_builder_add(s->builder, cell, 1, e) != 0 || advance(s, e) != 0 ? -1 : 0;
}

static int sink_data(struct sink *base, const struct sink_block *b, struct err *e)
{
    struct repo_sink *s = sink_of(base);
    uint64_t block = b->offset_bytes / s->d->shape.block_bytes;
    struct repo_cell cell = { .digest = b->digest };

    if (check_place(s, block, block + 1, e) != 0 || id_of(s, b, &cell.id, e) != 0 ||
        put_block(s, b, &cell.id, e) != 0)
        return fail(s, e);
    return add_block(s, block, &cell, e) != 0 ? fail(s, e) : 0;
}

/* --- what is asked for --- */

static int sink_ask(struct sink *base, const struct sink_question *q, struct sink_answer *out,
                    struct err *e)
{
    struct repo_sink *s = sink_of(base);
    const struct repo_run *run = s->d->run;

    if (s->asks == NULL && ask_table_of(&s->asks, run->repo, run->host_uuid, e) != 0)
        return fail(s, e);
    if (s->plain == NULL)
        s->plain = malloc(s->d->shape.block_bytes);
    if (s->plain == NULL) {
        err_sys(e, "getting memory for a block");
        return fail(s, e);
    }
    out->pointless = base->ask_when == ASKING_SLOW && ask_table_count(s->asks) == 0;
    return ask_table_answer(s->asks, run->repo, &s->d->secret, q, s->plain, out, e) != 0
               ? fail(s, e)
               : 0;
}

static int sink_known(struct sink *base, uint64_t offset_bytes, const struct digest *digest,
                      const uint8_t token[SINK_TOKEN_BYTES], struct err *e)
{
    struct repo_sink *s = sink_of(base);
    uint64_t block = offset_bytes / s->d->shape.block_bytes;
    struct repo_cell cell = { .digest = *digest };

    memcpy(cell.id.b, token, sizeof cell.id.b);
    if (check_place(s, block, block + 1, e) != 0 || add_block(s, block, &cell, e) != 0)
        return fail(s, e);
    return 0;
}

static int sink_end(struct sink *base, const struct digest *root, struct err *e)
{
    struct repo_sink *s = sink_of(base);
    struct run_disk *d = s->d;
    struct digest is;

    if (tree_builder_position(s->builder) != d->shape.blocks) {
        err_set(e, ERR_CORRUPT, "it ended at block %" PRIu64 " of %" PRIu64,
                tree_builder_position(s->builder), d->shape.blocks);
        return fail(s, e);
    }
    if (tree_builder_spine(s->builder, &d->done, e) != 0)
        return fail(s, e);
    is = tree_root_of(&d->secret, d->shape.capacity_bytes, d->shape.block_bytes, d->shape.levels,
                      &d->done.top.digest);
    if (!digest_equal(&is, root)) {
        err_set(e, ERR_CORRUPT, "what was stored is not what the other end sent: the roots differ");
        return fail(s, e);
    }
    d->result.stored_bytes += tree_builder_stored(s->builder);
    d->result.root = *root;
    d->ended = true;
    return 0;
}

static void sink_close(struct sink *base)
{
    struct repo_sink *s = sink_of(base);
    struct tree_spine spine;
    struct err e;

    /* What has come counts as held in the next run. */
    if (!s->failed && !s->d->ended && s->builder != NULL &&
        s->d->result.stored_bytes + tree_builder_stored(s->builder) > s->since_stored) {
        int rc = tree_builder_spine(s->builder, &spine, &e);

        if (rc == 0) {
            rc = run_partial(s->d, &spine, &e);
            tree_spine_free(&spine);
        }
        if (rc != 0)
            repo_warn(s->d->run->repo, "disk %s: %s", s->d->slot, e.text);
    }
    s->d->sink_open = false;
    tree_builder_free(s->builder);
    tree_reader_free(s->parent);
    tree_reader_free(s->found);
    free(s->cells);
    free(s->plain);
    free(s);
}

/* --- opening --- */

static int open_parent(struct repo_sink *s, struct err *e)
{
    const struct repo_generation_disk *b = s->d->base;
    const struct tree_shape *own = &s->d->shape;

    if (b == NULL)
        return 0;
    if (tree_shape_of(&s->parent_shape, b->capacity_bytes, b->block_bytes, e) != 0)
        return -1;
    s->parent_end = min_u64(s->parent_shape.blocks, own->blocks);
    /* A block whose length changed: its digest says nothing about it. */
    if (b->capacity_bytes != own->capacity_bytes &&
        min_u64(b->capacity_bytes, own->capacity_bytes) % own->block_bytes != 0)
        s->parent_end--;
    return tree_reader_new(&s->parent, s->d->run->repo, &s->d->secret, &s->parent_shape, &b->top,
                           e);
}

int repo_sink_new(struct run_disk *d, struct sink **out, struct err *e)
{
    static const struct sink_ops ops = { sink_held, sink_same, sink_zero,
                                         sink_data, sink_end,  sink_close };
    static const struct sink_ahead ahead = { sink_identify };
    static const struct sink_asks asks = { sink_ask, sink_known };
    struct repo_sink *s = calloc(1, sizeof *s);

    if (s == NULL)
        return err_sys(e, "getting memory");
    s->d = d;
    s->since_ms = io_clock_ms();
    s->base = (struct sink){ .ops = &ops,
                             .ahead = &ahead,
                             .capacity_bytes = d->shape.capacity_bytes,
                             .block_bytes = d->shape.block_bytes,
                             .secret = d->secret,
                             .asks = &asks,
                             .ask_when = d->run->ask_when };
    s->cells = malloc(TREE_FAN_OUT * sizeof s->cells[0]);
    if (s->cells == NULL) {
        err_sys(e, "getting memory");
        goto fail;
    }
    if (vault_ask_key(d->run->repo->vault, d->run->host_uuid, s->base.ask_key, e) != 0 ||
        open_parent(s, e) != 0 ||
        (d->found.spine.position > 0 &&
         tree_reader_new_spine(&s->found, d->run->repo, &d->secret, &d->shape, &d->found.spine,
                               e) != 0) ||
        tree_builder_new(&s->builder, d->run->repo, &d->secret, &d->shape, NULL, e) != 0)
        goto fail;
    d->sink_open = true;
    *out = &s->base;
    return 0;

fail:
    s->failed = true; /* nothing to make durable */
    sink_close(&s->base);
    return -1;
}
