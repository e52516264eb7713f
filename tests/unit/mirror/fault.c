/*
 * Every system call that changes files goes through here (the linker's --wrap), so that a test can
 * end the process at the nth of them, let them fail, or look at them: no list of crash points has
 * to be kept.
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

void (*fault_watch)(const struct fault_call *call);

static void tell(const struct fault_call *call)
{
    int os = errno;

    if (fault_watch != NULL)
        fault_watch(call);
    errno = os;
}

/* The real call, told to the watcher before and, when it went well, after. */
#define WRAP(type, name, parameters, arguments, ...)                                               \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        struct fault_call call = { __VA_ARGS__ };                                                  \
        type rc = (type)-1;                                                                        \
                                                                                                   \
        if (step())                                                                                \
            return rc;                                                                             \
        tell(&call);                                                                               \
        rc = __real_##name arguments;                                                              \
        call.done = true;                                                                          \
        if (rc != (type)-1)                                                                        \
            tell(&call);                                                                           \
        return rc;                                                                                 \
    }

WRAP(int, fsync, (int fd), (fd), .kind = CALL_SYNC, .fd = fd)
WRAP(ssize_t, write, (int fd, const void *data, size_t count), (fd, data, count),
     .kind = CALL_WRITE, .fd = fd)
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t count, off_t at), (fd, data, count, at),
     .kind = CALL_WRITE, .fd = fd)
WRAP(int, ftruncate64, (int fd, off_t size), (fd, size), .kind = CALL_WRITE, .fd = fd)
WRAP(int, fallocate64, (int fd, int mode, off_t at, off_t count), (fd, mode, at, count),
     .kind = CALL_WRITE, .fd = fd)
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode), .kind = CALL_OTHER, .fd = fd)
WRAP(int, mkdirat, (int dir, const char *name, mode_t mode), (dir, name, mode), .kind = CALL_MKDIR,
     .fd = dir, .name = name)
WRAP(int, renameat, (int from, const char *a, int to, const char *b), (from, a, to, b),
     .kind = CALL_RENAME, .fd = from, .name = a, .to = to, .to_name = b)
WRAP(int, renameat2, (int from, const char *a, int to, const char *b, unsigned flags),
     (from, a, to, b, flags), .kind = CALL_RENAME, .fd = from, .name = a, .to = to, .to_name = b)
WRAP(int, unlinkat, (int dir, const char *name, int flags), (dir, name, flags), .kind = CALL_REMOVE,
     .fd = dir, .name = name)

int __real_posix_fallocate64(int fd, off_t at, off_t count);
int __wrap_posix_fallocate64(int fd, off_t at, off_t count);
int __wrap_posix_fallocate64(int fd, off_t at, off_t count)
{
    return step() ? fault.os : __real_posix_fallocate64(fd, at, count);
}
