#include "protocol/stream/serve.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/block/hole_map.h"
#include "protocol/block/source.h"
#include "protocol/stream/source_walk.h"

struct disk {
    bool in_use;
    uint32_t number;
    unsigned streams;
    struct source *source;
    struct hole_map holes; /* while it is being told */
    bool holes_told;       /* once is enough */
};

/* What a stream's walk is part of. */
struct served {
    struct source_walk *walk;
    struct stream *stream;
    struct disk *disk;
    uint32_t connection;
};

struct serve {
    struct serve_config config;
    struct disk disks[SERVE_DISKS_MAX];
    struct served streams[SERVE_STREAMS_MAX];
    struct {
        uint32_t connection, request;
    } dials[HUB_LINKS_MAX]; /* 0: free */
    bool quits;
};

int serve_new(struct serve **out, const struct serve_config *config, struct err *e)
{
    struct serve *v = calloc(1, sizeof *v);

    if (v == NULL)
        return err_sys(e, "getting memory");
    v->config = *config;
    *out = v;
    return 0;
}

static void disk_drop(struct disk *d)
{
    source_close(d->source);
    hole_map_free(&d->holes);
    *d = (struct disk){ 0 };
}

static void served_drop(struct served *sv)
{
    stream_end(sv->stream);
    source_walk_free(sv->walk);
    sv->disk->streams--;
    *sv = (struct served){ 0 };
}

void serve_free(struct serve *v)
{
    if (v == NULL)
        return;
    for (size_t i = 0; i < SERVE_STREAMS_MAX; i++)
        if (v->streams[i].stream != NULL)
            served_drop(&v->streams[i]);
    for (size_t i = 0; i < SERVE_DISKS_MAX; i++)
        if (v->disks[i].in_use)
            disk_drop(&v->disks[i]);
    free(v);
}

bool serve_quits(const struct serve *v)
{
    return v->quits;
}

/* ---- answers ---- */

/* Where answers go; NULL when it died in this very turn of the loop, while others still speak. */
static struct link *control_link(struct hub *s, struct err *e)
{
    struct link *l = hub_link(s, CONTROL_CONNECTION);

    if (l == NULL)
        err_set(e, ERR_NETWORK, "the control connection is gone");
    return l;
}

static int answer_done(struct hub *s, uint32_t request, struct err *e)
{
    struct msg_done done = { .request = request };
    struct link *l = control_link(s, e);

    return l == NULL ? -1 : link_send_done(l, 0, &done, e);
}

static int answer_failed(struct link *l, uint32_t stream, uint32_t request, const struct err *why,
                         struct err *e)
{
    struct msg_failed failed = {
        .request = request,
        .code = (uint16_t)why->code,
        .os = (uint32_t)why->os,
        .tail = (const uint8_t *)why->text,
        .tail_bytes = strlen(why->text),
    };

    return link_send_failed(l, stream, &failed, e);
}

static int answer(struct hub *s, uint32_t request, int rc, const struct err *why, struct err *e)
{
    struct link *l;

    if (rc == 0)
        return answer_done(s, request, e);
    l = control_link(s, e);
    return l == NULL ? -1 : answer_failed(l, 0, request, why, e);
}

/* ---- disks ---- */

static struct disk *disk_of(struct serve *v, uint32_t number)
{
    for (size_t i = 0; i < SERVE_DISKS_MAX; i++)
        if (v->disks[i].in_use && v->disks[i].number == number)
            return &v->disks[i];
    return NULL;
}

static struct disk *disk_new(struct serve *v, uint32_t number, struct err *e)
{
    if (disk_of(v, number) != NULL) {
        err_set(e, ERR_PEER, "disk %" PRIu32 " is open already", number);
        return NULL;
    }
    for (size_t i = 0; i < SERVE_DISKS_MAX; i++)
        if (!v->disks[i].in_use) {
            v->disks[i] = (struct disk){ .in_use = true, .number = number };
            return &v->disks[i];
        }
    err_set(e, ERR_LIMIT, "too many open disks");
    return NULL;
}

static int hear_disk_open(struct serve *v, struct hub *s, const uint8_t *body, size_t body_bytes,
                          struct err *e)
{
    struct msg_disk_opened opened = { 0 };
    enum hole_knowledge holes = HOLES_NONE;
    struct msg_disk_open m;
    struct link *l = control_link(s, e);
    struct err why;
    struct disk *d;

    if (l == NULL)
        return -1;
    if (msg_disk_open_decode(&m, body, body_bytes, e) != 0)
        return -1;
    d = disk_new(v, m.disk, &why);
    if (d == NULL)
        return answer(s, m.request, -1, &why, e);
    if (v->config.disk_open(v->config.context, &m, &d->source, &holes, &why) != 0) {
        disk_drop(d);
        return answer(s, m.request, -1, &why, e);
    }
    opened.request = m.request;
    opened.capacity_bytes = d->source->capacity_bytes;
    opened.allocated_bytes = d->source->allocated_bytes;
    opened.holes = (uint8_t)holes;
    return link_send_disk_opened(l, 0, &opened, e);
}

static int hear_volume(struct serve *v, struct hub *s, const uint8_t *body, size_t body_bytes,
                       struct err *e)
{
    struct msg_volume m;
    char *path, *alias;
    struct err why;
    size_t length;
    int rc;

    if (msg_volume_decode(&m, body, body_bytes, e) != 0)
        return -1;
    path = calloc(1, m.tail_bytes + 2); /* ends both names */
    if (path == NULL)
        return err_sys(e, "getting memory for a name");
    memcpy(path, m.tail, m.tail_bytes);
    length = strlen(path);
    alias = path + length + 1;
    if (v->config.volume == NULL)
        rc = err_set(&why, ERR_UNSUPPORTED, "this end opens no chains");
    else if (length < m.tail_bytes && length + 1 + strlen(alias) != m.tail_bytes)
        rc = err_set(&why, ERR_PEER, "a volume of more than two names");
    else
        rc = v->config.volume(v->config.context, path, alias[0] != 0 ? alias : NULL, &why);
    free(path);
    return answer(s, m.request, rc, &why, e);
}

static int add_holes(struct disk *d, const struct msg_disk_holes *m, struct err *e)
{
    struct pull p = { .at = m->tail, .left = m->tail_bytes };
    struct source *wrapped;

    while (p.left > 0) {
        uint64_t offset = pull_u64(&p), length = pull_u64(&p);

        if (p.spent)
            return err_set(e, ERR_PEER, "half a hole");
        if (hole_map_add(&d->holes, offset, length, e) != 0)
            return -1;
    }
    if (m->last == 0)
        return 0;
    if (hole_source_new(&wrapped, d->source, &d->holes, e) != 0)
        return -1;
    d->source = wrapped;
    d->holes_told = true;
    return 0;
}

static int hear_disk_holes(struct serve *v, struct hub *s, const uint8_t *body, size_t body_bytes,
                           struct err *e)
{
    struct msg_disk_holes m;
    struct disk *d;
    struct err why;
    int rc = 0;

    if (msg_disk_holes_decode(&m, body, body_bytes, e) != 0)
        return -1;
    d = disk_of(v, m.disk);
    if (d == NULL || d->streams > 0 || d->holes_told)
        rc = err_set(&why, ERR_PEER, "disk %" PRIu32 " takes no holes now", m.disk);
    else
        rc = add_holes(d, &m, &why);
    return answer(s, m.request, rc, &why, e);
}

/* ---- streams ---- */

static int start_stream(struct serve *v, struct hub *s, uint32_t id,
                        const struct msg_stream_open *m, struct err *e)
{
    struct source_walk_config config = { .open = m, .pool = hub_pool(s) };
    struct served *sv = NULL;
    size_t standing = 0;

    for (size_t i = SERVE_STREAMS_MAX; i > 0; i--) {
        if (v->streams[i - 1].stream == NULL)
            sv = &v->streams[i - 1];
        else
            standing++;
    }
    if (sv == NULL)
        return err_set(e, ERR_LIMIT, "too many streams");
    sv->disk = disk_of(v, m->disk);
    if (sv->disk == NULL)
        return err_set(e, ERR_PEER, "disk %" PRIu32 " is not open", m->disk);
    config.source = sv->disk->source;
    config.memory_bytes = v->config.memory_bytes / SERVE_DISKS_AT_ONCE;
    /* Beside that; the full size for as many as run unless connections hang. */
    config.window_bytes = v->config.memory_bytes / (standing < SERVE_DISKS_AT_ONCE ? 6 : 24);
    if (source_walk_new(&sv->walk, &config, e) != 0)
        return -1;
    sv->connection = m->connection;
    if (stream_start(s, id, m->connection, &source_walk_ops, sv->walk, SOURCE_WALK_INBOX_BYTES, 0,
                     &sv->stream, e) != 0) {
        source_walk_free(sv->walk);
        *sv = (struct served){ 0 };
        return -1;
    }
    sv->disk->streams++;
    return 0;
}

static int hear_stream_open(struct serve *v, struct hub *s, uint32_t id, const uint8_t *body,
                            size_t body_bytes, struct err *e)
{
    struct msg_stream_open m;
    struct err why;
    int rc;

    if (msg_stream_open_decode(&m, body, body_bytes, e) != 0)
        return -1;
    serve_tend(v, s);
    rc = start_stream(v, s, id, &m, &why);
    return answer(s, m.request, rc, &why, e);
}

void serve_tend(struct serve *v, struct hub *s)
{
    struct stream *ended;

    while ((ended = hub_ended_stream(s)) != NULL) {
        struct err why, e;
        enum stream_state state = stream_state(ended, &why);
        uint32_t id = stream_id(ended);

        for (size_t i = 0; i < SERVE_STREAMS_MAX; i++) {
            struct served *sv = &v->streams[i];
            struct link *l;

            if (sv->stream != ended)
                continue;
            l = hub_link(s, sv->connection);
            served_drop(sv);
            if (state == STREAM_FAILED && l != NULL)
                answer_failed(l, id, 0, &why, &e); /* a failure here shows on the link */
        }
    }
}

/* ---- links ---- */

static int hear_dial(struct serve *v, struct hub *s, const uint8_t *body, size_t body_bytes,
                     struct err *e)
{
    struct msg_dial m;
    struct err why;
    size_t free_at = HUB_LINKS_MAX;

    if (msg_dial_decode(&m, body, body_bytes, e) != 0)
        return -1;
    for (size_t i = HUB_LINKS_MAX; i > 0; i--)
        if (v->dials[i - 1].connection == 0)
            free_at = i - 1;
    if (v->config.dial == NULL || free_at == HUB_LINKS_MAX || m.connection <= CONTROL_CONNECTION)
        err_set(&why, ERR_UNSUPPORTED, "this end dials nobody");
    else if (v->config.dial(v->config.context, s, &m, &why) == 0) {
        v->dials[free_at].connection = m.connection;
        v->dials[free_at].request = m.request;
        return 0; /* done is said when the link is up */
    }
    return answer(s, m.request, -1, &why, e);
}

void serve_link_up(void *serve, struct hub *s, uint32_t connection, const struct msg_hello *hello)
{
    struct serve *v = serve;
    struct err e;

    (void)hello;
    for (size_t i = 0; i < HUB_LINKS_MAX; i++)
        if (v->dials[i].connection == connection && connection != 0) {
            answer_done(s, v->dials[i].request, &e);
            v->dials[i].connection = 0;
        }
}

int serve_control(void *serve, struct hub *s, const struct message_header *header,
                  const uint8_t *body, size_t body_bytes, struct err *e)
{
    struct serve *v = serve;

    switch (header->type) {
    case MSG_dial:
        return hear_dial(v, s, body, body_bytes, e);
    case MSG_volume:
        return hear_volume(v, s, body, body_bytes, e);
    case MSG_disk_open:
        return hear_disk_open(v, s, body, body_bytes, e);
    case MSG_disk_holes:
        return hear_disk_holes(v, s, body, body_bytes, e);
    case MSG_stream_open:
        return hear_stream_open(v, s, header->stream, body, body_bytes, e);
    case MSG_quit:
        v->quits = true;
        return 0;
    default:
        return err_set(e, ERR_PEER, "a receiver does not send `%s`", message_name(header->type));
    }
}
