/* What an open transport must do. */
#include "tests/integration/ssh/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/io.h"

enum { MINUTE_MS = 60000, PIECE_BYTES = 48 << 10 };

static void run(struct transport *t, const char *command, const char *input, struct bytes *out,
                struct bytes *errors, struct remote_exit *ended)
{
    struct err e;

    *out = (struct bytes){ .ceiling = 1 << 20 };
    *errors = (struct bytes){ .ceiling = 1 << 20 };
    CALL(transport_run(t, command, input, input != NULL ? strlen(input) : 0, MINUTE_MS, out, errors,
                       ended, &e),
         &e);
    CHECK(ended->known);
}

static bool text_is(struct bytes *b, const char *text)
{
    bool same = b->count == strlen(text) && (b->count == 0 || memcmp(b->data, text, b->count) == 0);

    bytes_free(b);
    return same;
}

static void exits_and_signals(struct transport *t)
{
    struct bytes out;
    struct bytes errors;
    struct remote_exit ended;

    run(t, "echo one; echo two >&2; exit 7", NULL, &out, &errors, &ended);
    CHECK(text_is(&out, "one\n") && text_is(&errors, "two\n") && ended.status == 7 &&
          !ended.signalled);
    run(t, "cat; echo end", "hello", &out, &errors, &ended);
    CHECK(text_is(&out, "helloend\n") && text_is(&errors, "") && ended.status == 0);
    run(t, "kill -KILL $$", NULL, &out, &errors, &ended);
    CHECK(ended.signalled && strcmp(ended.signal, "KILL") == 0);
    bytes_free(&out);
    bytes_free(&errors);
    run(t, "exit 255", NULL, &out, &errors, &ended);
    CHECK(text_is(&out, "") && ended.status == 255 && !ended.signalled);
    bytes_free(&errors);
    run(t, "/no/such/program", NULL, &out, &errors, &ended);
    CHECK(text_is(&out, "") && ended.status == 127 && errors.count > 0);
    bytes_free(&errors);
    /* The command ends while we would still write. */
    run(t, "exec <&-; echo gone", "x", &out, &errors, &ended);
    CHECK(text_is(&out, "gone\n") && ended.status == 0);
    bytes_free(&errors);
}

/* Much standard error must not stop standard output; 64 KiB of it are kept. */
static void error_flood(struct transport *t)
{
    struct bytes out;
    struct bytes errors;
    struct remote_exit ended;

    run(t, "head -c 12000000 /dev/zero >&2; echo out", NULL, &out, &errors, &ended);
    CHECK(text_is(&out, "out\n") && errors.count == 65536 && ended.status == 0);
    bytes_free(&errors);
}

static void ceilings_and_times(struct transport *t)
{
    struct bytes out = { .ceiling = 1000 };
    struct remote_exit ended;
    struct err e;
    uint64_t start_ms = io_clock_ms();

    CHECK(transport_run(t, "head -c 1001 /dev/zero", NULL, 0, MINUTE_MS, &out, NULL, &ended, &e) ==
          -1);
    CHECK(e.code == ERR_LIMIT);
    out.count = 0;
    CALL(transport_run(t, "head -c 1000 /dev/zero", NULL, 0, MINUTE_MS, &out, NULL, &ended, &e),
         &e);
    CHECK(out.count == 1000 && ended.known && ended.status == 0);
    out.count = 0;
    CHECK(transport_run(t, "sleep 30", NULL, 0, 300, &out, NULL, &ended, &e) == -1);
    CHECK(e.code == ERR_NETWORK && e.os == ETIMEDOUT && !ended.known);
    CHECK(io_clock_ms() - start_ms < 20000 && t->ops->alive(t, NULL));
    bytes_free(&out);
}

void case_commands(struct transport *t)
{
    char address[64];
    struct err e;

    CALL(t->ops->local_address(t, address, sizeof address, &e), &e);
    CHECK(strcmp(address, "127.0.0.1") == 0 || strcmp(address, "::1") == 0);
    exits_and_signals(t);
    error_flood(t);
    ceilings_and_times(t);
    t->ops->close(t);
}

/* As many commands as there are channels, one more is refused; released ones make room. */
void case_channels(struct transport *t)
{
    struct remote_process p[SSH_CHANNELS_MAX + 1];
    struct remote_exit ended;
    struct err e;
    char text[2];

    for (int i = 0; i < SSH_CHANNELS_MAX; i++)
        CALL(t->ops->exec(t, "cat", &p[i], &e), &e);
    CHECK(t->ops->exec(t, "cat", &p[SSH_CHANNELS_MAX], &e) == -1 && e.code == ERR_LIMIT);
    for (int i = 0; i < SSH_CHANNELS_MAX; i++) {
        CALL(io_write_all(p[i].fd, "ab", 2, &e), &e);
        CALL(io_read_all(p[i].fd, text, 2, &e), &e);
        CHECK(memcmp(text, "ab", 2) == 0);
    }
    for (int round = 0; round < 20; round++) {
        t->ops->release(&p[round % SSH_CHANNELS_MAX]);
        CALL(t->ops->exec(t, "cat", &p[round % SSH_CHANNELS_MAX], &e), &e);
    }
    for (int i = 0; i < SSH_CHANNELS_MAX; i++) {
        shutdown(p[i].fd, SHUT_WR);
        CHECK(read(p[i].fd, text, 1) == 0);
        CALL(t->ops->wait(&p[i], MINUTE_MS, &ended, NULL, &e), &e);
        CHECK(ended.known && ended.status == 0 && !ended.signalled);
        t->ops->release(&p[i]);
    }
    t->ops->close(t);
}

/* A byte stream that both ends can compute. */
static void fill(uint8_t *data, size_t count, uint64_t offset, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t x = (offset + i) * UINT64_C(0x9E3779B97F4A7C15) + seed;

        data[i] = (uint8_t)(x >> 29 ^ x >> 53);
    }
}

struct lane_test {
    struct remote_process p;
    size_t bytes;
    uint32_t seed;
    pthread_t writer;
    pthread_t reader;
};

static void *write_lane(void *argument)
{
    struct lane_test *l = argument;
    uint8_t piece[PIECE_BYTES];
    struct err e;

    for (size_t at = 0; at < l->bytes;) {
        size_t count = l->bytes - at < sizeof piece ? l->bytes - at : sizeof piece;

        fill(piece, count, at, l->seed);
        CALL(io_write_all(l->p.fd, piece, count, &e), &e);
        at += count;
    }
    CHECK(shutdown(l->p.fd, SHUT_WR) == 0);
    return NULL;
}

static void *read_lane(void *argument)
{
    struct lane_test *l = argument;
    uint8_t piece[PIECE_BYTES];
    uint8_t wanted[PIECE_BYTES];
    size_t at = 0;

    for (;;) {
        ssize_t n = read(l->p.fd, piece, sizeof piece);

        CHECK(n >= 0);
        if (n == 0)
            break;
        fill(wanted, (size_t)n, at, l->seed);
        CHECK(memcmp(piece, wanted, (size_t)n) == 0);
        at += (size_t)n;
    }
    CHECK(at == l->bytes);
    return NULL;
}

void case_duplex(struct transport *t, unsigned channels, size_t bytes)
{
    struct lane_test lanes[SSH_CHANNELS_MAX];
    struct remote_exit ended;
    struct err e;

    CHECK(channels <= SSH_CHANNELS_MAX);
    for (unsigned i = 0; i < channels; i++) {
        lanes[i] = (struct lane_test){ .bytes = bytes, .seed = i * 77 + 1 };
        CALL(t->ops->exec(t, "cat", &lanes[i].p, &e), &e);
    }
    for (unsigned i = 0; i < channels; i++) {
        CHECK(pthread_create(&lanes[i].writer, NULL, write_lane, &lanes[i]) == 0);
        CHECK(pthread_create(&lanes[i].reader, NULL, read_lane, &lanes[i]) == 0);
    }
    for (unsigned i = 0; i < channels; i++) {
        pthread_join(lanes[i].writer, NULL);
        pthread_join(lanes[i].reader, NULL);
        CALL(t->ops->wait(&lanes[i].p, MINUTE_MS, &ended, NULL, &e), &e);
        CHECK(ended.known && ended.status == 0 && !ended.signalled);
        t->ops->release(&lanes[i].p);
    }
    t->ops->close(t);
}

static long resident_kib(void)
{
    struct rusage u;

    CHECK(getrusage(RUSAGE_SELF, &u) == 0);
    return u.ru_maxrss;
}

/* A reader that does not read costs bounded memory and does not stop the others. */
void case_slow_reader(struct transport *t)
{
    struct remote_process slow;
    struct remote_exit ended;
    struct bytes out;
    struct bytes errors;
    struct err e;
    long before_kib;
    uint8_t piece[PIECE_BYTES];
    uint64_t total = 0;

    CALL(t->ops->exec(t, "head -c 300000000 /dev/zero", &slow, &e), &e);
    before_kib = resident_kib();
    for (int i = 0; i < 100; i++) {
        run(t, "echo still here", NULL, &out, &errors, &ended);
        CHECK(text_is(&out, "still here\n") && text_is(&errors, ""));
    }
    CHECK(resident_kib() - before_kib < 64 * 1024);
    CHECK(t->ops->wait(&slow, 10, &ended, NULL, &e) == -1 && e.os == ETIMEDOUT);
    for (;;) {
        ssize_t n = read(slow.fd, piece, sizeof piece);

        CHECK(n >= 0);
        if (n == 0)
            break;
        total += (uint64_t)n;
    }
    CHECK(total == 300000000);
    CALL(t->ops->wait(&slow, MINUTE_MS, &ended, NULL, &e), &e);
    t->ops->release(&slow);

    /* And one who closes at once: the output is dropped, the command ends by itself. */
    CALL(t->ops->exec(t, "head -c 50000000 /dev/zero; exit 3", &slow, &e), &e);
    io_drop(&slow.fd);
    CALL(t->ops->wait(&slow, MINUTE_MS, &ended, NULL, &e), &e);
    CHECK(ended.known && ended.status == 3);
    t->ops->release(&slow);
    t->ops->close(t);
}

static void check_file(struct transport *t, const char *path, const uint8_t *data, size_t count)
{
    struct bytes command = { .ceiling = 8192 };
    struct bytes out = { .ceiling = 8 << 20 };
    struct remote_exit ended;
    struct err e;

    CALL(shell_command(&command, &e, "cat", path, NULL), &e);
    CALL(transport_run(t, (char *)command.data, NULL, 0, MINUTE_MS, &out, NULL, &ended, &e), &e);
    CHECK(ended.status == 0 && out.count == count && memcmp(out.data, data, count) == 0);
    bytes_free(&command);
    bytes_free(&out);
}

void case_upload(struct transport *t, const char *folder)
{
    static uint8_t data[3 << 20];
    char path[4096];
    char local[4096];
    struct bytes out;
    struct bytes errors;
    struct remote_exit ended;
    struct err e;
    int fd;

    fill(data, sizeof data, 0, 5);
    CHECK(snprintf(path, sizeof path, "%s/it's a \"file\" $HOME\n-x", folder) < (int)sizeof path);
    CALL(transport_upload(t, data, sizeof data, -1, path, 0500, MINUTE_MS, &e), &e);
    check_file(t, path, data, sizeof data);
    /* It never replaces. */
    CHECK(transport_upload(t, data, 10, -1, path, 0500, MINUTE_MS, &e) == -1 &&
          e.code == ERR_REFUSED);
    check_file(t, path, data, sizeof data);
    CHECK(snprintf(local, sizeof local, "%s/local", folder) < (int)sizeof local);
    fd = open(local, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CALL(io_write_all(fd, data, 1000001, &e), &e);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    CHECK(snprintf(path, sizeof path, "%s/second", folder) < (int)sizeof path);
    CALL(transport_upload(t, NULL, 0, fd, path, 0600, MINUTE_MS, &e), &e);
    check_file(t, path, data, 1000001);
    close(fd);
    CHECK(snprintf(path, sizeof path, "stat -c %%a %s/second", folder) < (int)sizeof path);
    run(t, path, NULL, &out, &errors, &ended);
    CHECK(text_is(&out, "600\n") && text_is(&errors, ""));
    CHECK(transport_upload(t, data, 10, -1, "/no/such/folder/x", 0600, MINUTE_MS, &e) == -1 &&
          e.code == ERR_NOT_FOUND);
    /* The fixture has mounted something small here. */
    CHECK(snprintf(path, sizeof path, "%s/small/x", folder) < (int)sizeof path);
    CHECK(transport_upload(t, data, sizeof data, -1, path, 0600, MINUTE_MS, &e) == -1 &&
          e.code == ERR_SPACE);
    t->ops->close(t);
}

/* Nothing happens for a while, and the connection still works. */
void case_idle(struct transport *t, unsigned seconds)
{
    struct bytes out;
    struct bytes errors;
    struct remote_exit ended;

    sleep(seconds);
    run(t, "echo awake", NULL, &out, &errors, &ended);
    CHECK(text_is(&out, "awake\n") && text_is(&errors, ""));
    t->ops->close(t);
}

static void *wait_for_cut(void *argument)
{
    struct remote_process *p = argument;
    struct remote_exit ended;
    struct err e = { 0 };

    CHECK(p->transport->ops->wait(p, MINUTE_MS, &ended, NULL, &e) == -1);
    CHECK(e.code == ERR_NETWORK && !ended.known);
    return NULL;
}

/* Blocks in write until the connection is gone. */
static void *write_until_cut(void *argument)
{
    struct remote_process *p = argument;
    static const uint8_t zeros[65536];
    struct err e;

    while (io_write_all(p->fd, zeros, sizeof zeros, &e) == 0)
        continue;
    return wait_for_cut(argument);
}

static void *read_until_cut(void *argument)
{
    struct remote_process *p = argument;
    uint8_t piece[65536];

    while (read(p->fd, piece, sizeof piece) > 0)
        continue;
    return wait_for_cut(argument);
}

/* The fixture cuts the connection when it has read "ready". */
void case_cut(struct transport *t)
{
    static const char *const commands[] = { "sleep 600", "cat > /dev/null", "cat /dev/zero",
                                            "sleep 600" };
    static void *(*const bodies[])(void *) = { wait_for_cut, write_until_cut, read_until_cut,
                                               write_until_cut };
    struct remote_process p[4];
    pthread_t threads[4];
    struct err e = { 0 };
    uint64_t start_ms;

    for (int i = 0; i < 4; i++)
        CALL(t->ops->exec(t, commands[i], &p[i], &e), &e);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, bodies[i], &p[i]) == 0);
    usleep(200000);
    printf("ready\n");
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(!t->ops->alive(t, &e) && e.code == ERR_NETWORK);
    CHECK(t->ops->exec(t, "true", &p[0], &e) == -1 && e.code == ERR_NETWORK);
    start_ms = io_clock_ms();
    t->ops->release(&p[0]);
    t->ops->release(&p[1]);
    t->ops->close(t);
    /* Order does not matter. */
    t->ops->release(&p[2]);
    t->ops->release(&p[3]);
    CHECK(io_clock_ms() - start_ms < 2000);
}

/* Closing with commands under way neither hangs nor leaves anybody waiting. */
void case_close_while_busy(struct transport *t)
{
    struct remote_process p[3];
    pthread_t threads[2];
    struct err e;
    uint64_t start_ms;

    CALL(t->ops->exec(t, "cat /dev/zero", &p[0], &e), &e);
    CALL(t->ops->exec(t, "sleep 600", &p[1], &e), &e);
    CALL(t->ops->exec(t, "cat /dev/zero", &p[2], &e), &e);
    CHECK(pthread_create(&threads[0], NULL, read_until_cut, &p[0]) == 0);
    CHECK(pthread_create(&threads[1], NULL, wait_for_cut, &p[1]) == 0);
    usleep(100000);
    start_ms = io_clock_ms();
    t->ops->close(t);
    CHECK(io_clock_ms() - start_ms < 5000);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    for (int i = 0; i < 3; i++)
        t->ops->release(&p[i]);
}
