#include "receiver/base/publish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"

static const char TEMP_PREFIX[] = ".vmferry-tmp-";
enum { TEMP_TRIES = 16, TEMP_HEX = 16 };

static int temp_name(char out[32], struct err *e)
{
    uint64_t r;

    if (getrandom(&r, sizeof r, 0) != (ssize_t)sizeof r)
        return err_sys(e, "getting random bytes");
    snprintf(out, 32, "%s%016" PRIx64, TEMP_PREFIX, r);
    return 0;
}

int publish_begin(struct publish *p, int dir, mode_t mode, struct err *e)
{
    *p = PUBLISH_EMPTY;
    for (int i = 0; i < TEMP_TRIES; i++) {
        if (temp_name(p->temp, e) != 0)
            return -1;
        p->fd = openat(dir, p->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (p->fd >= 0)
            break;
        if (errno != EEXIST)
            return err_sys_write(e, "creating a temporary file");
    }
    if (p->fd < 0)
        return err_sys_write(e, "creating a temporary file");
    p->dir = dir;
    p->made = true;
    if (fchmod(p->fd, mode) != 0) {
        err_sys_write(e, "setting the mode of a temporary file");
        publish_drop(p);
        return -1;
    }
    return 0;
}

void publish_drop(struct publish *p)
{
    io_drop(&p->fd);
    if (p->made)
        unlinkat(p->dir, p->temp, 0);
    *p = PUBLISH_EMPTY;
}

/* Rename without replace where the kernel or the file system has no such call. */
static int rename_new_by_hand(int from_dir, const char *from, int to_dir, const char *to)
{
    struct stat s;

    if (linkat(from_dir, from, to_dir, to, 0) == 0)
        return unlinkat(from_dir, from, 0);
    if (errno == EEXIST)
        return -1;
    /* No hard links either, or a directory: the caller's lock keeps this from being a race. */
    if (fstatat(to_dir, to, &s, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return -1;
    }
    if (errno != ENOENT)
        return -1;
    return renameat(from_dir, from, to_dir, to);
}

static int rename_as_asked(int from_dir, const char *from, int to_dir, const char *to,
                           enum publish_how how, struct err *e)
{
    int rc;

    if (how == PUBLISH_REPLACE) {
        rc = renameat(from_dir, from, to_dir, to);
    } else {
        rc = renameat2(from_dir, from, to_dir, to, RENAME_NOREPLACE);
        if (rc != 0 && (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP))
            rc = rename_new_by_hand(from_dir, from, to_dir, to);
    }
    if (rc == 0)
        return 0;
    if (errno == EEXIST) {
        err_set(e, ERR_REFUSED, "%s is there already", to);
        if (e != NULL)
            e->os = EEXIST;
        return -1;
    }
    return err_sys_write(e, "renaming it to %s", to);
}

/* Content first: when the name appears, its bytes are durable. */
static int commit(struct publish *p, const char *name, uint64_t length_bytes, enum publish_how how,
                  bool later, struct err *e)
{
    struct stat s;
    int dir = p->dir;
    int rc = -1;

    if (fstat(p->fd, &s) != 0) {
        err_sys(e, "looking at what was written");
        goto out;
    }
    if ((uint64_t)s.st_size != length_bytes) {
        err_set(e, ERR_CORRUPT, "%" PRIu64 " bytes were written, but the file has %" PRIu64,
                length_bytes, (uint64_t)s.st_size);
        goto out;
    }
    if (io_sync(p->fd, e) != 0 || io_close(&p->fd, e) != 0)
        goto out;
    /* The rename is the commit: before it the new content does not exist. */
    if (rename_as_asked(dir, p->temp, dir, name, how, e) != 0)
        goto out;
    p->made = false;
    rc = later ? 0 : io_sync(dir, e);

out:
    publish_drop(p);
    return rc == 0 ? 0 : err_add(e, "publishing %s", name);
}

int publish_commit(struct publish *p, const char *name, uint64_t length_bytes, enum publish_how how,
                   struct err *e)
{
    return commit(p, name, length_bytes, how, false, e);
}

int publish_commit_later(struct publish *p, const char *name, uint64_t length_bytes,
                         enum publish_how how, struct err *e)
{
    return commit(p, name, length_bytes, how, true, e);
}

int publish_bytes(int dir, const char *name, const void *data, size_t count, mode_t mode,
                  enum publish_how how, struct err *e)
{
    struct publish p;

    if (publish_begin(&p, dir, mode, e) != 0)
        return err_add(e, "publishing %s", name);
    if (io_write_all(p.fd, data, count, e) != 0) {
        publish_drop(&p);
        return err_add(e, "publishing %s", name);
    }
    return publish_commit(&p, name, count, how, e);
}

int publish_rename(int from_dir, const char *from, int to_dir, const char *to, enum publish_how how,
                   struct err *e)
{
    if (rename_as_asked(from_dir, from, to_dir, to, how, e) != 0 || io_sync(to_dir, e) != 0 ||
        (from_dir != to_dir && io_sync(from_dir, e) != 0))
        return err_add(e, "%s", from);
    return 0;
}

int publish_directory(int dir, const char *name, mode_t mode, bool *made, struct err *e)
{
    struct stat s;

    if (mkdirat(dir, name, mode) != 0) {
        int os = errno;

        if (os == EEXIST && made != NULL && fstatat(dir, name, &s, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISDIR(s.st_mode)) {
            *made = false;
            return 0;
        }
        errno = os;
        return err_sys_write(e, "making the folder %s", name);
    }
    if (made != NULL)
        *made = true;
    if (io_sync(dir, e) != 0)
        return err_add(e, "making the folder %s", name);
    return 0;
}

int publish_remove(int dir, const char *name, struct err *e)
{
    if (unlinkat(dir, name, 0) != 0) {
        if (errno == ENOENT)
            return 0;
        return err_sys_write(e, "removing %s", name);
    }
    if (io_sync(dir, e) != 0)
        return err_add(e, "removing %s", name);
    return 0;
}

static bool is_temp(const char *name)
{
    size_t prefix = sizeof TEMP_PREFIX - 1;

    return strncmp(name, TEMP_PREFIX, prefix) == 0 && strlen(name) == prefix + TEMP_HEX &&
           strspn(name + prefix, "0123456789abcdef") == TEMP_HEX;
}

int publish_sweep(int dir, struct err *e)
{
    /* A descriptor of its own: reading a directory moves its position. */
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    int rc = -1;

    if (d == NULL) {
        err_sys(e, "looking for temporary files");
        io_drop(&fd);
        return -1;
    }
    for (;;) {
        struct dirent *entry;

        errno = 0;
        entry = readdir(d);
        if (entry == NULL && errno != 0) {
            err_sys(e, "looking for temporary files");
            goto out;
        }
        if (entry == NULL)
            break;
        if (is_temp(entry->d_name) && unlinkat(dir, entry->d_name, 0) != 0 && errno != ENOENT) {
            err_sys_write(e, "removing %s", entry->d_name);
            goto out;
        }
    }
    rc = 0;

out:
    closedir(d);
    return rc;
}
