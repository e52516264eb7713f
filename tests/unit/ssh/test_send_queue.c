#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "receiver/ssh/send_queue.h"

enum { PIECE_BYTES = 32768 };

struct ends {
    int near;
    int far;
};

static struct ends open_pair(void)
{
    int pair[2];
    int size = 4608;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    return (struct ends){ pair[0], pair[1] };
}

static uint8_t byte_at(size_t offset)
{
    return (uint8_t)(offset * 31 + offset / 251);
}

static void put_piece(struct send_queue *q, int fd, size_t *put, size_t count)
{
    static uint8_t piece[PIECE_BYTES];

    for (size_t i = 0; i < count; i++)
        piece[i] = byte_at(*put + i);
    assert_int_equal(send_queue_put(q, fd, piece, count), 0);
    *put += count;
}

static void drink(int fd, size_t *got, size_t most)
{
    uint8_t in[8192];
    ssize_t n = recv(fd, in, most < sizeof in ? most : sizeof in, MSG_DONTWAIT);

    if (n < 0)
        assert_true(errno == EAGAIN);
    for (ssize_t i = 0; i < n; i++)
        assert_int_equal(in[i], byte_at(*got + (size_t)i));
    *got += n > 0 ? (size_t)n : 0;
}

/* Whatever the socket takes, what comes out is what was put in, in order. */
static void bytes_keep_their_order_on_a_slow_socket(void **state)
{
    struct ends e = open_pair();
    struct send_queue q = { 0 };
    size_t put = 0;
    size_t got = 0;

    (void)state;
    for (unsigned i = 0; i < 2000; i++) {
        if (q.count < SEND_QUEUE_MARK)
            put_piece(&q, e.near, &put, i * 7919 % PIECE_BYTES + 1);
        drink(e.far, &got, i * 104729 % 8192 + 1);
    }
    assert_true(q.count > 0);
    while (got < put) {
        assert_int_equal(send_queue_flush(&q, e.near), 0);
        drink(e.far, &got, 8192);
    }
    assert_int_equal(q.count, 0);
    send_queue_free(&q);
    close(e.near);
    close(e.far);
}

static void the_queue_has_an_end(void **state)
{
    static const uint8_t zeros[PIECE_BYTES];
    struct ends e = open_pair();
    struct send_queue q = { 0 };
    int rc = 0;

    (void)state;
    for (int i = 0; i < SEND_QUEUE_MAX / PIECE_BYTES + 2 && rc == 0; i++)
        rc = send_queue_put(&q, e.near, zeros, sizeof zeros);
    assert_int_equal(rc, -ENOBUFS);
    assert_true(q.count <= SEND_QUEUE_MAX);
    assert_true(q.count > SEND_QUEUE_MAX - 2 * PIECE_BYTES);
    send_queue_free(&q);
    close(e.near);
    close(e.far);
}

static void a_broken_socket_is_told(void **state)
{
    static const uint8_t zeros[PIECE_BYTES];
    struct ends e = open_pair();
    struct send_queue q = { 0 };

    (void)state;
    assert_int_equal(send_queue_put(&q, e.near, zeros, sizeof zeros), 0);
    assert_true(q.count > 0);
    close(e.far);
    assert_int_equal(send_queue_flush(&q, e.near), -EPIPE);
    assert_int_equal(send_queue_put(&q, e.near, zeros, 1), -EPIPE);
    send_queue_free(&q);
    close(e.near);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_keep_their_order_on_a_slow_socket),
        cmocka_unit_test(the_queue_has_an_end),
        cmocka_unit_test(a_broken_socket_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
