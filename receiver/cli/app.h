/* What every command works with, and the frame around it. */
#ifndef RECEIVER_CLI_APP_H
#define RECEIVER_CLI_APP_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "receiver/cli/options.h"
#include "receiver/job/run.h"

struct command;
struct err;
struct json;
struct progress;
struct report;
struct state;

struct app {
    const struct options *options;
    const struct command *command;
    struct report *report;
    struct progress *progress;
    struct state *state;      /* app_state opens it when it is first needed */
    struct run_result result; /* the VMs of the summary; filled by the command */
    int exit_code;            /* -1: follows from result and error; else the command's own word */
    /* More fields of the summary, and the end of what they stand in; both may be NULL. */
    void (*summary)(void *context, struct json *j);
    void (*summary_end)(void *context);
    void *summary_context;
};

/* The state directory, opened on first use.  0, or -1 as state_open. */
int app_state(struct app *app, struct err *e);

/* Columns of standard output. */
unsigned app_columns(void);

/* A failure of one VM (or other object) among several: told now, and counted in the result by the
 * caller. */
void app_failure(struct app *app, const char *what, const struct err *e);

/* The whole program behind main: parse, dispatch, report.  Returns the exit code. */
int app_main(int argc, char **argv);

#endif
