#include "receiver/host/chain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/vmdk/descriptor.h"
#include "receiver/host/chain_links.h"
#include "receiver/host/datastores.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/host/snapshot.h"

/* What one call works with. */
struct planner {
    struct host *h;
    const struct vm *vm; /* as it was before the snapshot */
    const struct datastore_list *stores;
    enum vm_power power; /* now */
    enum chain_way way;
    bool with_snapshot;
    bool any_tip; /* whatever lies right below the live link is what the snapshot froze */
};

static void disk_free(struct chain_disk *d)
{
    chain_links_free(d);
    free(d->leaf_path);
}

void chain_plan_free(struct chain_plan *p)
{
    for (size_t i = 0; i < p->count; i++)
        disk_free(&p->items[i]);
    free(p->items);
    *p = (struct chain_plan){ 0 };
}

/* The first disk that forbids snapshots of the whole VM, or NULL. */
static const struct vm_disk *forbids_snapshots(const struct vm *vm)
{
    for (size_t i = 0; i < vm->disks.count; i++)
        if (vm->disks.items[i].kind == VM_DISK_RDM_PHYSICAL || vm->disks.items[i].shared)
            return &vm->disks.items[i];
    return NULL;
}

int chain_way_of(const struct vm *vm, enum chain_way *way, char *why, size_t room, struct err *e)
{
    const struct vm_disk *bar = forbids_snapshots(vm);
    const char *what = bar == NULL   ? ""
                       : bar->shared ? "is shared with other VMs"
                                     : "is a physical raw device mapping";

    why[0] = '\0';
    *way = CHAIN_BY_SNAPSHOT;
    if (vm->power == VM_SUSPENDED) {
        *way = CHAIN_DIRECTLY;
        snprintf(
            why, room,
            "VM %s is suspended: its disks are read as they are, without a snapshot; it must not "
            "be resumed meanwhile",
            vm->name);
        return 0;
    }
    if (bar == NULL)
        return 0;
    if (vm->power == VM_ON)
        return err_set(e, ERR_UNSUPPORTED,
                       "disk %s of VM %s %s, so the host takes no snapshot; such a VM is read only "
                       "while it is off",
                       bar->slot, vm->name, what);
    *way = CHAIN_DIRECTLY;
    snprintf(
        why, room,
        "disk %s of VM %s %s, so no snapshot is possible: the disks are read as they are, and the "
        "VM cannot be powered on meanwhile",
        bar->slot, vm->name, what);
    return 0;
}

/* The links from tip down; the host says that `below` lies below it. */
static int plan_links(const struct planner *p, const struct vm_disk *disk, const char *tip,
                      size_t parents_above, enum chain_outcome outcome, struct chain_disk *out,
                      struct err *e)
{
    struct chain_wish wish = {
        .host = p->h,
        .stores = p->stores,
        .disk = disk,
        .tip = tip,
        .outcome = outcome,
    };

    if (disk->parent_count > parents_above) {
        wish.below = (const char *const *)disk->parents + parents_above;
        wish.below_count = disk->parent_count - parents_above;
    }
    return chain_links_read(&wish, out, e);
}

/* The live link must be a child of exactly the link that we are going to read. */
static int check_leaf(const struct planner *p, const struct vm_disk *disk, struct chain_disk *out,
                      struct err *e)
{
    char absolute[DATASTORE_PATH_MAX], parent[DATASTORE_PATH_MAX];
    const struct chain_link *tip = &out->links[0];
    struct descriptor *leaf = NULL;
    int rc = -1;

    if (chain_descriptor_read(p->h, p->stores, disk->file, absolute, &leaf, e) != 0)
        goto out;
    if (leaf->parent_hint == NULL ||
        datastore_resolve(p->stores, absolute, leaf->parent_hint, parent, e) != 0 ||
        strcmp(parent, tip->descriptor_path) != 0) {
        err_set(e, ERR_SOURCE, "the live link %s does not stand on %s", disk->file,
                tip->descriptor_path);
        goto out;
    }
    if (leaf->parent_cid != tip->cid) {
        err_set(e, ERR_SOURCE, "the live link %s expects content id %08x below it, but %s has %08x",
                disk->file, leaf->parent_cid, tip->descriptor_path, tip->cid);
        goto out;
    }
    if (leaf->capacity_bytes != disk->capacity_bytes) {
        err_set(e, ERR_SOURCE, "the live link %s has another size than its disk", disk->file);
        goto out;
    }
    out->leaf_path = strdup(absolute);
    rc = out->leaf_path != NULL ? 0 : err_sys(e, "planning what to read");

out:
    descriptor_free(leaf);
    return rc == 0 ? 0 : err_add(e, "disk %s", out->slot);
}

/* A disk that our snapshot covers, or is going to. */
static int plan_covered(const struct planner *p, const struct vm_disk *disk,
                        const struct vm_disk *before, struct chain_disk *out, struct err *e)
{
    if (!p->with_snapshot)
        return plan_links(p, disk, disk->file, 0, CHAIN_READ, out, e);
    if (disk->parent_count == 0 || (!p->any_tip && strcmp(disk->parents[0], before->file) != 0))
        return err_set(
            e, ERR_SOURCE,
            "disk %s is %s now, which does not stand on %s: our snapshot is not directly "
            "below it",
            out->slot, disk->file, before->file);
    if (plan_links(p, disk, disk->parents[0], 1, CHAIN_READ, out, e) != 0)
        return -1;
    return out->outcome == CHAIN_READ ? check_leaf(p, disk, out, e) : 0;
}

static int plan_direct(const struct planner *p, const struct vm_disk *disk, const char *warning,
                       struct chain_disk *out, struct err *e)
{
    if (plan_links(p, disk, disk->file, 0, CHAIN_READ_DIRECT, out, e) != 0)
        return -1;
    if (out->outcome == CHAIN_READ_DIRECT)
        err_set(&out->reason, ERR_NONE, "disk %s %s", out->slot, warning);
    return 0;
}

static int plan_disk(const struct planner *p, const struct vm_disk *disk,
                     const struct vm_disk *before, struct chain_disk *out, struct err *e)
{
    memcpy(out->slot, disk->slot, sizeof out->slot);
    out->capacity_bytes = disk->capacity_bytes;
    snprintf(out->uuid, sizeof out->uuid, "%s", disk->uuid);
    switch (disk->kind) {
    case VM_DISK_RDM_VIRTUAL:
        return chain_skip(out, "is a virtual raw device mapping, which is not read");
    case VM_DISK_RDM_PHYSICAL:
        return chain_skip(out, "is a physical raw device mapping, which cannot be read as a file");
    case VM_DISK_OTHER:
        return chain_refuse(out, disk->file, disk->backing, "is no file on a datastore");
    case VM_DISK_FILE:
        break;
    }
    if (p->way == CHAIN_DIRECTLY)
        return plan_direct(
            p, disk,
            p->power == VM_SUSPENDED
                ? "is read as it is while the VM is suspended"
                : "is read without a snapshot; the VM cannot be powered on meanwhile",
            out, e);
    if (!disk->independent)
        return plan_covered(p, disk, before, out, e);
    if (p->power == VM_ON)
        return chain_skip(out,
                          "is independent, so snapshots leave it out and the running VM holds it; "
                          "exclude it, or run while the VM is off");
    return plan_direct(
        p, disk, "is independent and read as it is; the VM cannot be powered on meanwhile", out, e);
}

static const struct vm_disk *disk_at(const struct vm_disks *list, const char *slot)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i].slot, slot) == 0)
            return &list->items[i];
    return NULL;
}

static int plan_disks(const struct planner *p, const struct vm_disks *now, struct chain_plan *out,
                      struct err *e)
{
    if (now->count != p->vm->disks.count)
        return err_set(e, ERR_SOURCE, "a disk was added or removed just now; run again");
    out->items = calloc(now->count + 1, sizeof *out->items);
    if (out->items == NULL)
        return err_sys(e, "planning what to read");
    for (size_t i = 0; i < now->count; i++) {
        const struct vm_disk *before = disk_at(&p->vm->disks, now->items[i].slot);

        if (before == NULL || before->capacity_bytes != now->items[i].capacity_bytes)
            return err_set(e, ERR_SOURCE, "disk %s was added, moved or resized just now; run again",
                           now->items[i].slot);
        out->count++;
        if (plan_disk(p, &now->items[i], before, &out->items[i], e) != 0)
            return -1;
    }
    return 0;
}

static int plan(struct planner *p, struct chain_plan *out, struct err *e)
{
    struct host *h = p->h;
    const struct vm *vm = p->vm;
    struct vm_disks disks = { 0 };
    struct vm now = { 0 };
    char why[300];
    int rc = -1;

    *out = (struct chain_plan){ 0 };
    if (host_vm_same(h, vm, e) != 0 || host_vm(h, vm->vmid, &now, e) != 0 ||
        host_vm_disks(h, vm->vmid, &disks, e) != 0)
        goto out;
    p->power = now.power;
    if (!p->with_snapshot) {
        if (now.power != vm->power) {
            err_set(e, ERR_SOURCE, "it was powered on or off just now; run again");
            goto out;
        }
        if (chain_way_of(vm, &p->way, why, sizeof why, e) != 0)
            goto out;
    }
    out->before = !p->with_snapshot && p->way == CHAIN_BY_SNAPSHOT;
    if (plan_disks(p, &disks, out, e) != 0)
        goto out;
    rc = 0;

out:
    vm_free(&now);
    vm_disks_free(&disks);
    if (rc != 0)
        chain_plan_free(out);
    return rc == 0 ? 0 : err_add(e, "VM %s", vm->name);
}

int chain_plan_read(struct host *h, const struct vm *vm, const struct snapshot *snapshot,
                    const struct datastore_list *stores, struct chain_plan *out, struct err *e)
{
    struct planner p = { .h = h, .vm = vm, .stores = stores, .with_snapshot = snapshot != NULL };

    return plan(&p, out, e);
}

int chain_plan_anew(struct host *h, const struct vm *vm, const struct datastore_list *stores,
                    struct chain_plan *out, struct err *e)
{
    struct planner p = {
        .h = h, .vm = vm, .stores = stores, .with_snapshot = true, .any_tip = true
    };

    return plan(&p, out, e);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* What of a disk is not as it was, or NULL. */
static const char *difference(const struct chain_disk *a, const struct chain_disk *b)
{
    if (strcmp(a->slot, b->slot) != 0)
        return "the order of its disks";
    if (a->outcome != b->outcome)
        return "whether it can be read";
    if (a->capacity_bytes != b->capacity_bytes)
        return "its capacity";
    if (a->link_count != b->link_count)
        return "the number of its links";
    for (size_t i = 0; i < a->link_count; i++) {
        if (a->links[i].cid != b->links[i].cid)
            return "a content id";
        if (strcmp(a->links[i].data_path, b->links[i].data_path) != 0 ||
            strcmp(a->links[i].descriptor_path, b->links[i].descriptor_path) != 0)
            return "the files that hold it";
    }
    if (!same_text(a->leaf_path, b->leaf_path))
        return "the live link above it";
    return NULL;
}

int chain_recheck(struct host *h, const struct vm *vm, const struct snapshot *snapshot,
                  const struct datastore_list *stores, const struct chain_plan *plan, struct err *e)
{
    struct chain_plan now;
    int rc = 0;

    if (snapshot != NULL && snapshot_check(h, snapshot, e) != 0)
        return -1;
    if (chain_plan_read(h, vm, snapshot, stores, &now, e) != 0)
        return -1;
    if (now.count != plan->count)
        rc = err_set(e, ERR_SOURCE, "VM %s has other disks than at the start", vm->name);
    for (size_t i = 0; i < plan->count && rc == 0; i++) {
        const char *what = difference(&plan->items[i], &now.items[i]);

        if (what != NULL)
            rc = err_set(e, ERR_SOURCE, "disk %s of VM %s changed while it was read: %s",
                         plan->items[i].slot, vm->name, what);
    }
    chain_plan_free(&now);
    return rc;
}
