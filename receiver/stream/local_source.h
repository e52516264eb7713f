/*
 * A source end in this process: the same session and walks as in the agent, over disks that the
 * caller opens.  It owns a thread.
 */
#ifndef RECEIVER_STREAM_LOCAL_SOURCE_H
#define RECEIVER_STREAM_LOCAL_SOURCE_H

struct agent_session_config;
struct err;
struct local_source;
struct session_secret;

/*
 * Start as initiator over fd, which it owns on success.  config and what its disk_open needs
 * outlive it.  0, or -1 (ERR_SYSTEM).
 */
int local_source_start(struct local_source **out, int fd, const struct session_secret *secret,
                       const struct agent_session_config *config, struct err *e);

/* After the other end of fd was closed; waits for the thread.  NULL is allowed. */
void local_source_end(struct local_source *l);

#endif
