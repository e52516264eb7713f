#include "receiver/stream/agent_session.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/hole_map.h"
#include "protocol/stream/thread.h"
#include "protocol/wire/bootstrap.h"
#include "protocol/wire/crypto.h"
#include "receiver/base/aead_openssl.h"
#include "receiver/ssh/transport.h"
#include "receiver/stream/data_listener.h"
#include "receiver/stream/local_source.h"
#include "version.h"

enum {
    START_MS = 60000,    /* for the agent's greeting and handshake: a busy host is slow */
    REQUEST_MS = 120000, /* for the answer to a request: opening a disk may take its time */
    DIAL_MS = 5000,
    END_MS = 10000,
    REQUESTS_MAX = 64,
    HOLES_PER_MESSAGE = 4096,
    LIFE_MAX_S = 7 * 24 * 3600,
};

struct request {
    uint32_t number; /* 0: free */
    bool answered;
    int rc;
    struct err why;
    struct msg_disk_opened opened;
};

struct agent_session {
    struct agent_session_config config;
    struct session_secret secret;
    struct hub *hub;
    struct remote_process process;
    bool process_runs;
    struct local_source *local;
    struct data_listener *listener;
    pthread_t loop;
    bool loop_runs;
    char dial_address[64];

    pthread_mutex_t requests_lock; /* guards all below */
    pthread_cond_t answered;
    struct request requests[REQUESTS_MAX];
    uint32_t next_request, next_stream, next_connection;
    bool over;
    struct err why_over;
};

/* ---- the loop ---- */

static struct request *request_of(struct agent_session *a, uint32_t number)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++)
        if (a->requests[i].number == number && number != 0)
            return &a->requests[i];
    return NULL;
}

static int take_answer(const struct message_header *header, const uint8_t *body, size_t body_bytes,
                       struct request *out, struct err *e)
{
    struct msg_failed failed;
    struct msg_done done;

    switch (header->type) {
    case MSG_done:
        if (msg_done_decode(&done, body, body_bytes, e) != 0)
            return -1;
        out->number = done.request;
        return 0;
    case MSG_disk_opened:
        if (msg_disk_opened_decode(&out->opened, body, body_bytes, e) != 0)
            return -1;
        out->number = out->opened.request;
        return 0;
    case MSG_failed:
        if (msg_failed_decode(&failed, body, body_bytes, e) != 0)
            return -1;
        out->number = failed.request;
        out->rc = -1;
        if (failed.code == ERR_NONE || failed.code >= ERR_CODE_COUNT)
            failed.code = ERR_PEER;
        err_set(&out->why, (enum err_code)failed.code, "%.*s", (int)failed.tail_bytes,
                (const char *)failed.tail);
        out->why.os = (int)failed.os;
        return 0;
    default:
        return err_set(e, ERR_PEER, "an agent does not send `%s`", message_name(header->type));
    }
}

static int hear(void *context, struct hub *s, const struct message_header *header,
                const uint8_t *body, size_t body_bytes, struct err *e)
{
    struct agent_session *a = context;
    struct request answer = { .answered = true };
    struct request *r;

    (void)s;
    if (take_answer(header, body, body_bytes, &answer, e) != 0)
        return -1;
    pthread_mutex_lock(&a->requests_lock);
    r = request_of(a, answer.number);
    if (r != NULL) /* an answer that nobody waits for any more is dropped */
        *r = answer;
    pthread_cond_broadcast(&a->answered);
    pthread_mutex_unlock(&a->requests_lock);
    return 0;
}

static const struct hub_handler handler = { .control = hear };

static void *loop_main(void *context)
{
    struct agent_session *a = context;
    struct err why;

    while (hub_turn(a->hub, 1000, &why) == 0)
        ;
    pthread_mutex_lock(&a->requests_lock);
    a->over = true;
    a->why_over = why;
    pthread_cond_broadcast(&a->answered);
    pthread_mutex_unlock(&a->requests_lock);
    return NULL;
}

/* ---- start ---- */

/* Read on until the greeting, over whatever the host prints before it. */
static int find_greeting(int fd, uint64_t until_ms, struct err *e)
{
    uint8_t buffer[GREETING_NOISE_MAX + GREETING_BYTES];
    uint32_t version = 0;
    size_t count = 0;

    while (bootstrap_find_greeting(buffer, count, &version) == 0) {
        ssize_t n;

        if (count == sizeof buffer)
            return err_set(e, ERR_PEER, "the host prints, but no agent greets");
        if (io_wait_until(fd, POLLIN, until_ms, e) != 0)
            return err_add(e, "waiting for the agent's greeting");
        /* Nothing follows the greeting before our bootstrap, so reading ahead is safe. */
        n = read(fd, buffer + count, sizeof buffer - count);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return err_set(e, ERR_NETWORK, "the agent ended at once");
        count += (size_t)n;
    }
    if (version != WIRE_VERSION)
        return err_set(e, ERR_PEER, "the agent speaks version %" PRIu32 " instead of %d", version,
                       WIRE_VERSION);
    return 0;
}

/* As responder over a descriptor; the link is added to the session. */
static int shake_hands(struct agent_session *a, int fd, uint64_t until_ms, struct err *e)
{
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES];
    struct handshake_choice choice;
    struct handshake_offer offer;
    struct handshake_keys keys;
    int rc;

    if (io_read_until(fd, m1, sizeof m1, until_ms, e) != 0 ||
        handshake_read_m1(&a->secret, m1, &offer, e) != 0)
        return -1;
    if (offer.connection != CONTROL_CONNECTION)
        return err_set(e, ERR_PEER, "the agent starts with connection %" PRIu32, offer.connection);
    /* SSH already keeps this connection secret: records need only be authenticated. */
    if (handshake_choose(&offer, aead_openssl_offer(), record_mode_bit(RECORD_AUTH), &choice, e) !=
            0 ||
        handshake_answer(&a->secret, m1, &choice, m2, &keys, e) != 0)
        return -1;
    rc = io_write_all(fd, m2, sizeof m2, e);
    if (rc == 0)
        rc = hub_link_add(a->hub, fd, fd, &keys, aead_openssl_find(choice.aead), e);
    handshake_keys_wipe(&keys);
    return rc;
}

static int start_agent(struct agent_session *a, struct err *e)
{
    struct transport *t = a->config.transport;
    uint64_t until_ms = io_clock_ms() + START_MS;
    struct bootstrap b = {
        .secret = a->secret,
        .aead_set = aead_openssl_offer(),
        .mode_set = (uint8_t)(a->config.mode_set | record_mode_bit(RECORD_AUTH)),
        .workers_max = a->config.workers_max,
        .memory_max_bytes = a->config.memory_bytes,
        .life_max_s = LIFE_MAX_S,
        .silence_max_ms = HUB_SILENCE_MS,
    };
    uint8_t raw[BOOTSTRAP_BYTES];
    int rc;

    if (t->ops->exec(t, a->config.command, &a->process, e) != 0)
        return -1;
    a->process_runs = true;
    if (find_greeting(a->process.fd, until_ms, e) != 0)
        return -1;
    bootstrap_encode(&b, raw);
    rc = io_write_all(a->process.fd, raw, sizeof raw, e);
    crypto_wipe(raw, sizeof raw);
    session_secret_wipe(&b.secret);
    if (rc != 0 || shake_hands(a, a->process.fd, until_ms, e) != 0)
        return -1;
    a->process.fd = -1; /* the link's now */
    return 0;
}

static int start_local(struct agent_session *a, struct err *e)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return err_sys(e, "making a socket pair");
    if (local_source_start(&a->local, fds[1], &a->secret, &a->config, e) != 0) {
        io_drop(&fds[0]);
        io_drop(&fds[1]);
        return -1;
    }
    if (shake_hands(a, fds[0], io_clock_ms() + START_MS, e) != 0) {
        io_drop(&fds[0]);
        return -1;
    }
    return 0;
}

static int data_proved(void *context, int fd, const struct handshake_keys *keys)
{
    struct agent_session *a = context;
    struct err e;

    return hub_link_add(a->hub, fd, fd, keys, aead_openssl_find(keys->choice.aead), &e);
}

static int start_listener(struct agent_session *a, struct err *e)
{
    struct data_listener_config config = {
        .address = a->config.listen_address,
        .port = a->config.listen_port,
        .ports = a->config.ports,
        .secret = &a->secret,
        .aead_set = aead_openssl_offer(),
        .mode_set = a->config.mode_set,
        .proved = data_proved,
        .context = a,
    };
    const char *dial =
        a->config.dial_address != NULL ? a->config.dial_address : a->config.listen_address;

    if (strlen(dial) >= sizeof a->dial_address)
        return err_set(e, ERR_USAGE, "%s is no numeric address", dial);
    memcpy(a->dial_address, dial, strlen(dial) + 1);
    return data_listener_new(&a->listener, &config, e);
}

/*
 * What the agent or the shell said before it ended is the better reason.  A program that ended by
 * itself is no trouble of the network: another connection would not mend it.
 */
static void add_remote_reason(struct agent_session *a, struct err *e)
{
    struct bytes said = { .ceiling = 64 << 10 };
    struct remote_exit ended;
    struct err ignored, was = *e;
    char status[40] = "";
    char *text, *line;

    if (!a->process_runs ||
        a->process.transport->ops->wait(&a->process, 2000, &ended, &said, &ignored) != 0) {
        bytes_free(&said);
        return;
    }
    if (ended.known && !ended.signalled) {
        snprintf(status, sizeof status, ", with status %d", ended.status);
        if (was.code == ERR_NETWORK)
            was.code = ERR_PEER;
    }
    text = bytes_text(&said, &ignored);
    line = text != NULL ? strtok(text, "\r\n") : NULL;
    err_set(e, was.code, "%s%s%s%.200s%s", was.text, status, line != NULL ? " (" : "",
            line != NULL ? line : "", line != NULL ? ")" : "");
    e->os = was.os;
    bytes_free(&said);
}

int agent_session_start(struct agent_session **out, const struct agent_session_config *config,
                        struct err *e)
{
    struct hub_config sc = {
        .handler = &handler, .stall_ms = config->stall_ms, .workers = 1, .version = VMFERRY_VERSION
    };
    struct agent_session *a = calloc(1, sizeof *a);

    if (a == NULL)
        return err_sys(e, "getting memory for a session");
    /* Opening a chain by dd takes long, in the thread that would send signs of life. */
    if (config->command == NULL)
        sc.silence_ms = max_u64(config->stall_ms, HUB_SILENCE_MS);
    a->config = *config;
    a->process.fd = -1;
    a->next_request = a->next_stream = 1;
    a->next_connection = CONTROL_CONNECTION + 1;
    pthread_mutex_init(&a->requests_lock, NULL);
    cond_init(&a->answered);
    sc.context = a;
    if (session_secret_make(&a->secret, e) != 0 || hub_new(&a->hub, &sc, e) != 0)
        goto fail;
    if ((config->command != NULL ? start_agent(a, e) : start_local(a, e)) != 0) {
        add_remote_reason(a, e);
        goto fail;
    }
    if (config->listen_address != NULL && start_listener(a, e) != 0)
        goto fail;
    if (thread_start(&a->loop, loop_main, a, e) != 0)
        goto fail;
    a->loop_runs = true;
    if (hub_link_wait(a->hub, CONTROL_CONNECTION, START_MS, e) != 0) {
        add_remote_reason(a, e);
        goto fail;
    }
    *out = a;
    return 0;

fail:
    agent_session_end(a);
    return -1;
}

bool agent_session_end(struct agent_session *a)
{
    struct remote_exit ended = { 0 };
    struct msg_quit quit = { .tail_bytes = 0 };
    struct link *control;
    bool known = true;
    struct err e;

    if (a == NULL)
        return true;
    data_listener_free(a->listener);
    control = a->hub != NULL ? hub_link(a->hub, CONTROL_CONNECTION) : NULL;
    if (control != NULL && a->loop_runs && link_send_quit(control, 0, &quit, &e) == 0 &&
        a->process_runs)
        known = a->process.transport->ops->wait(&a->process, END_MS, &ended, NULL, &e) == 0 &&
                ended.known;
    else if (a->process_runs)
        known = false;
    if (a->loop_runs) {
        hub_end(a->hub);
        pthread_join(a->loop, NULL);
    }
    hub_free(a->hub);
    if (a->process_runs && !known)
        /* Closing the channel ends its standard input, at which the agent ends. */
        known = a->process.transport->ops->wait(&a->process, END_MS, &ended, NULL, &e) == 0 &&
                ended.known;
    if (a->process_runs)
        a->process.transport->ops->release(&a->process);
    local_source_end(a->local);
    session_secret_wipe(&a->secret);
    pthread_cond_destroy(&a->answered);
    pthread_mutex_destroy(&a->requests_lock);
    free(a);
    return known;
}

struct hub *agent_session_streams(struct agent_session *a)
{
    return a->hub;
}

bool agent_session_alive(struct agent_session *a, struct err *why)
{
    return !hub_over(a->hub, why);
}

uint32_t agent_session_stream_number(struct agent_session *a)
{
    uint32_t n;

    pthread_mutex_lock(&a->requests_lock);
    n = a->next_stream++;
    pthread_mutex_unlock(&a->requests_lock);
    return n;
}

/* ---- requests ---- */

static struct request *request_begin(struct agent_session *a, struct err *e)
{
    struct request *r = NULL;

    pthread_mutex_lock(&a->requests_lock);
    for (size_t i = 0; i < REQUESTS_MAX && r == NULL; i++)
        if (a->requests[i].number == 0)
            r = &a->requests[i];
    if (r != NULL)
        *r = (struct request){ .number = a->next_request++ };
    pthread_mutex_unlock(&a->requests_lock);
    if (r == NULL)
        err_set(e, ERR_LIMIT, "too many requests at once");
    return r;
}

/* Wait for the answer and give the place back.  sent: what sending the request returned. */
static int request_end(struct agent_session *a, struct request *r, int sent, uint64_t timeout_ms,
                       struct msg_disk_opened *opened, struct err *e)
{
    uint64_t until_ms = io_clock_ms() + timeout_ms;
    int rc = sent;

    pthread_mutex_lock(&a->requests_lock);
    while (rc == 0 && !r->answered) {
        if (a->over) {
            *e = a->why_over;
            rc = -1;
        } else if (io_clock_ms() >= until_ms) {
            rc = err_set(e, ERR_NETWORK, "the agent does not answer");
        } else {
            cond_wait_until(&a->answered, &a->requests_lock, until_ms);
        }
    }
    if (rc == 0 && r->rc != 0) {
        *e = r->why;
        rc = -1;
    }
    if (rc == 0 && opened != NULL)
        *opened = r->opened;
    r->number = 0;
    pthread_mutex_unlock(&a->requests_lock);
    return rc;
}

static struct link *control_of(struct agent_session *a, struct err *e)
{
    struct link *l = hub_link(a->hub, CONTROL_CONNECTION);

    if (l == NULL && agent_session_alive(a, e))
        err_set(e, ERR_NETWORK, "the connection to the agent is closed");
    return l;
}

/* Two names with a NUL between, or one. */
static int join_names(struct bytes *out, const char *first, const char *second, struct err *e)
{
    if (bytes_append(out, first, strlen(first), e) != 0)
        return -1;
    if (second == NULL)
        return 0;
    return bytes_append(out, "", 1, e) != 0 || bytes_append(out, second, strlen(second), e) != 0
               ? -1
               : 0;
}

int agent_session_volume(struct agent_session *a, const char *path, const char *alias,
                         struct err *e)
{
    struct bytes names = { .ceiling = 4096 };
    struct msg_volume m = { 0 };
    struct request *r = NULL;
    struct link *l;
    int rc = -1;

    if (a->config.command == NULL)
        return 0;
    if (join_names(&names, path, alias, e) != 0)
        goto out;
    l = control_of(a, e);
    r = l != NULL ? request_begin(a, e) : NULL;
    if (r == NULL)
        goto out;
    m.request = r->number;
    m.tail = names.data;
    m.tail_bytes = names.count;
    rc = request_end(a, r, link_send_volume(l, 0, &m, e), REQUEST_MS, NULL, e);
out:
    bytes_free(&names);
    return rc;
}

int agent_session_disk_open(struct agent_session *a, const struct agent_disk *disk,
                            struct msg_disk_opened *opened, struct err *e)
{
    struct bytes names = { .ceiling = 8192 };
    struct msg_disk_open m = {
        .disk = disk->number,
        .format = (uint8_t)disk->format,
        .capacity_bytes = disk->capacity_bytes,
        .since_block = disk->since_block,
    };
    struct request *r = NULL;
    struct link *l;
    int rc = -1;

    *opened = (struct msg_disk_opened){ 0 };
    if (join_names(&names, disk->path, disk->since, e) != 0)
        goto out;
    l = control_of(a, e);
    r = l != NULL ? request_begin(a, e) : NULL;
    if (r == NULL)
        goto out;
    m.request = r->number;
    m.tail = names.data;
    m.tail_bytes = names.count;
    rc = request_end(a, r, link_send_disk_open(l, 0, &m, e), REQUEST_MS + a->config.stall_ms,
                     opened, e);
    if (rc == 0 && (opened->capacity_bytes != disk->capacity_bytes ||
                    opened->allocated_bytes > disk->capacity_bytes))
        rc = err_set(e, ERR_PEER, "the agent opened a disk of %" PRIu64 " bytes",
                     opened->capacity_bytes);
out:
    bytes_free(&names);
    return rc;
}

int agent_session_disk_holes(struct agent_session *a, uint32_t disk, const struct hole_map *map,
                             struct err *e)
{
    uint8_t tail[HOLES_PER_MESSAGE * 16];
    size_t at = 0;

    do {
        struct push p = { .at = tail, .left = sizeof tail };
        struct msg_disk_holes m = { .disk = disk, .tail = tail };
        size_t end = min_u64(at + HOLES_PER_MESSAGE, map->count);
        struct link *l = control_of(a, e);
        struct request *r = l != NULL ? request_begin(a, e) : NULL;

        if (r == NULL)
            return -1;
        for (; at < end; at++) {
            push_u64(&p, map->ranges[at].offset_bytes);
            push_u64(&p, map->ranges[at].length_bytes);
        }
        m.request = r->number;
        m.last = at == map->count;
        m.tail_bytes = sizeof tail - p.left;
        if (request_end(a, r, link_send_disk_holes(l, 0, &m, e), REQUEST_MS, NULL, e) != 0)
            return -1;
    } while (at < map->count);
    return 0;
}

int agent_session_stream_open(struct agent_session *a, uint32_t stream,
                              const struct msg_stream_open *open, struct err *e)
{
    struct msg_stream_open m = *open;
    struct link *l = control_of(a, e);
    struct request *r = l != NULL ? request_begin(a, e) : NULL;
    int rc;

    if (r == NULL)
        return -1;
    m.request = r->number;
    rc = request_end(a, r, link_send_stream_open(l, stream, &m, e), REQUEST_MS, NULL, e);
    crypto_wipe(m.secret, sizeof m.secret);
    return rc;
}

int agent_session_dial(struct agent_session *a, uint32_t *connection, struct err *e)
{
    struct msg_dial m = {
        .timeout_ms = DIAL_MS,
        .tail = (const uint8_t *)a->dial_address,
        .tail_bytes = strlen(a->dial_address),
    };
    struct link *l;
    struct request *r;

    if (a->listener == NULL)
        return err_set(e, ERR_NETWORK, "there is no data port");
    l = control_of(a, e);
    r = l != NULL ? request_begin(a, e) : NULL;
    if (r == NULL)
        return -1;
    pthread_mutex_lock(&a->requests_lock);
    m.connection = a->next_connection++;
    pthread_mutex_unlock(&a->requests_lock);
    m.request = r->number;
    m.port = a->config.dial_port != 0 ? a->config.dial_port : data_listener_port(a->listener);
    data_listener_expect(a->listener, m.connection);
    /* Done is said when the agent has seen our hello there; ours has seen its hello soon after. */
    if (request_end(a, r, link_send_dial(l, 0, &m, e), DIAL_MS + 1000, NULL, e) != 0 ||
        hub_link_wait(a->hub, m.connection, DIAL_MS, e) != 0) {
        data_listener_forget(a->listener, m.connection);
        hub_link_close(a->hub, m.connection);
        return err_add(e, "data channel to [%s]:%u", a->dial_address, m.port);
    }
    *connection = m.connection;
    return 0;
}

uint64_t agent_session_strangers(struct agent_session *a)
{
    return a->listener != NULL ? data_listener_strangers(a->listener) : 0;
}
