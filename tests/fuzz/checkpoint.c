/* Checkpoints of a run.  The first byte says whether the right checksum is put at the end. */
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "protocol/base/err.h"
#include "receiver/mirror/run.h"
#include "tests/fuzz/fuzz.h"

enum { SUM_BYTES = 8, MOST = 256 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mirror m;
    struct run_disk d = { .m = &m, .shape = { 1000 * BLOCK_BYTES_MIN, BLOCK_BYTES_MIN } };
    struct checkpoint one, two;
    size_t bytes = size - 1; /* of the file */
    uint8_t file[MOST];
    struct err e;

    if (size < 1 + SUM_BYTES || size > 1 + MOST)
        return 0;
    fuzz_begin();
    m.store.store_fd = fuzz_folder();
    memset(m.store.identity.mirror, 'm', sizeof m.store.identity.mirror);
    d.state.number = 3;
    memcpy(file, data + 1, bytes);
    if ((data[0] & 1) == 0) {
        struct push p = { .at = file + (bytes - SUM_BYTES), .left = SUM_BYTES };

        push_u64(&p, XXH3_64bits(file, bytes - SUM_BYTES));
    }
    fuzz_file(fuzz_folder(), "check", file, bytes);
    if (checkpoint_load(&d, "check", &one, &e) == 0) {
        FUZZ_CHECK(one.position <= shape_blocks(d.shape));
        FUZZ_CHECK(checkpoint_save(&d, "check", &one, &e) == 0);
        FUZZ_CHECK(checkpoint_load(&d, "check", &two, &e) == 0);
        FUZZ_CHECK(one.generation == two.generation && one.position == two.position &&
                   one.index_bytes == two.index_bytes && one.blocks_bytes == two.blocks_bytes);
    }
    fuzz_end();
    return 0;
}
