#include "receiver/stream/transfer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "protocol/base/checked.h"
#include "protocol/base/io.h"
#include "protocol/block/hole_map.h"
#include "protocol/stream/serve.h"
#include "receiver/base/failpoint.h"
#include "receiver/stream/agent_session.h"

enum { TURN_MS = 200, TCP_TRIES = 2, TCP_TRIES_FORCED = 4, RENEWALS_IN_A_ROW = 3 };

/* A disk under way. */
struct lane {
    struct transfer_disk *disk;
    struct transfer *transfer;
    uint32_t number; /* of the disk, at the source end */
    struct sink_walk *walk;
    struct stream *stream; /* NULL: not started */
    uint32_t connection;
    unsigned tcp_failures;
    uint64_t opened_at; /* the position then */
    uint64_t began_ms;
};

struct transfer {
    const struct transfer_options *options;
    struct agent_session **session;
    struct lane *lanes;
    size_t count, active;
    bool tcp_works, tcp_dead;
};

static void notice(struct lane *l, enum transfer_notice kind, const char *text)
{
    if (l->transfer->options->notice != NULL)
        l->transfer->options->notice(l->transfer->options->context, l->disk, kind, text);
}

/* From the walk's thread. */
static void warned(void *context, const struct msg_warning *w)
{
    struct lane *l = context;
    char text[600];

    if (w->code == WARNING_HOLES_WRONG)
        __atomic_store_n(&l->disk->holes_wrong, true, __ATOMIC_RELAXED);
    if (w->code == WARNING_HINT_WRONG)
        __atomic_store_n(&l->disk->hint_wrong, true, __ATOMIC_RELAXED);
    snprintf(text, sizeof text, "%.*s (byte %" PRIu64 ")", (int)w->tail_bytes,
             (const char *)w->tail, w->offset_bytes);
    notice(l,
           w->code == WARNING_HOLES_WRONG  ? NOTICE_WRONG_MAP
           : w->code == WARNING_HINT_WRONG ? NOTICE_WRONG_HINT
                                           : NOTICE_WORTH_KNOWING,
           text);
}

/* ---- opening ---- */

static int disk_open(struct lane *l, struct err *e)
{
    struct transfer_disk *d = l->disk;
    struct agent_disk wanted = {
        .number = l->number,
        .format = d->format != 0 ? d->format : DISK_FLAT,
        .path = d->path,
        .since = d->since,
        .since_block = d->since != NULL ? d->sink->block_bytes : 0,
        .capacity_bytes = d->capacity_bytes,
    };
    struct msg_disk_opened opened;

    if (failpoint("transfer.disk-open", e) != 0 ||
        agent_session_disk_open(*l->transfer->session, &wanted, &opened, e) != 0)
        return -1;
    d->allocated_bytes = opened.allocated_bytes;
    if (opened.holes != HOLES_NONE || d->holes == NULL || d->holes->count == 0)
        return 0;
    if (agent_session_disk_holes(*l->transfer->session, l->number, d->holes, e) != 0)
        return -1;
    d->allocated_bytes = d->capacity_bytes - d->holes->zero_bytes;
    return 0;
}

/* Which connection the next opening takes. */
static int choose_connection(struct lane *l, struct err *e)
{
    struct transfer *t = l->transfer;
    bool forced = t->options->channel == CHANNEL_TCP;
    unsigned tries = forced ? TCP_TRIES_FORCED : TCP_TRIES;

    l->connection = CONTROL_CONNECTION;
    if (t->options->channel == CHANNEL_SSH || (t->tcp_dead && !forced) ||
        (l->tcp_failures >= tries && !forced))
        return 0;
    if (l->tcp_failures >= tries)
        return err_set(e, ERR_NETWORK, "the data channel over TCP failed %u times", tries);
    if (failpoint("transfer.dial", e) == 0 &&
        agent_session_dial(*t->session, &l->connection, e) == 0) {
        t->tcp_works = true;
        return 0;
    }
    if (!agent_session_alive(*t->session, NULL) || forced)
        return -1;
    l->connection = CONTROL_CONNECTION;
    l->tcp_failures = tries;
    if (!t->tcp_works) {
        char text[600];

        t->tcp_dead = true; /* the other disks need not wait for the same refusal */
        snprintf(text, sizeof text, "no TCP data channel (%s): data goes through SSH", e->text);
        notice(l, NOTICE_WORTH_KNOWING, text);
    }
    return 0;
}

static int lane_open(struct lane *l, struct err *e)
{
    struct transfer *t = l->transfer;
    size_t at_once = t->count < SERVE_DISKS_AT_ONCE ? t->count : SERVE_DISKS_AT_ONCE;
    struct msg_stream_open open = {
        .disk = l->number,
        .compress = t->options->compress,
        .rate_bytes = t->options->rate_bytes / at_once,
    };
    uint32_t id;

    if (t->options->rate_bytes != 0 && open.rate_bytes == 0)
        open.rate_bytes = 1;
    if (choose_connection(l, e) != 0)
        return -1;
    sink_walk_open(l->walk, &open);
    l->opened_at = open.from_bytes;
    open.connection = l->connection;
    if (open.from_bytes > 0)
        open.flags |= STREAM_NO_SAMPLE;
    if (l->disk->ignore_holes || __atomic_load_n(&l->disk->holes_wrong, __ATOMIC_RELAXED))
        open.flags |= STREAM_IGNORE_HOLES;
    id = agent_session_stream_number(*t->session);
    l->disk->over_tcp = l->connection != CONTROL_CONNECTION;
    if (sink_walk_start(l->walk, agent_session_streams(*t->session), id, l->connection, &l->stream,
                        e) != 0)
        return -1;
    if (failpoint("transfer.stream-open", e) != 0)
        return -1;
    return agent_session_stream_open(*t->session, id, &open, e);
}

static int pace(void *context, size_t payload_bytes, struct err *e)
{
    const struct lane *l = context;

    return l->transfer->options->pace(l->transfer->options->context, payload_bytes, e);
}

static int lane_begin(struct lane *l, struct err *e)
{
    struct sink_walk_config config = {
        .sink = l->disk->sink,
        .full = l->transfer->options->full,
        .window_bytes = l->transfer->options->window_bytes != 0 ? l->transfer->options->window_bytes
                                                                : TRANSFER_WINDOW_BYTES,
        .warn = warned,
        .pace = l->transfer->options->pace != NULL ? pace : NULL,
        .context = l,
    };

    l->began_ms = io_clock_ms();
    if (sink_walk_new(&l->walk, &config, e) != 0)
        return -1;
    l->transfer->active++;
    return disk_open(l, e);
}

/* ---- ending ---- */

static void lane_stop(struct lane *l)
{
    if (l->stream != NULL)
        stream_end(l->stream);
    l->stream = NULL;
    if (l->connection > CONTROL_CONNECTION && *l->transfer->session != NULL)
        hub_link_close(agent_session_streams(*l->transfer->session), l->connection);
    l->connection = CONTROL_CONNECTION;
}

static void lane_show(struct lane *l)
{
    sink_walk_totals(l->walk, &l->disk->totals);
    l->disk->ms = io_clock_ms() - l->began_ms;
    if (l->transfer->options->progress != NULL)
        l->transfer->options->progress(l->transfer->options->context, l->disk);
}

static void lane_finish(struct lane *l)
{
    lane_stop(l);
    l->disk->done = sink_walk_root(l->walk, &l->disk->root);
    lane_show(l);
    sink_walk_free(l->walk);
    l->walk = NULL;
    l->transfer->active--;
}

/* ---- trouble ---- */

/* The disks under way, in a session that is new. */
static int reopen_disks(struct transfer *t, struct err *e)
{
    for (size_t i = 0; i < t->count; i++) {
        t->lanes[i].tcp_failures = 0;
        if (t->lanes[i].walk != NULL && disk_open(&t->lanes[i], e) != 0)
            return -1;
    }
    return 0;
}

/* A new session for all lanes under way, or the end.  One that dies at once is replaced, too. */
static int renew_all(struct transfer *t, const struct err *why, struct err *e)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->lanes[i].walk != NULL)
            lane_stop(&t->lanes[i]);
    *e = *why;
    if (t->options->renew == NULL)
        return -1;
    for (unsigned i = 0; i < RENEWALS_IN_A_ROW; i++) {
        struct err cause = *e;

        if (t->options->renew(t->options->context, t->session, &cause, e) == 0 &&
            reopen_disks(t, e) == 0)
            return 0;
        if (e->code != ERR_NETWORK)
            return -1;
    }
    return -1;
}

/* An opening has failed: another one, another session, or the end. */
static int lane_trouble(struct lane *l, const struct err *why, struct err *e)
{
    struct transfer *t = l->transfer;
    struct err control;
    bool over_tcp = l->connection > CONTROL_CONNECTION;
    bool link_dead = hub_link(agent_session_streams(*t->session), l->connection) == NULL;
    char text[600];

    sink_walk_totals(l->walk, &l->disk->totals);
    if (l->disk->totals.openings > TRANSFER_REOPENINGS_MAX) {
        *e = *why;
        return -1;
    }
    if (!agent_session_alive(*t->session, &control))
        return renew_all(t, &control, e);
    if (!over_tcp && why->code == ERR_NETWORK)
        return renew_all(t, why, e);
    if (!over_tcp || (!link_dead && why->code != ERR_NETWORK)) {
        *e = *why;
        return -1;
    }
    /* A connection that brought the disk on was a good one. */
    if (l->disk->totals.position_bytes > l->opened_at && t->options->channel == CHANNEL_TCP)
        l->tcp_failures = 0;
    l->tcp_failures++;
    lane_stop(l);
    snprintf(text, sizeof text, "the data connection died at byte %" PRIu64 " (%s): opened again",
             l->disk->totals.position_bytes, why->text);
    notice(l, NOTICE_WORTH_KNOWING, text);
    return 0;
}

/* ---- run ---- */

/* One look at a lane.  -1 when the transfer is over. */
static int lane_look(struct lane *l, struct err *e)
{
    struct err why = { 0 };

    if (l->disk->done)
        return 0;
    if (l->walk == NULL) {
        if (l->transfer->active >= SERVE_DISKS_AT_ONCE)
            return 0;
        if (lane_begin(l, e) != 0) {
            why = *e;
            return agent_session_alive(*l->transfer->session, NULL)
                       ? -1
                       : renew_all(l->transfer, &why, e);
        }
    }
    if (l->stream == NULL) {
        if (lane_open(l, &why) == 0)
            return 0;
        if (l->stream != NULL || !agent_session_alive(*l->transfer->session, NULL))
            return lane_trouble(l, &why, e);
        *e = why; /* no way to open one is left */
        return -1;
    }
    switch (stream_state(l->stream, &why)) {
    case STREAM_RUNNING:
        lane_show(l);
        return 0;
    case STREAM_DONE:
        lane_finish(l);
        return 0;
    default:
        return lane_trouble(l, &why, e);
    }
}

static int transfer_loop(struct transfer *t, struct err *e)
{
    for (;;) {
        struct lane *running = NULL;
        size_t left = 0;

        for (size_t i = 0; i < t->count; i++) {
            struct lane *l = &t->lanes[i];

            if (lane_look(l, e) != 0) {
                l->disk->why = *e;
                return err_add(e, "disk %s", l->disk->name);
            }
            if (!l->disk->done)
                left++;
        }
        if (left == 0)
            return 0;
        if (t->options->watch != NULL && t->options->watch(t->options->context, e) != 0)
            return -1;
        /* Only now: trouble with one lane may have stopped others. */
        for (size_t i = 0; i < t->count && running == NULL; i++)
            if (t->lanes[i].stream != NULL)
                running = &t->lanes[i];
        if (running != NULL)
            stream_wait(running->stream, TURN_MS, NULL);
    }
}

int transfer_run(struct agent_session **a, struct transfer_disk *disks, size_t count,
                 const struct transfer_options *options, struct err *e)
{
    struct transfer t = { .options = options, .session = a, .count = count };
    int rc;

    t.lanes = calloc(count > 0 ? count : 1, sizeof *t.lanes);
    if (t.lanes == NULL)
        return err_sys(e, "getting memory for a transfer");
    for (size_t i = 0; i < count; i++) {
        t.lanes[i].disk = &disks[i];
        t.lanes[i].transfer = &t;
        t.lanes[i].number = (uint32_t)i + 1;
        t.lanes[i].connection = CONTROL_CONNECTION;
    }
    rc = transfer_loop(&t, e);
    for (size_t i = 0; i < count; i++)
        if (t.lanes[i].walk != NULL) {
            lane_stop(&t.lanes[i]);
            sink_walk_totals(t.lanes[i].walk, &disks[i].totals);
            sink_walk_free(t.lanes[i].walk);
        }
    free(t.lanes);
    return rc;
}
