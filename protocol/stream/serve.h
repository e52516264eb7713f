/*
 * The source end's answers: disks that are opened, streams over them.  The agent serves the files
 * of its host; the receiver serves itself, over `dd`, where no agent may run.
 */
#ifndef PROTOCOL_STREAM_SERVE_H
#define PROTOCOL_STREAM_SERVE_H

#include "protocol/stream/hub.h"

struct serve;
struct source;

enum {
    SERVE_DISKS_MAX = 256,   /* open until the session ends */
    SERVE_DISKS_AT_ONCE = 4, /* streams that share the memory; receivers run no more */
    /* Open at once: a stream whose connection hangs may still stand when its disk is opened again.
     */
    SERVE_STREAMS_MAX = 2 * SERVE_DISKS_AT_ONCE,
};

struct serve_config {
    /* Open a disk.  0, or -1 with the reason, which is sent.  From the loop thread. */
    int (*disk_open)(void *context, const struct msg_disk_open *m, struct source **out,
                     enum hole_knowledge *holes, struct err *e);
    /* A folder that chains may lie in; alias may be NULL.  NULL: chains are not opened here. */
    int (*volume)(void *context, const char *path, const char *alias, struct err *e);
    /* Dial the receiver and add the link; done is sent when it is up.  NULL: refused. */
    int (*dial)(void *context, struct hub *s, const struct msg_dial *m, struct err *e);
    void *context;
    size_t memory_bytes; /* for blocks in flight, shared by the streams that run */
};

int serve_new(struct serve **out, const struct serve_config *config, struct err *e);
void serve_free(struct serve *v); /* before hub_free; NULL is allowed */

/* For struct hub_handler, whose context is the struct serve. */
int serve_control(void *serve, struct hub *s, const struct message_header *header,
                  const uint8_t *body, size_t body_bytes, struct err *e);
void serve_link_up(void *serve, struct hub *s, uint32_t connection, const struct msg_hello *hello);

/* After every turn of the loop: ended streams are told of and forgotten. */
void serve_tend(struct serve *v, struct hub *s);

/* True once the receiver has asked to quit. */
bool serve_quits(const struct serve *v);

#endif
