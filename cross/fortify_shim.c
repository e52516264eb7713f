/*
 * Functions that only glibc has and that archives built against it ask for: the checked forms that
 * -D_FORTIFY_SOURCE puts in the place of the plain ones.  Weak, so that with glibc its own are
 * taken.  Each keeps the check: an overflow ends the program.  What the archives may want stands in
 * libzstd.symbols and libsodium.symbols.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WEAK __attribute__((weak))

void *__memcpy_chk(void *to, const void *from, size_t count, size_t room);
void *__memmove_chk(void *to, const void *from, size_t count, size_t room);
void *__memset_chk(void *to, int value, size_t count, size_t room);
void __explicit_bzero_chk(void *to, size_t count, size_t room);
int __fprintf_chk(FILE *file, int flag, const char *format, ...);

static void check(size_t count, size_t room)
{
    if (count > room)
        abort();
}

WEAK void *__memcpy_chk(void *to, const void *from, size_t count, size_t room)
{
    check(count, room);
    return memcpy(to, from, count);
}

WEAK void *__memmove_chk(void *to, const void *from, size_t count, size_t room)
{
    check(count, room);
    return memmove(to, from, count);
}

WEAK void *__memset_chk(void *to, int value, size_t count, size_t room)
{
    check(count, room);
    return memset(to, value, count);
}

WEAK void __explicit_bzero_chk(void *to, size_t count, size_t room)
{
    check(count, room);
    explicit_bzero(to, count);
}

WEAK __attribute__((format(printf, 3, 4))) int __fprintf_chk(FILE *file, int flag,
                                                             const char *format, ...)
{
    va_list args;
    int n;

    (void)flag;
    va_start(args, format);
    n = vfprintf(file, format, args);
    va_end(args);
    return n;
}
