#include "esxi-agent/agent.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "esxi-agent/dial.h"
#include "esxi-agent/disks.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/stream/serve.h"
#include "protocol/wire/bootstrap.h"
#include "protocol/wire/crypto.h"
#include "version.h"

enum {
    BOOTSTRAP_WAIT_MS = 30000,
    FAREWELL_MS = 2000, /* to write out what is queued before leaving */
};

struct agent {
    struct disks disks;
    struct bootstrap bootstrap;
    struct handshake_offer offer; /* connection is filled for each */
};

static int open_disk(void *context, const struct msg_disk_open *m, struct source **out,
                     enum hole_knowledge *holes, struct err *e)
{
    struct agent *a = context;

    return disks_open(&a->disks, m, out, holes, e);
}

static int add_volume(void *context, const char *path, const char *alias, struct err *e)
{
    struct agent *a = context;

    return disks_volume(&a->disks, path, alias, e);
}

static int dial_back(void *context, struct hub *s, const struct msg_dial *m, struct err *e)
{
    struct agent *a = context;
    char address[64 + 1];
    struct handshake_keys keys;
    uint64_t timeout_ms = m->timeout_ms < HANDSHAKE_MS ? m->timeout_ms : HANDSHAKE_MS;
    int fd = -1, rc;

    memcpy(address, m->tail, m->tail_bytes);
    address[m->tail_bytes] = 0;
    if (dial(address, m->port, m->connection, timeout_ms, &a->bootstrap.secret, &a->offer, &fd,
             &keys, e) != 0)
        return -1;
    rc = hub_link_add(s, fd, fd, &keys, aead_sodium_find(keys.choice.aead), e);
    handshake_keys_wipe(&keys);
    if (rc != 0)
        io_drop(&fd);
    return rc;
}

/* The words before the records: greeting out, bootstrap in, handshake. */
static int introduce(struct agent *a, struct handshake_keys *keys, struct err *e)
{
    uint64_t until_ms = io_clock_ms() + BOOTSTRAP_WAIT_MS;
    uint8_t greeting[GREETING_BYTES], raw[BOOTSTRAP_BYTES];
    int rc;

    bootstrap_greeting(greeting);
    if (io_write_all(STDOUT_FILENO, greeting, sizeof greeting, e) != 0 ||
        io_read_until(STDIN_FILENO, raw, sizeof raw, until_ms, e) != 0)
        return -1;
    rc = bootstrap_decode(&a->bootstrap, raw, e);
    crypto_wipe(raw, sizeof raw);
    if (rc != 0)
        return -1;
    a->offer.connection = CONTROL_CONNECTION;
    a->offer.aead_set = aead_sodium_offer() & a->bootstrap.aead_set;
    a->offer.mode_set = a->bootstrap.mode_set;
    return shake_hands(STDIN_FILENO, STDOUT_FILENO, until_ms, &a->bootstrap.secret, &a->offer, keys,
                       e);
}

static int serve_session(struct agent *a, struct hub *s, struct serve *v, struct err *e)
{
    uint64_t ends_ms = io_clock_ms() + (uint64_t)a->bootstrap.life_max_s * 1000;
    struct err late;

    while (hub_turn(s, 1000, e) == 0) {
        serve_tend(v, s);
        if (serve_quits(v)) {
            uint64_t until = io_clock_ms() + FAREWELL_MS;

            hub_link_close(s, CONTROL_CONNECTION);
            while (io_clock_ms() < until && hub_turn(s, 100, &late) == 0)
                ;
            return 0;
        }
        if (io_clock_ms() > ends_ms)
            return err_set(e, ERR_LIMIT, "the session has lasted too long");
    }
    return -1;
}

int agent_run(struct err *e)
{
    static const struct hub_handler handler = { .control = serve_control,
                                                .link_up = serve_link_up };
    struct agent a = { 0 };
    struct serve_config serving = {
        .disk_open = open_disk, .volume = add_volume, .dial = dial_back, .context = &a
    };
    struct hub_config config = { .handler = &handler, .version = VMFERRY_VERSION };
    struct handshake_keys keys;
    struct hub *s = NULL;
    struct serve *v = NULL;
    int rc = -1;

    if (crypto_start(e) != 0 || introduce(&a, &keys, e) != 0)
        return -1;
    serving.memory_bytes = a.bootstrap.memory_max_bytes / 2; /* the rest: queues, packers, code */
    if (serve_new(&v, &serving, e) != 0)
        goto out;
    config.context = v;
    config.workers = a.bootstrap.workers_max;
    config.silence_ms = a.bootstrap.silence_max_ms;
    if (hub_new(&s, &config, e) != 0 || hub_link_add(s, STDIN_FILENO, STDOUT_FILENO, &keys,
                                                     aead_sodium_find(keys.choice.aead), e) != 0)
        goto out;
    rc = serve_session(&a, s, v, e);

out:
    handshake_keys_wipe(&keys);
    serve_free(v);
    disks_free(&a.disks);
    hub_free(s);
    session_secret_wipe(&a.bootstrap.secret);
    return rc;
}
