/*
 * Hints that a host was caught lying about, remembered in the state directory: from then on they are
 * not used for this host.  Removing the file STATE/no-hole-maps-HOSTUUID trusts it again.
 */
#ifndef RECEIVER_JOB_HINTS_H
#define RECEIVER_JOB_HINTS_H

#include <stdbool.h>

struct err;

/* Are this host's maps of holes not to be used?  state: an open directory. */
bool hints_maps_are_off(int state, const char *host_uuid);

/* Do not use them any more.  0, or -1 (ERR_SPACE, ERR_SYSTEM). */
int hints_turn_maps_off(int state, const char *host_uuid, struct err *e);

#endif
