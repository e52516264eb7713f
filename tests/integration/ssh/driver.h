/*
 * The program that ssh_test.py runs against a real sshd: one case per call, named on the command
 * line. It prints one line, "ok" or "CODE: text", and ends with 0 when the case held.
 */
#ifndef TESTS_INTEGRATION_SSH_DRIVER_H
#define TESTS_INTEGRATION_SSH_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "protocol/base/err.h"
#include "receiver/ssh/libssh2_transport.h"
#include "receiver/ssh/transport.h"

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #what);                                      \
            fflush(stdout);                                                                        \
            _Exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* A call that must succeed. */
#define CALL(what, e)                                                                              \
    do {                                                                                           \
        if ((what) != 0) {                                                                         \
            printf("%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #what, err_code_name((e)->code),     \
                   (e)->text);                                                                     \
            fflush(stdout);                                                                        \
            _Exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* Cases get an open transport and close it themselves. */
void case_commands(struct transport *t);
void case_channels(struct transport *t);
void case_duplex(struct transport *t, unsigned channels, size_t bytes);
void case_slow_reader(struct transport *t);
void case_upload(struct transport *t, const char *folder);
void case_idle(struct transport *t, unsigned seconds);
void case_cut(struct transport *t);
void case_close_while_busy(struct transport *t);

#endif
