/*
 * Measures the merged index, by hand: fills it with made-up entries, opens it again, looks up.
 *
 *     repo_index ENTRIES FOLDER       (20000000 wants 1 GiB in FOLDER)
 *
 * Wanted at 20 million: opened in under 1 s, a million lookups per second and core, and the process
 * under 256 MiB of memory of its own (RssAnon), which is what a backup may take.
 */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "protocol/base/err.h"
#include "receiver/repo/index.h"
#include "receiver/repo/names.h"
#include "receiver/repo/vault.h"
#include "receiver/storage/storage_memory.h"

enum { OF_PACK = 1000, LOOKUPS = 2000000 };

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Of this thread: others may be at work on the machine. */
static double cpu(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void demand(int rc, const struct err *e)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "%s\n", e->text);
    exit(1);
}

static unsigned long rss_anon_kib(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    unsigned long kib = 0;
    char line[256];

    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "RssAnon: %lu", &kib) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return kib;
}

static struct repo_id id_of(uint64_t n)
{
    static const uint8_t key[crypto_shorthash_KEYBYTES] = { 7 };
    struct repo_id id;

    for (unsigned i = 0; i < sizeof id.b / 8; i++) {
        uint64_t in = n * 4 + i;

        crypto_shorthash(id.b + (size_t)8 * i, (const uint8_t *)&in, sizeof in, key);
    }
    return id;
}

static struct repo_key pack_of(uint64_t n)
{
    struct repo_id id = id_of(UINT64_MAX / 8 - n);
    struct repo_key key;

    memcpy(key.b, id.b, sizeof key.b);
    return key;
}

static void fill(struct index *x, struct storage *s, uint64_t entries)
{
    unsigned long most = 0;
    struct err e;

    for (uint64_t n = 0; n < entries; n += OF_PACK) {
        struct repo_key key = pack_of(n / OF_PACK);
        object_name name;
        uint32_t number;

        demand(index_add_pack(x, &key, &number, &e), &e);
        for (uint64_t i = n; i < n + OF_PACK && i < entries; i++) {
            struct index_entry entry = { .id = id_of(i),
                                         .pack = number,
                                         .offset = 64 + (uint32_t)(i - n) * 60000,
                                         .payload_codec = 60000,
                                         .plain_type = 131072 | ENTRY_BLOCK << 24 };

            demand(index_add(x, &entry, &e), &e);
        }
        name_of_index(name, &key); /* that it is listed is enough: a run has it */
        demand(storage_put(s, name, "", 0, &e), &e);
        index_pack_done(x, number);
        if (rss_anon_kib() > most && n % (OF_PACK * 100) == 0)
            most = rss_anon_kib();
    }
    printf("most RssAnon while filling: %lu MiB (the list of objects included)\n", most >> 10);
}

static void look_up(struct index *x, uint64_t entries, uint64_t beyond, const char *what)
{
    struct repo_id *ids = malloc(LOOKUPS * sizeof ids[0]);
    struct place place;
    uint64_t found = 0;
    double start;
    struct err e;

    for (uint64_t i = 0; ids != NULL && i < LOOKUPS; i++)
        ids[i] = id_of(beyond + i * 2654435761u % entries);
    for (unsigned round = 0; ids != NULL && round < 2; round++) {
        start = cpu();
        found = 0;
        for (uint64_t i = 0; i < LOOKUPS; i++) {
            int rc = index_find(x, ENTRY_BLOCK, &ids[i], &place, 1, &e);

            demand(rc, &e);
            found += (uint64_t)rc;
        }
        printf("%s, round %u: %.2f million lookups/s, %" PRIu64 " of %d found\n", what, round + 1,
               LOOKUPS / (cpu() - start) / 1e6, found, LOOKUPS);
    }
    free(ids);
}

int main(int argc, char **argv)
{
    struct repo_key key = { { 9 } };
    struct repo_env env = { .warn = NULL };
    uint64_t entries, got, packs, damaged;
    struct storage *s;
    struct index *x;
    struct vault *v;
    struct err e;
    double start;

    if (argc != 3) {
        fprintf(stderr, "usage: %s ENTRIES FOLDER\n", argv[0]);
        return 2;
    }
    entries = strtoull(argv[1], NULL, 10);
    demand(vault_new(&v, &key, &e), &e);
    demand(storage_memory_new(&s, &e), &e);
    start = now();
    demand(index_open(&x, s, v, 1, argv[2], &env, &e), &e);
    fill(x, s, entries);
    demand(index_save(x, &e), &e);
    index_close(x);
    printf("filled with %" PRIu64 " entries in %.1f s\n", entries, now() - start);

    start = now();
    demand(index_open(&x, s, v, 1, argv[2], &env, &e), &e);
    index_counts(x, &got, &packs, &damaged);
    printf("opened in %.3f s: %" PRIu64 " entries in %" PRIu64 " packs\n", now() - start, got,
           packs);
    look_up(x, entries, 0, "there");
    look_up(x, entries, entries, "not there");
    printf("RssAnon: %lu MiB\n", rss_anon_kib() >> 10);
    index_close(x);
    storage_close(s);
    vault_free(v);
    return got == entries ? 0 : 1;
}
