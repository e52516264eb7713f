#include "tests/fuzz/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "tests/fuzz/fuzz.h"

enum { SOCKET_BYTES = 1 << 20, IN_BYTES = 1 << 20 };

static struct handshake_keys keys_of(uint32_t connection)
{
    struct handshake_keys k = { .connection = connection,
                                .choice = { AEAD_CHACHA20_POLY1305, RECORD_AUTH } };

    memset(k.send, 1, sizeof k.send);
    memset(k.receive, 2, sizeof k.receive);
    return k;
}

void peer_start(struct peer *p, struct hub *hub, uint32_t connection)
{
    struct handshake_keys k = keys_of(connection);
    const struct aead *aead = aead_sodium_find(k.choice.aead);
    int fds[2], room = SOCKET_BYTES;
    struct err e;

    p->hub = hub;
    p->connection = connection;
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    p->fd = fds[0];
    p->in = malloc(IN_BYTES);
    FUZZ_CHECK(p->in != NULL);
    FUZZ_CHECK(record_key_start(&p->send, aead, RECORD_AUTH, k.receive, &e) == 0 &&
               record_key_start(&p->receive, aead, RECORD_AUTH, k.send, &e) == 0);
    FUZZ_CHECK(hub_link_add(hub, fds[1], fds[1], &k, aead, &e) == 0);
}

void peer_end(struct peer *p)
{
    if (p->hub == NULL)
        return;
    close(p->fd);
    free(p->in);
    record_key_end(&p->send);
    record_key_end(&p->receive);
    p->hub = NULL;
}

void peer_send(struct peer *p, const uint8_t *payload, size_t bytes)
{
    uint8_t *record;
    size_t count = bytes + RECORD_OVERHEAD_BYTES;
    struct err e;

    if (bytes == 0 || bytes > RECORD_PAYLOAD_MAX)
        return;
    record = malloc(count);
    FUZZ_CHECK(record != NULL);
    memcpy(record + RECORD_HEADER_BYTES, payload, bytes);
    FUZZ_CHECK(record_seal(&p->send, record, bytes, &e) == 0);
    for (size_t at = 0; at < count;) {
        ssize_t n = send(p->fd, record + at, count - at, MSG_NOSIGNAL);

        if (n > 0)
            at += (size_t)n;
        else if (n < 0 && errno == EAGAIN && !p->over)
            peer_turn(p, 1);
        else
            break;
    }
    free(record);
}

void peer_hello(struct peer *p)
{
    struct msg_hello hello = { .version_min = PROTOCOL_VERSION_MIN,
                               .version_max = PROTOCOL_VERSION,
                               .connection = p->connection };

    peer_say_hello(p, 0, &hello);
}

/* Whole records in p->in: they must open and be messages. */
static void take_records(struct peer *p)
{
    size_t at = 0, whole, bytes;
    struct message_header h;
    uint8_t *payload;
    struct err e;

    while (p->in_bytes - at >= RECORD_HEADER_BYTES) {
        FUZZ_CHECK(record_peek(p->in + at, MESSAGE_PAYLOAD_MAX, &whole, &e) == 0);
        FUZZ_CHECK(whole <= IN_BYTES);
        if (p->in_bytes - at < whole)
            break;
        FUZZ_CHECK(record_open(&p->receive, p->in + at, whole, &payload, &bytes, &e) == 0);
        FUZZ_CHECK(message_header_decode(&h, payload, bytes, &e) == 0);
        if (p->hear != NULL)
            p->hear(p->context, &h, payload + MESSAGE_HEADER_BYTES, bytes - MESSAGE_HEADER_BYTES);
        at += whole;
    }
    memmove(p->in, p->in + at, p->in_bytes - at);
    p->in_bytes -= at;
}

void peer_turn(struct peer *p, unsigned turns)
{
    struct err e;

    for (unsigned i = 0; i < turns; i++) {
        ssize_t n;

        if (!p->over && hub_turn(p->hub, 0, &e) != 0)
            p->over = true;
        while ((n = recv(p->fd, p->in + p->in_bytes, IN_BYTES - p->in_bytes, 0)) > 0) {
            p->in_bytes += (size_t)n;
            take_records(p);
        }
    }
}
