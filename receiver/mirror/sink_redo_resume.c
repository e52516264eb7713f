/*
 * What an unfinished run left of a redo: proved block by block, and merged into `staged`, which the
 * run that follows holds from the start.
 */
#include <inttypes.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/mirror/sink_redo.h"

struct patch_head redo_head(const struct redo_sink *r)
{
    static const struct digest none;

    return store_head(&r->d->m->store, PATCH_REDO, r->d->base, r->d->m->store.newest.number,
                      r->d->shape.capacity_bytes, &none);
}

/* Blocks that were staged are proved once, before the other end hears that they are held. */
struct proof {
    const struct run_disk *d;
    int blocks_fd;
    struct patch_room room;
    uint64_t damaged;
};

/* *sound: the entry's content is there. */
static int prove_entry(struct proof *p, const struct patch_entry *n, bool *sound, struct err *e)
{
    *sound = true;
    if (n->kind != PATCH_DATA ||
        patch_payload(p->blocks_fd, n, &p->d->secret, shape_block_bytes(p->d->shape, n->block),
                      &p->room, e) == 0)
        return 0;
    *sound = false;
    p->damaged++;
    return e->code == ERR_CORRUPT ? 0 : -1;
}

/* Copy sound entries of c that lie in [from, to) to w. */
static int copy_entries(struct patch_cursor *c, uint64_t from, uint64_t to, struct proof *proof,
                        struct patch_writer *w, struct err *e)
{
    if (c->fd < 0)
        return 0;
    if (patch_seek(c, from, e) != 0)
        return -1;
    while (c->have && c->entry.block < to) {
        struct patch_entry n = c->entry;
        uint64_t end = min_u64(n.block + n.count, to);
        bool sound;

        n.block = max_u64(n.block, from);
        n.count = end - n.block;
        if (prove_entry(proof, &n, &sound, e) != 0 || (sound && patch_put(w, &n, e) != 0) ||
            patch_step(c, e) != 0)
            return -1;
    }
    return 0;
}

static int proof_open(struct proof *p, const struct redo_sink *r, struct err *e)
{
    *p = (struct proof){ .d = r->d };
    p->blocks_fd = file_open(r->d->m->store.store_fd, r->names.blocks, O_RDONLY, e);
    return p->blocks_fd < 0 ? -1 : patch_room_new(&p->room, r->d->shape.block_bytes, e);
}

static void proof_close(struct proof *p, const struct redo_sink *r)
{
    if (p->damaged > 0)
        env_warn(&r->d->m->store.env,
                 "%s: %" PRIu64
                 " blocks that an earlier run had brought are damaged and come again",
                 r->names.blocks, p->damaged);
    patch_room_free(&p->room);
    io_drop(&p->blocks_fd);
}

/* index up to the position, then the older staged entries, become the new `staged`. */
static int merge(struct redo_sink *r, const struct checkpoint *c, struct patch_cursor *index,
                 struct patch_cursor *older, struct err *e)
{
    struct store *s = &r->d->m->store;
    struct patch_head head = redo_head(r);
    struct proof proof;
    struct publish p;
    uint8_t hash[PATCH_HASH_BYTES];
    uint64_t bytes;
    int rc = -1;

    if (publish_begin(&p, s->store_fd, 0600, e) != 0)
        return -1;
    if (proof_open(&proof, r, e) != 0 || patch_writer_open(&r->writer, p.fd, -1, 0, &head, e) != 0)
        goto out;
    if (copy_entries(index, 0, c->position, &proof, &r->writer, e) != 0 ||
        copy_entries(older, c->position, r->blocks, &proof, &r->writer, e) != 0 ||
        patch_writer_flush(&r->writer, hash, e) != 0)
        goto out;
    bytes = r->writer.index_bytes;
    rc = publish_commit(&p, r->names.staged, bytes, PUBLISH_REPLACE, e);

out:
    proof_close(&proof, r);
    patch_writer_close(&r->writer);
    publish_drop(&p);
    return rc;
}

/* The old index as far as its checkpoint says, proved by its hash. */
static int open_index(struct redo_sink *r, const struct checkpoint *c, struct patch_cursor *out,
                      struct err *e)
{
    struct patch_head head = redo_head(r);
    uint8_t hash[PATCH_HASH_BYTES];

    if (c->index_bytes == 0)
        return 0;
    if (patch_cursor_open(out, r->d->m->store.store_fd, r->names.index, &head, c->index_bytes,
                          c->blocks_bytes, e) != 0 ||
        patch_hash(out->fd, c->index_bytes, hash, e) != 0)
        return -1;
    if (memcmp(hash, c->hash, sizeof hash) != 0)
        return err_set(e, ERR_CORRUPT, "%s is not what its checkpoint says", r->names.index);
    return 0;
}

int redo_take_over(struct redo_sink *r, uint64_t *blocks_bytes, struct err *e)
{
    struct store *s = &r->d->m->store;
    struct patch_cursor index = PATCH_CURSOR_EMPTY, older = PATCH_CURSOR_EMPTY;
    struct patch_head head = redo_head(r);
    struct checkpoint c;
    struct stat st;
    int rc = -1;

    if (checkpoint_load(r->d, r->names.checkpoint, &c, e) != 0)
        return -1;
    if (c.generation != s->newest.number)
        return err_set(e, ERR_CORRUPT, "it is of another generation");
    if (fstatat(s->store_fd, r->names.blocks, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        (uint64_t)st.st_size < c.blocks_bytes)
        return err_set(e, ERR_CORRUPT, "%s is too short", r->names.blocks);
    if (open_index(r, &c, &index, e) != 0)
        goto out;
    if (folder_has(s->store_fd, r->names.staged) &&
        patch_cursor_open(&older, s->store_fd, r->names.staged, &head, 0, c.blocks_bytes, e) != 0)
        goto out;
    if (merge(r, &c, &index, &older, e) != 0)
        goto out;
    /* Now all that counts is in `staged`; only then may the index begin anew. */
    c.position = c.index_bytes = 0;
    memset(c.hash, 0, sizeof c.hash);
    if (checkpoint_save(r->d, r->names.checkpoint, &c, e) != 0)
        goto out;
    *blocks_bytes = c.blocks_bytes;
    rc = 0;

out:
    patch_cursor_close(&index);
    patch_cursor_close(&older);
    return rc;
}
