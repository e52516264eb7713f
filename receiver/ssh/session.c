#include "receiver/ssh/connection.h"

#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/io.h"

/*
 * Ciphers and MACs in order of preference; what this libssh2 does not know is left out by it.
 * Key exchanges stay as libssh2 has them: setting them would drop its strict-kex mark.
 */
static const char ciphers_modern[] =
    "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,"
    "aes256-ctr,aes192-ctr,aes128-ctr";
static const char ciphers_legacy[] =
    "aes256-ctr,aes192-ctr,aes128-ctr,aes256-cbc,aes192-cbc,aes128-cbc,3des-cbc";
static const char macs[] = "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,"
                           "hmac-sha2-256,hmac-sha2-512,hmac-sha1";

static LIBSSH2_ALLOC_FUNC(wiping_alloc)
{
    (void)abstract;
    return malloc(count);
}

static LIBSSH2_FREE_FUNC(wiping_free)
{
    struct connection *c = *abstract;

    if (ptr != NULL && c->wipe_memory)
        explicit_bzero(ptr, malloc_usable_size(ptr));
    free(ptr);
}

static LIBSSH2_REALLOC_FUNC(wiping_realloc)
{
    struct connection *c = *abstract;
    size_t had;
    void *moved;

    if (ptr == NULL || !c->wipe_memory)
        return realloc(ptr, count);
    had = malloc_usable_size(ptr);
    moved = malloc(count);
    if (moved == NULL)
        return NULL;
    memcpy(moved, ptr, had < count ? had : count);
    wiping_free(ptr, abstract);
    return moved;
}

static ssize_t blocking_send(int fd, const void *data, size_t count, int flags)
{
    ssize_t n;

    do
        n = send(fd, data, count, flags | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t blocking_recv(int fd, void *data, size_t count, int flags)
{
    ssize_t n;

    do
        n = recv(fd, data, count, flags);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static LIBSSH2_SEND_FUNC(queue_send)
{
    struct connection *c = *abstract;
    int rc;

    /* libssh2 talks to ssh-agent through the same two functions: there a plain call is right. */
    if (socket != c->socket)
        return blocking_send(socket, buffer, length, flags);
    if (c->network_errno != 0)
        return -EPIPE;
    rc = send_queue_put(&c->out, socket, buffer, length);
    if (rc != 0) {
        c->network_errno = -rc;
        return -EPIPE;
    }
    c->sent_bytes += length;
    return (ssize_t)length;
}

static LIBSSH2_RECV_FUNC(counted_recv)
{
    struct connection *c = *abstract;
    ssize_t n;

    if (socket != c->socket)
        return blocking_recv(socket, buffer, length, flags);
    if (c->network_errno != 0 || c->network_ended)
        return -ECONNRESET;
    n = recv(socket, buffer, length, flags | MSG_DONTWAIT);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return -EAGAIN;
        c->network_errno = errno;
        return -errno;
    }
    if (n == 0) {
        c->network_ended = true;
        return 0;
    }
    c->received_bytes += (uint64_t)n;
    c->received_at_ms = io_clock_ms();
    return n;
}

void session_info(const struct ssh_options *o, const char *format, ...)
{
    char line[1024];
    va_list args;

    if (o->info == NULL)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    o->info(o->context, line);
}

int session_wait(struct connection *c, const struct ssh_options *o, uint64_t deadline_ms,
                 struct err *e)
{
    struct pollfd p[2] = { { .fd = c->socket, .events = POLLIN },
                           { .fd = o->cancel_fd, .events = POLLIN } };
    uint64_t now = io_clock_ms();
    int rc = send_queue_flush(&c->out, c->socket);

    if (rc != 0) {
        errno = -rc;
        err_sys(e, "sending");
        if (e != NULL)
            e->code = ERR_NETWORK;
        return -1;
    }
    if (now >= deadline_ms) {
        err_set(e, ERR_NETWORK, "the host did not answer in time");
        if (e != NULL)
            e->os = ETIMEDOUT;
        return -1;
    }
    if (c->out.count > 0)
        p[0].events |= POLLOUT;
    if (poll(p, 2, (int)(deadline_ms - now)) < 0 && errno != EINTR)
        return err_sys(e, "waiting for the host");
    if (p[1].revents != 0)
        return err_set(e, ERR_STOPPED, "stopped during the login");
    return 0;
}

int session_error(struct connection *c, int rc, struct err *e, const char *what)
{
    char *text = NULL;

    libssh2_session_last_error(c->session, &text, NULL, 0);
    if (c->network_errno != 0)
        return err_set(e, ERR_NETWORK, "%s: %s", what, strerror(c->network_errno));
    if (c->network_ended)
        return err_set(e, ERR_NETWORK, "%s: the host closed the connection", what);
    switch (rc) {
    case LIBSSH2_ERROR_KEX_FAILURE:
    case LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE:
    case LIBSSH2_ERROR_METHOD_NONE:
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: libssh2 %s and the host have no algorithms in common (%d%s%s); before "
            "libssh2 1.11 an RSA host key needs ssh-rsa, and neither GCM ciphers nor EtM MACs "
            "are known: use libssh2 1.11 or later (Debian 13), or give the host an ECDSA key "
            "and AES-CTR",
            what, libssh2_version(0), rc, text != NULL ? " " : "", text != NULL ? text : "");
    case LIBSSH2_ERROR_AUTHENTICATION_FAILED:
        return err_set(e, ERR_AUTH, "%s: refused by the host", what);
    case LIBSSH2_ERROR_CHANNEL_FAILURE:
        return err_set(e, ERR_LIMIT,
                       "%s: the host opens no further session (MaxSessions of its sshd?)", what);
    case LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED:
        return err_set(e, ERR_REFUSED, "%s: the host refused to run a command", what);
    case LIBSSH2_ERROR_ALLOC:
        return err_set(e, ERR_SYSTEM, "%s: no memory", what);
    default:
        return err_set(e, ERR_NETWORK, "%s: %s (libssh2 %s, error %d)", what,
                       text != NULL && text[0] != 0 ? text : "the connection failed",
                       libssh2_version(0), rc);
    }
}

/* Handshake failures that are no disagreement about algorithms. */
static int handshake_error(struct connection *c, int rc, struct err *e)
{
    if (rc == LIBSSH2_ERROR_BANNER_RECV && !c->network_ended && c->network_errno == 0)
        return err_set(e, ERR_NETWORK, "what answers there is no SSH server");
    if (rc == LIBSSH2_ERROR_KEX_FAILURE) {
        /*
         * The host hangs up as well when it finds no common algorithm.  Behind the agreement
         * (KEY_EXCHANGE_FAILURE) an end of the connection is no more than that.
         */
        c->network_ended = false;
        c->network_errno = 0;
    }
    return session_error(c, rc, e, "key exchange");
}

/* Is the word at the start of list, which ends at a comma, one of names? */
static bool is_supported(const char *list, const char *const *names, int count)
{
    size_t length = strcspn(list, ",");

    for (int i = 0; i < count; i++)
        if (strlen(names[i]) == length && strncmp(names[i], list, length) == 0)
            return true;
    return false;
}

/*
 * What this libssh2 does not know is left out here: it would do so itself, but by memcpy between
 * overlapping places (seen in 1.10 with the address sanitizer).
 */
static int prefer(struct connection *c, int method, const char *list, struct err *e)
{
    const char **names = NULL;
    int count = libssh2_session_supported_algs(c->session, method, &names);
    char known[1024] = "";
    size_t at = 0;
    int rc;

    if (count < 0)
        return err_set(e, ERR_SYSTEM, "libssh2 does not tell its algorithms (%d)", count);
    for (const char *word = list; word != NULL; word = strchr(word, ',')) {
        int length;

        word += *word == ',';
        if (!is_supported(word, names, count))
            continue;
        length = snprintf(known + at, sizeof known - at, "%s%.*s", at > 0 ? "," : "",
                          (int)strcspn(word, ","), word);
        at += (size_t)length;
        if (at >= sizeof known)
            break;
    }
    libssh2_free(c->session, (void *)names);
    if (at == 0 || at >= sizeof known)
        return err_set(e, ERR_UNSUPPORTED, "libssh2 %s knows none of: %s", libssh2_version(0),
                       list);
    rc = libssh2_session_method_pref(c->session, method, known);
    return rc == 0 ? 0 : err_set(e, ERR_SYSTEM, "libssh2 refuses its own algorithms (%d)", rc);
}

static void set_callbacks(LIBSSH2_SESSION *session)
{
#if LIBSSH2_VERSION_NUM >= 0x010b01
    libssh2_session_callback_set2(session, LIBSSH2_CALLBACK_SEND, (libssh2_cb_generic *)queue_send);
    libssh2_session_callback_set2(session, LIBSSH2_CALLBACK_RECV,
                                  (libssh2_cb_generic *)counted_recv);
#else
/* Older ones take functions as void *, which ISO C does not know. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
    libssh2_session_callback_set(session, LIBSSH2_CALLBACK_SEND, (void *)queue_send);
    libssh2_session_callback_set(session, LIBSSH2_CALLBACK_RECV, (void *)counted_recv);
#pragma GCC diagnostic pop
#endif
}

int session_open(struct connection *c, const struct ssh_options *o, const char *host_key_types,
                 struct err *e)
{
    uint64_t deadline_ms = io_clock_ms() + o->timeout_ms;
    const char *ciphers = o->legacy ? ciphers_legacy : ciphers_modern;
    int rc;

    if (o->ciphers != NULL)
        ciphers = o->ciphers;
    c->session = libssh2_session_init_ex(wiping_alloc, wiping_free, wiping_realloc, c);
    if (c->session == NULL)
        return err_set(e, ERR_SYSTEM, "no memory for a session");
    set_callbacks(c->session);
    libssh2_session_set_blocking(c->session, 0);
    if (prefer(c, LIBSSH2_METHOD_HOSTKEY, host_key_types, e) != 0 ||
        prefer(c, LIBSSH2_METHOD_CRYPT_CS, ciphers, e) != 0 ||
        prefer(c, LIBSSH2_METHOD_CRYPT_SC, ciphers, e) != 0 ||
        prefer(c, LIBSSH2_METHOD_MAC_CS, macs, e) != 0 ||
        prefer(c, LIBSSH2_METHOD_MAC_SC, macs, e) != 0)
        return -1;

    while ((rc = libssh2_session_handshake(c->session, c->socket)) == LIBSSH2_ERROR_EAGAIN)
        if (session_wait(c, o, deadline_ms, e) != 0)
            return err_add(e, "key exchange");
    if (rc != 0)
        return handshake_error(c, rc, e);
    /* 1 asks for an answer: that is what proves life.  pump.c decides when. */
    libssh2_keepalive_config(c->session, 1, 2);
    return 0;
}

int session_open_idle(struct connection *c, const struct ssh_options *o, struct err *e)
{
    uint64_t deadline_ms = io_clock_ms() + o->timeout_ms;

    for (;;) {
        int rc;

        c->idle = libssh2_channel_open_ex(c->session, "session", 7, CHANNEL_PACKET_BYTES * 4,
                                          CHANNEL_PACKET_BYTES, NULL, 0);
        if (c->idle != NULL)
            return 0;
        rc = libssh2_session_last_errno(c->session);
        if (rc != LIBSSH2_ERROR_EAGAIN)
            return session_error(c, rc, e, "opening a session");
        if (session_wait(c, o, deadline_ms, e) != 0)
            return err_add(e, "opening a session");
    }
}

void session_free(struct connection *c)
{
    if (c->session == NULL)
        return;
    /* With the network gone nothing in libssh2 waits any more; the bound is only for its bugs. */
    c->network_ended = true;
    c->network_errno = EPIPE;
    for (int i = 0; i < 1000; i++)
        if (libssh2_session_free(c->session) != LIBSSH2_ERROR_EAGAIN)
            break;
    c->session = NULL;
    c->idle = NULL;
}
