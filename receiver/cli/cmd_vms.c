/* vmferry vms HOST [VM...] */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/json.h"
#include "receiver/base/log.h"
#include "receiver/base/sizes.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/connect.h"
#include "receiver/cli/exit_codes.h"
#include "receiver/cli/report.h"
#include "receiver/cli/table.h"
#include "receiver/host/inventory.h"

static uint64_t provisioned(const struct vm *vm)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < vm->disks.count; i++)
        sum += vm->disks.items[i].capacity_bytes;
    return sum;
}

static void put_disk(struct json *j, const struct vm_disk *d)
{
    json_object(j, NULL);
    json_text(j, "disk", d->slot);
    json_text(j, "label", d->label);
    json_number(j, "capacity", d->capacity_bytes);
    json_text(j, "file", d->file);
    json_text(j, "uuid", d->uuid[0] != 0 ? d->uuid : NULL);
    json_bool(j, "thin", d->thin);
    json_bool(j, "independent", d->independent);
    json_bool(j, "shared", d->shared);
    json_bool(j, "rdm", d->kind == VM_DISK_RDM_VIRTUAL || d->kind == VM_DISK_RDM_PHYSICAL);
    json_close(j);
}

static void put_vm(struct json *j, const struct vm *vm)
{
    json_object(j, NULL);
    json_text(j, "vm", vm->name);
    json_number(j, "vmid", vm->vmid);
    json_text(j, "uuid", vm->instance_uuid[0] != 0 ? vm->instance_uuid : NULL);
    json_text(j, "bios_uuid", vm->uuid[0] != 0 ? vm->uuid : NULL);
    json_text(j, "power", vm_power_name(vm->power));
    json_text(j, "guest", vm->guest);
    json_number(j, "cpus", vm->cpus);
    json_number(j, "memory", vm->memory_bytes);
    json_number(j, "snapshots", vm->snapshots);
    json_text(j, "change_tracking", vm_tracking_name(vm->tracking));
    json_number(j, "provisioned", provisioned(vm));
    json_number(j, "used", vm->committed_bytes);
    json_text(j, "path", vm->vmx);
    json_array(j, "disks");
    for (size_t i = 0; i < vm->disks.count; i++)
        put_disk(j, &vm->disks.items[i]);
    json_close(j);
    json_close(j);
}

static int add_row(struct table *t, const struct vm *vm, struct err *e)
{
    char id[16], cpus[16], memory[SIZE_TEXT_BYTES], disks[96], snapshots[24];
    char whole[SIZE_TEXT_BYTES], used[SIZE_TEXT_BYTES];
    const char *cells[] = {
        vm->name, id,        vm_power_name(vm->power),       vm->guest, cpus, memory,
        disks,    snapshots, vm_tracking_name(vm->tracking),
    };

    snprintf(id, sizeof id, "%u", vm->vmid);
    snprintf(cpus, sizeof cpus, "%u", vm->cpus);
    size_text_short(memory, vm->memory_bytes);
    size_text_short(whole, provisioned(vm));
    size_text_short(used, vm->committed_bytes);
    snprintf(disks, sizeof disks, "%zu: %s/%s", vm->disks.count, whole, used);
    snprintf(snapshots, sizeof snapshots, "%zu", vm->snapshots);
    return table_row(t, cells, e);
}

static int print_table(const struct vm_list *l, const bool *wanted, struct err *e)
{
    static const struct table_column columns[] = {
        { "NAME", false, true },   { "ID", true, false },   { "POWER", false, false },
        { "GUEST", false, true },  { "CPU", true, false },  { "MEM", true, false },
        { "DISKS", false, false }, { "SNAP", true, false }, { "CBT", false, false },
    };
    struct table *t = NULL;
    int rc = -1;

    if (table_new(&t, columns, 9, e) != 0)
        goto out;
    for (size_t i = 0; i < l->count; i++) {
        if (wanted[i] && add_row(t, &l->items[i], e) != 0)
            goto out;
    }
    table_print(t, stdout, app_columns(), 0);
    rc = 0;

out:
    table_free(t);
    return rc;
}

/* Which VMs the operands name.  An operand that names none is told and counted. */
static int choose(struct app *app, const struct vm_list *l, bool *wanted, size_t *picked,
                  struct err *e)
{
    const struct options *o = app->options;
    size_t failed = 0;

    if (o->operand_count == 1) {
        memset(wanted, 1, l->count * sizeof *wanted);
        return 0;
    }
    for (size_t i = 1; i < o->operand_count; i++) {
        size_t count = 0;

        if (vm_select(l, o->operands[i], picked, &count, e) != 0) {
            if (o->operand_count == 2)
                return -1;
            app_failure(app, o->operands[i], e);
            failed++;
        }
        while (count > 0)
            wanted[picked[--count]] = true;
    }
    app->exit_code = failed > 0 ? EXIT_PARTIAL : EXIT_OK;
    return 0;
}

/* Disks and the rest of each wanted VM; one that cannot be read is told and left out. */
static int get_details(struct app *app, struct host *h, struct vm_list *l, bool *wanted,
                       struct err *e)
{
    for (size_t i = 0; i < l->count; i++) {
        if (!wanted[i] || host_vm_details(h, &l->items[i], e) == 0)
            continue;
        if (e->code == ERR_NETWORK || e->code == ERR_STOPPED)
            return -1;
        wanted[i] = false;
        if (e->code != ERR_NOT_FOUND) {
            app_failure(app, l->items[i].name, e);
            app->exit_code = EXIT_PARTIAL;
        }
    }
    return 0;
}

static void print_json(struct app *app, const struct vm_list *l, const bool *wanted)
{
    struct json *j = report_array_begin(app->report);

    if (j == NULL)
        return;
    for (size_t i = 0; i < l->count; i++) {
        if (wanted[i])
            put_vm(j, &l->items[i]);
    }
    report_array_end(app->report);
}

int cmd_vms(struct app *app, struct err *e)
{
    struct vm_list l = { 0 };
    size_t *picked = NULL;
    bool *wanted = NULL;
    struct visit s;
    int rc = -1;

    if (visit_begin(&s, app, app->options->operands[0], e) != 0)
        goto out;
    visit_limits(&s);
    if (host_vms(&s.host, &l, e) != 0)
        goto out;
    for (size_t i = 0; i < l.problem_count; i++)
        log_warning("VM #%u: %s", l.problems[i].vmid, l.problems[i].text);
    wanted = calloc(l.count + 1, sizeof *wanted);
    picked = calloc(l.count + 1, sizeof *picked);
    if (wanted == NULL || picked == NULL) {
        err_sys(e, "getting memory for the list");
        goto out;
    }
    if (choose(app, &l, wanted, picked, e) != 0 || get_details(app, &s.host, &l, wanted, e) != 0)
        goto out;
    if (app->options->json)
        print_json(app, &l, wanted);
    else if (print_table(&l, wanted, e) != 0)
        goto out;
    rc = 0;

out:
    free(wanted);
    free(picked);
    vm_list_free(&l);
    visit_end(&s);
    return rc;
}
