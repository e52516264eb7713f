#include "protocol/stream/link.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/wire/record.h"

enum {
    CHUNK_BYTES = (256 << 10) + 4096, /* four blocks of the usual size */
    WAKE_BYTES = 256 << 10,           /* of bulk are worth a turn of the loop */
    CHUNKS_SPARE = 12,        /* a queue at its mark, with what a record leaves unused of a chunk */
    SLOWEST_BYTES = 16 << 10, /* that a line which is worth waiting for brings in a second */
    IN_BYTES_MIN = 256 << 10,
    IN_BYTES_BULK = 1 << 20, /* where blocks come: many at a time save wake-ups */
};

/* A piece of the outgoing queue: whole records. */
struct chunk {
    struct chunk *next;
    size_t room, used, sent;
    uint8_t data[];
};

struct link {
    uint32_t connection;
    int in_fd, out_fd;
    void (*wake)(void *);
    void *context;

    /* incoming: the loop thread's */
    struct record_key rx;
    uint8_t *in;
    size_t in_room, in_start, in_end;
    size_t payload_max;
    uint64_t heard_ms;
    uint64_t received_bytes;
    size_t begun_bytes; /* of the record whose first bytes are there; 0: none */
    uint64_t begun_ms;

    /* Held from reserving to committing, so that records are sealed in the order of the queue. */
    pthread_mutex_t seal_lock;
    struct record_key tx;
    size_t reserved_payload;

    /* Taken for moments only, also while somebody seals: the loop writes meanwhile. */
    pthread_mutex_t out_lock; /* guards all below */
    struct chunk *head, *tail, *spare;
    unsigned spares;
    size_t queued; /* bytes not written yet */
    uint64_t spoke_ms;
    uint8_t *reserved; /* record under construction behind what is used of the tail, or NULL */
    bool dead;
    bool room_wanted; /* somebody was told that there is no room */
    bool woken;       /* the loop knows that there is something to write */
    unsigned holds;   /* senders of bulk that will let go in a moment */
};

static size_t in_room_for(size_t payload_max)
{
    size_t room = 2 * (payload_max + RECORD_OVERHEAD_BYTES);

    return room < IN_BYTES_MIN ? IN_BYTES_MIN : room;
}

int link_new(struct link **out, const struct link_config *config, struct err *e)
{
    struct link *l = calloc(1, sizeof *l);

    if (l == NULL)
        return err_sys(e, "getting memory for a connection");
    l->in_room = in_room_for(config->payload_max);
    l->in = malloc(l->in_room);
    if (l->in == NULL) {
        err_sys(e, "getting memory for a connection");
        goto fail;
    }
    if (record_key_start(&l->rx, config->aead, config->keys->choice.mode, config->keys->receive,
                         e) != 0 ||
        record_key_start(&l->tx, config->aead, config->keys->choice.mode, config->keys->send, e) !=
            0)
        goto fail;
    if (io_set_nonblocking(config->in_fd, 1, e) != 0 ||
        io_set_nonblocking(config->out_fd, 1, e) != 0)
        goto fail;
    pthread_mutex_init(&l->seal_lock, NULL);
    pthread_mutex_init(&l->out_lock, NULL);
    l->connection = config->keys->connection;
    l->in_fd = config->in_fd;
    l->out_fd = config->out_fd;
    l->wake = config->wake;
    l->context = config->context;
    l->payload_max = config->payload_max;
    l->heard_ms = l->spoke_ms = io_clock_ms();
    *out = l;
    return 0;

fail:
    record_key_end(&l->rx);
    record_key_end(&l->tx);
    free(l->in);
    free(l);
    return -1;
}

static void chunks_free(struct chunk *c)
{
    while (c != NULL) {
        struct chunk *next = c->next;

        free(c);
        c = next;
    }
}

void link_free(struct link *l)
{
    if (l == NULL)
        return;
    link_kill(l);
    pthread_mutex_lock(&l->seal_lock); /* whoever still seals ends first */
    pthread_mutex_unlock(&l->seal_lock);
    record_key_end(&l->rx);
    record_key_end(&l->tx);
    chunks_free(l->head);
    chunks_free(l->spare);
    pthread_mutex_destroy(&l->out_lock);
    pthread_mutex_destroy(&l->seal_lock);
    free(l->in);
    free(l);
}

uint32_t link_connection(const struct link *l)
{
    return l->connection;
}

int link_accept_up_to(struct link *l, size_t payload_max, struct err *e)
{
    size_t room = in_room_for(payload_max);

    if (payload_max == 0)
        return 0;
    if (room < IN_BYTES_BULK)
        room = IN_BYTES_BULK;
    if (room > l->in_room) {
        uint8_t *in = malloc(room);

        if (in == NULL)
            return err_sys(e, "getting memory for a connection");
        memcpy(in, l->in + l->in_start, l->in_end - l->in_start);
        free(l->in);
        l->in = in;
        l->in_end -= l->in_start;
        l->in_start = 0;
        l->in_room = room;
    }
    if (l->payload_max < payload_max)
        l->payload_max = payload_max;
    return 0;
}

size_t link_queued(struct link *l)
{
    size_t queued;

    pthread_mutex_lock(&l->out_lock);
    queued = l->queued;
    pthread_mutex_unlock(&l->out_lock);
    return queued;
}

bool link_room(struct link *l)
{
    bool room;

    pthread_mutex_lock(&l->out_lock);
    room = l->queued < LINK_QUEUE_MARK;
    l->room_wanted = l->room_wanted || !room;
    pthread_mutex_unlock(&l->out_lock);
    return room;
}

bool link_room_came(struct link *l)
{
    bool came;

    pthread_mutex_lock(&l->out_lock);
    came = l->room_wanted && l->queued < LINK_QUEUE_MARK / 2;
    if (came)
        l->room_wanted = false;
    pthread_mutex_unlock(&l->out_lock);
    return came;
}

/* A chunk with room for count bytes at the tail of the queue. */
static struct chunk *chunk_for(struct link *l, size_t count, struct err *e)
{
    struct chunk *c = l->tail;
    size_t room = count > CHUNK_BYTES ? count : CHUNK_BYTES;

    if (c != NULL && c->room - c->used >= count)
        return c;
    if (l->spare != NULL && l->spare->room >= count) {
        c = l->spare;
        l->spare = c->next;
        l->spares--;
    } else {
        c = malloc(sizeof *c + room);
        if (c == NULL) {
            err_sys(e, "getting memory for a message");
            return NULL;
        }
        c->room = room;
    }
    c->next = NULL;
    c->used = c->sent = 0;
    if (l->tail != NULL)
        l->tail->next = c;
    else
        l->head = c;
    l->tail = c;
    return c;
}

uint8_t *link_reserve(struct link *l, size_t payload_bytes, struct err *e)
{
    struct chunk *c;
    uint8_t *reserved;

    pthread_mutex_lock(&l->seal_lock);
    pthread_mutex_lock(&l->out_lock);
    if (l->dead) {
        err_set(e, ERR_NETWORK, "the connection is closed");
        goto fail;
    }
    if (l->queued + payload_bytes > LINK_QUEUE_CEILING) {
        err_set(e, ERR_LIMIT, "the other end does not read");
        goto fail;
    }
    c = chunk_for(l, payload_bytes + RECORD_OVERHEAD_BYTES, e);
    if (c == NULL)
        goto fail;
    l->reserved = reserved = c->data + c->used;
    pthread_mutex_unlock(&l->out_lock);
    l->reserved_payload = payload_bytes;
    return reserved + RECORD_HEADER_BYTES;

fail:
    pthread_mutex_unlock(&l->out_lock);
    pthread_mutex_unlock(&l->seal_lock);
    return NULL;
}

/* Whether the loop must be told now; the caller holds out_lock and then tells it, unlocked. */
static bool wake_due(struct link *l)
{
    bool due = !l->woken && l->queued > 0 && (l->holds == 0 || l->queued >= WAKE_BYTES);

    l->woken = l->woken || due;
    return due && l->wake != NULL;
}

int link_commit(struct link *l, struct err *e)
{
    size_t count = l->reserved_payload + RECORD_OVERHEAD_BYTES;
    bool due;
    int rc = record_seal(&l->tx, l->reserved, l->reserved_payload, e);

    pthread_mutex_lock(&l->out_lock);
    l->reserved = NULL;
    if (rc == 0) {
        l->tail->used += count;
        l->queued += count;
        l->spoke_ms = io_clock_ms();
    } else {
        l->dead = true;
    }
    due = wake_due(l);
    pthread_mutex_unlock(&l->out_lock);
    pthread_mutex_unlock(&l->seal_lock);
    if (due)
        l->wake(l->context);
    return rc;
}

void link_hold(struct link *l)
{
    pthread_mutex_lock(&l->out_lock);
    l->holds++;
    pthread_mutex_unlock(&l->out_lock);
}

void link_let_go(struct link *l)
{
    bool due;

    pthread_mutex_lock(&l->out_lock);
    l->holds--;
    due = wake_due(l);
    pthread_mutex_unlock(&l->out_lock);
    if (due)
        l->wake(l->context);
}

int link_in_fd(const struct link *l)
{
    return l->in_fd;
}

int link_out_fd(const struct link *l)
{
    return l->out_fd;
}

/* The head chunk is written; its place goes to the spares. */
static void head_done(struct link *l)
{
    struct chunk *c = l->head;

    l->head = c->next;
    if (l->head == NULL)
        l->tail = NULL;
    if (l->spares < CHUNKS_SPARE && c->room == CHUNK_BYTES) {
        c->next = l->spare;
        l->spare = c;
        l->spares++;
    } else {
        free(c);
    }
}

void link_kill(struct link *l)
{
    pthread_mutex_lock(&l->out_lock);
    l->dead = true;
    l->queued = 0;
    if (l->out_fd == l->in_fd)
        l->out_fd = -1;
    io_drop(&l->out_fd);
    io_drop(&l->in_fd);
    pthread_mutex_unlock(&l->out_lock);
}

int link_flush(struct link *l, struct err *e)
{
    for (;;) {
        struct chunk *c;
        size_t from, count;
        ssize_t n;

        /* What is used of a chunk never moves, so it is written without the lock. */
        pthread_mutex_lock(&l->out_lock);
        c = l->head;
        from = c != NULL ? c->sent : 0;
        count = c != NULL ? c->used - c->sent : 0;
        if (c != NULL && count == 0 && c->next != NULL) {
            head_done(l);
            pthread_mutex_unlock(&l->out_lock);
            continue;
        }
        if (count == 0)
            l->woken = false;
        pthread_mutex_unlock(&l->out_lock);
        if (count == 0)
            return 0;

        n = write(l->out_fd, c->data + from, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        if (n < 0) {
            err_sys(e, "sending");
            e->code = ERR_NETWORK;
            return -1;
        }
        pthread_mutex_lock(&l->out_lock);
        c->sent += (size_t)n;
        l->queued -= (size_t)n;
        if (c->sent == c->used && l->reserved == NULL)
            head_done(l);
        pthread_mutex_unlock(&l->out_lock);
    }
}

int link_receive(struct link *l, struct err *e)
{
    ssize_t n;

    if (l->in_start > 0 && l->in_room - l->in_end < l->in_room / 2) {
        memmove(l->in, l->in + l->in_start, l->in_end - l->in_start);
        l->in_end -= l->in_start;
        l->in_start = 0;
    }
    if (l->in_end == l->in_room)
        return 0;
    do
        n = read(l->in_fd, l->in + l->in_end, l->in_room - l->in_end);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 0;
    if (n < 0) {
        err_sys(e, "receiving");
        e->code = ERR_NETWORK;
        return -1;
    }
    if (n == 0)
        return err_set(e, ERR_NETWORK, "the other end closed the connection");
    l->in_end += (size_t)n;
    l->received_bytes += (uint64_t)n;
    l->heard_ms = io_clock_ms();
    return 0;
}

int link_next(struct link *l, struct message_header *header, const uint8_t **body,
              size_t *body_bytes, struct err *e)
{
    uint8_t *record = l->in + l->in_start;
    size_t have = l->in_end - l->in_start;
    size_t record_bytes, payload_bytes;
    uint8_t *payload;

    if (have < RECORD_HEADER_BYTES)
        return 0;
    if (record_peek(record, l->payload_max, &record_bytes, e) != 0)
        return -1;
    if (have < record_bytes) {
        if (l->begun_bytes == 0)
            l->begun_ms = io_clock_ms();
        l->begun_bytes = record_bytes;
        return 0;
    }
    l->begun_bytes = 0;
    if (record_open(&l->rx, record, record_bytes, &payload, &payload_bytes, e) != 0)
        return -1;
    l->in_start += record_bytes;
    if (message_header_decode(header, payload, payload_bytes, e) != 0)
        return -1;
    *body = payload + MESSAGE_HEADER_BYTES;
    *body_bytes = payload_bytes - MESSAGE_HEADER_BYTES;
    return 1;
}

bool link_is_late(const struct link *l, uint64_t now_ms, uint64_t patience_ms)
{
    return l->begun_bytes > 0 && now_ms > l->begun_ms &&
           now_ms - l->begun_ms > patience_ms + l->begun_bytes * 1000 / SLOWEST_BYTES;
}

uint64_t link_heard_ms(const struct link *l)
{
    return l->heard_ms;
}

uint64_t link_spoke_ms(struct link *l)
{
    uint64_t ms;

    pthread_mutex_lock(&l->out_lock);
    ms = l->spoke_ms;
    pthread_mutex_unlock(&l->out_lock);
    return ms;
}
