#include "protocol/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "protocol/base/err.h"

int io_read_all(int fd, void *data, size_t count, struct err *e)
{
    uint8_t *at = data;
    size_t done = 0;

    while (done < count) {
        ssize_t n = read(fd, at + done, count - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "reading");
        if (n == 0)
            return err_set(e, ERR_CORRUPT, "it ends after %zu of %zu bytes", done, count);
        done += (size_t)n;
    }
    return 0;
}

int io_pread_all(int fd, void *data, size_t count, uint64_t offset_bytes, struct err *e)
{
    uint8_t *at = data;
    size_t done = 0;

    while (done < count) {
        ssize_t n = pread(fd, at + done, count - done, (off_t)(offset_bytes + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "reading at byte %" PRIu64, offset_bytes + done);
        if (n == 0)
            return err_set(e, ERR_CORRUPT, "it ends at byte %" PRIu64 ", %zu bytes too early",
                           offset_bytes + done, count - done);
        done += (size_t)n;
    }
    return 0;
}

int io_wait_until(int fd, short events, uint64_t until_ms, struct err *e)
{
    for (;;) {
        struct pollfd p = { .fd = fd, .events = events };
        uint64_t now = io_clock_ms();
        int n;

        if (now >= until_ms)
            return err_set(e, ERR_NETWORK, "no answer in time");
        n = poll(&p, 1, until_ms - now > 60000 ? 60000 : (int)(until_ms - now));
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_sys(e, "waiting");
    }
}

int io_read_until(int fd, void *data, size_t count, uint64_t until_ms, struct err *e)
{
    uint8_t *at = data;
    size_t done = 0;

    while (done < count) {
        ssize_t n;

        if (io_wait_until(fd, POLLIN, until_ms, e) != 0)
            return -1;
        n = read(fd, at + done, count - done);
        if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
            continue;
        if (n < 0) {
            err_sys(e, "receiving");
            e->code = ERR_NETWORK;
            return -1;
        }
        if (n == 0)
            return err_set(e, ERR_NETWORK, "the other end closed the connection");
        done += (size_t)n;
    }
    return 0;
}

int io_write_all(int fd, const void *data, size_t count, struct err *e)
{
    const uint8_t *at = data;
    size_t done = 0;

    while (done < count) {
        ssize_t n = write(fd, at + done, count - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys_write(e, "writing");
        done += (size_t)n;
    }
    return 0;
}

int io_pwrite_all(int fd, const void *data, size_t count, uint64_t offset_bytes, struct err *e)
{
    const uint8_t *at = data;
    size_t done = 0;

    while (done < count) {
        ssize_t n = pwrite(fd, at + done, count - done, (off_t)(offset_bytes + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys_write(e, "writing at byte %" PRIu64, offset_bytes + done);
        done += (size_t)n;
    }
    return 0;
}

int io_sync(int fd, struct err *e)
{
    while (fsync(fd) != 0)
        if (errno != EINTR)
            return err_sys_write(e, "making it durable");
    return 0;
}

int io_close(int *fd, struct err *e)
{
    int was = *fd;

    *fd = -1;
    if (close(was) != 0 && errno != EINTR)
        return err_sys_write(e, "closing");
    return 0;
}

void io_drop(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int io_set_nonblocking(int fd, int on, struct err *e)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0)
        return err_sys(e, "reading descriptor flags");
    flags = on ? (flags | O_NONBLOCK) : (flags & ~O_NONBLOCK);
    if (fcntl(fd, F_SETFL, flags) != 0)
        return err_sys(e, "setting descriptor flags");
    return 0;
}

uint64_t io_clock_ms(void)
{
    struct timespec t = { 0 };

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}
