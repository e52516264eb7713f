#include "receiver/cli/connect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/base/state.h"
#include "receiver/base/stop.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/host/journal.h"
#include "receiver/host/reaper.h"
#include "receiver/ssh/libssh2_transport.h"
#include "receiver/ssh/transport.h"

enum { PASSWORD_COMMAND_S = 120 };

/* ---- What the login asks of us ---- */

/* The password from its source, which is asked only once in the life of the connection. */
static int get_password(struct connection *c, struct err *e)
{
    const struct options *o = c->app->options;
    char prompt[sizeof c->target.user + sizeof c->target.name + 32];

    if (c->password.text != NULL)
        return 0;
    if (o->password_command != NULL)
        return secret_from_command(&c->password, o->password_command, PASSWORD_COMMAND_S, e);
    snprintf(prompt, sizeof prompt, "Password of %s@%s: ", c->target.user, c->target.name);
    return secret_from_terminal(&c->password, prompt, false, e);
}

static int give_password(void *context, struct bytes *answer, struct err *e)
{
    struct connection *c = context;

    if (get_password(c, e) != 0)
        return -1;
    return bytes_append(answer, c->password.text, c->password.count, e);
}

static int ask(void *context, const char *prompt, bool echo, struct bytes *answer, struct err *e)
{
    struct secret said = { 0 };
    char shown[512];
    int rc;

    (void)context;
    utf8_show(shown, sizeof shown, prompt);
    rc = secret_from_terminal(&said, shown, echo, e);
    if (rc == 0)
        rc = bytes_append(answer, said.text, said.count, e);
    secret_free(&said);
    return rc;
}

static void tell(void *context, const char *line)
{
    (void)context;
    log_info("%s", line);
}

static void tell_accepted(void *context, const char *line)
{
    (void)context;
    log_note("%s", line);
}

/* ---- The connection ---- */

/* Where host keys are looked up: the user's files and ours, or the one that was named. */
static int find_known_hosts(struct connection *c, struct err *e)
{
    const struct options *o = c->app->options;
    const char *home = getenv("HOME");
    int rc = 0;

    if (o->known_hosts != NULL) {
        c->own_known_hosts = strdup(o->known_hosts);
        return c->own_known_hosts != NULL ? 0 : err_sys(e, "getting memory");
    }
    if (asprintf(&c->own_known_hosts, "%s/known_hosts", state_dir(c->app->state)) < 0) {
        c->own_known_hosts = NULL;
        rc = -1;
    }
    if (home != NULL && asprintf(&c->known_hosts[0], "%s/.ssh/known_hosts", home) < 0) {
        c->known_hosts[0] = NULL;
        rc = -1;
    }
    c->known_hosts[1] = strdup("/etc/ssh/ssh_known_hosts");
    if (rc != 0 || c->known_hosts[1] == NULL)
        return err_sys(e, "getting memory");
    return 0;
}

int connection_init(struct connection *c, struct app *app, const char *host, struct err *e)
{
    memset(c, 0, sizeof *c);
    c->app = app;
    if (host_target_parse(&c->target, host, e) != 0)
        return -1;
    if (app->options->password_file != NULL &&
        secret_from_file(&c->password, app->options->password_file, e) != 0) {
        if (e->code == ERR_NOT_FOUND || e->code == ERR_SYSTEM)
            e->code = ERR_USAGE;
        return -1;
    }
    if (app_state(app, e) != 0)
        return -1;
    return find_known_hosts(c, e);
}

void connection_end(struct connection *c)
{
    secret_free(&c->password);
    free(c->known_hosts[0]);
    free(c->known_hosts[1]);
    free(c->own_known_hosts);
    c->known_hosts[0] = c->known_hosts[1] = c->own_known_hosts = NULL;
}

int connection_open(void *connection, struct transport **out, struct err *e)
{
    struct connection *c = connection;
    const struct options *o = c->app->options;
    bool terminal = secret_can_ask();
    const char *files[2];
    size_t file_count = 0;
    struct ssh_options s;

    for (size_t i = 0; i < 2; i++) {
        if (c->known_hosts[i] != NULL)
            files[file_count++] = c->known_hosts[i];
    }
    ssh_options_init(&s);
    s.host = c->target.name;
    s.port = c->target.port;
    s.user = c->target.user;
    s.identities = o->identities;
    s.identity_count = o->identity_count;
    s.default_identities = o->identity_count == 0;
    if (c->password.text != NULL || o->password_command != NULL || terminal)
        s.secret = give_password;
    if (terminal)
        s.ask = ask;
    s.info = tell;
    s.accepted = tell_accepted;
    s.context = c;
    s.known_hosts = files;
    s.known_hosts_count = file_count;
    s.own_known_hosts = c->own_known_hosts;
    s.accept_new_host_key = o->accept_new_host_key;
    s.cancel_fd = stop_fd();
    if (ssh_connect(out, &s, e) == 0)
        return 0;
    if (e->code == ERR_STOPPED)
        return -1;
    /* What the user has to mend must name the host, whichever layer said it. */
    return strstr(e->text, c->target.name) != NULL ? -1 : err_add(e, "%s", c->target.name);
}

/* ---- The session ---- */

static bool stop_hook(void *context)
{
    (void)context;
    return stop_requested();
}

int visit_begin(struct visit *s, struct app *app, const char *host, struct err *e)
{
    static const struct host_hooks hooks = { .stop = stop_hook };

    memset(s, 0, sizeof *s);
    if (connection_init(&s->connection, app, host, e) != 0 ||
        connection_open(&s->connection, &s->transport, e) != 0)
        return -1;
    if (host_init(&s->host, s->transport, s->connection.target.name, s->connection.target.port,
                  s->connection.target.user, &hooks, e) != 0)
        return -1;
    s->host_ready = true;
    if (host_identify(&s->host, e) != 0)
        return err_add(e, "%s", s->connection.target.name);
    log_info("%s is %s", s->connection.target.name, s->host.product);
    return 0;
}

int visit_journal(struct visit *s, struct err *e)
{
    struct state *state = s->connection.app->state;

    return journal_open(&s->journal, state_fd(state), state_install_id(state), e);
}

void visit_limits(struct visit *s)
{
    const struct reaper_options wish = { .limits = true };
    struct reaped_list list = { 0 };
    struct err e;

    if ((s->journal == NULL && visit_journal(s, &e) != 0) ||
        reaper_run(&s->host, s->journal, &wish, &list, &e) != 0)
        log_info("kept snapshots: %s", e.text);
    for (size_t i = 0; i < list.count; i++) {
        if (list.items[i].kind == REAPED_FAILED)
            log_warning("%s", list.items[i].text);
        else
            log_note("%s", list.items[i].text);
    }
    reaped_list_free(&list);
}

void visit_end(struct visit *s)
{
    journal_close(s->journal);
    s->journal = NULL;
    if (s->host_ready)
        host_end(&s->host);
    s->host_ready = false;
    if (s->transport != NULL)
        s->transport->ops->close(s->transport);
    s->transport = NULL;
    connection_end(&s->connection);
}
