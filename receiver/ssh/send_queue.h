/*
 * Bytes on their way to the network.  libssh2 hands every packet over as a whole and never learns
 * that a socket is full: when it keeps half a packet itself, a key exchange that comes meanwhile
 * hangs for ever (libssh2 issues 1672 and 2110) and two directions at once fail with -7 or -39.
 */
#ifndef RECEIVER_SSH_SEND_QUEUE_H
#define RECEIVER_SSH_SEND_QUEUE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    SEND_QUEUE_MARK = 512 << 10, /* no channel data are added above it */
    SEND_QUEUE_MAX = 4 << 20     /* window adjustments and key exchanges still fit above the mark */
};

/* Empty value: { 0 }. */
struct send_queue {
    uint8_t *data;
    size_t start; /* of what is still to be sent */
    size_t count;
    size_t room;
};

/* Take all of data, sending what the socket takes now.  0, or a negative errno. */
int send_queue_put(struct send_queue *q, int fd, const void *data, size_t count);

/* Send what the socket takes.  0 (perhaps with bytes left), or a negative errno. */
int send_queue_flush(struct send_queue *q, int fd);

void send_queue_free(struct send_queue *q);

#endif
