#include "receiver/ssh/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/io.h"

/* Bytes that one channel may move before the others have their turn. */
enum { TURN_BYTES = 1 << 20 };

int channel_new(struct channel **out, struct connection *c, const char *command, int local,
                struct err *e)
{
    struct channel *ch = calloc(1, sizeof *ch);

    if (ch == NULL)
        return err_sys(e, "getting memory for a channel");
    ch->connection = c;
    ch->local = -1;
    ch->errors.ceiling = CHANNEL_STDERR_MAX;
    ch->command = strdup(command);
    ch->in.data = malloc(CHANNEL_BUFFER_BYTES);
    ch->out.data = malloc(CHANNEL_BUFFER_BYTES);
    if (ch->command == NULL || ch->in.data == NULL || ch->out.data == NULL) {
        channel_free(ch);
        return err_sys(e, "getting memory for a channel");
    }
    ch->local = local;
    *out = ch;
    return 0;
}

void channel_free(struct channel *ch)
{
    if (ch == NULL)
        return;
    io_drop(&ch->local);
    bytes_free(&ch->errors);
    free(ch->command);
    free(ch->in.data);
    free(ch->out.data);
    free(ch);
}

static void set_state(struct channel *ch, enum channel_state state)
{
    struct connection *c = ch->connection;

    pthread_mutex_lock(&c->lock);
    ch->state = state;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* Errors of libssh2 that end one channel; all others end the connection. */
static bool is_channel_error(int rc)
{
    return rc == LIBSSH2_ERROR_CHANNEL_FAILURE || rc == LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED ||
           rc == LIBSSH2_ERROR_CHANNEL_CLOSED || rc == LIBSSH2_ERROR_CHANNEL_EOF_SENT;
}

static void connection_failed(struct channel *ch, int rc, const char *what)
{
    struct err why;

    session_error(ch->connection, rc, &why, what);
    pump_die(ch->connection, &why);
}

static void channel_failed(struct channel *ch, int rc, const char *what)
{
    struct err why;

    session_error(ch->connection, rc, &why, what);
    if (!is_channel_error(rc)) {
        pump_die(ch->connection, &why);
        return;
    }
    ch->failure = why;
    set_state(ch, CHANNEL_FAILED);
}

/* A deadline of the host's has passed: a connection like that is of no use. */
static void check_deadline(struct channel *ch, const char *what)
{
    struct err why;

    if (io_clock_ms() < ch->deadline_ms)
        return;
    err_set(&why, ERR_NETWORK, "%s: the host did not answer in time", what);
    why.os = ETIMEDOUT;
    pump_die(ch->connection, &why);
}

static bool step_open(struct channel *ch)
{
    struct connection *c = ch->connection;
    int rc;

    if (c->opening != NULL && c->opening != ch)
        return false;
    if (c->opening == NULL) {
        c->opening = ch;
        ch->deadline_ms = io_clock_ms() + OPEN_TIMEOUT_MS;
        set_state(ch, CHANNEL_OPENING);
    }
    ch->ssh = libssh2_channel_open_ex(c->session, "session", 7, CHANNEL_WINDOW_BYTES,
                                      CHANNEL_PACKET_BYTES, NULL, 0);
    if (ch->ssh != NULL) {
        c->opening = NULL;
        set_state(ch, CHANNEL_STARTING);
        return true;
    }
    rc = libssh2_session_last_errno(c->session);
    if (rc == LIBSSH2_ERROR_EAGAIN) {
        check_deadline(ch, "opening a channel");
        return false;
    }
    c->opening = NULL;
    channel_failed(ch, rc, "opening a channel");
    return true;
}

static bool step_start(struct channel *ch)
{
    int rc = libssh2_channel_process_startup(ch->ssh, "exec", 4, ch->command,
                                             (unsigned int)strlen(ch->command));

    if (rc == LIBSSH2_ERROR_EAGAIN) {
        check_deadline(ch, "starting a command");
        return false;
    }
    if (rc != 0)
        channel_failed(ch, rc, "starting a command");
    else
        set_state(ch, CHANNEL_RUNNING);
    return true;
}

/* Write what waits for the caller.  True when something moved. */
static bool deliver(struct channel *ch)
{
    bool moved = false;

    while (ch->out.count > 0 && !ch->out_dropped) {
        ssize_t n =
            send(ch->local, ch->out.data + ch->out.at, ch->out.count, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return moved;
        if (n < 0) {
            ch->out_dropped = true;
            break;
        }
        ch->out.at += (size_t)n;
        ch->out.count -= (size_t)n;
        moved = true;
    }
    if (ch->out_dropped && ch->out.count > 0) {
        ch->out.count = 0;
        moved = true;
    }
    return moved;
}

/* Standard error is always emptied: once it fills the window, standard output stalls too. */
static bool collect_errors(struct channel *ch)
{
    struct connection *c = ch->connection;
    bool moved = false;
    char text[16384];

    for (size_t turn = 0; turn < TURN_BYTES;) {
        ssize_t n = libssh2_channel_read_stderr(ch->ssh, text, sizeof text);
        size_t kept;

        if (n == LIBSSH2_ERROR_EAGAIN || n == 0)
            return moved;
        if (n < 0) {
            connection_failed(ch, (int)n, "reading standard error");
            return true;
        }
        pthread_mutex_lock(&c->lock);
        kept = CHANNEL_STDERR_MAX - ch->errors.count;
        kept = kept < (size_t)n ? kept : (size_t)n;
        if (bytes_append(&ch->errors, text, kept, NULL) != 0)
            kept = 0;
        ch->errors_dropped_bytes += (size_t)n - kept;
        pthread_mutex_unlock(&c->lock);
        turn += (size_t)n;
        moved = true;
    }
    return moved;
}

/* From the command to the caller. */
static bool move_out(struct channel *ch)
{
    bool moved = deliver(ch);

    for (size_t turn = 0; turn < TURN_BYTES && ch->out.count == 0 && !ch->out_ended;) {
        ssize_t n = libssh2_channel_read(ch->ssh, (char *)ch->out.data, CHANNEL_BUFFER_BYTES);

        if (n == LIBSSH2_ERROR_EAGAIN)
            break;
        if (n < 0) {
            connection_failed(ch, (int)n, "reading from the host");
            return true;
        }
        if (n == 0)
            break;
        ch->out.at = 0;
        ch->out.count = (size_t)n;
        turn += (size_t)n;
        deliver(ch);
        moved = true;
    }
    /* Only beside standard output that flows: reading either opens the window of both. */
    if (ch->out.count == 0 && !ch->out_ended)
        moved |= collect_errors(ch);
    if (!ch->out_ended && ch->out.count == 0 && libssh2_channel_eof(ch->ssh) == 1) {
        ch->out_ended = true;
        if (ch->local >= 0)
            shutdown(ch->local, SHUT_WR);
        moved = true;
    }
    return moved;
}

/* The caller's next bytes.  True when there are some, or he ended. */
static bool fetch(struct channel *ch)
{
    for (;;) {
        ssize_t n = recv(ch->local, ch->in.data, CHANNEL_BUFFER_BYTES, MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return false;
        /* ECONNRESET: he closed it without reading all output; what he wrote before was read. */
        if (n <= 0)
            ch->local_eof = true;
        else
            ch->in.count = (size_t)n;
        ch->in.at = 0;
        return true;
    }
}

/* The command takes no more input: the caller learns it by EPIPE. */
static void refuse_input(struct channel *ch)
{
    ch->in.count = 0;
    ch->local_eof = true;
    ch->eof_sent = true;
    if (ch->local >= 0)
        shutdown(ch->local, SHUT_RD);
}

static bool send_end(struct channel *ch)
{
    int rc = libssh2_channel_send_eof(ch->ssh);

    if (rc == LIBSSH2_ERROR_EAGAIN)
        return false;
    if (rc != 0 && !is_channel_error(rc))
        connection_failed(ch, rc, "ending standard input");
    ch->eof_sent = true;
    return true;
}

/* From the caller to the command. */
static bool move_in(struct channel *ch)
{
    struct connection *c = ch->connection;
    bool readable = ch->polled != NULL && (ch->polled->revents & (POLLIN | POLLHUP | POLLERR)) != 0;
    bool moved = false;

    for (size_t turn = 0; turn < TURN_BYTES && !ch->eof_sent && c->out.count < SEND_QUEUE_MARK;) {
        ssize_t n;

        if (ch->in.count == 0 && ch->local_eof)
            return send_end(ch) || moved;
        if (ch->in.count == 0 && (!readable || !fetch(ch)))
            return moved;
        if (ch->in.count == 0)
            continue;
        n = libssh2_channel_write(ch->ssh, (const char *)ch->in.data + ch->in.at, ch->in.count);
        if (n == LIBSSH2_ERROR_EAGAIN || n == 0)
            return moved; /* the window is full, or keys are being exchanged */
        if (n < 0) {
            if (is_channel_error((int)n))
                refuse_input(ch);
            else
                connection_failed(ch, (int)n, "writing to the host");
            return true;
        }
        ch->in.at += (size_t)n;
        ch->in.count -= (size_t)n;
        turn += (size_t)n;
        moved = true;
    }
    return moved;
}

static void copy_signal(struct channel *ch, struct remote_exit *out)
{
    char *name = NULL;
    size_t count = 0;

    if (libssh2_channel_get_exit_signal(ch->ssh, &name, &count, NULL, NULL, NULL, NULL) != 0 ||
        name == NULL)
        return;
    out->signalled = true;
    for (size_t i = 0; i < count && i < sizeof out->signal - 1; i++)
        out->signal[i] = name[i] > ' ' && name[i] < 127 ? name[i] : '?';
    libssh2_free(ch->connection->session, name);
}

/* All output is delivered: has the host closed the channel? */
static bool step_end(struct channel *ch)
{
    struct connection *c = ch->connection;
    struct remote_exit ended = { .known = true };
    int rc = libssh2_channel_wait_closed(ch->ssh);

    if (rc == LIBSSH2_ERROR_EAGAIN)
        return false;
    if (rc != 0) {
        connection_failed(ch, rc, "waiting for the end of a command");
        return true;
    }
    copy_signal(ch, &ended);
    ended.status = libssh2_channel_get_exit_status(ch->ssh);
    /* Blocked writers wake up; a reader still gets what was delivered. */
    if (ch->local >= 0)
        shutdown(ch->local, SHUT_RDWR);
    pthread_mutex_lock(&c->lock);
    ch->exit = ended;
    ch->state = CHANNEL_ENDED;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    return true;
}

static bool step_run(struct channel *ch)
{
    bool moved = move_out(ch);

    if (!ch->connection->dead)
        moved |= move_in(ch);
    if (!ch->connection->dead && ch->out_ended)
        moved |= step_end(ch);
    return moved;
}

/* The caller has released it: close it, then forget it. */
static bool step_close(struct channel *ch)
{
    struct connection *c = ch->connection;
    int rc = 0;

    if (!ch->closing) {
        ch->closing = true;
        ch->deadline_ms = io_clock_ms() + CLOSE_TIMEOUT_MS;
        io_drop(&ch->local);
    }
    if (ch->ssh != NULL)
        rc = libssh2_channel_free(ch->ssh);
    if (rc == LIBSSH2_ERROR_EAGAIN) {
        check_deadline(ch, "closing a channel");
        return false;
    }
    ch->ssh = NULL; /* any other answer: it is gone, and a dead network shows elsewhere */
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < SSH_CHANNELS_MAX; i++)
        if (c->channels[i] == ch)
            c->channels[i] = NULL;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    channel_free(ch);
    return true;
}

short channel_events(const struct channel *ch)
{
    short events = 0;

    if (ch->state != CHANNEL_RUNNING || ch->local < 0)
        return 0;
    if (ch->in.count == 0 && !ch->local_eof && !ch->eof_sent &&
        ch->connection->out.count < SEND_QUEUE_MARK)
        events |= POLLIN;
    if (ch->out.count > 0 && !ch->out_dropped)
        events |= POLLOUT;
    return events;
}

bool channel_step(struct channel *ch)
{
    struct connection *c = ch->connection;
    bool released;

    pthread_mutex_lock(&c->lock);
    released = ch->released;
    pthread_mutex_unlock(&c->lock);
    /* Only this thread writes state, so it may read it without the lock. */
    switch (ch->state) {
    case CHANNEL_NEW:
    case CHANNEL_OPENING:
        return step_open(ch);
    case CHANNEL_STARTING:
        return step_start(ch);
    case CHANNEL_RUNNING:
    case CHANNEL_FAILED:
    case CHANNEL_ENDED:
        break;
    }
    if (released)
        return step_close(ch);
    return ch->state == CHANNEL_RUNNING && step_run(ch);
}

void channel_abandon(struct channel *ch)
{
    ch->ssh = NULL;
    io_drop(&ch->local);
}
