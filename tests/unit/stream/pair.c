#include "tests/unit/cmocka_all.h"
#include "tests/unit/stream/pair.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/block/source.h"

static int open_disk(void *context, const struct msg_disk_open *m, struct source **out,
                     enum hole_knowledge *holes, struct err *e)
{
    struct pair *p = context;

    *holes = HOLES_NONE;
    if (m->disk >= PAIR_DISKS || p->disks[m->disk] == NULL)
        return err_set(e, ERR_NOT_FOUND, "no disk %u", m->disk);
    *out = p->disks[m->disk];
    return 0;
}

static int hear(void *context, struct hub *s, const struct message_header *h, const uint8_t *body,
                size_t n, struct err *e)
{
    struct pair *p = context;
    struct msg_failed failed;

    (void)s;
    if (h->type == MSG_failed && msg_failed_decode(&failed, body, n, e) != 0)
        return -1;
    pthread_mutex_lock(&p->lock);
    p->answer = h->type == MSG_failed ? -1 : 1;
    if (h->type == MSG_failed)
        err_set(&p->why, (enum err_code)failed.code, "%.*s", (int)failed.tail_bytes,
                (const char *)failed.tail);
    pthread_cond_broadcast(&p->answered);
    pthread_mutex_unlock(&p->lock);
    return 0;
}

static const struct hub_handler sink_handler = { .control = hear };
static const struct hub_handler source_handler = { .control = serve_control,
                                                   .link_up = serve_link_up };

static void *sink_main(void *context)
{
    struct pair *p = context;
    struct err e;

    while (hub_turn(p->sink_end, 1000, &e) == 0)
        ;
    return NULL;
}

static void *source_main(void *context)
{
    struct pair *p = context;
    struct err e;

    while (hub_turn(p->source_end, 1000, &e) == 0)
        serve_tend(p->serve, p->source_end);
    return NULL;
}

uint32_t pair_connect(struct pair *p, int *cut_fd)
{
    struct handshake_offer offer = { .connection = p->next_connection++,
                                     .aead_set = aead_sodium_offer(),
                                     .mode_set = RECORD_MODE_SET_ALL };
    struct handshake_keys ours, theirs;
    struct handshake_choice choice;
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES];
    int fds[2];
    struct err e;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    if (cut_fd != NULL)
        *cut_fd = dup(fds[0]);
    assert_int_equal(handshake_offer(&p->secret, &offer, m1, &e), 0);
    assert_int_equal(
        handshake_choose(&offer, aead_sodium_offer(), RECORD_MODE_SET_ALL, &choice, &e), 0);
    assert_int_equal(handshake_answer(&p->secret, m1, &choice, m2, &ours, &e), 0);
    assert_int_equal(handshake_finish(&p->secret, m1, m2, &theirs, &e), 0);
    assert_int_equal(
        hub_link_add(p->sink_end, fds[0], fds[0], &ours, aead_sodium_find(choice.aead), &e), 0);
    assert_int_equal(
        hub_link_add(p->source_end, fds[1], fds[1], &theirs, aead_sodium_find(choice.aead), &e), 0);
    assert_int_equal(hub_link_wait(p->sink_end, offer.connection, 10000, &e), 0);
    assert_int_equal(hub_link_wait(p->source_end, offer.connection, 10000, &e), 0);
    return offer.connection;
}

void pair_start(struct pair *p, unsigned workers, uint64_t stall_ms)
{
    pair_start_with(p, workers, stall_ms, NULL, NULL);
}

void pair_start_with(struct pair *p, unsigned workers, uint64_t stall_ms,
                     const struct hub_handler *handler, void *context)
{
    struct hub_config sink = {
        .handler = &sink_handler, .context = p, .workers = workers, .stall_ms = stall_ms
    };
    struct hub_config source = { .handler = handler != NULL ? handler : &source_handler,
                                 .workers = workers };
    struct serve_config serve = { .disk_open = open_disk, .context = p, .memory_bytes = 16 << 20 };
    struct err e;

    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->answered, NULL);
    p->next_stream = 1;
    p->next_connection = CONTROL_CONNECTION;
    assert_int_equal(session_secret_make(&p->secret, &e), 0);
    assert_int_equal(serve_new(&p->serve, &serve, &e), 0);
    source.context = handler != NULL ? context : p->serve;
    assert_int_equal(hub_new(&p->sink_end, &sink, &e), 0);
    assert_int_equal(hub_new(&p->source_end, &source, &e), 0);
    pthread_create(&p->sink_loop, NULL, sink_main, p);
    pthread_create(&p->source_loop, NULL, source_main, p);
    pair_connect(p, NULL);
}

void pair_stop(struct pair *p)
{
    hub_end(p->sink_end);
    hub_end(p->source_end);
    pthread_join(p->sink_loop, NULL);
    pthread_join(p->source_loop, NULL);
    serve_free(p->serve);
    hub_free(p->source_end);
    hub_free(p->sink_end);
    pthread_cond_destroy(&p->answered);
    pthread_mutex_destroy(&p->lock);
}

static int answer_of(struct pair *p)
{
    int answer;

    pthread_mutex_lock(&p->lock);
    while (p->answer == 0)
        pthread_cond_wait(&p->answered, &p->lock);
    answer = p->answer;
    p->answer = 0;
    pthread_mutex_unlock(&p->lock);
    return answer > 0 ? 0 : -1;
}

int pair_disk_open(struct pair *p, uint32_t number, uint64_t capacity)
{
    struct msg_disk_open m = {
        .request = 1, .disk = number, .format = DISK_FLAT, .capacity_bytes = capacity
    };
    struct err e;

    assert_int_equal(link_send_disk_open(hub_link(p->sink_end, CONTROL_CONNECTION), 0, &m, &e), 0);
    return answer_of(p);
}

enum stream_state pair_run(struct pair *p, uint32_t disk, uint32_t connection, struct sink_walk *w,
                           struct msg_stream_open open, struct err *why)
{
    uint32_t id = p->next_stream++;
    enum stream_state state;
    struct stream *st = NULL;

    sink_walk_open(w, &open);
    open.request = 2;
    open.disk = disk;
    open.connection = connection;
    if (sink_walk_start(w, p->sink_end, id, connection, &st, why) != 0)
        return STREAM_FAILED;
    assert_int_equal(
        link_send_stream_open(hub_link(p->sink_end, CONTROL_CONNECTION), id, &open, why), 0);
    if (answer_of(p) != 0) {
        *why = p->why;
        stream_end(st);
        return STREAM_FAILED;
    }
    while ((state = stream_wait(st, 1000, why)) == STREAM_RUNNING)
        ;
    stream_end(st);
    return state;
}
