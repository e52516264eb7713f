/* The data port answers nobody but the agent that it expects. */
#include "tests/unit/cmocka_all.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/wire/crypto.h"
#include "receiver/base/aead_openssl.h"
#include "receiver/stream/data_listener.h"

struct scene {
    struct session_secret secret;
    struct data_listener *listener;
    unsigned proved;
};

static int on_proved(void *context, int fd, const struct handshake_keys *keys)
{
    struct scene *s = context;

    (void)keys;
    __atomic_add_fetch(&s->proved, 1, __ATOMIC_RELAXED);
    close(fd);
    return 0;
}

static void scene_new(struct scene *s)
{
    struct data_listener_config config = { .address = "127.0.0.1", .secret = &s->secret,
                                           .mode_set = RECORD_MODE_SET_ALL,
                                           .proved = on_proved, .context = s };
    struct err e = { 0 };

    memset(s, 0, sizeof *s);
    assert_int_equal(session_secret_make(&s->secret, &e), 0);
    config.aead_set = aead_openssl_offer();
    if (data_listener_new(&s->listener, &config, &e) != 0)
        fail_msg("%s", e.text);
}

static int dial(struct scene *s)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(data_listener_port(s->listener)) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* Send bytes; how many bytes of answer come until the port closes the connection. */
static size_t answer_to(struct scene *s, const void *data, size_t count)
{
    uint8_t answer[256];
    size_t total = 0;
    int fd = dial(s);
    ssize_t n;

    (void)!write(fd, data, count);
    shutdown(fd, SHUT_WR);
    while ((n = read(fd, answer, sizeof answer)) > 0)
        total += (size_t)n;
    close(fd);
    return total;
}

static void make_m1(struct scene *s, uint32_t connection, uint8_t m1[HANDSHAKE_M1_BYTES])
{
    struct handshake_offer offer = { .connection = connection, .aead_set = AEAD_SET_ALL,
                                     .mode_set = RECORD_MODE_SET_ALL };
    struct err e;

    assert_int_equal(handshake_offer(&s->secret, &offer, m1, &e), 0);
}

static void strangers_hear_nothing(void **state)
{
    uint8_t m1[HANDSHAKE_M1_BYTES], junk[200];
    struct scene s;
    struct err e;

    (void)state;
    scene_new(&s);
    data_listener_expect(s.listener, 7);
    assert_int_equal(answer_to(&s, "GET / HTTP/1.0\r\n\r\n", 18), 0);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(crypto_random(junk, sizeof junk, &e), 0);
        assert_int_equal(answer_to(&s, junk, sizeof junk), 0);
    }
    make_m1(&s, 7, m1);
    for (size_t bit = 0; bit < sizeof m1 * 8; bit += 5) {
        m1[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(answer_to(&s, m1, sizeof m1), 0);
        m1[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    make_m1(&s, 8, m1); /* proved, but not expected */
    assert_int_equal(answer_to(&s, m1, sizeof m1), 0);
    assert_int_equal(s.proved, 0);
    make_m1(&s, 7, m1); /* the expected one still gets through */
    assert_int_equal(answer_to(&s, m1, sizeof m1), HANDSHAKE_M2_BYTES);
    assert_int_equal(s.proved, 1);
    assert_int_equal(answer_to(&s, m1, sizeof m1), 0); /* once only */
    assert_true(data_listener_strangers(s.listener) > 100);
    data_listener_free(s.listener);
}

static void silent_peers_do_not_keep_the_agent_out(void **state)
{
    uint8_t m1[HANDSHAKE_M1_BYTES];
    int silent[40];
    struct scene s;

    (void)state;
    scene_new(&s);
    data_listener_expect(s.listener, 2);
    for (size_t i = 0; i < 40; i++)
        silent[i] = dial(&s);
    make_m1(&s, 2, m1);
    assert_int_equal(answer_to(&s, m1, sizeof m1), HANDSHAKE_M2_BYTES);
    for (size_t i = 0; i < 40; i++)
        close(silent[i]);
    data_listener_free(s.listener);
}

static void a_late_peer_is_closed(void **state)
{
    uint8_t m1[HANDSHAKE_M1_BYTES];
    struct scene s;

    (void)state;
    scene_new(&s);
    data_listener_expect(s.listener, 3);
    data_listener_forget(s.listener, 3);
    make_m1(&s, 3, m1);
    assert_int_equal(answer_to(&s, m1, sizeof m1), 0);
    data_listener_free(s.listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_hear_nothing),
        cmocka_unit_test(silent_peers_do_not_keep_the_agent_out),
        cmocka_unit_test(a_late_peer_is_closed),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
