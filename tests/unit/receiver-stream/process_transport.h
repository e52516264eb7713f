/* A transport that runs its commands on this machine with /bin/sh. */
#ifndef TESTS_UNIT_RECEIVER_STREAM_PROCESS_TRANSPORT_H
#define TESTS_UNIT_RECEIVER_STREAM_PROCESS_TRANSPORT_H

#include "receiver/ssh/transport.h"

int process_transport_new(struct transport **out, struct err *e);

/* The process of the last exec, for tests that end it; 0 when none. */
int process_transport_last(struct transport *t);

#endif
