/*
 * Runs of the merged index (FORMAT.md 6 of the repository).  The input is the head of the file (512
 * bytes: header, packs, fan-out) and its entries; the sums are put right, so that it is the content
 * that is hostile.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/repo/sorted_run.h"
#include "tests/fuzz/fuzz.h"

enum { HEAD = 512, PIECE = 65536, EPOCH = 5 };

static const struct repo_key REPOSITORY = { { 7 } };

/* Where it is not said otherwise, the run is of this repository and has the length that it has. */
static int make_file(const uint8_t *data, size_t size)
{
    size_t head = size < HEAD ? size : HEAD, pieces = 2;
    uint8_t *file = calloc(1, pieces * PIECE + pieces * 8 + 8);
    uint64_t *sums = (uint64_t *)(void *)(file + pieces * PIECE);
    struct err e;
    int fd = memfd_create("run", MFD_CLOEXEC);

    FUZZ_CHECK(file != NULL && fd >= 0);
    memcpy(file, data, head);
    if (size > HEAD)
        memcpy(file + PIECE, data + HEAD, size - HEAD < PIECE ? size - HEAD : PIECE);
    for (size_t i = 0; i < pieces; i++)
        sums[i] = XXH3_64bits(file + i * PIECE, PIECE);
    sums[pieces] = XXH3_64bits(sums, pieces * 8);
    FUZZ_CHECK(io_write_all(fd, file, pieces * PIECE + pieces * 8 + 8, &e) == 0);
    free(file);
    return fd;
}

static void use(struct sorted_run *r)
{
    uint32_t count = sorted_run_pack_count(r);
    uint32_t *numbers = calloc(count > 0 ? count : 1, sizeof numbers[0]);
    struct run_input in = { .run = r, .packs = numbers };
    const struct index_entry *first;
    struct repo_id id;
    struct err e;
    size_t found;
    int fd = memfd_create("merged", MFD_CLOEXEC);

    FUZZ_CHECK(numbers != NULL && fd >= 0);
    for (unsigned i = 0; i < 256; i++) {
        memset(id.b, (int)i, sizeof id.b);
        if (sorted_run_find(r, &id, ENTRY_BLOCK, &first, &found, &e) == 0)
            for (size_t k = 0; k < found; k++)
                FUZZ_CHECK(first[k].pack < count);
    }
    (void)sorted_run_write(fd, &REPOSITORY, EPOCH, &REPOSITORY, &REPOSITORY, 1, &in, 1, &e);
    close(fd);
    free(numbers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sorted_run *r;
    struct err e;
    int fd = make_file(data, size);

    fuzz_begin();
    if (sorted_run_open(&r, fd, &REPOSITORY, EPOCH, &e) == 0) {
        use(r);
        sorted_run_close(r);
    }
    fuzz_end();
    return 0;
}
