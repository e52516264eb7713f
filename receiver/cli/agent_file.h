/* Where the agent's file is that we upload. */
#ifndef RECEIVER_CLI_AGENT_FILE_H
#define RECEIVER_CLI_AGENT_FILE_H

#include <limits.h>
#include <stddef.h>

struct err;

enum { AGENT_PATH_BYTES = PATH_MAX };

/*
 * given (--agent-file) if it is not NULL; else vmferry-agent-x86_64 beside our program, in
 * ../libexec/vmferry/ from there, or in the libexec/vmferry of the installation.
 * 0, or -1: ERR_USAGE (given, but no file that can be read), ERR_NOT_FOUND (none anywhere).
 */
int agent_find(const char *given, char out[AGENT_PATH_BYTES], struct err *e);

#endif
