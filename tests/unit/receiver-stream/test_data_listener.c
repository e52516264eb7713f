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

static void scene_new_at(struct scene *s, struct data_ports *ports)
{
    struct data_listener_config config = { .address = "127.0.0.1",
                                           .secret = &s->secret,
                                           .ports = ports,
                                           .mode_set = RECORD_MODE_SET_ALL,
                                           .proved = on_proved,
                                           .context = s };
    struct err e = { 0 };

    memset(s, 0, sizeof *s);
    assert_int_equal(session_secret_make(&s->secret, &e), 0);
    config.aead_set = aead_openssl_offer();
    if (data_listener_new(&s->listener, &config, &e) != 0)
        fail_msg("%s", e.text);
}

static void scene_new(struct scene *s)
{
    scene_new_at(s, NULL);
}

static int dial(struct scene *s)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons(data_listener_port(s->listener)) };
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
    struct handshake_offer offer = { .connection = connection,
                                     .aead_set = AEAD_SET_ALL,
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

/* Each connection goes to the session that it proves, and no session takes another's. */
static void sessions_share_a_port(void **state)
{
    enum { SESSIONS = 6 }; /* more than there are usual ports */
    uint8_t m1[HANDSHAKE_M1_BYTES], again[HANDSHAKE_M1_BYTES];
    struct scene s[SESSIONS];
    struct data_ports *ports;
    struct err e;

    (void)state;
    assert_int_equal(data_ports_new(&ports, &e), 0);
    for (size_t i = 0; i < SESSIONS; i++) {
        scene_new_at(&s[i], ports);
        assert_int_equal(data_listener_port(s[i].listener), data_listener_port(s[0].listener));
        data_listener_expect(s[i].listener, 1);
    }
    make_m1(&s[2], 1, m1);
    assert_int_equal(answer_to(&s[2], m1, sizeof m1), HANDSHAKE_M2_BYTES);
    assert_int_equal(s[2].proved, 1);
    make_m1(&s[2], 1, m1); /* burnt here; that it is expected elsewhere does not help */
    assert_int_equal(answer_to(&s[2], m1, sizeof m1), 0);
    /* An M1 under another session's id is not proved by that session's key. */
    make_m1(&s[3], 1, m1);
    make_m1(&s[4], 1, again);
    for (size_t at = 0; at + SESSION_ID_BYTES <= sizeof m1; at++)
        if (memcmp(m1 + at, s[3].secret.id, SESSION_ID_BYTES) == 0)
            memcpy(m1 + at, s[4].secret.id, SESSION_ID_BYTES);
    assert_int_equal(answer_to(&s[3], m1, sizeof m1), 0);
    /* One session's end leaves the port to the others, and takes what it expected with it. */
    make_m1(&s[5], 1, m1);
    data_listener_free(s[5].listener);
    assert_int_equal(answer_to(&s[4], m1, sizeof m1), 0);
    assert_int_equal(answer_to(&s[4], again, sizeof again), HANDSHAKE_M2_BYTES);
    make_m1(&s[3], 1, m1);
    assert_int_equal(answer_to(&s[3], m1, sizeof m1), HANDSHAKE_M2_BYTES);
    assert_int_equal(s[3].proved + s[4].proved + s[5].proved + s[0].proved, 2);
    for (size_t i = 0; i + 1 < SESSIONS; i++)
        data_listener_free(s[i].listener);
    /* Nobody is left: the next one opens it anew. */
    scene_new_at(&s[0], ports);
    data_listener_free(s[0].listener);
    data_ports_free(ports);
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
        cmocka_unit_test(sessions_share_a_port),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
