/*
 * A session with a source end: an agent on a host, started over a transport, or, where none may run
 * there, a source end in this process that reads through what the caller opens (`dd` over a
 * channel). What runs over it is the same.
 *
 * It owns a thread for the loop; requests block their caller until they are answered.
 */
#ifndef RECEIVER_STREAM_AGENT_SESSION_H
#define RECEIVER_STREAM_AGENT_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/stream/hub.h"

struct agent_session;
struct data_ports;
struct err;
struct hole_map;
struct source;
struct transport;

struct agent_disk;

struct agent_session_config {
    /* An agent on a host: both set. */
    struct transport *transport;
    const char *command; /* for the host's shell: the agent and its argument --serve */
    /* A source end in this process: opens a disk by its path.  Used when command is NULL. */
    int (*disk_open)(void *context, const struct agent_disk *disk, struct source **out,
                     enum hole_knowledge *holes, struct err *e);
    void *context;

    uint8_t mode_set;      /* record modes that the data connections may have */
    unsigned workers_max;  /* of the source end */
    uint64_t memory_bytes; /* of the source end */
    uint64_t stall_ms;
    /* The data port, with its address; NULL: TCP is not to be tried. */
    const char *listen_address;
    uint16_t listen_port;
    const char *dial_address; /* what the agent dials; NULL: the listen address */
    uint16_t dial_port;       /* 0: the listener's */
    struct data_ports *ports; /* shared with sessions beside this one; borrowed.  NULL: its own */
};

/* 0, or -1: ERR_NETWORK (cut, or no agent answered), ERR_PEER, ERR_UNSUPPORTED, ERR_SYSTEM. */
int agent_session_start(struct agent_session **out, const struct agent_session_config *config,
                        struct err *e);

/*
 * Ask the source end to quit, wait for its end at most 10 s, free.  True when it is known to have
 * ended, so that it holds no file open any more.  NULL is allowed (and true).
 */
bool agent_session_end(struct agent_session *a);

/* The session under it, for streams; lives as long as a. */
struct hub *agent_session_streams(struct agent_session *a);

/* False once the control connection is dead; then all streams have failed.  why may be NULL. */
bool agent_session_alive(struct agent_session *a, struct err *why);

/* A number that no stream of this session had. */
uint32_t agent_session_stream_number(struct agent_session *a);

/* A disk that a source end is to open. */
struct agent_disk {
    uint32_t number; /* ours for it */
    enum disk_format format;
    const char *path;
    const char *since; /* of DISK_CHAIN: look only at what lies above this link; NULL: at all */
    uint32_t since_block;
    uint64_t capacity_bytes; /* what it must have */
};

/* Requests.  0, or -1 with the source end's reason, or ERR_NETWORK. */
int agent_session_disk_open(struct agent_session *a, const struct agent_disk *disk,
                            struct msg_disk_opened *opened, struct err *e);
int agent_session_disk_holes(struct agent_session *a, uint32_t disk, const struct hole_map *map,
                             struct err *e);
/*
 * Before the first chain: an agent may open links in this folder or below.  alias: another name
 * that links use for it.  A source end in this process knows its host's folders and is not asked.
 */
int agent_session_volume(struct agent_session *a, const char *path, const char *alias,
                         struct err *e);
int agent_session_stream_open(struct agent_session *a, uint32_t stream,
                              const struct msg_stream_open *open, struct err *e);

/*
 * Have the agent dial the data port.  *connection is up then.
 * 0, or -1 with ERR_NETWORK: not reached within 5 s (a late peer is closed), or there is no port.
 */
int agent_session_dial(struct agent_session *a, uint32_t *connection, struct err *e);

/* Peers of the data port that could not prove themselves. */
uint64_t agent_session_strangers(struct agent_session *a);

#endif
