/*
 * Every prerequisite tried for real, each with its result and remedy.  Login has succeeded already.
 */
#ifndef RECEIVER_HOST_DOCTOR_H
#define RECEIVER_HOST_DOCTOR_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct host;
struct journal;
struct placed;
struct room_rule;
struct vm;

enum doctor_result { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

struct doctor_item {
    char check[32]; /* "shell", "version", "exec", "upload", "data-channel", "space", "disk", … */
    char *vm;       /* name, or NULL for the host */
    enum doctor_result result;
    char *detail;
    char *remedy; /* "" when there is nothing to do */
};

struct doctor_report {
    struct doctor_item *items;
    size_t count;
};

struct doctor_wish {
    const char *agent_file; /* NULL: no agent was found; said as a warning */
    const char *agent_dir;
    const struct room_rule *rule;
    const char *const *operands; /* VMs to look at; none: all */
    size_t operand_count;
    /*
     * Tries a data channel with the agent that was placed and adds its own lines through
     * doctor_add. May be NULL.
     */
    void (*try_channel)(void *context, struct host *h, struct placed *agent,
                        struct doctor_report *report);
    void *context;
    /* Called after each line, to print while the rest still runs.  May be NULL. */
    void (*show)(void *context, const struct doctor_item *item);
};

/* 0 whatever the results are; -1 when the connection is lost or memory ends. */
int doctor_run(struct host *h, struct journal *j, const struct doctor_wish *wish,
               struct doctor_report *out, struct err *e);

int doctor_add(struct doctor_report *r, const char *check, const char *vm,
               enum doctor_result result, const char *remedy, const char *detail_format, ...)
    __attribute__((format(printf, 6, 7)));
void doctor_report_free(struct doctor_report *r);
const char *doctor_result_name(enum doctor_result result); /* "ok", "warn", "fail" */

#endif
