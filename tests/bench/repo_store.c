/*
 * Measures storing in a repository, by hand: made-up blocks through the sink, straight from memory.
 *
 *     repo_store MEBIBYTES FOLDER [seal]       FOLDER must not be there yet
 *
 * Shown are wall clock and processor time of a first backup, of one in which nothing changed, and
 * of reading it all back; half of each block is noise, so zstd makes it about half as large.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zstd.h>

#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/block/tree.h"
#include "protocol/stream/sink.h"
#include "receiver/base/secret.h"
#include "receiver/repo/repo_read.h"
#include "receiver/repo/repo_run.h"
#include "receiver/storage/storage.h"
#include "receiver/storage/storage_directory.h"

enum { BLOCK = 128 << 10, PATTERNS = 64 };

static uint8_t patterns[PATTERNS][BLOCK];

static double seconds(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void demand(int rc, const struct err *e)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s\n", e->text);
    exit(1);
}

static void make_patterns(void)
{
    uint64_t x = 1;

    for (unsigned i = 0; i < PATTERNS; i++)
        for (size_t k = 0; k < BLOCK; k++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            patterns[i][k] = k % 64 < 32 ? (uint8_t)(x >> 56) : (uint8_t)i;
        }
}

/* Every block is another: its number stands in it. */
static size_t make_block(uint64_t n, uint8_t *plain, uint8_t *packed, ZSTD_CCtx *c)
{
    memcpy(plain, patterns[n % PATTERNS], BLOCK);
    memcpy(plain, &n, sizeof n);
    return ZSTD_compressCCtx(c, packed, BLOCK, plain, BLOCK, 1);
}

static void feed(struct sink *s, uint64_t blocks, bool same, double *own)
{
    uint8_t *plain = malloc(BLOCK), *packed = malloc(BLOCK);
    ZSTD_CCtx *c = ZSTD_createCCtx();
    struct tree *tree;
    struct digest root;
    struct err e;

    demand(tree_new(&tree, &s->secret, blocks * BLOCK, BLOCK, &e), &e);
    for (uint64_t n = 0; n < blocks; n++) {
        double start = seconds(CLOCK_THREAD_CPUTIME_ID);
        size_t count = make_block(n, plain, packed, c);
        struct sink_block b = { .offset_bytes = n * BLOCK,
                                .plain = plain,
                                .plain_bytes = BLOCK,
                                .digest = digest_of_data(&s->secret, plain, BLOCK),
                                .packed = packed,
                                .packed_bytes = count,
                                .encoding = ENCODING_ZSTD };

        demand(tree_add(tree, &b.digest, 1, &e), &e);
        *own += seconds(CLOCK_THREAD_CPUTIME_ID) - start;
        demand(same ? s->ops->same(s, n * BLOCK, BLOCK, &e) : s->ops->data(s, &b, &e), &e);
    }
    demand(tree_root(tree, &root, &e), &e);
    demand(s->ops->end(s, &root, &e), &e);
    tree_free(tree);
    ZSTD_freeCCtx(c);
    free(plain);
    free(packed);
}

static void back_up(struct repo *r, uint64_t blocks, bool same, const char *what)
{
    struct repo_vm vm = { "local", "local", "disk", "", "disk", false };
    struct repo_disk disk = { "file:0", "", "", blocks * BLOCK, true };
    struct repo_disk_facts disk_facts = { .read_path = "file" };
    struct repo_run_facts facts = { .outcome = "ok", .disks = &disk_facts };
    double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), own = 0;
    struct repo_run_options o = { 0 };
    struct repo_committed made;
    struct repo_run *run;
    struct sink *s;
    struct err e;

    demand(repo_run_begin(&run, r, &vm, &o, &disk, 1, &e), &e);
    demand(repo_run_sink(run, 0, &s, &e), &e);
    feed(s, blocks, same, &own);
    s->ops->close(s);
    demand(repo_run_commit(run, &facts, &made, &e), &e);
    repo_run_end(run);
    wall = seconds(CLOCK_MONOTONIC) - wall;
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu - own;
    printf("%s: %.0f MiB/s (%.2f s with making the blocks; %.2f s of processor without)\n", what,
           (double)blocks / 8 / wall, wall, cpu);
}

static void read_back(struct repo *r)
{
    double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    uint8_t *block = malloc(BLOCK);
    struct repo_generation_name *names;
    struct repo_generation g;
    struct source *source;
    size_t count;
    struct err e;

    demand(repo_generation_names(r, &names, &count, &e), &e);
    demand(repo_generation_load(r, &names[0].vm, 1, &g, &e), &e);
    demand(repo_disk_open(&source, r, &g.disks[0], &e), &e);
    for (uint64_t at = 0; at < g.disks[0].capacity_bytes; at += BLOCK)
        demand(source_read(source, at, block, BLOCK, &e), &e);
    wall = seconds(CLOCK_MONOTONIC) - wall;
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("read back: %.0f MiB/s (%.2f s, %.2f s of processor)\n",
           (double)g.disks[0].capacity_bytes / (1 << 20) / wall, wall, cpu);
    source_close(source);
    repo_generation_free(&g);
    free(names);
    free(block);
}

int main(int argc, char **argv)
{
    struct repo_create_options create = { .encrypt = argc == 4, .hardness = { 1, 8 << 20 } };
    struct repo_open_options open = { .access = REPO_SHARED };
    struct secret secret = { 0 };
    struct storage *s;
    struct repo *r;
    uint64_t blocks;
    struct err e;

    if (argc < 3) {
        fprintf(stderr, "usage: %s MEBIBYTES FOLDER [seal]\n", argv[0]);
        return 2;
    }
    blocks = strtoull(argv[1], NULL, 10) * 8;
    make_patterns();
    demand(secret_set(&secret, "bench", 5, &e), &e);
    create.passphrase = &secret;
    open.unlock.passphrase = create.encrypt ? &secret : NULL;
    demand(storage_directory_create(&s, argv[2], &e), &e);
    demand(repo_create(s, &create, &e), &e);
    demand(repo_open(&r, s, &open, &e), &e);
    back_up(r, blocks, false, "first");
    back_up(r, blocks, true, "unchanged");
    read_back(r);
    repo_close(r);
    storage_close(s);
    secret_free(&secret);
    return 0;
}
