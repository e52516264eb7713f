/*
 * Runs a program under a filter that knows only the system calls of a list; all others fail.
 *
 *     syscall-filter [--eperm] [--without NAME]... LIST PROGRAM [ARGUMENT]...
 *
 * Unknown calls are answered ENOSYS, or EPERM with --eperm.  For tests: what works here needs no
 * more than the list says.  Exit status: the program's, or 125 when the filter could not be put on.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <seccomp.h>

enum { FAILED = 125, WITHOUT_MAX = 32, LINE_MAX_BYTES = 256 };

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list args;

    fputs("syscall-filter: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(FAILED);
}

static void allow(scmp_filter_ctx filter, const char *name)
{
    int number = seccomp_syscall_resolve_name(name);
    int rc;

    if (number == __NR_SCMP_ERROR)
        die("%s is no system call", name);
    rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
    if (rc != 0)
        die("allowing %s: %s", name, strerror(-rc));
}

/* The name in a line, which is cut behind it; NULL when there is none. */
static char *name_in(char *line)
{
    char *end;

    while (isspace((unsigned char)*line))
        line++;
    for (end = line; isalnum((unsigned char)*end) || *end == '_'; end++)
        ;
    if (end == line && *end != '#' && *end != 0)
        die("cannot read the line: %s", line);
    *end = 0;
    return end > line ? line : NULL;
}

static void allow_list(scmp_filter_ctx filter, const char *path, char **without, size_t count)
{
    bool left_out[WITHOUT_MAX] = { false };
    char line[LINE_MAX_BYTES];
    FILE *list = fopen(path, "re");

    if (list == NULL)
        die("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, list) != NULL) {
        char *name = name_in(line);
        bool skip = name == NULL;

        for (size_t i = 0; i < count && !skip; i++)
            if (strcmp(name, without[i]) == 0)
                skip = left_out[i] = true;
        if (!skip)
            allow(filter, name);
    }
    if (ferror(list))
        die("%s: %s", path, strerror(errno));
    fclose(list);
    /* A test that leaves out what was never there would prove nothing. */
    for (size_t i = 0; i < count; i++)
        if (!left_out[i])
            die("%s is not in %s", without[i], path);
}

int main(int argc, char **argv)
{
    char *without[WITHOUT_MAX];
    size_t count = 0;
    uint32_t otherwise = SCMP_ACT_ERRNO(ENOSYS);
    scmp_filter_ctx filter;
    int at, rc;

    for (at = 1; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
        if (strcmp(argv[at], "--eperm") == 0)
            otherwise = SCMP_ACT_ERRNO(EPERM);
        else if (strcmp(argv[at], "--without") == 0 && at + 1 < argc && count < WITHOUT_MAX)
            without[count++] = argv[++at];
        else
            die("cannot take %s", argv[at]);
    }
    if (at + 2 > argc)
        die("usage: syscall-filter [--eperm] [--without NAME]... LIST PROGRAM [ARGUMENT]...");
    filter = seccomp_init(otherwise);
    if (filter == NULL)
        die("libseccomp gives no filter");
    allow_list(filter, argv[at], without, count);
    /* Only this call of execve, told by the address of its path: the program itself has none. */
    rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(execve), 1,
                          SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)(uintptr_t)argv[at + 1], 0));
    if (rc == 0)
        rc = seccomp_load(filter);
    if (rc != 0)
        die("the kernel does not take the filter: %s", strerror(-rc));
    execve(argv[at + 1], argv + at + 1, environ);
    die("%s: %s", argv[at + 1], strerror(errno));
}
