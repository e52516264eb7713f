/*
 * What all fuzz targets share.  A target is one file with LLVMFuzzerTestOneInput; libFuzzer, AFL++
 * or replay.c calls it.  Each case runs between fuzz_begin and fuzz_end, which hold it to its
 * limits: whatever the input says, a case may take at most FUZZ_MEMORY_MAX bytes of heap at once
 * (seen under the address sanitizer; a plain replay looks at its whole memory) and FUZZ_CPU_MS of
 * processor time. A broken limit, like a broken FUZZ_CHECK, aborts: that is a finding.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "protocol/base/cursor.h"

enum {
    FUZZ_MEMORY_MAX = 64 << 20,
    FUZZ_CPU_MS = 1000,
    FUZZ_CPU_SANITIZED_MS = 4000, /* the same work under address and undefined sanitizers */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void fuzz_begin(void);
void fuzz_end(void);

/* A property that must hold for every input. */
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_broken(__FILE__, __LINE__, #condition);                                           \
    } while (0)
_Noreturn void fuzz_broken(const char *file, int line, const char *what);

/* Copies of exactly this size, so that a sanitizer sees one byte too many; free them. */
uint8_t *fuzz_copy(const void *data, size_t size);
char *fuzz_text(const void *data, size_t size); /* with a NUL behind it */

/* A line of the input up to its newline as text, for targets that take several texts; free it. */
char *fuzz_line(struct pull *p);

/* A folder of this process that goes with it; open, with its path.  Made at the first call. */
int fuzz_folder(void);
const char *fuzz_folder_path(void);

/* Let name in dir be a file with exactly this content. */
void fuzz_file(int dir, const char *name, const void *data, size_t size);

#endif
