/*
 * What happens at the points of receiver/base/failpoint.h, in programs built for tests.
 *
 *     VMFERRY_FAILPOINT=NAME:N:ACTION[,NAME:N:ACTION...]
 *
 * At the Nth time that the process comes to the point NAME:
 *     kill          it dies as by SIGKILL
 *     stop          it stops as by SIGSTOP, and goes on with SIGCONT
 *     error[=CODE]  the step fails, this once; CODE as err_code_name has it ("space"), else
 * "system" errors[=CODE] the same from then on
 *
 * VMFERRY_FAILPOINT_LOG=FILE: the name of each point that is come to goes to FILE, one per line.
 * An order that cannot be read ends the process: a test must not pass because nothing was armed.
 */
#include "receiver/base/failpoint.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"

enum { ORDERS_MAX = 8, NAME_ROOM = 64 };

struct order {
    char name[NAME_ROOM], action[16];
    unsigned long nth, seen;
    enum err_code code;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static struct order orders[ORDERS_MAX];
static size_t order_count;
static bool is_read;
static int log_fd = -1;

static void give_up(const char *text)
{
    fprintf(stderr, "VMFERRY_FAILPOINT: cannot read \"%s\"\n", text);
    _exit(2);
}

static enum err_code code_of(const char *name)
{
    for (int code = ERR_NONE + 1; code < ERR_CODE_COUNT; code++)
        if (strcmp(err_code_name((enum err_code)code), name) == 0)
            return (enum err_code)code;
    give_up(name);
    return ERR_NONE;
}

static void read_order(const char *text)
{
    struct order *o = &orders[order_count];
    char *code;

    if (order_count == ORDERS_MAX ||
        sscanf(text, "%63[^:]:%lu:%15s", o->name, &o->nth, o->action) != 3 || o->nth == 0)
        give_up(text);
    o->code = ERR_SYSTEM;
    code = strchr(o->action, '=');
    if (code != NULL) {
        *code = '\0';
        o->code = code_of(code + 1);
    }
    if (strcmp(o->action, "kill") != 0 && strcmp(o->action, "stop") != 0 &&
        strcmp(o->action, "error") != 0 && strcmp(o->action, "errors") != 0)
        give_up(text);
    order_count++;
}

static void read_orders(void)
{
    const char *text = getenv("VMFERRY_FAILPOINT");
    const char *log = getenv("VMFERRY_FAILPOINT_LOG");
    char copy[512], *rest = copy, *one;

    is_read = true;
    if (log != NULL)
        log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (text == NULL)
        return;
    if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy)
        give_up(text);
    while ((one = strsep(&rest, ",")) != NULL)
        read_order(one);
}

static void note(const char *name)
{
    char line[NAME_ROOM + 1];
    int n = snprintf(line, sizeof line, "%s\n", name);

    if (log_fd >= 0 && n > 0 && write(log_fd, line, (size_t)n) != n)
        give_up("VMFERRY_FAILPOINT_LOG");
}

static int obey(const struct order *o, struct err *e)
{
    if (strcmp(o->action, "kill") == 0)
        kill(getpid(), SIGKILL);
    if (strcmp(o->action, "stop") == 0)
        kill(getpid(), SIGSTOP);
    if (strncmp(o->action, "error", 5) == 0)
        return err_set(e, o->code, "failpoint %s", o->name);
    return 0;
}

int failpoint(const char *name, struct err *e)
{
    const struct order *due = NULL;

    pthread_mutex_lock(&lock);
    if (!is_read)
        read_orders();
    note(name);
    for (size_t i = 0; i < order_count; i++) {
        struct order *o = &orders[i];

        if (strcmp(o->name, name) != 0)
            continue;
        o->seen++;
        if (o->seen == o->nth || (o->seen > o->nth && strcmp(o->action, "errors") == 0))
            due = o;
    }
    pthread_mutex_unlock(&lock);
    return due != NULL ? obey(due, e) : 0;
}

int failpoint_of(const char *group, const char *step, struct err *e)
{
    char name[NAME_ROOM];

    snprintf(name, sizeof name, "%s.%s", group, step);
    return failpoint(name, e);
}
