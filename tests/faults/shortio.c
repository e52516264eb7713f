/*
 * Loaded before a program (LD_PRELOAD): writes to files take only a part of what is given, now and
 * then none of it (EINTR), as POSIX allows.  Sockets and pipes are left alone.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

ssize_t write(int fd, const void *data, size_t count);
ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at);

static atomic_uint calls, spoiled;

/* How much a call may take; 0: it is interrupted. */
static size_t share_of(int fd, size_t count)
{
    struct stat s;
    unsigned n;

    if (count == 0 || fstat(fd, &s) != 0 || !S_ISREG(s.st_mode))
        return count;
    n = atomic_fetch_add(&calls, 1);
    if (n % 5 != 4 && n % 3 == 0)
        return count;
    atomic_fetch_add(&spoiled, 1);
    return n % 5 == 4 ? 0 : 1 + (count - 1) * (n % 7) / 9;
}

__attribute__((destructor)) static void tell(void)
{
    const char *file = getenv("FAULTS_SHORTIO");
    FILE *f = file != NULL ? fopen(file, "we") : NULL;

    if (f != NULL) {
        fprintf(f, "%u\n", atomic_load(&spoiled));
        fclose(f);
    }
}

ssize_t write(int fd, const void *data, size_t count)
{
    ssize_t (*real)(int, const void *, size_t);
    size_t share = share_of(fd, count);

    *(void **)&real = dlsym(RTLD_NEXT, "write");
    if (count > 0 && share == 0) {
        errno = EINTR;
        return -1;
    }
    return real(fd, data, share);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at)
{
    ssize_t (*real)(int, const void *, size_t, off64_t);
    size_t share = share_of(fd, count);

    *(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
    if (count > 0 && share == 0) {
        errno = EINTR;
        return -1;
    }
    return real(fd, data, share, at);
}
