#include "tests/unit/repo/fixture.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/block/source.h"
#include "protocol/stream/sink.h"
#include "receiver/base/secret.h"
#include "receiver/storage/storage_memory.h"
#include "tests/unit/cmocka_all.h"

/* As little work as a passphrase may be. */
static const struct repo_hardness EASY = { .passes = 1, .memory_bytes = 8 << 10 };

int fixture_set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    host_new(&f->h);
    assert_ok(storage_memory_new(&f->s, &f->e), &f->e);
    *state = f;
    return 0;
}

int fixture_tear_down(void **state)
{
    struct fixture *f = *state;

    storage_close(f->s);
    host_free(&f->h);
    free(f);
    return 0;
}

static void secret_of(struct secret *out, const char *text)
{
    struct err e;

    assert_ok(secret_set(out, text, strlen(text), &e), &e);
}

void make_repo(struct storage *s, const char *passphrase)
{
    struct repo_create_options o = { .block_bytes = BLOCK,
                                     .encrypt = passphrase != NULL,
                                     .hardness = EASY };
    struct secret secret = { 0 };
    struct err e;

    if (passphrase != NULL)
        secret_of(&secret, passphrase);
    o.passphrase = &secret;
    assert_ok(repo_create(s, &o, &e), &e);
    secret_free(&secret);
}

int open_repo(struct storage *s, const char *passphrase, const char *cache_dir,
              enum repo_access access, struct host *h, struct repo **out, struct err *e)
{
    struct repo_open_options o = { .access = access, .cache_dir = cache_dir };
    struct secret secret = { 0 };
    int rc;

    if (h != NULL) {
        o.env.warn = h->env.warn;
        o.env.context = h->env.context;
    }
    if (passphrase != NULL) {
        secret_of(&secret, passphrase);
        o.unlock.passphrase = &secret;
    }
    rc = repo_open(out, s, &o, e);
    secret_free(&secret);
    return rc;
}

static int run_disks(struct repo_run *run, struct host *h, struct backup *b, struct err *e)
{
    for (size_t i = 0; i < h->count; i++) {
        struct repo_disk_result result = { 0 };
        struct sink *s;
        int rc;

        b->distrusted |= repo_run_disk(run, i)->distrusted;
        b->walk.resumed |= repo_run_disk(run, i)->resumed;
        if (!h->disks[i].included)
            continue;
        b->walk.held = repo_run_held(run, i, &b->walk.held_root);
        if (b->walk.unstage)
            repo_run_unstage(run, i);
        if (repo_run_sink(run, i, &s, e) != 0)
            return -1;
        rc = walk_disk(s, &h->disks[i], &b->walk, e);
        s->ops->close(s);
        if (rc != 0)
            return -1;
        assert_int_equal(repo_run_result(run, i, &result), 0);
        b->changed += result.changed_bytes;
        b->stored += result.stored_bytes;
        b->fresh += result.new_bytes;
    }
    return repo_run_file(run, "web01.vmx", "displayName = \"web01\"\n", 22, e);
}

int back_up_in(struct repo *r, struct host *h, struct backup *b, struct err *e)
{
    struct repo_vm vm = { .host_uuid = h->vm.host_uuid,
                          .host_name = h->vm.host_name,
                          .uuid = h->vm.uuid,
                          .vmx_path = h->vm.vmx_path,
                          .name = h->vm.name,
                          .uuid_shared = h->vm.uuid_shared };
    struct repo_disk_facts disk_facts[DISKS_MAX] = { { .read_path = "agent" },
                                                     { .read_path = "agent" },
                                                     { .read_path = "agent" },
                                                     { .read_path = "agent" } };
    struct repo_run_facts facts = { .time = h->time,
                                    .kind = "changed",
                                    .outcome = "ok",
                                    .consistency = "crash",
                                    .data_channel = "tcp",
                                    .read_path = "agent",
                                    .change_source = "digest",
                                    .snapshot = "vmferry-1-run-2",
                                    .disks = disk_facts };
    struct repo_run_options o = { .no_parent = b->no_parent };
    struct repo_disk disks[DISKS_MAX];
    struct repo_committed made;
    struct repo_run *run;
    int rc;

    for (size_t i = 0; i < h->count; i++)
        disks[i] = (struct repo_disk){ .slot = h->disks[i].slot,
                                       .uuid = h->disks[i].uuid,
                                       .label = "[ds1] web01/web01.vmdk",
                                       .capacity_bytes = h->disks[i].capacity,
                                       .included = h->disks[i].included };
    if (repo_run_begin(&run, r, &vm, &o, disks, h->count, e) != 0)
        return -1;
    rc = run_disks(run, h, b, e);
    if (rc == 0 && !b->stop_before_commit) {
        rc = repo_run_commit(run, &facts, &made, e);
        if (rc == 0)
            b->number = made.number;
    }
    repo_run_end(run);
    return rc;
}

int back_up(struct storage *s, struct host *h, struct backup *b, struct err *e)
{
    struct repo *r;
    int rc;

    if (open_repo(s, b->passphrase, b->cache_dir, REPO_SHARED, h, &r, e) != 0)
        return -1;
    rc = back_up_in(r, h, b, e);
    repo_close(r);
    return rc;
}

static const struct repo_generation_disk *disk_in(const struct repo_generation *g, const char *slot)
{
    for (uint32_t i = 0; i < g->disk_count; i++)
        if (strcmp(g->disks[i].slot, slot) == 0)
            return &g->disks[i];
    return NULL;
}

static int compare_disk(struct repo *r, const struct repo_generation_disk *g, const struct disk *d,
                        struct err *e)
{
    struct source *source;
    uint8_t *got = malloc(d->capacity);
    int rc = -1;

    assert_non_null(got);
    if (g->capacity_bytes != d->capacity)
        rc = 0;
    else if (repo_disk_open(&source, r, g, e) == 0) {
        if (source_read(source, 0, got, d->capacity, e) == 0)
            rc = memcmp(got, d->data, d->capacity) == 0;
        source_close(source);
    }
    free(got);
    return rc;
}

int generation_has(struct repo *r, const struct repo_key *vm, uint64_t number, const char *slot,
                   const struct disk *d, struct err *e)
{
    const struct repo_generation_disk *g;
    struct repo_generation gen;
    struct bytes file = { 0 };
    int rc;

    if (repo_generation_load(r, vm, number, &gen, e) != 0)
        return -1;
    g = disk_in(&gen, slot);
    rc = g == NULL ? 0 : compare_disk(r, g, d, e);
    /* The configuration belongs to it. */
    if (rc == 1 && gen.file_count == 1)
        rc = repo_file_read(r, &gen.files[0], &file, e) != 0
                 ? -1
                 : file.count == 22 && memcmp(file.data, "displayName", 11) == 0;
    bytes_free(&file);
    repo_generation_free(&gen);
    return rc;
}

struct repo_key only_vm(struct repo *r)
{
    struct repo_generation_name *names;
    struct repo_key key;
    struct err e;
    size_t count;

    assert_ok(repo_generation_names(r, &names, &count, &e), &e);
    assert_true(count > 0);
    key = names[0].vm;
    assert_memory_equal(names[count - 1].vm.b, key.b, sizeof key.b);
    free(names);
    return key;
}

void assert_generation(struct storage *s, struct host *h, uint64_t number, const char *passphrase)
{
    struct repo_key vm;
    struct repo *r;
    struct err e;

    assert_ok(open_repo(s, passphrase, NULL, REPO_SHARED, h, &r, &e), &e);
    vm = only_vm(r);
    for (size_t i = 0; i < h->count; i++) {
        int has = generation_has(r, &vm, number, h->disks[i].slot, &h->disks[i], &e);

        if (has < 0)
            fail_msg("generation %d: %s", (int)number, e.text);
        assert_int_equal(has, 1);
    }
    repo_close(r);
}

size_t count_objects(struct storage *s, const char *prefix, uint64_t *bytes)
{
    struct storage_list *list;
    struct storage_item item;
    size_t count = 0;
    struct err e;
    int more;

    assert_ok(storage_list(s, prefix, &list, &e), &e);
    if (bytes != NULL)
        *bytes = 0;
    while ((more = storage_next(list, &item, &e)) > 0) {
        count++;
        if (bytes != NULL)
            *bytes += item.size_bytes;
    }
    assert_int_equal(more, 0);
    storage_list_end(list);
    return count;
}
