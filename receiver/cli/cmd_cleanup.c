/* vmferry cleanup HOST */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/base/json.h"
#include "receiver/base/log.h"
#include "receiver/base/sizes.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/connect.h"
#include "receiver/cli/exit_codes.h"
#include "receiver/cli/report.h"
#include "receiver/cli/table.h"
#include "receiver/host/reaper.h"

/* What the summary shows beside exit code and time; lives until that is printed. */
struct outcome {
    struct reaped_list reaped;
    struct leftover_list left;
};

static const char *reaped_name(enum reaped_kind kind)
{
    static const char *const names[] = { "removed", "nothing",  "waiting",
                                         "in-use",  "retained", "failed" };

    return names[kind];
}

static void put_leftover(struct json *j, const struct leftover *l)
{
    json_object(j, NULL);
    json_text(j, "vm", l->vm_name);
    json_number(j, "vmid", l->vmid);
    json_text(j, "snapshot", l->name);
    json_text(j, "token", l->token);
    json_text(j, "kind", journal_purpose_name(l->purpose));
    json_bool(j, "ours", l->ours);
    json_bool(j, "journalled", l->journalled);
    if (l->created > 0)
        json_time(j, "time", l->created);
    else
        json_null(j, "time");
    json_text(j, "kept_for", l->store);
    if (l->store != NULL) {
        json_time(j, "expires", l->expires);
        json_number(j, "delta_bytes", l->delta_bytes);
    }
    json_close(j);
}

static void put_summary(void *context, struct json *j)
{
    const struct outcome *o = context;

    json_array(j, "items");
    for (size_t i = 0; i < o->reaped.count; i++) {
        const struct reaped *r = &o->reaped.items[i];

        json_object(j, NULL);
        json_text(j, "what", r->entry.kind == JOURNAL_AGENT ? "agent" : "snapshot");
        json_text(j, "vm", r->entry.vm_name[0] != 0 ? r->entry.vm_name : NULL);
        json_text(j, "token", r->entry.token);
        json_text(j, "result", reaped_name(r->kind));
        json_text(j, "message", r->text);
        json_close(j);
    }
    json_close(j);
    json_array(j, "snapshots");
    for (size_t i = 0; i < o->left.count; i++)
        put_leftover(j, &o->left.items[i]);
    json_close(j);
}

static void free_outcome(void *context)
{
    struct outcome *o = context;

    reaped_list_free(&o->reaped);
    leftover_list_free(&o->left);
    free(o);
}

static void tell_reaped(struct app *app, const struct reaped_list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct reaped *r = &l->items[i];

        if (r->kind == REAPED_FAILED)
            log_warning("%s", r->text);
        else if (!app->options->json)
            text_wrap(stdout, "", r->text, 0, app_columns());
    }
}

/* Snapshots with our kind of name that stay, and how to get rid of them. */
static int tell_leftovers(const struct leftover_list *l, struct err *e)
{
    static const struct table_column columns[] = {
        { "VM", false, true },     { "KIND", false, false }, { "TAKEN", false, false },
        { "WHOSE", false, false }, { "SIZE", true, false },  { "TOKEN", false, false },
    };
    struct table *t = NULL;
    int rc = -1;

    if (l->count == 0)
        return 0;
    if (table_new(&t, columns, ARRAY_COUNT(columns), e) != 0)
        goto out;
    for (size_t i = 0; i < l->count; i++) {
        const struct leftover *s = &l->items[i];
        char time[CLOCK_TEXT_BYTES], size[SIZE_TEXT_BYTES];
        const char *cells[] = {
            s->vm_name,
            journal_purpose_name(s->purpose),
            s->created > 0 ? clock_format_local(time, s->created) : NULL,
            s->ours ? "ours" : "other",
            s->store != NULL ? size_text_short(size, s->delta_bytes) : NULL,
            s->token,
        };

        if (table_row(t, cells, e) != 0)
            goto out;
    }
    printf("Snapshots of vmferry on this host:\n");
    table_print(t, stdout, app_columns(), 2);
    printf("Kept ones of ours go with --retained, others with --foreign TOKEN.\n");
    rc = 0;

out:
    table_free(t);
    return rc;
}

/* --dry-run: what the journal knows of this host, untouched. */
static int tell_journal(struct app *app, struct visit *s, struct err *e)
{
    struct journal_list l = { 0 };
    size_t count = 0;

    if (journal_list(s->journal, &l, e) != 0)
        return -1;
    for (size_t i = 0; i < l.count; i++) {
        const struct journal_entry *x = &l.items[i];

        if (strcmp(x->host_uuid, s->host.uuid) != 0)
            continue;
        count++;
        if (app->options->json)
            continue;
        if (x->kind == JOURNAL_AGENT)
            printf("would remove the agent's folder %s%s\n", x->folder,
                   l.locked[i] ? " (in use now)" : "");
        else if (x->purpose == JOURNAL_KEEP && !app->options->retained)
            printf("would leave the snapshot %s of %s, kept for %s, if it is within its limits%s\n",
                   x->token, x->vm_name, x->store, l.locked[i] ? " (in use now)" : "");
        else
            printf("would look for the %s snapshot %s of %s and remove it%s\n",
                   journal_purpose_name(x->purpose), x->token, x->vm_name,
                   l.locked[i] ? " (in use now)" : "");
    }
    if (count == 0 && !app->options->json)
        printf("The journal knows of nothing on this host.\n");
    journal_list_free(&l);
    return 0;
}

static int remove_foreign(struct app *app, struct visit *s, struct err *e)
{
    char text[320] = "";

    if (app->options->dry_run) {
        if (!app->options->json)
            printf("would remove the snapshot with the token %s\n", app->options->foreign);
        return 0;
    }
    if (reaper_remove_foreign(&s->host, s->journal, app->options->foreign, text, sizeof text, e) !=
        0)
        return -1;
    if (!app->options->json)
        text_wrap(stdout, "", text, 0, app_columns());
    return 0;
}

static int reap(struct app *app, struct visit *s, struct outcome *o, struct err *e)
{
    const struct reaper_options wish = { .retained = app->options->retained };

    if (app->options->dry_run)
        return tell_journal(app, s, e);
    if (reaper_run(&s->host, s->journal, &wish, &o->reaped, e) != 0)
        return -1;
    tell_reaped(app, &o->reaped);
    if (o->reaped.count == 0 && !app->options->json)
        printf("Nothing of ours was left on this host.\n");
    app->exit_code = o->reaped.failed > 0 ? EXIT_CLEANUP : EXIT_OK;
    return 0;
}

int cmd_cleanup(struct app *app, struct err *e)
{
    struct outcome *o = calloc(1, sizeof *o);
    struct visit s;
    int rc = -1;

    if (o == NULL)
        return err_sys(e, "getting memory");
    app->summary = put_summary;
    app->summary_end = free_outcome;
    app->summary_context = o;
    if (visit_begin(&s, app, app->options->operands[0], e) != 0 || visit_journal(&s, e) != 0)
        goto out;
    if (app->options->foreign != NULL) {
        rc = remove_foreign(app, &s, e);
        goto out;
    }
    if (reap(app, &s, o, e) != 0 || reaper_leftovers(&s.host, s.journal, &o->left, e) != 0)
        goto out;
    if (!app->options->json && tell_leftovers(&o->left, e) != 0)
        goto out;
    rc = 0;

out:
    visit_end(&s);
    return rc;
}
