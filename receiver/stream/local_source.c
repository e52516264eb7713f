#include "receiver/stream/local_source.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/stream/serve.h"
#include "protocol/stream/thread.h"
#include "receiver/base/aead_openssl.h"
#include "receiver/stream/agent_session.h"
#include "version.h"

struct local_source {
    int fd;
    const struct agent_session_config *config;
    struct session_secret secret;
    pthread_t thread;
};

static int open_disk(void *context, const struct msg_disk_open *m, struct source **out,
                     enum hole_knowledge *holes, struct err *e)
{
    struct local_source *l = context;
    char path[8192 + 2] = { 0 }; /* of our own making: one name, or two with a NUL between */
    struct agent_disk disk = {
        .number = m->disk,
        .format = m->format,
        .path = path,
        .since_block = m->since_block,
        .capacity_bytes = m->capacity_bytes,
    };

    memcpy(path, m->tail, m->tail_bytes);
    if (strlen(path) < m->tail_bytes)
        disk.since = path + strlen(path) + 1;
    return l->config->disk_open(l->config->context, &disk, out, holes, e);
}

/* The handshake as initiator; the other end of the pair answers at once. */
static int introduce(struct local_source *l, struct hub *s, struct err *e)
{
    struct handshake_offer offer = { .connection = CONTROL_CONNECTION,
                                     .aead_set = aead_openssl_offer(),
                                     .mode_set = RECORD_MODE_SET_ALL };
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES];
    struct handshake_keys keys;
    int rc;

    if (handshake_offer(&l->secret, &offer, m1, e) != 0 ||
        io_write_all(l->fd, m1, sizeof m1, e) != 0 || io_read_all(l->fd, m2, sizeof m2, e) != 0 ||
        handshake_finish(&l->secret, m1, m2, &keys, e) != 0)
        return -1;
    rc = hub_link_add(s, l->fd, l->fd, &keys, aead_openssl_find(keys.choice.aead), e);
    handshake_keys_wipe(&keys);
    if (rc == 0)
        l->fd = -1;
    return rc;
}

static void *local_main(void *context)
{
    static const struct hub_handler handler = { .control = serve_control,
                                                .link_up = serve_link_up };
    struct local_source *l = context;
    struct serve_config serving = { .disk_open = open_disk,
                                    .context = l,
                                    .memory_bytes = l->config->memory_bytes };
    struct hub_config sc = { .handler = &handler,
                             .workers = 1,
                             .version = VMFERRY_VERSION,
                             .silence_ms = max_u64(l->config->stall_ms, HUB_SILENCE_MS) };
    struct hub *s = NULL;
    struct serve *v = NULL;
    struct err e;

    if (serve_new(&v, &serving, &e) == 0) {
        sc.context = v;
        /* A failure closes the pair, and the other end hears of it there. */
        if (hub_new(&s, &sc, &e) == 0 && introduce(l, s, &e) == 0)
            while (hub_turn(s, 1000, &e) == 0 && !serve_quits(v))
                serve_tend(v, s);
    }
    serve_free(v);
    hub_free(s);
    io_drop(&l->fd);
    return NULL;
}

int local_source_start(struct local_source **out, int fd, const struct session_secret *secret,
                       const struct agent_session_config *config, struct err *e)
{
    struct local_source *l = calloc(1, sizeof *l);

    if (l == NULL)
        return err_sys(e, "getting memory for a session");
    l->fd = fd;
    l->config = config;
    l->secret = *secret;
    if (thread_start(&l->thread, local_main, l, e) != 0) {
        free(l);
        return -1;
    }
    *out = l;
    return 0;
}

void local_source_end(struct local_source *l)
{
    if (l == NULL)
        return;
    pthread_join(l->thread, NULL);
    session_secret_wipe(&l->secret);
    free(l);
}
