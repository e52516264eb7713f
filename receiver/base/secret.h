/*
 * A password or passphrase.  It lives in memory of its own that is locked where the system allows,
 * left out of core dumps, and wiped when it is given back.  It comes from a private file, from a
 * helper's pipe or from the terminal: never from an argument or an environment variable.
 */
#ifndef RECEIVER_BASE_SECRET_H
#define RECEIVER_BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>

struct err;

enum { SECRET_BYTES_MAX = 1023 };

/* Empty value { 0 }. */
struct secret {
    char *text;   /* NUL-terminated, no NUL inside; NULL when there is none */
    size_t count; /* without the NUL */
};

/* Copy count bytes (at most SECRET_BYTES_MAX, no NUL inside).  ERR_USAGE, ERR_LIMIT, ERR_SYSTEM. */
int secret_set(struct secret *s, const char *text, size_t count, struct err *e);

/*
 * The first line of a file, which must be regular, ours, no symbolic link, and readable by nobody
 * else (no bits of 077).  ERR_USAGE names what is wrong and how to mend it; ERR_NOT_FOUND.
 */
int secret_from_file(struct secret *out, const char *path, struct err *e);

/*
 * The first line that command prints; it is run by /bin/sh with our standard error and without our
 * standard input, and gets at most timeout_s seconds.  ERR_USAGE when it fails or prints nothing.
 */
int secret_from_command(struct secret *out, const char *command, unsigned timeout_s, struct err *e);

/*
 * Ask on the terminal of the process, as a rule without echo.  ERR_USAGE when there is none;
 * ERR_STOPPED when a signal ends the question (stop.h).
 */
int secret_from_terminal(struct secret *out, const char *prompt, bool echo, struct err *e);

/* True when there is a terminal to ask on. */
bool secret_can_ask(void);

/* Wipe and give back.  NULL and the empty value are allowed. */
void secret_free(struct secret *s);

#endif
