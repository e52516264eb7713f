/* vmferry doctor HOST [VM...] */
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/json.h"
#include "receiver/base/log.h"
#include "receiver/cli/agent_file.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/connect.h"
#include "receiver/cli/doctor_channel.h"
#include "receiver/cli/exit_codes.h"
#include "receiver/cli/report.h"
#include "receiver/cli/table.h"
#include "receiver/host/doctor.h"
#include "receiver/host/room.h"

/* Where the text of a check begins, behind "ok    check         ". */
enum { TEXT_COLUMN = 20 };

static void show(void *context, const struct doctor_item *item)
{
    const struct app *app = context;
    unsigned columns = app_columns();
    char head[96], text[1400];

    if (app->options->json)
        return;
    snprintf(head, sizeof head, "%-5s %-13s ", doctor_result_name(item->result), item->check);
    snprintf(text, sizeof text, "%s%s%s", item->vm != NULL ? item->vm : "",
             item->vm != NULL ? ": " : "", item->detail != NULL ? item->detail : "");
    text_wrap(stdout, head, text, TEXT_COLUMN, columns);
    if (item->remedy != NULL && item->remedy[0] != 0)
        text_wrap(stdout, "", item->remedy, TEXT_COLUMN + 2, columns);
    fflush(stdout);
}

static void put_item(struct json *j, const struct doctor_item *item)
{
    json_object(j, NULL);
    json_text(j, "check", item->check);
    json_text(j, "vm", item->vm);
    json_text(j, "result", doctor_result_name(item->result));
    json_text(j, "detail", item->detail);
    json_text(j, "remedy", item->remedy);
    json_close(j);
}

/* The results of --json, and the exit code. */
static void conclude(struct app *app, const struct doctor_report *login,
                     const struct doctor_report *rest)
{
    const struct doctor_report *parts[] = { login, rest };
    struct json *j = app->options->json ? report_array_begin(app->report) : NULL;
    size_t counts[3] = { 0 };

    for (size_t p = 0; p < 2; p++) {
        for (size_t i = 0; i < parts[p]->count; i++) {
            counts[parts[p]->items[i].result]++;
            if (j != NULL)
                put_item(j, &parts[p]->items[i]);
        }
    }
    if (j != NULL)
        report_array_end(app->report);
    else if (counts[DOCTOR_FAIL] > 0)
        printf("%zu of %zu checks failed\n", counts[DOCTOR_FAIL],
               counts[DOCTOR_OK] + counts[DOCTOR_WARN] + counts[DOCTOR_FAIL]);
    else if (counts[DOCTOR_WARN] > 0)
        printf("ready, with %zu warning%s\n", counts[DOCTOR_WARN],
               counts[DOCTOR_WARN] == 1 ? "" : "s");
    else
        printf("ready\n");
    app->exit_code = counts[DOCTOR_FAIL] > 0 ? EXIT_OTHER : EXIT_OK;
}

static const char *remedy_of(enum err_code code)
{
    switch (code) {
    case ERR_NETWORK:
        return "check the name, the port, and that SSH is enabled on the host";
    case ERR_AUTH:
        return "check the host key, the user and the password or key";
    default:
        return "";
    }
}

/* Log in; a failure is a result here, unless it is the user's own mistake. */
static int try_login(struct app *app, struct visit *s, struct doctor_report *login, bool *in,
                     struct err *e)
{
    int rc;

    *in = visit_begin(s, app, app->options->operands[0], e) == 0;
    if (!*in && (e->code == ERR_USAGE || e->code == ERR_NOT_FOUND || e->code == ERR_REFUSED ||
                 e->code == ERR_STOPPED))
        return -1;
    if (*in)
        rc = doctor_add(login, "login", NULL, DOCTOR_OK, "", "%s@%s, port %u",
                        s->connection.target.user, s->connection.target.name,
                        (unsigned)s->connection.target.port);
    else
        rc = doctor_add(login, s->transport != NULL ? "shell" : "login", NULL, DOCTOR_FAIL,
                        remedy_of(e->code), "%s", e->text);
    if (rc != 0)
        return err_set(e, ERR_SYSTEM, "getting memory for the results");
    show(app, &login->items[login->count - 1]);
    return 0;
}

int cmd_doctor(struct app *app, struct err *e)
{
    const struct options *o = app->options;
    struct room_rule rule = { .bytes = o->min_free.bytes, .percent = o->min_free.percent };
    struct doctor_report login = { 0 }, rest = { 0 };
    char agent[AGENT_PATH_BYTES];
    struct doctor_wish wish = {
        .agent_file = agent,
        .agent_dir = o->agent_dir,
        .rule = &rule,
        .operands = o->operands + 1,
        .operand_count = o->operand_count - 1,
        .try_channel = doctor_try_channel,
        .show = show,
        .context = app,
    };
    struct visit s = { 0 };
    bool in = false;
    int rc = -1;

    if (agent_find(o->agent_file, agent, e) != 0) {
        if (o->agent_file != NULL)
            goto out;
        wish.agent_file = NULL;
    }
    if (try_login(app, &s, &login, &in, e) != 0)
        goto out;
    if (in)
        visit_limits(&s);
    if (in && ((s.journal == NULL && visit_journal(&s, e) != 0) ||
               doctor_run(&s.host, s.journal, &wish, &rest, e) != 0))
        goto out;
    conclude(app, &login, &rest);
    rc = 0;

out:
    doctor_report_free(&login);
    doctor_report_free(&rest);
    visit_end(&s);
    return rc;
}
