/*
 * Hints that a host was caught lying about, remembered in the state directory: from then on they
 * are not used for this host.  Removing the file STATE/no-hole-maps-HOSTUUID, or
 * STATE/no-change-hints-HOSTUUID, trusts it again.
 */
#ifndef RECEIVER_JOB_HINTS_H
#define RECEIVER_JOB_HINTS_H

#include <stdbool.h>

struct err;

/* Maps of holes; what was written since a kept snapshot. */
enum hint_kind { HINT_MAPS, HINT_CHANGES };

/* Are this host's hints of a kind not to be used?  state: an open directory. */
bool hints_are_off(int state, enum hint_kind kind, const char *host_uuid);

/* Do not use them any more.  0, or -1 (ERR_SPACE, ERR_SYSTEM). */
int hints_turn_off(int state, enum hint_kind kind, const char *host_uuid, struct err *e);

#endif
