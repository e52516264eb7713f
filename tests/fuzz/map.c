/* The map of `vmkfstools -t 0`: what is accepted covers the disk once, without gap or overlap. */
#include <stdlib.h>

#include "protocol/base/err.h"
#include "receiver/host/map.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pull p = { .at = data, .left = size };
    uint64_t capacity = (uint64_t)pull_u16(&p) << (pull_u8(&p) % 40);
    struct disk_map m;
    uint8_t *exact;
    struct err e;

    fuzz_begin();
    exact = fuzz_copy(p.at, p.left);
    if (disk_map_read(&m, (const char *)exact, p.left, capacity, &e) == 0) {
        uint64_t at = 0, data_bytes = 0;

        FUZZ_CHECK(m.capacity_bytes == capacity && m.count <= MAP_EXTENTS_MAX);
        for (size_t i = 0; i < m.count; i++) {
            struct extent x = disk_map_at(&m, at);

            FUZZ_CHECK(m.items[i].offset_bytes == at && m.items[i].length_bytes > 0);
            FUZZ_CHECK(x.offset_bytes == at && x.length_bytes == m.items[i].length_bytes);
            if (m.items[i].kind == EXTENT_DATA)
                data_bytes += m.items[i].length_bytes;
            at += m.items[i].length_bytes;
        }
        FUZZ_CHECK(at == capacity && data_bytes == m.data_bytes);
        disk_map_free(&m);
    }
    free(exact);
    fuzz_end();
    return 0;
}
