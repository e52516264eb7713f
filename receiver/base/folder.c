#include "receiver/base/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"

bool folder_has(int dir, const char *name)
{
    struct stat s;

    return fstatat(dir, name, &s, AT_SYMLINK_NOFOLLOW) == 0;
}

int file_remove(int dir, const char *name, struct err *e)
{
    if (unlinkat(dir, name, 0) != 0 && errno != ENOENT)
        return err_sys(e, "removing %s", name);
    return 0;
}

int file_open(int dir, const char *name, int flags, struct err *e)
{
    int fd = openat(dir, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat s;

    if (fd < 0) {
        err_sys(e, "opening %s", name);
        return -1;
    }
    if (fstat(fd, &s) != 0 || !S_ISREG(s.st_mode)) {
        io_drop(&fd);
        err_set(e, ERR_CORRUPT, "%s is not a regular file", name);
    }
    return fd;
}

int folder_each(int dir, int (*each)(void *context, const char *name, struct err *e), void *context,
                struct err *e)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    int rc = 0;

    if (d == NULL) {
        err_sys(e, "reading a folder");
        io_drop(&fd);
        return -1;
    }
    while (rc == 0) {
        struct dirent *entry;

        errno = 0;
        entry = readdir(d);
        if (entry == NULL) {
            /* A listing that fails half-way is no short listing. */
            if (errno != 0)
                rc = err_sys(e, "reading a folder");
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = each(context, entry->d_name, e);
    }
    closedir(d);
    return rc;
}

static int remove_entry(void *context, const char *name, struct err *e)
{
    return file_remove(*(int *)context, name, e);
}

int folder_remove(int dir, const char *name, struct err *e)
{
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int rc;

    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, "removing the folder %s", name);
    rc = folder_each(fd, remove_entry, &fd, e);
    io_drop(&fd);
    if (rc == 0 && unlinkat(dir, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        rc = err_sys(e, "removing the folder %s", name);
    return rc;
}
