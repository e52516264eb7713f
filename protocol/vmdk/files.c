#include "protocol/vmdk/files_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/file_source.h"
#include "protocol/block/source.h"

enum { COMPONENTS_MAX = 64 };

struct volume {
    char *path, *alias; /* without a slash at the end; alias may be NULL */
    int fd;
};

struct local_files {
    struct vmdk_files files;
    struct volume *volumes;
    size_t count;
    bool has_openat; /* false once the system has answered that it knows no openat */
};

/* A name made absolute: a volume, and components below it. */
struct resolved {
    struct volume *volume;
    char text[VMDK_PLACE_MAX + 1]; /* the components, each ended by a NUL */
    const char *parts[COMPONENTS_MAX];
    size_t count;
    char place[2 * VMDK_PLACE_MAX + 2];
};

void vmdk_file_close(struct vmdk_file *f)
{
    source_close(f->source);
    free(f->place);
    *f = (struct vmdk_file){ 0 };
}

bool vmdk_name_is_bare(const char *name)
{
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    for (const char *c = name; *c != '\0'; c++)
        if (*c == '/' || *c == '\\' || (unsigned char)*c < ' ' || *c == 0x7f)
            return false;
    return true;
}

/* ---- names ---- */

/* What follows prefix and a slash in path, or NULL. */
static const char *below(const char *path, const char *prefix)
{
    size_t bytes = prefix == NULL ? 0 : strlen(prefix);

    if (prefix == NULL || strncmp(path, prefix, bytes) != 0 || path[bytes] != '/')
        return NULL;
    return path + bytes + 1;
}

/* The volume that an absolute name lies in; the longest one where they are nested. */
static struct volume *volume_of(struct local_files *l, const char *path, const char **rest)
{
    struct volume *best = NULL;
    size_t best_bytes = 0;

    for (size_t i = 0; i < l->count; i++) {
        struct volume *v = &l->volumes[i];
        const char *names[] = { v->path, v->alias };

        for (size_t k = 0; k < 2; k++) {
            const char *found = below(path, names[k]);

            if (found != NULL && (best == NULL || (size_t)(found - path) > best_bytes)) {
                best = v;
                best_bytes = (size_t)(found - path);
                *rest = found;
            }
        }
    }
    return best;
}

/* Put the components of text, which lies inside r, behind those that are there. */
static int add_components(struct resolved *r, char *text, const char *name, struct err *e)
{
    char *at = text;

    while (*at != '\0') {
        char *slash = strchr(at, '/');

        if (slash != NULL)
            *slash = '\0';
        if (strcmp(at, "..") == 0) {
            if (r->count == 0)
                return err_set(e, ERR_REFUSED, "%s leads out of its volume", name);
            r->count--;
        } else if (*at != '\0' && strcmp(at, ".") != 0) {
            if (!vmdk_name_is_bare(at))
                return err_set(e, ERR_REFUSED, "%s has a part that is no file name", name);
            if (r->count == COMPONENTS_MAX)
                return err_set(e, ERR_LIMIT, "%s has more than %d parts", name, COMPONENTS_MAX);
            r->parts[r->count++] = at;
        }
        if (slash == NULL)
            return 0;
        at = slash + 1;
    }
    return err_set(e, ERR_REFUSED, "%s is the name of a folder", name);
}

static void spell_place(struct resolved *r)
{
    size_t at = strlen(r->volume->path);

    memcpy(r->place, r->volume->path, at);
    for (size_t i = 0; i < r->count; i++) {
        size_t bytes = strlen(r->parts[i]);

        r->place[at++] = '/';
        memcpy(r->place + at, r->parts[i], bytes);
        at += bytes;
    }
    r->place[at] = '\0';
}

/* Which file name means, by letters alone. */
static int resolve(struct local_files *l, const char *from, const char *name, enum vmdk_role role,
                   struct resolved *r, struct err *e)
{
    const char *base = "", *rest = name, *slash;
    size_t folder = 0, bytes;

    r->count = 0;
    if (role == VMDK_EXTENT && !vmdk_name_is_bare(name))
        return err_set(e, ERR_REFUSED,
                       "the extent name %s is not that of a file beside its "
                       "descriptor",
                       name);
    if (strncmp(name, "vsan://", 7) == 0 || strncmp(name, "vvol://", 7) == 0)
        return err_set(e, ERR_UNSUPPORTED, "%s is an object and no file", name);
    if (name[0] == '/') {
        r->volume = volume_of(l, name, &rest);
    } else if (from != NULL) {
        r->volume = volume_of(l, from, &base);
        slash = strrchr(base, '/');
        folder = slash == NULL ? 0 : (size_t)(slash + 1 - base);
    } else {
        return err_set(e, ERR_USAGE, "%s is no absolute path", name);
    }
    if (r->volume == NULL)
        return err_set(e, ERR_REFUSED, "%s lies in none of the known volumes", name);
    bytes = strlen(rest);
    if (folder + bytes > VMDK_PLACE_MAX)
        return err_set(e, ERR_LIMIT, "the path of a file is longer than %d bytes", VMDK_PLACE_MAX);
    memcpy(r->text, base, folder);
    memcpy(r->text + folder, rest, bytes + 1);
    if (add_components(r, r->text, name, e) != 0)
        return -1;
    if (r->count == 0)
        return err_set(e, ERR_REFUSED, "%s is the name of a volume", name);
    spell_place(r);
    return 0;
}

/* ---- opening ---- */

static int open_error(const char *place, struct err *e)
{
    switch (errno) { /* never followed, never waited for */
    case ELOOP:
        return err_set(e, ERR_REFUSED,
                       "%s is reached through a symbolic link, which is not followed", place);
    case ENOTDIR:
        return err_set(e, ERR_REFUSED, "%s has a part that is no folder", place);
    case ENXIO:
        return err_set(e, ERR_REFUSED, "%s is no regular file", place);
    case ESTALE:
        return err_set(e, ERR_REFUSED, "%s was exchanged while it was opened", place);
    case EBUSY:
    case ETXTBSY:
    case EACCES:
        err_sys(e, "%s", place);
        if (e != NULL)
            e->code = ERR_SOURCE;
        return -1;
    default:
        return err_sys(e, "%s", place);
    }
}

/* From the volume down, one component at a time.  -1 with errno. */
static int open_below(const struct resolved *r)
{
    int dir = r->volume->fd, fd = -1;

    for (size_t i = 0; i < r->count; i++) {
        bool last = i + 1 == r->count;
        int os;

        fd = openat(dir, r->parts[i],
                    O_RDONLY | O_NOFOLLOW | O_CLOEXEC | (last ? O_NONBLOCK : O_DIRECTORY));
        os = errno;
        if (dir != r->volume->fd)
            io_drop(&dir);
        errno = os;
        if (fd < 0)
            return -1;
        dir = fd;
    }
    return fd;
}

/* No component of the place may be a link.  -1 with errno; *st is that of the file. */
static int look_by_path(struct resolved *r, struct stat *st)
{
    size_t at = strlen(r->volume->path);

    for (size_t i = 0; i < r->count; i++) {
        bool last = i + 1 == r->count;
        int rc;

        at += 1 + strlen(r->parts[i]);
        if (!last)
            r->place[at] = '\0';
        rc = lstat(r->place, st);
        if (!last)
            r->place[at] = '/';
        if (rc != 0)
            return -1;
        if (last ? !S_ISREG(st->st_mode) : !S_ISDIR(st->st_mode)) {
            errno = last && !S_ISLNK(st->st_mode) ? ENXIO : ELOOP;
            return -1;
        }
    }
    return 0;
}

/*
 * Without openat: look at each component, open the whole path, and look again.  A component that is
 * exchanged for a link in between is found unless it is put back in time, which takes somebody who
 * may write in the datastore's folders while we open a file.  (documented, not seen: that a host
 * gives a file the same numbers by its name and by its descriptor.)
 */
static int open_by_path(struct resolved *r)
{
    struct stat before, opened, after;
    int fd;

    if (look_by_path(r, &before) != 0)
        return -1;
    fd = open(r->place, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (fstat(fd, &opened) == 0 && look_by_path(r, &after) == 0 && before.st_dev == opened.st_dev &&
        before.st_ino == opened.st_ino && after.st_dev == opened.st_dev &&
        after.st_ino == opened.st_ino)
        return fd;
    io_drop(&fd);
    errno = ESTALE;
    return -1;
}

static int open_resolved(struct local_files *l, struct resolved *r, struct err *e)
{
    int fd = -1;

    if (l->has_openat) {
        fd = open_below(r);
        /* Hosts answer ENOSYS; a filter of system calls may say EPERM. */
        if (fd < 0 && (errno == ENOSYS || errno == EPERM))
            l->has_openat = false;
    }
    if (!l->has_openat)
        fd = open_by_path(r);
    return fd < 0 ? open_error(r->place, e) : fd;
}

static int64_t modified_ns_of(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static int local_open(struct vmdk_files *f, const char *from, const char *name, enum vmdk_role role,
                      struct vmdk_file *out, struct err *e)
{
    struct local_files *l = (struct local_files *)f;
    struct vmdk_file made = { 0 };
    struct resolved *r = malloc(sizeof *r);
    struct stat st;
    int fd = -1, rc = -1;

    if (r == NULL)
        return err_sys(e, "opening a disk");
    if (resolve(l, from, name, role, r, e) != 0)
        goto out;
    fd = open_resolved(l, r, e);
    if (fd < 0)
        goto out;
    if (fstat(fd, &st) != 0) {
        err_sys(e, "%s", r->place);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        err_set(e, ERR_REFUSED, "%s is no regular file", r->place);
        goto out;
    }
    made.place = strdup(r->place);
    made.device = (uint64_t)st.st_dev;
    made.inode = (uint64_t)st.st_ino;
    made.size_bytes = (uint64_t)st.st_size;
    made.modified_ns = modified_ns_of(&st);
    if (made.place == NULL) {
        err_sys(e, "opening a disk");
        goto out;
    }
    if (file_source_take(&made.source, &fd, made.place, 0, &made.seeks_holes, e) != 0)
        goto out;
    *out = made;
    made = (struct vmdk_file){ 0 };
    rc = 0;

out:
    io_drop(&fd);
    vmdk_file_close(&made);
    free(r);
    return rc;
}

static int local_unchanged(struct vmdk_files *f, const struct vmdk_file *file, struct err *e)
{
    struct local_files *l = (struct local_files *)f;
    struct resolved *r = malloc(sizeof *r);
    struct stat st;
    int fd = -1, rc = -1;

    if (r == NULL)
        return err_sys(e, "looking at a disk again");
    if (resolve(l, NULL, file->place, VMDK_TIP, r, e) != 0)
        goto out;
    fd = open_resolved(l, r, e);
    if (fd < 0)
        goto out;
    if (fstat(fd, &st) != 0)
        err_sys(e, "%s", r->place);
    else if ((uint64_t)st.st_dev != file->device || (uint64_t)st.st_ino != file->inode)
        err_set(e, ERR_SOURCE, "%s was replaced by another file while it was read", r->place);
    else if ((uint64_t)st.st_size != file->size_bytes || modified_ns_of(&st) != file->modified_ns)
        err_set(e, ERR_SOURCE, "%s was written to while it was read", r->place);
    else
        rc = 0;

out:
    if (rc != 0 && e != NULL && e->code != ERR_SYSTEM)
        e->code = ERR_SOURCE;
    io_drop(&fd);
    free(r);
    return rc;
}

void local_files_forget_openat(struct vmdk_files *f)
{
    ((struct local_files *)f)->has_openat = false;
}

/* ---- volumes ---- */

static void local_close(struct vmdk_files *f)
{
    struct local_files *l = (struct local_files *)f;

    for (size_t i = 0; i < l->count; i++) {
        io_drop(&l->volumes[i].fd);
        free(l->volumes[i].path);
        free(l->volumes[i].alias);
    }
    free(l->volumes);
    free(l);
}

static char *copy_path(const char *path)
{
    size_t bytes = strlen(path);

    while (bytes > 1 && path[bytes - 1] == '/')
        bytes--;
    /* "/" itself becomes "", below which everything is. */
    return strndup(path, bytes == 1 ? 0 : bytes);
}

static int volume_open(struct volume *v, const struct vmdk_volume *from, struct err *e)
{
    v->fd = -1;
    if (from->path[0] != '/' || (from->alias != NULL && from->alias[0] != '/'))
        return err_set(e, ERR_USAGE, "a volume's path is not absolute: %s", from->path);
    if (strlen(from->path) > VMDK_PLACE_MAX)
        return err_set(e, ERR_LIMIT, "the path of a volume is longer than %d bytes",
                       VMDK_PLACE_MAX);
    v->path = copy_path(from->path);
    v->alias = from->alias == NULL ? NULL : copy_path(from->alias);
    if (v->path == NULL || (from->alias != NULL && v->alias == NULL))
        return err_sys(e, "opening a volume");
    v->fd = open(from->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return v->fd < 0 ? err_sys(e, "volume %s", from->path) : 0;
}

int vmdk_local_files_new(struct vmdk_files **out, const struct vmdk_volume *volumes, size_t count,
                         struct err *e)
{
    struct local_files *l;

    if (count == 0 || count > VMDK_VOLUMES_MAX)
        return err_set(e, ERR_LIMIT, "%zu volumes are none or more than %d", count,
                       VMDK_VOLUMES_MAX);
    l = calloc(1, sizeof *l);
    if (l == NULL)
        return err_sys(e, "opening volumes");
    l->files = (struct vmdk_files){ local_open, local_unchanged, local_close };
    l->has_openat = true;
    l->volumes = calloc(count, sizeof *l->volumes);
    if (l->volumes == NULL) {
        err_sys(e, "opening volumes");
        goto fail;
    }
    for (size_t i = 0; i < count; i++) {
        l->count++;
        if (volume_open(&l->volumes[i], &volumes[i], e) != 0)
            goto fail;
    }
    *out = &l->files;
    return 0;

fail:
    local_close(&l->files);
    return -1;
}
