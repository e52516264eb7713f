#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

void fuzz_broken(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: this does not hold: %s\n", file, line, what);
    abort();
}

/* ---- limits ---- */

static struct timespec started;

#if SANITIZED
/* The sanitizer's own hooks (sanitizer/allocator_interface.h). */
size_t __sanitizer_get_current_allocated_bytes(void);
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *));

static bool watching;
static size_t before;

static void look_at_malloc(const volatile void *p, size_t size)
{
    (void)p;
    (void)size;
    if (watching && __sanitizer_get_current_allocated_bytes() > before + FUZZ_MEMORY_MAX) {
        watching = false;
        fuzz_broken(__FILE__, __LINE__, "a case keeps to its memory");
    }
}

static void look_at_free(const volatile void *p)
{
    (void)p;
}

static void watch_memory(bool on)
{
    static bool installed;

    if (!installed)
        __sanitizer_install_malloc_and_free_hooks(look_at_malloc, look_at_free);
    installed = true;
    before = __sanitizer_get_current_allocated_bytes();
    watching = on;
}
#else
static void watch_memory(bool on)
{
    (void)on;
}
#endif

void fuzz_begin(void)
{
    watch_memory(true);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &started);
}

void fuzz_end(void)
{
    struct timespec now;
    int64_t ms;

    watch_memory(false);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    ms = (now.tv_sec - started.tv_sec) * 1000 + (now.tv_nsec - started.tv_nsec) / 1000000;
    FUZZ_CHECK(ms <= (SANITIZED ? FUZZ_CPU_SANITIZED_MS : FUZZ_CPU_MS));
}

/* ---- input ---- */

uint8_t *fuzz_copy(const void *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);

    FUZZ_CHECK(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

char *fuzz_text(const void *data, size_t size)
{
    char *copy = malloc(size + 1);

    FUZZ_CHECK(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    copy[size] = '\0';
    return copy;
}

char *fuzz_line(struct pull *p)
{
    const uint8_t *newline = p->left > 0 ? memchr(p->at, '\n', p->left) : NULL;
    size_t count = newline != NULL ? (size_t)(newline - p->at) : p->left;
    char *line = fuzz_text(p->at, count);

    p->at += count + (newline != NULL);
    p->left -= count + (newline != NULL);
    return line;
}

/* ---- files ---- */

static char folder_path[64];
static int folder_fd = -1;
static pid_t folder_owner;

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *where)
{
    (void)s;
    (void)flag;
    (void)where;
    return remove(path);
}

static void remove_folder(void)
{
    if (getpid() == folder_owner)
        nftw(folder_path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int fuzz_folder(void)
{
    if (folder_fd >= 0)
        return folder_fd;
    snprintf(folder_path, sizeof folder_path, "%s/vmferry-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    FUZZ_CHECK(mkdtemp(folder_path) != NULL);
    folder_owner = getpid();
    atexit(remove_folder);
    folder_fd = open(folder_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_CHECK(folder_fd >= 0);
    return folder_fd;
}

const char *fuzz_folder_path(void)
{
    fuzz_folder();
    return folder_path;
}

void fuzz_file(int dir, const char *name, const void *data, size_t size)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    FUZZ_CHECK(fd >= 0);
    FUZZ_CHECK(size == 0 || write(fd, data, size) == (ssize_t)size);
    FUZZ_CHECK(close(fd) == 0);
}
