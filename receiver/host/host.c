#include "receiver/host/host.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/clock.h"
#include "receiver/base/log.h"
#include "receiver/base/stop.h"
#include "receiver/host/vimdump.h"
#include "receiver/ssh/transport.h"

static uint64_t real_clock_ms(void *context)
{
    (void)context;
    return io_clock_ms();
}

static int64_t real_wall_clock(void *context)
{
    (void)context;
    return clock_now();
}

static void real_pause(void *context, uint64_t ms)
{
    struct timespec t = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };

    (void)context;
    nanosleep(&t, NULL); /* an early end only makes us look earlier */
}

static bool real_stop(void *context)
{
    (void)context;
    return stop_requested();
}

int host_init(struct host *h, struct transport *transport, const char *address, unsigned port,
              const char *user, const struct host_hooks *hooks, struct err *e)
{
    memset(h, 0, sizeof *h);
    h->transport = transport;
    h->address = address;
    h->port = port;
    h->user = user;
    if (hooks != NULL)
        h->hooks = *hooks;
    if (h->hooks.clock_ms == NULL)
        h->hooks.clock_ms = real_clock_ms;
    if (h->hooks.wall_clock == NULL)
        h->hooks.wall_clock = real_wall_clock;
    if (h->hooks.pause == NULL)
        h->hooks.pause = real_pause;
    if (h->hooks.stop == NULL)
        h->hooks.stop = real_stop;
    if (pthread_mutex_init(&h->vim_lock, NULL) != 0)
        return err_set(e, ERR_SYSTEM, "no mutex");
    h->vim_gate = &h->vim_lock;
    return 0;
}

int host_join(struct host *h, struct transport *transport, const struct host *first, struct err *e)
{
    if (host_init(h, transport, first->address, first->port, first->user, &first->hooks, e) != 0)
        return -1;
    h->vim_gate = first->vim_gate;
    memcpy(h->uuid, first->uuid, sizeof h->uuid);
    memcpy(h->product, first->product, sizeof h->product);
    memcpy(h->level, first->level, sizeof h->level);
    memcpy(h->version, first->version, sizeof h->version);
    h->version_major = first->version_major;
    memcpy(h->build, first->build, sizeof h->build);
    h->booted = first->booted;
    return 0;
}

void host_end(struct host *h)
{
    pthread_mutex_destroy(&h->vim_lock);
}

void host_rebind(struct host *h, struct transport *transport)
{
    h->transport = transport;
}

int64_t host_now(struct host *h)
{
    return h->hooks.wall_clock(h->hooks.context);
}

uint64_t host_clock_ms(struct host *h)
{
    return h->hooks.clock_ms(h->hooks.context);
}

void host_pause(struct host *h, uint64_t ms)
{
    h->hooks.pause(h->hooks.context, ms);
}

int host_check_stop(struct host *h, struct err *e)
{
    if (h->hooks.stop(h->hooks.context))
        return err_set(e, ERR_STOPPED, "asked to end");
    return 0;
}

int host_unreadable(struct err *e)
{
    if (e->code == ERR_CORRUPT || e->code == ERR_FORMAT)
        e->code = ERR_SOURCE;
    return -1;
}

void host_answer_free(struct host_answer *a)
{
    free(a->out);
    free(a->complaint);
    *a = (struct host_answer){ 0 };
}

/* Give the content of b away as text. */
static int take_text(struct bytes *b, char **text, size_t *count, struct err *e)
{
    char *t = bytes_text(b, e);

    if (t == NULL)
        return -1;
    if (memchr(t, '\0', b->count) != NULL)
        return err_set(e, ERR_CORRUPT, "the host's answer holds a NUL");
    *text = t;
    *count = b->count;
    *b = (struct bytes){ 0 };
    return 0;
}

int host_run_input(struct host *h, const char *command, const void *input, size_t input_bytes,
                   uint64_t timeout_ms, struct host_answer *a, struct err *e)
{
    /* One byte more than is accepted, for the NUL behind the text. */
    struct bytes out = { .ceiling = HOST_ANSWER_MAX + 1 };
    struct bytes complaint = { .ceiling = HOST_COMPLAINT_MAX + 1 };
    struct remote_exit ended = { 0 };
    int rc = -1;

    *a = (struct host_answer){ 0 };
    if (transport_run(h->transport, command, input, input_bytes, timeout_ms, &out, &complaint,
                      &ended, e) != 0)
        goto out;
    if (!ended.known) {
        err_set(e, ERR_NETWORK, "the connection ended before the command did");
        goto out;
    }
    if (take_text(&out, &a->out, &a->out_bytes, e) != 0 ||
        take_text(&complaint, &a->complaint, &a->complaint_bytes, e) != 0)
        goto out;
    /* A signal has a name, no number, over SSH; 137 stands for all of them. */
    a->status = ended.signalled ? 137 : ended.status;
    log_debug("%s -> %d, %zu bytes", command, a->status, a->out_bytes);
    rc = 0;

out:
    if (rc != 0)
        host_answer_free(a);
    bytes_free(&out);
    bytes_free(&complaint);
    return rc;
}

int host_run(struct host *h, const char *command, uint64_t timeout_ms, struct host_answer *a,
             struct err *e)
{
    return host_run_input(h, command, NULL, 0, timeout_ms, a, e);
}

/* Append the words of a list, each quoted, to command. */
static int add_words(struct bytes *command, va_list words, struct err *e)
{
    const char *word;

    while ((word = va_arg(words, const char *)) != NULL)
        if ((command->count > 0 && bytes_append(command, " ", 1, e) != 0) ||
            shell_quote(command, word, e) != 0)
            return -1;
    return 0;
}

int host_call(struct host *h, struct host_answer *a, uint64_t timeout_ms, struct err *e, ...)
{
    struct bytes command = { .ceiling = HOST_COMMAND_MAX };
    const char *text;
    va_list words;
    int rc;

    *a = (struct host_answer){ 0 };
    va_start(words, e);
    rc = add_words(&command, words, e);
    va_end(words);
    if (rc == 0)
        rc = (text = bytes_text(&command, e)) == NULL ? -1 : host_run(h, text, timeout_ms, a, e);
    bytes_free(&command);
    return rc;
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static const char *next_line(const char *line)
{
    const char *newline = strchr(line, '\n');

    return newline == NULL ? NULL : newline + 1;
}

static bool line_is_fault(const char *line)
{
    return starts(line, "(vim.fault.") || starts(line, "(vmodl.fault.") ||
           starts(line, "(vmodl.MethodFault) {") || starts(line, "(vmodl.RuntimeFault) {");
}

/*
 * The fault that an answer is, or NULL.  On standard output only the first line behind titles such
 * as "Listsummary:" decides: a note inside a good answer may imitate a fault.
 */
static const char *fault_of(const struct host_answer *a)
{
    const char *line;

    for (line = a->complaint; line != NULL; line = next_line(line))
        if (line_is_fault(line))
            return line;
    for (line = a->out; line != NULL; line = next_line(line)) {
        size_t bytes = strcspn(line, "\r\n");

        if (line_is_fault(line))
            return line;
        if (bytes > 0 && line[bytes - 1] != ':' && a->status == 0)
            return NULL;
    }
    return NULL;
}

/* The last line with something on it, for commands that fail with plain text. */
static void last_line(const char *text, char *out, size_t room)
{
    out[0] = '\0';
    for (const char *line = text; line != NULL; line = next_line(line)) {
        size_t bytes = strcspn(line, "\r\n");

        if (bytes > 0)
            snprintf(out, room, "%.*s", (int)(bytes < 400 ? bytes : 400), line);
    }
}

/* hostd short of memory or restarting: worth another try.  documented, not seen: the exact
 * statuses. */
static bool is_passing(const struct host_answer *a)
{
    static const char *const texts[] = {
        "std::bad_alloc",
        "Failed to login:",
        "Connect to localhost failed",
        "Cannot allocate memory",
    };

    if (a->status == 0 && a->complaint_bytes == 0 && a->out_bytes > 0 &&
        !starts(a->out, "Failed to login:") && !starts(a->out, "Connect to localhost failed"))
        return false;
    if (a->status == 134 || a->status == 137)
        return true;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strstr(a->complaint, texts[i]) != NULL ||
            (a->status != 0 && strstr(a->out, texts[i]) != NULL) || starts(a->out, texts[i]))
            return true;
    return false;
}

static enum err_code code_of_fault(const char *type, const char *message)
{
    if (strstr(type, "ManagedObjectNotFound") != NULL || strcmp(type, "vim.fault.NotFound") == 0)
        return ERR_NOT_FOUND;
    if (strcmp(type, "vim.fault.TaskInProgress") == 0 ||
        strstr(message, "Another task is already in progress") != NULL ||
        strstr(message, "A snapshot operation is already in progress") != NULL)
        return ERR_BUSY;
    if (strcmp(type, "vim.fault.NoDiskSpace") == 0 ||
        strstr(message, "Insufficient disk space") != NULL ||
        strstr(message, "not enough available storage space") != NULL)
        return ERR_SPACE;
    return ERR_SOURCE;
}

static int fail_with_fault(const char *fault, struct err *e)
{
    struct vimdump *d = NULL;
    struct err unread;
    char type[128], message[400];
    const char *text = NULL;

    snprintf(type, sizeof type, "%.*s", (int)strcspn(fault + 1, ")\r\n"), fault + 1);
    if (vimdump_read(&d, fault, strlen(fault), &unread) == 0)
        text = vimnode_text(vimdump_root(d), "msg");
    if (text == NULL || *text == '\0')
        text = type;
    snprintf(message, sizeof message, "%.*s", (int)strcspn(text, "\r\n"), text);
    vimdump_free(d);
    return err_set(e, code_of_fault(type, message), "%s", message);
}

/* 0, or the error that the answer means. */
static int judge(const struct host_answer *a, struct err *e)
{
    const char *fault = fault_of(a);
    char line[420];

    if (fault != NULL)
        return fail_with_fault(fault, e);
    if (a->status == 0)
        return 0;
    last_line(a->complaint_bytes > 0 ? a->complaint : a->out, line, sizeof line);
    return err_set(e, code_of_fault("", line), "%s (status %d)",
                   line[0] != '\0' ? line : "no message", a->status);
}

static int vim_run(struct host *h, const char *command, unsigned tries, uint64_t timeout_ms,
                   struct host_answer *a, struct err *e)
{
    int rc = -1;

    for (unsigned i = 0; i < tries; i++) {
        if (i > 0) {
            host_answer_free(a);
            host_pause(h, UINT64_C(1000) << (2 * (i - 1)));
        }
        pthread_mutex_lock(h->vim_gate);
        rc = host_run(h, command, timeout_ms, a, e);
        pthread_mutex_unlock(h->vim_gate);
        if (rc != 0)
            return -1;
        if (!is_passing(a))
            return judge(a, e);
    }
    judge(a, e);
    if (a->status != 0 || fault_of(a) != NULL) {
        char text[sizeof e->text];

        memcpy(text, e->text, sizeof text);
        err_set(e, ERR_BUSY, "the host's management agent (hostd) is busy or restarting: %s", text);
    } else {
        err_set(e, ERR_BUSY, "the host's management agent (hostd) is busy or restarting");
    }
    e->os = EAGAIN;
    return -1;
}

static int vim_words(struct host *h, unsigned tries, uint64_t timeout_ms, struct host_answer *a,
                     va_list words, struct err *e)
{
    struct bytes command = { .ceiling = HOST_COMMAND_MAX };
    const char *text;
    int rc = -1;

    *a = (struct host_answer){ 0 };
    if (shell_quote(&command, "/bin/vim-cmd", e) == 0 && add_words(&command, words, e) == 0 &&
        (text = bytes_text(&command, e)) != NULL)
        rc = vim_run(h, text, tries, timeout_ms, a, e);
    bytes_free(&command);
    return rc;
}

int host_vim(struct host *h, struct host_answer *a, uint64_t timeout_ms, struct err *e, ...)
{
    va_list words;
    int rc;

    va_start(words, e);
    rc = vim_words(h, HOST_TRIES, timeout_ms, a, words, e);
    va_end(words);
    return rc;
}

int host_vim_once(struct host *h, struct host_answer *a, uint64_t timeout_ms, struct err *e, ...)
{
    va_list words;
    int rc;

    va_start(words, e);
    rc = vim_words(h, 1, timeout_ms, a, words, e);
    va_end(words);
    return rc;
}

int host_read_file(struct host *h, const char *path, size_t most, struct host_answer *a,
                   struct err *e)
{
    char line[420];

    if (host_call(h, a, HOST_COMMAND_MS, e, "cat", path, NULL) != 0)
        return err_add(e, "%s", path);
    if (a->status == 0 && a->complaint_bytes == 0) {
        if (a->out_bytes <= most)
            return 0;
        err_set(e, ERR_LIMIT, "%s is longer than %zu bytes", path, most);
    } else {
        last_line(a->complaint, line, sizeof line);
        err_set(e,
                strstr(line, "No such file") != NULL              ? ERR_NOT_FOUND
                : strstr(line, "Device or resource busy") != NULL ? ERR_BUSY
                                                                  : ERR_SOURCE,
                "%s", line[0] != '\0' ? line : "cat failed");
        err_add(e, "%s", path);
    }
    host_answer_free(a);
    return -1;
}

/* One line of letters, digits and dashes, for an identity. */
static bool copy_id(char *out, size_t room, const char *text)
{
    size_t bytes = strspn(text, "0123456789abcdefABCDEF-");

    if (bytes < 8 || bytes >= room || (text[bytes] != '\0' && strchr("\r\n ", text[bytes]) == NULL))
        return false;
    memcpy(out, text, bytes);
    out[bytes] = '\0';
    return true;
}

static void copy_line(char *out, size_t room, const char *line)
{
    snprintf(out, room, "%.*s", (int)strcspn(line, "\r\n"), line);
}

/* "VMware ESXi 8.0.2 build-22380479" */
static void read_product(struct host *h, const char *line)
{
    const char *version = strstr(line, "ESXi ");
    const char *build = strstr(line, " build-");

    copy_line(h->product, sizeof h->product, line);
    if (version != NULL) {
        version += 5;
        snprintf(h->version, sizeof h->version, "%.*s", (int)strspn(version, "0123456789."),
                 version);
        h->version_major = (unsigned)strtoul(h->version, NULL, 10);
    }
    if (build != NULL) {
        build += 7;
        snprintf(h->build, sizeof h->build, "%.*s", (int)strspn(build, "0123456789"), build);
    }
}

int host_booted(struct host *h, int64_t *out, struct err *e)
{
    for (unsigned i = 0; i < HOST_TRIES; i++) {
        struct host_answer a;
        char *end;
        unsigned long long us;

        if (host_call(h, &a, HOST_COMMAND_MS, e, "/bin/esxcli", "system", "stats", "uptime", "get",
                      NULL) != 0)
            return -1;
        us = strtoull(a.out, &end, 10);
        if (a.status == 0 && end != a.out && (*end == '\n' || *end == '\0') &&
            us / 1000000 < INT64_MAX / 2) {
            *out = host_now(h) - (int64_t)(us / 1000000);
            host_answer_free(&a);
            return 0;
        }
        host_answer_free(&a);
        host_pause(h, 1000);
    }
    return err_set(e, ERR_SOURCE, "the host does not tell its uptime");
}

static int read_uuid(struct host *h, struct err *e)
{
    char line[200] = "";

    for (unsigned i = 0; i < HOST_TRIES; i++) {
        struct host_answer a;
        bool good;

        if (host_call(h, &a, HOST_COMMAND_MS, e, "/bin/esxcli", "system", "uuid", "get", NULL) != 0)
            return -1;
        good = a.status == 0 && copy_id(h->uuid, sizeof h->uuid, a.out);
        last_line(a.complaint_bytes > 0 ? a.complaint : a.out, line, sizeof line);
        host_answer_free(&a);
        if (good)
            return 0;
        host_pause(h, 1000);
    }
    return err_set(e, ERR_SOURCE, "the host does not tell its UUID: %s", line);
}

int host_identify(struct host *h, struct err *e)
{
    struct host_answer a;
    const char *line;

    if (host_run(h, "uname -s && /bin/vmware -vl", HOST_COMMAND_MS, &a, e) != 0)
        return -1;
    if (!starts(a.out, "VMkernel\n") || a.status != 0) {
        host_answer_free(&a);
        return err_set(
            e, ERR_UNSUPPORTED,
            "what answers at %s is no ESXi shell; enable it on the host (Troubleshooting "
            "Options in its console, or the services TSM and TSM-SSH) and log in as root",
            h->address);
    }
    line = next_line(a.out);
    if (line != NULL)
        read_product(h, line);
    line = line == NULL ? NULL : next_line(line);
    if (line != NULL)
        copy_line(h->level, sizeof h->level, line);
    host_answer_free(&a);
    if (h->version_major == 0)
        return err_set(e, ERR_UNSUPPORTED, "the host does not tell its version: \"%s\"",
                       h->product);
    if (read_uuid(h, e) != 0)
        return -1;
    return host_booted(h, &h->booted, e);
}
