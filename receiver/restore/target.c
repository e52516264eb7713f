#include "receiver/restore/target.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/folder.h"
#include "receiver/base/publish.h"

static const char WORK_SUFFIX[] = ".vmferry-restore";
static const char WORK_LOCK[] = ".lock";

static int base_fd(const struct restore_target *t)
{
    return t->inside ? t->target_fd : t->parent_fd;
}

/* --- the work folder --- */

static int remove_work_entry(void *context, const char *name, struct err *e)
{
    int fd = *(int *)context;
    struct stat s;

    if (fstatat(fd, name, &s, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(s.st_mode))
        return folder_remove(fd, name, e);
    return file_remove(fd, name, e);
}

static int remove_work(int dir, const char *work, struct err *e)
{
    int fd = openat(dir, work, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int rc;

    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, "removing %s", work);
    rc = folder_each(fd, remove_work_entry, &fd, e);
    io_drop(&fd);
    if (rc == 0 && unlinkat(dir, work, AT_REMOVEDIR) != 0)
        rc = err_sys(e, "removing %s", work);
    return rc;
}

/* What a restore that was killed left is ours to remove, unless it is still at work. */
static int make_work(struct restore_target *t, struct err *e)
{
    char lock[sizeof t->work + 8];

    snprintf(lock, sizeof lock, "%s/%s", t->work, WORK_LOCK);
    if (folder_has(base_fd(t), t->work)) {
        if (lock_is_held(base_fd(t), lock))
            return err_set(e, ERR_BUSY, "another restore to it is at work");
        if (remove_work(base_fd(t), t->work, e) != 0)
            return -1;
    }
    if (publish_directory(base_fd(t), t->work, 0700, NULL, e) != 0)
        return -1;
    t->work_fd = openat(base_fd(t), t->work, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (t->work_fd < 0)
        return err_sys(e, "opening %s", t->work);
    return lock_take(&t->lock, t->work_fd, WORK_LOCK, LOCK_EXCLUSIVE, 0, NULL, e);
}

static int refuse_entry(void *context, const char *name, struct err *e)
{
    const struct restore_target *t = context;

    if (strcmp(name, t->work) == 0)
        return 0;
    return err_set(e, ERR_REFUSED, "it is not empty (%s is there): give an absent or empty folder",
                   name);
}

static int split(const char *to, char **parent, struct restore_target *t, struct err *e)
{
    char *copy = strdup(to), *again = strdup(to);
    int rc = -1;

    if (copy == NULL || again == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    if ((size_t)snprintf(t->name, sizeof t->name, "%s", basename(again)) >=
        sizeof t->name - sizeof WORK_SUFFIX) {
        err_set(e, ERR_USAGE, "its name is too long");
        goto out;
    }
    *parent = strdup(dirname(copy));
    rc = *parent != NULL ? 0 : err_sys(e, "getting memory");

out:
    free(copy);
    free(again);
    return rc;
}

int restore_target_open(struct restore_target *t, const char *to, struct err *e)
{
    char *parent = NULL;
    int rc = -1;

    *t = RESTORE_TARGET_EMPTY;
    t->target_fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->target_fd >= 0) {
        t->inside = true;
        snprintf(t->work, sizeof t->work, "%s", WORK_SUFFIX);
        if (folder_each(t->target_fd, refuse_entry, t, e) != 0)
            return -1;
        return make_work(t, e);
    }
    if (errno == ENOTDIR)
        return err_set(e, ERR_REFUSED, "it is there and is no folder");
    if (errno != ENOENT)
        return err_sys(e, "opening it");
    if (split(to, &parent, t, e) != 0)
        goto out;
    t->parent_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->parent_fd < 0) {
        err_sys(e, "opening %s", parent);
        goto out;
    }
    snprintf(t->work, sizeof t->work, ".%s%s", t->name, WORK_SUFFIX);
    rc = make_work(t, e);

out:
    free(parent);
    return rc;
}

static int move_entry(void *context, const char *name, struct err *e)
{
    struct restore_target *t = context;

    return publish_rename(t->work_fd, name, t->target_fd, name, PUBLISH_NEW, e);
}

int restore_target_finish(struct restore_target *t, struct err *e)
{
    if (unlinkat(t->work_fd, WORK_LOCK, 0) != 0)
        return err_sys(e, "removing %s", WORK_LOCK);
    if (io_sync(t->work_fd, e) != 0)
        return -1;
    if (!t->inside)
        return publish_rename(t->parent_fd, t->work, t->parent_fd, t->name, PUBLISH_NEW, e);
    if (folder_each(t->work_fd, move_entry, t, e) != 0)
        return -1;
    if (unlinkat(t->target_fd, t->work, AT_REMOVEDIR) != 0)
        return err_sys(e, "removing %s", t->work);
    return io_sync(t->target_fd, e);
}

void restore_target_close(struct restore_target *t, bool done)
{
    struct err none;

    if (!done && t->work_fd >= 0)
        remove_work(base_fd(t), t->work, &none);
    lock_release(&t->lock);
    io_drop(&t->work_fd);
    io_drop(&t->target_fd);
    io_drop(&t->parent_fd);
}
