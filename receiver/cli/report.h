/*
 * What a command tells on standard output.  With --json that is lines of one object each, with a
 * field `type`: status, warning, error, and last the summary, which comes after an error as well.
 * List-like commands print one array on one line, or one error object, and nothing else.  Warnings
 * that any layer logs reach the JSON lines by themselves.
 *
 * Threads: all functions may be called from several.
 */
#ifndef RECEIVER_CLI_REPORT_H
#define RECEIVER_CLI_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct disk_progress;
struct err;
struct json;
struct report;
struct run_result;

struct report_options {
    FILE *out; /* standard output, or a file of a test */
    bool json;
    bool list_like;      /* one array instead of lines and summary */
    const char *command; /* borrowed; "" when not known */
};

/* Also takes the log's observer (log.h).  0, or -1 with ERR_SYSTEM. */
int report_open(struct report **out, const struct report_options *options, struct err *e);
void report_close(struct report *r); /* NULL is allowed */

/* A failure: a line on standard error, with vm (may be NULL) in front, and an `error` object. */
void report_failure(struct report *r, const char *vm, const struct err *e);

/* Objects of type `status`; nothing without --json. */
void report_step(struct report *r, const char *vm, const char *what);
void report_progress(struct report *r, const struct disk_progress *p, uint64_t ms);

/*
 * The array of a list-like command: take the emitter, write one value per item, give it back.  The
 * array is opened and closed here.
 */
struct json *report_array_begin(struct report *r);
void report_array_end(struct report *r);

/*
 * The last line.  more, which may be NULL, adds fields of the command's own.  Without --json
 * nothing.
 */
void report_summary(struct report *r, const struct run_result *result, int exit_code, uint64_t ms,
                    void (*more)(void *context, struct json *j), void *context);

/* The VMs and disks of a run for people: what was done, how much, how fast. */
void report_people(FILE *out, const struct run_result *result, unsigned width, bool dry_run);

/* 0, or -1 when something could not be written to standard output. */
int report_flush(struct report *r, struct err *e);

#endif
