#include "tests/unit/ssh/memory_transport.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"

enum { COMMANDS_MAX = 1024, ANSWERS_MAX = 1024, INPUT_MAX = 64 << 20 };

struct memory_process {
    struct memory_transport *m;
    struct memory_answer answer;
    char *command;
    int fd;        /* our end */
    bool taken;    /* a thread plays the command */
    bool reported; /* standard error was given out */
    pthread_t thread;
    struct bytes input;
    /* Guarded by the transport's lock. */
    bool ended;
};

struct memory_transport {
    struct transport transport; /* first */
    struct memory_answer *answers;
    bool *used;
    size_t answer_count;
    struct memory_process *processes[COMMANDS_MAX];
    size_t process_count;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool dead;
};

static struct memory_transport *of(struct transport *t)
{
    return (struct memory_transport *)(void *)t;
}

static bool fits(const struct memory_answer *a, const char *command)
{
    return a->prefix ? strncmp(a->command, command, strlen(a->command)) == 0
                     : strcmp(a->command, command) == 0;
}

static struct memory_answer find_answer(struct memory_transport *m, const char *command)
{
    for (size_t i = 0; i < m->answer_count; i++) {
        if ((m->used[i] && !m->answers[i].always) || !fits(&m->answers[i], command))
            continue;
        m->used[i] = true;
        return m->answers[i];
    }
    return (struct memory_answer){ .command = "",
                                   .errors = "sh: no such command in the script\n",
                                   .status = 127 };
}

/* Plays one command: prints its output and takes its input, until both have ended. */
static void *play(void *argument)
{
    struct memory_process *p = argument;
    size_t left = p->answer.out == NULL     ? 0
                  : p->answer.out_bytes > 0 ? p->answer.out_bytes
                                            : strlen(p->answer.out);
    const char *at = p->answer.out;
    bool out_ended = false;
    bool in_ended = false;

    while (!out_ended || !in_ended) {
        struct pollfd f = { .fd = p->fd, .events = 0 };
        uint8_t piece[65536];
        ssize_t n;

        if (left == 0 && !out_ended) {
            shutdown(p->fd, SHUT_WR);
            out_ended = true;
            continue;
        }
        f.events = (short)((in_ended ? 0 : POLLIN) | (out_ended ? 0 : POLLOUT));
        if (poll(&f, 1, -1) < 0)
            continue;
        if (!in_ended && (f.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
            n = recv(p->fd, piece, sizeof piece, MSG_DONTWAIT);
            if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                in_ended = true;
            else if (n > 0 && bytes_append(&p->input, piece, (size_t)n, NULL) != 0)
                abort();
        }
        if (!out_ended && (f.revents & (POLLOUT | POLLHUP | POLLERR)) != 0) {
            n = send(p->fd, at, left, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN && errno != EINTR)
                left = 0;
            else if (n > 0) {
                at += n;
                left -= (size_t)n;
            }
        }
        /* A command that answers does not wait for its input to end. */
        if (out_ended && !in_ended && p->answer.cut)
            in_ended = true;
    }
    pthread_mutex_lock(&p->m->lock);
    p->ended = true;
    if (p->answer.cut)
        p->m->dead = true;
    pthread_cond_broadcast(&p->m->changed);
    pthread_mutex_unlock(&p->m->lock);
    return NULL;
}

static void process_free(struct memory_process *p)
{
    if (p == NULL)
        return;
    if (p->taken) {
        shutdown(p->fd, SHUT_RDWR);
        pthread_join(p->thread, NULL);
    }
    io_drop(&p->fd);
    bytes_free(&p->input);
    free(p->command);
    free(p);
}

static int memory_exec(struct transport *t, const char *command, struct remote_process *out,
                       struct err *e)
{
    struct memory_transport *m = of(t);
    struct memory_process *p = calloc(1, sizeof *p);
    int pair[2];
    int rc = -1;

    if (p == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        abort();
    p->m = m;
    p->fd = pair[1];
    p->input.ceiling = INPUT_MAX;
    p->command = strdup(command);
    pthread_mutex_lock(&m->lock);
    if (m->dead || m->process_count == COMMANDS_MAX) {
        err_set(e, m->dead ? ERR_NETWORK : ERR_LIMIT, "memory: %s",
                m->dead ? "the connection was cut" : "too many commands");
        goto out;
    }
    p->answer = find_answer(m, command);
    if (pthread_create(&p->thread, NULL, play, p) != 0)
        abort();
    p->taken = true;
    m->processes[m->process_count++] = p;
    *out = (struct remote_process){ .transport = t, .impl = p, .fd = pair[0] };
    pair[0] = -1;
    p = NULL;
    rc = 0;
out:
    pthread_mutex_unlock(&m->lock);
    process_free(p);
    io_drop(&pair[0]);
    return rc;
}

static struct timespec deadline_in(uint64_t ms)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    ms = ms > 86400000 ? 86400000 : ms;
    t.tv_sec += (time_t)(ms / 1000) + (t.tv_nsec + (long)(ms % 1000) * 1000000) / 1000000000;
    t.tv_nsec = (t.tv_nsec + (long)(ms % 1000) * 1000000) % 1000000000;
    return t;
}

static int report(struct memory_process *p, struct remote_exit *out, struct bytes *errors,
                  struct err *e)
{
    const struct memory_answer *a = &p->answer;

    if (errors != NULL && a->errors != NULL && !p->reported &&
        bytes_append(errors, a->errors, strlen(a->errors), e) != 0)
        return -1;
    p->reported = true;
    if (a->cut)
        return err_set(e, ERR_NETWORK, "memory: the connection was cut");
    out->known = true;
    out->status = a->status;
    out->signalled = a->signal != NULL;
    if (a->signal != NULL)
        snprintf(out->signal, sizeof out->signal, "%s", a->signal);
    return 0;
}

static int memory_wait(struct remote_process *r, uint64_t timeout_ms, struct remote_exit *out,
                       struct bytes *errors, struct err *e)
{
    struct memory_process *p = r->impl;
    struct timespec until = deadline_in(timeout_ms);
    bool late = false;
    bool ended;

    *out = (struct remote_exit){ 0 };
    /* The end of input is what lets the scripted command end; a caller who waits writes no more. */
    if (r->fd >= 0)
        shutdown(r->fd, SHUT_WR);
    pthread_mutex_lock(&p->m->lock);
    while (!p->ended && !late)
        late = pthread_cond_timedwait(&p->m->changed, &p->m->lock, &until) == ETIMEDOUT;
    ended = p->ended;
    pthread_mutex_unlock(&p->m->lock);
    if (ended)
        return report(p, out, errors, e);
    err_set(e, ERR_NETWORK, "memory: a command did not end in time");
    if (e != NULL)
        e->os = ETIMEDOUT;
    return -1;
}

static void memory_release(struct remote_process *r)
{
    struct memory_process *p = r->impl;

    io_drop(&r->fd);
    r->impl = NULL;
    if (p == NULL || !p->taken)
        return;
    shutdown(p->fd, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    p->taken = false;
}

static int memory_local_address(struct transport *t, char *out, size_t room, struct err *e)
{
    (void)t;
    (void)e;
    snprintf(out, room, "127.0.0.1");
    return 0;
}

static bool memory_alive(struct transport *t, struct err *e)
{
    struct memory_transport *m = of(t);
    bool alive;

    pthread_mutex_lock(&m->lock);
    alive = !m->dead;
    pthread_mutex_unlock(&m->lock);
    if (!alive)
        err_set(e, ERR_NETWORK, "memory: the connection was cut");
    return alive;
}

static void memory_close(struct transport *t)
{
    memory_transport_free(of(t));
}

static const struct transport_ops memory_ops = { .exec = memory_exec,
                                                 .wait = memory_wait,
                                                 .release = memory_release,
                                                 .local_address = memory_local_address,
                                                 .alive = memory_alive,
                                                 .close = memory_close };

struct memory_transport *memory_transport_new(const struct memory_answer *answers, size_t count)
{
    struct memory_transport *m = calloc(1, sizeof *m);

    if (m == NULL)
        abort();
    m->transport.ops = &memory_ops;
    m->answers = calloc(ANSWERS_MAX, sizeof *m->answers);
    m->used = calloc(ANSWERS_MAX, sizeof *m->used);
    if (m->answers == NULL || m->used == NULL)
        abort();
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->changed, NULL);
    for (size_t i = 0; i < count; i++)
        memory_transport_add(m, &answers[i]);
    return m;
}

void memory_transport_add(struct memory_transport *m, const struct memory_answer *answer)
{
    pthread_mutex_lock(&m->lock);
    if (m->answer_count == ANSWERS_MAX)
        abort();
    m->answers[m->answer_count++] = *answer;
    pthread_mutex_unlock(&m->lock);
}

struct transport *memory_transport_base(struct memory_transport *m)
{
    return &m->transport;
}

void memory_transport_free(struct memory_transport *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->process_count; i++)
        process_free(m->processes[i]);
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->lock);
    free(m->answers);
    free(m->used);
    free(m);
}

size_t memory_transport_count(const struct memory_transport *m)
{
    return m->process_count;
}

const char *memory_transport_command(const struct memory_transport *m, size_t index)
{
    return index < m->process_count ? m->processes[index]->command : NULL;
}

const void *memory_transport_input(const struct memory_transport *m, size_t index, size_t *count)
{
    *count = 0;
    if (index >= m->process_count)
        return NULL;
    *count = m->processes[index]->input.count;
    return m->processes[index]->input.data;
}

size_t memory_transport_unused(const struct memory_transport *m)
{
    size_t count = 0;

    for (size_t i = 0; i < m->answer_count; i++)
        count += !m->used[i] && !m->answers[i].always;
    return count;
}
