#include "receiver/base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"

enum { POLL_MS = 100 };

/* One try.  1 taken, 0 held by another, -1 error. */
static int try_once(int fd, enum lock_kind kind, struct err *e)
{
    struct flock f = { .l_type = kind == LOCK_EXCLUSIVE ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET };

    while (fcntl(fd, F_OFD_SETLK, &f) != 0) {
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN || errno == EACCES)
            return 0;
        return err_sys(e, "locking");
    }
    return 1;
}

static int wait_for(int fd, enum lock_kind kind, uint64_t wait_ms, const atomic_bool *stop,
                    struct err *e)
{
    uint64_t start = io_clock_ms();

    for (;;) {
        int got = try_once(fd, kind, e);
        uint64_t spent = io_clock_ms() - start;
        uint64_t pause;

        if (got != 0)
            return got > 0 ? 0 : -1;
        if (stop != NULL && atomic_load(stop))
            return err_set(e, ERR_STOPPED, "stopped while waiting for the lock");
        if (spent >= wait_ms)
            return err_set(e, ERR_BUSY, "somebody else holds the lock");
        /* Kernels have no lock with a deadline, so ask again and again. */
        pause = wait_ms - spent < POLL_MS ? wait_ms - spent : POLL_MS;
        nanosleep(&(struct timespec){ .tv_nsec = (long)pause * 1000000L }, NULL);
    }
}

int lock_take(struct lock *out, int dir, const char *name, enum lock_kind kind, uint64_t wait_ms,
              const atomic_bool *stop, struct err *e)
{
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

    *out = LOCK_EMPTY;
    if (fd < 0 && kind == LOCK_SHARED && (errno == EROFS || errno == EACCES))
        fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return err_sys(e, "opening the lock file %s", name);
    if (wait_for(fd, kind, wait_ms, stop, e) != 0) {
        io_drop(&fd);
        return err_add(e, "lock file %s", name);
    }
    out->fd = fd;
    return 0;
}

int lock_change(struct lock *l, enum lock_kind kind, uint64_t wait_ms, const atomic_bool *stop,
                struct err *e)
{
    return wait_for(l->fd, kind, wait_ms, stop, e);
}

bool lock_is_held(int dir, const char *name)
{
    struct flock f = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool held;

    if (fd < 0)
        return false;
    held = fcntl(fd, F_OFD_GETLK, &f) == 0 && f.l_type != F_UNLCK;
    io_drop(&fd);
    return held;
}

void lock_release(struct lock *l)
{
    io_drop(&l->fd);
}
