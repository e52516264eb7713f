/* The agent's one job: a session with the receiver over standard input and output. */
#ifndef ESXI_AGENT_AGENT_H
#define ESXI_AGENT_AGENT_H

struct err;

/*
 * Greet, take the bootstrap, serve until the receiver quits or its end of standard input closes.
 * 0 after `quit`, or -1 with the reason.
 */
int agent_run(struct err *e);

#endif
