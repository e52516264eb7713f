/* vmferry list --mirror DIR [VM] */
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/base/json.h"
#include "receiver/base/log.h"
#include "receiver/base/sizes.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/events.h"
#include "receiver/cli/exit_codes.h"
#include "receiver/cli/report.h"
#include "receiver/cli/table.h"
#include "receiver/mirror/mirror_read.h"

static bool wanted(const struct app *app, const struct mirror_list_item *g)
{
    return app->options->operand_count == 0 || mirror_item_is_of_vm(g, app->options->operands[0]);
}

static void put_disk(struct json *j, const struct mirror_list_disk *d)
{
    char root[DIGEST_HEX_BYTES];

    json_object(j, NULL);
    json_text(j, "disk", d->slot);
    json_text(j, "file", d->file);
    json_text(j, "label", d->label);
    json_number(j, "capacity", d->capacity_bytes);
    json_number(j, "of_generation", d->of_generation);
    json_number(j, "damaged_blocks", d->damaged_blocks);
    json_text(j, "read_path", d->read_path);
    json_number(j, "allocated", d->allocated_bytes);
    json_number(j, "read", d->read_bytes);
    json_number(j, "sampled", d->sampled_bytes);
    json_number(j, "changed", d->changed_bytes);
    json_number(j, "sent", d->sent_bytes);
    json_number(j, "stored", d->stored_bytes);
    json_seconds(j, "seconds", d->milliseconds);
    digest_hex(&d->root, root);
    json_text(j, "root", digest_is_zero(&d->root) ? NULL : root);
    json_close(j);
}

static void put_item(struct json *j, const struct mirror_list_item *g)
{
    json_object(j, NULL);
    json_number(j, "generation", g->number);
    json_text(j, "id", g->id);
    json_text(j, "vm", g->vm);
    json_text(j, "uuid", g->uuid);
    json_text(j, "host", g->host);
    json_time(j, "time", g->time);
    json_text(j, "kind", g->kind);
    json_text(j, "outcome", g->outcome);
    if (g->verified != 0)
        json_time(j, "verified", g->verified);
    else
        json_null(j, "verified");
    json_number(j, "size", g->size_bytes);
    json_number(j, "read", g->read_bytes);
    json_number(j, "sent", g->sent_bytes);
    json_number(j, "changed", g->changed_bytes);
    json_number(j, "stored", g->stored_bytes);
    json_text(j, "consistency", g->consistency);
    json_text(j, "data_channel", g->data_channel);
    json_text(j, "read_path", g->read_path);
    json_text(j, "change_source", g->change_source);
    json_bool(j, "damaged", g->damaged);
    json_text(j, "folder", g->folder);
    json_array(j, "disks");
    for (size_t i = 0; i < g->disk_count; i++)
        put_disk(j, &g->disks[i]);
    json_close(j);
    json_close(j);
}

static size_t print_json(struct app *app, const struct mirror_list *l)
{
    struct json *j = report_array_begin(app->report);
    size_t count = 0;

    for (size_t i = 0; j != NULL && i < mirror_list_count(l); i++) {
        if (wanted(app, mirror_list_at(l, i))) {
            put_item(j, mirror_list_at(l, i));
            count++;
        }
    }
    if (j != NULL)
        report_array_end(app->report);
    return count;
}

/* What stands out: that it is not whole, else how it came about. */
static const char *kind_of(const struct mirror_list_item *g)
{
    if (g->damaged)
        return "damaged";
    return strcmp(g->outcome, "ok") == 0 ? g->kind : g->outcome;
}

static int add_row(struct table *t, const struct mirror_list_item *g, struct err *e)
{
    char number[24], time[CLOCK_TEXT_BYTES], checked[SIZE_TEXT_BYTES], size[SIZE_TEXT_BYTES];
    char read[SIZE_TEXT_BYTES], sent[SIZE_TEXT_BYTES], stored[SIZE_TEXT_BYTES], id[9];
    int64_t age = clock_now() - g->verified;
    const char *cells[] = {
        number,
        clock_format_local(time, g->time),
        kind_of(g),
        size_text_short(size, g->size_bytes),
        size_text_short(read, g->read_bytes),
        size_text_short(sent, g->sent_bytes),
        size_text_short(stored, g->stored_bytes),
        g->verified != 0 ? duration_text(checked, age > 0 ? (uint64_t)age : 0) : NULL,
        id,
    };

    snprintf(number, sizeof number, "%llu", (unsigned long long)g->number);
    snprintf(id, sizeof id, "%.8s", g->id);
    return table_row(t, cells, e);
}

/* Disks of a generation that hold another one's content, or have lost some. */
static void print_exceptions(const struct mirror_list_item *g)
{
    char vm[512];

    utf8_show(vm, sizeof vm, g->vm);
    for (size_t i = 0; i < g->disk_count; i++) {
        const struct mirror_list_disk *d = &g->disks[i];

        if (d->damaged_blocks > 0)
            printf("  %s@%llu: %s has lost %llu blocks\n", vm, (unsigned long long)g->number,
                   d->slot, (unsigned long long)d->damaged_blocks);
        if (d->of_generation == 0)
            printf("  %s@%llu: %s was left out and has never been mirrored\n", vm,
                   (unsigned long long)g->number, d->slot);
        else if (d->of_generation != g->number)
            printf("  %s@%llu: %s was left out and is that of generation %llu\n", vm,
                   (unsigned long long)g->number, d->slot, (unsigned long long)d->of_generation);
    }
}

/* The generations of one VM: items from first on that lie in the same folder.  Sets *end. */
static int print_vm(const struct mirror_list *l, size_t first, size_t *end, struct err *e)
{
    static const struct table_column columns[] = {
        { "GEN", true, false },    { "TIME", false, false },   { "KIND", false, false },
        { "SIZE", true, false },   { "READ", true, false },    { "SENT", true, false },
        { "STORED", true, false }, { "CHECKED", true, false }, { "ID", false, false },
    };
    const struct mirror_list_item *g = mirror_list_at(l, first);
    char vm[512], host[256];
    struct table *t = NULL;
    size_t i;
    int rc = -1;

    if (table_new(&t, columns, 9, e) != 0)
        goto out;
    for (i = first; i < mirror_list_count(l); i++) {
        if (strcmp(mirror_list_at(l, i)->folder, g->folder) != 0)
            break;
        if (add_row(t, mirror_list_at(l, i), e) != 0)
            goto out;
    }
    utf8_show(vm, sizeof vm, g->vm_now);
    utf8_show(host, sizeof host, g->host);
    g = mirror_list_at(l, i - 1);
    printf("%s on %s, %zu disk%s\n", vm, host, g->disk_count, g->disk_count == 1 ? "" : "s");
    table_print(t, stdout, app_columns(), 2);
    for (*end = i, i = first; i < *end; i++)
        print_exceptions(mirror_list_at(l, i));
    rc = 0;

out:
    table_free(t);
    return rc;
}

/* A first mirror that was cut shows nowhere else. */
static int tell_unfinished(const char *place, struct err *e)
{
    char **names = NULL;
    size_t count = 0;

    if (mirror_unfinished(place, &names, &count, e) != 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        log_note("%s: the first mirror of %s is not finished; `vmferry mirror` goes on with it",
                 place, names[i]);
    mirror_folders_free(names, count);
    return 0;
}

static int print_tables(struct app *app, const struct mirror_list *l, size_t *count, struct err *e)
{
    for (size_t i = 0, end = 0; i < mirror_list_count(l); i = end) {
        if (!wanted(app, mirror_list_at(l, i))) {
            end = i + 1;
            continue;
        }
        if (*count > 0)
            printf("\n");
        if (print_vm(l, i, &end, e) != 0)
            return -1;
        *count += end - i;
    }
    return 0;
}

int cmd_list(struct app *app, struct err *e)
{
    const struct options *o = app->options;
    struct mirror_env env = events_mirror_env(app);
    struct mirror_list *l = NULL;
    size_t count = 0, problems;
    int rc = -1;

    if (mirror_list_load(&l, o->mirror, &env, e) != 0)
        goto out;
    problems = mirror_list_problem_count(l);
    for (size_t i = 0; i < problems; i++)
        log_error("%s", mirror_list_problem(l, i));
    if (o->operand_count > 0) {
        /* Nothing to print is an error here, and an error comes instead of the array. */
        for (size_t i = 0; i < mirror_list_count(l); i++)
            count += wanted(app, mirror_list_at(l, i));
        if (count == 0) {
            err_set(e, ERR_NOT_FOUND, "%s holds no mirror of \"%s\"", o->mirror, o->operands[0]);
            goto out;
        }
        count = 0;
    }
    if (o->json)
        count = print_json(app, l);
    else if (print_tables(app, l, &count, e) != 0)
        goto out;
    if (count == 0 && problems == 0)
        log_note("%s holds no mirrors yet", o->mirror);
    if (tell_unfinished(o->mirror, e) != 0)
        goto out;
    app->exit_code = problems > 0 ? EXIT_INTEGRITY : EXIT_OK;
    rc = 0;

out:
    mirror_list_free(l);
    return rc;
}
