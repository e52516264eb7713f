#include "esxi-agent/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/base/net.h"

int shake_hands(int in_fd, int out_fd, uint64_t until_ms, const struct session_secret *secret,
                const struct handshake_offer *offer, struct handshake_keys *keys, struct err *e)
{
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES];

    /* A fresh connection takes these few bytes at once. */
    if (handshake_offer(secret, offer, m1, e) != 0 || io_write_all(out_fd, m1, sizeof m1, e) != 0 ||
        io_read_until(in_fd, m2, sizeof m2, until_ms, e) != 0)
        return -1;
    return handshake_finish(secret, m1, m2, keys, e);
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
        if (io_wait_until(fd, POLLOUT, until_ms, e) != 0)
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
    socklen_t to_bytes;
    int s;

    if (net_address(address, port, &to, &to_bytes, e) != 0)
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
