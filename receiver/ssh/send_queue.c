#include "receiver/ssh/send_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Bytes that the socket took, 0 when it is full, or a negative errno. */
static ssize_t send_some(int fd, const void *data, size_t count)
{
    for (;;) {
        ssize_t n = send(fd, data, count, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n >= 0)
            return n;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

static int reserve(struct send_queue *q, size_t count)
{
    size_t room = q->room > 0 ? q->room : 64 << 10;
    uint8_t *data;

    if (count > SEND_QUEUE_MAX - q->count)
        return -ENOBUFS;
    if (q->start + q->count + count <= q->room)
        return 0;
    if (q->start > 0) {
        memmove(q->data, q->data + q->start, q->count);
        q->start = 0;
    }
    while (room < q->count + count)
        room *= 2;
    if (room == q->room)
        return 0;
    data = realloc(q->data, room);
    if (data == NULL)
        return -ENOMEM;
    q->data = data;
    q->room = room;
    return 0;
}

int send_queue_put(struct send_queue *q, int fd, const void *data, size_t count)
{
    const uint8_t *from = data;
    size_t sent = 0;
    int rc;

    if (q->count > 0) {
        rc = send_queue_flush(q, fd);
        if (rc != 0)
            return rc;
    }
    while (q->count == 0 && sent < count) {
        ssize_t n = send_some(fd, from + sent, count - sent);

        if (n < 0)
            return (int)n;
        if (n == 0)
            break;
        sent += (size_t)n;
    }
    if (sent == count)
        return 0;
    rc = reserve(q, count - sent);
    if (rc != 0)
        return rc;
    memcpy(q->data + q->start + q->count, from + sent, count - sent);
    q->count += count - sent;
    return 0;
}

int send_queue_flush(struct send_queue *q, int fd)
{
    while (q->count > 0) {
        ssize_t n = send_some(fd, q->data + q->start, q->count);

        if (n <= 0)
            return (int)n;
        q->start += (size_t)n;
        q->count -= (size_t)n;
    }
    q->start = 0;
    return 0;
}

void send_queue_free(struct send_queue *q)
{
    free(q->data);
    *q = (struct send_queue){ 0 };
}
