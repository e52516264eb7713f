/* The thread of a connection: it moves bytes, keeps the connection alive, and notices its death. */
#include "receiver/ssh/connection.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/io.h"

enum {
    IDLE_POLL_MS = 1000, /* how often timers are looked at when nothing happens */
    DOUBT_POLL_MS = 20,  /* libssh2 wants to send and the queue is empty: should not be */
    ASK_DELAY_MS = 3000, /* that libssh2 may take to send a keep-alive */
    GOODBYE_MS = 500     /* for the last words of a connection that is closed in order */
};

/* One round's view of the channels. */
struct round {
    struct pollfd polls[2 + SSH_CHANNELS_MAX];
    nfds_t count;
    struct channel *channels[SSH_CHANNELS_MAX];
    bool stop;
};

void pump_wake(struct connection *c)
{
    uint64_t one = 1;

    while (write(c->wake, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

void pump_die(struct connection *c, const struct err *why)
{
    pthread_mutex_lock(&c->lock);
    if (!c->dead) {
        c->dead = true;
        c->why = *why;
        pthread_cond_broadcast(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
}

static void die_of(struct connection *c, int rc, const char *what)
{
    struct err why;

    session_error(c, rc, &why, what);
    if (why.code != ERR_NETWORK && why.code != ERR_SYSTEM)
        why.code = ERR_NETWORK;
    pump_die(c, &why);
}

static void gather(struct connection *c, struct round *r)
{
    pthread_mutex_lock(&c->lock);
    memcpy(r->channels, c->channels, sizeof r->channels);
    r->stop = c->stop;
    pthread_mutex_unlock(&c->lock);

    r->polls[0] = (struct pollfd){ .fd = c->socket, .events = POLLIN };
    if (c->out.count > 0)
        r->polls[0].events |= POLLOUT;
    r->polls[1] = (struct pollfd){ .fd = c->wake, .events = POLLIN };
    r->count = 2;
    for (size_t i = 0; i < SSH_CHANNELS_MAX; i++) {
        struct channel *ch = r->channels[i];
        short events;

        if (ch == NULL)
            continue;
        /* A descriptor without a wish is left out: poll would report its hang-up again and again.
         */
        events = channel_events(ch);
        ch->polled = NULL;
        if (events == 0)
            continue;
        ch->polled = &r->polls[r->count++];
        *ch->polled = (struct pollfd){ .fd = ch->local, .events = events };
    }
}

/* Bring in all that the network has and answer the host.  See connection.idle. */
static void read_network(struct connection *c)
{
    char nothing[64];
    ssize_t n = libssh2_channel_read(c->idle, nothing, sizeof nothing);

    if (n < 0 && n != LIBSSH2_ERROR_EAGAIN)
        die_of(c, (int)n, "reading from the host");
    else if (c->network_ended || c->network_errno != 0)
        die_of(c, LIBSSH2_ERROR_SOCKET_DISCONNECT, "reading from the host");
}

static void write_network(struct connection *c)
{
    int rc = c->network_errno != 0 ? -c->network_errno : send_queue_flush(&c->out, c->socket);

    if (rc == 0)
        return;
    c->network_errno = -rc;
    die_of(c, LIBSSH2_ERROR_SOCKET_SEND, "sending to the host");
}

/*
 * Ask the host for a sign of life.  libssh2 counts in whole seconds, asks at most every second one,
 * and sends nothing while keys are exchanged; so only bytes that went out count as having asked.
 */
static void ask_life(struct connection *c, uint64_t now)
{
    uint64_t sent = c->sent_bytes;
    int next;
    int rc = libssh2_keepalive_send(c->session, &next);

    if (rc != 0 && rc != LIBSSH2_ERROR_EAGAIN) {
        die_of(c, rc, "keeping the connection alive");
        return;
    }
    if (c->sent_bytes == sent)
        return;
    c->alive_asked = true;
    c->alive_since_ms = now;
}

static void check_life(struct connection *c)
{
    uint64_t now = io_clock_ms();
    struct err why;

    if (c->alive_since_ms != 0 && c->received_bytes != c->alive_before_bytes) {
        c->alive_since_ms = 0;
        c->alive_asked = false;
    }
    if (c->alive_since_ms == 0) {
        if (now - c->received_at_ms < c->keepalive_ms)
            return;
        c->alive_since_ms = now;
        c->alive_before_bytes = c->received_bytes;
    }
    if (!c->alive_asked)
        ask_life(c, now);
    if (now - c->alive_since_ms < c->silence_ms + (c->alive_asked ? 0 : ASK_DELAY_MS))
        return;
    err_set(&why, ERR_NETWORK, "the host has been silent for %llu seconds",
            (unsigned long long)(now - c->received_at_ms) / 1000);
    why.os = ETIMEDOUT;
    pump_die(c, &why);
}

static int poll_time(struct connection *c, bool busy)
{
    uint64_t limit = IDLE_POLL_MS;

    if (busy)
        return 0;
    if (c->keepalive_ms < limit)
        limit = c->keepalive_ms;
    if (c->out.count == 0 &&
        (libssh2_session_block_directions(c->session) & LIBSSH2_SESSION_BLOCK_OUTBOUND) != 0)
        limit = DOUBT_POLL_MS;
    return (int)limit;
}

/* One round.  True when something moved, so that the next one must not wait. */
static bool round_run(struct connection *c, struct round *r)
{
    uint64_t before = c->received_bytes;
    bool moved = false;

    read_network(c);
    for (size_t i = 0; i < SSH_CHANNELS_MAX && !c->dead; i++)
        if (r->channels[i] != NULL)
            moved |= channel_step(r->channels[i]);
    if (!c->dead)
        write_network(c);
    if (!c->dead)
        check_life(c);
    /* A call for one channel may have brought in what another one waits for. */
    return moved || c->received_bytes != before;
}

static void drain_wake(int fd)
{
    uint64_t count;

    while (read(fd, &count, sizeof count) < 0 && errno == EINTR)
        continue;
}

/* The last words: a disconnect message and what is still queued. */
static void say_goodbye(struct connection *c)
{
    uint64_t deadline_ms = io_clock_ms() + GOODBYE_MS;

    libssh2_session_disconnect(c->session, "done");
    while (send_queue_flush(&c->out, c->socket) == 0 && c->out.count > 0 &&
           io_clock_ms() < deadline_ms) {
        struct pollfd p = { .fd = c->socket, .events = POLLOUT };

        poll(&p, 1, 50);
    }
}

static void finish(struct connection *c)
{
    struct err closed;

    err_set(&closed, ERR_NETWORK, "the connection was closed");
    if (!c->dead)
        say_goodbye(c);
    pump_die(c, &closed);
    shutdown(c->socket, SHUT_RDWR);
    session_free(c);
    send_queue_free(&c->out);

    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < SSH_CHANNELS_MAX; i++) {
        struct channel *ch = c->channels[i];

        c->channels[i] = NULL;
        if (ch == NULL)
            continue;
        channel_abandon(ch);
        if (ch->released)
            channel_free(ch);
    }
    c->finished = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

void *pump_run(void *connection)
{
    struct connection *c = connection;
    struct round r;
    bool busy = false;

    c->received_at_ms = io_clock_ms();
    for (;;) {
        gather(c, &r);
        if (r.stop || c->dead)
            break;
        if (poll(r.polls, r.count, poll_time(c, busy)) < 0 && errno != EINTR) {
            struct err why;

            err_sys(&why, "waiting for the network");
            pump_die(c, &why);
            break;
        }
        busy = r.polls[1].revents != 0;
        if (busy)
            drain_wake(c->wake);
        /* Who woke us may have changed what was gathered before: the next round must not wait
         * either. */
        busy |= round_run(c, &r);
    }
    finish(c);
    return NULL;
}
