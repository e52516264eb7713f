/*
 * Reads disks through their chains as the agent's walk does, and says what it took:
 *
 *     bench_chain_read [--seek] [--rounds N] FOLDER TIP...
 *
 * The TIPs (descriptors below FOLDER) are read in turn, N rounds long.  One line of JSON for each:
 * {"tip", "seconds", "cpu", "data"}.  Without --seek holes of flat files are not known, as on a
 * host.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "protocol/vmdk/files.h"

enum { READ_BYTES = 1 << 20, CACHE_BYTES = 1 << 20 }; /* as the agent has them */

/* Files whose holes nobody knows: the local ones under another table. */
struct blind_files {
    struct vmdk_files base;
    struct vmdk_files *local;
    struct source_ops ops;
};

static int all_is_data(struct source *s, uint64_t offset_bytes, struct extent *out, struct err *e)
{
    (void)e;
    *out = (struct extent){ offset_bytes, s->capacity_bytes - offset_bytes, EXTENT_DATA };
    return 0;
}

static int blind_open(struct vmdk_files *f, const char *from, const char *name, enum vmdk_role role,
                      struct vmdk_file *out, struct err *e)
{
    struct blind_files *b = (struct blind_files *)f;

    if (b->local->open(b->local, from, name, role, out, e) != 0)
        return -1;
    b->ops = *out->source->ops;
    b->ops.extent_at = all_is_data;
    out->source->ops = &b->ops;
    return 0;
}

static double now(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* All data of the disk, once; the bytes of it. */
static int read_all(struct source *disk, uint8_t *buffer, uint64_t *data, struct err *e)
{
    struct extent x;

    *data = 0;
    for (uint64_t at = 0; at < disk->capacity_bytes; at = x.offset_bytes + x.length_bytes) {
        uint64_t end;

        if (source_extent_at(disk, at, &x, e) != 0)
            return -1;
        end = x.offset_bytes + x.length_bytes;
        if (x.kind != EXTENT_DATA)
            continue;
        for (uint64_t to = at; to < end; to += READ_BYTES) {
            size_t count = (size_t)min_u64(READ_BYTES, end - to);

            if (source_read(disk, to, buffer, count, e) != 0)
                return -1;
            *data += count;
        }
    }
    return 0;
}

static int measure(struct vmdk_files *files, const char *tip, uint8_t *buffer, struct err *e)
{
    struct vmdk_config config = { .files = files,
                                  .cache_bytes = CACHE_BYTES,
                                  .flags = VMDK_ONLY_ESXI };
    double began = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    struct source *disk;
    uint64_t data;
    int rc;

    if (vmdk_source_open(&disk, &config, tip, e) != 0)
        return -1;
    rc = read_all(disk, buffer, &data, e);
    source_close(disk);
    if (rc == 0)
        printf("{\"tip\": \"%s\", \"seconds\": %.4f, \"cpu\": %.4f, \"data\": %" PRIu64 "}\n", tip,
               now(CLOCK_MONOTONIC) - began, now(CLOCK_PROCESS_CPUTIME_ID) - cpu, data);
    return rc;
}

int main(int argc, char **argv)
{
    struct blind_files blind = { .base = { .open = blind_open } };
    struct vmdk_volume volume = { 0 };
    uint8_t *buffer = malloc(READ_BYTES);
    bool seek = false;
    int rounds = 1, i = 1, rc = 1;
    struct err e = { 0 };

    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--seek") == 0)
            seek = true;
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
            rounds = atoi(argv[++i]);
    }
    if (argc - i < 2 || buffer == NULL) {
        fprintf(stderr, "usage: bench_chain_read [--seek] [--rounds N] FOLDER TIP...\n");
        goto out;
    }
    volume.path = argv[i++];
    if (vmdk_local_files_new(&blind.local, &volume, 1, &e) != 0)
        goto out;
    for (int round = 0; round < rounds; round++)
        for (int tip = i; tip < argc; tip++)
            if (measure(seek ? blind.local : &blind.base, argv[tip], buffer, &e) != 0)
                goto out;
    rc = 0;

out:
    if (e.code != ERR_NONE)
        fprintf(stderr, "%s\n", e.text);
    vmdk_files_close(blind.local);
    free(buffer);
    return rc;
}
