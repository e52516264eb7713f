/* Numeric addresses: names are resolved by whoever has them, never in the agent. */
#ifndef PROTOCOL_BASE_NET_H
#define PROTOCOL_BASE_NET_H

#include <stdint.h>
#include <sys/socket.h>

struct err;

/* An IPv4 or IPv6 address in digits, and a port.  0, or -1 with ERR_USAGE. */
int net_address(const char *address, uint16_t port, struct sockaddr_storage *out, socklen_t *bytes,
                struct err *e);

#endif
