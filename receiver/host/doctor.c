#include "receiver/host/doctor.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/base/sizes.h"
#include "receiver/host/chain.h"
#include "receiver/host/datastores.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/host/journal.h"
#include "receiver/host/place.h"
#include "receiver/host/reaper.h"
#include "receiver/host/room.h"

enum { ITEMS_MAX = 65536 };

/* What the checks of one run share. */
struct examination {
    struct host *h;
    struct journal *j;
    const struct doctor_wish *wish;
    struct doctor_report *report;
    struct datastore_list stores;
    struct vm_list vms;
    size_t shown;
};

const char *doctor_result_name(enum doctor_result result)
{
    static const char *const names[] = { "ok", "warn", "fail" };

    return names[result];
}

void doctor_report_free(struct doctor_report *r)
{
    for (size_t i = 0; i < r->count; i++) {
        free(r->items[i].vm);
        free(r->items[i].detail);
        free(r->items[i].remedy);
    }
    free(r->items);
    *r = (struct doctor_report){ 0 };
}

int doctor_add(struct doctor_report *r, const char *check, const char *vm,
               enum doctor_result result, const char *remedy, const char *detail_format, ...)
{
    struct doctor_item *more, item = { .result = result };
    va_list args;
    int n;

    if (r->count == ITEMS_MAX)
        return -1;
    va_start(args, detail_format);
    n = vasprintf(&item.detail, detail_format, args);
    va_end(args);
    if (n < 0)
        item.detail = NULL;
    snprintf(item.check, sizeof item.check, "%s", check);
    item.remedy = strdup(remedy == NULL ? "" : remedy);
    item.vm = vm == NULL ? NULL : strdup(vm);
    more = realloc(r->items, (r->count + 1) * sizeof *more);
    if (more != NULL)
        r->items = more;
    if (more == NULL || item.detail == NULL || item.remedy == NULL ||
        (vm != NULL && item.vm == NULL)) {
        free(item.detail);
        free(item.remedy);
        free(item.vm);
        return -1;
    }
    more[r->count++] = item;
    return 0;
}

/* Show what was added since the last time. */
static void show_new(struct examination *x)
{
    for (; x->shown < x->report->count; x->shown++)
        if (x->wish->show != NULL)
            x->wish->show(x->wish->context, &x->report->items[x->shown]);
}

/* A check that failed: a line, unless the whole examination has to end.  Returns 0 or -1. */
static int failed(struct examination *x, const char *check, const char *vm, const char *remedy,
                  const struct err *e)
{
    doctor_add(x->report, check, vm, DOCTOR_FAIL, remedy, "%s", e->text);
    return e->code == ERR_NETWORK || e->code == ERR_STOPPED ? -1 : 0;
}

static int examine_version(struct examination *x, struct err *e)
{
    enum exec_policy policy;

    doctor_add(x->report, "version", NULL, x->h->version_major >= 6 ? DOCTOR_OK : DOCTOR_WARN,
               x->h->version_major >= 6
                   ? ""
                   : "ESXi before 6.0 has never been tried, not even by imitation",
               "%s, %s", x->h->product, x->h->level);
    if (place_exec_policy(x->h, &policy, e) != 0)
        return failed(x, "exec", NULL, "", e);
    if (policy == EXEC_REFUSED)
        doctor_add(x->report, "exec", NULL, DOCTOR_WARN,
                   "nothing has to be changed: disks are then read over SSH by dd, which is slower",
                   "the host runs only programs that are part of ESXi (execInstalledOnly)");
    else
        doctor_add(x->report, "exec", NULL, DOCTOR_OK, "", "%s",
                   policy == EXEC_ALLOWED
                       ? "the host runs programs from datastores"
                       : "the host has no rule against programs from datastores");
    return 0;
}

static int examine_stores(struct examination *x, struct err *e)
{
    if (host_datastores(x->h, &x->stores, e) != 0)
        return failed(x, "datastores", NULL, "look at the host's storage", e);
    for (size_t i = 0; i < x->stores.count; i++) {
        const struct datastore *d = &x->stores.items[i];
        uint64_t needed = room_needed(x->wish->rule, d->size_bytes);

        if (d->files)
            doctor_add(x->report, "space", NULL, d->free_bytes >= needed ? DOCTOR_OK : DOCTOR_WARN,
                       d->free_bytes >= needed
                           ? ""
                           : "VMs on it get no snapshot until there is room (or lower --min-free)",
                       "datastore %s (%s): %" PRIu64 " of %" PRIu64 " MiB free", d->name, d->type,
                       d->free_bytes >> 20, d->size_bytes >> 20);
    }
    return 0;
}

static int examine_agent(struct examination *x, struct err *e)
{
    struct place_wish wish = { .agent_file = x->wish->agent_file,
                               .agent_dir = x->wish->agent_dir,
                               .stores = &x->stores };
    struct placed placed;
    int rc = 0;

    if (x->wish->agent_file == NULL) {
        doctor_add(x->report, "upload", NULL, DOCTOR_WARN, "name one with --agent-file",
                   "no agent was found beside this program");
        return 0;
    }
    if (place_agent(x->h, x->j, &wish, &placed, e) != 0)
        return failed(x, "upload", NULL, "name another place with --agent-dir", e);
    if (placed.outcome == PLACE_READY)
        doctor_add(x->report, "upload", NULL, DOCTOR_OK, "", "%s runs from %s", placed.version,
                   placed.folder);
    else
        doctor_add(x->report, "upload", NULL, DOCTOR_WARN,
                   "nothing has to be changed: disks are then read over SSH by dd, which is slower",
                   "%s", placed.reason);
    show_new(x);
    if (placed.outcome == PLACE_READY && x->wish->try_channel != NULL)
        x->wish->try_channel(x->wish->context, x->h, &placed, x->report);
    if (place_remove(x->h, &placed, e) != 0)
        rc = failed(x, "upload", NULL, "run vmferry cleanup for this host", e);
    placed_free(&placed);
    return rc;
}

/* One that is kept on purpose is no leftover, as long as it stays within its limits. */
static void show_retained(struct examination *x, const struct leftover *l)
{
    int64_t age = host_now(x->h) - l->created;
    char old[SIZE_TEXT_BYTES], size[SIZE_TEXT_BYTES], until[CLOCK_TEXT_BYTES];

    doctor_add(x->report, "retained", l->vm_name, DOCTOR_OK, "",
               "a snapshot is kept for %s: %s old, %s of changes, until %s", l->store,
               duration_text(old, age > 0 ? (uint64_t)age : 0), size_text(size, l->delta_bytes),
               clock_format_local(until, l->expires));
}

static int examine_leftovers(struct examination *x, struct err *e)
{
    size_t found = 0;
    struct leftover_list l;

    if (reaper_leftovers(x->h, x->j, &l, e) != 0)
        return failed(x, "leftovers", NULL, "", e);
    for (size_t i = 0; i < l.count; i++) {
        const struct leftover *o = &l.items[i];

        if (o->store != NULL) {
            show_retained(x, o);
            continue;
        }
        found++;
        doctor_add(x->report, "leftovers", o->vm_name, DOCTOR_WARN,
                   o->journalled ? "a run is at work, or: vmferry cleanup"
                                 : "if nobody needs it: vmferry cleanup --foreign and its token",
                   "a snapshot of %s is there: %s", o->ours ? "ours" : "another receiver", o->name);
    }
    if (found == 0)
        doctor_add(x->report, "leftovers", NULL, DOCTOR_OK, "",
                   l.count == 0 ? "no snapshots of any vmferry" : "no other snapshots of vmferry");
    leftover_list_free(&l);
    return 0;
}

/* The first MiB, through the shell.  A running VM holds its disks until a snapshot frees them. */
static int read_disk(struct examination *x, const struct vm *vm, const struct chain_disk *d,
                     struct err *e)
{
    struct host_answer a;
    char *file;
    bool busy;
    int rc;

    if (asprintf(&file, "if=%s", d->links[0].data_path) < 0)
        return err_set(e, ERR_SYSTEM, "no memory for a command");
    rc = host_call(x->h, &a, HOST_COMMAND_MS, e, "dd", file, "of=/dev/null", "bs=1048576",
                   "count=1", NULL);
    free(file);
    if (rc != 0)
        return failed(x, "disk", vm->name, "", e);
    busy = strstr(a.complaint, "busy") != NULL;
    if (a.status == 0)
        doctor_add(x->report, "disk", vm->name, DOCTOR_OK, "", "%s: %" PRIu64 " MiB, readable",
                   d->slot, d->capacity_bytes >> 20);
    else if (busy && vm->power == VM_ON)
        doctor_add(x->report, "disk", vm->name, DOCTOR_OK, "",
                   "%s: %" PRIu64 " MiB, held by the running VM until a snapshot is taken", d->slot,
                   d->capacity_bytes >> 20);
    else
        doctor_add(x->report, "disk", vm->name, DOCTOR_FAIL,
                   busy ? "another VM, host or backup tool holds it (vmkfstools -D shows which)"
                        : "",
                   "%s: %.*s", d->slot, (int)strcspn(a.complaint, "\r\n"), a.complaint);
    host_answer_free(&a);
    return 0;
}

static int examine_disks(struct examination *x, const struct vm *vm, struct err *e)
{
    struct chain_plan plan;
    int rc = 0;

    if (chain_plan_read(x->h, vm, NULL, &x->stores, &plan, e) != 0)
        return failed(x, "disk", vm->name, "", e);
    for (size_t i = 0; i < plan.count && rc == 0; i++) {
        const struct chain_disk *d = &plan.items[i];

        if (d->outcome == CHAIN_READ || d->outcome == CHAIN_READ_DIRECT)
            rc = read_disk(x, vm, d, e);
        else
            doctor_add(x->report, "disk", vm->name,
                       d->outcome == CHAIN_SKIPPED ? DOCTOR_WARN : DOCTOR_FAIL,
                       d->outcome == CHAIN_SKIPPED ? "leave it out with --exclude-disk" : "", "%s",
                       d->reason.text);
    }
    chain_plan_free(&plan);
    return rc;
}

static int examine_vm(struct examination *x, struct vm *vm, struct err *e)
{
    struct room_guard guard;
    enum chain_way way;
    char why[400];

    if (host_vm_details(x->h, vm, e) != 0)
        return failed(x, "vm", vm->name, "", e);
    if (vm->question_pending)
        doctor_add(x->report, "question", vm->name, DOCTOR_WARN,
                   "answer it in the host's web client", "the VM waits for an answer");
    if (vm->consolidation_needed)
        doctor_add(x->report, "consolidation", vm->name, DOCTOR_WARN,
                   "in the host's web client: Snapshots, Consolidate disks",
                   "its disks need a consolidation");
    doctor_add(x->report, "snapshots", vm->name, vm->snapshots == 0 ? DOCTOR_OK : DOCTOR_WARN,
               vm->snapshots == 0 ? "" : "disks with older snapshots cannot be read yet", "%zu",
               vm->snapshots);
    if (room_check_before(&guard, vm, &x->stores, x->wish->rule, e) != 0)
        return failed(x, "space", vm->name, "make room, or lower --min-free", e);
    if (chain_way_of(vm, &way, why, sizeof why, e) != 0)
        return failed(x, "disk", vm->name, "read it while it is off", e);
    if (why[0] != '\0')
        doctor_add(x->report, "snapshots", vm->name, DOCTOR_WARN, "", "%s", why);
    return examine_disks(x, vm, e);
}

/* The VMs that were named, or all. */
static int examine_vms(struct examination *x, struct err *e)
{
    bool *wanted = NULL;
    size_t *picked = NULL, count;
    int rc = -1;

    if (host_vms(x->h, &x->vms, e) != 0)
        return failed(x, "inventory", NULL, "look at the host's management agent (hostd)", e);
    doctor_add(x->report, "inventory", NULL, DOCTOR_OK, "", "%zu VMs", x->vms.count);
    for (size_t i = 0; i < x->vms.problem_count; i++)
        doctor_add(x->report, "inventory", NULL, DOCTOR_WARN, "register the VM anew, or remove it",
                   "VM %u: %s", x->vms.problems[i].vmid, x->vms.problems[i].text);
    show_new(x);
    wanted = calloc(x->vms.count + 1, sizeof *wanted);
    picked = calloc(x->vms.count + 1, sizeof *picked);
    if (wanted == NULL || picked == NULL) {
        err_sys(e, "examining VMs");
        goto out;
    }
    for (size_t i = 0; i < x->vms.count; i++)
        wanted[i] = x->wish->operand_count == 0;
    for (size_t i = 0; i < x->wish->operand_count; i++) {
        if (vm_select(&x->vms, x->wish->operands[i], picked, &count, e) != 0)
            doctor_add(x->report, "vm", x->wish->operands[i], DOCTOR_FAIL,
                       "vmferry vms shows what there is", "%s", e->text);
        else
            for (size_t k = 0; k < count; k++)
                wanted[picked[k]] = true;
    }
    for (size_t i = 0; i < x->vms.count; i++) {
        if (!wanted[i])
            continue;
        if (host_check_stop(x->h, e) != 0 || examine_vm(x, &x->vms.items[i], e) != 0)
            goto out;
        show_new(x);
    }
    rc = 0;

out:
    free(wanted);
    free(picked);
    return rc;
}

int doctor_run(struct host *h, struct journal *j, const struct doctor_wish *wish,
               struct doctor_report *out, struct err *e)
{
    static int (*const parts[])(struct examination *, struct err *) = {
        examine_version, examine_stores, examine_agent, examine_vms, examine_leftovers,
    };
    struct examination x = { .h = h, .j = j, .wish = wish, .report = out };
    int rc = 0;

    *out = (struct doctor_report){ 0 };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && rc == 0; i++) {
        if (host_check_stop(h, e) != 0)
            rc = -1;
        else
            rc = parts[i](&x, e);
        show_new(&x);
    }
    datastore_list_free(&x.stores);
    vm_list_free(&x.vms);
    return rc;
}
