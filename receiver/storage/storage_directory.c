#include "receiver/storage/storage_directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/publish.h"
#include "receiver/storage/directory.h"
#include "receiver/storage/name_list.h"
#include "receiver/storage/open_files.h"

static const char LOCKS[] = "locks";

enum { DIRTY_MAX = 64, DEPTH_MAX = 8 };

/* A folder whose names changed since the last barrier. */
struct dirty {
    char name[STORAGE_NAME_ROOM];
    int fd;
};

struct directory {
    struct storage base;
    int root;
    char *label;
    pthread_mutex_t lock; /* guards the rest */
    struct dirty dirty[DIRTY_MAX];
    size_t dirty_count;
    bool poisoned; /* an fsync failed: nothing can be made durable any more */
    struct open_files files;
};

struct file_upload {
    struct storage_upload base;
    struct publish file;
    int folder;
    uint64_t written;
    char name[STORAGE_NAME_ROOM];
};

struct file_list {
    struct storage_list base;
    struct name_list names;
    size_t at;
};

struct file_lock {
    struct storage_lock base;
    struct lock lock;
};

static struct directory *directory_of(struct storage *s)
{
    return (struct directory *)(void *)s;
}

/* --- folders --- */

/* The root itself may have been removed under us; then nothing in it is merely missing. */
static int check_root(const struct directory *d, struct err *e)
{
    struct stat s;

    if (fstat(d->root, &s) != 0)
        return err_sys(e, "looking at the repository's folder");
    if (s.st_nlink == 0)
        return err_set(e, ERR_NOT_FOUND, "the folder is gone");
    return 0;
}

/* Where the last part of a name begins. */
static size_t leaf_of(const char *name)
{
    const char *slash = strrchr(name, '/');

    return slash == NULL ? 0 : (size_t)(slash - name) + 1;
}

/*
 * Open the folder of the first `count` bytes of a name, part by part without following links,
 * making it if asked.  -2: it is not there.
 */
static int open_folder(const struct directory *d, const char *name, size_t count, bool make,
                       struct err *e)
{
    int fd = openat(d->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t at = 0;

    if (fd < 0)
        return err_sys(e, "opening the repository's folder");
    while (at < count) {
        char part[STORAGE_NAME_ROOM];
        size_t length = strcspn(name + at, "/");
        bool made = false;
        int next;

        snprintf(part, sizeof part, "%.*s", (int)length, name + at);
        next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (next < 0 && errno == ENOENT && make) {
            if (publish_directory(fd, part, 0700, &made, e) != 0) {
                io_drop(&fd);
                return -1;
            }
            next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        }
        if (next < 0) {
            int rc = errno == ENOENT ? -2 : -1;

            err_sys(e, "opening the folder %s", part);
            io_drop(&fd);
            return rc == -2 && check_root(d, e) != 0 ? -1 : rc;
        }
        io_drop(&fd);
        fd = next;
        at += length + 1;
    }
    return fd;
}

/* --- durability --- */

/* With the lock held. */
static int sync_all(struct directory *d, struct err *e)
{
    int rc = 0;

    for (size_t i = 0; i < d->dirty_count; i++) {
        if (rc == 0 && io_sync(d->dirty[i].fd, e) != 0)
            rc = -1;
        io_drop(&d->dirty[i].fd);
    }
    d->dirty_count = 0;
    if (rc != 0)
        d->poisoned = true;
    return rc;
}

/* The names in a folder (borrowed) have changed. */
static int note_dirty(struct directory *d, const char *name, int folder, struct err *e)
{
    size_t count = leaf_of(name);
    int rc = 0;

    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->dirty_count; i++)
        if (strncmp(d->dirty[i].name, name, count) == 0 && d->dirty[i].name[count] == 0)
            goto out;
    if (d->dirty_count == DIRTY_MAX)
        rc = sync_all(d, e);
    if (rc == 0) {
        struct dirty *n = &d->dirty[d->dirty_count];

        n->fd = fcntl(folder, F_DUPFD_CLOEXEC, 0);
        if (n->fd < 0) {
            d->poisoned = true;
            rc = err_sys(e, "keeping a folder open");
        } else {
            snprintf(n->name, sizeof n->name, "%.*s", (int)count, name);
            d->dirty_count++;
        }
    }
out:
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/*
 * The same, and of all folders above: one of them may have been made by a process that died before
 * it was durable.
 */
static int note_path(struct directory *d, const char *name, int folder, struct err *e)
{
    char part[STORAGE_NAME_ROOM];
    size_t end;

    if (note_dirty(d, name, folder, e) != 0)
        return -1;
    snprintf(part, sizeof part, "%s", name);
    while ((end = leaf_of(part)) > 0) {
        int fd, rc;

        part[end - 1] = 0;
        fd = open_folder(d, part, leaf_of(part), false, e);
        if (fd < 0)
            return -1;
        rc = note_dirty(d, part, fd, e);
        io_drop(&fd);
        if (rc != 0)
            return -1;
    }
    return 0;
}

static int file_adopt(struct storage *s, const char *name, struct err *e)
{
    struct directory *d = directory_of(s);
    int folder = open_folder(d, name, leaf_of(name), false, e);
    int rc;

    if (folder < 0)
        return folder == -2 ? 0 : -1;
    rc = note_path(d, name, folder, e);
    io_drop(&folder);
    return rc;
}

static int file_barrier(struct storage *s, struct err *e)
{
    struct directory *d = directory_of(s);
    int rc;

    pthread_mutex_lock(&d->lock);
    if (d->poisoned)
        rc = err_set(e, ERR_SYSTEM, "an earlier write to the disk failed");
    else
        rc = sync_all(d, e);
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/* --- objects --- */

static int file_begin(struct storage *s, const char *name, struct storage_upload **out,
                      struct err *e)
{
    struct directory *d = directory_of(s);
    struct file_upload *u = calloc(1, sizeof *u);

    if (u == NULL)
        return err_sys(e, "getting memory");
    u->base.storage = s;
    u->file = PUBLISH_EMPTY;
    snprintf(u->name, sizeof u->name, "%s", name);
    u->folder = open_folder(d, name, leaf_of(name), true, e);
    if (u->folder < 0)
        goto fail;
    if (publish_begin(&u->file, u->folder, 0400, e) != 0) {
        check_root(d, e);
        goto fail;
    }
    *out = &u->base;
    return 0;

fail:
    io_drop(&u->folder);
    free(u);
    return -1;
}

static void file_drop(struct storage_upload *base)
{
    struct file_upload *u = (struct file_upload *)(void *)base;

    publish_drop(&u->file);
    io_drop(&u->folder);
    free(u);
}

static int file_write(struct storage_upload *base, const void *data, size_t count, struct err *e)
{
    struct file_upload *u = (struct file_upload *)(void *)base;

    if (io_write_all(u->file.fd, data, count, e) != 0)
        return -1;
    /* Let the medium begin, so that the fsync at the end finds less to do. */
    if (u->written / SYNC_STEP_BYTES != (u->written + count) / SYNC_STEP_BYTES)
        (void)sync_file_range(u->file.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    u->written += count;
    return 0;
}

static int file_publish(struct storage_upload *base, struct err *e)
{
    struct file_upload *u = (struct file_upload *)(void *)base;
    struct directory *d = directory_of(base->storage);
    int rc = publish_commit_later(&u->file, u->name + leaf_of(u->name), u->written, PUBLISH_NEW, e);

    if (rc == 0)
        rc = note_path(d, u->name, u->folder, e);
    if (rc != 0)
        err_add(e, "object %s", u->name);
    file_drop(base);
    return rc;
}

static int open_file(struct storage *s, const char *name, struct err *e)
{
    struct directory *d = directory_of(s);
    int folder = open_folder(d, name, leaf_of(name), false, e);
    int fd;

    if (folder < 0)
        return -1;
    fd = openat(folder, name + leaf_of(name), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        err_sys(e, "opening it");
    if (fd < 0 && e != NULL && e->code == ERR_NOT_FOUND)
        check_root(d, e);
    io_drop(&folder);
    return fd;
}

static int size_of(int fd, uint64_t *out, struct err *e)
{
    struct stat s;

    if (fstat(fd, &s) != 0)
        return err_sys(e, "looking at it");
    if (!S_ISREG(s.st_mode))
        return err_set(e, ERR_CORRUPT, "it is no regular file");
    *out = (uint64_t)s.st_size;
    return 0;
}

static int read_at(int fd, uint64_t offset_bytes, void *out, size_t count, struct err *e)
{
    uint64_t size, end;

    if (size_of(fd, &size, e) != 0)
        return -1;
    if (!checked_add(offset_bytes, count, &end) || end > size)
        return err_set(e, ERR_CORRUPT, "it has %" PRIu64 " bytes, %zu at %" PRIu64 " were wanted",
                       size, count, offset_bytes);
    return io_pread_all(fd, out, count, offset_bytes, e);
}

static int file_read(struct storage *s, const char *name, uint64_t offset_bytes, void *out,
                     size_t count, struct err *e)
{
    struct directory *d = directory_of(s);
    struct open_file *f = open_files_take(&d->files, name);
    int fd = -1;
    int rc;

    if (f == NULL) {
        fd = open_file(s, name, e);
        if (fd < 0)
            return -1;
        f = open_files_keep(&d->files, name, fd);
    }
    rc = read_at(f != NULL ? f->fd : fd, offset_bytes, out, count, e);
    if (f != NULL)
        open_files_give(&d->files, f);
    else
        io_drop(&fd);
    return rc;
}

static int file_size(struct storage *s, const char *name, uint64_t *out_bytes, struct err *e)
{
    int fd = open_file(s, name, e);
    int rc;

    if (fd < 0)
        return -1;
    rc = size_of(fd, out_bytes, e);
    io_drop(&fd);
    return rc;
}

static int file_remove(struct storage *s, const char *name, struct err *e)
{
    struct directory *d = directory_of(s);
    int folder = open_folder(d, name, leaf_of(name), false, e);
    int rc = 0;

    if (folder < 0)
        return folder == -2 ? 0 : -1;
    if (unlinkat(folder, name + leaf_of(name), 0) == 0)
        rc = note_dirty(d, name, folder, e);
    else if (errno != ENOENT)
        rc = err_sys_write(e, "removing it");
    else
        rc = check_root(d, e);
    open_files_forget(&d->files, name);
    io_drop(&folder);
    return rc;
}

/* --- lists --- */

/* Entries of one folder: objects that fit go to `found`, folders to `folders`. */
static int read_folder(struct directory *d, const char *folder, const char *prefix,
                       struct name_list *found, struct name_list *folders, struct err *e)
{
    int fd = open_folder(d, folder, strlen(folder), false, e);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    int rc = -1;

    if (fd == -2)
        return 0;
    if (dir == NULL) {
        if (fd >= 0)
            err_sys(e, "reading a folder");
        io_drop(&fd);
        return -1;
    }
    for (;;) {
        char name[STORAGE_NAME_ROOM + 256];
        struct dirent *entry;
        struct stat s;

        errno = 0;
        entry = readdir(dir);
        if (entry == NULL && errno != 0) {
            err_sys(e, "reading a folder");
            goto out;
        }
        if (entry == NULL)
            break;
        snprintf(name, sizeof name, "%s%s", folder, entry->d_name);
        if (!storage_name_valid(name) || strcmp(name, LOCKS) == 0)
            continue;
        if (fstatat(dirfd(dir), entry->d_name, &s, AT_SYMLINK_NOFOLLOW) != 0) {
            if (errno == ENOENT)
                continue; /* removed meanwhile */
            err_sys(e, "looking at %s", name);
            goto out;
        }
        if (S_ISREG(s.st_mode) && strncmp(name, prefix, strlen(prefix)) == 0 &&
            name_list_add(found, name, e) != 0)
            goto out;
        if (S_ISDIR(s.st_mode)) {
            snprintf(name, sizeof name, "%s%s/", folder, entry->d_name);
            if (storage_prefix_valid(name) && name_list_add(folders, name, e) != 0)
                goto out;
        }
    }
    rc = 0;

out:
    closedir(dir);
    return rc;
}

/* A folder below which a wanted name may lie, or which lies below the prefix. */
static bool may_hold(const char *folder, const char *prefix)
{
    size_t a = strlen(folder), b = strlen(prefix);

    return strncmp(folder, prefix, a < b ? a : b) == 0;
}

static int collect(struct directory *d, const char *prefix, struct name_list *out, struct err *e)
{
    struct name_list folders = { 0 };
    char start[STORAGE_NAME_ROOM];
    int rc = -1;

    snprintf(start, sizeof start, "%.*s", (int)leaf_of(prefix), prefix);
    if (check_root(d, e) != 0 || name_list_add(&folders, start, e) != 0)
        goto out;
    for (size_t i = 0; i < folders.count; i++)
        if (may_hold(folders.names[i], prefix) &&
            read_folder(d, folders.names[i], prefix, out, &folders, e) != 0)
            goto out;
    rc = 0;

out:
    name_list_free(&folders);
    return rc;
}

static int file_list(struct storage *s, const char *prefix, struct storage_list **out,
                     struct err *e)
{
    struct file_list *l = calloc(1, sizeof *l);

    if (l == NULL)
        return err_sys(e, "getting memory");
    l->base.storage = s;
    if (collect(directory_of(s), prefix, &l->names, e) != 0) {
        name_list_free(&l->names);
        free(l);
        return -1;
    }
    name_list_sort(&l->names);
    *out = &l->base;
    return 0;
}

static int file_next(struct storage_list *base, struct storage_item *out, struct err *e)
{
    struct file_list *l = (struct file_list *)(void *)base;

    while (l->at < l->names.count) {
        const char *name = l->names.names[l->at++];

        if (file_size(base->storage, name, &out->size_bytes, e) == 0) {
            snprintf(out->name, sizeof out->name, "%s", name);
            return 1;
        }
        /* Removed since it was listed: as if it had gone before. */
        if (e->code != ERR_NOT_FOUND || check_root(directory_of(base->storage), e) != 0)
            return err_add(e, "object %s", name);
    }
    return 0;
}

static void file_end(struct storage_list *base)
{
    struct file_list *l = (struct file_list *)(void *)base;

    name_list_free(&l->names);
    free(l);
}

static int sweep_folder(struct directory *d, const char *folder, struct name_list *folders,
                        struct err *e)
{
    struct name_list objects = { 0 };
    int fd = open_folder(d, folder, strlen(folder), false, e);
    int rc = -1;

    if (fd < 0)
        return fd == -2 ? 0 : -1;
    if (publish_sweep(fd, e) == 0)
        rc = read_folder(d, folder, folder, &objects, folders, e);
    name_list_free(&objects);
    io_drop(&fd);
    return rc;
}

static int file_sweep(struct storage *s, struct err *e)
{
    struct name_list folders = { 0 };
    int rc = name_list_add(&folders, "", e);

    for (size_t i = 0; rc == 0 && i < folders.count; i++)
        rc = sweep_folder(directory_of(s), folders.names[i], &folders, e);
    name_list_free(&folders);
    return rc;
}

/* --- locks --- */

static int file_lock(struct storage *s, const char *name, enum lock_kind kind, uint64_t wait_ms,
                     const atomic_bool *stop, struct storage_lock **out, struct err *e)
{
    struct directory *d = directory_of(s);
    struct file_lock *l = calloc(1, sizeof *l);
    struct lock gate = LOCK_EMPTY;
    char gate_name[STORAGE_NAME_ROOM + 8];
    uint64_t start = io_clock_ms(), spent;
    int folder = -1;
    int rc = -1;

    if (l == NULL)
        return err_sys(e, "getting memory");
    l->base.storage = s;
    l->lock = LOCK_EMPTY;
    snprintf(gate_name, sizeof gate_name, "%s.wait", name);
    folder = open_folder(d, LOCKS, strlen(LOCKS), true, e);
    if (folder < 0 || lock_take(&gate, folder, gate_name, kind, wait_ms, stop, e) != 0)
        goto out;
    spent = io_clock_ms() - start;
    if (lock_take(&l->lock, folder, name, kind, wait_ms > spent ? wait_ms - spent : 0, stop, e) !=
        0)
        goto out;
    *out = &l->base;
    l = NULL;
    rc = 0;

out:
    lock_release(&gate);
    io_drop(&folder);
    free(l);
    return rc;
}

/* The kernel holds it for us as long as the descriptor is open. */
static int file_proof(struct storage_lock *base, struct err *e)
{
    return check_root(directory_of(base->storage), e);
}

static void file_unlock(struct storage_lock *base)
{
    struct file_lock *l = (struct file_lock *)(void *)base;

    lock_release(&l->lock);
    free(l);
}

static int file_room(struct storage *s, uint64_t *out_bytes, struct err *e)
{
    struct statvfs v;

    if (fstatvfs(directory_of(s)->root, &v) != 0)
        return err_sys(e, "asking for free room");
    if (!checked_mul(v.f_bavail, v.f_frsize, out_bytes))
        *out_bytes = UINT64_MAX;
    return 0;
}

static void file_close(struct storage *s)
{
    struct directory *d = directory_of(s);

    for (size_t i = 0; i < d->dirty_count; i++)
        io_drop(&d->dirty[i].fd);
    io_drop(&d->root);
    open_files_close(&d->files);
    pthread_mutex_destroy(&d->lock);
    free(d->label);
    free(d);
}

int directory_new(struct storage **out, int root, const char *path, struct err *e)
{
    static const struct storage_ops ops = { file_begin, file_write,  file_publish, file_drop,
                                            file_read,  file_size,   file_list,    file_next,
                                            file_end,   file_remove, file_barrier, file_lock,
                                            file_proof, file_unlock, file_room,    file_sweep,
                                            file_close, file_adopt };
    struct directory *d = calloc(1, sizeof *d);

    if (d != NULL)
        d->label = strdup(path);
    if (d == NULL || d->label == NULL) {
        free(d);
        return err_sys(e, "getting memory");
    }
    d->base = (struct storage){ .ops = &ops, .label = d->label };
    d->root = root;
    pthread_mutex_init(&d->lock, NULL);
    open_files_init(&d->files);
    *out = &d->base;
    return 0;
}

int storage_directory_open(struct storage **out, const char *path, struct err *e)
{
    int root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (root < 0 && errno == ENOTDIR)
        return err_set(e, ERR_USAGE, "%s is no folder", path);
    if (root < 0)
        return err_sys(e, "opening %s", path);
    if (directory_new(out, root, path, e) != 0) {
        io_drop(&root);
        return -1;
    }
    return 0;
}
