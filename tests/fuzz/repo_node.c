/* Nodes of trees (FORMAT.md 8 of the repository): level and number of cells from the first bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/repo/node.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct repo_cell *cells;
    uint8_t *copy, *again;
    size_t count;
    struct err e;

    if (size < 3)
        return 0;
    count = 1 + (data[1] | (size_t)data[2] << 8) % TREE_FAN_OUT;
    copy = fuzz_copy(data + 3, size - 3);
    cells = malloc(count * sizeof cells[0]);
    again = malloc(NODE_BYTES_MAX);
    FUZZ_CHECK(cells != NULL && again != NULL);
    fuzz_begin();
    if (node_decode(copy, size - 3, data[0], count, cells, &e) == 0) {
        for (size_t i = 0; i < count; i++)
            FUZZ_CHECK(cell_is_possible(&cells[i]));
        FUZZ_CHECK(node_encode(data[0], cells, count, again) == size - 3);
        FUZZ_CHECK(memcmp(again, copy, size - 3) == 0);
    }
    fuzz_end();
    free(cells);
    free(again);
    free(copy);
    return 0;
}
