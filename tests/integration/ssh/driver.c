#include "tests/integration/ssh/driver.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/bytes.h"

static unsigned secrets_asked;

/* --password=TEXT and --ask=TEXT of the command line. */
struct given {
    const char *password;
    const char *answer;
    const char *identities[4];
    const char *known_hosts[4];
    struct ssh_options o;
    const char *words[8];
    size_t word_count;
};

static int give_secret(void *context, struct bytes *answer, struct err *e)
{
    struct given *g = context;

    secrets_asked++;
    return bytes_append(answer, g->password, strlen(g->password), e);
}

static int give_answer(void *context, const char *prompt, bool echo, struct bytes *answer,
                       struct err *e)
{
    struct given *g = context;

    fprintf(stderr, "asked: %s (echo %d)\n", prompt, echo);
    return bytes_append(answer, g->answer, strlen(g->answer), e);
}

static void show(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "info: %s\n", line);
}

static const char *value_of(const char *argument, const char *name)
{
    size_t count = strlen(name);

    return strncmp(argument, name, count) == 0 && argument[count] == '=' ? argument + count + 1
                                                                         : NULL;
}

/* A descriptor that is readable at once. */
static int cancelled(void)
{
    int ends[2];

    CHECK(pipe(ends) == 0 && write(ends[1], "x", 1) == 1);
    return ends[0];
}

static bool parse_option(struct given *g, const char *a)
{
    struct ssh_options *o = &g->o;
    const char *v;

    if ((v = value_of(a, "--host")) != NULL)
        o->host = v;
    else if ((v = value_of(a, "--port")) != NULL)
        o->port = (uint16_t)atoi(v);
    else if ((v = value_of(a, "--user")) != NULL)
        o->user = v;
    else if ((v = value_of(a, "--identity")) != NULL && o->identity_count < 4)
        g->identities[o->identity_count++] = v;
    else if ((v = value_of(a, "--known-hosts")) != NULL && o->known_hosts_count < 4)
        g->known_hosts[o->known_hosts_count++] = v;
    else if ((v = value_of(a, "--own")) != NULL)
        o->own_known_hosts = v;
    else if ((v = value_of(a, "--password")) != NULL)
        g->password = v;
    else if ((v = value_of(a, "--ask")) != NULL)
        g->answer = v;
    else if ((v = value_of(a, "--ciphers")) != NULL)
        o->ciphers = v;
    else if ((v = value_of(a, "--methods")) != NULL)
        o->methods = (unsigned)atoi(v);
    else if ((v = value_of(a, "--send-buffer")) != NULL)
        o->send_buffer_bytes = atoi(v);
    else if ((v = value_of(a, "--timeout-ms")) != NULL)
        o->timeout_ms = (unsigned)atoi(v);
    else if ((v = value_of(a, "--keepalive-ms")) != NULL)
        o->keepalive_ms = (unsigned)atoi(v);
    else if ((v = value_of(a, "--silence-ms")) != NULL)
        o->silence_ms = (unsigned)atoi(v);
    else if (strcmp(a, "--accept") == 0)
        o->accept_new_host_key = true;
    else if (strcmp(a, "--cancel") == 0)
        o->cancel_fd = cancelled();
    else if (strcmp(a, "--legacy") == 0)
        o->legacy = true;
    else if (strncmp(a, "--", 2) != 0 && g->word_count < 8)
        g->words[g->word_count++] = a;
    else
        return false;
    return true;
}

static unsigned number(const struct given *g, size_t index)
{
    CHECK(index < g->word_count);
    return (unsigned)strtoul(g->words[index], NULL, 10);
}

static void run_case(struct transport *t, const struct given *g)
{
    const char *name = g->words[0];

    if (strcmp(name, "login") == 0)
        t->ops->close(t);
    else if (strcmp(name, "commands") == 0)
        case_commands(t);
    else if (strcmp(name, "channels") == 0)
        case_channels(t);
    else if (strcmp(name, "duplex") == 0)
        case_duplex(t, number(g, 1), number(g, 2));
    else if (strcmp(name, "slow-reader") == 0)
        case_slow_reader(t);
    else if (strcmp(name, "upload") == 0)
        case_upload(t, g->words[1]);
    else if (strcmp(name, "idle") == 0)
        case_idle(t, number(g, 1));
    else if (strcmp(name, "cut") == 0)
        case_cut(t);
    else if (strcmp(name, "close-while-busy") == 0)
        case_close_while_busy(t);
    else
        CHECK(!"a case of that name");
}

int main(int argc, char **argv)
{
    struct given g = { 0 };
    struct transport *t = NULL;
    struct err e = { 0 };

    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    ssh_options_init(&g.o);
    g.o.default_identities = false;
    g.o.methods &= ~(unsigned)SSH_METHOD_AGENT;
    for (int i = 1; i < argc; i++)
        if (!parse_option(&g, argv[i])) {
            printf("usage: %s\n", argv[i]);
            return 2;
        }
    CHECK(g.word_count > 0);
    g.o.identities = g.identities;
    g.o.known_hosts = g.known_hosts;
    g.o.info = show;
    g.o.context = &g;
    if (g.password != NULL)
        g.o.secret = give_secret;
    if (g.answer != NULL)
        g.o.ask = give_answer;
    if (ssh_connect(&t, &g.o, &e) != 0) {
        CHECK(t == NULL && e.code != ERR_NONE && secrets_asked <= 1);
        printf("%s: %s\n", err_code_name(e.code), e.text);
        return 3;
    }
    run_case(t, &g);
    printf("ok\n");
    return 0;
}
