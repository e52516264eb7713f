/*
 * Without a fuzzing engine: run the cases in the files and folders that are named, so that every
 * test run looks at the seeds and at all old findings again, under whatever sanitizer is on.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

enum { PATH_ROOM = 4096 };

static unsigned long cases;

static int replay_file(const char *path, size_t size)
{
    uint8_t *data = malloc(size > 0 ? size : 1);
    FILE *f = fopen(path, "rb");
    int rc = -1;

    if (data == NULL || f == NULL || fread(data, 1, size, f) != size) {
        perror(path);
        goto out;
    }
    /* Said before it runs: the last line names the case that aborted. */
    printf("%s\n", path);
    fflush(stdout);
    LLVMFuzzerTestOneInput(data, size);
    cases++;
    rc = 0;

out:
    if (f != NULL)
        fclose(f);
    free(data);
    return rc;
}

static int replay(const char *path);

static int replay_folder(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    int rc = count < 0 ? -1 : 0;

    for (int i = 0; i < count; i++) {
        char name[PATH_ROOM];

        if (entries[i]->d_name[0] != '.' && rc == 0) {
            snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
            rc = replay(name);
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return rc;
}

static int replay(const char *path)
{
    struct stat s;

    if (stat(path, &s) != 0) {
        perror(path);
        return -1;
    }
    return S_ISDIR(s.st_mode) ? replay_folder(path) : replay_file(path, (size_t)s.st_size);
}

/* Highest use of memory in KiB; getrusage would count what ran in this process before us. */
static long peak_kib(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kib = -1;

    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return kib;
}

int main(int argc, char **argv)
{
    long kib;

    for (int i = 1; i < argc; i++)
        if (replay(argv[i]) != 0)
            return 1;
    if (cases == 0) {
        fprintf(stderr, "no case was found\n");
        return 1;
    }
    kib = peak_kib();
    printf("%lu cases, at most %ld KiB\n", cases, kib);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    if (kib < 0 || kib > FUZZ_MEMORY_MAX / 1024) {
        fprintf(stderr, "more memory than %d KiB\n", FUZZ_MEMORY_MAX / 1024);
        return 1;
    }
#endif
    return 0;
}
