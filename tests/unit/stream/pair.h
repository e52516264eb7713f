/* Two sessions in one process, joined by socket pairs: a source end that serves, and a sink end. */
#ifndef TESTS_UNIT_STREAM_PAIR_H
#define TESTS_UNIT_STREAM_PAIR_H

#include <pthread.h>

#include "protocol/base/err.h"
#include "protocol/stream/serve.h"
#include "protocol/stream/sink_walk.h"

enum { PAIR_DISKS = 4 };

struct pair {
    struct hub *sink_end, *source_end;
    struct serve *serve;
    struct source *disks[PAIR_DISKS]; /* what disk_open finds, by number */
    pthread_t sink_loop, source_loop;
    struct session_secret secret;
    uint32_t next_stream, next_connection;
    int quitting;
    /* answers to the one request in flight */
    pthread_mutex_t lock;
    pthread_cond_t answered;
    int answer; /* 0: none yet, 1: done, -1: failed */
    struct err why;
};

/* workers: of both ends; 0 runs each end in its loop thread alone. */
void pair_start(struct pair *p, unsigned workers, uint64_t stall_ms);
/* The same with a source end that does as it likes: its handler in place of `serve`. */
void pair_start_with(struct pair *p, unsigned workers, uint64_t stall_ms,
                     const struct hub_handler *handler, void *context);
void pair_stop(struct pair *p);

/* Another connection; returns its number.  cut_fd, if given, is a duplicate to shut it down with. */
uint32_t pair_connect(struct pair *p, int *cut_fd);

/* Open disk `number` at the source end.  0, or -1 with p->why. */
int pair_disk_open(struct pair *p, uint32_t number, uint64_t capacity);

/* One opening of a walk over a connection, up to its end. */
enum stream_state pair_run(struct pair *p, uint32_t disk, uint32_t connection, struct sink_walk *w,
                           struct msg_stream_open open, struct err *why);

#endif
