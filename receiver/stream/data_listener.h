/*
 * The data port: takes the TCP connections that our agents dial back, and nobody else's.
 *
 * A peer is answered nothing until it has proved the session's secret for a connection that is
 * expected and was never used.  At most LISTENER_PENDING peers may be unproved at a time, each for
 * HANDSHAKE_MS; the oldest makes room for a new one.  A port has a thread, which does no disk I/O.
 */
#ifndef RECEIVER_STREAM_DATA_LISTENER_H
#define RECEIVER_STREAM_DATA_LISTENER_H

#include <stdint.h>

#include "protocol/wire/handshake.h"

struct data_listener;
struct data_ports;
struct err;

/*
 * Sessions that run side by side share their ports: what listens on an address is one socket, and
 * each peer is handed to the session that it proves.  Free it after all listeners.
 */
int data_ports_new(struct data_ports **out, struct err *e);
void data_ports_free(struct data_ports *p); /* NULL is allowed */

enum { LISTENER_PENDING = 16, LISTENER_EXPECTED_MAX = 64 };

struct data_listener_config {
    const char *address;                 /* numeric */
    uint16_t port;                       /* 0: the first free of 31031, 44046, 8000 */
    struct data_ports *ports;            /* shared with others; borrowed.  NULL: its own */
    const struct session_secret *secret; /* borrowed */
    uint8_t aead_set, mode_set;
    /*
     * A connection was proved.  Takes fd over when it returns 0.  From the listener's thread.
     */
    int (*proved)(void *context, int fd, const struct handshake_keys *keys);
    void *context;
};

/* 0, or -1: ERR_USAGE (no numeric address), ERR_BUSY (no port is free), ERR_SYSTEM. */
int data_listener_new(struct data_listener **out, const struct data_listener_config *config,
                      struct err *e);
void data_listener_free(struct data_listener *l); /* NULL is allowed */

uint16_t data_listener_port(const struct data_listener *l);

/* From now on connection may come, once. */
void data_listener_expect(struct data_listener *l, uint32_t connection);

/* It may not come any more: a late peer is closed. */
void data_listener_forget(struct data_listener *l, uint32_t connection);

/* Peers that were closed without an answer so far. */
uint64_t data_listener_strangers(struct data_listener *l);

/* Keep-alive and time-outs of a data connection: a dead host shows within 30 s. */
void data_socket_tune(int fd);

#endif
