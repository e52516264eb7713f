#include "receiver/host/dd_source.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/source.h"
#include "receiver/base/log.h"
#include "receiver/host/host.h"
#include "receiver/host/map.h"
#include "receiver/ssh/transport.h"

/* VMFS works in blocks of 1 MiB; ESXi's dd has no finer skip than its block. */
#define STEP_BYTES (UINT64_C(1) << 20)
/* A gap shorter than this is read and dropped rather than jumped over: a new dd costs a round trip.
 */
#define GAP_BYTES (UINT64_C(16) << 20)
#define STALL_MS UINT64_C(600000)
#define END_MS 30000
/* For the end of a dd that was killed. */
#define KILL_MS UINT64_C(20000)

struct dd_source {
    struct source base;
    struct host *host;
    char *path;
    struct disk_map map; /* no items: everything is data */
    uint64_t stall_ms;
    /* The dd that runs, if any. */
    bool running;
    struct remote_process process;
    unsigned long pid; /* on the host */
    uint64_t start;    /* of its first byte */
    uint64_t at;       /* of the next byte that it gives */
    uint64_t end;      /* behind its last byte */
    uint8_t *scratch;  /* STEP_BYTES, for what is dropped */
};

static struct dd_source *of(struct source *s)
{
    return (struct dd_source *)s;
}

static void stop_dd(struct dd_source *d)
{
    if (d->running)
        d->process.transport->ops->release(&d->process);
    d->running = false;
}

/*
 * A dd that hangs in a read does not notice that its channel is closed, and would keep the disk
 * open while our snapshot is removed: that leaves a delta behind.
 */
static void kill_dd(struct dd_source *d)
{
    struct host_answer a;
    char command[160];
    struct err e;

    stop_dd(d);
    if (d->pid < 2)
        return;
    snprintf(command, sizeof command,
             "kill -9 %lu; i=0; while kill -0 %lu 2>/dev/null && [ $i -lt 10 ]; do sleep 1; "
             "i=$((i+1)); done",
             d->pid, d->pid);
    if (host_run(d->host, command, KILL_MS, &a, &e) != 0)
        log_info("ending dd on the host: %s", e.text);
    else
        host_answer_free(&a);
}

static int extent_at(struct source *s, uint64_t offset_bytes, struct extent *out, struct err *e)
{
    struct dd_source *d = of(s);

    (void)e;
    if (d->map.count > 0)
        *out = disk_map_at(&d->map, offset_bytes);
    else
        *out = (struct extent){ .offset_bytes = offset_bytes,
                                .length_bytes = s->capacity_bytes - offset_bytes,
                                .kind = EXTENT_DATA };
    return 0;
}

/* Where one dd from offset on should end: at the next hole that is worth a jump. */
static uint64_t run_end(const struct dd_source *d, uint64_t offset)
{
    uint64_t end = offset;

    while (d->map.count > 0 && end < d->base.capacity_bytes) {
        struct extent x = disk_map_at(&d->map, end);

        if (x.kind != EXTENT_DATA && end > offset && x.length_bytes >= GAP_BYTES)
            break;
        end = x.offset_bytes + x.length_bytes;
    }
    return d->map.count > 0 ? end : d->base.capacity_bytes;
}

/* The line before the data: the number that the shell had, and dd has now. */
static int hear_pid(struct dd_source *d, struct err *e)
{
    uint64_t until_ms = io_clock_ms() + min_u64(d->stall_ms, INT32_MAX);
    char line[16];
    size_t count = 0;

    for (;;) {
        struct pollfd p = { .fd = d->process.fd, .events = POLLIN };
        uint64_t now = io_clock_ms();
        ssize_t n;

        if (count == sizeof line || now >= until_ms)
            return err_set(e, ERR_SOURCE, "dd does not start");
        if (poll(&p, 1, (int)(until_ms - now)) <= 0)
            continue;
        n = read(d->process.fd, line + count, 1);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return err_set(e, ERR_SOURCE, "dd does not start");
        if (line[count] == '\n')
            break;
        if (line[count] < '0' || line[count] > '9')
            return err_set(e, ERR_SOURCE, "the host prints something before dd starts");
        count++;
    }
    line[count] = 0;
    d->pid = strtoul(line, NULL, 10);
    return 0;
}

static int start_dd(struct dd_source *d, uint64_t offset, uint64_t least_end, struct err *e)
{
    struct bytes command = { .ceiling = HOST_COMMAND_MAX };
    uint64_t first = offset / STEP_BYTES;
    uint64_t wanted = max_u64(run_end(d, offset), least_end);
    uint64_t count = wanted / STEP_BYTES + (wanted % STEP_BYTES != 0) - first;
    static const char tell_pid[] = "echo $$; exec ";
    char skip[40], number[40];
    char *file = NULL;
    int rc = -1;

    snprintf(skip, sizeof skip, "skip=%" PRIu64, first);
    snprintf(number, sizeof number, "count=%" PRIu64, count);
    if (asprintf(&file, "if=%s", d->path) < 0) {
        err_set(e, ERR_SYSTEM, "no memory for a command");
        file = NULL;
        goto out;
    }
    if (bytes_append(&command, tell_pid, sizeof tell_pid - 1, e) != 0 ||
        shell_command(&command, e, "dd", file, "bs=1048576", skip, number, NULL) != 0 ||
        d->host->transport->ops->exec(d->host->transport, (const char *)command.data, &d->process,
                                      e) != 0)
        goto out;
    log_debug("%s", (const char *)command.data);
    d->running = true;
    shutdown(d->process.fd, SHUT_WR);
    if (hear_pid(d, e) != 0) {
        stop_dd(d);
        goto out;
    }
    d->start = d->at = first * STEP_BYTES;
    d->end = min_u64((first + count) * STEP_BYTES, d->base.capacity_bytes);
    rc = 0;

out:
    free(file);
    bytes_free(&command);
    return rc;
}

static size_t line_end(const char *text)
{
    return strcspn(text, "\r\n");
}

/* "N+M records in" and "N+M records out" must tell of exactly the bytes that came. */
static bool records_fit(const char *said, uint64_t bytes)
{
    uint64_t whole = bytes / STEP_BYTES;
    unsigned part = bytes % STEP_BYTES != 0;
    char want[120];

    snprintf(want, sizeof want, "%" PRIu64 "+%u records in\n%" PRIu64 "+%u records out\n", whole,
             part, whole, part);
    return strncmp(said, want, strlen(want)) == 0;
}

/* All bytes have come: dd must have ended well, with the right counts and nothing else to say. */
static int finish_dd(struct dd_source *d, struct err *e)
{
    struct bytes complaint = { .ceiling = HOST_COMPLAINT_MAX + 1 };
    struct remote_exit ended = { 0 };
    const char *said;
    uint8_t extra;
    ssize_t n;
    int rc = -1;

    do {
        struct pollfd p = { .fd = d->process.fd, .events = POLLIN };

        n = poll(&p, 1, END_MS) > 0 ? read(d->process.fd, &extra, 1) : 0;
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        err_set(e, ERR_SOURCE, "dd gave more than was asked for");
        goto out;
    }
    if (d->process.transport->ops->wait(&d->process, END_MS, &ended, &complaint, e) != 0)
        goto out;
    said = bytes_text(&complaint, e);
    if (said == NULL)
        goto out;
    if (!ended.known || ended.signalled || ended.status != 0 ||
        !records_fit(said, d->end - d->start)) {
        err_set(e, ERR_SOURCE, "dd ended with status %d and said: %.*s", ended.status,
                (int)line_end(said), said);
        goto out;
    }
    rc = 0;

out:
    stop_dd(d);
    bytes_free(&complaint);
    return rc;
}

/* dd has ended too early: tell why. */
static int explain_end(struct dd_source *d, struct err *e)
{
    struct bytes complaint = { .ceiling = HOST_COMPLAINT_MAX + 1 };
    struct remote_exit ended = { 0 };
    const char *said = NULL;
    uint64_t at = d->at;

    if (d->process.transport->ops->wait(&d->process, END_MS, &ended, &complaint, e) != 0) {
        bytes_free(&complaint);
        stop_dd(d);
        return -1;
    }
    said = bytes_text(&complaint, e);
    if (!ended.known)
        err_set(e, ERR_NETWORK, "the connection ended at byte %" PRIu64, at);
    else
        err_set(e, ERR_SOURCE, "reading ended at byte %" PRIu64 ": %.*s", at,
                said == NULL ? 0 : (int)line_end(said), said == NULL ? "" : said);
    bytes_free(&complaint);
    stop_dd(d);
    return -1;
}

/* Exactly count bytes from the dd that runs. */
static int take(struct dd_source *d, uint8_t *out, size_t count, struct err *e)
{
    while (count > 0) {
        struct pollfd p = { .fd = d->process.fd, .events = POLLIN };
        int ready = poll(&p, 1, (int)min_u64(d->stall_ms, INT32_MAX));
        ssize_t n;

        if (ready < 0 && errno == EINTR)
            continue;
        if (ready == 0) {
            kill_dd(d);
            errno = ETIMEDOUT;
            return err_sys(e, "nothing came for %" PRIu64 " s", d->stall_ms / 1000);
        }
        n = ready < 0 ? -1 : read(d->process.fd, out, count);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0) {
            err_sys(e, "reading from dd");
            stop_dd(d);
            return -1;
        }
        if (n == 0)
            return explain_end(d, e);
        out += n;
        count -= (size_t)n;
        d->at += (uint64_t)n;
    }
    return 0;
}

static int drop(struct dd_source *d, uint64_t count, struct err *e)
{
    while (count > 0) {
        size_t n = (size_t)min_u64(count, STEP_BYTES);

        if (take(d, d->scratch, n, e) != 0)
            return -1;
        count -= n;
    }
    return 0;
}

static int dd_read(struct source *s, uint64_t offset_bytes, void *out, size_t count, struct err *e)
{
    struct dd_source *d = of(s);
    uint64_t end;

    if (count == 0)
        return 0;
    if (!checked_add(offset_bytes, count, &end) || end > s->capacity_bytes)
        return err_set(e, ERR_SOURCE, "%s: a read past the end", d->path);
    if (d->running && (offset_bytes < d->at || end > d->end || offset_bytes - d->at >= GAP_BYTES))
        stop_dd(d); /* a jump; what it would still give is dropped by closing its channel */
    if (!d->running && start_dd(d, offset_bytes, end, e) != 0)
        return err_add(e, "%s", d->path);
    if (drop(d, offset_bytes - d->at, e) != 0 || take(d, out, count, e) != 0)
        return err_add(e, "%s", d->path);
    if (d->at == d->end && finish_dd(d, e) != 0)
        return err_add(e, "%s", d->path);
    return 0;
}

static void dd_close(struct source *s)
{
    struct dd_source *d = of(s);

    stop_dd(d);
    disk_map_free(&d->map);
    free(d->scratch);
    free(d->path);
    free(d);
}

void dd_source_pause(struct source *s)
{
    stop_dd(of(s));
}

static const struct source_ops dd_ops = { .extent_at = extent_at,
                                          .read = dd_read,
                                          .close = dd_close };

/* The file must have exactly the disk's size: else it is not the disk that we think. */
static int check_size(struct host *h, const char *path, uint64_t capacity_bytes, struct err *e)
{
    struct host_answer a;
    char want[32];
    int rc = 0;

    if (host_call(h, &a, HOST_COMMAND_MS, e, "stat", "-c", "%s", path, NULL) != 0)
        return -1;
    snprintf(want, sizeof want, "%" PRIu64 "\n", capacity_bytes);
    if (a.status != 0)
        rc = err_set(e, ERR_SOURCE, "%.*s", (int)line_end(a.complaint), a.complaint);
    else if (strcmp(a.out, want) != 0)
        rc = err_set(e, ERR_SOURCE, "its size is %.*s, but the disk has %" PRIu64 " bytes",
                     (int)line_end(a.out), a.out, capacity_bytes);
    host_answer_free(&a);
    return rc == 0 ? 0 : err_add(e, "%s", path);
}

static int copy_map(struct dd_source *d, const struct disk_map *map, struct err *e)
{
    d->map = *map;
    d->map.items = malloc(map->count * sizeof *map->items);
    if (d->map.items == NULL) {
        d->map.count = 0;
        return err_sys(e, "opening a disk");
    }
    memcpy(d->map.items, map->items, map->count * sizeof *map->items);
    d->base.allocated_bytes = map->data_bytes;
    d->base.flags |= SOURCE_HOLES_CLAIMED;
    return 0;
}

int dd_source_open_sized(struct source **out, struct host *h, const char *path,
                         uint64_t capacity_bytes, const struct disk_map *map, uint64_t stall_ms,
                         struct err *e)
{
    struct dd_source *d = calloc(1, sizeof *d);
    int rc = -1;

    if (d == NULL || (d->path = strdup(path)) == NULL ||
        (d->scratch = malloc(STEP_BYTES)) == NULL) {
        err_sys(e, "opening %s", path);
        goto out;
    }
    d->base = (struct source){ .ops = &dd_ops,
                               .capacity_bytes = capacity_bytes,
                               .allocated_bytes = capacity_bytes,
                               .flags = SOURCE_SEQUENTIAL };
    d->host = h;
    d->stall_ms = stall_ms != 0 ? stall_ms : STALL_MS;
    if (map != NULL && map->count > 0 && map->capacity_bytes == capacity_bytes &&
        copy_map(d, map, e) != 0)
        goto out;
    *out = &d->base;
    d = NULL;
    rc = 0;

out:
    if (d != NULL)
        dd_close(&d->base);
    return rc;
}

int dd_source_open(struct source **out, struct host *h, const char *path, uint64_t capacity_bytes,
                   const struct disk_map *map, uint64_t stall_ms, struct err *e)
{
    return check_size(h, path, capacity_bytes, e) == 0
               ? dd_source_open_sized(out, h, path, capacity_bytes, map, stall_ms, e)
               : -1;
}
