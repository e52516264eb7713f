/* Whole commands and uploads, over any transport. */
#include "receiver/ssh/transport.h"

#include <errno.h>
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

enum { STEP_BYTES = 64 << 10, UPLOAD_ERRORS_MAX = 4096, UPLOAD_COMMAND_MAX = 16 << 10 };

/* Both directions of one command, until both have ended. */
struct exchange {
    struct remote_process *p;
    const uint8_t *input; /* what is still to be sent */
    size_t input_bytes;
    int from;      /* where more input comes from; -1: nowhere */
    uint8_t *step; /* STEP_BYTES, for what comes from there */
    struct bytes *out;
    bool input_ended;
    bool out_ended;
    bool input_refused; /* the command ended without reading all */
    uint64_t deadline_ms;
};

static int timed_out(struct err *e)
{
    err_set(e, ERR_NETWORK, "the command did not end in time");
    if (e != NULL)
        e->os = ETIMEDOUT;
    return -1;
}

static void end_input(struct exchange *x)
{
    x->input_ended = true;
    shutdown(x->p->fd, SHUT_WR);
}

/* Send what the socket takes. */
static int feed(struct exchange *x, struct err *e)
{
    ssize_t n;

    if (x->input_bytes == 0 && x->from >= 0) {
        do
            n = read(x->from, x->step, STEP_BYTES);
        while (n < 0 && errno == EINTR);
        if (n < 0)
            return err_sys(e, "reading what is to be sent");
        x->input = x->step;
        x->input_bytes = (size_t)n;
    }
    if (x->input_bytes == 0) {
        end_input(x);
        return 0;
    }
    n = send(x->p->fd, x->input, x->input_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < 0) {
        /* The command, or the connection, has ended: its exit tells which. */
        x->input_refused = true;
        x->input_bytes = 0;
        x->from = -1;
        end_input(x);
        return 0;
    }
    x->input += n;
    x->input_bytes -= (size_t)n;
    return 0;
}

/* Read what has come. */
static int drink(struct exchange *x, struct err *e)
{
    size_t room = x->out->ceiling - x->out->count;
    size_t step = room < STEP_BYTES ? room : STEP_BYTES;
    uint8_t *to = bytes_reserve(x->out, step, e);
    uint8_t excess;
    ssize_t n;

    if (to == NULL)
        return -1;
    n = recv(x->p->fd, step > 0 ? to : &excess, step > 0 ? step : 1, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        x->out_ended = true;
        return 0;
    }
    if (step == 0)
        return err_set(e, ERR_LIMIT, "the command printed more than %zu bytes", x->out->ceiling);
    x->out->count += (size_t)n;
    return 0;
}

/* A command may close its output and still read its input: both must end. */
static int exchange_run(struct exchange *x, struct err *e)
{
    while (!x->input_ended || !x->out_ended) {
        struct pollfd p = { .fd = x->p->fd };
        uint64_t now = io_clock_ms();
        uint64_t left;

        if (now >= x->deadline_ms)
            return timed_out(e);
        left = x->deadline_ms - now;
        p.events = (short)((x->input_ended ? 0 : POLLOUT) | (x->out_ended ? 0 : POLLIN));
        if (poll(&p, 1, left > 60000 ? 60000 : (int)left) < 0 && errno != EINTR)
            return err_sys(e, "waiting for a command");
        if (!x->input_ended && (p.revents & (POLLOUT | POLLERR | POLLHUP)) != 0 && feed(x, e) != 0)
            return -1;
        if (!x->out_ended && (p.revents & (POLLIN | POLLERR | POLLHUP)) != 0 && drink(x, e) != 0)
            return -1;
    }
    return 0;
}

static int run(struct transport *t, const char *command, struct exchange *x, uint64_t timeout_ms,
               struct bytes *errors, struct remote_exit *ended, struct err *e)
{
    struct remote_process p = { .fd = -1 };
    uint64_t start_ms = io_clock_ms();
    uint64_t now;
    int rc = -1;

    *ended = (struct remote_exit){ 0 };
    if (t->ops->exec(t, command, &p, e) != 0)
        return -1;
    x->p = &p;
    x->deadline_ms = timeout_ms < UINT64_MAX - start_ms ? start_ms + timeout_ms : UINT64_MAX;
    if (exchange_run(x, e) != 0)
        goto out;
    now = io_clock_ms();
    rc = t->ops->wait(&p, now < x->deadline_ms ? x->deadline_ms - now : 0, ended, errors, e);
out:
    t->ops->release(&p);
    return rc;
}

int transport_run(struct transport *t, const char *command, const void *input, size_t input_bytes,
                  uint64_t timeout_ms, struct bytes *out, struct bytes *errors,
                  struct remote_exit *ended, struct err *e)
{
    struct exchange x = { .input = input, .input_bytes = input_bytes, .from = -1, .out = out };

    return run(t, command, &x, timeout_ms, errors, ended, e);
}

/* What the host printed, on one line for people. */
static void one_line(const char *text, char *out, size_t room)
{
    size_t count = 0;

    for (; *text != 0 && count + 1 < room; text++)
        if (*text != '\n')
            out[count++] = *text >= ' ' && *text < 127 ? *text : '?';
        else if (text[1] != 0)
            out[count++] = ' ';
    out[count] = 0;
}

/* Messages of ash, dash and cat; all else is ERR_SYSTEM. */
static enum err_code code_of(const char *errors)
{
    static const struct {
        const char *text;
        enum err_code code;
    } known[] = {
        { "No space left", ERR_SPACE },       { "File too large", ERR_SPACE },
        { "nonexistent", ERR_NOT_FOUND },     { "No such file", ERR_NOT_FOUND },
        { "Permission denied", ERR_REFUSED }, { "not permitted", ERR_REFUSED },
        { "File exists", ERR_REFUSED },       { "existing file", ERR_REFUSED },
        { "Read-only", ERR_REFUSED },
    };

    for (size_t i = 0; i < ARRAY_COUNT(known); i++)
        if (strstr(errors, known[i].text) != NULL)
            return known[i].code;
    return ERR_SYSTEM;
}

static int judge_upload(const struct remote_exit *ended, bool input_refused, const char *errors,
                        struct err *e)
{
    enum err_code code = code_of(errors);
    char line[200];

    if (ended->known && !ended->signalled && ended->status == 0 && !input_refused)
        return 0;
    one_line(errors, line, sizeof line);
    if (ended->signalled)
        return err_set(e, code, "the host ended the writing by signal %s", ended->signal);
    return err_set(e, code, "the host could not write it (status %d)%s%s", ended->status,
                   line[0] != 0 ? ": " : "", line);
}

int transport_upload(struct transport *t, const void *data, size_t count, int fd, const char *path,
                     unsigned mode, uint64_t timeout_ms, struct err *e)
{
    struct bytes command = { .ceiling = UPLOAD_COMMAND_MAX };
    struct bytes quoted = { .ceiling = UPLOAD_COMMAND_MAX };
    struct bytes errors = { .ceiling = UPLOAD_ERRORS_MAX };
    struct bytes out = { .ceiling = UPLOAD_ERRORS_MAX };
    struct exchange x = {
        .input = data, .input_bytes = count, .from = data == NULL ? fd : -1, .out = &out
    };
    struct remote_exit ended;
    const char *said;
    char head[64];
    int rc = -1;

    x.step = malloc(STEP_BYTES);
    if (x.step == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    /*
     * -C: the redirection makes a new file or fails.  The name comes after "./" only if it does not
     * start with a slash, so that chmod never takes it for an option.
     */
    if (path[0] != '/' && bytes_append(&quoted, "./", 2, e) != 0)
        goto out;
    if (shell_quote(&quoted, path, e) != 0)
        goto out;
    snprintf(head, sizeof head, " && chmod %04o ", mode & 07777);
    if (bytes_append(&command, "umask 077; set -C; cat > ", 25, e) != 0 ||
        bytes_append(&command, quoted.data, quoted.count, e) != 0 ||
        bytes_append(&command, head, strlen(head), e) != 0 ||
        bytes_append(&command, quoted.data, quoted.count, e) != 0 ||
        bytes_text(&command, e) == NULL)
        goto out;
    if (run(t, (char *)command.data, &x, timeout_ms, &errors, &ended, e) != 0)
        goto out;
    said = bytes_text(&errors, e);
    if (said != NULL)
        rc = judge_upload(&ended, x.input_refused, said, e);
out:
    free(x.step);
    bytes_free(&command);
    bytes_free(&quoted);
    bytes_free(&errors);
    bytes_free(&out);
    return rc == 0 ? 0 : err_add(e, "uploading %s", path);
}
