/*
 * Every system call that changes files goes through here (the linker's --wrap), so that a test can
 * end the process at the nth of them, or let them fail: no list of crash points has to be kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/mirror/fixture.h"

static struct {
    unsigned long nth, seen;
    enum fault_kind kind;
    int os;
    bool armed, fired, for_ever;
} fault;

void fault_arm(unsigned long nth, enum fault_kind kind, int os, bool for_ever)
{
    fault.nth = nth;
    fault.seen = 0;
    fault.kind = kind;
    fault.os = os;
    fault.for_ever = for_ever;
    fault.armed = true;
    fault.fired = false;
}

bool fault_fired(void)
{
    return fault.fired;
}

void fault_disarm(void)
{
    fault.armed = false;
}

/* True when this call must fail. */
static bool step(void)
{
    if (!fault.armed)
        return false;
    fault.seen++;
    if (fault.seen < fault.nth || (fault.seen > fault.nth && !fault.for_ever))
        return false;
    fault.fired = true;
    if (fault.kind == FAULT_KILL)
        _exit(99);
    errno = fault.os;
    return true;
}

#define WRAP(type, name, parameters, arguments)                                                    \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        return step() ? (type)-1 : __real_##name arguments;                                        \
    }

WRAP(int, fsync, (int fd), (fd))
WRAP(ssize_t, write, (int fd, const void *data, size_t count), (fd, data, count))
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t count, off_t at), (fd, data, count, at))
WRAP(int, ftruncate64, (int fd, off_t size), (fd, size))
WRAP(int, fallocate64, (int fd, int mode, off_t at, off_t count), (fd, mode, at, count))
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(int, mkdirat, (int dir, const char *name, mode_t mode), (dir, name, mode))
WRAP(int, renameat, (int from, const char *a, int to, const char *b), (from, a, to, b))
WRAP(int, renameat2, (int from, const char *a, int to, const char *b, unsigned flags),
     (from, a, to, b, flags))
WRAP(int, unlinkat, (int dir, const char *name, int flags), (dir, name, flags))

int __real_posix_fallocate64(int fd, off_t at, off_t count);
int __wrap_posix_fallocate64(int fd, off_t at, off_t count);
int __wrap_posix_fallocate64(int fd, off_t at, off_t count)
{
    return step() ? fault.os : __real_posix_fallocate64(fd, at, count);
}
