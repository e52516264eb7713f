/*
 * The runs of the merged index as files in a folder of this machine.  `runs` names those that
 * count; whatever is wrong with any of it, the whole cache is dropped and made anew from the
 * repository.
 */
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/failpoint.h"
#include "receiver/base/publish.h"
#include "receiver/repo/index_private.h"
#include "receiver/repo/names.h"
#include "receiver/repo/vault.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static const uint8_t MAGIC[8] = { 'V', 'F', 'R', 'U', 'N', 'S', 0, 1 };
static const char SET[] = "runs", LOCK[] = "lock", SUFFIX[] = ".run";

enum {
    SET_HEADER_BYTES = 36,
    SETS_MAX = 256,
    SET_BYTES_MAX = SET_HEADER_BYTES + SETS_MAX * REPO_KEY_BYTES + 8,
    CACHE_WAIT_MS = 60000,
    RUN_NAME_ROOM = 48,
};

/* The file `runs`. */
struct run_set {
    struct repo_key keys[SETS_MAX];
    uint32_t count;
};

static void run_name(char out[RUN_NAME_ROOM], const struct repo_key *key)
{
    char hex[REPO_KEY_HEX_BYTES];

    repo_key_hex(key, hex);
    snprintf(out, RUN_NAME_ROOM, "%s%s", hex, SUFFIX);
}

int cache_open(struct index *x, const char *cache_dir, struct err *e)
{
    struct stat s;

    if (cache_dir == NULL)
        return 0;
    if (mkdir(cache_dir, 0700) != 0 && errno != EEXIST)
        return err_sys(e, "making the folder %s", cache_dir);
    x->cache = open(cache_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (x->cache < 0 || fstat(x->cache, &s) != 0)
        return err_sys(e, "opening the folder %s", cache_dir);
    if (s.st_uid != geteuid() || (s.st_mode & 022) != 0)
        return err_set(e, ERR_REFUSED, "%s is not ours alone: others could write to it", cache_dir);
    return 0;
}

static bool read_set(const struct index *x, struct run_set *set)
{
    uint8_t data[SET_BYTES_MAX];
    struct pull p = { .at = data };
    const uint8_t *magic, *of;
    struct stat s;
    struct err none;
    uint64_t epoch;
    int fd = openat(x->cache, SET, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool good = false;

    set->count = 0;
    if (fd < 0)
        return false;
    if (fstat(fd, &s) != 0 || s.st_size < SET_HEADER_BYTES + 8 || s.st_size > SET_BYTES_MAX ||
        io_pread_all(fd, data, (size_t)s.st_size, 0, &none) != 0)
        goto out;
    p.left = (size_t)s.st_size - 8;
    magic = pull_bytes(&p, sizeof MAGIC);
    of = pull_bytes(&p, REPO_KEY_BYTES);
    epoch = pull_u64(&p);
    set->count = pull_u32(&p);
    if (memcmp(magic, MAGIC, sizeof MAGIC) != 0 || epoch != x->epoch || set->count > SETS_MAX ||
        memcmp(of, vault_repository(x->vault)->b, REPO_KEY_BYTES) != 0 ||
        p.left != set->count * (size_t)REPO_KEY_BYTES)
        goto out;
    pull_copy(&p, set->keys, p.left);
    p.left = 8;
    good = pull_u64(&p) == XXH3_64bits(data, (size_t)s.st_size - 8);

out:
    io_drop(&fd);
    if (!good)
        set->count = 0;
    return good;
}

static int write_set(const struct index *x, const struct run_set *set, struct err *e)
{
    uint8_t data[SET_BYTES_MAX];
    struct push p = { .at = data, .left = sizeof data };

    push_copy(&p, MAGIC, sizeof MAGIC);
    push_copy(&p, vault_repository(x->vault)->b, REPO_KEY_BYTES);
    push_u64(&p, x->epoch);
    push_u32(&p, set->count);
    push_copy(&p, set->keys, set->count * sizeof set->keys[0]);
    push_u64(&p, XXH3_64bits(data, sizeof data - p.left));
    return publish_bytes(x->cache, SET, data, sizeof data - p.left, 0600, PUBLISH_REPLACE, e);
}

static bool has_key(const struct run_set *set, const struct repo_key *key)
{
    for (uint32_t i = 0; i < set->count; i++)
        if (memcmp(set->keys[i].b, key->b, sizeof key->b) == 0)
            return true;
    return false;
}

/* Remove run files that the set does not name, and temporaries. */
static void clean(const struct index *x, const struct run_set *set)
{
    int fd = openat(x->cache, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;
    struct err none;

    (void)publish_sweep(x->cache, &none);
    if (dir == NULL) {
        io_drop(&fd);
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        struct repo_key key;
        const char *n = entry->d_name;

        if (strlen(n) == 2 * sizeof key.b + sizeof SUFFIX - 1 && hex_to(n, sizeof key.b, key.b) &&
            strcmp(n + 2 * sizeof key.b, SUFFIX) == 0 && !has_key(set, &key))
            (void)unlinkat(x->cache, n, 0);
    }
    closedir(dir);
}

static void drop_runs(struct index *x)
{
    for (size_t i = 0; i < x->run_count; i++)
        sorted_run_close(x->runs[i]);
    x->run_count = 0;
}

void cache_void(struct index *x)
{
    drop_runs(x);
    if (x->cache >= 0)
        (void)unlinkat(x->cache, SET, 0);
}

void cache_load(struct index *x)
{
    struct run_set set;
    struct lock lock;
    struct err e;

    if (x->cache < 0 ||
        lock_take(&lock, x->cache, LOCK, LOCK_SHARED, CACHE_WAIT_MS, x->env.stop, &e) != 0)
        return;
    if (read_set(x, &set) && set.count <= RUNS_MAX) {
        for (uint32_t i = 0; i < set.count; i++) {
            char name[RUN_NAME_ROOM];
            int fd;

            run_name(name, &set.keys[i]);
            fd = openat(x->cache, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
            if (fd < 0 || sorted_run_open(&x->runs[x->run_count], fd, vault_repository(x->vault),
                                          x->epoch, &e) != 0) {
                /* Else the next set would name it again. */
                cache_void(x);
                break;
            }
            x->run_count++;
        }
    }
    lock_release(&lock);
}

/* Write a run to a file of this folder, or to one without a name. */
static int write_file(struct index *x, const struct repo_key *key, const struct repo_key *packs,
                      uint32_t pack_count, struct run_input *inputs, size_t input_count,
                      struct sorted_run **out, struct err *e)
{
    const struct repo_key *repository = vault_repository(x->vault);
    struct publish p = PUBLISH_EMPTY;
    char name[RUN_NAME_ROOM];
    struct stat s;
    int fd = -1;

    if (x->cache < 0) {
        fd = memfd_create("vmferry-index", MFD_CLOEXEC);
        if (fd < 0)
            return err_sys(e, "getting memory for the index");
        if (sorted_run_write(fd, repository, x->epoch, key, packs, pack_count, inputs, input_count,
                             e) != 0) {
            io_drop(&fd);
            return -1;
        }
        return sorted_run_open(out, fd, repository, x->epoch, e);
    }
    if (publish_begin(&p, x->cache, 0600, e) != 0)
        return -1;
    fd = fcntl(p.fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        err_sys(e, "writing the index cache");
        goto fail;
    }
    if (sorted_run_write(p.fd, repository, x->epoch, key, packs, pack_count, inputs, input_count,
                         e) != 0)
        goto fail;
    if (fstat(p.fd, &s) != 0) {
        err_sys(e, "writing the index cache");
        goto fail;
    }
    run_name(name, key);
    if (publish_commit(&p, name, (uint64_t)s.st_size, PUBLISH_NEW, e) != 0 ||
        failpoint("repo.cache-run", e) != 0)
        goto fail;
    return sorted_run_open(out, fd, repository, x->epoch, e);

fail:
    publish_drop(&p);
    io_drop(&fd);
    return -1;
}

/* Let the set name the new run and no longer those that it replaces. */
static int update_set(struct index *x, const struct repo_key *key, uint32_t instead, struct err *e)
{
    struct run_set set, next = { .count = 0 };

    (void)read_set(x, &set);
    for (uint32_t i = 0; i < set.count; i++) {
        bool replaced = false;

        for (size_t k = 0; k < x->run_count; k++)
            replaced = replaced ||
                       ((instead >> k & 1) != 0 &&
                        memcmp(sorted_run_key(x->runs[k])->b, set.keys[i].b, REPO_KEY_BYTES) == 0);
        if (!replaced)
            next.keys[next.count++] = set.keys[i];
    }
    /* So many runs of others: a set that is too long is dropped at the next load, so begin anew. */
    if (next.count >= RUNS_MAX)
        next.count = 0;
    next.keys[next.count++] = *key;
    if (write_set(x, &next, e) != 0 || failpoint("repo.cache-set", e) != 0)
        return -1;
    clean(x, &next);
    return 0;
}

int cache_add_run(struct index *x, const struct repo_key *packs, uint32_t pack_count,
                  struct run_input *inputs, size_t input_count, uint32_t instead, struct err *e)
{
    struct sorted_run *made = NULL;
    struct lock lock = LOCK_EMPTY;
    struct repo_key key;
    size_t kept = 0;
    int rc = -1;

    randombytes_buf(key.b, sizeof key.b);
    if (x->cache >= 0 &&
        lock_take(&lock, x->cache, LOCK, LOCK_EXCLUSIVE, CACHE_WAIT_MS, x->env.stop, e) != 0)
        return err_add(e, "the index cache");
    if (write_file(x, &key, packs, pack_count, inputs, input_count, &made, e) != 0 ||
        (x->cache >= 0 && update_set(x, &key, instead, e) != 0)) {
        sorted_run_close(made);
        goto out;
    }
    for (size_t i = 0; i < x->run_count; i++)
        if ((instead >> i & 1) != 0)
            sorted_run_close(x->runs[i]);
        else
            x->runs[kept++] = x->runs[i];
    x->runs[kept++] = made;
    x->run_count = kept;
    rc = 0;

out:
    lock_release(&lock);
    return rc == 0 ? 0 : err_add(e, "the index cache");
}
