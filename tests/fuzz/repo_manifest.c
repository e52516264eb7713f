/* Bodies of manifests (FORMAT.md 8 of the repository).  What is accepted keeps to its limits and is
 * written back to the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/generation.h"
#include "tests/fuzz/fuzz.h"

static void check(const struct repo_generation *g)
{
    FUZZ_CHECK(g->number > 0 && g->parent < g->number);
    FUZZ_CHECK(g->disk_count <= REPO_DISKS_MAX && g->file_count <= REPO_FILES_MAX);
    for (uint32_t i = 0; i < g->file_count; i++) {
        FUZZ_CHECK(strchr(g->files[i].name, '/') == NULL && g->files[i].name[0] != 0);
        FUZZ_CHECK(g->files[i].size_bytes <= REPO_FILE_BYTES_MAX);
    }
    for (uint32_t i = 0; i < g->disk_count; i++) {
        const struct repo_generation_disk *d = &g->disks[i];
        struct tree_shape shape;
        struct err e;

        FUZZ_CHECK(d->slot != NULL && d->of <= g->number);
        if (d->state != REPO_DISK_ABSENT) {
            FUZZ_CHECK(tree_shape_of(&shape, d->capacity_bytes, d->block_bytes, &e) == 0);
            FUZZ_CHECK(shape.levels == d->levels && cell_is_possible(&d->top));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = fuzz_copy(data, size);
    struct bytes again = { .ceiling = 32 << 20 };
    struct repo_generation g;
    struct fields f;
    struct err e;

    fuzz_begin();
    if (generation_decode(&g, copy, size, &e) == 0) {
        check(&g);
        fields_write(&f, &again, &e);
        generation_fields(&f, &g);
        FUZZ_CHECK(fields_done(&f) == 0);
        FUZZ_CHECK(again.count == size && memcmp(again.data, copy, size) == 0);
        repo_generation_free(&g);
        bytes_free(&again);
    }
    free(copy);
    fuzz_end();
    return 0;
}
