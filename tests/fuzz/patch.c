/*
 * Redo and delta files (FORMAT.md 5).  The input makes an index, entry by entry, either raw or with
 * the right checksums, and a file of packed blocks.  Whatever a cursor shows lies inside the disk
 * and the files, in order; a block that comes out has its digest.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/mirror/image.h"
#include "receiver/mirror/patch.h"
#include "tests/fuzz/fuzz.h"

enum { BLOCK = BLOCK_BYTES_MIN, SUM_BYTES = 8, ENTRIES_MOST = 600, BLOCKS_FILE_MOST = 64 << 10 };

static const struct digest_secret secret = { { 1, 2, 3, 4, 5, 6, 7, 8, 9 } };

struct files {
    int index_fd, blocks_fd;
    uint64_t index_bytes, blocks_bytes;
    struct patch_head head;
    uint64_t next; /* block of the next entry that is made in order */
};

static int file_new(const char *name)
{
    int fd = openat(fuzz_folder(), name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    FUZZ_CHECK(fd >= 0);
    return fd;
}

static void put(struct files *f, const void *data, size_t bytes)
{
    struct err e;

    FUZZ_CHECK(io_pwrite_all(f->index_fd, data, bytes, f->index_bytes, &e) == 0);
    f->index_bytes += bytes;
}

/* A block of the pattern `seed` at the end of the blocks file; returns its packed length. */
static size_t put_block(struct files *f, uint8_t seed, bool packed, struct digest *digest)
{
    static uint8_t plain[BLOCK], out[ZSTD_COMPRESSBOUND(BLOCK)];
    uint64_t at = f->next * BLOCK;
    size_t bytes =
        at < f->head.capacity_bytes ? min_u64(BLOCK, f->head.capacity_bytes - at) : BLOCK;
    const uint8_t *from = plain;
    struct err e;

    memset(plain, seed | 1, bytes);
    *digest = digest_of(&secret, plain, bytes);
    if (packed) {
        bytes = ZSTD_compress(out, sizeof out, plain, bytes, 1);
        from = out;
    }
    if (f->blocks_bytes + bytes > BLOCKS_FILE_MOST)
        return 1;
    FUZZ_CHECK(io_pwrite_all(f->blocks_fd, from, bytes, f->blocks_bytes, &e) == 0);
    f->blocks_bytes += bytes;
    return bytes;
}

/* An entry in order, with what the input damages of it, and the right checksum unless it says not.
 */
static void put_made(struct files *f, struct pull *p)
{
    uint8_t what = pull_u8(p), harm = pull_u8(p), bytes[PATCH_ENTRY_BYTES];
    struct push out = { .at = bytes, .left = sizeof bytes };
    uint8_t kind = what & 3;
    struct digest digest = { { 0 } };
    uint64_t second = 1 + (what >> 4), offset = f->blocks_bytes;
    size_t packed = 0;

    f->next += what >> 6;
    if (kind == PATCH_DATA) {
        packed = put_block(f, harm, (what & 4) != 0, &digest);
        second = offset;
    }
    if (kind == PATCH_LOST)
        memset(&digest, what, sizeof digest);
    push_u64(&out, f->next);
    push_u64(&out, second);
    push_u32(&out, (uint32_t)packed);
    push_u8(&out, kind);
    push_u8(&out, kind == PATCH_DATA ? what >> 2 & 1 : 0);
    push_u16(&out, 0);
    push_copy(&out, digest.b, sizeof digest.b);
    f->next += kind == PATCH_DATA ? 1 : second;
    if ((what & 8) != 0)
        bytes[harm % (PATCH_ENTRY_BYTES - SUM_BYTES)] ^= pull_u8(p);
    push_u64(&out, XXH3_64bits(bytes, PATCH_ENTRY_BYTES - SUM_BYTES) ^ (harm == 0xff));
    put(f, bytes, sizeof bytes);
}

static void put_raw(struct files *f, struct pull *p)
{
    uint8_t bytes[PATCH_ENTRY_BYTES];
    struct push sum = { .at = bytes + PATCH_ENTRY_BYTES - SUM_BYTES, .left = SUM_BYTES };

    pull_copy(p, bytes, PATCH_ENTRY_BYTES - SUM_BYTES);
    push_u64(&sum, XXH3_64bits(bytes, PATCH_ENTRY_BYTES - SUM_BYTES));
    put(f, bytes, sizeof bytes);
}

static void make(struct files *f, struct pull *p)
{
    static struct patch_writer w; /* for the head alone */
    uint8_t shape = pull_u8(p), hash[PATCH_HASH_BYTES];
    struct err e;

    f->index_fd = file_new("index");
    f->blocks_fd = file_new("blocks");
    f->head = (struct patch_head){ .role = (shape & 1) != 0 ? PATCH_DELTA : PATCH_REDO,
                                   .block_bytes = BLOCK,
                                   .disk = 1,
                                   .generation = 2,
                                   .capacity_bytes = (uint64_t)(1 + (shape >> 2)) * BLOCK - 512 };
    if ((shape & 2) != 0)
        f->head.capacity_bytes = INT64_MAX;
    FUZZ_CHECK(patch_writer_open(&w, f->index_fd, f->blocks_fd, 0, &f->head, &e) == 0);
    FUZZ_CHECK(patch_writer_flush(&w, hash, &e) == 0);
    patch_writer_close(&w);
    f->index_bytes = PATCH_HEAD_BYTES;
    for (unsigned i = 0; p->left > 0 && !p->spent && i < ENTRIES_MOST; i++) {
        uint8_t word = pull_u8(p);

        if (word < 0xf0) {
            put_made(f, p);
        } else if (word < 0xfc) {
            put_raw(f, p);
        } else if (word < 0xfe) { /* a damaged byte of the head */
            uint8_t where = pull_u8(p) % PATCH_HEAD_BYTES, value = pull_u8(p);

            FUZZ_CHECK(io_pwrite_all(f->index_fd, &value, 1, where, &e) == 0);
        } else { /* a cut file */
            FUZZ_CHECK(ftruncate(f->index_fd, (off_t)(f->index_bytes -
                                                      min_u64(f->index_bytes, pull_u8(p)))) == 0);
            return;
        }
    }
}

static void check_entry(const struct files *f, const struct patch_entry *n, struct patch_room *room)
{
    struct shape shape = { f->head.capacity_bytes, BLOCK };
    struct err e;

    FUZZ_CHECK(n->count > 0 && n->block < shape_blocks(shape) &&
               n->count <= shape_blocks(shape) - n->block);
    if (n->kind != PATCH_DATA)
        return;
    FUZZ_CHECK(n->packed_bytes > 0 && n->packed_bytes <= BLOCK && n->count == 1 &&
               n->payload_offset <= f->blocks_bytes &&
               n->packed_bytes <= f->blocks_bytes - n->payload_offset);
    if (patch_payload(f->blocks_fd, n, &secret, shape_block_bytes(shape, n->block), room, &e) ==
        0) {
        struct digest d = digest_of(&secret, room->plain, shape_block_bytes(shape, n->block));

        FUZZ_CHECK(digest_equal(&d, &n->digest));
    }
}

static void read_all(const struct files *f)
{
    static struct patch_cursor c;
    struct patch_room room = { 0 };
    uint64_t end = 0;
    uint8_t hash[PATCH_HASH_BYTES];
    struct err e;

    if (patch_cursor_open(&c, fuzz_folder(), "index", &f->head, 0, f->blocks_bytes, &e) != 0)
        return;
    FUZZ_CHECK(patch_room_new(&room, BLOCK, &e) == 0);
    while (c.have) {
        FUZZ_CHECK(c.entry.block >= end);
        end = c.entry.block + c.entry.count;
        check_entry(f, &c.entry, &room);
        if (patch_step(&c, &e) != 0)
            break;
    }
    for (uint64_t block = 0; block < 70; block += 7) {
        if (patch_seek(&c, block, &e) != 0)
            break;
        FUZZ_CHECK(!c.have || c.entry.count > 0);
        if (patch_forward(&c, block + 20, &e) != 0)
            break;
        FUZZ_CHECK(!c.have || c.entry.block + c.entry.count > block + 20);
    }
    patch_hash(c.fd, f->index_bytes, hash, &e);
    patch_room_free(&room);
    patch_cursor_close(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pull p = { .at = data, .left = size };
    struct files f = { 0 };

    fuzz_begin();
    make(&f, &p);
    read_all(&f);
    close(f.index_fd);
    close(f.blocks_fd);
    fuzz_end();
    return 0;
}
