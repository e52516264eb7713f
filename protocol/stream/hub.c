#include "protocol/stream/hub_private.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/stream/pool.h"
#include "protocol/stream/thread.h"

/* Control messages and small ones; a stream that takes data raises the limit of its link. */
enum { PAYLOAD_MAX_FIRST = 96 << 10 };

/* ---- life ---- */

int hub_new(struct hub **out, const struct hub_config *config, struct err *e)
{
    struct hub *h = calloc(1, sizeof *h);

    if (h == NULL)
        return err_sys(e, "getting memory for a session");
    h->config = *config;
    h->wake_fd[0] = h->wake_fd[1] = -1;
    if (h->config.heartbeat_ms == 0)
        h->config.heartbeat_ms = HUB_HEARTBEAT_MS;
    if (h->config.silence_ms == 0)
        h->config.silence_ms = HUB_SILENCE_MS;
    if (h->config.stall_ms == 0)
        h->config.stall_ms = HUB_STALL_MS;
    if (pipe(h->wake_fd) != 0) {
        err_sys(e, "making a pipe");
        goto fail;
    }
    for (int i = 0; i < 2; i++) {
        if (io_set_nonblocking(h->wake_fd[i], 1, e) != 0)
            goto fail;
        fcntl(h->wake_fd[i], F_SETFD, FD_CLOEXEC);
    }
    if (pool_new(&h->pool, config->workers, e) != 0)
        goto fail;
    h->config.workers = pool_workers(h->pool);
    pthread_mutex_init(&h->lock, NULL);
    cond_init(&h->links_changed);
    *out = h;
    return 0;

fail:
    io_drop(&h->wake_fd[0]);
    io_drop(&h->wake_fd[1]);
    free(h);
    return -1;
}

void hub_free(struct hub *h)
{
    if (h == NULL)
        return;
    for (size_t i = 0; i < HUB_STREAMS_MAX; i++)
        if (h->streams[i] != NULL)
            stream_end(h->streams[i]);
    pool_free(h->pool);
    for (size_t i = 0; i < HUB_LINKS_MAX; i++)
        link_free(h->links[i].link);
    io_drop(&h->wake_fd[0]);
    io_drop(&h->wake_fd[1]);
    pthread_cond_destroy(&h->links_changed);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

unsigned hub_workers(const struct hub *h)
{
    return h->config.workers;
}

struct pool *hub_pool(struct hub *h)
{
    return h->pool;
}

void hub_wake(void *hub)
{
    struct hub *h = hub;
    ssize_t n = write(h->wake_fd[1], "", 1);

    (void)n; /* a full pipe wakes as well */
}

bool hub_over(struct hub *h, struct err *why)
{
    bool over;

    pthread_mutex_lock(&h->lock);
    over = h->over;
    if (over && why != NULL)
        *why = h->why_over;
    pthread_mutex_unlock(&h->lock);
    return over;
}

void hub_end(struct hub *h)
{
    pthread_mutex_lock(&h->lock);
    h->ending = true;
    pthread_mutex_unlock(&h->lock);
    hub_wake(h);
}

/* ---- links ---- */

struct link_slot *hub_slot_of(struct hub *h, uint32_t connection)
{
    for (size_t i = 0; i < HUB_LINKS_MAX; i++) {
        struct link_slot *slot = &h->links[i];

        if (slot->link != NULL && !slot->dead && link_connection(slot->link) == connection)
            return slot;
    }
    return NULL;
}

static int say_hello(struct hub *h, struct link *l, struct err *e)
{
    const char *version = h->config.version != NULL ? h->config.version : "";
    struct msg_hello hello = {
        .version_min = PROTOCOL_VERSION_MIN,
        .version_max = PROTOCOL_VERSION,
        .connection = link_connection(l),
        .threads = h->config.workers,
        .tail = (const uint8_t *)version,
        .tail_bytes = strlen(version),
    };

    return link_send_hello(l, 0, &hello, e);
}

int hub_link_add(struct hub *h, int in_fd, int out_fd, const struct handshake_keys *keys,
                 const struct aead *aead, struct err *e)
{
    struct link_config config = {
        .in_fd = in_fd,
        .out_fd = out_fd,
        .keys = keys,
        .aead = aead,
        .payload_max = PAYLOAD_MAX_FIRST,
        .wake = hub_wake,
        .context = h,
    };
    struct link_slot *slot = NULL;
    struct link *l = NULL;
    int rc = -1;

    if (link_new(&l, &config, e) != 0)
        return -1;
    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < HUB_LINKS_MAX && slot == NULL; i++)
        if (h->links[i].link == NULL)
            slot = &h->links[i];
    if (slot == NULL || hub_slot_of(h, keys->connection) != NULL) {
        err_set(e, ERR_LIMIT, "too many connections in one session");
    } else {
        *slot = (struct link_slot){ .link = l };
        rc = 0;
    }
    pthread_mutex_unlock(&h->lock);
    if (rc != 0) {
        /* The descriptors stay the caller's: free the link without them. */
        int in_copy = dup(in_fd), out_copy = out_fd == in_fd ? -1 : dup(out_fd);

        link_free(l);
        if (in_copy >= 0) {
            dup2(in_copy, in_fd);
            close(in_copy);
        }
        if (out_copy >= 0) {
            dup2(out_copy, out_fd);
            close(out_copy);
        }
        return -1;
    }
    say_hello(h, l, e); /* a failure shows when the loop looks at the link */
    hub_wake(h);
    return 0;
}

/* A link is gone: its streams fail, the owner hears of it.  In the loop thread, unlocked. */
static void link_lost(struct hub *h, struct link_slot *slot, const struct err *why)
{
    uint32_t connection = link_connection(slot->link);

    pthread_mutex_lock(&h->lock);
    slot->dead = true;
    slot->up = false;
    link_kill(slot->link);
    for (size_t i = 0; i < HUB_STREAMS_MAX; i++) {
        struct stream *st = h->streams[i];

        if (st != NULL && st->slot == slot && st->state == STREAM_RUNNING) {
            st->state = STREAM_FAILED;
            st->why = *why;
            hub_poke_locked(st);
        }
    }
    if (slot->streams == 0) {
        link_free(slot->link);
        *slot = (struct link_slot){ 0 };
    }
    if (connection == CONTROL_CONNECTION && !h->over) {
        h->over = true;
        h->why_over = *why;
    }
    pthread_cond_broadcast(&h->links_changed);
    pthread_mutex_unlock(&h->lock);
    if (h->config.handler->link_down != NULL)
        h->config.handler->link_down(h->config.context, h, connection, why);
}

void hub_link_close(struct hub *h, uint32_t connection)
{
    struct link_slot *slot;

    pthread_mutex_lock(&h->lock);
    slot = hub_slot_of(h, connection);
    if (slot != NULL)
        slot->closing = true;
    pthread_mutex_unlock(&h->lock);
    hub_wake(h);
}

struct link *hub_link(struct hub *h, uint32_t connection)
{
    struct link_slot *slot;
    struct link *l = NULL;

    pthread_mutex_lock(&h->lock);
    slot = hub_slot_of(h, connection);
    if (slot != NULL && slot->up)
        l = slot->link;
    pthread_mutex_unlock(&h->lock);
    return l;
}

int hub_link_wait(struct hub *h, uint32_t connection, uint64_t timeout_ms, struct err *e)
{
    uint64_t until = io_clock_ms() + timeout_ms;
    int rc = -1;

    pthread_mutex_lock(&h->lock);
    for (;;) {
        struct link_slot *slot = hub_slot_of(h, connection);

        if (slot != NULL && slot->up) {
            rc = 0;
            break;
        }
        if (h->over) {
            *e = h->why_over;
            break;
        }
        if (io_clock_ms() >= until) {
            err_set(e, ERR_NETWORK, "the agent did not connect in time");
            break;
        }
        cond_wait_until(&h->links_changed, &h->lock, until);
    }
    pthread_mutex_unlock(&h->lock);
    return rc;
}

/* ---- what arrives ---- */

static int hear_hello(struct hub *h, struct link_slot *slot, const uint8_t *body, size_t body_bytes,
                      struct err *e)
{
    struct msg_hello hello;

    if (msg_hello_decode(&hello, body, body_bytes, e) != 0)
        return -1;
    if (hello.version_min > PROTOCOL_VERSION || hello.version_max < PROTOCOL_VERSION_MIN ||
        hello.version_min > hello.version_max)
        return err_set(e, ERR_PEER, "the other end speaks protocol %u to %u, this one %d to %d",
                       hello.version_min, hello.version_max, PROTOCOL_VERSION_MIN,
                       PROTOCOL_VERSION);
    if (hello.connection != link_connection(slot->link) || hello.features != 0)
        return err_set(e, ERR_PEER, "a hello that does not belong to its connection");
    pthread_mutex_lock(&h->lock);
    slot->up = true;
    slot->version =
        hello.version_max < PROTOCOL_VERSION ? hello.version_max : (unsigned)PROTOCOL_VERSION;
    pthread_cond_broadcast(&h->links_changed);
    pthread_mutex_unlock(&h->lock);
    if (h->config.handler->link_up != NULL)
        h->config.handler->link_up(h->config.context, h, hello.connection, &hello);
    return 0;
}

static int hear(struct hub *h, struct link_slot *slot, const struct message_header *header,
                const uint8_t *body, size_t body_bytes, struct err *e)
{
    if (!slot->up) {
        if (header->type != MSG_hello)
            return err_set(e, ERR_PEER, "`%s` came before hello", message_name(header->type));
        return hear_hello(h, slot, body, body_bytes, e);
    }
    if (header->type == MSG_heartbeat)
        return 0;
    if (header->type == MSG_hello)
        return err_set(e, ERR_PEER, "a second hello");
    if (header->stream != 0 && header->type != MSG_stream_open)
        return hub_deliver(h, slot, header, body, body_bytes, e);
    if (link_connection(slot->link) != CONTROL_CONNECTION)
        return err_set(e, ERR_PEER, "`%s` outside the control connection",
                       message_name(header->type));
    return h->config.handler->control(h->config.context, h, header, body, body_bytes, e);
}

static int listen_to(struct hub *h, struct link_slot *slot, struct err *e)
{
    struct message_header header;
    const uint8_t *body;
    size_t body_bytes;
    int more;

    struct err parse;
    size_t payload_max;
    int rc;

    pthread_mutex_lock(&h->lock);
    payload_max = slot->payload_max;
    pthread_mutex_unlock(&h->lock);
    if (link_accept_up_to(slot->link, payload_max, e) != 0)
        return -1;
    /* What came before the end of the connection still counts. */
    rc = link_receive(slot->link, e);

    while ((more = link_next(slot->link, &header, &body, &body_bytes, &parse)) > 0)
        if (hear(h, slot, &header, body, body_bytes, &parse) != 0) {
            more = -1;
            break;
        }
    hub_poke_receivers(h, slot);
    if (more < 0) {
        *e = parse;
        return -1;
    }
    return rc;
}

/* ---- the loop ---- */

/* Heartbeat and silence of one link. */
static int tend(struct hub *h, struct link_slot *slot, uint64_t now, bool patient, struct err *e)
{
    uint64_t limit =
        patient ? max_u64(h->config.stall_ms, h->config.silence_ms) : h->config.silence_ms;
    uint64_t heard = link_heard_ms(slot->link);

    if (now > heard && now - heard > limit)
        return err_set(e, ERR_NETWORK, "no sign of life for %" PRIu64 " s", (now - heard) / 1000);
    if (link_is_late(slot->link, now, h->config.silence_ms))
        return err_set(e, ERR_NETWORK, "a record that was begun does not end");
    if (now - link_spoke_ms(slot->link) >= h->config.heartbeat_ms &&
        link_queued(slot->link) < LINK_QUEUE_MARK) {
        struct msg_heartbeat beat = { .clock_ms = now };

        return link_send_heartbeat(slot->link, 0, &beat, e);
    }
    return 0;
}

/* How long the loop may sleep. */
static uint64_t patience(struct hub *h, uint64_t timeout_ms)
{
    uint64_t now = io_clock_ms(), t = min_u64(timeout_ms, 1000);

    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < HUB_STREAMS_MAX; i++) {
        struct stream *st = h->streams[i];

        if (st == NULL || st->threaded || st->state != STREAM_RUNNING)
            continue;
        if (st->events != st->seen)
            t = 0;
        else if (st->wake_ms != 0)
            t = min_u64(t, st->wake_ms > now ? st->wake_ms - now : 0);
    }
    pthread_mutex_unlock(&h->lock);
    return t;
}

struct turn {
    struct pollfd fds[1 + 2 * HUB_LINKS_MAX];
    struct link_slot *slots[HUB_LINKS_MAX];
    size_t in_at[HUB_LINKS_MAX], out_at[HUB_LINKS_MAX]; /* 0: not polled */
    nfds_t count;
    size_t links;
};

/* The link of a slot while it lives. */
static struct link *live(struct hub *h, const struct link_slot *slot, bool *closing)
{
    struct link *l;

    pthread_mutex_lock(&h->lock);
    l = slot->dead ? NULL : slot->link;
    if (closing != NULL)
        *closing = slot->closing;
    pthread_mutex_unlock(&h->lock);
    return l;
}

/* Write out what the peer takes; walks that wait for room look again when some was made. */
static int flush(struct hub *h, const struct link_slot *slot, struct link *l, struct err *e)
{
    if (link_flush(l, e) != 0)
        return -1;
    if (!link_room_came(l))
        return 0;
    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < HUB_STREAMS_MAX; i++)
        if (h->streams[i] != NULL && h->streams[i]->slot == slot)
            hub_poke_locked(h->streams[i]);
    pthread_mutex_unlock(&h->lock);
    return 0;
}

/* Flush what can be, and say what to poll. */
static void prepare(struct hub *h, struct turn *t)
{
    t->fds[0] = (struct pollfd){ .fd = h->wake_fd[0], .events = POLLIN };
    t->count = 1;
    t->links = 0;
    for (size_t i = 0; i < HUB_LINKS_MAX; i++) {
        struct link_slot *slot = &h->links[i];
        bool closing;
        struct link *l = live(h, slot, &closing);
        struct err e;

        if (l == NULL)
            continue;
        if (flush(h, slot, l, &e) != 0) {
            link_lost(h, slot, &e);
            continue;
        }
        if (closing && link_queued(l) == 0) {
            err_set(&e, ERR_STOPPED, "closed");
            link_lost(h, slot, &e);
            continue;
        }
        t->slots[t->links] = slot;
        t->in_at[t->links] = t->count;
        t->fds[t->count++] = (struct pollfd){ .fd = link_in_fd(l), .events = POLLIN };
        t->out_at[t->links] = 0;
        if (link_queued(l) > 0) {
            t->out_at[t->links] = t->count;
            t->fds[t->count++] = (struct pollfd){ .fd = link_out_fd(l), .events = POLLOUT };
        }
        t->links++;
    }
}

static void serve(struct hub *h, struct turn *t)
{
    bool patient;

    pthread_mutex_lock(&h->lock);
    patient = hub_announced(h);
    pthread_mutex_unlock(&h->lock);
    for (size_t i = 0; i < t->links; i++) {
        struct link_slot *slot = t->slots[i];
        struct link *l = live(h, slot, NULL);
        struct err e;
        int rc = 0;

        if (l == NULL)
            continue;
        if (t->out_at[i] != 0 && t->fds[t->out_at[i]].revents != 0)
            rc = flush(h, slot, l, &e);
        if (rc == 0 && t->fds[t->in_at[i]].revents != 0)
            rc = listen_to(h, slot, &e);
        if (rc == 0)
            rc = tend(h, slot, io_clock_ms(), patient, &e);
        if (rc != 0)
            link_lost(h, slot, &e);
    }
    hub_tend_streams(h, io_clock_ms());
}

int hub_turn(struct hub *h, uint64_t timeout_ms, struct err *e)
{
    struct turn t;
    char drain[64];
    int rc = 0;

    prepare(h, &t);
    if (poll(t.fds, t.count, (int)patience(h, timeout_ms)) > 0 && t.fds[0].revents != 0)
        while (read(h->wake_fd[0], drain, sizeof drain) == (ssize_t)sizeof drain)
            ;
    serve(h, &t);
    hub_step_inline(h);

    pthread_mutex_lock(&h->lock);
    if (h->over) {
        *e = h->why_over;
        rc = -1;
    } else if (h->ending) {
        h->over = true;
        rc = err_set(&h->why_over, ERR_STOPPED, "the session was ended");
        *e = h->why_over;
        pthread_cond_broadcast(&h->links_changed);
    }
    if (rc != 0)
        for (size_t i = 0; i < HUB_STREAMS_MAX; i++) {
            struct stream *st = h->streams[i];

            if (st != NULL && st->state == STREAM_RUNNING) {
                st->state = STREAM_FAILED;
                st->why = *e;
                hub_poke_locked(st);
            }
        }
    pthread_mutex_unlock(&h->lock);
    return rc;
}
