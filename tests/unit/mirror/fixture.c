#include "tests/unit/mirror/fixture.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#include "protocol/base/checked.h"
#include "protocol/block/tree.h"
#include "protocol/stream/sink.h"
#include "tests/unit/cmocka_all.h"

void assert_ok(int rc, const struct err *e)
{
    if (rc != 0)
        fail_msg("%s: %s", err_code_name(e->code), e->text);
}

static void warn(void *context, const char *text)
{
    struct host *h = context;
    size_t used = strlen(h->warnings);

    snprintf(h->warnings + used, sizeof h->warnings - used, "%s\n", text);
}

void host_new(struct host *h)
{
    *h = (struct host){ .keep = -1, .time = 1763600000 };
    /* A file system in memory where there is one: thousands of fsyncs come. */
    snprintf(h->dir, sizeof h->dir, "%s/vmferry-mirror-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(h->dir));
    snprintf(h->place, sizeof h->place, "%s/m", h->dir);
    h->vm = (struct mirror_vm){ .host_uuid = "11111111-2222-3333-4444-555555555555",
                                .host_name = "esx1",
                                .uuid = "564d8a0c-0000-1111-2222-333344445555",
                                .vmx_path = "[ds1] web01/web01.vmx",
                                .name = "web01" };
    h->env = (struct mirror_env){ .warn = warn, .context = h };
}

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *f)
{
    (void)s;
    (void)kind;
    (void)f;
    return remove(path);
}

void host_free(struct host *h)
{
    for (size_t i = 0; i < h->count; i++)
        free(h->disks[i].data);
    nftw(h->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int host_setup(void **state)
{
    struct host *h = malloc(sizeof *h);

    assert_non_null(h);
    host_new(h);
    *state = h;
    return 0;
}

int host_teardown(void **state)
{
    host_free(*state);
    free(*state);
    return 0;
}

struct disk *host_add(struct host *h, const char *slot, const char *uuid, uint64_t capacity)
{
    struct disk *d = &h->disks[h->count++];

    assert_true(h->count <= DISKS_MAX);
    *d = (struct disk){ .capacity = capacity, .included = true };
    snprintf(d->slot, sizeof d->slot, "%s", slot);
    snprintf(d->uuid, sizeof d->uuid, "%s", uuid);
    d->data = calloc(1, capacity);
    assert_non_null(d->data);
    return d;
}

static size_t bytes_of(const struct disk *d, uint64_t block)
{
    return (size_t)min_u64(BLOCK, d->capacity - block * BLOCK);
}

void disk_set(struct disk *d, uint64_t block, unsigned seed)
{
    uint8_t *at = d->data + block * BLOCK;
    size_t bytes = bytes_of(d, block);
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;

    memset(at, 0, bytes);
    /* Half of a block is noise, the rest compresses. */
    for (size_t i = 0; seed != 0 && i < bytes; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        at[i] = i % 512 < 256 ? (uint8_t)(x >> 56) : (uint8_t)seed;
    }
}

void disk_grow(struct disk *d, uint64_t capacity)
{
    d->data = realloc(d->data, capacity);
    assert_non_null(d->data);
    memset(d->data + d->capacity, 0, capacity - d->capacity);
    d->capacity = capacity;
}

void disk_copy(struct disk *to, const struct disk *from)
{
    *to = *from;
    to->data = malloc(from->capacity);
    assert_non_null(to->data);
    memcpy(to->data, from->data, from->capacity);
}

struct disk *some_disk(struct host *h, const char *slot, const char *uuid)
{
    struct disk *d = host_add(h, slot, uuid, 100 * BLOCK + 1536);

    for (unsigned b = 0; b < 40; b += 3)
        disk_set(d, b, b + 1);
    disk_set(d, 90, 7);
    disk_set(d, 100, 9);
    return d;
}

/* --- the source --- */

struct source_walk {
    struct sink *s;
    const struct disk *d;
    struct walk *w;
    struct tree *tree;
    uint8_t packed[2 * BLOCK];
};

static int give_block(struct source_walk *k, uint64_t block, const struct digest *digest,
                      struct err *e)
{
    const uint8_t *plain = k->d->data + block * BLOCK;
    size_t bytes = bytes_of(k->d, block);
    /* An exact copy, so that a sanitizer sees a byte too many. */
    uint8_t *copy = malloc(bytes), *packed;
    size_t n = ZSTD_compress(k->packed, sizeof k->packed, plain, bytes, 1);
    struct sink_block b = { .offset_bytes = block * BLOCK,
                            .plain_bytes = bytes,
                            .digest = *digest };
    int rc;

    assert_non_null(copy);
    memcpy(copy, plain, bytes);
    b.plain = copy;
    b.encoding = k->w->raw || n >= bytes ? ENCODING_RAW : ENCODING_ZSTD;
    b.packed_bytes = b.encoding == ENCODING_RAW ? bytes : n;
    packed = malloc(b.packed_bytes);
    assert_non_null(packed);
    memcpy(packed, b.encoding == ENCODING_RAW ? plain : k->packed, b.packed_bytes);
    b.packed = packed;
    rc = k->s->ops->data(k->s, &b, e);
    free(packed);
    free(copy);
    k->w->sent++;
    return rc;
}

static int give(struct source_walk *k, uint64_t block, enum held_kind kind,
                const struct digest *held, struct err *e)
{
    uint64_t at = block * BLOCK;
    size_t bytes = bytes_of(k->d, block);
    struct digest is = digest_of(&k->s->secret, k->d->data + at, bytes);
    bool zero = digest_is_zero(&is);

    assert_ok(tree_add(k->tree, &is, 1, e), e);
    if (!k->w->full &&
        ((kind == HELD_DIGESTS && digest_equal(&is, held)) || (kind == HELD_ZERO && zero))) {
        k->w->same++;
        return k->s->ops->same(k->s, at, bytes, e);
    }
    if (!zero)
        return give_block(k, block, &is, e);
    k->w->zero++;
    return k->s->ops->zero(k->s, at, bytes, e);
}

int walk_disk(struct sink *s, const struct disk *d, struct walk *w, struct err *e)
{
    struct source_walk k = { .s = s, .d = d, .w = w };
    uint64_t blocks = block_count_of(d->capacity, BLOCK);
    struct digest digests[64], root;
    int rc = -1;

    assert_int_equal(s->block_bytes, BLOCK);
    assert_int_equal(s->capacity_bytes, d->capacity);
    assert_ok(tree_new(&k.tree, &s->secret, d->capacity, BLOCK, e), e);
    for (uint64_t block = 0; block < blocks;) {
        struct held h = { 0 };
        uint64_t count;

        if (s->ops->held(s, block * BLOCK, d->capacity - block * BLOCK, digests, 64, &h, e) != 0)
            goto out;
        assert_int_equal(h.offset_bytes, block * BLOCK);
        count = block_count_of(h.length_bytes, BLOCK);
        assert_true(count > 0 && block + count <= blocks);
        assert_true(h.kind != HELD_DIGESTS || count <= 64);
        for (uint64_t i = 0; i < count; i++, block++) {
            if (w->stop_at != 0 && block == w->stop_at) {
                err_set(e, ERR_NETWORK, "cut");
                goto out;
            }
            if (give(&k, block, h.kind, h.kind == HELD_DIGESTS ? &digests[i] : NULL, e) != 0)
                goto out;
        }
    }
    assert_ok(tree_root(k.tree, &root, e), e);
    rc = s->ops->end(s, &root, e);

out:
    tree_free(k.tree);
    return rc;
}

/* --- runs --- */

int host_run_until_commit(struct host *h, struct walk *w, struct mirror **m, struct mirror_run **r,
                          struct err *e)
{
    struct mirror_run_options o = { .keep = h->keep,
                                    .keep_lower = h->keep_lower,
                                    .block_bytes = BLOCK };
    struct mirror_disk disks[DISKS_MAX];

    for (size_t i = 0; i < h->count; i++)
        disks[i] = (struct mirror_disk){ .slot = h->disks[i].slot,
                                         .uuid = h->disks[i].uuid,
                                         .label = "[ds1] web01/web01.vmdk",
                                         .capacity_bytes = h->disks[i].capacity,
                                         .included = h->disks[i].included };
    if (mirror_open_vm(m, h->place, &h->vm, false, &h->env, e) != 0 ||
        mirror_run_begin(r, *m, &o, disks, h->count, e) != 0)
        return -1;
    for (size_t i = 0; i < h->count; i++) {
        struct sink *s;
        int rc;

        w->distrusted |= mirror_run_disk(*r, i)->digests_distrusted;
        w->resumed |= mirror_run_disk(*r, i)->resumed;
        if (!h->disks[i].included)
            continue;
        w->held = mirror_run_held(*r, i, &w->held_root);
        if (w->unstage && mirror_run_unstage(*r, i, e) != 0)
            return -1;
        if (mirror_run_sink(*r, i, &s, e) != 0)
            return -1;
        rc = walk_disk(s, &h->disks[i], w, e);
        s->ops->close(s);
        if (rc != 0)
            return -1;
    }
    return mirror_run_config_file(*r, "web01.vmx", "displayName = \"web01\"\n", 22, e);
}

int host_run(struct host *h, struct walk *w, uint64_t *number, struct err *e)
{
    struct mirror_facts f = { .time = h->time,
                              .kind = "changed",
                              .outcome = "ok",
                              .consistency = "crash",
                              .data_channel = "tcp",
                              .read_path = "agent",
                              .change_source = "digest",
                              .snapshot = "vmferry-1-run-2" };
    struct mirror_committed c = { 0 };
    struct mirror_run *r = NULL;
    struct mirror *m = NULL;
    int rc = host_run_until_commit(h, w, &m, &r, e);

    if (rc == 0)
        rc = mirror_run_commit(r, &f, &c, e);
    if (rc == 0)
        rc = mirror_run_apply(r, e);
    if (number != NULL)
        *number = c.number;
    mirror_run_end(r);
    mirror_close(m);
    h->time += 3600;
    return rc;
}

int host_run_forked(struct host *h, unsigned long kill_at, enum fault_kind kind, int os)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        struct walk w = { 0 };
        struct err e = { 0 };
        int rc;

        if (kill_at > 0)
            fault_arm(kill_at, kind, os, kind == FAULT_ERROR);
        rc = host_run(h, &w, NULL, &e);
        if (rc != 0 && kill_at == 0)
            fprintf(stderr, "%s\n", e.text);
        if (rc == 0 && kill_at > 0 && !fault_fired())
            _exit(42);
        _exit(rc == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status))
        fail_msg("the child died of signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

const char *in_mirror(const struct host *h, const char *name, const char *file)
{
    static char paths[4][256];
    static unsigned next;
    char *out = paths[next++ % 4];

    snprintf(out, sizeof paths[0], "%s/%s%s%s", h->place, name, file[0] != 0 ? "/" : "", file);
    return out;
}

bool image_is(const char *folder, const char *file, const struct disk *d)
{
    char path[400];
    struct stat s;
    uint8_t *data;
    bool same;
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (stat(path, &s) != 0 || (uint64_t)s.st_size != d->capacity)
        return false;
    data = malloc(d->capacity);
    f = fopen(path, "rb");
    same = f != NULL && fread(data, 1, d->capacity, f) == d->capacity &&
           memcmp(data, d->data, d->capacity) == 0;
    if (f != NULL)
        fclose(f);
    free(data);
    return same;
}

void assert_image(const char *folder, const char *file, const struct disk *d)
{
    if (!image_is(folder, file, d))
        fail_msg("%s/%s is not the disk %s", folder, file, d->slot);
}

void must_run(struct host *h, struct walk *w)
{
    struct walk none = { 0 };
    struct err e;

    assert_ok(host_run(h, w != NULL ? w : &none, NULL, &e), &e);
}

struct mirror_facts some_facts(const struct host *h)
{
    return (struct mirror_facts){ .time = h->time,
                                  .kind = "full",
                                  .outcome = "ok",
                                  .consistency = "crash",
                                  .data_channel = "ssh",
                                  .read_path = "ssh-dd",
                                  .change_source = "full" };
}

static unsigned restores;

int restore_gen(struct host *h, const char *gen, char out[128], struct err *e)
{
    const struct generation_item *item;
    struct mirror_list *l = NULL;
    struct mirror_restored r;
    int rc;

    snprintf(out, 128, "%s/restored-%u", h->dir, restores++);
    if (mirror_list_load(&l, h->place, &h->env, e) != 0)
        return -1;
    rc = mirror_find(l, gen, &item, NULL, e);
    if (rc == 0)
        rc = mirror_restore(item, out, &h->env, &r, e);
    mirror_list_free(l);
    return rc;
}

void must_restore(struct host *h, const char *gen, const char *file, const struct disk *d)
{
    char out[128];
    struct err e;

    assert_ok(restore_gen(h, gen, out, &e), &e);
    assert_image(out, file, d);
}

static void note_problem(void *context, const char *object, const char *text)
{
    struct problems *p = context;

    if (p->count++ == 0) {
        snprintf(p->object, sizeof p->object, "%s", object);
        snprintf(p->text, sizeof p->text, "%s", text);
    }
}

int check_mirror(struct host *h, const char *name, bool read_data, struct problems *p,
                 struct err *e)
{
    struct mirror_check_options o = { .read_data = read_data,
                                      .problem = note_problem,
                                      .context = p };
    struct mirror_checked out;

    *p = (struct problems){ 0 };
    return mirror_check(in_mirror(h, name, ""), &o, &h->env, &out, e);
}

void must_be_clean(struct host *h, const char *name)
{
    struct problems p;
    struct err e;

    if (check_mirror(h, name, true, &p, &e) != 0)
        fail_msg("%s: %s", p.object, p.text);
}
