/*
 * Gives a repository an index of many made-up entries, by hand:
 *
 *     repo_grow FOLDER ENTRIES        (20000000 wants 1 GiB in FOLDER)
 *
 * The packs that hold them are not there: backups look entries up, and read none of these.  What
 * reads packs (check, prune) will rightly complain.
 */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "protocol/base/err.h"
#include "receiver/repo/pack.h"
#include "receiver/repo/repo_private.h"
#include "receiver/storage/storage.h"
#include "receiver/storage/storage_directory.h"

enum { OF_PACK = 1000, PAYLOAD = 60000, PLAIN = 128 << 10 };

static void demand(int rc, const struct err *e)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s\n", e->text);
    exit(1);
}

static void add_pack(struct repo *r, struct index_entry *entries, uint32_t count)
{
    struct pack_index x = { .kind = PACK_BLOCKS, .count = count, .entries = entries };
    uint32_t offset = PACK_HEADER_BYTES;
    struct err e;

    randombytes_buf(x.pack.b, sizeof x.pack.b);
    for (uint32_t i = 0; i < count; i++) {
        entries[i] = (struct index_entry){ .offset = offset,
                                           .payload_codec = PAYLOAD | (uint32_t)CODEC_ZSTD << 24,
                                           .plain_type = PLAIN | (uint32_t)ENTRY_BLOCK << 24 };
        randombytes_buf(entries[i].id.b, sizeof entries[i].id.b);
        offset += ENTRY_HEADER_BYTES + PAYLOAD;
    }
    x.size_bytes = offset + PACK_END_BYTES;
    demand(pack_index_put(r->storage, r->vault, &x, &e), &e);
}

int main(int argc, char **argv)
{
    static struct index_entry entries[OF_PACK];
    struct repo_open_options open = { .access = REPO_SHARED };
    struct storage *s;
    struct repo *r;
    uint64_t left;
    struct err e;

    if (argc != 3) {
        fprintf(stderr, "usage: %s FOLDER ENTRIES\n", argv[0]);
        return 2;
    }
    demand(storage_directory_open(&s, argv[1], &e), &e);
    demand(repo_open(&r, s, &open, &e), &e);
    for (left = strtoull(argv[2], NULL, 10); left > 0;) {
        uint32_t count = left < OF_PACK ? (uint32_t)left : OF_PACK;

        add_pack(r, entries, count);
        left -= count;
    }
    demand(storage_barrier(s, &e), &e);
    repo_close(r);
    storage_close(s);
    return 0;
}
