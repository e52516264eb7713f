/* What is really in an image whose recorded digests cannot be trusted. */
#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/mirror/run.h"

static int note_difference(void *context, uint64_t block, uint64_t count, struct err *e)
{
    struct run_disk *d = context;

    for (uint64_t i = 0; i < count; i++)
        if (bitmap_set(&d->differs, block + i, e) != 0)
            return -1;
    d->changed_bytes += shape_run_bytes(d->old, block, count); /* for the message below */
    return 0;
}

/* The array is good: see where the image is not what it says. */
static int compare(struct run_disk *d, int image_fd, int digests_fd, struct err *e)
{
    struct prove p = { .image_fd = image_fd,
                       .digests_fd = digests_fd,
                       .base_blocks = shape_blocks(d->old),
                       .shape = d->old,
                       .secret = &d->secret,
                       .k = 1,
                       .n = 1,
                       .env = &d->m->store.env,
                       .what = d->base->file,
                       .differs = note_difference,
                       .context = d };

    d->changed_bytes = 0;
    if (bitmap_new(&d->differs, d->m->store.store_fd, e) != 0 || image_prove(&p, e) != 0)
        return -1;
    env_warn(&d->m->store.env, "%s: %" PRIu64 " bytes of it are not what was recorded%s",
             d->base->file, d->changed_bytes,
             d->changed_bytes > 0 ? "; they are read from the host again" : "");
    if (d->changed_bytes == 0)
        bitmap_free(&d->differs);
    d->changed_bytes = 0;
    return 0;
}

/* Digest the whole image into w. */
static int digest_image(struct run_disk *d, int image_fd, struct digest_writer *w, struct err *e)
{
    uint64_t blocks = shape_blocks(d->old);
    uint8_t *buffer = malloc(d->old.block_bytes);
    struct stat s;
    int rc = -1;

    if (buffer == NULL || fstat(image_fd, &s) != 0) {
        err_sys(e, "looking at %s", d->base->file);
        goto out;
    }
    for (uint64_t b = 0; b < blocks; b++) {
        uint64_t at = file_next_data(image_fd, b * d->old.block_bytes, d->old.capacity_bytes);
        struct digest is;
        size_t bytes;

        if (at == d->old.capacity_bytes)
            break;
        b = at / d->old.block_bytes;
        bytes = shape_block_bytes(d->old, b);
        at = b * d->old.block_bytes;
        env_progress(&d->m->store.env, d->base->file, at, d->old.capacity_bytes);
        if (env_check(&d->m->store.env, e) != 0 ||
            file_read_padded(image_fd, buffer, bytes, at, (uint64_t)s.st_size, e) != 0)
            goto out;
        is = digest_of(&d->secret, buffer, bytes);
        if (!digest_is_zero(&is) && digest_put(w, b, &is, e) != 0)
            goto out;
    }
    env_progress(&d->m->store.env, d->base->file, d->old.capacity_bytes, d->old.capacity_bytes);
    rc = digest_writer_flush(w, e);

out:
    free(buffer);
    return rc;
}

/* The array itself is damaged: make a new one of what the image has. */
static int rebuild(struct run_disk *d, int image_fd, const char *name, struct err *e)
{
    struct store *s = &d->m->store;
    uint64_t bytes = shape_blocks(d->old) * DIGEST_BYTES;
    struct digest_writer *w = calloc(1, sizeof *w);
    struct publish p = PUBLISH_EMPTY;
    struct digest root;
    int rc = -1;

    if (w == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    if (publish_begin(&p, s->store_fd, 0600, e) != 0)
        goto out;
    w->fd = p.fd;
    if (ftruncate(p.fd, (off_t)bytes) != 0) {
        err_sys(e, "setting the size of %s", name);
        goto out;
    }
    if (digest_image(d, image_fd, w, e) != 0 ||
        digests_root(p.fd, shape_blocks(d->old), NULL, d->old, &d->secret, &s->env, &root, e) !=
            0 ||
        publish_commit(&p, name, bytes, PUBLISH_REPLACE, e) != 0)
        goto out;
    d->old_lost = !digest_equal(&root, &d->base->root);
    env_warn(&s->env, "%s: %s", name,
             d->old_lost ? "was damaged and the image is not what was recorded; made anew, and "
                           "earlier content cannot be proved"
                         : "was damaged; made anew, the image is as recorded");
    rc = 0;

out:
    publish_drop(&p);
    free(w);
    return rc;
}

/* 1: the array has the recorded root. */
static int array_is_good(struct run_disk *d, int digests_fd, struct err *e)
{
    struct digest root;
    struct stat s;

    if (digests_fd < 0)
        return 0;
    if (fstat(digests_fd, &s) != 0)
        return err_sys(e, "looking at the digests");
    if ((uint64_t)s.st_size != shape_blocks(d->old) * DIGEST_BYTES)
        return 0;
    if (digests_root(digests_fd, shape_blocks(d->old), NULL, d->old, &d->secret, &d->m->store.env,
                     &root, e) != 0)
        return -1;
    return digest_equal(&root, &d->base->root);
}

int run_prove_digests(struct run_disk *d, struct err *e)
{
    struct store *s = &d->m->store;
    char name[LAYOUT_NAME_ROOM];
    int digests_fd, image_fd = -1;
    struct err none;
    int good, rc = -1;

    layout_name(name, "digests-%" PRIu64, d->base->number);
    digests_fd = file_open(s->store_fd, name, O_RDONLY, &none);
    good = array_is_good(d, digests_fd, e);
    if (good < 0)
        goto out;
    if (good > 0 && !d->state.digests_distrusted) {
        rc = 0;
        goto out;
    }
    d->state.digests_distrusted = true;
    env_warn(&s->env, "%s: %s; reading all of it to see what is in it", d->base->file,
             good > 0 ? "it was touched since the last run, or found damaged"
                      : "the record of its digests is damaged");
    image_fd = file_open(s->folder_fd, d->base->file, O_RDONLY, e);
    if (image_fd < 0)
        goto out;
    rc = good > 0 ? compare(d, image_fd, digests_fd, e) : rebuild(d, image_fd, name, e);

out:
    io_drop(&image_fd);
    io_drop(&digests_fd);
    return rc;
}
