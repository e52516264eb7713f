/* Addresses of the data channel, from what the user gave and what the connection shows. */
#ifndef RECEIVER_JOB_ADDRESS_H
#define RECEIVER_JOB_ADDRESS_H

struct data_options;
struct err;
struct transport;

/*
 * Numeric addresses to listen on and for the agent to dial; the second is NULL where it is the
 * first. Replaces (and frees) what *listen and *dial held.  0, or -1: ERR_USAGE (a name without
 * address), ERR_NETWORK, ERR_SYSTEM.
 */
int address_for_data(struct transport *t, const struct data_options *data, char **listen,
                     char **dial, struct err *e);

#endif
