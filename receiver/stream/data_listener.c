#include "receiver/stream/data_listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/base/net.h"
#include "protocol/stream/thread.h"
#include "receiver/base/failpoint.h"

/* Outgoing ports that ESXi's firewall leaves open on 6.7 (replication, vMotion); documented for 7
 * and 8. */
static const uint16_t usual_ports[] = { 31031, 44046, 8000 };

struct pending {
    int fd; /* -1: free */
    uint64_t since_ms;
    size_t count;
    uint8_t m1[HANDSHAKE_M1_BYTES];
};

/* What one session waits for on a port. */
struct data_listener {
    struct data_listener_config config;
    struct port *port;
    struct data_listener *next;               /* of the same port; guarded by its lock, as below */
    uint32_t expected[LISTENER_EXPECTED_MAX]; /* 0: free */
    bool answering;                           /* the port's thread is in one of our peers */
};

/* A socket that listens, for one or more sessions. */
struct port {
    struct data_ports *ports; /* NULL: of one listener alone */
    struct port *next;        /* guarded by ports */
    char *address;
    uint16_t wanted, number;
    size_t users; /* guarded by ports */
    int fd;
    int wake_fd[2];
    pthread_t thread;
    struct pending pending[LISTENER_PENDING]; /* the thread's */
    pthread_mutex_t lock;                     /* guards all below */
    pthread_cond_t answered;
    struct data_listener *listeners;
    uint64_t strangers;
    bool ending;
};

struct data_ports {
    pthread_mutex_t lock; /* guards all below; taken before that of a port */
    struct port *open;
};

void data_socket_tune(int fd)
{
    int on = 1, idle = 10, interval = 5, count = 3;
    unsigned timeout_ms = 30000;

    /* Each only makes a dead peer show sooner; a socket without them still works. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

static int listen_on(struct port *l, struct err *e)
{
    const uint16_t *ports = l->wanted != 0 ? &l->wanted : usual_ports;
    size_t count = l->wanted != 0 ? 1 : ARRAY_COUNT(usual_ports);
    struct sockaddr_storage a;
    socklen_t bytes;
    int on = 1;

    if (failpoint("listener.listen", e) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (net_address(l->address, ports[i], &a, &bytes, e) != 0)
            return err_add(e, "listening for data");
        l->fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (l->fd < 0)
            return err_sys(e, "making a socket");
        setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(l->fd, (struct sockaddr *)&a, bytes) == 0 &&
            listen(l->fd, LISTENER_PENDING) == 0) {
            l->number = ports[i];
            return 0;
        }
        if (errno != EADDRINUSE)
            return err_sys(e, "listening on %s port %u", l->address, ports[i]);
        io_drop(&l->fd);
    }
    return err_set(e, ERR_BUSY, "no data port is free on %s (--data-listen names another)",
                   l->address);
}

/* ---- peers ---- */

static void peer_close(struct port *l, struct pending *p)
{
    io_drop(&p->fd);
    pthread_mutex_lock(&l->lock);
    l->strangers++;
    pthread_mutex_unlock(&l->lock);
}

static void peers_accept(struct port *l)
{
    for (;;) {
        struct pending *place = &l->pending[0];
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0)
            return;
        for (size_t i = 0; i < LISTENER_PENDING && place->fd >= 0; i++)
            if (l->pending[i].fd < 0 || l->pending[i].since_ms < place->since_ms)
                place = &l->pending[i];
        if (place->fd >= 0)
            peer_close(l, place);
        *place = (struct pending){ .fd = fd, .since_ms = io_clock_ms() };
    }
}

/* Burn the number: whatever comes of this peer, it is not expected again.  With the lock held. */
static bool take_expected(struct data_listener *l, uint32_t connection)
{
    bool found = false;

    for (size_t i = 0; i < LISTENER_EXPECTED_MAX; i++)
        if (l->expected[i] == connection && connection != 0) {
            l->expected[i] = 0;
            found = true;
        }
    return found;
}

/* The session that an M1 claims; it stays while it is being answered.  NULL when there is none. */
static struct data_listener *claim(struct port *port, const uint8_t m1[HANDSHAKE_M1_BYTES])
{
    uint8_t id[SESSION_ID_BYTES];
    struct data_listener *l;

    if (!handshake_m1_session(m1, id))
        return NULL;
    pthread_mutex_lock(&port->lock);
    l = port->listeners;
    while (l != NULL && memcmp(l->config.secret->id, id, sizeof id) != 0)
        l = l->next;
    if (l != NULL)
        l->answering = true;
    pthread_mutex_unlock(&port->lock);
    return l;
}

static bool may_come(struct data_listener *l, uint32_t connection)
{
    bool may;

    pthread_mutex_lock(&l->port->lock);
    may = take_expected(l, connection);
    pthread_mutex_unlock(&l->port->lock);
    return may;
}

static void leave(struct data_listener *l)
{
    struct port *port = l->port;

    pthread_mutex_lock(&port->lock);
    l->answering = false;
    pthread_cond_broadcast(&port->answered);
    pthread_mutex_unlock(&port->lock);
}

static int answer_for(struct data_listener *l, struct pending *p)
{
    struct handshake_choice choice;
    struct handshake_offer offer;
    struct handshake_keys keys;
    uint8_t m2[HANDSHAKE_M2_BYTES];
    struct err e;
    int rc = -1;

    if (handshake_read_m1(l->config.secret, p->m1, &offer, &e) != 0 ||
        !may_come(l, offer.connection) ||
        handshake_choose(&offer, l->config.aead_set, l->config.mode_set, &choice, &e) != 0 ||
        handshake_answer(l->config.secret, p->m1, &choice, m2, &keys, &e) != 0)
        return -1;
    data_socket_tune(p->fd);
    if (failpoint("listener.proved", &e) == 0 && io_write_all(p->fd, m2, sizeof m2, &e) == 0)
        rc = l->config.proved(l->config.context, p->fd, &keys);
    if (rc == 0)
        p->fd = -1;
    handshake_keys_wipe(&keys);
    return rc;
}

/* A whole M1 is here.  0 when the peer is proved and handed on. */
static int peer_answer(struct port *port, struct pending *p)
{
    struct data_listener *l = claim(port, p->m1);
    int rc;

    if (l == NULL)
        return -1;
    rc = answer_for(l, p);
    leave(l);
    return rc;
}

static void peer_hear(struct port *l, struct pending *p)
{
    ssize_t n = read(p->fd, p->m1 + p->count, sizeof p->m1 - p->count);

    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n > 0)
        p->count += (size_t)n;
    if (n <= 0 || (p->count == sizeof p->m1 && peer_answer(l, p) != 0))
        peer_close(l, p);
}

static void *listener_main(void *context)
{
    struct port *l = context;
    struct pollfd fds[2 + LISTENER_PENDING];

    for (;;) {
        uint64_t now;
        bool ending;

        fds[0] = (struct pollfd){ .fd = l->wake_fd[0], .events = POLLIN };
        fds[1] = (struct pollfd){ .fd = l->fd, .events = POLLIN };
        for (size_t i = 0; i < LISTENER_PENDING; i++)
            fds[2 + i] = (struct pollfd){ .fd = l->pending[i].fd, .events = POLLIN };
        poll(fds, ARRAY_COUNT(fds), 1000);
        pthread_mutex_lock(&l->lock);
        ending = l->ending;
        pthread_mutex_unlock(&l->lock);
        if (ending)
            return NULL;
        now = io_clock_ms();
        for (size_t i = 0; i < LISTENER_PENDING; i++) {
            struct pending *p = &l->pending[i];

            if (p->fd < 0)
                continue;
            if (fds[2 + i].revents != 0)
                peer_hear(l, p);
            if (p->fd >= 0 && now - p->since_ms > HANDSHAKE_MS)
                peer_close(l, p);
        }
        if (fds[1].revents != 0)
            peers_accept(l);
    }
}

/* ---- the port ---- */

static void port_free(struct port *l)
{
    for (size_t i = 0; i < LISTENER_PENDING; i++)
        io_drop(&l->pending[i].fd);
    io_drop(&l->fd);
    io_drop(&l->wake_fd[0]);
    io_drop(&l->wake_fd[1]);
    pthread_cond_destroy(&l->answered);
    pthread_mutex_destroy(&l->lock);
    free(l->address);
    free(l);
}

static int port_new(struct port **out, const struct data_listener_config *config, struct err *e)
{
    struct port *l = calloc(1, sizeof *l);

    if (l == NULL)
        return err_sys(e, "getting memory for the data port");
    l->ports = config->ports;
    l->wanted = config->port;
    l->fd = l->wake_fd[0] = l->wake_fd[1] = -1;
    for (size_t i = 0; i < LISTENER_PENDING; i++)
        l->pending[i].fd = -1;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->answered, NULL);
    l->address = strdup(config->address);
    if (l->address == NULL) {
        err_sys(e, "getting memory for the data port");
        goto fail;
    }
    if (listen_on(l, e) != 0)
        goto fail;
    if (pipe2(l->wake_fd, O_CLOEXEC) != 0) {
        err_sys(e, "making a pipe");
        goto fail;
    }
    if (thread_start(&l->thread, listener_main, l, e) != 0)
        goto fail;
    *out = l;
    return 0;

fail:
    port_free(l);
    return -1;
}

static void port_end(struct port *l)
{
    pthread_mutex_lock(&l->lock);
    l->ending = true;
    pthread_mutex_unlock(&l->lock);
    io_drop(&l->wake_fd[1]); /* the thread's poll ends */
    pthread_join(l->thread, NULL);
    port_free(l);
}

/* --- shared ports --- */

int data_ports_new(struct data_ports **out, struct err *e)
{
    struct data_ports *p = calloc(1, sizeof *p);

    if (p == NULL)
        return err_sys(e, "getting memory for the data port");
    pthread_mutex_init(&p->lock, NULL);
    *out = p;
    return 0;
}

void data_ports_free(struct data_ports *p)
{
    if (p == NULL)
        return;
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static struct port *find_open(struct data_ports *ports, const struct data_listener_config *config)
{
    struct port *l = ports->open;

    while (l != NULL && (l->wanted != config->port || strcmp(l->address, config->address) != 0))
        l = l->next;
    return l;
}

static int take_port(struct port **out, const struct data_listener_config *config, struct err *e)
{
    struct data_ports *ports = config->ports;
    int rc = 0;

    if (ports == NULL)
        return port_new(out, config, e);
    pthread_mutex_lock(&ports->lock);
    *out = find_open(ports, config);
    if (*out == NULL) {
        rc = port_new(out, config, e);
        if (rc == 0) {
            (*out)->next = ports->open;
            ports->open = *out;
        }
    }
    if (rc == 0)
        (*out)->users++;
    pthread_mutex_unlock(&ports->lock);
    return rc;
}

/* The last one closes it. */
static void give_port(struct port *l)
{
    struct data_ports *ports = l->ports;

    if (ports == NULL) {
        port_end(l);
        return;
    }
    pthread_mutex_lock(&ports->lock);
    if (--l->users == 0) {
        struct port **at = &ports->open;

        while (*at != l)
            at = &(*at)->next;
        *at = l->next;
        port_end(l);
    }
    pthread_mutex_unlock(&ports->lock);
}

/* ---- life ---- */

int data_listener_new(struct data_listener **out, const struct data_listener_config *config,
                      struct err *e)
{
    struct data_listener *l = calloc(1, sizeof *l);

    if (l == NULL)
        return err_sys(e, "getting memory for the data port");
    l->config = *config;
    if (take_port(&l->port, config, e) != 0) {
        free(l);
        return -1;
    }
    pthread_mutex_lock(&l->port->lock);
    l->next = l->port->listeners;
    l->port->listeners = l;
    pthread_mutex_unlock(&l->port->lock);
    *out = l;
    return 0;
}

void data_listener_free(struct data_listener *l)
{
    struct data_listener **at;

    if (l == NULL)
        return;
    pthread_mutex_lock(&l->port->lock);
    for (at = &l->port->listeners; *at != l; at = &(*at)->next)
        ;
    *at = l->next;
    while (l->answering)
        pthread_cond_wait(&l->port->answered, &l->port->lock);
    pthread_mutex_unlock(&l->port->lock);
    give_port(l->port);
    free(l);
}

uint16_t data_listener_port(const struct data_listener *l)
{
    return l->port->number;
}

void data_listener_expect(struct data_listener *l, uint32_t connection)
{
    pthread_mutex_lock(&l->port->lock);
    for (size_t i = 0; i < LISTENER_EXPECTED_MAX; i++)
        if (l->expected[i] == 0) {
            l->expected[i] = connection;
            break;
        }
    pthread_mutex_unlock(&l->port->lock);
}

void data_listener_forget(struct data_listener *l, uint32_t connection)
{
    (void)may_come(l, connection);
}

uint64_t data_listener_strangers(struct data_listener *l)
{
    uint64_t n;

    pthread_mutex_lock(&l->port->lock);
    n = l->port->strangers;
    pthread_mutex_unlock(&l->port->lock);
    return n;
}
