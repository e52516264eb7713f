/*
 * The state directory: journals, known hosts, leases and what else must outlive a run.  It is
 * --state-dir, else $XDG_STATE_HOME/vmferry, else ~/.local/state/vmferry; made 0700 on first use.
 */
#ifndef RECEIVER_BASE_STATE_H
#define RECEIVER_BASE_STATE_H

#include <stddef.h>

struct err;
struct state;

enum { INSTALL_ID_BYTES = 17 };

/*
 * Open the directory (dir may be NULL: the default), making it where it is missing.  A directory of
 * somebody else, or one that others may write to, is ERR_REFUSED.  *out is freed with state_close.
 * 0, or -1: ERR_USAGE (no home to put it in), ERR_REFUSED, ERR_SPACE, ERR_SYSTEM.
 */
int state_open(struct state **out, const char *dir, struct err *e);

/* The directory, absolute and open; borrowed. */
const char *state_dir(const struct state *s);
int state_fd(const struct state *s);

/*
 * Who we are on hosts: 16 lower-case hex digits, random, made once for each state directory.  It
 * stands in the names of our snapshots, so that a receiver can tell its own from others'.
 */
const char *state_install_id(const struct state *s);

void state_close(struct state *s); /* NULL is allowed */

#endif
