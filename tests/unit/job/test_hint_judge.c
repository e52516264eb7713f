/* Each doubt about a kept snapshot's record means that everything is compared, and is named. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "receiver/host/chain.h"
#include "receiver/host/retained.h"
#include "receiver/host/snapshot.h"
#include "receiver/job/hint_judge.h"
#include "receiver/job/vm_job.h"

#define NAME "vmferry-0123456789abcdef-keep-00112233445566778899aabbccddeeff"

enum { LINKS_MAX = 6 };

/* A record and a view that fit each other; tests change one thing. */
struct fixture {
    struct retained r;
    struct store_head head;
    struct hint_view view;
    struct snapshot_node nodes[4];
    struct snapshot_tree tree;
    struct chain_link links[LINKS_MAX];
    struct chain_disk disk;
    struct hint_held held;
    char why[HINT_WHY_ROOM];
};

static struct chain_link link_of(unsigned number)
{
    static char files[LINKS_MAX][40], data[LINKS_MAX][40];

    snprintf(files[number], sizeof files[number], "/vmfs/volumes/a/d%u.vmdk", number);
    snprintf(data[number], sizeof data[number], "/vmfs/volumes/a/d%u-x.vmdk", number);
    return (struct chain_link){ .descriptor_path = files[number],
                                .data_path = data[number],
                                .type = "seSparse",
                                .cid = 100 + number };
}

/* d0 is the base; the kept snapshot froze d1, ours d3: d3, d2, d1, d0. */
static int set_up(void **state)
{
    struct fixture *x = calloc(1, sizeof *x);
    struct retained_disk *d;

    if (x == NULL)
        return -1;
    *state = x;
    x->r = (struct retained){ .generation = 5,
                              .booted = 1000000,
                              .uptime = 5000,
                              .vmid = 7,
                              .snapshot_id = 3,
                              .created = 1005000 };
    strcpy(x->r.store_id, "mirror:aa");
    strcpy(x->r.generation_id, "55");
    strcpy(x->r.host_uuid, "host");
    strcpy(x->r.vm_uuid, "52AA");
    strcpy(x->r.vmx, "[ds] w/w.vmx");
    strcpy(x->head.store_id, "mirror:aa");
    strcpy(x->head.generation_id, "55");
    x->head.generation = 5;
    x->view = (struct hint_view){ .host_uuid = "host",
                                  .booted = 1000003,
                                  .vm_uuid = "52aa",
                                  .vmx = "[ds] w/w.vmx",
                                  .vmid = 7,
                                  .head = &x->head };
    x->nodes[0] = (struct snapshot_node){ .id = 1, .name = "theirs", .depth = 0 };
    x->nodes[1] = (struct snapshot_node){ .id = 3, .name = NAME, .depth = 1, .created = 1005000 };
    x->nodes[2] = (struct snapshot_node){ .id = 4, .name = "above", .depth = 2 };
    x->nodes[3] = (struct snapshot_node){ .id = 9, .name = "ours", .depth = 3 };
    x->tree = (struct snapshot_tree){ .items = x->nodes, .count = 4, .current = 9 };
    for (unsigned i = 0; i < 4; i++)
        x->links[i] = link_of(3 - i);
    x->disk = (struct chain_disk){ .slot = "scsi0:0",
                                   .uuid = "60 00",
                                   .outcome = CHAIN_READ,
                                   .capacity_bytes = 1 << 20,
                                   .links = x->links,
                                   .link_count = 4,
                                   .leaf_path = "/vmfs/volumes/a/live.vmdk" };
    d = retained_add_disk(&x->r, NULL);
    strcpy(d->slot, "scsi0:0");
    strcpy(d->uuid, "60 00");
    d->capacity_bytes = 1 << 20;
    d->leaf_path = strdup("/vmfs/volumes/a/d2.vmdk");
    for (unsigned i = 0; i < 2; i++) {
        struct chain_link *l = retained_add_link(d, NULL), from = link_of(1 - i);

        *l = from;
        l->descriptor_path = strdup(from.descriptor_path);
        l->data_path = strdup(from.data_path);
    }
    memset(d->root.b, 7, sizeof d->root.b);
    x->held.trusted = true;
    memset(x->held.root.b, 7, sizeof x->held.root.b);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *x = *state;

    retained_free(&x->r);
    free(x);
    return 0;
}

static void expect_before(struct fixture *x, const char *reason)
{
    x->why[0] = 0;
    assert_int_equal(hint_doubt_before(&x->r, &x->view, x->why), reason != NULL);
    if (reason != NULL && strstr(x->why, reason) == NULL)
        fail_msg("\"%s\" in \"%s\"", reason, x->why);
}

static void expect_tree(struct fixture *x, const char *reason)
{
    x->why[0] = 0;
    assert_int_equal(hint_doubt_tree(&x->r, &x->tree, NAME, 9, x->why), reason != NULL);
    if (reason != NULL && strstr(x->why, reason) == NULL)
        fail_msg("\"%s\" in \"%s\"", reason, x->why);
}

static void expect_disk(struct fixture *x, enum hint_verdict verdict, const char *reason)
{
    size_t since = 99;

    x->why[0] = 0;
    assert_int_equal(hint_judge_disk(&x->r, &x->disk, &x->held, &since, x->why), verdict);
    if (verdict == HINT_GOOD)
        assert_int_equal(since, x->disk.link_count - 2);
    else if (strstr(x->why, reason) == NULL)
        fail_msg("\"%s\" in \"%s\"", reason, x->why);
}

/* ---- before ---- */

static void what_is_as_it_was_left_is_believed(void **state)
{
    struct fixture *x = *state;

    expect_before(x, NULL);
    expect_tree(x, NULL);
    expect_disk(x, HINT_GOOD, NULL);
}

static void another_store_or_generation_is_doubted(void **state)
{
    struct fixture *x = *state;

    strcpy(x->head.store_id, "mirror:ab");
    expect_before(x, "another store");
    strcpy(x->head.store_id, "mirror:aa");
    x->head.generation = 6;
    expect_before(x, "the store's newest generation is 6");
    x->head.generation = 4;
    expect_before(x, "the store's newest generation is 4");
    x->head.generation = 5;
    strcpy(x->head.generation_id, "56");
    expect_before(x, "the store's newest generation is");
}

static void another_vm_or_host_is_doubted(void **state)
{
    struct fixture *x = *state;

    x->view.host_uuid = "other";
    expect_before(x, "the VM is another or was moved");
    x->view.host_uuid = "host";
    x->view.vm_uuid = "52ab";
    expect_before(x, "the VM is another or was moved");
    x->view.vm_uuid = "52aa";
    x->view.vmx = "[ds] w/x.vmx";
    expect_before(x, "the VM is another or was moved");
    x->view.vmx = "[ds] w/w.vmx";
    x->view.vmid = 8;
    expect_before(x, "the VM was registered anew");
}

static void a_restart_of_the_host_is_doubted(void **state)
{
    struct fixture *x = *state;

    x->view.booted = x->r.booted + HINT_BOOT_SECONDS;
    expect_before(x, NULL);
    x->view.booted++;
    expect_before(x, "the host was restarted");
    x->view.booted = x->r.booted - HINT_BOOT_SECONDS - 1;
    expect_before(x, "the host was restarted");
    x->view.booted = 0;
    expect_before(x, "the host was restarted");
    /* Up for ten seconds when the record was made, restarted at once. */
    x->r.uptime = 10;
    x->view.booted = x->r.booted + 5;
    expect_before(x, NULL);
    x->view.booted++;
    expect_before(x, "the host was restarted");
    x->r.uptime = 0;
    x->view.booted = x->r.booted;
    expect_before(x, NULL);
    x->view.booted++;
    expect_before(x, "the host was restarted");
}

/* ---- the tree ---- */

static void a_snapshot_that_is_gone_or_another_is_doubted(void **state)
{
    struct fixture *x = *state;

    x->nodes[1].name = "renamed";
    expect_tree(x, "the snapshot is gone");
    x->nodes[1].name = NAME;
    x->nodes[1].id = 5;
    expect_tree(x, "another snapshot");
    x->nodes[1].id = 3;
    x->nodes[1].created++;
    expect_tree(x, "another snapshot");
    x->nodes[1].created--;
    x->nodes[2].name = NAME;
    expect_tree(x, "another snapshot");
    x->nodes[2].name = "above";
    x->tree.count = 0;
    expect_tree(x, "the snapshot is gone");
}

static void a_revert_is_doubted(void **state)
{
    struct fixture *x = *state;

    /* Ours stands on the user's, beside the kept one. */
    x->nodes[3].depth = 1;
    expect_tree(x, "the VM was reverted");
    x->nodes[3].depth = 2;
    expect_tree(x, NULL);
    x->tree.current = 4;
    expect_tree(x, "not the current one");
    x->tree.current = 0; /* an old host does not tell */
    expect_tree(x, NULL);
    x->nodes[3].id = 10;
    expect_tree(x, "not the current one");
}

/* ---- disks ---- */

static void a_disk_that_is_another_is_read_whole(void **state)
{
    struct fixture *x = *state;

    strcpy(x->disk.slot, "scsi0:1");
    expect_disk(x, HINT_WHOLE, "is new");
    strcpy(x->disk.slot, "scsi0:0");
    x->disk.outcome = CHAIN_READ_DIRECT;
    expect_disk(x, HINT_WHOLE, "is new");
    x->disk.outcome = CHAIN_READ;
    strcpy(x->disk.uuid, "60 01");
    expect_disk(x, HINT_WHOLE, "its uuid");
    strcpy(x->disk.uuid, "60 00");
    x->disk.capacity_bytes *= 2;
    expect_disk(x, HINT_WHOLE, "its size");
}

static void a_store_that_holds_something_else_is_read_whole(void **state)
{
    struct fixture *x = *state;

    x->held.trusted = false;
    expect_disk(x, HINT_WHOLE, "the store does not trust");
    x->held.trusted = true;
    x->held.root.b[15] ^= 1;
    expect_disk(x, HINT_WHOLE, "another content");
}

static void every_link_below_must_be_what_it_was(void **state)
{
    struct fixture *x = *state;

    for (unsigned i = 2; i < 4; i++) {
        struct chain_link was = x->links[i];

        x->links[i].cid++;
        expect_disk(x, HINT_DOUBT, "its chain is not what it was");
        x->links[i] = was;
        x->links[i].descriptor_path = "/vmfs/volumes/a/other.vmdk";
        expect_disk(x, HINT_DOUBT, "its chain is not what it was");
        x->links[i] = was;
        x->links[i].data_path = "/vmfs/volumes/a/other-x.vmdk";
        expect_disk(x, HINT_DOUBT, "its chain is not what it was");
        x->links[i] = was;
        strcpy(x->links[i].type, "vmfs");
        expect_disk(x, HINT_DOUBT, "its chain is not what it was");
        x->links[i] = was;
    }
    expect_disk(x, HINT_GOOD, NULL);
}

static void a_chain_that_does_not_stand_on_it_is_doubted(void **state)
{
    struct fixture *x = *state;

    /* Only the frozen one itself: nothing of ours above it. */
    x->disk.links = x->links + 2;
    x->disk.link_count = 2;
    expect_disk(x, HINT_DOUBT, "its chain is not what it was");
    x->disk.link_count = 1;
    expect_disk(x, HINT_DOUBT, "its chain is not what it was");
    x->disk.links = x->links;
    x->disk.link_count = 4;
    x->links[1].descriptor_path = "/vmfs/volumes/a/after-a-revert.vmdk";
    expect_disk(x, HINT_DOUBT, "the link above it is another");
    /* Exactly one above: that is the one that the record names. */
    x->links[1] = link_of(2);
    x->disk.links = x->links + 1;
    x->disk.link_count = 3;
    expect_disk(x, HINT_GOOD, NULL);
}

/* ---- after ---- */

/* The plan of one disk with these links of x. */
static struct chain_plan plan_of(struct fixture *x, struct chain_disk *d, struct chain_link *links,
                                 const unsigned *numbers, size_t count)
{
    *d = x->disk;
    for (size_t i = 0; i < count; i++)
        links[i] = link_of(numbers[i]);
    d->links = links;
    d->link_count = count;
    return (struct chain_plan){ .items = d, .count = 1 };
}

static void expect_after(struct fixture *x, const unsigned *numbers, size_t count, uint32_t new_cid,
                         bool removed, bool fits)
{
    struct chain_disk then_disk = x->disk, now_disk;
    struct chain_link links[LINKS_MAX];
    struct chain_plan then = { .items = &then_disk, .count = 1 };
    struct chain_plan now = plan_of(x, &now_disk, links, numbers, count);

    if (new_cid != 0)
        links[new_cid - 1].cid = 4711;
    assert_int_equal(hint_doubt_after(&then, &now, removed, x->why), !fits);
}

static void only_the_merged_link_may_be_gone(void **state)
{
    static const unsigned same[] = { 3, 2, 1, 0 }, merged_down[] = { 3, 1, 0 },
                          merged_up[] = { 3, 2, 0 }, two[] = { 3, 0 }, turned[] = { 3, 0, 1 },
                          longer[] = { 4, 3, 2, 1, 0 }, tip_gone[] = { 2, 1, 0 };
    struct fixture *x = *state;

    expect_after(x, same, 4, 0, false, true);
    expect_after(x, same, 4, 0, true, true);  /* the removed one was not below this disk */
    expect_after(x, same, 4, 2, true, false); /* a content id moved without a merge */
    expect_after(x, merged_down, 3, 0, true, true);
    expect_after(x, merged_down, 3, 2, true, true);  /* the one that took the grains */
    expect_after(x, merged_down, 3, 3, true, false); /* the base has nothing to do with it */
    expect_after(x, merged_down, 3, 0, false, false);
    expect_after(x, merged_up, 3, 2, true, true);
    expect_after(x, tip_gone, 3, 1, true, true);
    expect_after(x, tip_gone, 3, 2, true, false);
    expect_after(x, two, 2, 0, true, false);
    expect_after(x, turned, 3, 0, true, false);
    expect_after(x, longer, 5, 0, true, false);
}

static void a_disk_or_live_link_that_is_another_is_doubted(void **state)
{
    static const unsigned numbers[] = { 3, 1, 0 };
    struct fixture *x = *state;
    struct chain_disk then_disk = x->disk, d;
    struct chain_link links[LINKS_MAX];
    struct chain_plan then = { .items = &then_disk, .count = 1 };
    struct chain_plan now = plan_of(x, &d, links, numbers, 3);

    assert_false(hint_doubt_after(&then, &now, true, x->why));
    d.leaf_path = "/vmfs/volumes/a/reverted.vmdk";
    assert_true(hint_doubt_after(&then, &now, true, x->why));
    d.leaf_path = NULL;
    assert_true(hint_doubt_after(&then, &now, true, x->why));
    d.leaf_path = then_disk.leaf_path;
    d.capacity_bytes++;
    assert_true(hint_doubt_after(&then, &now, true, x->why));
    d.capacity_bytes--;
    strcpy(d.uuid, "61");
    assert_true(hint_doubt_after(&then, &now, true, x->why));
    strcpy(d.uuid, then_disk.uuid);
    d.outcome = CHAIN_SKIPPED;
    assert_true(hint_doubt_after(&then, &now, true, x->why));
    d.outcome = CHAIN_READ;
    now.count = 0;
    assert_true(hint_doubt_after(&then, &now, true, x->why));
}

static void every_seventh_generation_is_an_audit(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 30; n++)
        assert_int_equal(hint_audit_is_due(n), n == 7 || n == 14 || n == 21 || n == 28);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_is_as_it_was_left_is_believed),
        T(another_store_or_generation_is_doubted),
        T(another_vm_or_host_is_doubted),
        T(a_restart_of_the_host_is_doubted),
        T(a_snapshot_that_is_gone_or_another_is_doubted),
        T(a_revert_is_doubted),
        T(a_disk_that_is_another_is_read_whole),
        T(a_store_that_holds_something_else_is_read_whole),
        T(every_link_below_must_be_what_it_was),
        T(a_chain_that_does_not_stand_on_it_is_doubted),
        T(only_the_merged_link_may_be_gone),
        T(a_disk_or_live_link_that_is_another_is_doubted),
        cmocka_unit_test(every_seventh_generation_is_an_audit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
