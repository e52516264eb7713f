/*
 * Generations go in and come out again: deduplicated, encrypted or not, over cut runs, changed
 * shapes, damaged blocks and lost caches.
 */
#include "tests/unit/cmocka_all.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/block/source.h"
#include "protocol/stream/sink.h"
#include "receiver/repo/document.h"
#include "receiver/repo/generation.h"
#include "receiver/repo/repo_private.h"
#include "receiver/storage/storage_directory.h"
#include "receiver/storage/storage_memory.h"
#include "tests/unit/repo/fixture.h"


/* Blocks 0, 3 and 4 of twelve and a short one at the end. */
static struct disk *add_disk(struct fixture *f)
{
    struct disk *d = host_add(&f->h, "scsi0:0", UUID_A, 12 * BLOCK + 512);

    disk_set(d, 0, 1);
    disk_set(d, 3, 2);
    disk_set(d, 4, 3);
    disk_set(d, 12, 4);
    return d;
}

static void assert_backed_up(struct fixture *f, struct backup *b, uint64_t number)
{
    assert_ok(back_up(f->s, &f->h, b, &f->e), &f->e);
    assert_int_equal(b->number, number);
    assert_generation(f->s, &f->h, number, b->passphrase);
}

static void generations_come_out_as_they_went_in(void **state)
{
    struct fixture *f = *state;
    struct disk *d = add_disk(f), first;
    struct backup one = { 0 }, two = { 0 }, three = { 0 };
    struct repo_key vm;
    struct repo *r;

    make_repo(f->s, NULL);
    assert_backed_up(f, &one, 1);
    assert_int_equal(one.walk.sent, 4);
    assert_int_equal(one.changed, 3 * BLOCK + 512);
    disk_copy(&first, d);

    disk_set(d, 3, 9);
    disk_set(d, 4, 0);
    disk_set(d, 7, 1); /* the same as block 0: stored already */
    assert_backed_up(f, &two, 2);
    assert_int_equal(two.walk.sent, 2);
    assert_int_equal(two.changed, 3 * BLOCK);
    assert_int_equal(two.fresh, BLOCK);

    assert_backed_up(f, &three, 3); /* nothing changed */
    assert_int_equal(three.walk.sent + three.changed + three.stored, 0);
    assert_int_equal(count_objects(f->s, "generations/", NULL), 3);
    assert_int_equal(count_objects(f->s, "partial/", NULL), 0);

    assert_ok(open_repo(f->s, NULL, NULL, REPO_SHARED, &f->h, &r, &f->e), &f->e);
    vm = only_vm(r);
    assert_int_equal(generation_has(r, &vm, 1, "scsi0:0", &first, &f->e), 1);
    assert_int_equal(generation_has(r, &vm, 1, "scsi0:0", d, &f->e), 0);
    repo_close(r);
    free(first.data);
    assert_string_equal(f->h.warnings, "");
}

/* Whether a plain text stands anywhere in any object. */
static bool is_anywhere(struct storage *s, const void *text, size_t count)
{
    struct storage_list *list;
    struct storage_item item;
    bool found = false;
    struct err e;

    assert_ok(storage_list(s, "", &list, &e), &e);
    while (storage_next(list, &item, &e) > 0) {
        struct bytes b = { 0 };

        assert_ok(storage_load(s, item.name, &b, (size_t)100 << 20, &e), &e);
        found = found || memmem(b.data, b.count, text, count) != NULL;
        bytes_free(&b);
    }
    storage_list_end(list);
    return found;
}

static void an_encrypted_one_shows_nothing(void **state)
{
    struct fixture *f = *state;
    struct disk *d = add_disk(f);
    struct backup b = { .passphrase = "long enough" }, raw = { .passphrase = "long enough" };
    struct repo *r;

    make_repo(f->s, "long enough");
    assert_backed_up(f, &b, 1);
    disk_set(d, 5, 77);
    raw.walk.raw = true;
    assert_backed_up(f, &raw, 2);
    assert_false(is_anywhere(f->s, "web01", 5));
    assert_false(is_anywhere(f->s, d->data + 5 * BLOCK, 64));
    assert_false(is_anywhere(f->s, UUID_A, 20));

    assert_int_equal(open_repo(f->s, "wrong", NULL, REPO_SHARED, NULL, &r, &f->e), -1);
    assert_int_equal(f->e.code, ERR_AUTH);
    assert_int_equal(open_repo(f->s, NULL, NULL, REPO_SHARED, NULL, &r, &f->e), -1);
    assert_int_equal(f->e.code, ERR_USAGE);
}

static void two_vms_share_blocks(void **state)
{
    struct fixture *f = *state;
    struct backup one = { 0 }, two = { 0 };
    struct host other;
    uint64_t before, after;

    add_disk(f);
    make_repo(f->s, NULL);
    assert_ok(back_up(f->s, &f->h, &one, &f->e), &f->e);
    count_objects(f->s, "packs/", &before);
    host_new(&other);
    other.vm.uuid = "564d0000-0000-1111-2222-333344445555";
    other.vm.name = "web02";
    disk_set(host_add(&other, "scsi0:3", UUID_B, 4 * BLOCK), 2, 2);
    assert_ok(back_up(f->s, &other, &two, &f->e), &f->e);
    assert_int_equal(two.number, 1);
    assert_int_equal(two.walk.sent, 1);
    assert_int_equal(two.fresh, 0);
    assert_true(two.stored > 0 && two.stored < 300); /* a node: its digests are this disk's own */
    count_objects(f->s, "packs/", &after);
    assert_true(after - before < 500);
    host_free(&other);
}

/* A run that is cut at block 8, and goes on. */
static void a_cut_run_goes_on(void **state)
{
    struct fixture *f = *state;
    struct disk *d = add_disk(f);
    struct backup cut = { .walk.stop_at = 8 }, on = { 0 }, cut2 = { .walk.stop_at = 11 },
                  on2 = { 0 };

    disk_set(d, 9, 33);
    make_repo(f->s, NULL);
    assert_int_equal(back_up(f->s, &f->h, &cut, &f->e), -1);
    assert_int_equal(f->e.code, ERR_NETWORK);
    assert_int_equal(count_objects(f->s, "generations/", NULL), 0);
    assert_int_equal(count_objects(f->s, "partial/", NULL), 1);
    assert_backed_up(f, &on, 1);
    assert_true(on.walk.resumed);
    assert_int_equal(on.walk.sent, 2); /* 9 and 12 */
    assert_int_equal(on.changed, 4 * BLOCK + 512);
    assert_int_equal(count_objects(f->s, "partial/", NULL), 0);

    /* The same over a parent; one more block changes between the two. */
    disk_set(d, 1, 50);
    disk_set(d, 9, 51);
    disk_set(d, 3, 0);
    assert_int_equal(back_up(f->s, &f->h, &cut2, &f->e), -1);
    disk_set(d, 9, 52);
    assert_backed_up(f, &on2, 2);
    assert_true(on2.walk.resumed);
    assert_int_equal(on2.walk.sent, 1);
    assert_int_equal(on2.changed, 3 * BLOCK);
}

/* As before a change hint: the VM has left the state that the cut run stored. */
static void what_a_cut_run_left_can_be_forgotten(void **state)
{
    struct fixture *f = *state;
    struct disk *d = add_disk(f), was;
    struct backup one = { 0 }, cut = { .walk.stop_at = 11 }, two = { .walk.unstage = true },
                  three = { 0 };

    make_repo(f->s, NULL);
    assert_backed_up(f, &one, 1);
    assert_false(one.walk.held);
    disk_copy(&was, d);
    disk_set(d, 1, 50);
    disk_set(d, 9, 51);
    assert_int_equal(back_up(f->s, &f->h, &cut, &f->e), -1);
    assert_true(cut.walk.held);
    memcpy(d->data, was.data, d->capacity);
    disk_set(d, 2, 52);
    assert_backed_up(f, &two, 2);
    assert_true(two.walk.resumed);
    assert_int_equal(two.walk.sent, 1);
    assert_int_equal(two.changed, BLOCK);
    assert_true(digest_equal(&two.walk.held_root, &cut.walk.held_root));
    assert_backed_up(f, &three, 3);
    assert_false(digest_equal(&three.walk.held_root, &cut.walk.held_root));
    free(was.data);
}

static void a_run_without_commit_is_held_whole(void **state)
{
    struct fixture *f = *state;
    struct backup one = { .stop_before_commit = true }, two = { 0 };

    add_disk(f);
    make_repo(f->s, NULL);
    assert_ok(back_up(f->s, &f->h, &one, &f->e), &f->e);
    assert_int_equal(count_objects(f->s, "generations/", NULL), 0);
    assert_backed_up(f, &two, 1);
    assert_true(two.walk.resumed);
    assert_int_equal(two.walk.sent, 0);
}

static void disks_grow_and_shrink(void **state)
{
    struct fixture *f = *state;
    struct disk *d = add_disk(f);
    struct backup one = { 0 }, two = { 0 }, three = { 0 }, four = { 0 };

    make_repo(f->s, NULL);
    assert_backed_up(f, &one, 1);
    disk_grow(d, 1100 * (uint64_t)BLOCK); /* another level, and the short block is no longer */
    disk_set(d, 1099, 8);
    assert_backed_up(f, &two, 2);
    assert_int_equal(two.walk.sent, 2); /* 12, which is longer now, and the last */
    d->capacity = 600 * (uint64_t)BLOCK;
    assert_backed_up(f, &three, 3);
    assert_int_equal(three.walk.sent, 0);
    d->capacity = 512;
    assert_backed_up(f, &four, 4);
    assert_int_equal(four.walk.sent, 1);
}

/* 3,000 blocks: three leaves, of which one changes. */
static void unchanged_subtrees_are_stored_once(void **state)
{
    struct fixture *f = *state;
    struct disk *d = host_add(&f->h, "scsi0:0", UUID_A, 3000 * (uint64_t)BLOCK);
    struct backup one = { 0 }, two = { 0 }, zeros = { 0 };

    for (unsigned i = 0; i < 3000; i += 7)
        disk_set(d, i, i % 5 + 1);
    make_repo(f->s, NULL);
    assert_backed_up(f, &one, 1);
    assert_int_equal(one.fresh, 5 * BLOCK);
    disk_set(d, 1500, 200);
    assert_backed_up(f, &two, 2);
    assert_int_equal(two.walk.sent, 1);
    /* One block, one leaf, one top. */
    assert_in_range(two.stored, 8 << 10, 40 << 10);
    memset(d->data, 0, d->capacity);
    assert_backed_up(f, &zeros, 3);
    assert_int_equal(zeros.stored, 0);
}

static int note_range(void *context, uint64_t first, uint64_t count, struct err *e)
{
    char *text = context;

    (void)e;
    snprintf(text + strlen(text), 100, "%d+%d ", (int)first, (int)count);
    return 0;
}

static int note_block(void *context, uint64_t first, const struct repo_cell *cells, size_t count,
                      struct err *e)
{
    (void)cells;
    return note_range(context, first, count, e);
}

static int note_node(void *context, unsigned level, uint64_t first, const struct repo_cell *cell,
                     struct err *e)
{
    char *text = context;

    (void)cell;
    (void)e;
    snprintf(text + strlen(text), 100, "n%u@%d ", level, (int)first);
    return first == 1024 ? 1 : 0;
}

static void differences_and_walks(void **state)
{
    struct fixture *f = *state;
    struct disk *d = host_add(&f->h, "scsi0:0", UUID_A, 3000 * (uint64_t)BLOCK);
    struct repo_walk walk = { .node = note_node, .block = note_block };
    struct repo_generation a, b;
    struct backup one = { 0 }, two = { 0 };
    char text[1000] = "", walked[1000] = "";
    struct repo_key vm;
    struct repo *r;

    disk_set(d, 10, 1);
    disk_set(d, 1030, 2);
    disk_set(d, 2999, 3);
    make_repo(f->s, NULL);
    assert_backed_up(f, &one, 1);
    disk_set(d, 10, 0);
    disk_set(d, 1023, 4);
    disk_set(d, 1024, 4);
    disk_set(d, 1025, 5);
    assert_backed_up(f, &two, 2);
    assert_ok(open_repo(f->s, NULL, NULL, REPO_SHARED, &f->h, &r, &f->e), &f->e);
    vm = only_vm(r);
    assert_ok(repo_generation_load(r, &vm, 1, &a, &f->e), &f->e);
    assert_ok(repo_generation_load(r, &vm, 2, &b, &f->e), &f->e);
    assert_int_equal(b.parent, 1);
    assert_ok(repo_disk_diff(r, &a.disks[0], &b.disks[0], note_range, text, &f->e), &f->e);
    assert_string_equal(text, "10+1 1023+3 ");
    walk.context = walked;
    assert_ok(repo_disk_walk(r, &b.disks[0], &walk, &f->e), &f->e);
    assert_string_equal(walked, "n2@0 n1@0 1023+1 n1@1024 n1@2048 2999+1 ");
    repo_generation_free(&a);
    repo_generation_free(&b);
    repo_close(r);
}

static void disks_are_known_by_uuid_then_slot(void **state)
{
    struct fixture *f = *state;
    struct disk *a = add_disk(f), *b = host_add(&f->h, "scsi0:1", UUID_B, 4 * BLOCK);
    struct backup one = { 0 }, moved = { 0 }, excluded = { 0 }, back = { 0 };
    struct repo_generation g;
    struct repo_key vm;
    struct repo *r;

    disk_set(b, 2, 20);
    make_repo(f->s, NULL);
    assert_backed_up(f, &one, 1);
    snprintf(a->slot, sizeof a->slot, "scsi0:1");
    snprintf(b->slot, sizeof b->slot, "scsi0:0");
    assert_backed_up(f, &moved, 2);
    assert_int_equal(moved.walk.sent, 0);

    b->included = false; /* stays as it was */
    assert_ok(back_up(f->s, &f->h, &excluded, &f->e), &f->e);
    assert_generation(f->s, &f->h, 3, NULL);
    assert_ok(open_repo(f->s, NULL, NULL, REPO_SHARED, &f->h, &r, &f->e), &f->e);
    vm = only_vm(r);
    assert_ok(repo_generation_load(r, &vm, 3, &g, &f->e), &f->e);
    assert_int_equal(g.disks[1].state, REPO_DISK_KEPT);
    assert_int_equal(g.disks[1].of, 2);
    repo_generation_free(&g);
    repo_close(r);
    b->included = true;
    assert_backed_up(f, &back, 4);
    assert_int_equal(back.walk.sent, 0);
}

static void one_run_of_a_vm_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct repo_vm vm = { "h", "h", "u", "p", "n", false };
    struct repo_disk disk = { "scsi0:0", "", "", BLOCK, true };
    struct repo_run_options o = { 0 };
    struct repo_run *run, *second;
    struct repo *a, *b;

    make_repo(f->s, NULL);
    assert_ok(open_repo(f->s, NULL, NULL, REPO_SHARED, NULL, &a, &f->e), &f->e);
    assert_ok(open_repo(f->s, NULL, NULL, REPO_SHARED, NULL, &b, &f->e), &f->e);
    assert_ok(repo_run_begin(&run, a, &vm, &o, &disk, 1, &f->e), &f->e);
    assert_int_equal(repo_run_begin(&second, b, &vm, &o, &disk, 1, &f->e), -1);
    assert_int_equal(f->e.code, ERR_BUSY);
    vm.uuid = "another";
    assert_ok(repo_run_begin(&second, b, &vm, &o, &disk, 1, &f->e), &f->e);
    repo_run_end(second);
    repo_run_end(run);
    repo_close(a);
    assert_int_equal(open_repo(f->s, NULL, NULL, REPO_EXCLUSIVE, NULL, &a, &f->e), -1);
    assert_int_equal(f->e.code, ERR_BUSY);
    repo_close(b);
    assert_ok(open_repo(f->s, NULL, NULL, REPO_EXCLUSIVE, NULL, &a, &f->e), &f->e);
    repo_close(a);
}

/* Lose the pack of blocks and its index: the next backup brings back what is still there. */
static void lost_blocks_come_back_with_the_next_backup(void **state)
{
    struct fixture *f = *state;
    struct disk *d = add_disk(f);
    struct backup one = { 0 }, two = { 0 };
    struct storage_list *list;
    struct storage_item item;
    char blocks[STORAGE_NAME_ROOM] = "";
    uint64_t largest = 0;
    struct repo_key vm;
    struct repo *r;

    make_repo(f->s, NULL);
    assert_backed_up(f, &one, 1);
    assert_ok(storage_list(f->s, "packs/", &list, &f->e), &f->e);
    while (storage_next(list, &item, &f->e) > 0)
        if (item.size_bytes > largest) {
            largest = item.size_bytes;
            snprintf(blocks, sizeof blocks, "%s", item.name);
        }
    storage_list_end(list);
    assert_ok(storage_remove(f->s, blocks, &f->e), &f->e);
    memcpy(blocks, "index", 5);
    assert_ok(storage_remove(f->s, blocks, &f->e), &f->e);

    assert_ok(open_repo(f->s, NULL, NULL, REPO_SHARED, &f->h, &r, &f->e), &f->e);
    vm = only_vm(r);
    assert_int_equal(generation_has(r, &vm, 1, "scsi0:0", d, &f->e), -1);
    assert_int_equal(f->e.code, ERR_CORRUPT);
    repo_close(r);
    assert_backed_up(f, &two, 2);
    assert_int_equal(two.walk.sent, 4);
    assert_int_equal(two.changed, 0);
    assert_generation(f->s, &f->h, 1, NULL);
}

/* The same with a node: its blocks are read and stored again. */
static void a_lost_node_is_no_end(void **state)
{
    struct fixture *f = *state;
    struct backup one = { 0 }, two = { 0 };
    struct storage_list *list;
    struct storage_item item;

    add_disk(f);
    make_repo(f->s, NULL);
    assert_backed_up(f, &one, 1);
    assert_ok(storage_list(f->s, "packs/", &list, &f->e), &f->e);
    while (storage_next(list, &item, &f->e) > 0)
        if (item.size_bytes < BLOCK) {
            char index[STORAGE_NAME_ROOM + 16];

            snprintf(index, sizeof index, "index%s", item.name + 5);
            assert_ok(storage_remove(f->s, item.name, &f->e), &f->e);
            assert_ok(storage_remove(f->s, index, &f->e), &f->e);
        }
    storage_list_end(list);
    assert_backed_up(f, &two, 2);
    assert_int_equal(two.walk.sent, 4);
    assert_int_equal(two.fresh, 0);
    assert_non_null(strstr(f->h.warnings, "missing"));
    assert_generation(f->s, &f->h, 1, NULL);
}

static void numbers_are_never_given_twice(void **state)
{
    struct fixture *f = *state;
    struct bytes nothing = { 0 };
    struct backup one = { 0 }, two = { 0 }, three = { 0 };
    object_name name;
    struct repo_key vm;
    struct repo *r;

    add_disk(f);
    make_repo(f->s, NULL);
    assert_backed_up(f, &one, 1);
    assert_backed_up(f, &two, 2);
    assert_ok(open_repo(f->s, NULL, NULL, REPO_EXCLUSIVE, &f->h, &r, &f->e), &f->e);
    vm = only_vm(r);
    name_of_generation(name, "retired", &vm, 2);
    assert_ok(document_put(f->s, r->vault, DOCUMENT_RETIRED, name, &nothing, &f->e), &f->e);
    name_of_generation(name, "generations", &vm, 2);
    assert_ok(storage_remove(f->s, name, &f->e), &f->e);
    repo_close(r);
    assert_backed_up(f, &three, 3);
    assert_int_equal(count_objects(f->s, "retired/", NULL), 0);
}

/* 62 TB with one block at its end. */
static void a_sparse_giant_costs_nothing(void **state)
{
    struct fixture *f = *state;
    struct repo_vm vm = { "h", "h", "u", "p", "n", false };
    struct repo_disk disk = { "scsi0:0", "", "", (uint64_t)62 << 40, true };
    struct repo_disk_facts disk_facts = { .read_path = "agent" };
    struct repo_run_facts facts = { .outcome = "ok", .disks = &disk_facts };
    struct repo_run_options o = { .block_bytes = 128 << 10 };
    uint64_t far = ((uint64_t)62 << 40) - (128 << 10), bytes;
    struct repo_committed made;
    struct source *source;
    struct extent x;
    struct repo_run *run;
    struct tree *tree;
    struct sink *s;
    struct digest root;
    struct repo_generation g;
    uint8_t *block = calloc(1, 128 << 10), *got = calloc(1, 128 << 10);
    struct sink_block b = { .offset_bytes = far,
                            .plain = block,
                            .plain_bytes = 128 << 10,
                            .packed = block,
                            .packed_bytes = 128 << 10 };
    struct sink_identity before, after;
    struct repo *r;

    block[77] = 1;
    make_repo(f->s, NULL);
    assert_ok(open_repo(f->s, NULL, NULL, REPO_SHARED, NULL, &r, &f->e), &f->e);
    assert_ok(repo_run_begin(&run, r, &vm, &o, &disk, 1, &f->e), &f->e);
    assert_ok(repo_run_sink(run, 0, &s, &f->e), &f->e);
    b.digest = digest_of(&s->secret, block, 128 << 10);
    assert_ok(tree_new(&tree, &s->secret, (uint64_t)62 << 40, 128 << 10, &f->e), &f->e);
    assert_ok(tree_add_zeros(tree, far >> 17, &f->e), &f->e);
    assert_ok(tree_add(tree, &b.digest, 1, &f->e), &f->e);
    assert_ok(tree_root(tree, &root, &f->e), &f->e);
    tree_free(tree);
    assert_ok(s->ops->zero(s, 0, far, &f->e), &f->e);
    /* As a reader of images does it: what the store made of the block goes with it. */
    assert_ok(s->ahead->identify(s, block, 128 << 10, &before, &f->e), &f->e);
    assert_false(before.known);
    b.identity = &before;
    assert_ok(s->ops->data(s, &b, &f->e), &f->e);
    assert_ok(s->ahead->identify(s, block, 128 << 10, &after, &f->e), &f->e);
    assert_true(after.known);
    assert_memory_equal(after.id, before.id, sizeof after.id);
    assert_ok(s->ops->end(s, &root, &f->e), &f->e);
    s->ops->close(s);
    assert_ok(repo_run_commit(run, &facts, &made, &f->e), &f->e);
    repo_run_end(run);
    count_objects(f->s, "packs/", &bytes);
    assert_true(bytes < 140 << 10);

    {
        struct repo_key key = only_vm(r);

        assert_ok(repo_generation_load(r, &key, 1, &g, &f->e), &f->e);
    }
    assert_ok(repo_disk_open(&source, r, &g.disks[0], &f->e), &f->e);
    assert_ok(source_extent_at(source, 0, &x, &f->e), &f->e);
    assert_int_equal(x.kind, EXTENT_ZERO);
    assert_true(x.length_bytes > (uint64_t)1 << 40); /* zeros are one run */
    assert_ok(source_read(source, far, got, 128 << 10, &f->e), &f->e);
    assert_memory_equal(got, block, 128 << 10);
    source_close(source);
    repo_generation_free(&g);
    repo_close(r);
    free(block);
    free(got);
}

enum { VMS = 4 };

struct worker {
    struct repo *r;
    struct host h;
    struct backup b;
    struct err e;
    int rc;
};

static void *work(void *context)
{
    struct worker *w = context;

    w->rc = back_up_in(w->r, &w->h, &w->b, &w->e);
    return NULL;
}

/* Runs of several VMs in one process, with half of their blocks in common. */
static void several_vms_at_once(void **state)
{
    struct fixture *f = *state;
    struct worker w[VMS] = { { NULL } };
    pthread_t threads[VMS];
    char uuids[VMS][8];
    uint64_t fresh = 0;
    struct repo *r;

    make_repo(f->s, "together");
    assert_ok(open_repo(f->s, "together", NULL, REPO_SHARED, NULL, &r, &f->e), &f->e);
    for (unsigned i = 0; i < VMS; i++) {
        struct disk *d;

        host_new(&w[i].h);
        snprintf(uuids[i], sizeof uuids[i], "vm-%u", i);
        w[i].h.vm.uuid = uuids[i];
        d = host_add(&w[i].h, "scsi0:0", UUID_A, 1500 * (uint64_t)BLOCK);
        for (unsigned k = 0; k < 400; k++)
            disk_set(d, k * 3, k % 2 ? 1000 + k : 10000 * (i + 1) + k);
        w[i].r = r;
    }
    for (unsigned i = 0; i < VMS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &w[i]), 0);
    for (unsigned i = 0; i < VMS; i++)
        pthread_join(threads[i], NULL);
    repo_close(r);
    assert_ok(open_repo(f->s, "together", NULL, REPO_SHARED, NULL, &r, &f->e), &f->e);
    for (unsigned i = 0; i < VMS; i++) {
        struct repo_key vm;

        assert_ok(w[i].rc, &w[i].e);
        fresh += w[i].b.fresh;
        assert_ok(vault_vm_key(r->vault, w[i].h.vm.host_uuid, uuids[i], NULL, &vm, &f->e), &f->e);
        assert_int_equal(generation_has(r, &vm, 1, "scsi0:0", &w[i].h.disks[0], &f->e), 1);
        host_free(&w[i].h);
    }
    assert_int_equal(fresh, (200 * VMS + 200) * (uint64_t)BLOCK); /* each block once */
    repo_close(r);
}

static void a_repository_in_a_folder(void **state)
{
    struct fixture *f = *state;
    struct disk *d = add_disk(f);
    struct backup one = { 0 }, two = { 0 };
    struct storage *s;
    char path[128], cache[128];
    struct repo *r;

    snprintf(path, sizeof path, "%s/repo", f->h.dir);
    snprintf(cache, sizeof cache, "%s/cache", f->h.dir);
    one.cache_dir = two.cache_dir = cache;
    assert_ok(storage_directory_create(&s, path, &f->e), &f->e);
    make_repo(s, NULL);
    assert_ok(back_up(s, &f->h, &one, &f->e), &f->e);
    disk_set(d, 1, 30);
    assert_ok(back_up(s, &f->h, &two, &f->e), &f->e);
    assert_generation(s, &f->h, 2, NULL);
    storage_close(s);
    assert_int_equal(storage_directory_create(&s, path, &f->e), -1);
    assert_int_equal(f->e.code, ERR_REFUSED);
    assert_ok(storage_directory_open(&s, path, &f->e), &f->e);
    assert_generation(s, &f->h, 2, NULL);

    /* Exchanged for an empty folder, as when a disk is not mounted. */
    storage_close(s);
    assert_int_equal(rename(path, cache), -1);
    strcat(cache, "-old");
    assert_int_equal(rename(path, cache), 0);
    assert_int_equal(storage_directory_open(&s, path, &f->e), -1);
    assert_int_equal(f->e.code, ERR_NOT_FOUND);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_ok(storage_directory_open(&s, path, &f->e), &f->e);
    assert_int_equal(open_repo(s, NULL, NULL, REPO_SHARED, NULL, &r, &f->e), -1);
    assert_int_equal(f->e.code, ERR_NOT_FOUND);
    assert_int_equal(count_objects(s, "", NULL), 0);
    assert_int_equal(rmdir(path), 0); /* nothing was made in it */
    storage_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(generations_come_out_as_they_went_in, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(an_encrypted_one_shows_nothing, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(two_vms_share_blocks, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(a_cut_run_goes_on, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(what_a_cut_run_left_can_be_forgotten, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(a_run_without_commit_is_held_whole, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(disks_grow_and_shrink, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(unchanged_subtrees_are_stored_once, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(differences_and_walks, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(disks_are_known_by_uuid_then_slot, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(one_run_of_a_vm_at_a_time, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(lost_blocks_come_back_with_the_next_backup, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(a_lost_node_is_no_end, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(numbers_are_never_given_twice, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(a_sparse_giant_costs_nothing, fixture_set_up,
                                        fixture_tear_down),
        cmocka_unit_test_setup_teardown(several_vms_at_once, fixture_set_up, fixture_tear_down),
        cmocka_unit_test_setup_teardown(a_repository_in_a_folder, fixture_set_up,
                                        fixture_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
