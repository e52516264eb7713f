/* vmferry key list|add|remove SLOT|change|export FILE --repo REPO */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/base/json.h"
#include "receiver/base/log.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/repository.h"
#include "receiver/cli/table.h"

struct slots {
    struct repo_slot *items;
    size_t count, own;
};

static void put_slots(void *context, struct json *j)
{
    const struct slots *s = context;

    json_array(j, "slots");
    for (size_t i = 0; i < s->count; i++) {
        json_object(j, NULL);
        json_text(j, "slot", s->items[i].name);
        json_text(j, "kind", s->items[i].key_file ? "key-file" : "passphrase");
        json_text(j, "label", s->items[i].label);
        json_time(j, "made", (int64_t)s->items[i].made);
        json_bool(j, "own", i == s->own);
        json_close(j);
    }
    json_close(j);
}

static void free_slots(void *context)
{
    struct slots *s = context;

    free(s->items);
    free(s);
}

static int print_slots(const struct slots *s, struct err *e)
{
    static const struct table_column columns[] = {
        { "SLOT", false, false }, { "KIND", false, false }, { "MADE", false, false },
        { "LABEL", false, true }, { "", false, false },
    };
    struct table *t = NULL;
    int rc = 0;

    if (table_new(&t, columns, ARRAY_COUNT(columns), e) != 0)
        return -1;
    for (size_t i = 0; i < s->count && rc == 0; i++) {
        char made[CLOCK_TEXT_BYTES];
        const char *cells[] = {
            s->items[i].name,
            s->items[i].key_file ? "key file" : "passphrase",
            clock_format_local(made, (int64_t)s->items[i].made),
            s->items[i].label,
            i == s->own ? "opened it now" : "",
        };

        rc = table_row(t, cells, e);
    }
    if (rc == 0)
        table_print(t, stdout, app_columns(), 0);
    table_free(t);
    return rc;
}

/* The slots as they are at the end stand in the summary, whatever was done. */
static int show_slots(struct app *app, struct repo *r, struct err *e)
{
    struct slots *s = calloc(1, sizeof *s);

    if (s == NULL)
        return err_sys(e, "getting memory");
    app->summary_context = s;
    app->summary_end = free_slots;
    if (repo_slot_list(r, &s->items, &s->count, &s->own, e) != 0)
        return -1;
    app->summary = put_slots;
    return app->options->json ? 0 : print_slots(s, e);
}

static int add(struct app *app, struct repo *r, const char *label, struct err *e)
{
    struct secret passphrase = { 0 };
    struct repo_hardness hardness = { 0 };
    int rc = repository_new_passphrase(&passphrase, app, e);

    if (rc == 0)
        rc = repo_slot_add(r, &passphrase, &hardness, label, NULL, e);
    secret_free(&passphrase);
    return rc;
}

/* The new one first: at no moment is there none. */
static int change(struct app *app, struct repo *r, struct err *e)
{
    struct repo_slot *slots = NULL;
    size_t count, own;
    int rc;

    if (repo_slot_list(r, &slots, &count, &own, e) != 0)
        return -1;
    if (slots[own].key_file)
        rc = err_set(e, ERR_USAGE,
                     "it was opened with a key file: change wants the passphrase "
                     "that is to be changed; `key add` adds one");
    else
        rc = add(app, r, slots[own].label, e);
    if (rc == 0)
        rc = repo_slot_remove(r, slots[own].name, true, e);
    free(slots);
    return rc;
}

static int export_key(struct repo *r, const char *path, struct err *e)
{
    if (repo_slot_export(r, path, "key file", NULL, e) != 0)
        return -1;
    log_note("%s opens this repository without a passphrase: keep it elsewhere, and safe", path);
    return 0;
}

static const struct verb {
    const char *name;
    size_t operands; /* with the verb itself */
    bool writes;
} verbs[] = {
    { "list", 1, false },  { "add", 1, true },    { "remove", 2, true },
    { "change", 1, true }, { "export", 2, true },
};

static const struct verb *find_verb(const struct options *o, struct err *e)
{
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++) {
        if (strcmp(verbs[i].name, o->operands[0]) != 0)
            continue;
        if (o->operand_count == verbs[i].operands)
            return &verbs[i];
        err_set(e, ERR_USAGE, "key %s takes %s", verbs[i].name,
                verbs[i].operands == 1                 ? "no more operands"
                : strcmp(verbs[i].name, "remove") == 0 ? "the slot, as key list shows it"
                                                       : "the file to write");
        return NULL;
    }
    err_set(e, ERR_USAGE, "key is list, add, remove SLOT, change or export FILE");
    return NULL;
}

int cmd_key(struct app *app, struct err *e)
{
    const struct options *o = app->options;
    const struct verb *v = find_verb(o, e);
    struct repository r = { 0 };
    int rc = -1;

    if (v == NULL)
        return -1;
    if (repository_open(&r, app, REPO_SHARED, !v->writes, e) != 0)
        goto out;
    if (strcmp(v->name, "add") == 0)
        rc = add(app, r.repo, "added", e);
    else if (strcmp(v->name, "remove") == 0)
        rc = repo_slot_remove(r.repo, o->operands[1], o->yes, e);
    else if (strcmp(v->name, "change") == 0)
        rc = change(app, r.repo, e);
    else if (strcmp(v->name, "export") == 0)
        rc = export_key(r.repo, o->operands[1], e);
    else
        rc = 0;
    if (rc == 0)
        rc = show_slots(app, r.repo, e);

out:
    repository_close(&r);
    return rc;
}
