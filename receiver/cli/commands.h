/* The one table of commands: dispatch, --help and the shell completion come from it. */
#ifndef RECEIVER_CLI_COMMANDS_H
#define RECEIVER_CLI_COMMANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct app;
struct err;

struct command {
    const char *name;
    const char *operands; /* as the usage line shows them */
    const char *summary;  /* a few words */
    const char *text;     /* what --help says: one paragraph */
    const char *examples; /* lines, NULL-terminated text */
    unsigned operands_min, operands_max;
    uint64_t accepts; /* OPTION_BITs beside the common ones */
    uint64_t needs;   /* of these, what must be given */
    bool list_like;   /* with --json one array instead of lines and a summary */
    bool hidden;      /* not in --help */
    /* 0, or -1 with an error of the command as a whole; VMs' own failures stand in app->result. */
    int (*run)(struct app *app, struct err *e);
};

/* NULL when there is none of that name. */
const struct command *command_find(const char *name);

/* The commands in order; NULL past the end. */
const struct command *command_at(size_t index);

/* Check operands and needed options of a command.  0, or -1 with ERR_USAGE. */
struct options;
int command_check(const struct command *c, const struct options *o, struct err *e);

void command_print_help(FILE *out, const struct command *c);
void commands_print_help(FILE *out);

/* Each in its file cmd_NAME.c. */
int cmd_doctor(struct app *app, struct err *e);
int cmd_vms(struct app *app, struct err *e);
int cmd_datastores(struct app *app, struct err *e);
int cmd_mirror(struct app *app, struct err *e);
int cmd_list(struct app *app, struct err *e);
int cmd_restore(struct app *app, struct err *e);
int cmd_check(struct app *app, struct err *e);
int cmd_cleanup(struct app *app, struct err *e);
int cmd_info(struct app *app, struct err *e);
int cmd_convert(struct app *app, struct err *e);
int cmd_completion(struct app *app, struct err *e);

#endif
