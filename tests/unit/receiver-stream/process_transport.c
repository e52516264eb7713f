#include "tests/unit/receiver-stream/process_transport.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"

struct process_transport {
    struct transport base;
    pid_t last;
};

struct child {
    pid_t pid;
    int err_fd;
    bool reaped;
    int status;
};

static int run(struct transport *t, const char *command, struct remote_process *out, struct err *e)
{
    struct child *c = calloc(1, sizeof *c);
    int io[2], err[2];

    if (c == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, io) != 0 ||
        pipe2(err, O_CLOEXEC) != 0)
        return err_sys(e, "running a command");
    c->pid = fork();
    if (c->pid == 0) {
        dup2(io[1], 0);
        dup2(io[1], 1);
        dup2(err[1], 2);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(io[1]);
    close(err[1]);
    c->err_fd = err[0];
    ((struct process_transport *)t)->last = c->pid;
    *out = (struct remote_process){ .transport = t, .impl = c, .fd = io[0] };
    return 0;
}

static int wait_for(struct remote_process *p, uint64_t timeout_ms, struct remote_exit *out,
                    struct bytes *errors, struct err *e)
{
    struct child *c = p->impl;
    uint64_t until = io_clock_ms() + timeout_ms;

    while (!c->reaped) {
        if (waitpid(c->pid, &c->status, WNOHANG) == c->pid)
            c->reaped = true;
        else if (io_clock_ms() >= until)
            return err_set(e, ERR_NETWORK, "it does not end");
        else
            usleep(2000);
    }
    *out = (struct remote_exit){ .known = true, .signalled = WIFSIGNALED(c->status) };
    if (out->signalled)
        snprintf(out->signal, sizeof out->signal, "%d", WTERMSIG(c->status));
    else
        out->status = WEXITSTATUS(c->status);
    while (errors != NULL && c->err_fd >= 0) {
        char buffer[512];
        ssize_t n = read(c->err_fd, buffer, sizeof buffer);

        if (n <= 0 || bytes_append(errors, buffer, (size_t)n, e) != 0)
            io_drop(&c->err_fd);
    }
    return 0;
}

static void release(struct remote_process *p)
{
    struct child *c = p->impl;

    io_drop(&p->fd);
    io_drop(&c->err_fd);
    if (!c->reaped) {
        kill(c->pid, SIGKILL);
        waitpid(c->pid, &c->status, 0);
    }
    free(c);
}

static int local_address(struct transport *t, char *out, size_t room, struct err *e)
{
    (void)t;
    (void)e;
    snprintf(out, room, "127.0.0.1");
    return 0;
}

static bool alive(struct transport *t, struct err *e)
{
    (void)t;
    (void)e;
    return true;
}

static void close_transport(struct transport *t)
{
    free(t);
}

static const struct transport_ops ops = { run, wait_for, release, local_address, alive,
                                          close_transport };

int process_transport_new(struct transport **out, struct err *e)
{
    struct process_transport *t = calloc(1, sizeof *t);

    if (t == NULL)
        return err_sys(e, "getting memory");
    t->base.ops = &ops;
    *out = &t->base;
    return 0;
}

int process_transport_last(struct transport *t)
{
    return ((struct process_transport *)t)->last;
}
