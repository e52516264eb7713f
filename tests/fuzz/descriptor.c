/* VMDK descriptors: what is accepted keeps to the limits, and its parts add up. */
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "protocol/vmdk/descriptor.h"
#include "tests/fuzz/fuzz.h"

static void check(const struct descriptor *d)
{
    uint64_t sectors = 0;

    FUZZ_CHECK(d->extent_count > 0 && d->extent_count <= DESCRIPTOR_EXTENTS_MAX);
    FUZZ_CHECK(d->ddb_count <= DESCRIPTOR_DDB_MAX);
    for (size_t i = 0; i < d->extent_count; i++) {
        const struct descriptor_extent *x = &d->extents[i];

        FUZZ_CHECK(x->name != NULL && strlen(x->name) <= DESCRIPTOR_NAME_MAX);
        FUZZ_CHECK(strlen(x->type) < sizeof x->type && x->type[0] != '\0');
        FUZZ_CHECK(x->sectors <= DESCRIPTOR_SECTORS_MAX);
        sectors += x->sectors;
    }
    FUZZ_CHECK(sectors <= DESCRIPTOR_SECTORS_MAX);
    FUZZ_CHECK(d->capacity_bytes == sectors * DESCRIPTOR_SECTOR_BYTES);
    for (size_t i = 0; i < d->ddb_count; i++)
        FUZZ_CHECK(descriptor_ddb(d, d->ddb[i].name) == d->ddb[i].value); /* none twice */
    descriptor_unfinished(d);
    descriptor_word_is(d->create_type, "vmfs");
}

/* What can be written is read as the same, and written the same again. */
static void write_again(const struct descriptor *d)
{
    struct bytes once = { .ceiling = 2 * DESCRIPTOR_BYTES_MAX }, twice = once;
    struct descriptor *again;
    struct err e;

    if (descriptor_write(d, &once, &e) != 0) {
        FUZZ_CHECK(e.code == ERR_USAGE);
        bytes_free(&once);
        return;
    }
    if (descriptor_read(&again, once.data, once.count, &e) != 0) {
        FUZZ_CHECK(e.code == ERR_LIMIT); /* it became longer than what is read */
        bytes_free(&once);
        return;
    }
    FUZZ_CHECK(again->cid == d->cid && again->parent_cid == d->parent_cid);
    FUZZ_CHECK(again->capacity_bytes == d->capacity_bytes && again->ddb_count == d->ddb_count);
    for (size_t i = 0; i < d->extent_count; i++)
        FUZZ_CHECK(strcmp(again->extents[i].name, d->extents[i].name) == 0);
    for (size_t i = 0; i < d->ddb_count; i++)
        FUZZ_CHECK(strcmp(descriptor_ddb(again, d->ddb[i].name), d->ddb[i].value) == 0);
    FUZZ_CHECK(descriptor_write(again, &twice, &e) == 0 && twice.count == once.count);
    FUZZ_CHECK(memcmp(once.data, twice.data, once.count) == 0);
    descriptor_free(again);
    bytes_free(&once);
    bytes_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct descriptor *d;
    struct err e;

    fuzz_begin();
    if (descriptor_read(&d, data, size, &e) == 0) {
        check(d);
        write_again(d);
        descriptor_free(d);
    }
    fuzz_end();
    return 0;
}
