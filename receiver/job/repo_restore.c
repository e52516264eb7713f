#include "receiver/job/repo_restore.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/source.h"
#include "protocol/block/tree.h"
#include "receiver/base/names.h"
#include "receiver/base/publish.h"
#include "receiver/job/ordered.h"
#include "receiver/job/repo_list.h"
#include "receiver/repo/repo_read.h"
#include "receiver/restore/descriptor.h"
#include "receiver/restore/output.h"
#include "receiver/restore/target.h"

enum { PIECE_BYTES = 1 << 20, PIECE_BLOCKS_MAX = PIECE_BYTES / BLOCK_BYTES_MIN, PIECES_EACH = 3 };

static const char CONFIG_FOLDER[] = "config";

/* Some blocks that hold data, or a run of zeros of any length. */
struct piece {
    uint64_t offset_bytes, length_bytes;
    bool zero;
    uint8_t *plain;
    struct digest digests[PIECE_BLOCKS_MAX];
};

struct copy {
    const struct repo_generation_disk *disk;
    const struct repo_env *env;
    struct source *source;
    struct tree *tree;
    struct output to;
    char file[IMAGE_NAME_ROOM]; /* its image, or what it would be called */
    uint64_t found_bytes;       /* up to where pieces were made */
    size_t piece_bytes;
};

static int check_stop(const struct repo_env *env, struct err *e)
{
    if (env->stop != NULL && atomic_load(env->stop))
        return err_set(e, ERR_STOPPED, "stopped");
    return 0;
}

static int next_piece(void *context, void *item, struct err *e)
{
    struct copy *c = context;
    struct piece *p = item;
    struct extent x;

    if (c->found_bytes == c->disk->capacity_bytes)
        return 0;
    if (source_extent_at(c->source, c->found_bytes, &x, e) != 0)
        return -1;
    p->offset_bytes = c->found_bytes;
    p->zero = x.kind == EXTENT_ZERO;
    p->length_bytes = x.length_bytes;
    if (!p->zero)
        p->length_bytes = min_u64(x.length_bytes, c->piece_bytes);
    else if (c->to.kind != OUTPUT_IMAGE)
        p->length_bytes = min_u64(x.length_bytes, OUTPUT_ZEROS_BYTES);
    c->found_bytes += p->length_bytes;
    return 1;
}

static int put_piece(struct copy *c, const struct piece *p, struct err *e)
{
    return p->zero ? output_zeros(&c->to, p->offset_bytes, p->length_bytes, e)
                   : output_write(&c->to, p->plain, (size_t)p->length_bytes, p->offset_bytes, e);
}

/* Each block on its own: a digest belongs to a block. */
static int copy_piece(void *context, void *item, struct err *e)
{
    struct copy *c = context;
    struct piece *p = item;

    for (uint64_t at = 0, i = 0; !p->zero && at < p->length_bytes; i++) {
        size_t count = (size_t)min_u64(c->disk->block_bytes, p->length_bytes - at);

        if (source_read(c->source, p->offset_bytes + at, p->plain + at, count, e) != 0)
            return -1;
        p->digests[i] = digest_of(&c->disk->secret, p->plain + at, count);
        at += count;
    }
    return c->to.kind == OUTPUT_STREAM ? 0 : put_piece(c, p, e);
}

static int take_piece(void *context, void *item, struct err *e)
{
    struct copy *c = context;
    const struct piece *p = item;
    uint64_t blocks = block_count_of(p->length_bytes, c->disk->block_bytes);

    if (check_stop(c->env, e) != 0 || (c->to.kind == OUTPUT_STREAM && put_piece(c, p, e) != 0))
        return -1;
    if (c->env->progress != NULL)
        c->env->progress(c->env->context, c->file, p->offset_bytes + p->length_bytes,
                         c->disk->capacity_bytes);
    return p->zero ? tree_add_zeros(c->tree, blocks, e) : tree_add(c->tree, p->digests, blocks, e);
}

static void free_pieces(void **items, size_t count)
{
    for (size_t i = 0; items != NULL && i < count; i++) {
        struct piece *p = items[i];

        if (p != NULL)
            free(p->plain);
        free(p);
    }
    free(items);
}

static void **new_pieces(size_t count, size_t piece_bytes, struct err *e)
{
    void **items = calloc(count, sizeof *items);

    for (size_t i = 0; items != NULL && i < count; i++) {
        struct piece *p = calloc(1, sizeof *p);

        items[i] = p;
        if (p == NULL || (p->plain = malloc(piece_bytes)) == NULL) {
            free_pieces(items, count);
            items = NULL;
        }
    }
    if (items == NULL)
        err_sys(e, "getting memory for blocks");
    return items;
}

static int copy_blocks(struct copy *c, struct err *e)
{
    unsigned workers = ordered_workers();
    size_t count = (size_t)workers * PIECES_EACH;
    struct ordered_config o = {
        .workers = workers,
        .item_count = count,
        .next = next_piece,
        .work = copy_piece,
        .take = take_piece,
        .context = c,
    };
    struct digest root;
    void **items;
    int rc;

    c->piece_bytes = c->disk->block_bytes > PIECE_BYTES ? c->disk->block_bytes : PIECE_BYTES;
    items = new_pieces(count, c->piece_bytes, e);
    if (items == NULL)
        return -1;
    o.items = items;
    rc = ordered_run(&o, e);
    free_pieces(items, count);
    if (rc != 0 || tree_root(c->tree, &root, e) != 0)
        return -1;
    if (!digest_equal(&root, &c->disk->root))
        return err_set(e, ERR_CORRUPT, "%s does not have the root that was recorded", c->file);
    return 0;
}

/* The whole disk to c->to, which is open, and durable there. */
static int copy_disk(struct copy *c, struct repo *r, struct err *e)
{
    const struct repo_generation_disk *d = c->disk;

    if (repo_disk_open(&c->source, r, d, e) != 0 ||
        tree_new(&c->tree, &d->secret, d->capacity_bytes, d->block_bytes, e) != 0 ||
        copy_blocks(c, e) != 0)
        return -1;
    return output_finish(&c->to, e);
}

static void end_copy(struct copy *c, bool failed, struct err *e)
{
    output_drop(&c->to, failed, e);
    tree_free(c->tree);
    source_close(c->source);
}

static int put_descriptor(const struct restore_target *t, const struct copy *c, struct err *e)
{
    const struct descriptor_disk d = { c->disk->slot, c->disk->capacity_bytes, c->disk->root };
    char name[IMAGE_NAME_ROOM], text[DESCRIPTOR_TEXT_ROOM];
    int count = descriptor_text(&d, c->file, text, sizeof text);

    if (count < 0)
        return err_set(e, ERR_LIMIT, "the descriptor is too long");
    descriptor_name(name, c->file);
    return publish_bytes(t->work_fd, name, text, (size_t)count, 0600, PUBLISH_NEW, e);
}

static int restore_image(struct repo *r, const struct restore_target *t,
                         const struct repo_generation_disk *d, const struct repo_env *env,
                         struct err *e)
{
    struct copy c = { .disk = d, .env = env, .to = OUTPUT_EMPTY };
    int rc = -1;

    image_name(c.file, d->slot);
    if (output_create(&c.to, t->work_fd, c.file, d->capacity_bytes, e) == 0 &&
        copy_disk(&c, r, e) == 0)
        rc = put_descriptor(t, &c, e);
    end_copy(&c, rc != 0, e);
    return rc == 0 ? 0 : err_add(e, "%s", d->slot);
}

/* --- configuration --- */

static int restore_file(struct repo *r, int dir, const struct repo_generation_file *f,
                        struct err *e)
{
    struct bytes body = { .ceiling = REPO_FILE_BYTES_MAX };
    char safe[NAME_SAFE_ROOM];
    int rc;

    /* It was made safe when it was stored; what is not was put there by somebody else. */
    name_made_safe(f->name, safe);
    if (strcmp(safe, f->name) != 0)
        return err_set(e, ERR_CORRUPT, "a configuration file has a name that is not allowed");
    rc = repo_file_read(r, f, &body, e);
    if (rc == 0)
        rc = publish_bytes(dir, f->name, body.data, body.count, 0600, PUBLISH_NEW, e);
    bytes_free(&body);
    return rc;
}

static int restore_config(struct repo *r, const struct restore_target *t,
                          const struct repo_generation *g, struct err *e)
{
    int fd, rc = 0;

    if (publish_directory(t->work_fd, CONFIG_FOLDER, 0700, NULL, e) != 0)
        return -1;
    fd = openat(t->work_fd, CONFIG_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return err_sys(e, "opening %s", CONFIG_FOLDER);
    for (uint32_t i = 0; i < g->file_count && rc == 0; i++)
        rc = restore_file(r, fd, &g->files[i], e);
    io_drop(&fd);
    return rc;
}

/* --- the whole --- */

static bool is_wanted(const struct disk_list *only, const char *slot)
{
    for (size_t i = 0; i < only->count; i++)
        if (strcmp(only->slots[i], slot) == 0)
            return true;
    return only->count == 0;
}

static int check_only(const struct disk_list *only, const struct repo_generation *g, struct err *e)
{
    for (size_t i = 0; i < only->count; i++) {
        bool there = false;

        for (uint32_t k = 0; k < g->disk_count; k++)
            there = there || (strcmp(only->slots[i], g->disks[k].slot) == 0 &&
                              g->disks[k].state != REPO_DISK_ABSENT);
        if (!there)
            return err_set(e, ERR_NOT_FOUND, "it has no content of a disk %s", only->slots[i]);
    }
    return 0;
}

static int restore_all(struct repo *r, const struct repo_generation *g,
                       const struct disk_list *only, const struct restore_target *t,
                       const struct repo_env *env, struct repo_restored *out, struct err *e)
{
    char text[200];

    for (uint32_t i = 0; i < g->disk_count; i++) {
        const struct repo_generation_disk *d = &g->disks[i];

        if (!is_wanted(only, d->slot))
            continue;
        if (d->state == REPO_DISK_ABSENT) {
            snprintf(text, sizeof text, "%s was never stored: it is not restored", d->slot);
            if (env->warn != NULL)
                env->warn(env->context, text);
            continue;
        }
        if (restore_image(r, t, d, env, e) != 0)
            return -1;
        out->disks++;
        out->bytes += d->capacity_bytes;
    }
    return restore_config(r, t, g, e);
}

int repo_restore(struct repo *r, const struct generation_item *item, const struct disk_list *only,
                 const char *to, const struct repo_env *env, struct repo_restored *out,
                 struct err *e)
{
    const struct repo_generation *g = repo_list_manifest(item);
    struct restore_target t = RESTORE_TARGET_EMPTY;
    int rc = -1;

    *out = (struct repo_restored){ 0 };
    if (check_only(only, g, e) != 0) {
        err_add(e, "%s@%" PRIu64, item->vm, item->number);
        goto out;
    }
    /* The target first: what is in its way is found before anything is read. */
    if (restore_target_open(&t, to, e) != 0) {
        err_add(e, "%s", to);
        goto out;
    }
    if (restore_all(r, g, only, &t, env, out, e) != 0) {
        err_add(e, "%s@%" PRIu64, item->vm, item->number);
        goto out;
    }
    if (restore_target_finish(&t, e) != 0) {
        err_add(e, "%s", to);
        goto out;
    }
    rc = 0;

out:
    restore_target_close(&t, rc == 0);
    return rc;
}

/* --- one disk elsewhere --- */

/* The disk that is meant; with no slot the only one. */
static int pick_disk(const struct repo_generation *g, const char *slot,
                     const struct repo_generation_disk **out, struct err *e)
{
    unsigned count = 0;

    for (uint32_t i = 0; i < g->disk_count; i++) {
        const struct repo_generation_disk *d = &g->disks[i];

        if (d->state == REPO_DISK_ABSENT || (slot != NULL && strcmp(slot, d->slot) != 0))
            continue;
        *out = d;
        count++;
    }
    return output_check_one(count, slot, e);
}

int repo_restore_disk(struct repo *r, const struct generation_item *item, const char *slot,
                      const char *to, bool force_device, const struct repo_env *env,
                      struct repo_restored *out, struct err *e)
{
    const struct repo_generation *g = repo_list_manifest(item);
    struct copy c = { .env = env, .to = OUTPUT_EMPTY };
    int rc = -1;

    *out = (struct repo_restored){ 0 };
    if (pick_disk(g, slot, &c.disk, e) != 0)
        return err_add(e, "%s@%" PRIu64, item->vm, item->number);
    image_name(c.file, c.disk->slot);
    if (output_open(&c.to, to, force_device, c.disk->capacity_bytes, e) == 0)
        rc = copy_disk(&c, r, e);
    end_copy(&c, rc != 0, e);
    if (rc != 0)
        return err_add(e, "%s@%" PRIu64 ": %s", item->vm, item->number, c.disk->slot);
    out->disks = 1;
    out->bytes = c.disk->capacity_bytes;
    return 0;
}
