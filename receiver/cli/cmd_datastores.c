/* vmferry datastores HOST */
#include "protocol/base/err.h"
#include "receiver/base/json.h"
#include "receiver/base/sizes.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/connect.h"
#include "receiver/cli/report.h"
#include "receiver/cli/table.h"
#include "receiver/host/datastores.h"

static void print_json(struct app *app, const struct datastore_list *l)
{
    struct json *j = report_array_begin(app->report);

    if (j == NULL)
        return;
    for (size_t i = 0; i < l->count; i++) {
        const struct datastore *d = &l->items[i];

        json_object(j, NULL);
        json_text(j, "name", d->name);
        json_text(j, "type", d->type);
        json_number(j, "size", d->size_bytes);
        json_number(j, "free", d->free_bytes);
        json_text(j, "path", d->path);
        json_close(j);
    }
    report_array_end(app->report);
}

static int print_table(const struct datastore_list *l, struct err *e)
{
    static const struct table_column columns[] = {
        { "NAME", false, true }, { "TYPE", false, false },  { "SIZE", true, false },
        { "FREE", true, false }, { "FREE %", true, false }, { "PATH", false, true },
    };
    struct table *t = NULL;
    int rc = -1;

    if (table_new(&t, columns, 6, e) != 0)
        goto out;
    for (size_t i = 0; i < l->count; i++) {
        const struct datastore *d = &l->items[i];
        char size[SIZE_TEXT_BYTES], free[SIZE_TEXT_BYTES], share[SIZE_TEXT_BYTES], path[512];
        const char *cells[] = {
            d->name,
            d->type,
            size_text(size, d->size_bytes),
            size_text(free, d->free_bytes),
            share_text(share, d->free_bytes, d->size_bytes),
            path,
        };

        /* The host's link by name leads to the same place and fits into a line. */
        if (d->name[0] == 0 ||
            snprintf(path, sizeof path, "/vmfs/volumes/%s", d->name) >= (int)sizeof path)
            snprintf(path, sizeof path, "%s", d->path);

        if (table_row(t, cells, e) != 0)
            goto out;
    }
    table_print(t, stdout, app_columns(), 0);
    rc = 0;

out:
    table_free(t);
    return rc;
}

int cmd_datastores(struct app *app, struct err *e)
{
    struct datastore_list l = { 0 };
    struct visit s;
    int rc = -1;

    if (visit_begin(&s, app, app->options->operands[0], e) != 0)
        goto out;
    visit_limits(&s);
    if (host_datastores(&s.host, &l, e) != 0)
        goto out;
    if (app->options->json)
        print_json(app, &l);
    else if (print_table(&l, e) != 0)
        goto out;
    rc = 0;

out:
    datastore_list_free(&l);
    visit_end(&s);
    return rc;
}
