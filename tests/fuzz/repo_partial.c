/* Bodies of partial manifests (FORMAT.md 9 of the repository). */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/generation.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = fuzz_copy(data, size);
    struct bytes again = { .ceiling = 32 << 20 };
    struct partial p;
    struct fields f;
    struct err e;

    fuzz_begin();
    if (partial_decode(&p, copy, size, &e) == 0) {
        struct tree_shape shape;

        FUZZ_CHECK(tree_shape_of(&shape, p.capacity_bytes, p.block_bytes, &e) == 0);
        FUZZ_CHECK(p.spine.position > 0 && p.spine.position <= shape.blocks);
        FUZZ_CHECK(p.spine.whole == (p.spine.position == shape.blocks));
        for (unsigned i = 0; i < TREE_LEVELS_MAX; i++)
            FUZZ_CHECK(p.spine.level[i].count < TREE_FAN_OUT);
        fields_write(&f, &again, &e);
        partial_fields(&f, &p);
        FUZZ_CHECK(fields_done(&f) == 0);
        FUZZ_CHECK(again.count == size && memcmp(again.data, copy, size) == 0);
        partial_free(&p);
        bytes_free(&again);
    }
    free(copy);
    fuzz_end();
    return 0;
}
