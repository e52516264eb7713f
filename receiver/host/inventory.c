#include "receiver/host/inventory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/host/host.h"
#include "receiver/host/snapshot.h"
#include "receiver/host/vimdump.h"

void vm_disks_free(struct vm_disks *d)
{
    for (size_t i = 0; i < d->count; i++) {
        struct vm_disk *disk = &d->items[i];

        for (size_t k = 0; k < disk->parent_count; k++)
            free(disk->parents[k]);
        free(disk->parents);
        free(disk->label);
        free(disk->backing);
        free(disk->file);
    }
    free(d->items);
    *d = (struct vm_disks){ 0 };
}

void vm_free(struct vm *vm)
{
    free(vm->name);
    free(vm->vmx);
    free(vm->guest);
    free(vm->guest_id);
    vm_disks_free(&vm->disks);
    *vm = (struct vm){ 0 };
}

void vm_list_free(struct vm_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        vm_free(&l->items[i]);
    free(l->items);
    free(l->problems);
    *l = (struct vm_list){ 0 };
}

void vm_files_free(struct vm_files *f)
{
    for (size_t i = 0; i < f->count; i++)
        free(f->items[i].path);
    free(f->items);
    *f = (struct vm_files){ 0 };
}

static void id_text(char out[16], unsigned vmid)
{
    snprintf(out, 16, "%u", vmid);
}

/* Run a vim-cmd about one VM and read its answer; one that is cut short is asked for again. */
static int ask_vm(struct host *h, const char *what, unsigned vmid,
                  int (*read)(const struct host_answer *a, unsigned vmid, void *out, struct err *e),
                  void *out, struct err *e)
{
    char id[16];

    id_text(id, vmid);
    for (unsigned i = 0;; i++) {
        struct host_answer a;
        int rc = host_vim(h, &a, HOST_COMMAND_MS, e, what, id, NULL);

        if (rc == 0)
            rc = read(&a, vmid, out, e);
        else
            i = HOST_TRIES;
        host_answer_free(&a);
        if (rc == 0)
            return 0;
        if (i + 1 >= HOST_TRIES || (e->code != ERR_CORRUPT && e->code != ERR_FORMAT)) {
            host_unreadable(e);
            return err_add(e, "VM %u, %s", vmid, what);
        }
        host_pause(h, 500);
    }
}

static int read_summary(const struct host_answer *a, unsigned vmid, void *out, struct err *e)
{
    return inventory_read_summary(a->out, a->out_bytes, vmid, out, e);
}

static int read_disks(const struct host_answer *a, unsigned vmid, void *out, struct err *e)
{
    (void)vmid;
    return inventory_read_disks(a->out, a->out_bytes, out, e);
}

static int read_tracking(const struct host_answer *a, unsigned vmid, void *out, struct err *e)
{
    enum vm_tracking *tracking = out;
    struct vimdump *d;
    bool on;

    (void)vmid;
    if (vimdump_read(&d, a->out, a->out_bytes, e) != 0)
        return -1;
    *tracking = VM_TRACKING_UNKNOWN;
    if (vimnode_bool(vimdump_root(d), "changeTrackingEnabled", &on))
        *tracking = on ? VM_TRACKING_ON : VM_TRACKING_OFF;
    vimdump_free(d);
    return 0;
}

int host_vm(struct host *h, unsigned vmid, struct vm *out, struct err *e)
{
    *out = (struct vm){ 0 };
    return ask_vm(h, "vmsvc/get.summary", vmid, read_summary, out, e);
}

int host_vm_disks(struct host *h, unsigned vmid, struct vm_disks *out, struct err *e)
{
    *out = (struct vm_disks){ 0 };
    return ask_vm(h, "vmsvc/device.getdevices", vmid, read_disks, out, e);
}

int host_vm_details(struct host *h, struct vm *vm, struct err *e)
{
    struct snapshot_tree tree = { 0 };

    vm_disks_free(&vm->disks);
    vm->detailed = false;
    if (host_vm_disks(h, vm->vmid, &vm->disks, e) != 0 ||
        snapshot_tree_read(h, vm->vmid, &tree, e) != 0)
        return -1;
    vm->snapshots = tree.count;
    snapshot_tree_free(&tree);
    if (ask_vm(h, "vmsvc/get.config", vm->vmid, read_tracking, &vm->tracking, e) != 0) {
        /* It decides nothing yet, so a configuration that cannot be read is no reason to stop. */
        if (e->code == ERR_NETWORK || e->code == ERR_NOT_FOUND || e->code == ERR_STOPPED)
            return -1;
        log_warning("VM %s: change tracking is unknown: %s", vm->name, e->text);
        vm->tracking = VM_TRACKING_UNKNOWN;
    }
    vm->detailed = true;
    return 0;
}

static int note_problem(struct vm_list *l, unsigned vmid, const char *text, struct err *e)
{
    struct vm_problem *more = realloc(l->problems, (l->problem_count + 1) * sizeof *more);

    if (more == NULL)
        return err_sys(e, "listing VMs");
    l->problems = more;
    more[l->problem_count].vmid = vmid;
    snprintf(more[l->problem_count].text, sizeof more->text, "%.*s", (int)sizeof more->text - 1,
             text);
    l->problem_count++;
    return 0;
}

/* Ask for one VM of the list and put it where it belongs. */
static int add_vm(struct host *h, struct vm_list *l, unsigned vmid, struct err *e)
{
    struct vm vm;
    char text[200];

    if (host_vm(h, vmid, &vm, e) != 0) {
        if (e->code == ERR_NOT_FOUND)
            return 0; /* unregistered between the list and now, or a note that looks like a row */
        if (e->code == ERR_LIMIT || e->code == ERR_SOURCE)
            return note_problem(l, vmid, e->text, e);
        return -1;
    }
    if (!vm.connected) {
        snprintf(text, sizeof text, "its state on the host is \"%s\" (%.100s)", vm.connection,
                 vm.vmx);
        vm_free(&vm);
        return note_problem(l, vmid, text, e);
    }
    l->items[l->count++] = vm;
    return 0;
}

static int list_ids(struct host *h, unsigned **ids, size_t *count, struct vm_list *l, struct err *e)
{
    for (unsigned i = 0;; i++) {
        struct host_answer a;
        char *all = NULL;
        int rc = host_vim(h, &a, HOST_COMMAND_MS, e, "vmsvc/getallvms", NULL);

        /* Lines about invalid VMs come on either stream. */
        if (rc == 0 && asprintf(&all, "%s\n%s", a.complaint, a.out) < 0)
            rc = err_set(e, ERR_SYSTEM, "no memory for the list of VMs");
        if (rc == 0)
            rc = inventory_read_ids(all, ids, count, &l->problems, &l->problem_count, e);
        else
            i = HOST_TRIES;
        free(all);
        host_answer_free(&a);
        if (rc == 0)
            return 0;
        if (i + 1 >= HOST_TRIES || e->code != ERR_CORRUPT)
            return host_unreadable(e);
        host_pause(h, 500);
    }
}

static int compare_ids(const void *a, const void *b)
{
    const struct vm *x = a, *y = b;

    return x->vmid == y->vmid ? 0 : x->vmid < y->vmid ? -1 : 1;
}

/* stoppable: not while cleaning up. */
static int list_vms(struct host *h, bool stoppable, struct vm_list *out, struct err *e)
{
    unsigned *ids = NULL;
    size_t count = 0;
    int rc = -1;

    *out = (struct vm_list){ 0 };
    if (list_ids(h, &ids, &count, out, e) != 0)
        goto out;
    out->items = calloc(count + 1, sizeof *out->items);
    if (out->items == NULL) {
        err_sys(e, "listing VMs");
        goto out;
    }
    for (size_t i = 0; i < count; i++)
        if ((stoppable && host_check_stop(h, e) != 0) || add_vm(h, out, ids[i], e) != 0)
            goto out;
    qsort(out->items, out->count, sizeof *out->items, compare_ids);
    rc = 0;

out:
    free(ids);
    if (rc != 0)
        vm_list_free(out);
    return rc == 0 ? 0 : err_add(e, "listing the VMs");
}

int host_vms(struct host *h, struct vm_list *out, struct err *e)
{
    return list_vms(h, true, out, e);
}

int host_vm_same(struct host *h, const struct vm *vm, struct err *e)
{
    struct vm now;
    bool same;

    if (host_vm(h, vm->vmid, &now, e) != 0)
        return -1;
    same = now.connected && strcmp(now.vmx, vm->vmx) == 0 &&
           strcmp(now.instance_uuid, vm->instance_uuid) == 0 && strcmp(now.uuid, vm->uuid) == 0;
    vm_free(&now);
    return same
               ? 0
               : err_set(e, ERR_SOURCE,
                         "VM %u is not the one that it was: it was moved, registered anew, or lost",
                         vm->vmid);
}

int host_vm_find(struct host *h, const char *vmx, const char *instance_uuid, struct vm *out,
                 struct err *e)
{
    struct vm_list l;
    size_t i;

    *out = (struct vm){ 0 };
    if (list_vms(h, false, &l, e) != 0)
        return -1;
    for (i = 0; i < l.count; i++)
        if (strcmp(l.items[i].vmx, vmx) == 0 &&
            strcasecmp(l.items[i].instance_uuid, instance_uuid) == 0)
            break;
    if (i < l.count) {
        *out = l.items[i];
        l.items[i] = (struct vm){ 0 };
    }
    vm_list_free(&l);
    return out->vmid != 0 ? 0
                          : err_set(e, ERR_NOT_FOUND, "no VM of the host is %s with UUID %s", vmx,
                                    instance_uuid);
}

static bool ends_with(const char *text, const char *end)
{
    size_t bytes = strlen(text), last = strlen(end);

    return bytes > last && strcasecmp(text + bytes - last, end) == 0;
}

static bool kind_of_file(const char *path, enum vm_file_kind *kind)
{
    if (ends_with(path, ".nvram"))
        *kind = VM_FILE_NVRAM;
    else if (ends_with(path, ".vmxf"))
        *kind = VM_FILE_VMXF;
    else if (ends_with(path, ".vmsd"))
        *kind = VM_FILE_VMSD;
    else if (ends_with(path, ".vmtx"))
        *kind = VM_FILE_OTHER;
    else
        return false;
    return true;
}

/* path is "[ds] dir/file", or a name in the folder of the vmx. */
static int add_file(struct vm_files *f, enum vm_file_kind kind, const char *vmx, const char *path,
                    struct err *e)
{
    const char *slash = strrchr(vmx, '/');
    struct vm_file *more;
    char *whole = NULL;

    if (path[0] == '[' || slash == NULL)
        whole = strdup(path);
    else if (asprintf(&whole, "%.*s/%s", (int)(slash - vmx), vmx, path) < 0)
        whole = NULL;
    if (whole == NULL)
        return err_set(e, ERR_SYSTEM, "no memory for the VM's files");
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->items[i].path, whole) == 0) {
            free(whole);
            return 0;
        }
    more = f->count < VM_FILES_MAX ? realloc(f->items, (f->count + 1) * sizeof *more) : NULL;
    if (more == NULL) {
        free(whole);
        return err_set(e, ERR_LIMIT, "the VM has too many files");
    }
    f->items = more;
    more[f->count++] = (struct vm_file){ .kind = kind, .path = whole };
    return 0;
}

struct layout_files {
    struct vm_files *files;
    const char *vmx;
};

static int read_layout(const struct host_answer *a, unsigned vmid, void *out, struct err *e)
{
    struct layout_files *l = out;
    const struct vimnode *list;
    enum vm_file_kind kind;
    struct vimdump *d;
    int rc = 0;

    (void)vmid;
    if (vimdump_read(&d, a->out, a->out_bytes, e) != 0)
        return -1;
    list = vimnode_at(vimdump_root(d), "configFile");
    for (const struct vimnode *n = list == NULL ? NULL : list->first; n != NULL && rc == 0;
         n = n->next)
        if (n->text != NULL && strpbrk(n->text, "\r\n") == NULL && kind_of_file(n->text, &kind))
            rc = add_file(l->files, kind, l->vmx, n->text, e);
    vimdump_free(d);
    return rc;
}

int host_vm_files(struct host *h, const struct vm *vm, struct vm_files *out, struct err *e)
{
    struct layout_files layout = { .files = out, .vmx = vm->vmx };

    *out = (struct vm_files){ 0 };
    if (add_file(out, VM_FILE_VMX, vm->vmx, vm->vmx, e) != 0 ||
        ask_vm(h, "vmsvc/get.filelayout", vm->vmid, read_layout, &layout, e) != 0)
        goto fail;
    for (size_t i = 0; i < vm->disks.count; i++) {
        const struct vm_disk *d = &vm->disks.items[i];

        if (d->file[0] != '\0' && add_file(out, VM_FILE_DESCRIPTOR, vm->vmx, d->file, e) != 0)
            goto fail;
        for (size_t k = 0; k < d->parent_count; k++)
            if (add_file(out, VM_FILE_DESCRIPTOR, vm->vmx, d->parents[k], e) != 0)
                goto fail;
    }
    return 0;

fail:
    vm_files_free(out);
    return -1;
}

bool vm_name_fits(const char *name, const char *pattern)
{
    const char *star = NULL, *retry = NULL;

    while (*name != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            retry = name;
        } else if (*pattern == '?') {
            /* One character, which may be several bytes. */
            name++;
            while (((unsigned char)*name & 0xc0) == 0x80)
                name++;
            pattern++;
        } else if (*pattern == *name) {
            name++;
            pattern++;
        } else if (star != NULL) {
            pattern = star + 1;
            name = ++retry;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Equal but for case, dashes and blanks; 32 digits each. */
static bool uuid_equal(const char *a, const char *b)
{
    size_t digits = 0;

    for (;;) {
        while (*a == '-' || *a == ' ')
            a++;
        while (*b == '-' || *b == ' ')
            b++;
        if (*a == '\0' || *b == '\0')
            return *a == *b && digits == 32;
        if (!is_hex(*a) || strncasecmp(a, b, 1) != 0)
            return false;
        digits++;
        a++;
        b++;
    }
}

static int not_unique(const struct vm_list *l, const char *operand, const size_t *picked,
                      size_t count, struct err *e)
{
    char list[300] = "";
    size_t used = 0;

    for (size_t i = 0; i < count && used < sizeof list - 60; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s#%u %.40s", i ? ", " : "",
                                 l->items[picked[i]].vmid, l->items[picked[i]].vmx);
    return err_set(e, ERR_NOT_FOUND, "%s means %zu VMs; name one by its id: %s%s", operand, count,
                   list, used >= sizeof list - 60 ? ", …" : "");
}

typedef bool (*fits_fn)(const struct vm *vm, const char *operand);

static bool fits_id(const struct vm *vm, const char *operand)
{
    char text[16];

    id_text(text, vm->vmid);
    return strcmp(text, operand + 1) == 0;
}

static bool fits_uuid(const struct vm *vm, const char *operand)
{
    return uuid_equal(vm->instance_uuid, operand + 5) || uuid_equal(vm->uuid, operand + 5);
}

static bool fits_name(const struct vm *vm, const char *operand)
{
    return strcmp(vm->name, operand) == 0;
}

static bool fits_pattern(const struct vm *vm, const char *operand)
{
    return vm_name_fits(vm->name, operand);
}

static size_t pick(const struct vm_list *l, const char *operand, fits_fn fits, size_t *picked)
{
    size_t count = 0;

    for (size_t i = 0; i < l->count; i++)
        if (fits(&l->items[i], operand))
            picked[count++] = i;
    return count;
}

int vm_select(const struct vm_list *l, const char *operand, size_t *picked, size_t *picked_count,
              struct err *e)
{
    bool many = false;

    *picked_count = 0;
    if (operand[0] == '\0')
        return err_set(e, ERR_USAGE, "an empty name names no VM");
    if (operand[0] == '#' && operand[1] != '\0' &&
        operand[1 + strspn(operand + 1, "0123456789")] == '\0') {
        *picked_count = pick(l, operand, fits_id, picked);
    } else if (strncmp(operand, "uuid:", 5) == 0) {
        *picked_count = pick(l, operand, fits_uuid, picked);
    } else {
        *picked_count = pick(l, operand, fits_name, picked);
        if (*picked_count == 0 && strpbrk(operand, "*?") != NULL) {
            *picked_count = pick(l, operand, fits_pattern, picked);
            many = true;
        }
    }
    if (*picked_count == 0)
        return err_set(e, ERR_NOT_FOUND, "no VM of this host is %s", operand);
    if (*picked_count > 1 && !many)
        return not_unique(l, operand, picked, *picked_count, e);
    return 0;
}

const char *vm_power_name(enum vm_power power)
{
    static const char *const names[] = { "off", "on", "suspended" };

    return names[power];
}

const char *vm_tracking_name(enum vm_tracking t)
{
    static const char *const names[] = { "unknown", "off", "on" };

    return names[t];
}
