/*
 * A transport without a host: commands are looked up in a script and answered from memory, and what
 * was run is written down.  For tests of the layers above.
 */
#ifndef TESTS_UNIT_SSH_MEMORY_TRANSPORT_H
#define TESTS_UNIT_SSH_MEMORY_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "receiver/ssh/transport.h"

struct memory_transport;

/* One answer.  The first unused one that fits a command is taken; one with `always` is never used
 * up. */
struct memory_answer {
    const char *command; /* the whole command, or its beginning */
    bool prefix;
    bool always;
    const char *out;    /* standard output; NULL: none */
    size_t out_bytes;   /* 0: out is text */
    const char *errors; /* standard error, text; NULL: none */
    int status;
    const char *signal; /* not NULL: ended by this signal */
    bool cut;           /* the connection dies after out was sent */
};

/* The answers are copied, what they point to is borrowed.  A command without an answer ends with
 * 127. */
struct memory_transport *memory_transport_new(const struct memory_answer *answers, size_t count);
void memory_transport_add(struct memory_transport *m, const struct memory_answer *answer);

/* Closing it with ops->close, or freeing it: the record of commands goes too. */
struct transport *memory_transport_base(struct memory_transport *m);
void memory_transport_free(struct memory_transport *m);

/* What was run, in order; index from 0; NULL past the end. */
size_t memory_transport_count(const struct memory_transport *m);
const char *memory_transport_command(const struct memory_transport *m, size_t index);
/* What command index got on its standard input (complete once it was waited for). */
const void *memory_transport_input(const struct memory_transport *m, size_t index, size_t *count);
/* How many answers that are not `always` were never used. */
size_t memory_transport_unused(const struct memory_transport *m);

#endif
