/* Calls the receiver back: a TCP connection with its handshake. */
#ifndef ESXI_AGENT_DIAL_H
#define ESXI_AGENT_DIAL_H

#include <stdint.h>

#include "protocol/wire/handshake.h"

struct err;

/*
 * Connect to a numeric address and shake hands as initiator for connection number `connection`, all
 * within timeout_ms.  On success *fd is the socket and *keys are to be wiped by the caller.
 * 0, or -1: ERR_USAGE (no address), ERR_NETWORK, ERR_AUTH (somebody else answered), ERR_PEER.
 */
int dial(const char *address, uint16_t port, uint32_t connection, uint64_t timeout_ms,
         const struct session_secret *secret, const struct handshake_offer *offer, int *fd,
         struct handshake_keys *keys, struct err *e);

/*
 * Shake hands as initiator over descriptors that are open already, until the clock reaches
 * until_ms. 0, or -1 as above.
 */
int shake_hands(int in_fd, int out_fd, uint64_t until_ms, const struct session_secret *secret,
                const struct handshake_offer *offer, struct handshake_keys *keys, struct err *e);

#endif
