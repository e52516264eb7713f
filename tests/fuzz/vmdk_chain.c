/*
 * Chains of files: what is opened covers its disk, says the same each time it is asked, and what
 * all tables were found good for is read without an error.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/digest.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "protocol/vmdk/descriptor.h"
#include "receiver/base/codec_zlib.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/vmdk_input.h"

enum { EXTENTS_MAX = 300, READ_MAX = 96 << 10, READS_MAX = 40 };

static void check_read(struct source *s, const struct extent *x, bool verified, bool packed)
{
    size_t count = (size_t)min_u64(x->length_bytes, READ_MAX);
    uint8_t *whole = malloc(count), *part = malloc(count);
    struct err e;

    FUZZ_CHECK(whole != NULL && part != NULL);
    if (source_read(s, x->offset_bytes, whole, count, &e) != 0) {
        /* Compressed grains are only unpacked when they are read. */
        FUZZ_CHECK(!verified || packed);
        FUZZ_CHECK(e.code == ERR_CORRUPT);
    } else {
        size_t half = count / 2;

        FUZZ_CHECK(x->kind != EXTENT_ZERO || block_is_zero(whole, count));
        FUZZ_CHECK(source_read(s, x->offset_bytes + half, part, count - half, &e) == 0);
        FUZZ_CHECK(memcmp(part, whole + half, count - half) == 0);
    }
    free(whole);
    free(part);
}

static void check_disk(struct vmdk_chain *c, bool verified, bool packed)
{
    struct source *s = vmdk_chain_source(c);
    unsigned extents = 0;
    struct extent x;
    struct err e;

    for (uint64_t at = 0; at < s->capacity_bytes && extents < EXTENTS_MAX; extents++) {
        if (source_extent_at(s, at, &x, &e) != 0) {
            FUZZ_CHECK(!verified && e.code == ERR_CORRUPT);
            return;
        }
        FUZZ_CHECK(x.offset_bytes == at && x.length_bytes > 0);
        FUZZ_CHECK(x.length_bytes <= s->capacity_bytes - at);
        FUZZ_CHECK(x.kind == EXTENT_DATA || x.kind == EXTENT_ZERO);
        if (extents < READS_MAX)
            check_read(s, &x, verified, packed);
        at += x.length_bytes;
    }
}

/* The tip's own extents, and the list of changes that follows from them. */
static void check_tip(struct vmdk_chain *c, bool verified)
{
    uint64_t capacity = vmdk_chain_link(c, 0)->capacity_bytes, next = 0;
    struct extent x;
    struct err e;

    for (unsigned i = 0; i < EXTENTS_MAX; i++) {
        if (vmdk_chain_changed_at(c, vmdk_chain_link_count(c) > 1, 65536, next, &x, &e) != 0) {
            FUZZ_CHECK(!verified);
            return;
        }
        if (x.length_bytes == 0)
            break;
        FUZZ_CHECK(x.offset_bytes >= next && x.offset_bytes % 65536 == 0);
        FUZZ_CHECK(x.length_bytes <= capacity - x.offset_bytes);
        next = x.offset_bytes + x.length_bytes;
        FUZZ_CHECK(next % 65536 == 0 || next == capacity);
    }
    for (uint64_t at = 0, i = 0; at < capacity && i < EXTENTS_MAX; at += x.length_bytes, i++) {
        if (vmdk_chain_link_extent_at(c, 0, at, &x, &e) != 0) {
            FUZZ_CHECK(!verified);
            return;
        }
        FUZZ_CHECK(x.length_bytes > 0 && x.length_bytes <= capacity - at);
    }
}

static void check_chain(struct vmdk_chain *c)
{
    bool packed = false, verified;
    struct err e;

    FUZZ_CHECK(vmdk_chain_link_count(c) >= 1 && vmdk_chain_link_count(c) <= VMDK_LINKS_MAX);
    for (size_t i = 0; i < vmdk_chain_link_count(c); i++) {
        const struct vmdk_link *l = vmdk_chain_link(c, i);

        FUZZ_CHECK(l->capacity_bytes == l->descriptor->capacity_bytes);
        FUZZ_CHECK(l->extent_count == l->descriptor->extent_count);
        packed = packed || strcmp(l->format, "stream") == 0 || strcmp(l->format, "split") == 0;
    }
    verified = vmdk_chain_verify(c, &e) == 0;
    FUZZ_CHECK(verified || e.code == ERR_CORRUPT);
    for (size_t i = 0; verified && i < vmdk_chain_link_count(c); i++) {
        const struct vmdk_link *l = vmdk_chain_link(c, i);

        FUZZ_CHECK(l->allocated_bytes <= l->capacity_bytes);
        FUZZ_CHECK(l->zero_bytes <= l->capacity_bytes - l->allocated_bytes);
    }
    check_disk(c, verified, packed);
    check_tip(c, verified);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pull p = { .at = data, .left = size };
    struct vmdk_config config = { .codec = &codec_zlib, .cache_bytes = VMDK_CACHE_BYTES_MIN };
    unsigned flags = pull_u8(&p);
    struct vmdk_chain *c;
    const char *tip;
    struct err e;

    fuzz_begin();
    config.flags = flags & (VMDK_ONLY_ESXI | VMDK_DESCRIBE);
    config.files = vmdk_input_files(&p, &tip);
    if (vmdk_chain_open(&c, &config, tip, &e) == 0) {
        if (vmdk_chain_problem(c) == NULL)
            check_chain(c);
        else
            FUZZ_CHECK((flags & VMDK_DESCRIBE) != 0 && vmdk_chain_link_count(c) > 0);
        vmdk_chain_close(c);
    } else {
        FUZZ_CHECK(e.code != ERR_SYSTEM && e.text[0] != '\0');
    }
    vmdk_files_close(config.files);
    fuzz_end();
    return 0;
}
