#include "receiver/ssh/connection.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/io.h"

/* 0 once the socket is connected; -1 with errno, or with *stopped. */
static int wait_connected(int fd, const struct ssh_options *o, uint64_t deadline_ms, bool *stopped)
{
    for (;;) {
        struct pollfd p[2] = { { .fd = fd, .events = POLLOUT },
                               { .fd = o->cancel_fd, .events = POLLIN } };
        uint64_t now = io_clock_ms();
        int failure = 0;
        socklen_t size = sizeof failure;
        int n;

        if (now >= deadline_ms) {
            errno = ETIMEDOUT;
            return -1;
        }
        n = poll(p, 2, (int)(deadline_ms - now));
        if (n < 0 && errno != EINTR)
            return -1;
        if (n > 0 && p[1].revents != 0) {
            *stopped = true;
            return -1;
        }
        if (n <= 0 || p[0].revents == 0)
            continue;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) != 0)
            return -1;
        errno = failure;
        return failure == 0 ? 0 : -1;
    }
}

static void tune(int fd, const struct ssh_options *o)
{
    int on = 1;
    /* A peer that acknowledges nothing is given up by the kernel as well. */
    unsigned dead_ms = o->keepalive_ms + o->silence_ms;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof dead_ms);
    if (o->send_buffer_bytes > 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &o->send_buffer_bytes, sizeof o->send_buffer_bytes);
}

/* One address.  A connected socket, or -1 with errno (or *stopped). */
static int connect_one(const struct addrinfo *a, const struct ssh_options *o, bool *stopped)
{
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
    int was;

    if (fd < 0)
        return -1;
    tune(fd, o);
    if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
        return fd;
    if (errno == EINPROGRESS && wait_connected(fd, o, io_clock_ms() + o->timeout_ms, stopped) == 0)
        return fd;
    was = errno;
    close(fd);
    errno = was;
    return -1;
}

int tcp_connect(int *out, const struct ssh_options *o, struct err *e)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    struct addrinfo *list = NULL;
    char port[8];
    bool stopped = false;
    int fd = -1;
    int rc;

    snprintf(port, sizeof port, "%u", o->port);
    rc = getaddrinfo(o->host, port, &hints, &list);
    if (rc == EAI_ADDRFAMILY || rc == EAI_NONAME) {
        /* ADDRCONFIG hides loopback literals where only loopback is configured. */
        hints.ai_flags = 0;
        rc = getaddrinfo(o->host, port, &hints, &list);
    }
    if (rc != 0)
        return err_set(e, ERR_NETWORK, "finding the address of %s: %s", o->host,
                       rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
    errno = EADDRNOTAVAIL;
    for (const struct addrinfo *a = list; a != NULL && fd < 0 && !stopped; a = a->ai_next)
        fd = connect_one(a, o, &stopped);
    rc = errno;
    freeaddrinfo(list);
    if (stopped)
        return err_set(e, ERR_STOPPED, "stopped while connecting");
    if (fd < 0) {
        err_set(e, ERR_NETWORK, "connecting: %s%s", strerror(rc),
                rc == ECONNREFUSED ? " (is SSH switched on there?)" : "");
        if (e != NULL)
            e->os = rc;
        return -1;
    }
    *out = fd;
    return 0;
}

int tcp_local_address(int fd, char *out, size_t room, struct err *e)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    char *scope;
    int rc;

    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        return err_sys(e, "asking for the local address");
    rc = getnameinfo((struct sockaddr *)&address, size, out, (socklen_t)room, NULL, 0,
                     NI_NUMERICHOST);
    if (rc != 0)
        return err_set(e, ERR_SYSTEM, "asking for the local address: %s", gai_strerror(rc));
    /* The scope of a link-local address means nothing on the other machine. */
    scope = strchr(out, '%');
    if (scope != NULL)
        *scope = 0;
    return 0;
}
