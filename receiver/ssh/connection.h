/*
 * Inside of the libssh2 transport: one connection, its channels and its thread.  Nobody outside
 * receiver/ssh includes this.
 *
 *   tcp.c        reaching the host
 *   session.c    the libssh2 session on our send queue, key exchange, waiting during the login
 *   host_key.c   is it the host that it should be
 *   auth.c       logging in; auth_key.c: what a key file is
 *   pump.c       the thread: polling, keep-alive, end of the connection
 *   channel.c    one channel: opening, moving bytes both ways, its end
 *   libssh2_transport.c  the table of functions, called from other threads
 *
 * During the login the connection belongs to the thread in ssh_connect, afterwards to its own
 * thread. What others touch is named below and guarded by `lock`.
 */
#ifndef RECEIVER_SSH_CONNECTION_H
#define RECEIVER_SSH_CONNECTION_H

#include <libssh2.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/ssh/libssh2_transport.h"
#include "receiver/ssh/send_queue.h"
#include "receiver/ssh/transport.h"

enum {
    CHANNEL_WINDOW_BYTES = 8 << 20, /* read speed is bound by window / round trip */
    CHANNEL_PACKET_BYTES = 32768,   /* libssh2 refuses packets above 40000 */
    CHANNEL_BUFFER_BYTES = 256 << 10,
    CHANNEL_STDERR_MAX = 64 << 10,
    LOCAL_SOCKET_BYTES = 2 << 20,
    OPEN_TIMEOUT_MS = 60000,  /* for opening a channel and starting a command */
    CLOSE_TIMEOUT_MS = 30000, /* for the host to agree to the end of a channel */
    NAME_TEXT_MAX = 320       /* "user@host:port" in messages */
};

enum channel_state {
    CHANNEL_NEW,
    CHANNEL_OPENING,  /* libssh2 can open one at a time: connection.opening */
    CHANNEL_STARTING, /* the command was sent, the answer is awaited */
    CHANNEL_RUNNING,
    CHANNEL_FAILED, /* never ran; why is in failure */
    CHANNEL_ENDED   /* the host closed it and all output was delivered */
};

struct connection;
struct login;

/* One run of bytes between a socket and a channel. */
struct lane {
    uint8_t *data; /* CHANNEL_BUFFER_BYTES */
    size_t at;
    size_t count;
};

struct channel {
    struct connection *connection;

    /* The connection's thread only. */
    LIBSSH2_CHANNEL *ssh;
    char *command;
    int local;       /* our end of the socket pair; -1 when nobody listens any more */
    struct lane in;  /* local socket to command */
    struct lane out; /* command to local socket */
    bool local_eof;  /* the caller writes no more */
    bool eof_sent;
    bool out_dropped; /* the caller does not read: output is thrown away */
    bool out_ended;
    bool closing;
    uint64_t deadline_ms;
    struct pollfd *polled; /* of this round, NULL if not */

    /* Guarded by connection.lock. */
    enum channel_state state;
    bool released; /* the caller is done with it */
    struct err failure;
    struct remote_exit exit;
    struct bytes errors; /* standard error */
    uint64_t errors_dropped_bytes;
};

struct connection {
    struct transport transport; /* first: the public handle */

    /* Owned by the thread in charge (see above). */
    LIBSSH2_SESSION *session;
    /*
     * A session channel on which nothing ever runs.  Reading it moves all that has come from the
     * network into libssh2's packet list and answers the host, without opening the window of a
     * channel whose reader is slow: libssh2_channel_read on such a channel would, and memory would
     * grow.
     */
    LIBSSH2_CHANNEL *idle;
    int socket;
    struct send_queue out;
    int network_errno;   /* the first failure of the socket, 0 if none */
    bool network_ended;  /* the host closed the connection */
    struct login *login; /* while the host may ask questions */
    bool wipe_memory;    /* login: libssh2's buffers may hold the password */
    uint64_t sent_bytes; /* given to the queue */
    uint64_t received_bytes;
    uint64_t received_at_ms;
    uint64_t alive_since_ms; /* we want a sign of life, or have asked for it, since; 0: no */
    bool alive_asked;
    uint64_t alive_before_bytes; /* received_bytes then */
    struct channel *opening;
    unsigned keepalive_ms;
    unsigned silence_ms;
    char name[NAME_TEXT_MAX];

    int wake; /* eventfd; written by others */
    pthread_t thread;

    /* Guarded by lock. */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* any state below, or of a channel */
    struct channel *channels[SSH_CHANNELS_MAX];
    unsigned references; /* the transport and each unreleased process */
    bool stop;
    bool dead;     /* why tells */
    bool finished; /* the thread touches nothing any more */
    struct err why;
};

/* State of the login, on the stack of ssh_connect. */
struct login {
    struct connection *c;
    const struct ssh_options *o;
    struct bytes secret; /* the password while it is needed */
    bool secret_used;
    bool strange;        /* the host asked what a password does not answer */
    int callback_failed; /* a callback of the user failed; its error is in failure */
    struct err failure;
    unsigned key_attempts;
    bool rsa_refused; /* an RSA key was among those refused */
};

/* tcp.c: a connected, non-blocking socket in *out. */
int tcp_connect(int *out, const struct ssh_options *o, struct err *e);
/* The numeric local address of a socket. */
int tcp_local_address(int fd, char *out, size_t room, struct err *e);

/* session.c */
int session_open(struct connection *c, const struct ssh_options *o, const char *host_key_types,
                 struct err *e);
/* Wait for the network during the login.  -1: cut, ERR_STOPPED, or past deadline_ms (ERR_NETWORK).
 */
int session_wait(struct connection *c, const struct ssh_options *o, uint64_t deadline_ms,
                 struct err *e);
/* Turn the session's last error into ours: what names what was tried.  Returns -1. */
int session_error(struct connection *c, int rc, struct err *e, const char *what);
/* Open the idle channel. */
int session_open_idle(struct connection *c, const struct ssh_options *o, struct err *e);
/* Free the session, whatever state it is in; the socket is closed first. */
void session_free(struct connection *c);
void session_info(const struct ssh_options *o, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* host_key.c */
struct known_host;
int host_key_lookup(struct known_host *h, const struct ssh_options *o, struct err *e);
/* The value for LIBSSH2_METHOD_HOSTKEY: types known for the host first. */
void host_key_types(const struct known_host *h, bool legacy, char *out, size_t room);
int host_key_verify(struct connection *c, const struct known_host *h, const struct ssh_options *o,
                    struct err *e);

/* auth.c */
int auth_login(struct connection *c, const struct ssh_options *o, struct err *e);

/* auth_key.c */
struct key_file {
    const char *path;
    bool encrypted;
    bool rsa;
    uint8_t *blob; /* public half, NULL when not known */
    size_t blob_bytes;
};
int key_file_read(struct key_file *k, const char *path, struct err *e);
void key_file_free(struct key_file *k);

/* pump.c */
void *pump_run(void *connection);
void pump_wake(struct connection *c);
/* Mark the connection dead for the reason in why.  Called without the lock. */
void pump_die(struct connection *c, const struct err *why);

/* channel.c */
/* Takes a copy of command; *out belongs to the connection once it stands in its table. */
int channel_new(struct channel **out, struct connection *c, const char *command, int local,
                struct err *e);
void channel_free(struct channel *ch);
/* Which events to poll the local socket for; 0: none. */
short channel_events(const struct channel *ch);
/* Do what can be done now.  True when something moved. */
bool channel_step(struct channel *ch);
/* The thread ends: give up what only it may touch. */
void channel_abandon(struct channel *ch);

#endif
