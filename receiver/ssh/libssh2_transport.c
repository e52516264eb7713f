/* The table of functions: what other threads call. */
#include "receiver/ssh/libssh2_transport.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "protocol/base/io.h"
#include "receiver/ssh/connection.h"
#include "receiver/ssh/known_hosts.h"

static struct connection *of(struct transport *t)
{
    return (struct connection *)(void *)t;
}

void ssh_options_init(struct ssh_options *o)
{
    *o = (struct ssh_options){ .port = 22,
                               .user = "root",
                               .methods = SSH_METHOD_ALL,
                               .default_identities = true,
                               .timeout_ms = 15000,
                               .keepalive_ms = 10000,
                               .silence_ms = 20000,
                               .cancel_fd = -1 };
}

/* The lock is held. */
static int dead_error(const struct connection *c, struct err *e)
{
    if (e != NULL)
        *e = c->why;
    return err_add(e, "%s", c->name);
}

static void connection_unref(struct connection *c)
{
    bool last;

    pthread_mutex_lock(&c->lock);
    last = --c->references == 0;
    pthread_mutex_unlock(&c->lock);
    if (!last)
        return;
    session_free(c);
    send_queue_free(&c->out);
    io_drop(&c->socket);
    io_drop(&c->wake);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* A time of pthread_cond_timedwait, which knows no "for ever". */
static struct timespec deadline_in(uint64_t ms)
{
    struct timespec t = { 0 };

    if (ms > UINT64_C(1000) * 86400 * 365)
        ms = UINT64_C(1000) * 86400 * 365;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += (time_t)(ms / 1000);
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    return t;
}

/*
 * Find a free place; the lock is held.  Where callers have released processes that the host has not
 * closed yet, wait for one.
 */
static int find_slot(struct connection *c, struct err *e)
{
    struct timespec until = deadline_in(CLOSE_TIMEOUT_MS);

    for (;;) {
        bool closing = false;

        if (c->dead)
            return dead_error(c, e);
        if (c->stop)
            return err_set(e, ERR_NETWORK, "%s: the connection was closed", c->name);
        for (int i = 0; i < SSH_CHANNELS_MAX; i++) {
            if (c->channels[i] == NULL)
                return i;
            closing |= c->channels[i]->released;
        }
        if (!closing || pthread_cond_timedwait(&c->changed, &c->lock, &until) == ETIMEDOUT)
            return err_set(e, ERR_LIMIT, "%s: more than %d commands at once", c->name,
                           SSH_CHANNELS_MAX);
    }
}

/* Hand the channel to the thread and wait until its command runs. */
static int start(struct connection *c, struct channel *ch, bool *handed_over, struct err *e)
{
    int rc = -1;
    int slot;

    pthread_mutex_lock(&c->lock);
    slot = find_slot(c, e);
    if (slot < 0)
        goto out;
    c->channels[slot] = ch;
    *handed_over = true;
    pump_wake(c);
    while (!c->dead && ch->state < CHANNEL_RUNNING)
        pthread_cond_wait(&c->changed, &c->lock);
    if (c->dead) {
        dead_error(c, e);
        goto out;
    }
    if (ch->state == CHANNEL_FAILED) {
        if (e != NULL)
            *e = ch->failure;
        err_add(e, "%s", c->name);
        goto out;
    }
    c->references++;
    rc = 0;
out:
    pthread_mutex_unlock(&c->lock);
    return rc;
}

/* The caller is done with a channel that the thread has got. */
static void let_go(struct connection *c, struct channel *ch)
{
    bool finished;

    pthread_mutex_lock(&c->lock);
    ch->released = true;
    finished = c->finished;
    pump_wake(c);
    pthread_mutex_unlock(&c->lock);
    if (finished)
        channel_free(ch);
}

static int socket_pair(int pair[2], struct err *e)
{
    int size = LOCAL_SOCKET_BYTES;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return err_sys(e, "making a socket pair");
    /* A context switch per few megabytes, not per packet.  Only root may pass the system's ceiling.
     */
    for (int i = 0; i < 2; i++)
        if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) != 0)
            setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    return 0;
}

static int connection_exec(struct transport *t, const char *command, struct remote_process *out,
                           struct err *e)
{
    struct connection *c = of(t);
    struct channel *ch = NULL;
    int pair[2] = { -1, -1 };
    bool handed_over = false;
    int rc = -1;

    if (socket_pair(pair, e) != 0)
        goto out;
    if (channel_new(&ch, c, command, pair[1], e) != 0)
        goto out;
    pair[1] = -1;
    if (start(c, ch, &handed_over, e) != 0)
        goto out;
    *out = (struct remote_process){ .transport = t, .impl = ch, .fd = pair[0] };
    pair[0] = -1;
    ch = NULL;
    rc = 0;
out:
    if (ch != NULL && handed_over)
        let_go(c, ch);
    else
        channel_free(ch);
    io_drop(&pair[0]);
    io_drop(&pair[1]);
    return rc;
}

static int wait_result(struct connection *c, struct channel *ch, bool timed_out,
                       struct remote_exit *out, struct err *e)
{
    if (ch->state == CHANNEL_ENDED) {
        *out = ch->exit;
        return 0;
    }
    if (!timed_out)
        return dead_error(c, e);
    err_set(e, ERR_NETWORK, "%s: a command did not end in time", c->name);
    if (e != NULL)
        e->os = ETIMEDOUT;
    return -1;
}

static int connection_wait(struct remote_process *p, uint64_t timeout_ms, struct remote_exit *out,
                           struct bytes *errors, struct err *e)
{
    struct channel *ch = p->impl;
    struct connection *c = ch->connection;
    struct timespec until = deadline_in(timeout_ms);
    bool timed_out = false;
    int rc;

    *out = (struct remote_exit){ 0 };
    pthread_mutex_lock(&c->lock);
    while (ch->state != CHANNEL_ENDED && !c->dead && !timed_out)
        timed_out = pthread_cond_timedwait(&c->changed, &c->lock, &until) == ETIMEDOUT;
    rc = wait_result(c, ch, timed_out && !c->dead, out, e);
    if (errors != NULL) {
        size_t room = errors->ceiling - errors->count;
        size_t count = ch->errors.count < room ? ch->errors.count : room;

        if (bytes_append(errors, ch->errors.data, count, rc == 0 ? e : NULL) != 0)
            rc = -1;
        ch->errors.count = 0;
    }
    pthread_mutex_unlock(&c->lock);
    return rc;
}

static void connection_release(struct remote_process *p)
{
    struct channel *ch = p->impl;
    struct connection *c;

    if (ch == NULL)
        return;
    c = ch->connection;
    io_drop(&p->fd);
    p->impl = NULL;
    let_go(c, ch);
    connection_unref(c);
}

static int connection_local_address(struct transport *t, char *out, size_t room, struct err *e)
{
    return tcp_local_address(of(t)->socket, out, room, e);
}

static bool connection_alive(struct transport *t, struct err *e)
{
    struct connection *c = of(t);
    bool alive;

    pthread_mutex_lock(&c->lock);
    alive = !c->dead;
    if (!alive)
        dead_error(c, e);
    pthread_mutex_unlock(&c->lock);
    return alive;
}

static void connection_close(struct transport *t)
{
    struct connection *c = of(t);

    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pump_wake(c);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    connection_unref(c);
}

static const struct transport_ops connection_ops = { .exec = connection_exec,
                                                     .wait = connection_wait,
                                                     .release = connection_release,
                                                     .local_address = connection_local_address,
                                                     .alive = connection_alive,
                                                     .close = connection_close };

static int connection_new(struct connection **out, const struct ssh_options *o, struct err *e)
{
    struct connection *c = calloc(1, sizeof *c);
    pthread_condattr_t attributes;

    if (c == NULL)
        return err_sys(e, "getting memory for a connection");
    c->transport.ops = &connection_ops;
    c->socket = -1;
    c->references = 1;
    c->keepalive_ms = o->keepalive_ms;
    c->silence_ms = o->silence_ms;
    snprintf(c->name, sizeof c->name, "%s@%s:%u", o->user, o->host, o->port);
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->wake < 0) {
        err_sys(e, "making an event descriptor");
        connection_unref(c);
        return -1;
    }
    *out = c;
    return 0;
}

static pthread_once_t library_once = PTHREAD_ONCE_INIT;
static int library_failed;

static void library_init(void)
{
    library_failed = libssh2_init(0);
}

static int login(struct connection *c, const struct ssh_options *o, struct err *e)
{
    struct known_host *known = calloc(1, sizeof *known);
    char types[512];
    int rc = -1;

    if (known == NULL)
        return err_sys(e, "getting memory for the known hosts");
    if (host_key_lookup(known, o, e) != 0 || tcp_connect(&c->socket, o, e) != 0)
        goto out;
    host_key_types(known, o->legacy, types, sizeof types);
    if (session_open(c, o, types, e) != 0 || host_key_verify(c, known, o, e) != 0)
        goto out;
    c->wipe_memory = true;
    if (auth_login(c, o, e) != 0)
        goto out;
    c->wipe_memory = false;
    rc = session_open_idle(c, o, e);
out:
    known_host_free(known);
    free(known);
    return rc;
}

/* The thread takes no signals: they belong to the program. */
static int thread_start(struct connection *c, struct err *e)
{
    sigset_t all;
    sigset_t before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&c->thread, NULL, pump_run, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        return 0;
    errno = rc;
    return err_sys(e, "starting a thread");
}

int ssh_connect(struct transport **out, const struct ssh_options *o, struct err *e)
{
    struct connection *c = NULL;

    pthread_once(&library_once, library_init);
    if (library_failed != 0)
        return err_set(e, ERR_SYSTEM, "libssh2 does not start (%d)", library_failed);
    if (connection_new(&c, o, e) != 0)
        return -1;
    if (login(c, o, e) != 0 || thread_start(c, e) != 0) {
        err_add(e, "%s", c->name);
        connection_unref(c);
        return -1;
    }
    *out = &c->transport;
    return 0;
}
