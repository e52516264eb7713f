/*
 * The progress display.  On a terminal: one line per disk, redrawn at most ten times a second and
 * cut to the width, on standard error; the log takes it away and puts it back around each of its
 * lines. Without a terminal: nothing unless asked for, then a plain line every 10 s.  With --json:
 * objects of type `status`, each disk at most once a second.
 *
 * Threads: all functions may be called from several; none blocks on anything but standard error.
 */
#ifndef RECEIVER_CLI_PROGRESS_H
#define RECEIVER_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct disk_progress;
struct err;
struct progress;
struct report;

struct progress_options {
    bool draw;                  /* lines that are redrawn; needs a terminal */
    bool plain;                 /* plain lines every 10 s */
    struct report *report;      /* for `status` objects; NULL: none */
    FILE *out;                  /* standard error, or a file of a test */
    unsigned columns;           /* 0: ask the terminal each time */
    unsigned rows;              /* 0: ask the terminal */
    uint64_t (*clock_ms)(void); /* NULL: the real one */
};

int progress_open(struct progress **out, const struct progress_options *options, struct err *e);
void progress_close(struct progress *p); /* takes the lines away; NULL is allowed */

/* What is being done now for a VM; its disks' lines, if any, stay below. */
void progress_step(struct progress *p, const char *vm, const char *what);

void progress_disk(struct progress *p, const struct disk_progress *d);

/* One VM of several is done: its lines go, and those that are of no VM. */
void progress_vm_done(struct progress *p, const char *vm);

/* All is done: all lines go. */
void progress_vm_end(struct progress *p);

/* For the log (log_set_screen). */
void progress_hide(void *progress);
void progress_show(void *progress);

/* What a line shows; rates in bytes per second. */
struct progress_line {
    const char *name; /* "web01 scsi0:0", raw */
    uint64_t done, total;
    uint64_t same; /* of what was read */
    uint64_t read;
    uint64_t read_rate, sent_rate;
    bool rates_known;
    bool left_known;
    uint64_t left_s;
    bool ended;
};

/* One line of at most columns, without a newline: what does not fit is left out from its end. */
void progress_format(char *out, size_t room, const struct progress_line *line, unsigned columns);

#endif
