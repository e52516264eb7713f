#include "receiver/mirror/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"

int random_bytes(void *out, size_t count, struct err *e)
{
    if (getrandom(out, count, 0) != (ssize_t)count)
        return err_sys(e, "getting random bytes");
    return 0;
}

void id_hex(const uint8_t id[MIRROR_ID_BYTES], char out[MIRROR_ID_HEX_BYTES])
{
    for (size_t i = 0; i < MIRROR_ID_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", id[i]);
}

/* --- opening --- */

int store_open(struct store *s, int dir, const char *name, const char *path,
               const struct mirror_env *env, struct err *e)
{
    *s = STORE_EMPTY;
    if (env != NULL)
        s->env = *env;
    s->path = strdup(path);
    if (s->path == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    s->folder_fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->folder_fd < 0) {
        err_sys(e, "opening the folder");
        goto out;
    }
    s->store_fd =
        openat(s->folder_fd, LAYOUT_STORE, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (s->store_fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)
            err_set(e, ERR_NOT_FOUND, "no mirror is there");
        else
            err_sys(e, "opening " LAYOUT_STORE);
        goto out;
    }
    if (identity_load(&s->identity, s->store_fd, e) == 0)
        return 0;

out:
    store_close(s);
    return err_add(e, "%s", path);
}

void store_close(struct store *s)
{
    lock_release(&s->lock);
    manifest_free(&s->newest);
    identity_free(&s->identity);
    io_drop(&s->store_fd);
    io_drop(&s->folder_fd);
    free(s->path);
    *s = STORE_EMPTY;
}

/* --- generations --- */

struct numbers {
    uint64_t *at;
    size_t count, room;
};

static int note_generation(void *context, const char *name, struct err *e)
{
    static const char prefix[] = "generation-";
    struct numbers *n = context;
    const char *digits = name + sizeof prefix - 1;
    uint64_t number;
    char *end;

    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || digits[0] < '1' || digits[0] > '9' ||
        strlen(digits) > 18)
        return 0;
    number = strtoull(digits, &end, 10);
    if (*end != 0)
        return 0;
    if (n->count == n->room) {
        size_t room = n->room > 0 ? 2 * n->room : 16;
        uint64_t *more = realloc(n->at, room * sizeof *more);

        if (more == NULL)
            return err_sys(e, "getting memory");
        n->at = more;
        n->room = room;
    }
    n->at[n->count++] = number;
    return 0;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

int store_generations(const struct store *s, uint64_t **out, size_t *count, struct err *e)
{
    struct numbers n = { 0 };

    if (folder_each(s->store_fd, note_generation, &n, e) != 0) {
        free(n.at);
        return err_add(e, "%s", s->path);
    }
    if (n.count > 0)
        qsort(n.at, n.count, sizeof *n.at, compare_u64);
    *out = n.at;
    *count = n.count;
    return 0;
}

int store_manifest(const struct store *s, uint64_t number, struct manifest *out, struct err *e)
{
    char name[LAYOUT_NAME_ROOM];

    layout_name(name, "generation-%" PRIu64, number);
    if (manifest_load(out, s->store_fd, name, e) != 0)
        return err_add(e, "%s", s->path);
    if (out->number == number && memcmp(out->mirror, s->identity.mirror, sizeof out->mirror) == 0)
        return 0;
    manifest_free(out);
    return err_set(e, ERR_CORRUPT, "%s: %s belongs to another mirror or generation", s->path, name);
}

int store_load_newest(struct store *s, struct err *e)
{
    uint64_t *numbers = NULL;
    size_t count = 0;
    int rc = 0;

    manifest_free(&s->newest);
    if (store_generations(s, &numbers, &count, e) != 0)
        return -1;
    if (count > 0)
        rc = store_manifest(s, numbers[count - 1], &s->newest, e);
    free(numbers);
    return rc;
}

bool store_trusts(const struct store *s, const struct manifest_disk *d)
{
    char suspect[LAYOUT_NAME_ROOM];
    struct image_stat now;
    struct stat st;

    layout_name(suspect, "suspect-%" PRIu64, d->number);
    if (fstatat(s->folder_fd, d->file, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
        return false;
    image_stat_of(&now, &st);
    return image_stat_equal(&d->stat, &now) && !folder_has(s->store_fd, suspect);
}

void store_suspect(const struct store *s, uint64_t disk)
{
    char name[LAYOUT_NAME_ROOM];
    struct err e;

    layout_name(name, "suspect-%" PRIu64, disk);
    if (publish_bytes(s->store_fd, name, "", 0, 0600, PUBLISH_REPLACE, &e) != 0)
        env_warn(&s->env, "%s: %s", s->path, e.text);
}

struct patch_head store_head(const struct store *s, enum patch_role role,
                             const struct manifest_disk *d, uint64_t generation,
                             uint64_t capacity_bytes, const struct digest *root)
{
    struct patch_head h = { .role = (uint32_t)role,
                            .block_bytes = (uint32_t)d->block_bytes,
                            .disk = d->number,
                            .generation = generation,
                            .capacity_bytes = capacity_bytes,
                            .root = *root };

    memcpy(h.mirror, s->identity.mirror, sizeof h.mirror);
    return h;
}

/* --- what a crash left --- */

bool store_is_pending(const struct store *s)
{
    return folder_has(s->store_fd, LAYOUT_COMMIT) || folder_has(s->folder_fd, LAYOUT_INTERRUPTED);
}

/* A mark without a commit is of a run that died just before it, or of one that is about to. */
static int drop_mark(struct store *s, struct err *e)
{
    struct lock run = LOCK_EMPTY;
    int rc = 0;

    if (s->for_run)
        return publish_remove(s->folder_fd, LAYOUT_INTERRUPTED, e);
    if (lock_take(&run, s->store_fd, LAYOUT_RUN_LOCK, LOCK_EXCLUSIVE, 0, NULL, e) != 0)
        return e->code == ERR_BUSY ? 0 : -1;
    if (!folder_has(s->store_fd, LAYOUT_COMMIT))
        rc = publish_remove(s->folder_fd, LAYOUT_INTERRUPTED, e);
    lock_release(&run);
    return rc;
}

static int finish(struct store *s, bool interrupted, struct err *e)
{
    struct lock lock = LOCK_EMPTY;
    int rc = -1;

    if (!store_is_pending(s))
        return store_load_newest(s, e);
    if (lock_take(&lock, s->store_fd, LAYOUT_LOCK, LOCK_EXCLUSIVE, s->env.lock_wait_ms, s->env.stop,
                  e) != 0)
        return err_add(e, "%s: a refresh must be finished", s->path);
    if (folder_has(s->store_fd, LAYOUT_COMMIT)) {
        if (interrupted)
            env_warn(&s->env, "%s: finishing a refresh that was interrupted", s->path);
        if (store_load_newest(s, e) != 0 || store_apply(s, e) != 0)
            goto out;
    } else if (drop_mark(s, e) != 0) {
        goto out;
    }
    rc = store_load_newest(s, e);

out:
    lock_release(&lock);
    return rc;
}

int store_finish(struct store *s, struct err *e)
{
    return finish(s, true, e);
}

int store_apply_own(struct store *s, struct err *e)
{
    int rc;

    s->own = true;
    s->damaged = false;
    rc = finish(s, false, e);
    s->own = false;
    return rc == 0 && s->damaged
               ? err_set(e, ERR_CORRUPT, "%s: the redo was damaged before it was applied", s->path)
               : rc;
}

int store_open_reader(struct store *s, const char *folder, const struct mirror_env *env,
                      struct err *e)
{
    enum { TRIES = 8 };

    if (store_open(s, AT_FDCWD, folder, folder, env, e) != 0)
        return -1;
    for (int i = 0; i < TRIES; i++) {
        if (store_finish(s, e) != 0)
            goto fail;
        if (lock_take(&s->lock, s->store_fd, LAYOUT_LOCK, LOCK_SHARED, s->env.lock_wait_ms,
                      s->env.stop, e) != 0) {
            err_add(e, "%s", folder);
            goto fail;
        }
        /* A run may have committed between the two locks. */
        if (!folder_has(s->store_fd, LAYOUT_COMMIT)) {
            if (store_load_newest(s, e) != 0)
                goto fail;
            return 0;
        }
        lock_release(&s->lock);
    }
    err_set(e, ERR_BUSY, "%s: refreshes never end", folder);

fail:
    store_close(s);
    return -1;
}
