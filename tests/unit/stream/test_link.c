/* The outgoing queue of a link: who is woken when, and how much room there is said to be. */
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/cmocka_all.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/stream/link.h"
#include "protocol/wire/crypto.h"

enum { BLOCK = 64 << 10 };

static unsigned woken;
static uint8_t block[BLOCK];

static void wake(void *context)
{
    (void)context;
    woken++;
}

/* A link whose other end is fd. */
static struct link *link_with(int *fd)
{
    struct handshake_keys keys = {
        .choice = { .mode = RECORD_ENCRYPT, .aead = AEAD_CHACHA20_POLY1305 }, .connection = 1
    };
    struct link_config config = { .keys = &keys, .payload_max = BLOCK * 2, .wake = wake };
    int fds[2];
    struct link *l = NULL;
    struct err e;

    assert_int_equal(crypto_start(&e), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    config.in_fd = config.out_fd = fds[0];
    config.aead = aead_sodium_find(keys.choice.aead);
    assert_int_equal(link_new(&l, &config, &e), 0);
    *fd = fds[1];
    woken = 0;
    return l;
}

static void send_block(struct link *l)
{
    struct msg_data m = { .tail = block, .tail_bytes = sizeof block };
    struct err e;

    assert_int_equal(link_send_data(l, 1, &m, &e), 0);
}

static void send_word(struct link *l)
{
    struct msg_heartbeat m = { .clock_ms = 1 };
    struct err e;

    assert_int_equal(link_send_heartbeat(l, 0, &m, &e), 0);
}

/* Write all of the queue out, the other end reading along. */
static void drain(struct link *l, int fd)
{
    static uint8_t sink[1 << 20];
    struct err e;

    do {
        assert_int_equal(link_flush(l, &e), 0);
        while (recv(fd, sink, sizeof sink, MSG_DONTWAIT) > 0)
            ;
    } while (link_queued(l) > 0);
    assert_int_equal(link_flush(l, &e), 0);
}

static void the_loop_hears_of_the_first_message_only(void **state)
{
    int fd;
    struct link *l = link_with(&fd);

    (void)state;
    send_word(l);
    assert_int_equal(woken, 1);
    send_word(l);
    send_block(l);
    assert_int_equal(woken, 1);
    drain(l, fd);
    send_word(l);
    assert_int_equal(woken, 2);
    link_free(l);
    close(fd);
}

static void held_bulk_wakes_when_it_is_worth_it(void **state)
{
    int fd;
    struct link *l = link_with(&fd);

    (void)state;
    link_hold(l);
    send_word(l);
    send_block(l);
    assert_int_equal(woken, 0);
    while (link_queued(l) < 4 * BLOCK)
        send_block(l);
    assert_int_equal(woken, 1);
    drain(l, fd);
    send_block(l);
    assert_int_equal(woken, 1);
    link_let_go(l); /* nothing that was sent is ever left lying */
    assert_int_equal(woken, 2);
    drain(l, fd);
    link_hold(l);
    link_let_go(l);
    assert_int_equal(woken, 2);
    link_free(l);
    close(fd);
}

static void room_is_told_to_whoever_was_refused(void **state)
{
    int fd;
    struct link *l = link_with(&fd);

    (void)state;
    assert_true(link_room(l));
    assert_false(link_room_came(l));
    while (link_room(l))
        send_block(l);
    assert_false(link_room_came(l));
    drain(l, fd);
    assert_true(link_room_came(l));
    assert_false(link_room_came(l));
    assert_true(link_room(l));
    link_free(l);
    close(fd);
}

/* What a flipped bit makes of a length: the rest never comes, and nothing else is heard. */
static void a_record_must_end_in_time(void **state)
{
    static uint8_t bytes[BLOCK * 2];
    int from_fd, to_fd;
    struct link *from = link_with(&from_fd), *to = link_with(&to_fd);
    struct message_header header;
    const uint8_t *body;
    size_t body_bytes;
    ssize_t count;
    uint64_t now;
    struct err e;

    (void)state;
    send_word(from);
    assert_int_equal(link_flush(from, &e), 0);
    count = recv(from_fd, bytes, sizeof bytes, 0);
    assert_true(count > 20);
    assert_false(link_is_late(to, UINT64_MAX, 0)); /* nothing is begun */
    assert_int_equal(send(to_fd, bytes, 10, 0), 10);
    assert_int_equal(link_receive(to, &e), 0);
    assert_int_equal(link_next(to, &header, &body, &body_bytes, &e), 0);
    now = io_clock_ms();
    assert_false(link_is_late(to, now + 20000, 30000));
    assert_true(link_is_late(to, now + 40000, 30000));
    assert_int_equal(send(to_fd, bytes + 10, (size_t)count - 10, 0), count - 10);
    assert_int_equal(link_receive(to, &e), 0);
    assert_int_equal(link_next(to, &header, &body, &body_bytes, &e), 1);
    assert_int_equal(header.type, MSG_heartbeat);
    assert_false(link_is_late(to, now + 40000, 30000));
    link_free(from);
    link_free(to);
    close(from_fd);
    close(to_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_loop_hears_of_the_first_message_only),
        cmocka_unit_test(held_bulk_wakes_when_it_is_worth_it),
        cmocka_unit_test(room_is_told_to_whoever_was_refused),
        cmocka_unit_test(a_record_must_end_in_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
