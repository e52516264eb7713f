/* The part of `check` that looks at a repository. */
#ifndef RECEIVER_CLI_CHECK_REPOSITORY_H
#define RECEIVER_CLI_CHECK_REPOSITORY_H

struct app;
struct err;

/* The whole repository, or what the operand names. */
int check_repository(struct app *app, struct err *e);

#endif
