/*
 * A way to run commands on a host.  libssh2 stands behind it (libssh2.h); another transport is
 * another table.  Everything above it sees only local file descriptors.
 *
 * An open transport owns a thread that does nothing but move bytes between the network and those
 * descriptors and keep the connection alive; it never touches a disk.  So callers may block, and all
 * functions here may be called from several threads.
 */
#ifndef RECEIVER_SSH_TRANSPORT_H
#define RECEIVER_SSH_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes;
struct err;
struct transport;

/* How a remote command ended. */
struct remote_exit {
    bool known;        /* the host told; false when the connection was cut first */
    int status;        /* valid unless signalled */
    bool signalled;    /* ended by a signal: never a success, whatever the status says */
    char signal[16];   /* "KILL", … */
};

/* One running remote command. */
struct remote_process {
    struct transport *transport;
    void *impl;
    /*
     * A local stream socket: what is written to it reaches the command's standard input (shutdown of
     * its writing side is end of file there), what is read from it is standard output alone.  Owned by
     * the caller, who closes it or sets it to -1 after handing it over.
     */
    int fd;
};

struct transport_ops {
    /* Start command in the host's shell.  0, or -1: ERR_NETWORK, ERR_LIMIT (no channel left), ERR_SYSTEM. */
    int (*exec)(struct transport *t, const char *command, struct remote_process *out, struct err *e);
    /*
     * Wait until the command has ended and its output is drained into the descriptor or dropped (when
     * the descriptor is closed), at most timeout_ms.  Standard error collected so far (at most 64 KiB,
     * the rest counted and dropped) is appended to errors, which may be NULL.
     * 0, or -1: ERR_NETWORK (cut, or timed out with os = ETIMEDOUT).
     */
    int (*wait)(struct remote_process *p, uint64_t timeout_ms, struct remote_exit *out,
                struct bytes *errors, struct err *e);
    /* Close the channel, whether or not the command has ended, and p->fd if it is still set. */
    void (*release)(struct remote_process *p);
    /* The local address of the connection, numeric: what a host can call back.  room >= 64. */
    int (*local_address)(struct transport *t, char *out, size_t room, struct err *e);
    /* False once the connection is known to be dead; why, if e is given. */
    bool (*alive)(struct transport *t, struct err *e);
    void (*close)(struct transport *t); /* frees t too */
};

struct transport {
    const struct transport_ops *ops;
};

/*
 * Run command, give it input (may be NULL) and gather what it prints, within timeout_ms.
 * out and errors keep their ceilings; output past the ceiling is ERR_LIMIT.  A status other than 0 is
 * no failure of this function: look at *ended.  0, or -1: ERR_NETWORK, ERR_LIMIT, ERR_SYSTEM.
 */
int transport_run(struct transport *t, const char *command, const void *input, size_t input_bytes,
                  uint64_t timeout_ms, struct bytes *out, struct bytes *errors,
                  struct remote_exit *ended, struct err *e);

/*
 * Write a file on the host: made anew (an existing name is an error), private while it is written, then
 * with the given permission bits.  The content is data, or with data == NULL what can be read from fd
 * until its end.  The caller checks the result by its hash and removes what a failure left.
 * 0, or -1: ERR_SPACE (the host has no room), ERR_REFUSED (the name exists, or no permission),
 * ERR_NOT_FOUND (the folder), ERR_NETWORK, ERR_LIMIT, ERR_SYSTEM; reading fd fails with its own reason.
 */
int transport_upload(struct transport *t, const void *data, size_t count, int fd, const char *path,
                     unsigned mode, uint64_t timeout_ms, struct err *e);

/*
 * The one quoting function: append word to command so that the host's shell (ash) sees exactly these
 * bytes as one word.  0, or -1: ERR_LIMIT (the ceiling), ERR_USAGE (a NUL inside is impossible).
 */
int shell_quote(struct bytes *command, const char *word, struct err *e);

/*
 * Build a command line from words, each quoted, separated by blanks; the list ends with NULL.
 * The result is NUL-terminated text owned by command.
 */
int shell_command(struct bytes *command, struct err *e, ...) __attribute__((sentinel));

#endif
