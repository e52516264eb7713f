/*
 * The disks of one VM, from a source end to their sinks: several at once, each over its own TCP
 * connection or all over SSH, re-opened from the last verified block when a connection dies.
 */
#ifndef RECEIVER_STREAM_TRANSFER_H
#define RECEIVER_STREAM_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/base/err.h"
#include "protocol/stream/sink_walk.h"

struct agent_session;
struct hole_map;

enum transfer_channel { CHANNEL_AUTO, CHANNEL_TCP, CHANNEL_SSH };

enum {
    TRANSFER_WINDOW_BYTES = 16 << 20, /* data under way for each disk */
    TRANSFER_REOPENINGS_MAX = 64,     /* of one disk */
};

struct transfer_disk {
    /* given */
    const char *name;        /* for messages: scsi0:0 */
    enum disk_format format; /* 0: DISK_FLAT */
    const char *path;        /* for the source end */
    const char *since;       /* the link as which the sink's store has it; NULL: no hint */
    uint64_t capacity_bytes;
    const struct hole_map *holes; /* what a map of the host claims; NULL: none.  Borrowed */
    bool ignore_holes;            /* claimed holes are read as well: an audit */
    struct sink *sink;            /* borrowed */
    /* found */
    struct sink_totals totals;
    struct digest root;
    uint64_t allocated_bytes;
    bool over_tcp;    /* how its last opening went */
    bool holes_wrong; /* the map claimed a hole that holds data */
    bool hint_wrong;  /* what the hint calls kept has changed: the disk failed */
    bool done;
    uint64_t ms;
    struct err why; /* of the disk that failed */
};

enum transfer_notice {
    NOTICE_WORTH_KNOWING, /* a fall-back, a re-opening */
    NOTICE_WRONG_HINT,    /* the change hint was wrong: from a walk's thread */
    NOTICE_WRONG_MAP      /* the map of holes was wrong: from a walk's thread */
};

struct transfer_options {
    enum transfer_channel channel;
    uint8_t compress;    /* as in stream_open */
    uint64_t rate_bytes; /* for all disks together; 0: no bound */
    size_t window_bytes; /* data under way for each disk; 0: TRANSFER_WINDOW_BYTES */
    bool full;
    void *context;
    /*
     * The control connection is dead: end the session in *a (it is NULL afterwards or a fresh one).
     * 0 with a new session, or -1: the run is over.  NULL: never.
     */
    int (*renew)(void *context, struct agent_session **a, const struct err *why, struct err *e);
    /* About every 200 ms; -1 ends the transfer with this error (a stop, a room guard).  May be
     * NULL. */
    int (*watch)(void *context, struct err *e);
    /* About every 200 ms for each disk under way, and once when it is done.  May be NULL. */
    void (*progress)(void *context, const struct transfer_disk *disk);
    /* As in struct sink_walk_config: from the disks' threads.  May be NULL. */
    int (*pace)(void *context, size_t payload_bytes, struct err *e);
    /* A line for the user.  May be NULL. */
    void (*notice)(void *context, const struct transfer_disk *disk, enum transfer_notice kind,
                   const char *text);
};

/*
 * Run all disks.  *a may be replaced by renew.  0 when all are done; -1 with the first failure (the
 * disk's name in front) after all others were stopped.
 */
int transfer_run(struct agent_session **a, struct transfer_disk *disks, size_t count,
                 const struct transfer_options *options, struct err *e);

#endif
