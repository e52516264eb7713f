/* A generation becomes a folder of its own. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/tree.h"
#include "receiver/mirror/content.h"
#include "receiver/mirror/mirror_read.h"
#include "receiver/restore/output.h"
#include "receiver/restore/target.h"

/* --- disks --- */

struct copy {
    struct content c;
    struct tree *tree;
    struct output to;
    const char *file;
};
#define COPY_EMPTY ((struct copy){ .c = { .image_fd = -1, .digests_fd = -1 }, .to = OUTPUT_EMPTY })

static int copy_window(struct copy *k, uint64_t first, size_t count, struct err *e)
{
    struct digest d[DIGEST_WINDOW];
    int layer[DIGEST_WINDOW];

    if (content_digests(&k->c, first, count, d, layer, e) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        uint64_t block = first + i, at = block * k->c.shape.block_bytes;
        size_t length = shape_block_bytes(k->c.shape, block);
        int rc;

        if (env_check(&k->c.s->env, e) != 0 || content_block(&k->c, block, layer[i], &d[i], e) != 0)
            return -1;
        rc = digest_is_zero(&d[i]) ? output_zeros(&k->to, at, length, e)
                                   : output_write(&k->to, k->c.room.plain, length, at, e);
        if (rc != 0)
            return -1;
    }
    return tree_add(k->tree, d, count, e);
}

/* Blocks [first, end) are zeros. */
static int copy_zeros(struct copy *k, uint64_t first, uint64_t end, struct err *e)
{
    uint64_t from = first * k->c.shape.block_bytes;
    uint64_t to = min_u64(end * k->c.shape.block_bytes, k->c.shape.capacity_bytes);

    while (from < to) {
        uint64_t now = min_u64(to - from, OUTPUT_ZEROS_BYTES);

        if (k->to.kind == OUTPUT_IMAGE)
            now = to - from;
        if (env_check(&k->c.s->env, e) != 0 || output_zeros(&k->to, from, now, e) != 0)
            return -1;
        from += now;
    }
    return tree_add_zeros(k->tree, end - first, e);
}

static int copy_blocks(struct copy *k, struct err *e)
{
    uint64_t blocks = shape_blocks(k->c.shape);
    struct digest root;

    for (uint64_t at = 0; at < blocks;) {
        uint64_t next;
        size_t count;

        if (content_next(&k->c, at, &next, e) != 0 || copy_zeros(k, at, next, e) != 0)
            return -1;
        at = next;
        if (at == blocks)
            break;
        count = (size_t)min_u64(DIGEST_WINDOW, blocks - at);
        if (copy_window(k, at, count, e) != 0)
            return -1;
        at += count;
        env_progress(&k->c.s->env, k->file,
                     min_u64(at * k->c.shape.block_bytes, k->c.shape.capacity_bytes),
                     k->c.shape.capacity_bytes);
    }
    env_progress(&k->c.s->env, k->file, k->c.shape.capacity_bytes, k->c.shape.capacity_bytes);
    if (tree_root(k->tree, &root, e) != 0)
        return -1;
    if (!digest_equal(&root, &k->c.root))
        return err_set(e, ERR_CORRUPT, "%s does not have the root that was recorded", k->file);
    return 0;
}

/* The whole disk to k->to, which is open, and durable there. */
static int copy_disk(struct copy *k, const struct store *s, const struct manifest_disk *d,
                     uint64_t generation, struct err *e)
{
    k->file = d->file;
    if (content_open(&k->c, s, d, generation, e) != 0 ||
        tree_new(&k->tree, &d->secret, d->capacity_bytes, (uint32_t)d->block_bytes, e) != 0 ||
        copy_blocks(k, e) != 0)
        return -1;
    return output_finish(&k->to, e);
}

static void end_copy(struct copy *k, bool failed, struct err *e)
{
    output_drop(&k->to, failed, e);
    tree_free(k->tree);
    content_close(&k->c);
}

static int restore_disk(const struct store *s, struct restore_target *t,
                        const struct manifest_disk *d, uint64_t generation, struct err *e)
{
    struct copy k = COPY_EMPTY;
    char name[LAYOUT_NAME_ROOM], text[1024];
    int rc = -1;

    if (output_create(&k.to, t->work_fd, d->file, d->capacity_bytes, e) == 0 &&
        copy_disk(&k, s, d, generation, e) == 0) {
        int count = disk_descriptor(d, text, sizeof text);

        descriptor_name(name, d->file);
        rc = publish_bytes(t->work_fd, name, text, (size_t)count, 0600, PUBLISH_NEW, e);
    }
    end_copy(&k, rc != 0, e);
    return rc == 0 ? 0 : err_add(e, "%s", d->slot);
}

/* --- configuration --- */

static int restore_config(const struct store *s, struct restore_target *t, const struct manifest *m,
                          struct err *e)
{
    char from[LAYOUT_NAME_ROOM];
    int from_fd = -1, to_fd = -1;
    int rc = -1;

    layout_name(from, "config-%" PRIu64, m->number);
    if (publish_directory(t->work_fd, LAYOUT_CONFIG, 0700, NULL, e) != 0)
        return -1;
    to_fd = openat(t->work_fd, LAYOUT_CONFIG, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    from_fd = openat(s->store_fd, from, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (to_fd < 0 || from_fd < 0) {
        if (from_fd < 0 && errno == ENOENT)
            err_set(e, ERR_CORRUPT, "%s is missing", from);
        else
            err_sys(e, "opening %s", from);
        goto out;
    }
    for (size_t i = 0; i < m->config_count; i++) {
        const struct manifest_config *c = &m->configs[i];
        uint8_t sum[RECORD_SHA256_BYTES];
        struct bytes body;

        if (file_load(from_fd, c->name, &body, MIRROR_CONFIG_BYTES_MAX, e) != 0) {
            e->code = e->code == ERR_NOT_FOUND ? ERR_CORRUPT : e->code;
            goto out;
        }
        sha256_of(sum, body.data, body.count);
        rc = memcmp(sum, c->sha256, sizeof sum) != 0
                 ? err_set(e, ERR_CORRUPT, "%s/%s is not what was recorded", from, c->name)
                 : publish_bytes(to_fd, c->name, body.data, body.count, 0600, PUBLISH_NEW, e);
        bytes_free(&body);
        if (rc != 0)
            goto out;
    }
    rc = 0;

out:
    io_drop(&from_fd);
    io_drop(&to_fd);
    return rc;
}

/* --- the whole --- */

static int refuse_damaged(const struct store *s, uint64_t generation, struct err *e)
{
    for (size_t i = 0; i < s->newest.damage_count; i++) {
        const struct manifest_damage *d = &s->newest.damages[i];

        if (d->generation == generation)
            return err_set(e, ERR_CORRUPT,
                           "generation %" PRIu64 " is damaged: %" PRIu64 " blocks of disk %" PRIu64
                           " are lost",
                           generation, d->blocks, d->disk);
    }
    return 0;
}

static int restore_all(const struct store *s, struct restore_target *t, const struct manifest *m,
                       struct mirror_restored *out, struct err *e)
{
    for (size_t i = 0; i < m->disk_count; i++) {
        const struct manifest_disk *d = &m->disks[i];

        if (d->state == DISK_ABSENT)
            env_warn(&s->env, "%s was never mirrored: it is not restored", d->slot);
        if (d->state != DISK_READ && d->state != DISK_KEPT)
            continue;
        if (restore_disk(s, t, d, m->number, e) != 0)
            return -1;
        out->disks++;
        out->bytes += d->capacity_bytes;
    }
    return restore_config(s, t, m, e);
}

int mirror_restore(const struct generation_item *gen, const char *to, const struct mirror_env *env,
                   struct mirror_restored *out, struct err *e)
{
    struct store s = STORE_EMPTY;
    struct restore_target t = RESTORE_TARGET_EMPTY;
    struct manifest m = { 0 };
    int rc = -1;

    *out = (struct mirror_restored){ 0 };
    /* The target first: what is in its way is found before anything is read. */
    if (restore_target_open(&t, to, e) != 0) {
        err_add(e, "%s", to);
        goto out;
    }
    if (store_open_reader(&s, gen->place, env, e) != 0 ||
        store_manifest(&s, gen->number, &m, e) != 0 || refuse_damaged(&s, gen->number, e) != 0 ||
        restore_all(&s, &t, &m, out, e) != 0) {
        err_add(e, "%s@%" PRIu64, gen->vm, gen->number);
        goto out;
    }
    if (restore_target_finish(&t, e) != 0) {
        err_add(e, "%s", to);
        goto out;
    }
    rc = 0;

out:
    manifest_free(&m);
    store_close(&s);
    restore_target_close(&t, rc == 0);
    return rc;
}

/* --- one disk elsewhere --- */

/* The disk that is meant; with no slot the only one. */
static int pick_disk(const struct manifest *m, const char *slot, const struct manifest_disk **out,
                     struct err *e)
{
    unsigned count = 0;

    for (size_t i = 0; i < m->disk_count; i++) {
        const struct manifest_disk *d = &m->disks[i];

        if ((d->state != DISK_READ && d->state != DISK_KEPT) ||
            (slot != NULL && strcmp(slot, d->slot) != 0))
            continue;
        *out = d;
        count++;
    }
    return output_check_one(count, slot, e);
}

/* The target before the content: what is in its way is found before anything is read. */
static int restore_to(const struct store *s, const struct manifest *m,
                      const struct manifest_disk *d, const char *to, bool force_device,
                      struct err *e)
{
    struct copy k = COPY_EMPTY;
    int rc = -1;

    if (output_open(&k.to, to, force_device, d->capacity_bytes, e) == 0)
        rc = copy_disk(&k, s, d, m->number, e);
    end_copy(&k, rc != 0, e);
    return rc == 0 ? 0 : err_add(e, "%s", d->slot);
}

int mirror_restore_disk(const struct generation_item *gen, const char *slot, const char *to,
                        bool force_device, const struct mirror_env *env,
                        struct mirror_restored *out, struct err *e)
{
    const struct manifest_disk *d = NULL;
    struct store s = STORE_EMPTY;
    struct manifest m = { 0 };
    int rc = -1;

    *out = (struct mirror_restored){ 0 };
    if (store_open_reader(&s, gen->place, env, e) != 0 ||
        store_manifest(&s, gen->number, &m, e) != 0 || pick_disk(&m, slot, &d, e) != 0 ||
        refuse_damaged(&s, gen->number, e) != 0 ||
        restore_to(&s, &m, d, to, force_device, e) != 0) {
        err_add(e, "%s@%" PRIu64, gen->vm, gen->number);
        goto out;
    }
    out->disks = 1;
    out->bytes = d->capacity_bytes;
    rc = 0;

out:
    manifest_free(&m);
    store_close(&s);
    return rc;
}
