/* The options of a run over VMs, from the command line's. */
#ifndef RECEIVER_CLI_RUN_OPTIONS_H
#define RECEIVER_CLI_RUN_OPTIONS_H

#include "receiver/cli/agent_file.h"
#include "receiver/job/run.h"

struct connection;
struct err;

/*
 * Fill *out from the options of c's app.  Everything is borrowed: c, the options, and agent, which
 * takes the path of the agent's file.  Where there is none, out->agent_file is NULL and a warning
 * says that disks will be read without it.  0, or -1: ERR_USAGE (--agent-file cannot be read).
 */
int run_options_fill(struct run_options *out, struct connection *c, char agent[AGENT_PATH_BYTES],
                     struct err *e);

#endif
