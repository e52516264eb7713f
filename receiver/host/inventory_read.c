/* Reading what vim-cmd prints about VMs; the contract is inventory.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/host/inventory.h"
#include "receiver/host/vimdump.h"

enum { WEAK_ROWS_MAX = 64, NAME_BYTES_MAX = 1024 };

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The number at the start of text; 0 is no VM's id. */
static unsigned read_id(const char *text, size_t *digits)
{
    unsigned id = 0;
    size_t n = 0;

    while (is_digit(text[n]) && n < 9) {
        id = id * 10 + (unsigned)(text[n] - '0');
        n++;
    }
    *digits = is_digit(text[n]) ? 0 : n;
    return *digits == 0 ? 0 : id;
}

/* Does the row, behind its id, go on as: name, "[datastore] path.vmx", guest, "vmx-N"? */
static bool row_is_whole(const char *row, size_t bytes)
{
    const char *end = row + bytes;

    for (const char *at = row; at + 4 < end; at++) {
        const char *p = at;

        if (memcmp(at, "vmx-", 4) != 0 || !is_digit(at[4]) || !is_blank(at[-1]))
            continue;
        for (p = at + 4; p < end && is_digit(*p); p++)
            ;
        if (p < end && !is_blank(*p))
            continue;
        /* Backwards: blanks, the guest's word, blanks, the path's end. */
        for (p = at; p > row && is_blank(p[-1]); p--)
            ;
        for (; p > row && !is_blank(p[-1]); p--)
            ;
        for (; p > row && is_blank(p[-1]); p--)
            ;
        if (p - row < 8 || (memcmp(p - 4, ".vmx", 4) != 0 && memcmp(p - 5, ".vmtx", 5) != 0))
            continue;
        for (const char *q = row + 1; q + 3 < p; q++)
            if (*q == '[' && is_blank(q[-1]) && memchr(q, ']', (size_t)(p - q)) != NULL)
                return true;
    }
    return false;
}

/*
 * Might this line be the start of a row whose name holds a newline?  The id column is 7 wide.  Such
 * a line only costs a question: get.summary tells whether the id means anything.
 */
static bool row_is_weak(const char *line, size_t bytes, size_t digits)
{
    size_t at = digits;

    while (at < bytes && is_blank(line[at]))
        at++;
    return at == 7 && at < bytes;
}

static int add_id(unsigned **ids, size_t *count, unsigned id, struct err *e)
{
    unsigned *more;

    for (size_t i = 0; i < *count; i++)
        if ((*ids)[i] == id)
            return 0;
    if (*count == VM_COUNT_MAX)
        return err_set(e, ERR_LIMIT, "the host has more than %d VMs", VM_COUNT_MAX);
    more = realloc(*ids, (*count + 1) * sizeof **ids);
    if (more == NULL)
        return err_sys(e, "listing VMs");
    *ids = more;
    more[(*count)++] = id;
    return 0;
}

static int add_problem(struct vm_problem **problems, size_t *count, unsigned id, const char *text,
                       struct err *e)
{
    struct vm_problem *more;

    if (*count == VM_COUNT_MAX)
        return 0;
    more = realloc(*problems, (*count + 1) * sizeof *more);
    if (more == NULL)
        return err_sys(e, "listing VMs");
    *problems = more;
    more[*count].vmid = id;
    snprintf(more[*count].text, sizeof more->text, "%s", text);
    (*count)++;
    return 0;
}

int inventory_read_ids(const char *text, unsigned **ids, size_t *count,
                       struct vm_problem **problems, size_t *problem_count, struct err *e)
{
    static const char invalid[] = "Skipping invalid VM '";
    bool header = false;
    size_t weak = 0;

    *ids = NULL;
    *problems = NULL;
    *count = *problem_count = 0;
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *newline = strchr(line, '\n');
        size_t bytes = newline == NULL ? strlen(line) : (size_t)(newline - line);
        size_t digits;
        unsigned id = read_id(line, &digits);
        int rc = 0;

        if (strncmp(line, invalid, sizeof invalid - 1) == 0) {
            id = read_id(line + sizeof invalid - 1, &digits);
            if (id != 0)
                rc = add_problem(problems, problem_count, id, "the host calls it an invalid VM", e);
        } else if (!header) {
            header = strncmp(line, "Vmid", 4) == 0;
        } else if (id != 0 && is_blank(line[digits])) {
            bool whole = row_is_whole(line + digits, bytes - digits);

            if (whole || (weak < WEAK_ROWS_MAX && row_is_weak(line, bytes, digits))) {
                weak += !whole;
                rc = add_id(ids, count, id, e);
            }
        }
        if (rc != 0)
            goto fail;
        line = newline == NULL ? NULL : newline + 1;
    }
    if (header)
        return 0;
    err_set(e, ERR_CORRUPT, "the host's list of VMs has no header");

fail:
    free(*ids);
    free(*problems);
    *ids = NULL;
    *problems = NULL;
    *count = *problem_count = 0;
    return -1;
}

static int keep(char **out, const char *text, struct err *e)
{
    if (text == NULL)
        text = "";
    *out = strdup(text);
    return *out == NULL ? err_sys(e, "reading a VM") : 0;
}

/* A short text into a fixed place; one that is too long is cut by nobody: it is refused. */
static int keep_short(char *out, size_t room, const char *text, const char *what, struct err *e)
{
    if (text == NULL)
        text = "";
    if (strlen(text) >= room)
        return err_set(e, ERR_CORRUPT, "the VM's %s is too long", what);
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int read_power(const char *text, enum vm_power *out, struct err *e)
{
    if (text != NULL && strcmp(text, "poweredOn") == 0)
        *out = VM_ON;
    else if (text != NULL && strcmp(text, "poweredOff") == 0)
        *out = VM_OFF;
    else if (text != NULL && strcmp(text, "suspended") == 0)
        *out = VM_SUSPENDED;
    else
        return err_set(e, ERR_CORRUPT, "unknown power state \"%s\"", text == NULL ? "" : text);
    return 0;
}

static bool path_is_plausible(const char *path)
{
    const char *close;

    if (path == NULL || path[0] != '[' || strlen(path) > NAME_BYTES_MAX ||
        strpbrk(path, "\n\r") != NULL)
        return false;
    close = strstr(path, "] ");
    return close != NULL && close > path + 1 && close[2] != '\0';
}

static int fill_summary(const struct vimnode *root, unsigned vmid, struct vm *out, struct err *e)
{
    const char *guest = vimnode_text(root, "config.guestFullName");
    const char *ref = vimnode_text(root, "vm");
    const struct vimnode *question = vimnode_at(root, "runtime.question");
    char wanted[48];
    uint64_t number;

    snprintf(wanted, sizeof wanted, "vim.VirtualMachine:%u", vmid);
    if (ref != NULL && strcmp(ref, wanted) != 0)
        return err_set(e, ERR_CORRUPT, "the host answers for another VM, %s", ref);
    out->vmid = vmid;
    if (keep_short(out->connection, sizeof out->connection,
                   vimnode_text(root, "runtime.connectionState"), "connection state", e) != 0 ||
        keep(&out->name, vimnode_text(root, "config.name"), e) != 0 ||
        keep(&out->vmx, vimnode_text(root, "config.vmPathName"), e) != 0 ||
        keep(&out->guest_id, vimnode_text(root, "config.guestId"), e) != 0 ||
        keep(&out->guest, guest != NULL ? guest : out->guest_id, e) != 0)
        return -1;
    out->connected = strcmp(out->connection, "connected") == 0;
    if (!out->connected)
        return 0; /* the rest may be missing; it is reported, not used */
    if (out->name[0] == '\0' || strlen(out->name) > NAME_BYTES_MAX || !path_is_plausible(out->vmx))
        return err_set(e, ERR_CORRUPT, "the VM has no usable name or path");
    if (keep_short(out->uuid, sizeof out->uuid, vimnode_text(root, "config.uuid"), "UUID", e) !=
            0 ||
        keep_short(out->instance_uuid, sizeof out->instance_uuid,
                   vimnode_text(root, "config.instanceUuid"), "instance UUID", e) != 0 ||
        read_power(vimnode_text(root, "runtime.powerState"), &out->power, e) != 0)
        return -1;
    if (vimnode_u64(root, "config.numCpu", &number) && number <= 4096)
        out->cpus = (unsigned)number;
    if (vimnode_u64(root, "config.memorySizeMB", &number) && number <= UINT64_C(1) << 32)
        out->memory_bytes = number << 20;
    vimnode_u64(root, "storage.committed", &out->committed_bytes);
    vimnode_u64(root, "storage.uncommitted", &out->uncommitted_bytes);
    vimnode_bool(root, "config.template", &out->is_template);
    vimnode_bool(root, "runtime.consolidationNeeded", &out->consolidation_needed);
    out->question_pending = question != NULL && question->kind == VIMNODE_OBJECT;
    return 0;
}

int inventory_read_summary(const char *text, size_t bytes, unsigned vmid, struct vm *out,
                           struct err *e)
{
    struct vimdump *d = NULL;
    int rc = -1;

    *out = (struct vm){ 0 };
    if (vimdump_read(&d, text, bytes, e) != 0)
        goto out;
    if (vimdump_root(d)->kind != VIMNODE_OBJECT) {
        err_set(e, ERR_CORRUPT, "the host's answer is no summary of a VM");
        goto out;
    }
    if (fill_summary(vimdump_root(d), vmid, out, e) != 0)
        goto out;
    rc = 0;

out:
    if (rc != 0)
        vm_free(out);
    vimdump_free(d);
    return rc;
}

/* "scsi", "ide", "sata", "nvme" of a controller's type, or NULL when it is no disk controller. */
static const char *controller_word(const char *type)
{
    static const struct {
        const char *part, *word;
    } words[] = {
        { "IDEController", "ide" },    { "AHCIController", "sata" },
        { "SATAController", "sata" },  { "NVMEController", "nvme" },
        { "LsiLogic", "scsi" },        { "BusLogicController", "scsi" },
        { "ParaVirtualSCSI", "scsi" }, { "SCSIController", "scsi" },
    };

    for (size_t i = 0; i < ARRAY_COUNT(words); i++)
        if (type != NULL && strstr(type, words[i].part) != NULL)
            return words[i].word;
    return NULL;
}

static const struct vimnode *controller_with_key(const struct vimnode *devices, uint64_t key)
{
    uint64_t other;

    for (const struct vimnode *n = devices->first; n != NULL; n = n->next)
        if (controller_word(n->type) != NULL && vimnode_u64(n, "key", &other) && other == key)
            return n;
    return NULL;
}

static int read_slot(const struct vimnode *devices, const struct vimnode *disk, struct vm_disk *out,
                     struct err *e)
{
    const struct vimnode *controller;
    const char *sharing;
    uint64_t key, bus, unit;

    if (!vimnode_u64(disk, "controllerKey", &key) || !vimnode_u64(disk, "unitNumber", &unit))
        return err_set(e, ERR_CORRUPT, "a disk of the VM has no controller or unit");
    controller = controller_with_key(devices, key);
    if (controller == NULL || !vimnode_u64(controller, "busNumber", &bus) || bus > 255 ||
        unit > 255)
        return err_set(e, ERR_CORRUPT, "a disk of the VM hangs on no known controller");
    snprintf(out->slot, sizeof out->slot, "%s%u:%u", controller_word(controller->type),
             (unsigned)bus, (unsigned)unit);
    sharing = vimnode_text(controller, "sharedBus");
    if (sharing != NULL && strcmp(sharing, "noSharing") != 0)
        out->shared = true;
    return 0;
}

/* "FlatVer2" of "vim.vm.device.VirtualDisk.FlatVer2BackingInfo". */
static int read_backing_name(const char *type, char **out, struct err *e)
{
    const char *dot = type == NULL ? NULL : strrchr(type, '.');
    size_t bytes;

    if (keep(out, dot == NULL ? type : dot + 1, e) != 0)
        return -1;
    bytes = strlen(*out);
    if (bytes > 11 && strcmp(*out + bytes - 11, "BackingInfo") == 0)
        (*out)[bytes - 11] = '\0';
    return 0;
}

static enum vm_disk_kind kind_of(const char *backing, const struct vimnode *node)
{
    const char *mode = vimnode_text(node, "compatibilityMode");

    if (strcmp(backing, "FlatVer2") == 0 || strcmp(backing, "SeSparse") == 0 ||
        strcmp(backing, "SparseVer2") == 0 || strcmp(backing, "FlatVer1") == 0 ||
        strcmp(backing, "SparseVer1") == 0)
        return VM_DISK_FILE;
    if (strncmp(backing, "RawDisk", 7) == 0)
        return mode != NULL && strcmp(mode, "virtualMode") == 0 ? VM_DISK_RDM_VIRTUAL
                                                                : VM_DISK_RDM_PHYSICAL;
    return VM_DISK_OTHER;
}

static int read_parents(const struct vimnode *backing, struct vm_disk *out, struct err *e)
{
    const struct vimnode *parent = vimnode_at(backing, "parent");

    for (; parent != NULL && parent->kind == VIMNODE_OBJECT;
         parent = vimnode_at(parent, "parent")) {
        const char *file = vimnode_text(parent, "fileName");
        char **more;

        if (!path_is_plausible(file))
            return err_set(e, ERR_CORRUPT, "a parent of disk %s has no usable path", out->slot);
        if (out->parent_count == VM_CHAIN_MAX)
            return err_set(e, ERR_LIMIT, "the chain of disk %s is too long", out->slot);
        more = realloc(out->parents, (out->parent_count + 1) * sizeof *more);
        if (more == NULL)
            return err_sys(e, "reading a disk");
        out->parents = more;
        if (keep(&more[out->parent_count], file, e) != 0)
            return -1;
        out->parent_count++;
    }
    return 0;
}

static int read_backing(const struct vimnode *backing, struct vm_disk *out, struct err *e)
{
    const char *mode = vimnode_text(backing, "diskMode");
    const char *sharing = vimnode_text(backing, "sharing");
    const char *file = vimnode_text(backing, "fileName");

    if (backing == NULL || backing->kind != VIMNODE_OBJECT)
        return err_set(e, ERR_CORRUPT, "disk %s has no backing", out->slot);
    if (read_backing_name(backing->type, &out->backing, e) != 0)
        return -1;
    out->kind = kind_of(out->backing, backing);
    if (out->kind == VM_DISK_FILE && !path_is_plausible(file))
        return err_set(e, ERR_CORRUPT, "disk %s has no usable path", out->slot);
    if (keep(&out->file, file, e) != 0)
        return -1;
    if (mode != NULL) {
        out->independent = strncmp(mode, "independent", 11) == 0;
        out->nonpersistent = strstr(mode, "nonpersistent") != NULL;
    }
    if (sharing != NULL && strcmp(sharing, "sharingNone") != 0)
        out->shared = true;
    vimnode_bool(backing, "thinProvisioned", &out->thin);
    if (keep_short(out->uuid, sizeof out->uuid, vimnode_text(backing, "uuid"), "disk's UUID", e) !=
            0 ||
        keep_short(out->change_id, sizeof out->change_id, vimnode_text(backing, "changeId"),
                   "disk's change id", e) != 0)
        return -1;
    return read_parents(backing, out, e);
}

static int read_capacity(const struct vimnode *disk, struct vm_disk *out, struct err *e)
{
    uint64_t number;

    if (vimnode_u64(disk, "capacityInBytes", &number) && number > 0)
        out->capacity_bytes = number;
    else if (!vimnode_u64(disk, "capacityInKB", &number) || number == 0 ||
             !checked_mul(number, 1024, &out->capacity_bytes))
        return err_set(e, ERR_CORRUPT, "disk %s has no capacity", out->slot);
    if (out->capacity_bytes > UINT64_C(1) << 46 || out->capacity_bytes % 512 != 0)
        return err_set(e, ERR_CORRUPT, "disk %s has an impossible capacity", out->slot);
    return 0;
}

static int read_disk(const struct vimnode *devices, const struct vimnode *disk,
                     struct vm_disks *list, struct err *e)
{
    struct vm_disk *d;
    struct vm_disk *more;

    if (list->count == VM_DISKS_MAX)
        return err_set(e, ERR_LIMIT, "the VM has more than %d disks", VM_DISKS_MAX);
    more = realloc(list->items, (list->count + 1) * sizeof *more);
    if (more == NULL)
        return err_sys(e, "reading the VM's disks");
    list->items = more;
    d = &more[list->count++];
    *d = (struct vm_disk){ 0 };
    if (read_slot(devices, disk, d, e) != 0 || !vimnode_u64(disk, "key", &d->key) ||
        keep(&d->label, vimnode_text(disk, "deviceInfo.label"), e) != 0 ||
        read_backing(vimnode_at(disk, "backing"), d, e) != 0 || read_capacity(disk, d, e) != 0)
        return -1;
    for (size_t i = 0; i + 1 < list->count; i++)
        if (strcmp(list->items[i].slot, d->slot) == 0)
            return err_set(e, ERR_CORRUPT, "two disks of the VM are %s", d->slot);
    return 0;
}

/* By kind of controller, then bus, then unit. */
static int compare_disks(const void *a, const void *b)
{
    const char *one = ((const struct vm_disk *)a)->slot;
    const char *two = ((const struct vm_disk *)b)->slot;
    size_t letters = strcspn(one, "0123456789");
    unsigned long x[2], y[2];
    char *end;
    int order;

    if (letters != strcspn(two, "0123456789"))
        return strcmp(one, two);
    order = strncmp(one, two, letters);
    if (order != 0)
        return order;
    x[0] = strtoul(one + letters, &end, 10);
    x[1] = strtoul(end + 1, NULL, 10);
    y[0] = strtoul(two + letters, &end, 10);
    y[1] = strtoul(end + 1, NULL, 10);
    if (x[0] != y[0])
        return x[0] < y[0] ? -1 : 1;
    return x[1] == y[1] ? 0 : x[1] < y[1] ? -1 : 1;
}

int inventory_read_disks(const char *text, size_t bytes, struct vm_disks *out, struct err *e)
{
    struct vimdump *d = NULL;
    const struct vimnode *devices;
    int rc = -1;

    *out = (struct vm_disks){ 0 };
    if (vimdump_read(&d, text, bytes, e) != 0)
        goto out;
    /* documented, not seen: whether the list stands alone or inside a VirtualHardware object. */
    devices = vimdump_root(d);
    if (devices->kind == VIMNODE_OBJECT)
        devices = vimnode_at(devices, "device");
    if (devices == NULL || devices->kind != VIMNODE_ARRAY) {
        err_set(e, ERR_CORRUPT, "the host's answer is no list of devices");
        goto out;
    }
    for (const struct vimnode *n = devices->first; n != NULL; n = n->next)
        if (n->type != NULL && strcmp(n->type, "vim.vm.device.VirtualDisk") == 0 &&
            read_disk(devices, n, out, e) != 0)
            goto out;
    if (out->count > 1)
        qsort(out->items, out->count, sizeof *out->items, compare_disks);
    rc = 0;

out:
    if (rc != 0)
        vm_disks_free(out);
    vimdump_free(d);
    return rc;
}
