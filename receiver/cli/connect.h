/* From options to a host that we are logged in to: one way for all commands. */
#ifndef RECEIVER_CLI_CONNECT_H
#define RECEIVER_CLI_CONNECT_H

#include <stdbool.h>

#include "receiver/base/secret.h"
#include "receiver/cli/targets.h"
#include "receiver/host/host.h"

struct app;
struct err;
struct journal;
struct transport;

/* How to log in to one host, as often as needed: the password is asked for once and kept. */
struct connection {
    struct app *app;
    struct host_target target;
    struct secret password;
    char *known_hosts[2];
    char *own_known_hosts;
};

/*
 * Parse the HOST operand, read the password file, open the state directory.  Borrows app.
 * 0, or -1: ERR_USAGE, ERR_REFUSED, ERR_SYSTEM; release with connection_end in both cases.
 */
int connection_init(struct connection *c, struct app *app, const char *host, struct err *e);
void connection_end(struct connection *c);

/*
 * Connect and log in; fits struct run_connector.  0, or -1 with the codes of ssh_connect and, when
 * the password's source fails, ERR_USAGE; the text names the host.
 */
int connection_open(void *connection, struct transport **out, struct err *e);

/* A host that we are logged in to: connection, transport, inventory functions and journal together.
 */
struct visit {
    struct connection connection;
    struct transport *transport;
    struct host host;
    bool host_ready;
    struct journal *journal;
};

/* Connect, learn what host this is.  Release with visit_end in both cases. */
int visit_begin(struct visit *s, struct app *app, const char *host, struct err *e);
/* Open the journal in the state directory; needed only by those who put something on the host. */
int visit_journal(struct visit *s, struct err *e);
/*
 * Remove snapshots of ours on this host that were kept and are past their limits; what was done, or
 * could not be, is said, and stops nothing.  Opens the journal if it is not open.
 */
void visit_limits(struct visit *s);
void visit_end(struct visit *s);

#endif
