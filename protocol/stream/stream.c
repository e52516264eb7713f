#include "protocol/stream/hub_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/io.h"
#include "protocol/stream/thread.h"

/* ---- inboxes ---- */

void hub_poke_locked(struct stream *st)
{
    st->events++;
    pthread_cond_signal(&st->look);
    if (st->state != STREAM_RUNNING)
        pthread_cond_broadcast(&st->ended);
}

void hub_poke_receivers(struct hub *h, const struct link_slot *slot)
{
    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < HUB_STREAMS_MAX; i++)
        if (h->streams[i] != NULL && h->streams[i]->slot == slot && h->streams[i]->first != NULL)
            hub_poke_locked(h->streams[i]);
    pthread_mutex_unlock(&h->lock);
}

static struct stream *stream_of(struct hub *h, uint32_t id)
{
    for (size_t i = 0; i < HUB_STREAMS_MAX; i++)
        if (h->streams[i] != NULL && h->streams[i]->id == id)
            return h->streams[i];
    return NULL;
}

int hub_deliver(struct hub *h, struct link_slot *slot, const struct message_header *header,
                const uint8_t *body, size_t body_bytes, struct err *e)
{
    /* Copied before the lock is taken: walks must not wait for that. */
    struct stream_message *m = malloc(sizeof *m + body_bytes);
    struct stream *st;
    int rc = 0;

    if (m == NULL)
        return err_sys(e, "getting memory for a message");
    m->next = NULL;
    m->type = header->type;
    m->body_bytes = body_bytes;
    memcpy(m->body, body, body_bytes);
    pthread_mutex_lock(&h->lock);
    st = stream_of(h, header->stream);
    if (st == NULL) {
        /* What was under way when a stream ended is dropped; a number never given is a fault. */
        if (header->stream > h->last_stream)
            rc = err_set(e, ERR_PEER, "message `%s` for stream %" PRIu32 ", which was never opened",
                         message_name(header->type), header->stream);
        goto out;
    }
    if (st->slot != slot) {
        rc = err_set(e, ERR_PEER, "stream %" PRIu32 " does not run over this connection", st->id);
        goto out;
    }
    if (st->state != STREAM_RUNNING)
        goto out;
    if (atomic_load(&st->inbox_bytes) + body_bytes > st->inbox_max + STREAM_INBOX_SLACK) {
        rc = err_set(e, ERR_PEER, "stream %" PRIu32 ": more than its credits allow", st->id);
        goto out;
    }
    if (st->last != NULL)
        st->last->next = m;
    else
        st->first = m;
    st->last = m;
    atomic_fetch_add(&st->inbox_bytes, MESSAGE_HEADER_BYTES + body_bytes);
    if (header->type == MSG_reading)
        st->announced = true;
    else if (header->type == MSG_end)
        st->announced = false;
    m = NULL;
out:
    pthread_mutex_unlock(&h->lock);
    free(m);
    return rc;
}

bool hub_announced(struct hub *h)
{
    for (size_t i = 0; i < HUB_STREAMS_MAX; i++)
        if (h->streams[i] != NULL && h->streams[i]->announced &&
            h->streams[i]->state == STREAM_RUNNING)
            return true;
    return false;
}

/* ---- walks ---- */

void hub_tend_streams(struct hub *h, uint64_t now)
{
    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < HUB_STREAMS_MAX; i++) {
        struct stream *st = h->streams[i];
        uint64_t quiet_since;

        if (st == NULL || st->state != STREAM_RUNNING || !st->announced ||
            atomic_load(&st->inbox_bytes) > 0) /* the walk is not waiting for its source */
            continue;
        quiet_since = atomic_load(&st->quiet_since);
        if (now > quiet_since && now - quiet_since > h->config.stall_ms) {
            st->state = STREAM_FAILED;
            err_set(&st->why, ERR_SOURCE, "the read made no progress for %" PRIu64 " s",
                    (now - quiet_since) / 1000);
            hub_poke_locked(st);
        }
    }
    pthread_mutex_unlock(&h->lock);
}

/* One step of a walk; the caller holds no lock. */
static void step_once(struct stream *st)
{
    struct hub *h = st->hub;
    struct err e = { 0 };
    enum step r = st->ops->step(st->walk, st, &e);

    pthread_mutex_lock(&h->lock);
    if (st->state == STREAM_RUNNING && r == STEP_DONE) {
        st->state = STREAM_DONE;
    } else if (st->state == STREAM_RUNNING && r == STEP_FAILED) {
        st->state = STREAM_FAILED;
        st->why = e;
    } else if (r == STEP_AGAIN) {
        st->events++;
    }
    if (st->state != STREAM_RUNNING) {
        pthread_cond_broadcast(&st->ended);
        hub_wake(h);
    }
    pthread_mutex_unlock(&h->lock);
}

/* Whether the walk should be stepped now; remembers the events it is about to look at. */
static bool take_turn(struct stream *st)
{
    bool due = st->wake_ms != 0 && io_clock_ms() >= st->wake_ms;

    if (st->state != STREAM_RUNNING || st->ending || (st->events == st->seen && !due))
        return false;
    if (due)
        st->wake_ms = 0;
    st->seen = st->events;
    return true;
}

static void *walk_thread(void *context)
{
    struct stream *st = context;
    struct hub *h = st->hub;

    pthread_mutex_lock(&h->lock);
    while (st->state == STREAM_RUNNING && !st->ending) {
        if (!take_turn(st)) {
            cond_wait_until(&st->look, &h->lock, st->wake_ms);
            continue;
        }
        pthread_mutex_unlock(&h->lock);
        step_once(st);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

void hub_step_inline(struct hub *h)
{
    for (size_t i = 0; i < HUB_STREAMS_MAX; i++) {
        struct stream *st;
        bool turn;

        pthread_mutex_lock(&h->lock);
        st = h->streams[i];
        turn = st != NULL && !st->threaded && take_turn(st);
        pthread_mutex_unlock(&h->lock);
        if (turn)
            step_once(st);
    }
}

/* ---- life ---- */

static void messages_free(struct stream_message *m)
{
    while (m != NULL) {
        struct stream_message *next = m->next;

        free(m);
        m = next;
    }
}

static void stream_free(struct stream *st)
{
    messages_free(st->first);
    messages_free(st->taken);
    pthread_cond_destroy(&st->look);
    pthread_cond_destroy(&st->ended);
    free(st);
}

int stream_start(struct hub *h, uint32_t id, uint32_t connection, const struct stream_ops *ops,
                 void *walk, size_t inbox_bytes_max, size_t payload_bytes_max, struct stream **out,
                 struct err *e)
{
    struct stream *st = calloc(1, sizeof *st);
    size_t at = HUB_STREAMS_MAX;
    int rc = -1;

    if (st == NULL)
        return err_sys(e, "getting memory for a stream");
    cond_init(&st->look);
    cond_init(&st->ended);
    pthread_mutex_lock(&h->lock);
    for (size_t i = HUB_STREAMS_MAX; i > 0; i--)
        if (h->streams[i - 1] == NULL)
            at = i - 1;
    st->hub = h;
    st->slot = hub_slot_of(h, connection);
    st->ops = ops;
    st->walk = walk;
    st->id = id;
    st->inbox_max = inbox_bytes_max;
    st->events = 1;
    atomic_init(&st->quiet_since, io_clock_ms());
    if (h->over) {
        *e = h->why_over;
        rc = -1;
    } else if (at == HUB_STREAMS_MAX || id <= h->last_stream) {
        err_set(e, ERR_LIMIT, "stream %" PRIu32 " cannot be opened", id);
    } else if (st->slot == NULL || !st->slot->up) {
        err_set(e, ERR_NETWORK, "connection %" PRIu32 " is not there", connection);
    } else {
        rc = 0;
    }
    if (rc == 0) {
        h->streams[at] = st;
        h->last_stream = id;
        st->slot->streams++;
        if (st->slot->payload_max < payload_bytes_max)
            st->slot->payload_max = payload_bytes_max;
        /* Where no thread can be made any more, the loop takes the walk's steps. */
        st->threaded = h->config.workers > 0;
        if (st->threaded && thread_start(&st->thread, walk_thread, st, NULL) != 0)
            st->threaded = false;
    }
    pthread_mutex_unlock(&h->lock);
    if (rc != 0) {
        stream_free(st);
        return -1;
    }
    hub_wake(h);
    *out = st;
    return 0;
}

enum stream_state stream_state(struct stream *st, struct err *why)
{
    return stream_wait(st, 0, why);
}

enum stream_state stream_wait(struct stream *st, uint64_t timeout_ms, struct err *why)
{
    struct hub *h = st->hub;
    uint64_t until = io_clock_ms() + timeout_ms;
    enum stream_state state;

    pthread_mutex_lock(&h->lock);
    while (st->state == STREAM_RUNNING && io_clock_ms() < until)
        cond_wait_until(&st->ended, &h->lock, until);
    state = st->state;
    if (state == STREAM_FAILED && why != NULL)
        *why = st->why;
    pthread_mutex_unlock(&h->lock);
    return state;
}

void stream_end(struct stream *st)
{
    struct hub *h = st->hub;
    struct link_slot *slot = st->slot;

    pthread_mutex_lock(&h->lock);
    st->ending = true;
    hub_poke_locked(st);
    pthread_mutex_unlock(&h->lock);
    if (st->threaded)
        pthread_join(st->thread, NULL);
    if (st->ops->stop != NULL)
        st->ops->stop(st->walk);

    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < HUB_STREAMS_MAX; i++)
        if (h->streams[i] == st)
            h->streams[i] = NULL;
    if (--slot->streams == 0 && slot->dead) {
        link_free(slot->link);
        *slot = (struct link_slot){ 0 };
    }
    pthread_mutex_unlock(&h->lock);
    stream_free(st);
}

struct stream *hub_ended_stream(struct hub *h)
{
    struct stream *found = NULL;

    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < HUB_STREAMS_MAX && found == NULL; i++) {
        struct stream *st = h->streams[i];

        if (st != NULL && st->state != STREAM_RUNNING)
            found = st;
    }
    pthread_mutex_unlock(&h->lock);
    return found;
}

uint32_t stream_id(const struct stream *st)
{
    return st->id;
}

/* All that has come is taken at once: a lock for each message would be fought for with the loop. */
static void take_inbox(struct stream *st)
{
    pthread_mutex_lock(&st->hub->lock);
    st->taken = st->first;
    st->first = st->last = NULL;
    pthread_mutex_unlock(&st->hub->lock);
}

struct stream_message *stream_receive(struct stream *st)
{
    struct stream_message *m;

    if (st->taken == NULL)
        take_inbox(st);
    m = st->taken;
    if (m != NULL) {
        st->taken = m->next;
        atomic_store(&st->quiet_since, io_clock_ms()); /* before the inbox may look empty */
        atomic_fetch_sub(&st->inbox_bytes, MESSAGE_HEADER_BYTES + m->body_bytes);
    }
    return m;
}

void stream_message_free(struct stream_message *m)
{
    free(m);
}

int stream_credit_take(const struct stream_message *m, uint64_t *may_send, struct err *e)
{
    struct msg_credit credit;

    if (msg_credit_decode(&credit, m->body, m->body_bytes, e) != 0)
        return -1;
    if (!checked_add(*may_send, credit.bytes, may_send))
        return err_set(e, ERR_PEER, "credits without end");
    return 0;
}

struct link *stream_link(struct stream *st)
{
    return st->slot->link; /* kept while the stream lives, dead or not */
}

unsigned stream_version(const struct stream *st)
{
    return st->slot->version; /* settled before a stream could start */
}

void stream_wake_at(struct stream *st, uint64_t clock_ms)
{
    pthread_mutex_lock(&st->hub->lock);
    st->wake_ms = clock_ms;
    pthread_mutex_unlock(&st->hub->lock);
}

void stream_poke(struct stream *st)
{
    bool threaded;

    pthread_mutex_lock(&st->hub->lock);
    hub_poke_locked(st);
    threaded = st->threaded;
    pthread_mutex_unlock(&st->hub->lock);
    if (!threaded)
        hub_wake(st->hub); /* the loop takes the walk's steps */
}
