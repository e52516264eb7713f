/*
 * Digest arrays against their image (FORMAT.md 4): any bytes may stand in either file, of any
 * length. The proof must name exactly the blocks that differ, and the root be that of the digests.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/tree.h"
#include "receiver/mirror/image.h"
#include "receiver/mirror/mirror.h"
#include "tests/fuzz/fuzz.h"

enum { BLOCK = BLOCK_BYTES_MIN, BLOCKS_MAX = 40 };

static const struct digest_secret secret = { { 9, 8, 7, 6, 5, 4, 3 } };

struct disk {
    struct shape shape;
    uint64_t base_blocks;
    uint8_t image[BLOCKS_MAX * BLOCK];
    struct digest digests[BLOCKS_MAX];
    bool differs[BLOCKS_MAX], named[BLOCKS_MAX];
    int image_fd, digests_fd;
};

static int differs(void *context, uint64_t block, uint64_t count, struct err *e)
{
    struct disk *d = context;

    (void)e;
    FUZZ_CHECK(block < shape_blocks(d->shape) && count <= shape_blocks(d->shape) - block);
    for (uint64_t i = 0; i < count; i++)
        d->named[block + i] = true;
    return 0;
}

static int file_new(const char *name)
{
    int fd = openat(fuzz_folder(), name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    FUZZ_CHECK(fd >= 0);
    return fd;
}

/* What the input says of each block: empty or a pattern; right digest, none, or another. */
static void make(struct disk *d, struct pull *p)
{
    uint8_t size = pull_u8(p);
    uint64_t blocks = 1 + size % BLOCKS_MAX;
    struct err e;

    d->shape = (struct shape){ blocks * BLOCK - (size >= 0x80 ? 1024 : 0), BLOCK };
    d->base_blocks = blocks - min_u64(blocks - 1, pull_u8(p) & 3);
    d->image_fd = file_new("image");
    d->digests_fd = file_new("digests");
    for (uint64_t i = 0; i < blocks; i++) {
        uint8_t word = pull_u8(p);
        uint8_t *bytes = d->image + i * BLOCK;
        size_t count = shape_block_bytes(d->shape, i);

        memset(bytes, word >> 4, count / 2);
        if ((word & 1) != 0 || word >> 4 != 0)
            FUZZ_CHECK(io_pwrite_all(d->image_fd, bytes, count, i * BLOCK, &e) == 0);
        if (i >= d->base_blocks)
            continue;
        d->digests[i] = digest_of(&secret, bytes, count);
        if ((word & 2) != 0)
            memset(&d->digests[i], word & 0xfc, DIGEST_BYTES);
        if (!digest_is_zero(&d->digests[i]))
            FUZZ_CHECK(io_pwrite_all(d->digests_fd, &d->digests[i], DIGEST_BYTES, i * DIGEST_BYTES,
                                     &e) == 0);
    }
    FUZZ_CHECK(ftruncate(d->digests_fd, (off_t)(d->base_blocks * DIGEST_BYTES)) == 0);
    /* Cut files: an image may be short, it reads as zeros there; a digest array may not. */
    if ((pull_u8(p) & 1) != 0) {
        uint64_t cut = pull_u16(p) * 16u % (d->shape.capacity_bytes + 1);

        FUZZ_CHECK(ftruncate(d->image_fd, (off_t)cut) == 0);
        memset(d->image + cut, 0, sizeof d->image - cut);
    }
}

static void check(struct disk *d, unsigned k, unsigned n)
{
    struct mirror_env env = { 0 };
    struct prove prove = { .image_fd = d->image_fd,
                           .digests_fd = d->digests_fd,
                           .base_blocks = d->base_blocks,
                           .shape = d->shape,
                           .secret = &secret,
                           .k = k,
                           .n = n,
                           .first_block = k * 11,
                           .env = &env,
                           .differs = differs,
                           .context = d };
    struct digest root, want;
    struct tree *t;
    struct err e;

    FUZZ_CHECK(image_prove(&prove, &e) == 0);
    for (uint64_t i = 0; i < shape_blocks(d->shape); i++) {
        struct digest is = digest_of(&secret, d->image + i * BLOCK, shape_block_bytes(d->shape, i));
        bool wrong = !digest_equal(&is, &d->digests[i]) && i / SLICE_UNIT % n == k - 1;

        FUZZ_CHECK(d->named[i] == wrong);
    }
    FUZZ_CHECK(
        digests_root(d->digests_fd, d->base_blocks, NULL, d->shape, &secret, &env, &root, &e) == 0);
    FUZZ_CHECK(tree_new(&t, &secret, d->shape.capacity_bytes, BLOCK, &e) == 0 &&
               tree_add(t, d->digests, shape_blocks(d->shape), &e) == 0 &&
               tree_root(t, &want, &e) == 0 && digest_equal(&root, &want));
    tree_free(t);
}

/* The array ends too early: an error, no guess. */
static void check_short(struct disk *d)
{
    struct mirror_env env = { 0 };
    struct digest root;
    struct err e;

    FUZZ_CHECK(ftruncate(d->digests_fd, DIGEST_BYTES / 2) == 0);
    digests_root(d->digests_fd, d->base_blocks, NULL, d->shape, &secret, &env, &root, &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pull p = { .at = data, .left = size };
    struct disk *d;
    uint8_t slice = pull_u8(&p);
    unsigned n = 1 + slice % 3;

    fuzz_begin();
    d = calloc(1, sizeof *d);
    FUZZ_CHECK(d != NULL);
    make(d, &p);
    check(d, 1 + slice / 3 % n, n);
    check_short(d);
    close(d->image_fd);
    close(d->digests_fd);
    free(d);
    fuzz_end();
    return 0;
}
