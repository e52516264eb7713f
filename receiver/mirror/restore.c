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
#include "receiver/restore/target.h"

/* --- disks --- */

struct copy {
    struct content c;
    struct tree *tree;
    int fd;
    const char *file;
};

static int copy_window(struct copy *k, uint64_t first, size_t count, struct err *e)
{
    struct digest d[DIGEST_WINDOW];
    int layer[DIGEST_WINDOW];

    if (content_digests(&k->c, first, count, d, layer, e) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        uint64_t block = first + i;

        if (env_check(&k->c.s->env, e) != 0 || content_block(&k->c, block, layer[i], &d[i], e) != 0)
            return -1;
        if (!digest_is_zero(&d[i]) &&
            io_pwrite_all(k->fd, k->c.room.plain, shape_block_bytes(k->c.shape, block),
                          block * k->c.shape.block_bytes, e) != 0)
            return err_add(e, "%s", k->file);
    }
    return tree_add(k->tree, d, count, e);
}

static int copy_blocks(struct copy *k, struct err *e)
{
    uint64_t blocks = shape_blocks(k->c.shape);
    struct digest root;

    for (uint64_t at = 0; at < blocks;) {
        uint64_t next;
        size_t count;

        if (content_next(&k->c, at, &next, e) != 0 || tree_add_zeros(k->tree, next - at, e) != 0)
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

static int restore_disk(const struct store *s, struct restore_target *t,
                        const struct manifest_disk *d, uint64_t generation, struct err *e)
{
    struct copy k = { .fd = -1, .file = d->file };
    char name[LAYOUT_NAME_ROOM], text[1024];
    int count, rc = -1;

    if (content_open(&k.c, s, d, generation, e) != 0 ||
        tree_new(&k.tree, &d->secret, d->capacity_bytes, (uint32_t)d->block_bytes, e) != 0)
        goto out;
    k.fd = openat(t->work_fd, d->file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (k.fd < 0 || ftruncate(k.fd, (off_t)d->capacity_bytes) != 0) {
        err_sys(e, "making %s", d->file);
        goto out;
    }
    if (copy_blocks(&k, e) != 0 || io_sync(k.fd, e) != 0 || io_close(&k.fd, e) != 0)
        goto out;
    descriptor_name(name, d->file);
    count = disk_descriptor(d, text, sizeof text);
    rc = publish_bytes(t->work_fd, name, text, (size_t)count, 0600, PUBLISH_NEW, e);

out:
    io_drop(&k.fd);
    tree_free(k.tree);
    content_close(&k.c);
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
