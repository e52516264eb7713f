/* A place for a new repository, and the proof that its file system can be relied on. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/publish.h"
#include "receiver/storage/directory.h"
#include "receiver/storage/storage_directory.h"

enum { LONG_NAME = 255 };
#define FAR_OFFSET ((uint64_t)5 << 30)

static int cannot(struct err *e, const char *what)
{
    return err_set(e, ERR_UNSUPPORTED,
                   "the file system there does not do what a repository needs: %s", what);
}

/* Failing for want of room or a broken medium is no judgement on the file system. */
static int judge(struct err *e, const char *what)
{
    if (e->code == ERR_SPACE || e->os == EIO)
        return -1;
    return cannot(e, what);
}

static int try_rename(int dir, struct err *e)
{
    struct stat s;

    if (publish_bytes(dir, "first", "1", 1, 0400, PUBLISH_NEW, e) != 0)
        return judge(e, "writing a file, renaming it, fsync of it and of its folder");
    if (publish_bytes(dir, "first", "22", 2, 0400, PUBLISH_NEW, e) == 0)
        return cannot(e, "a rename that replaces nothing");
    if (e->code != ERR_REFUSED)
        return judge(e, "a rename that replaces nothing");
    if (fstatat(dir, "first", &s, AT_SYMLINK_NOFOLLOW) != 0 || s.st_size != 1)
        return cannot(e, "a rename that replaces nothing");
    if (openat(dir, "first", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) >= 0 || errno != EEXIST)
        return cannot(e, "exclusive creation");
    return 0;
}

static int try_names(int dir, struct err *e)
{
    char name[LONG_NAME + 1];

    memset(name, 'n', LONG_NAME);
    name[LONG_NAME] = 0;
    if (publish_bytes(dir, name, "", 0, 0400, PUBLISH_NEW, e) != 0)
        return judge(e, "file names of 255 bytes");
    return publish_remove(dir, name, e);
}

static int try_locks(int dir, struct err *e)
{
    struct lock a = LOCK_EMPTY, b = LOCK_EMPTY, c = LOCK_EMPTY;
    struct err none;
    int rc = 0;

    if (lock_take(&a, dir, "lock", LOCK_SHARED, 0, NULL, e) != 0 ||
        lock_take(&b, dir, "lock", LOCK_SHARED, 0, NULL, e) != 0)
        rc = cannot(e, "locks of open files");
    else if (lock_take(&c, dir, "lock", LOCK_EXCLUSIVE, 0, NULL, &none) == 0)
        rc = cannot(e, "locks that exclude each other");
    lock_release(&a);
    lock_release(&b);
    lock_release(&c);
    return rc;
}

static int try_offsets(int dir, struct err *e)
{
    int fd = openat(dir, "far", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    char got = 0;
    int rc = 0;

    if (fd < 0)
        return err_sys(e, "creating a file");
    if (io_pwrite_all(fd, "x", 1, FAR_OFFSET, e) != 0 ||
        io_pread_all(fd, &got, 1, FAR_OFFSET, e) != 0 || got != 'x')
        rc = judge(e, "files of more than 4 GiB");
    io_drop(&fd);
    return rc;
}

static void remove_trial(int root, const char *name)
{
    int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;

    if (dir == NULL) {
        io_drop(&fd);
        return;
    }
    while ((entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            (void)unlinkat(fd, entry->d_name, 0);
    closedir(dir);
    (void)unlinkat(root, name, AT_REMOVEDIR);
}

static int try_all(int root, struct err *e)
{
    static const char name[] = ".vmferry-trial";
    int dir = -1;
    int rc = -1;

    if (publish_directory(root, name, 0700, NULL, e) != 0) {
        judge(e, "making a folder and fsync of its parent");
        goto out;
    }
    dir = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        err_sys(e, "opening a new folder");
        goto out;
    }
    if (try_rename(dir, e) == 0 && try_names(dir, e) == 0 && try_locks(dir, e) == 0 &&
        try_offsets(dir, e) == 0)
        rc = 0;

out:
    io_drop(&dir);
    remove_trial(root, name);
    return rc;
}

/* What may be in a place for a new repository: what a trial that was cut has left, what file
 * systems put there themselves, and folders of an `init` that failed and has taken back what was in
 * them. */
static bool may_be_there(const char *name)
{
    static const char *const names[] = {
        ".", "..", "lost+found", ".vmferry-trial", "locks", "keys"
    };

    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static int check_empty(int root, const char *path, struct err *e)
{
    int fd = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;
    int rc = 0;

    if (dir == NULL) {
        err_sys(e, "reading %s", path);
        io_drop(&fd);
        return -1;
    }
    while (rc == 0 && (errno = 0, entry = readdir(dir)) != NULL) {
        if (!may_be_there(entry->d_name))
            rc = err_set(e, ERR_REFUSED, "%s is not empty (%.60s is in it): give an empty folder",
                         path, entry->d_name);
    }
    if (rc == 0 && errno != 0)
        rc = err_sys(e, "reading %s", path);
    closedir(dir);
    return rc;
}

/* Make the last component of path where it is missing, durably. */
static int make_folder(const char *path, struct err *e)
{
    char *for_parent = strdup(path), *for_name = strdup(path);
    int parent = -1;
    bool made;
    int rc = -1;

    if (for_parent == NULL || for_name == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    parent = open(dirname(for_parent), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0) {
        err_sys(e, "opening the folder above %s", path);
        goto out;
    }
    rc = publish_directory(parent, basename(for_name), 0700, &made, e);

out:
    io_drop(&parent);
    free(for_parent);
    free(for_name);
    return rc;
}

int storage_directory_create(struct storage **out, const char *path, struct err *e)
{
    struct stat s;
    int root;

    if (stat(path, &s) != 0 && errno == ENOENT && make_folder(path, e) != 0)
        return -1;
    root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return err_sys(e, "opening %s", path);
    if (check_empty(root, path, e) != 0)
        goto fail;
    remove_trial(root, ".vmferry-trial");
    if (try_all(root, e) != 0) {
        err_add(e, "%s", path);
        goto fail;
    }
    if (directory_new(out, root, path, e) == 0)
        return 0;

fail:
    io_drop(&root);
    return -1;
}
