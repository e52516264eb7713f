#include "receiver/host/chain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/vmdk/descriptor.h"
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
};

static void disk_free(struct chain_disk *d)
{
    free(d->descriptor_path);
    free(d->flat_path);
    free(d->descriptor_text);
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

static int refuse(struct chain_disk *out, const char *path, const char *type, const char *what)
{
    out->outcome = CHAIN_REFUSED;
    err_set(&out->reason, ERR_UNSUPPORTED, "disk %s: the link %s (%s) %s", out->slot, path, type,
            what);
    return 0;
}

static int skip(struct chain_disk *out, const char *what)
{
    out->outcome = CHAIN_SKIPPED;
    err_set(&out->reason, ERR_UNSUPPORTED, "disk %s %s", out->slot, what);
    return 0;
}

static int copy_text(char **out, const char *text, size_t bytes, struct err *e)
{
    *out = malloc(bytes + 1);
    if (*out == NULL)
        return err_sys(e, "planning what to read");
    memcpy(*out, text, bytes);
    (*out)[bytes] = '\0';
    return 0;
}

/* Read and parse the descriptor at "[ds] …" or absolute path; absolute gets where it lies. */
static int read_descriptor(const struct planner *p, const char *path, char *absolute,
                           struct descriptor **out, struct host_answer *text, struct err *e)
{
    if (datastore_absolute(p->stores, path, absolute, e) != 0 ||
        host_read_file(p->h, absolute, DESCRIPTOR_BYTES_MAX, text, e) != 0) {
        if (e->code == ERR_NOT_FOUND) /* nobody misnamed it: the host's own parts do not agree */
            e->code = ERR_SOURCE;
        return -1;
    }
    if (descriptor_read(out, text->out, text->out_bytes, e) != 0) {
        host_answer_free(text);
        if (e->code == ERR_FORMAT || e->code == ERR_CORRUPT)
            e->code = ERR_SOURCE;
        return err_add(e, "%s", path);
    }
    return 0;
}

/* All names of a plain base; some are only in documents. */
static bool is_plain_base(const struct descriptor *d)
{
    static const char *const types[] = { "vmfs", "vmfsThin", "vmfsPreallocated",
                                         "vmfsEagerZeroedThick", "vmfsThick" };
    bool known = false;

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        known |= descriptor_word_is(d->create_type, types[i]);
    return known && d->extent_count == 1 && strcmp(d->extents[0].type, "VMFS") == 0;
}

/* Why a descriptor of a plain base must not be read all the same, or NULL. */
static const char *trap_in(const struct descriptor *d)
{
    const char *sector = descriptor_ddb(d, "logicalSectorSize");
    const char *name = d->extents[0].name;
    size_t bytes = strlen(name);

    if (d->encrypted || descriptor_ddb(d, "KMFilters") != NULL)
        return "is encrypted: its file holds no plain data";
    if (d->native_snapshot)
        return "is a snapshot of the storage array, not a file";
    if (descriptor_unfinished(d) != NULL)
        return "is in the middle of a consolidation, or linked to the storage array; let the host "
               "consolidate the VM's disks first";
    if (d->parent_cid != DESCRIPTOR_CID_NONE || d->parent_hint != NULL)
        return "has a parent, although its type is that of a base";
    if (sector != NULL && strcmp(sector, "512") != 0)
        return "has sectors of another size than 512 bytes";
    if (d->extents[0].access != ACCESS_RW || d->extents[0].has_offset)
        return "has an extent that is not simply readable and writable";
    if (strpbrk(name, "/\\") != NULL || bytes < 11 || strcmp(name + bytes - 10, "-flat.vmdk") != 0)
        return "keeps its data in something else than a -flat file beside it";
    return NULL;
}

/* Fill in what there is to read of a base whose descriptor is d. */
static int take_base(const struct planner *p, const struct vm_disk *disk,
                     const struct descriptor *d, const struct host_answer *text,
                     const char *absolute, struct chain_disk *out, struct err *e)
{
    const char *uuid = descriptor_ddb(d, "uuid");
    const char *adapter = descriptor_ddb(d, "adapterType");
    const char *content = descriptor_ddb(d, "longContentID");
    const char *thin = descriptor_ddb(d, "thinProvisioned");
    char flat[DATASTORE_PATH_MAX];

    if (d->capacity_bytes != disk->capacity_bytes)
        return err_set(e, ERR_SOURCE, "disk %s has %llu bytes, but its descriptor %s says %llu",
                       out->slot, (unsigned long long)disk->capacity_bytes, absolute,
                       (unsigned long long)d->capacity_bytes);
    if (datastore_resolve(p->stores, absolute, d->extents[0].name, flat, e) != 0)
        return err_add(e, "disk %s", out->slot);
    out->cid = d->cid;
    out->thin = thin != NULL && strcmp(thin, "1") == 0;
    snprintf(out->uuid, sizeof out->uuid, "%.63s", uuid != NULL ? uuid : disk->uuid);
    snprintf(out->adapter, sizeof out->adapter, "%.23s", adapter != NULL ? adapter : "lsilogic");
    snprintf(out->content_id, sizeof out->content_id, "%.39s", content != NULL ? content : "");
    out->descriptor_bytes = text->out_bytes;
    if (copy_text(&out->descriptor_path, absolute, strlen(absolute), e) != 0 ||
        copy_text(&out->flat_path, flat, strlen(flat), e) != 0 ||
        copy_text(&out->descriptor_text, text->out, text->out_bytes, e) != 0)
        return -1;
    return 0;
}

/* path is the link to read; it must be a plain flat base.  *base gets its descriptor if it is read.
 */
static int plan_link(const struct planner *p, const struct vm_disk *disk, const char *path,
                     enum chain_outcome outcome, struct chain_disk *out, struct err *e)
{
    char absolute[DATASTORE_PATH_MAX];
    struct host_answer text = { 0 };
    struct descriptor *d = NULL;
    const char *trap;
    int rc;

    if (read_descriptor(p, path, absolute, &d, &text, e) != 0)
        return err_add(e, "disk %s", out->slot);
    out->outcome = outcome;
    /* A snapshot of a device mapping puts an ordinary delta on top of it: only the base tells. */
    if (descriptor_word_is(d->create_type, "vmfsRawDeviceMap") ||
        descriptor_word_is(d->create_type, "vmfsPassthroughRawDeviceMap"))
        rc = skip(out, "is a raw device mapping, which is not read");
    else if (!is_plain_base(d))
        rc = refuse(out, path, d->create_type, "is of a form that is not read yet");
    else if ((trap = trap_in(d)) != NULL)
        rc = refuse(out, path, d->create_type, trap);
    else
        rc = take_base(p, disk, d, &text, absolute, out, e);
    descriptor_free(d);
    host_answer_free(&text);
    return rc;
}

/* The live link must be a child of exactly the link that we are going to read. */
static int check_leaf(const struct planner *p, const struct vm_disk *disk, struct chain_disk *out,
                      struct err *e)
{
    char absolute[DATASTORE_PATH_MAX], parent[DATASTORE_PATH_MAX];
    struct host_answer text = { 0 };
    struct descriptor *leaf = NULL;
    int rc = -1;

    if (read_descriptor(p, disk->file, absolute, &leaf, &text, e) != 0)
        goto out;
    if (leaf->parent_hint == NULL ||
        datastore_resolve(p->stores, absolute, leaf->parent_hint, parent, e) != 0 ||
        strcmp(parent, out->descriptor_path) != 0) {
        err_set(e, ERR_SOURCE, "the live link %s does not stand on %s", disk->file,
                out->descriptor_path);
        goto out;
    }
    if (leaf->parent_cid != out->cid) {
        err_set(e, ERR_SOURCE, "the live link %s expects content id %08x below it, but %s has %08x",
                disk->file, leaf->parent_cid, out->descriptor_path, out->cid);
        goto out;
    }
    if (leaf->capacity_bytes != disk->capacity_bytes) {
        err_set(e, ERR_SOURCE, "the live link %s has another size than its disk", disk->file);
        goto out;
    }
    rc = copy_text(&out->leaf_path, absolute, strlen(absolute), e);

out:
    descriptor_free(leaf);
    host_answer_free(&text);
    return rc == 0 ? 0 : err_add(e, "disk %s", out->slot);
}

/* Name the first link that stands in the way: above the base, below our snapshot. */
static int refuse_link(const struct planner *p, const struct vm_disk *disk, const char *path,
                       struct chain_disk *out, struct err *e)
{
    char absolute[DATASTORE_PATH_MAX], type[48];
    struct host_answer text = { 0 };
    struct descriptor *d = NULL;
    struct err ignored;

    snprintf(type, sizeof type, "%.40s", disk->backing);
    if (read_descriptor(p, path, absolute, &d, &text, &ignored) == 0)
        snprintf(type, sizeof type, "%.40s", d->create_type);
    else if (ignored.code == ERR_NETWORK)
        return err_set(e, ERR_NETWORK, "%s", ignored.text);
    descriptor_free(d);
    host_answer_free(&text);
    return refuse(
        out, path, type,
        "belongs to an older snapshot or a linked clone; chains of more than one link below "
        "our snapshot are not read yet");
}

/* A disk that our snapshot covers, or is going to. */
static int plan_covered(const struct planner *p, const struct vm_disk *disk,
                        const struct vm_disk *before, struct chain_disk *out, struct err *e)
{
    if (!p->with_snapshot) {
        if (disk->parent_count > 0)
            return refuse_link(p, disk, disk->file, out, e);
        return plan_link(p, disk, disk->file, CHAIN_READ, out, e);
    }
    if (disk->parent_count == 0 || strcmp(disk->parents[0], before->file) != 0)
        return err_set(
            e, ERR_SOURCE,
            "disk %s is %s now, which does not stand on %s: our snapshot is not directly "
            "below it",
            out->slot, disk->file, before->file);
    if (disk->parent_count > 1)
        return refuse_link(p, disk, disk->parents[0], out, e);
    if (plan_link(p, disk, disk->parents[0], CHAIN_READ, out, e) != 0)
        return -1;
    return out->outcome == CHAIN_READ ? check_leaf(p, disk, out, e) : 0;
}

static int plan_direct(const struct planner *p, const struct vm_disk *disk, const char *warning,
                       struct chain_disk *out, struct err *e)
{
    if (disk->parent_count > 0)
        return refuse_link(p, disk, disk->file, out, e);
    if (plan_link(p, disk, disk->file, CHAIN_READ_DIRECT, out, e) != 0)
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
        return skip(out, "is a virtual raw device mapping, which is not read");
    case VM_DISK_RDM_PHYSICAL:
        return skip(out, "is a physical raw device mapping, which cannot be read as a file");
    case VM_DISK_OTHER:
        return refuse(out, disk->file, disk->backing, "is no file on a datastore");
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
        return skip(out, "is independent, so snapshots leave it out and the running VM holds it; "
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

int chain_plan_read(struct host *h, const struct vm *vm, const struct snapshot *snapshot,
                    const struct datastore_list *stores, struct chain_plan *out, struct err *e)
{
    struct planner p = { .h = h, .vm = vm, .stores = stores, .with_snapshot = snapshot != NULL };
    struct vm_disks disks = { 0 };
    struct vm now = { 0 };
    char why[300];
    int rc = -1;

    *out = (struct chain_plan){ 0 };
    if (host_vm_same(h, vm, e) != 0 || host_vm(h, vm->vmid, &now, e) != 0 ||
        host_vm_disks(h, vm->vmid, &disks, e) != 0)
        goto out;
    p.power = now.power;
    if (snapshot == NULL) {
        if (now.power != vm->power) {
            err_set(e, ERR_SOURCE, "it was powered on or off just now; run again");
            goto out;
        }
        if (chain_way_of(vm, &p.way, why, sizeof why, e) != 0)
            goto out;
    }
    out->before = snapshot == NULL && p.way == CHAIN_BY_SNAPSHOT;
    if (plan_disks(&p, &disks, out, e) != 0)
        goto out;
    rc = 0;

out:
    vm_free(&now);
    vm_disks_free(&disks);
    if (rc != 0)
        chain_plan_free(out);
    return rc == 0 ? 0 : err_add(e, "VM %s", vm->name);
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
    if (a->cid != b->cid)
        return "its content id";
    if (!same_text(a->flat_path, b->flat_path) ||
        !same_text(a->descriptor_path, b->descriptor_path))
        return "the file that holds it";
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
