#include "tests/unit/storage/power.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_ROOM = 512, NOTES_MAX = 4096 };

/* A change of names that only an fsync of its folder makes sure. */
struct name_change {
    bool sure;
    bool removed;           /* else renamed from `from` to `to` */
    char folder[PATH_ROOM]; /* that has to be fsynced */
    char from[PATH_ROOM], to[PATH_ROOM];
    char kept[PATH_ROOM]; /* a link to what was removed */
};

/* A file with bytes that no fsync covers. */
struct loose_file {
    char path[PATH_ROOM];
    dev_t device;
    ino_t inode;
    off_t sure; /* bytes that an fsync covers */
    bool loose;
};

static struct {
    bool on;
    char folder[PATH_ROOM], aside[PATH_ROOM];
    unsigned long calls, limit;
    struct name_change names[NOTES_MAX];
    size_t name_count;
    struct loose_file files[NOTES_MAX];
    size_t file_count;
} power;

int __real_fsync(int fd);
ssize_t __real_write(int fd, const void *data, size_t count);
int __real_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int __real_unlinkat(int dir, const char *name, int flags);
int __wrap_fsync(int fd);
ssize_t __wrap_write(int fd, const void *data, size_t count);
int __wrap_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int __wrap_unlinkat(int dir, const char *name, int flags);

void power_on(const char *folder, const char *aside)
{
    memset(&power, 0, sizeof power);
    snprintf(power.folder, sizeof power.folder, "%s", folder);
    snprintf(power.aside, sizeof power.aside, "%s", aside);
    power.limit = (unsigned long)-1;
    power.on = true;
}

void power_limit(unsigned long calls)
{
    power.limit = power.calls + calls;
}

unsigned long power_calls(void)
{
    return power.calls;
}

/* True when the call must fail: there is no power any more. */
static bool out_of_power(void)
{
    if (!power.on || power.calls++ < power.limit)
        return false;
    errno = EIO;
    return true;
}

static void path_of_fd(int fd, char out[PATH_ROOM])
{
    char link[64];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, out, PATH_ROOM - 1);
    out[n > 0 ? n : 0] = 0;
}

static bool is_ours(const char *path)
{
    return power.on && strncmp(path, power.folder, strlen(power.folder)) == 0;
}

static void join(char out[PATH_ROOM], const char *folder, const char *name)
{
    snprintf(out, PATH_ROOM, "%.300s/%.200s", folder, name);
}

static void no_room(void)
{
    fprintf(stderr, "too much to note\n");
    abort();
}

static struct loose_file *file_of(int fd, const char *path)
{
    struct stat s;

    if (fstat(fd, &s) != 0 || !S_ISREG(s.st_mode))
        return NULL;
    for (size_t i = 0; i < power.file_count; i++)
        if (power.files[i].inode == s.st_ino && power.files[i].device == s.st_dev)
            return &power.files[i];
    if (power.file_count == NOTES_MAX)
        no_room();
    power.files[power.file_count] =
        (struct loose_file){ .device = s.st_dev, .inode = s.st_ino, .loose = true };
    snprintf(power.files[power.file_count].path, PATH_ROOM, "%s", path);
    return &power.files[power.file_count++];
}

ssize_t __wrap_write(int fd, const void *data, size_t count)
{
    char path[PATH_ROOM];
    struct loose_file *f;

    path_of_fd(fd, path);
    if (!is_ours(path))
        return __real_write(fd, data, count);
    if (out_of_power())
        return -1;
    f = file_of(fd, path);
    if (f != NULL)
        f->loose = true;
    return __real_write(fd, data, count);
}

int __wrap_fsync(int fd)
{
    char path[PATH_ROOM];
    struct loose_file *f;
    struct stat s;

    path_of_fd(fd, path);
    if (!is_ours(path))
        return __real_fsync(fd);
    if (out_of_power())
        return -1;
    f = file_of(fd, path);
    if (f != NULL && fstat(fd, &s) == 0) {
        f->loose = false;
        f->sure = s.st_size;
    }
    for (size_t i = 0; f == NULL && i < power.name_count; i++)
        if (strcmp(power.names[i].folder, path) == 0)
            power.names[i].sure = true;
    return 0; /* the medium is ours */
}

static struct name_change *new_change(const char *folder)
{
    struct name_change *n;

    if (power.name_count == NOTES_MAX)
        no_room();
    n = &power.names[power.name_count++];
    memset(n, 0, sizeof *n);
    snprintf(n->folder, sizeof n->folder, "%s", folder);
    return n;
}

/* The file that was written under one name has another now. */
static void follow(const char *from, const char *to)
{
    for (size_t i = 0; i < power.file_count; i++)
        if (strcmp(power.files[i].path, from) == 0)
            snprintf(power.files[i].path, PATH_ROOM, "%s", to);
}

int __wrap_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    char folder[PATH_ROOM];
    struct name_change *n;
    int rc;

    path_of_fd(to_dir, folder);
    if (!is_ours(folder))
        return __real_renameat2(from_dir, from, to_dir, to, flags);
    if (out_of_power())
        return -1;
    rc = __real_renameat2(from_dir, from, to_dir, to, flags);
    if (rc == 0) {
        n = new_change(folder);
        join(n->from, folder, from);
        join(n->to, folder, to);
        follow(n->from, n->to);
    }
    return rc;
}

int __wrap_unlinkat(int dir, const char *name, int flags)
{
    char folder[PATH_ROOM], path[PATH_ROOM], kept[PATH_ROOM];
    struct name_change *n;

    path_of_fd(dir, folder);
    if (!is_ours(folder) || flags != 0)
        return __real_unlinkat(dir, name, flags);
    if (out_of_power())
        return -1;
    join(path, folder, name);
    snprintf(kept, sizeof kept, "%.300s/%zu", power.aside, power.name_count);
    if (link(path, kept) != 0)
        return -1;
    n = new_change(folder);
    n->removed = true;
    snprintf(n->from, sizeof n->from, "%s", path);
    snprintf(n->kept, sizeof n->kept, "%s", kept);
    return __real_unlinkat(dir, name, 0);
}

static uint64_t roll(uint64_t *seed, uint64_t sides)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (*seed >> 33) % sides;
}

/* Newest first, so that a name that was used twice finds its way back. */
static void undo_names(uint64_t *seed)
{
    for (size_t i = power.name_count; i > 0; i--) {
        const struct name_change *n = &power.names[i - 1];

        if (n->sure || roll(seed, 2) == 0)
            continue;
        if (n->removed) {
            (void)link(n->kept, n->from);
            follow(n->from, n->from);
        } else if (__real_renameat2(AT_FDCWD, n->to, AT_FDCWD, n->from, RENAME_NOREPLACE) == 0) {
            follow(n->to, n->from);
        }
    }
}

/* What no fsync covers: cut somewhere, and torn in what is left of it. */
static void tear(const struct loose_file *f, uint64_t *seed)
{
    int fd = open(f->path, O_RDWR | O_CLOEXEC);
    struct stat s;

    if (fd < 0)
        return; /* it has gone */
    if (fchmod(fd, 0600) == 0 && fstat(fd, &s) == 0 && s.st_size > f->sure) {
        off_t left = f->sure + (off_t)roll(seed, (uint64_t)(s.st_size - f->sure) + 1);

        if (ftruncate(fd, left) == 0 && left > f->sure)
            (void)pwrite(fd, "\0\0\0\0", 1, left - 1);
        (void)fchmod(fd, s.st_mode & 07777);
    }
    close(fd);
}

void power_cut(uint64_t seed)
{
    power.on = false;
    undo_names(&seed);
    for (size_t i = 0; i < power.file_count; i++)
        if (power.files[i].loose)
            tear(&power.files[i], &seed);
    for (size_t i = 0; i < power.name_count; i++)
        if (power.names[i].removed)
            (void)unlink(power.names[i].kept);
}
