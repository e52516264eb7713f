#include "receiver/base/state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"

struct state {
    char *dir;
    int fd;
    char install_id[INSTALL_ID_BYTES];
};

static const char id_name[] = "install-id";

/* The default directory into out. */
static int default_dir(char *out, size_t room, struct err *e)
{
    const char *xdg = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    int count;

    if (xdg != NULL && xdg[0] == '/') {
        count = snprintf(out, room, "%s/vmferry", xdg);
    } else {
        if (home == NULL || home[0] != '/') {
            const struct passwd *user = getpwuid(geteuid());

            home = user != NULL ? user->pw_dir : NULL;
        }
        if (home == NULL || home[0] != '/')
            return err_set(e, ERR_USAGE,
                           "no home directory for the state; name one with --state-dir");
        count = snprintf(out, room, "%s/.local/state/vmferry", home);
    }
    if (count < 0 || (size_t)count >= room)
        return err_set(e, ERR_USAGE, "the path of the state directory is too long");
    return 0;
}

/* Make path and what is missing above it, 0700 each. */
static int make_dirs(const char *path, struct err *e)
{
    char part[PATH_MAX];
    size_t count = strlen(path);

    if (count == 0 || count >= sizeof part)
        return err_set(e, ERR_USAGE, "its path is empty or too long");
    memcpy(part, path, count + 1);
    for (size_t i = 1; i <= count; i++) {
        if (part[i] != '/' && part[i] != 0)
            continue;
        part[i] = 0;
        if (mkdir(part, 0700) != 0 && errno != EEXIST && errno != EISDIR)
            return err_sys(e, "making %s", part);
        part[i] = path[i];
    }
    return 0;
}

static int check_ours(int fd, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return err_sys(e, "looking at it");
    if (st.st_uid != geteuid())
        return err_set(e, ERR_REFUSED,
                       "it belongs to uid %u, not to us (uid %u); name another one "
                       "with --state-dir",
                       (unsigned)st.st_uid, (unsigned)geteuid());
    if ((st.st_mode & 022) != 0)
        return err_set(e, ERR_REFUSED, "others may write to it (mode %04o); chmod 700 mends that",
                       (unsigned)st.st_mode & 07777);
    return 0;
}

/* The id as it stands in the file: 1 found, 0 no file, -1 an error. */
static int read_id(struct state *s, struct err *e)
{
    int fd = openat(s->fd, id_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char text[INSTALL_ID_BYTES];
    int rc = -1;

    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, "opening %s", id_name);
    if (io_read_all(fd, text, sizeof text, e) != 0)
        goto out;
    if (text[sizeof text - 1] != '\n') {
        err_set(e, ERR_CORRUPT, "it is not 16 hex digits");
        goto out;
    }
    text[sizeof text - 1] = 0;
    if (strspn(text, "0123456789abcdef") != sizeof text - 1) {
        err_set(e, ERR_CORRUPT, "it is not 16 hex digits");
        goto out;
    }
    memcpy(s->install_id, text, sizeof text - 1);
    s->install_id[sizeof text - 1] = 0;
    rc = 1;

out:
    io_drop(&fd);
    return rc >= 0 ? rc : err_add(e, "%s", id_name);
}

/* Make an id; the caller holds the directory's lock, so nobody else makes one. */
static int write_id(struct state *s, struct err *e)
{
    char text[INSTALL_ID_BYTES + 1], part[32];
    uint64_t id;
    int fd = -1;
    int rc = -1;

    if (getrandom(&id, sizeof id, 0) != sizeof id)
        return err_sys(e, "getting random bytes");
    snprintf(text, sizeof text, "%016llx\n", (unsigned long long)id);
    snprintf(part, sizeof part, "%s.part", id_name);
    fd = openat(s->fd, part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(e, "making %s", part);
    if (io_write_all(fd, text, INSTALL_ID_BYTES, e) != 0 || io_sync(fd, e) != 0 ||
        io_close(&fd, e) != 0)
        goto out;
    /* A link never replaces: an id that snapshots already carry stays for ever. */
    if (linkat(s->fd, part, s->fd, id_name, 0) != 0) {
        err_sys(e, "publishing %s", id_name);
        goto out;
    }
    if (io_sync(s->fd, e) != 0)
        goto out;
    memcpy(s->install_id, text, INSTALL_ID_BYTES - 1);
    rc = 0;

out:
    io_drop(&fd);
    unlinkat(s->fd, part, 0);
    return rc;
}

static int load_id(struct state *s, struct err *e)
{
    int found = read_id(s, e);

    if (found != 0)
        return found > 0 ? 0 : -1;
    if (flock(s->fd, LOCK_EX) != 0)
        return err_sys(e, "locking it");
    found = read_id(s, e);
    if (found == 0)
        found = write_id(s, e) == 0 ? 1 : -1;
    flock(s->fd, LOCK_UN);
    return found > 0 ? 0 : -1;
}

int state_open(struct state **out, const char *dir, struct err *e)
{
    char path[PATH_MAX];
    struct state *s = NULL;
    int rc = -1;

    if (dir == NULL && default_dir(path, sizeof path, e) != 0)
        return -1;
    if (dir == NULL)
        dir = path;
    s = calloc(1, sizeof *s);
    if (s == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    s->fd = -1;
    if (make_dirs(dir, e) != 0)
        goto out;
    s->fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    s->dir = realpath(dir, NULL);
    if (s->fd < 0 || s->dir == NULL) {
        err_sys(e, "opening it");
        goto out;
    }
    if (check_ours(s->fd, e) != 0 || load_id(s, e) != 0)
        goto out;
    *out = s;
    s = NULL;
    rc = 0;

out:
    state_close(s);
    return rc == 0 ? 0 : err_add(e, "state directory %s", dir);
}

const char *state_dir(const struct state *s)
{
    return s->dir;
}

int state_fd(const struct state *s)
{
    return s->fd;
}

const char *state_install_id(const struct state *s)
{
    return s->install_id;
}

void state_close(struct state *s)
{
    if (s == NULL)
        return;
    io_drop(&s->fd);
    free(s->dir);
    free(s);
}
