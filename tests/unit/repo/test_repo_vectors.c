/* Repositories that a second implementation wrote from FORMAT.md (tests/data/repo) are read and
 * gone on with, and our encoders make the same bytes. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/block/source.h"
#include "protocol/stream/sink.h"
#include "receiver/repo/document.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/generation.h"
#include "receiver/repo/repo_private.h"
#include "receiver/repo/repo_verified.h"
#include "receiver/storage/storage_directory.h"
#include "receiver/storage/storage_memory.h"
#include "tests/unit/repo/fixture.h"

enum { OBJECTS_PLAIN = 10, OBJECTS_SEALED = 11 };

/* Opening makes lock files, so work on a copy. */
static struct storage *copy_of(const char *folder, size_t objects)
{
    struct storage *from, *to;
    struct storage_list *list;
    struct storage_item item;
    struct err e;

    assert_ok(storage_directory_open(&from, folder, &e), &e);
    assert_int_equal(count_objects(from, "", NULL), objects);
    assert_ok(storage_memory_new(&to, &e), &e);
    assert_ok(storage_list(from, "", &list, &e), &e);
    while (storage_next(list, &item, &e) > 0) {
        struct bytes b = { 0 };

        assert_ok(storage_load(from, item.name, &b, 1 << 20, &e), &e);
        assert_ok(storage_put(to, item.name, b.data, b.count, &e), &e);
        bytes_free(&b);
    }
    storage_list_end(list);
    storage_close(from);
    return to;
}

/* The VM as the vectors have it. */
static void make_host(struct host *h)
{
    struct disk *d;

    host_new(h);
    h->vm = (struct mirror_vm){ .host_uuid = "host-uuid",
                                .host_name = "esx1",
                                .uuid = "vm-uuid",
                                .vmx_path = "[ds] v/v.vmx",
                                .name = "v\u00e9ctor" };
    d = host_add(h, "scsi0:0", "60 00", 3 * BLOCK + 512);
    for (size_t i = 0; i < BLOCK; i++)
        d->data[i] = (uint8_t)(i % 251);
    memset(d->data + 2 * BLOCK, 0x5a, BLOCK);
    memset(d->data + 3 * BLOCK, 'e', 512);
}

static void check_manifest(struct repo *r, const struct repo_key *vm)
{
    struct bytes file = { 0 };
    struct repo_generation g;
    struct err e;

    assert_ok(repo_generation_load(r, vm, 1, &g, &e), &e);
    assert_string_equal(g.vm_name, "v\u00e9ctor");
    assert_string_equal(g.snapshot, "vmferry-1-run-2");
    assert_string_equal(g.program, "vector 1");
    assert_int_equal(g.committed, g.time + 5);
    assert_int_equal(g.disk_count, 1);
    assert_int_equal(g.disks[0].levels, 1);
    assert_int_equal(g.disks[0].milliseconds, 42);
    assert_int_equal(g.disks[0].of, 1);
    assert_int_equal(g.file_count, 1);
    assert_string_equal(g.files[0].name, "v.vmx");
    assert_ok(repo_file_read(r, &g.files[0], &file, &e), &e);
    assert_memory_equal(file.data, "displayName = \"vector\"\n", 23);
    bytes_free(&file);
    repo_generation_free(&g);
}

static void check_disk(struct repo *r, const struct repo_key *vm, const struct disk *d)
{
    struct repo_generation g;
    struct source *source;
    uint8_t *got = malloc(d->capacity);
    struct err e;

    assert_non_null(got);
    assert_ok(repo_generation_load(r, vm, 1, &g, &e), &e);
    assert_ok(repo_disk_open(&source, r, &g.disks[0], &e), &e);
    assert_ok(source_read(source, 0, got, d->capacity, &e), &e);
    assert_memory_equal(got, d->data, d->capacity);
    source_close(source);
    repo_generation_free(&g);
    free(got);
}

static void check_partial(struct repo *r, const char *name)
{
    struct partial p;
    struct err e;

    assert_ok(partial_get(r, name, &p, &e), &e);
    assert_int_equal(p.spine.position, 2);
    assert_int_equal(p.spine.level[0].count, 2);
    assert_false(cell_is_zero(&p.spine.level[0].cells[0]));
    assert_true(cell_is_zero(&p.spine.level[0].cells[1]));
    partial_free(&p);
}

static void check_verified(struct repo *r, const struct repo_key *vm)
{
    struct repo_key pack;
    struct repo_verified v;
    struct repo_generation g;
    struct err e;

    memset(pack.b, 0xab, sizeof pack.b);
    assert_ok(repo_generation_load(r, vm, 1, &g, &e), &e);
    assert_ok(repo_verified_load(r, &v, &e), &e);
    assert_int_equal(v.count, 2);
    assert_int_equal(repo_verified_time(&v, &pack, 0), g.time + 9);
    assert_int_equal(repo_verified_time(&v, vm, 1), g.time + 7);
    assert_int_equal(repo_verified_time(&v, vm, 2), 0);
    repo_verified_free(&v);
    repo_generation_free(&g);
}

/* Entries of both packs are whole, codecs and seals included. */
static void check_packs(struct repo *r)
{
    struct pack_walk walk = { .read_data = true };
    struct storage_list *list;
    struct storage_item item;
    struct repo_key key;
    uint64_t size;
    struct err e;

    assert_ok(storage_list(r->storage, "packs/", &list, &e), &e);
    while (storage_next(list, &item, &e) > 0) {
        assert_true(name_is_pack(item.name, &key));
        assert_ok(pack_walk(r->storage, r->vault, &key, &walk, &size, &e), &e);
        assert_int_equal(size, item.size_bytes);
    }
    storage_list_end(list);
}

static void check_repository(const char *folder, const char *passphrase, size_t objects)
{
    struct storage *s = copy_of(folder, objects);
    struct backup b = { .passphrase = passphrase };
    struct repo_facts facts;
    struct storage_list *list;
    struct storage_item item;
    struct repo_key vm;
    struct repo *r;
    struct host h;
    struct err e;

    make_host(&h);
    assert_ok(open_repo(s, passphrase, NULL, REPO_SHARED, &h, &r, &e), &e);
    repo_facts(r, &facts);
    assert_int_equal(facts.epoch, 4);
    assert_int_equal(facts.entries, 5);
    assert_int_equal(facts.encrypted, passphrase != NULL);
    vm = only_vm(r);
    check_manifest(r, &vm);
    check_disk(r, &vm, &h.disks[0]);
    check_packs(r);
    check_verified(r, &vm);
    assert_ok(storage_list(s, "partial/", &list, &e), &e);
    assert_int_equal(storage_next(list, &item, &e), 1);
    check_partial(r, item.name);
    storage_list_end(list);
    repo_close(r);

    /* The VM's key, its disk and its digests are ours too: nothing is sent. */
    assert_ok(back_up(s, &h, &b, &e), &e);
    assert_int_equal(b.number, 7);
    assert_true(b.walk.resumed);
    assert_int_equal(b.walk.sent, 0);
    assert_string_equal(h.warnings, "");
    storage_close(s);
    host_free(&h);
}

static void a_plain_repository_is_read_and_gone_on_with(void **state)
{
    (void)state;
    check_repository(TEST_DATA "/repo/good-plain", NULL, OBJECTS_PLAIN);
}

static void a_sealed_repository_is_read_and_gone_on_with(void **state)
{
    (void)state;
    check_repository(TEST_DATA "/repo/good-sealed", "vector", OBJECTS_SEALED);
}

static void assert_same_object(struct repo *r, enum document_type type, const char *name,
                               const struct bytes *body)
{
    struct bytes made = { 0 }, there = { 0 };
    struct err e;

    assert_ok(document_encode(r->vault, type, name, body->data, body->count, &made, &e), &e);
    assert_ok(storage_load(r->storage, name, &there, 1 << 20, &e), &e);
    assert_int_equal(made.count, there.count);
    assert_memory_equal(made.data, there.data, made.count);
    bytes_free(&made);
    bytes_free(&there);
}

/* Read, and write again. */
static void write_again(struct repo *r, const char *name)
{
    struct bytes body = { .ceiling = 1 << 20 };
    struct repo_key key;
    uint64_t number;
    uint32_t disk, sequence;
    struct fields f;
    struct err e;

    fields_write(&f, &body, &e);
    if (name_is_index(name, &key)) {
        struct pack_index x;

        assert_ok(pack_index_get(r->storage, r->vault, &key, &x, &e), &e);
        assert_ok(pack_index_encode(&x, &body, &e), &e);
        assert_same_object(r, DOCUMENT_INDEX, name, &body);
        pack_index_free(&x);
    } else if (name_is_generation(name, "generations", &key, &number)) {
        struct repo_generation g;

        assert_ok(repo_generation_load(r, &key, number, &g, &e), &e);
        generation_fields(&f, &g);
        assert_ok(fields_done(&f), &e);
        assert_same_object(r, DOCUMENT_GENERATION, name, &body);
        repo_generation_free(&g);
    } else if (name_is_partial(name, &key, &number, &disk, &sequence)) {
        struct partial p;

        assert_ok(partial_get(r, name, &p, &e), &e);
        partial_fields(&f, &p);
        assert_ok(fields_done(&f), &e);
        assert_same_object(r, DOCUMENT_PARTIAL, name, &body);
        partial_free(&p);
    } else if (strcmp(name, NAME_CONFIG) == 0) {
        config_fields(&f, &r->config);
        assert_ok(fields_done(&f), &e);
        assert_same_object(r, DOCUMENT_CONFIG, name, &body);
    }
    bytes_free(&body);
}

static void our_documents_are_the_same_bytes(void **state)
{
    struct storage *s = copy_of(TEST_DATA "/repo/good-plain", OBJECTS_PLAIN);
    struct storage_list *list;
    struct storage_item item;
    struct repo *r;
    struct err e;

    (void)state;
    assert_ok(open_repo(s, NULL, NULL, REPO_SHARED, NULL, &r, &e), &e);
    assert_ok(storage_list(s, "", &list, &e), &e);
    while (storage_next(list, &item, &e) > 0)
        write_again(r, item.name);
    storage_list_end(list);
    repo_close(r);
    storage_close(s);
}

/* --- what a host may ask for --- */

enum { ASKED_BLOCKS = 3, ASKED_WORDS = 3 + 3 * ASKED_BLOCKS };

/* A line of asking.txt, in words. */
struct asking {
    char line[2048];
    char *words[ASKED_WORDS];
};

static void asking_load(struct asking *a, const char *repository)
{
    FILE *f = fopen(TEST_DATA "/repo/asking.txt", "r");
    bool found = false;

    assert_non_null(f);
    while (!found && fgets(a->line, sizeof a->line, f) != NULL)
        found = strncmp(a->line, repository, strlen(repository)) == 0;
    fclose(f);
    assert_true(found);
    for (size_t i = 0; i < ASKED_WORDS; i++) {
        a->words[i] = strtok(i == 0 ? a->line : NULL, " \n");
        assert_non_null(a->words[i]);
    }
}

static const size_t asked_bytes[ASKED_BLOCKS] = { BLOCK, BLOCK, 512 };

struct question {
    struct sink_question q;
    uint8_t ask_id[ASK_ID_BYTES];
    struct repo_id id; /* the answer */
};

static void question_of(const struct asking *a, size_t block, struct question *out)
{
    char *const *words = a->words + 3 + 3 * block;

    assert_true(hex_to(words[0], sizeof out->id.b, out->id.b));
    assert_true(hex_to(words[1], sizeof out->ask_id, out->ask_id));
    assert_true(hex_to(words[2], DIGEST_BYTES, out->q.digest.b));
    out->q.offset_bytes = 0;
    out->q.plain_bytes = asked_bytes[block];
    out->q.ask_id = out->ask_id;
}

static bool is_known(struct ask_table *t, struct repo *r, const struct digest_secret *secret,
                     const struct question *q)
{
    static uint8_t scratch[BLOCK];
    struct sink_answer answer = { .known = false };
    struct err e;

    assert_ok(ask_table_answer(t, r, secret, &q->q, scratch, &answer, &e), &e);
    if (answer.known)
        assert_memory_equal(answer.token, q->id.b, sizeof answer.token);
    return answer.known;
}

/* The right question is answered; one that is not quite right is lacking, and so is any other. */
static void check_questions(struct ask_table *t, struct repo *r, const struct asking *a)
{
    struct digest_secret secret;

    for (size_t i = 0; i < sizeof secret.b; i++)
        secret.b[i] = (uint8_t)(i * 7 + 5);
    for (size_t i = 0; i < ASKED_BLOCKS; i++) {
        struct question q, other;

        question_of(a, i, &q);
        assert_true(is_known(t, r, &secret, &q));
        q.q.plain_bytes--;
        assert_false(is_known(t, r, &secret, &q));
        q.q.plain_bytes++;
        q.q.digest.b[3] ^= 1;
        assert_false(is_known(t, r, &secret, &q));
        q.q.digest.b[3] ^= 1;
        q.ask_id[31] ^= 1; /* the same head: only the bytes tell */
        assert_false(is_known(t, r, &secret, &q));
        question_of(a, (i + 1) % ASKED_BLOCKS, &other);
        memcpy(q.ask_id, other.ask_id, sizeof q.ask_id);
        assert_false(is_known(t, r, &secret, &q));
    }
}

static void check_asking(const char *folder, const char *passphrase, size_t objects)
{
    struct storage *s = copy_of(folder, objects);
    struct ask_table *t, *again, *foreign;
    uint8_t key[ASK_KEY_BYTES], wanted[ASK_KEY_BYTES];
    struct digest_secret secret = { { 0 } };
    struct asking a;
    struct question q;
    struct storage_list *list;
    struct storage_item item;
    struct repo *r;
    struct err e;

    asking_load(&a, strrchr(folder, '/') + 1);
    assert_ok(open_repo(s, passphrase, NULL, REPO_SHARED, NULL, &r, &e), &e);
    assert_true(hex_to(a.words[2], sizeof wanted, wanted));
    assert_ok(vault_ask_key(r->vault, a.words[1], key, &e), &e);
    assert_memory_equal(key, wanted, sizeof key);
    assert_ok(ask_table_of(&t, r, a.words[1], &e), &e);
    assert_int_equal(ask_table_count(t), ASKED_BLOCKS);
    assert_ok(ask_table_of(&again, r, a.words[1], &e), &e);
    assert_ptr_equal(again, t);
    check_questions(t, r, &a);

    /* Another host has a key and a table of its own, in which nothing of this one is. */
    assert_ok(vault_ask_key(r->vault, "host-uuid2", key, &e), &e);
    assert_memory_not_equal(key, wanted, sizeof key);
    assert_ok(ask_table_of(&foreign, r, "host-uuid2", &e), &e);
    assert_int_equal(ask_table_count(foreign), 0);
    question_of(&a, 0, &q);
    assert_false(is_known(foreign, r, &secret, &q));

    /* What has gone from the packs is lacking, whatever the table says. */
    assert_ok(storage_list(s, "packs/ab/", &list, &e), &e);
    assert_int_equal(storage_next(list, &item, &e), 1);
    storage_list_end(list);
    assert_ok(storage_remove(s, item.name, &e), &e);
    for (size_t i = 0; i < sizeof secret.b; i++)
        secret.b[i] = (uint8_t)(i * 7 + 5);
    for (size_t i = 0; i < ASKED_BLOCKS; i++) {
        question_of(&a, i, &q);
        assert_false(is_known(t, r, &secret, &q));
    }
    repo_close(r);
    storage_close(s);
}

static void a_host_may_ask_for_its_own_blocks(void **state)
{
    (void)state;
    check_asking(TEST_DATA "/repo/good-plain", NULL, OBJECTS_PLAIN);
    check_asking(TEST_DATA "/repo/good-sealed", "vector", OBJECTS_SEALED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_repository_is_read_and_gone_on_with),
        cmocka_unit_test(a_sealed_repository_is_read_and_gone_on_with),
        cmocka_unit_test(a_host_may_ask_for_its_own_blocks),
        cmocka_unit_test(our_documents_are_the_same_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
