/* Bodies of index objects (FORMAT.md 6 of the repository). */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/repo/pack.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = fuzz_copy(data, size);
    struct bytes again = { .ceiling = 32 << 20 };
    struct pack_index x;
    struct err e;

    fuzz_begin();
    if (pack_index_decode(&x, copy, size, &e) == 0) {
        for (uint32_t i = 0; i < x.count; i++) {
            FUZZ_CHECK(x.entries[i].offset < x.size_bytes);
            FUZZ_CHECK((x.entries[i].plain_type & 0xffffff) <= ENTRY_PLAIN_MAX);
            FUZZ_CHECK(i == 0 || index_entry_compare(&x.entries[i - 1], &x.entries[i]) <= 0);
        }
        FUZZ_CHECK(pack_index_encode(&x, &again, &e) == 0 && again.count == size);
        bytes_free(&again);
        pack_index_free(&x);
    }
    free(copy);
    fuzz_end();
    return 0;
}
