/*
 * The transport over libssh2 (1.10 and later): login, then exec channels behind struct transport.
 *
 * Order of a login: TCP, key exchange, host key against the known hosts, and only then credentials:
 * key files, identities of ssh-agent, and at last one attempt with a password.  Host keys that
 * nobody knows stop the login unless accept_new_host_key is set; a changed or revoked key always
 * stops it.
 */
#ifndef RECEIVER_SSH_LIBSSH2_TRANSPORT_H
#define RECEIVER_SSH_LIBSSH2_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes;
struct err;
struct transport;

/* Ways to log in; a set of them. */
enum ssh_method {
    SSH_METHOD_KEY = 1,         /* the key files of the options */
    SSH_METHOD_AGENT = 2,       /* identities of ssh-agent */
    SSH_METHOD_PASSWORD = 4,    /* method "password" */
    SSH_METHOD_INTERACTIVE = 8, /* method "keyboard-interactive", answered with the password */
    SSH_METHOD_ALL = 15
};

enum {
    SSH_CHANNELS_MAX = 8,       /* at once on one connection; sshd's MaxSessions is 10 */
    SSH_SECRET_BYTES_MAX = 1024 /* a password or passphrase */
};

/* Start from ssh_options_init; all pointers are borrowed until ssh_connect returns. */
struct ssh_options {
    const char *host; /* name or numeric address, without brackets */
    uint16_t port;    /* 22 */
    const char *user; /* "root" */

    unsigned methods; /* SSH_METHOD_ALL */
    /* Key files, tried in this order; one that is not there is an error.  With ssh-agent only the
     * identities of these keys are offered, where their public half is known (KEYFILE.pub). */
    const char *const *identities;
    size_t identity_count;
    bool default_identities; /* without identities: ~/.ssh/id_ecdsa, id_ed25519, id_rsa, as far as
                                there */

    /*
     * The password, from a file or a helper; asked for at most once, after the host key was
     * checked. Appends to answer, whose ceiling is SSH_SECRET_BYTES_MAX.  NULL: none.  0, or -1
     * with any error, which ends the login.
     */
    int (*secret)(void *context, struct bytes *answer, struct err *e);
    /*
     * A question to the person at the terminal: passphrase, password when there is no secret,
     * further questions of the host.  prompt is printable text on one line.  NULL when there is no
     * terminal.
     */
    int (*ask)(void *context, const char *prompt, bool echo, struct bytes *answer, struct err *e);
    /* Things worth a line at -v: the banner, how we logged in, unreadable known-hosts lines.  May
     * be NULL. */
    void (*info)(void *context, const char *line);
    /* A host key that nobody knew was accepted and remembered: the user should see which.  May be
     * NULL. */
    void (*accepted)(void *context, const char *line);
    void *context; /* for the four */

    /* Files to look the host key up in; one that is not there is empty. */
    const char *const *known_hosts;
    size_t known_hosts_count;
    /* Our own file, looked up as well; a newly accepted key is added to it.  May be NULL. */
    const char *own_known_hosts;
    bool accept_new_host_key;

    bool legacy;           /* allow 3des, CBC and dss */
    const char *ciphers;   /* NULL: our list; else libssh2's form, for tests */
    unsigned timeout_ms;   /* for each step of the login, 15000 */
    unsigned keepalive_ms; /* of silence, then the host is asked for a sign of life, 10000 */
    unsigned silence_ms;   /* of further silence, then the connection is dead, 20000 */
    int send_buffer_bytes; /* SO_SNDBUF of the network socket; 0: the system's choice */
    int cancel_fd;         /* readable: give the login up (ERR_STOPPED); -1: none */
};

void ssh_options_init(struct ssh_options *o);

/*
 * Connect and log in; *out is closed with ops->close.  0, or -1:
 * ERR_NETWORK (unreachable, cut, timed out), ERR_AUTH (host key unknown, changed or revoked; login
 * refused), ERR_UNSUPPORTED (no algorithms in common), ERR_STOPPED, ERR_NOT_FOUND (a key file),
 * ERR_USAGE (a key file that cannot be used), ERR_LIMIT (the host opens no session), ERR_SYSTEM,
 * or what secret and ask gave.
 *
 * Processes (exec) keep what they need alive: they may be released after the transport was closed.
 * Only the last pending words matter then; everything else ends with ERR_NETWORK.
 */
int ssh_connect(struct transport **out, const struct ssh_options *o, struct err *e);

#endif
