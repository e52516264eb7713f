/* Is a mirror what its records say? */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/mirror/mirror_read.h"
#include "receiver/mirror/store.h"
#include "receiver/mirror/verified.h"

struct check {
    struct store s;
    const struct mirror_check_options *o;
    struct mirror_checked *out;
    struct err first; /* fault */
    uint64_t from;    /* the oldest generation that is looked at */
};

/* Counts a fault and goes on. */
static void fault(struct check *k, const char *object, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void fault(struct check *k, const char *object, const char *format, ...)
{
    char text[480];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (k->out->problems++ == 0)
        err_set(&k->first, ERR_CORRUPT, "%s/%s: %s", k->s.path, object, text);
    if (k->o->problem != NULL)
        k->o->problem(k->o->context, object, text);
}

/* What a read fault means: damage is counted, anything else (stop, memory) ends the check. */
static int judge(struct check *k, const char *object, const struct err *e)
{
    if (e->code != ERR_CORRUPT && e->code != ERR_NOT_FOUND && e->code != ERR_SOURCE &&
        e->code != ERR_UNSUPPORTED && e->code != ERR_REFUSED)
        return -1;
    fault(k, object, "%s", e->text);
    return 0;
}

static const char *const no_name = "";

/* --- images --- */

struct differences {
    uint64_t count, first;
};

static int note_difference(void *context, uint64_t block, uint64_t count, struct err *e)
{
    struct differences *d = context;

    (void)e;
    if (d->count == 0)
        d->first = block;
    d->count += count;
    return 0;
}

static int prove_image(struct check *k, const struct manifest_disk *d, int image_fd, int digests_fd,
                       bool all, struct err *e)
{
    struct differences bad = { 0 };
    struct prove p = { .image_fd = image_fd,
                       .digests_fd = digests_fd,
                       .base_blocks = shape_blocks(shape_of(d)),
                       .shape = shape_of(d),
                       .secret = &d->secret,
                       .k = all ? 1 : k->o->k,
                       .n = all ? 1 : k->o->n,
                       .env = &k->s.env,
                       .what = d->file,
                       .differs = note_difference,
                       .context = &bad };

    if (image_prove(&p, e) != 0)
        return judge(k, d->file, e);
    k->out->read_bytes += p.read_bytes;
    if (bad.count == 0)
        return 0;
    fault(k, d->file,
          "%" PRIu64 " blocks are not what was written, the first at byte %" PRIu64
          "; the next run reads all of it",
          bad.count, bad.first * d->block_bytes);
    store_suspect(&k->s, d->number);
    return 0;
}

/* The digest array by its root.  A descriptor for it, or -1 with a fault noted. */
static int open_digests(struct check *k, const struct manifest_disk *d, bool *stop, struct err *e)
{
    char name[LAYOUT_NAME_ROOM];
    struct digest root;
    struct stat st;
    int fd;

    layout_name(name, "digests-%" PRIu64, d->number);
    k->out->objects++;
    fd = file_open(k->s.store_fd, name, O_RDONLY, e);
    if (fd < 0) {
        *stop = judge(k, name, e) != 0;
        return -1;
    }
    if (fstat(fd, &st) == 0 && (uint64_t)st.st_size == shape_blocks(shape_of(d)) * DIGEST_BYTES) {
        if (digests_root(fd, shape_blocks(shape_of(d)), NULL, shape_of(d), &d->secret, &k->s.env,
                         &root, e) != 0) {
            *stop = judge(k, name, e) != 0;
            goto bad;
        }
        if (digest_equal(&root, &d->root))
            return fd;
    }
    fault(k, name, "it does not have the length and root that were recorded");

bad:
    io_drop(&fd);
    return -1;
}

static int check_image(struct check *k, const struct manifest_disk *d, struct err *e)
{
    bool trusted = store_trusts(&k->s, d), stop = false;
    int image_fd, digests_fd;
    struct stat st;
    int rc = 0;

    k->out->objects++;
    image_fd = file_open(k->s.folder_fd, d->file, O_RDONLY, e);
    if (image_fd < 0)
        return judge(k, d->file, e);
    if (fstat(image_fd, &st) != 0) {
        rc = err_sys(e, "looking at %s", d->file);
        goto out;
    }
    if ((uint64_t)st.st_size != d->capacity_bytes)
        fault(k, d->file, "it has %" PRIu64 " bytes instead of %" PRIu64, (uint64_t)st.st_size,
              d->capacity_bytes);
    digests_fd = open_digests(k, d, &stop, e);
    if (stop)
        rc = -1;
    /* One that somebody touched is read whole, asked for or not. */
    if (digests_fd >= 0 && (k->o->read_data || !trusted))
        rc = prove_image(k, d, image_fd, digests_fd, !trusted, e);
    io_drop(&digests_fd);

out:
    io_drop(&image_fd);
    return rc;
}

static int check_descriptor(struct check *k, const struct manifest_disk *d, struct err *e)
{
    char name[LAYOUT_NAME_ROOM], text[1024];
    struct bytes body;
    int count;

    descriptor_name(name, d->file);
    k->out->objects++;
    if (file_load(k->s.folder_fd, name, &body, sizeof text, e) != 0)
        return judge(k, name, e);
    count = disk_descriptor(d, text, sizeof text);
    if (body.count != (size_t)count || memcmp(body.data, text, body.count) != 0)
        fault(k, name, "it is not the descriptor that was written");
    bytes_free(&body);
    return 0;
}

/* --- configuration --- */

static int check_configs(struct check *k, int parent, const char *folder, const struct manifest *m,
                         struct err *e)
{
    int fd = openat(parent, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int rc = 0;

    if (fd < 0) {
        fault(k, folder, "it is missing");
        return 0;
    }
    for (size_t i = 0; i < m->config_count && rc == 0; i++) {
        const struct manifest_config *c = &m->configs[i];
        uint8_t sum[RECORD_SHA256_BYTES];
        char object[600];
        struct bytes body;

        snprintf(object, sizeof object, "%s/%s", folder, c->name);
        k->out->objects++;
        if (file_load(fd, c->name, &body, MIRROR_CONFIG_BYTES_MAX, e) != 0) {
            rc = judge(k, object, e);
            continue;
        }
        sha256_of(sum, body.data, body.count);
        if (memcmp(sum, c->sha256, sizeof sum) != 0)
            fault(k, object, "it is not what was recorded");
        bytes_free(&body);
    }
    io_drop(&fd);
    return rc;
}

/* --- reverse deltas --- */

static int check_payload(struct check *k, const struct manifest_disk *own, struct patch_cursor *c,
                         const char *blocks, struct err *e)
{
    struct patch_room room = { 0 };
    int fd = file_open(k->s.store_fd, blocks, O_RDONLY, e);
    uint64_t index = 0;
    int rc = -1;

    if (fd < 0)
        return judge(k, blocks, e);
    if (patch_room_new(&room, own->block_bytes, e) != 0)
        goto out;
    for (; c->have; index++) {
        if (env_check(&k->s.env, e) != 0)
            goto out;
        if (c->entry.kind == PATCH_DATA && index % k->o->n == k->o->k - 1) {
            if (patch_payload(fd, &c->entry, &own->secret,
                              shape_block_bytes(shape_of(own), c->entry.block), &room, e) != 0 &&
                judge(k, blocks, e) != 0)
                goto out;
            k->out->read_bytes += c->entry.packed_bytes;
        }
        if (patch_step(c, e) != 0)
            goto out;
    }
    rc = 0;

out:
    patch_room_free(&room);
    io_drop(&fd);
    return rc;
}

static int walk_delta(struct check *k, const struct manifest_disk *own, struct patch_cursor *c,
                      const char *blocks, struct err *e)
{
    if (k->o->read_data)
        return check_payload(k, own, c, blocks, e);
    while (c->have)
        if (patch_step(c, e) != 0)
            return -1;
    return 0;
}

static int check_delta(struct check *k, uint64_t generation, const struct manifest_disk *own,
                       const struct patch_facts *facts, struct err *e)
{
    struct patch_head head =
        store_head(&k->s, PATCH_DELTA, own, generation, own->capacity_bytes, &own->root);
    uint64_t bytes = PATCH_HEAD_BYTES + facts->entries * PATCH_ENTRY_BYTES;
    char index[LAYOUT_NAME_ROOM], blocks[LAYOUT_NAME_ROOM];
    struct patch_cursor c = PATCH_CURSOR_EMPTY;
    uint8_t hash[PATCH_HASH_BYTES];
    struct stat st;
    int rc = 0;

    layout_name(index, "delta-%" PRIu64 "-%" PRIu64 ".index", generation, own->number);
    layout_name(blocks, "delta-%" PRIu64 "-%" PRIu64 ".blocks", generation, own->number);
    k->out->objects += 2;
    if (patch_cursor_open(&c, k->s.store_fd, index, &head, bytes, facts->blocks_bytes, e) != 0 ||
        patch_hash(c.fd, bytes, hash, e) != 0) {
        rc = judge(k, index, e);
        goto out;
    }
    if (fstat(c.fd, &st) != 0 || (uint64_t)st.st_size != bytes ||
        memcmp(hash, facts->hash, sizeof hash) != 0)
        fault(k, index, "it is not what was recorded");
    if (fstatat(k->s.store_fd, blocks, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode) ||
        (uint64_t)st.st_size != facts->blocks_bytes)
        fault(k, blocks, "it is missing or has a wrong length");
    else if (walk_delta(k, own, &c, blocks, e) != 0)
        rc = judge(k, index, e);

out:
    patch_cursor_close(&c);
    return rc;
}

/* What leads from `next` back to `own`. */
static int check_deltas(struct check *k, const struct manifest *own, const struct manifest *next,
                        struct err *e)
{
    for (size_t i = 0; i < next->disk_count; i++) {
        const struct manifest_disk *d = &next->disks[i];
        const struct manifest_disk *then = manifest_disk(own, d->number);

        if (!d->delta.there)
            continue;
        if (then == NULL)
            fault(k, no_name, "generation %" PRIu64 " has a delta for a disk that it does not have",
                  own->number);
        else if (check_delta(k, own->number, then, &d->delta, e) != 0)
            return -1;
    }
    return 0;
}

/* --- generations --- */

static int check_newest(struct check *k, struct err *e)
{
    const struct manifest *m = &k->s.newest;

    for (size_t i = 0; i < m->disk_count; i++) {
        const struct manifest_disk *d = &m->disks[i];

        if (d->state == DISK_ABSENT)
            continue;
        if (check_image(k, d, e) != 0 ||
            (d->state != DISK_REMOVED && check_descriptor(k, d, e) != 0))
            return -1;
    }
    for (size_t i = 0; i < m->damage_count; i++)
        if (m->damages[i].generation >= k->from &&
            (k->o->generation == 0 || m->damages[i].generation == k->o->generation))
            fault(k, no_name, "generation %" PRIu64 " has lost %" PRIu64 " blocks of disk %" PRIu64,
                  m->damages[i].generation, m->damages[i].blocks, m->damages[i].disk);
    return check_configs(k, k->s.folder_fd, LAYOUT_CONFIG, m, e);
}

/* The generation below `*next`, or the newest when that is empty; becomes *next. */
static int check_generation(struct check *k, uint64_t number, struct manifest *next, struct err *e)
{
    char name[LAYOUT_NAME_ROOM], config[LAYOUT_NAME_ROOM];
    struct manifest m;
    int rc;

    layout_name(name, "generation-%" PRIu64, number);
    layout_name(config, "config-%" PRIu64, number);
    k->out->objects++;
    if (store_manifest(&k->s, number, &m, e) != 0) {
        manifest_free(next);
        return judge(k, name, e);
    }
    rc = check_configs(k, k->s.store_fd, config, &m, e);
    if (rc == 0 && next->number != 0)
        rc = check_deltas(k, &m, next, e);
    manifest_free(next);
    *next = m;
    return rc;
}

/* From the newest back; a number that is missing between two others is a fault. */
static int check_generations(struct check *k, uint64_t *numbers, size_t count, struct err *e)
{
    struct manifest next = { 0 };
    int rc = 0;

    for (size_t i = count; i > 0 && rc == 0; i--) {
        if (numbers[i - 1] < k->from)
            break;
        if (i < count && numbers[i - 1] + 1 != numbers[i])
            fault(k, no_name, "generation %" PRIu64 " is missing", numbers[i - 1] + 1);
        rc = check_generation(k, numbers[i - 1], &next, e);
    }
    manifest_free(&next);
    return rc;
}

static void note_verified(struct check *k, const uint64_t *numbers, size_t count)
{
    struct err e;

    if (!k->o->read_data || k->o->n != 1 || k->out->problems > 0)
        return;
    while (count > 0 && numbers[0] < k->from) {
        numbers++;
        count--;
    }
    /* A place where nothing can be written can be checked all the same. */
    if (verified_note(&k->s, numbers, count, (int64_t)time(NULL), &e) != 0)
        env_warn(&k->s.env, "%s: %s", k->s.path, e.text);
}

static int check_open(struct check *k, struct err *e)
{
    uint64_t *numbers = NULL;
    size_t count = 0;
    int rc = -1;

    if (store_generations(&k->s, &numbers, &count, e) != 0)
        return -1;
    if (count == 0) {
        rc = err_set(e, ERR_CORRUPT, "%s: it has no generation", k->s.path);
        goto out;
    }
    k->from = k->s.newest.number > k->s.newest.keep ? k->s.newest.number - k->s.newest.keep : 1;
    if (k->o->generation != 0) {
        if (k->o->generation < k->from || k->o->generation > k->s.newest.number) {
            rc = err_set(e, ERR_NOT_FOUND, "%s has no generation %" PRIu64, k->s.path,
                         k->o->generation);
            goto out;
        }
        k->from = k->o->generation;
    }
    if (check_newest(k, e) != 0 || check_generations(k, numbers, count, e) != 0)
        goto out;
    note_verified(k, numbers, count);
    rc = 0;

out:
    free(numbers);
    return rc;
}

int mirror_check(const char *folder, const struct mirror_check_options *options,
                 const struct mirror_env *env, struct mirror_checked *out, struct err *e)
{
    struct mirror_check_options o = *options;
    struct check k = { .s = STORE_EMPTY, .o = &o, .out = out };
    int rc;

    *out = (struct mirror_checked){ 0 };
    if (o.n == 0)
        o.k = o.n = 1;
    if (o.k < 1 || o.k > o.n)
        return err_set(e, ERR_USAGE, "slice %u of %u does not exist", o.k, o.n);
    if (store_open_reader(&k.s, folder, env, e) != 0) {
        if (e->code == ERR_CORRUPT || e->code == ERR_NOT_FOUND) {
            out->problems++;
            if (o.problem != NULL)
                o.problem(o.context, folder, e->text);
        }
        return -1;
    }
    rc = check_open(&k, e);
    store_close(&k.s);
    if (rc == 0 && out->problems > 0) {
        if (e != NULL)
            *e = k.first;
        rc = -1;
    }
    return rc;
}
