#include "esxi-agent/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"

static int wait_for(int fd, short events, uint64_t until_ms, struct err *e)
{
    for (;;) {
        struct pollfd p = { .fd = fd, .events = events };
        uint64_t now = io_clock_ms();
        int n;

        if (now >= until_ms)
            return err_set(e, ERR_NETWORK, "no answer in time");
        n = poll(&p, 1, (int)(until_ms - now));
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_sys(e, "waiting");
    }
}

int read_until(int fd, void *out, size_t count, uint64_t until_ms, struct err *e)
{
    uint8_t *at = out;
    size_t done = 0;

    while (done < count) {
        ssize_t n;

        if (wait_for(fd, POLLIN, until_ms, e) != 0)
            return -1;
        n = read(fd, at + done, count - done);
        if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
            continue;
        if (n < 0)
            return err_sys(e, "receiving");
        if (n == 0)
            return err_set(e, ERR_NETWORK, "the receiver closed the connection");
        done += (size_t)n;
    }
    return 0;
}

int shake_hands(int in_fd, int out_fd, uint64_t until_ms, const struct session_secret *secret,
                const struct handshake_offer *offer, struct handshake_keys *keys, struct err *e)
{
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES];

    /* A fresh connection takes these few bytes at once. */
    if (handshake_offer(secret, offer, m1, e) != 0 || io_write_all(out_fd, m1, sizeof m1, e) != 0 ||
        read_until(in_fd, m2, sizeof m2, until_ms, e) != 0)
        return -1;
    return handshake_finish(secret, m1, m2, keys, e);
}

static int parse(const char *address, uint16_t port, struct sockaddr_storage *out, socklen_t *bytes,
                 struct err *e)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        *bytes = sizeof *v4;
        return 0;
    }
    if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        *bytes = sizeof *v6;
        return 0;
    }
    return err_set(e, ERR_USAGE, "%s is no numeric address", address);
}

static int connect_until(int fd, const struct sockaddr_storage *to, socklen_t bytes,
                         uint64_t until_ms, struct err *e)
{
    int reason = 0, on = 1;
    socklen_t reason_bytes = sizeof reason;

    if (io_set_nonblocking(fd, 1, e) != 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)to, bytes) != 0) {
        if (errno != EINPROGRESS)
            return err_sys(e, "connecting");
        if (wait_for(fd, POLLOUT, until_ms, e) != 0)
            return -1;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &reason_bytes) == 0 && reason != 0) {
            errno = reason;
            return err_sys(e, "connecting");
        }
    }
    /* Only an optimisation: without it small messages wait a little. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return 0;
}

int dial(const char *address, uint16_t port, uint32_t connection, uint64_t timeout_ms,
         const struct session_secret *secret, const struct handshake_offer *offer, int *fd,
         struct handshake_keys *keys, struct err *e)
{
    uint64_t until_ms = io_clock_ms() + timeout_ms;
    struct handshake_offer own = *offer;
    struct sockaddr_storage to;
    socklen_t to_bytes = 0;
    int s;

    if (parse(address, port, &to, &to_bytes, e) != 0)
        return -1;
    s = socket(to.ss_family, SOCK_STREAM, 0);
    if (s < 0)
        return err_sys(e, "making a socket");
    fcntl(s, F_SETFD, FD_CLOEXEC);
    own.connection = connection;
    if (connect_until(s, &to, to_bytes, until_ms, e) != 0 ||
        shake_hands(s, s, until_ms, secret, &own, keys, e) != 0) {
        io_drop(&s);
        return err_add(e, "[%s]:%u", address, port);
    }
    *fd = s;
    return 0;
}
