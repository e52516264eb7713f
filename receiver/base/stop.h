/*
 * How a signal ends the program.  SIGINT, SIGTERM and SIGHUP set a flag and make a descriptor
 * readable that every loop which waits polls too; the work then ends in order, with clean-up, and
 * the exit code is 128 + n.  A second signal means: do not wait for what only takes time
 * (stop_hurried).  SIGPIPE and SIGXFSZ are ignored, so that the calls fail with EPIPE and EFBIG.
 */
#ifndef RECEIVER_BASE_STOP_H
#define RECEIVER_BASE_STOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct err;

/* Once, before any thread.  A signal that was ignored when we were started stays so (nohup). */
int stop_install(struct err *e);

/* Readable from the first signal on, for ever; nobody reads it.  -1 before stop_install. */
int stop_fd(void);

bool stop_requested(void);
/* The same as a flag that turns true, for those who take one. */
const atomic_bool *stop_flag(void);
/* More than one signal has come. */
bool stop_hurried(void);
/* The first signal, or 0. */
int stop_signal(void);

/* 0, or -1 with ERR_STOPPED naming the signal: `if (stop_check(e) != 0) goto out;` */
int stop_check(struct err *e);

/* Sleep; returns early, and -1 as stop_check does, when a signal has come. */
int stop_sleep(uint64_t ms, struct err *e);

/* As if the signal had come; for tests and for failures that end everything.  Async-signal-safe. */
void stop_raise(int signal);
/* Forget everything; for tests only. */
void stop_reset(void);

#endif
