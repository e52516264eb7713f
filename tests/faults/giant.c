/*
 * Whole transfers of disks that no machine here could hold: a real agent program whose disks are
 * computed (stub_source.c), the real stream engine over TCP, the real mirror store.
 *
 *     giant refresh GIB      a disk all of whose digests are set, ten places changed: only they
 *                            come, and what the two programs need of memory is shown
 *     giant sparse GIB       a first mirror of a disk with ten used blocks
 *     giant nonces RECORDS   so many records over connections and agents that die: no (key, nonce)
 *                            comes twice
 *
 * $GIANT_AGENT is the agent.  The mirror is made in /dev/shm where that is; ext4 ends at 16 TiB.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/tree.h"
#include "receiver/mirror/mirror.h"
#include "receiver/stream/agent_session.h"
#include "receiver/stream/transfer.h"
#include "tests/faults/nonces.h"
#include "tests/faults/stub_source.h"
#include "tests/unit/receiver-stream/process_transport.h"

enum {
    BLOCK = 64 << 10,
    DIGESTS_AT_ONCE = 1 << 16,
    FDS_MAX = 256,
    NONCE_RECORD_BYTES = 550,
    NONCE_SECONDS = 3,
    CUTS_MAX = 9,
};

static const uint64_t gib = UINT64_C(1) << 30;

/* The bars of the project; programs with sanitizers are larger. */
#ifdef __SANITIZE_ADDRESS__
static const unsigned long agent_bar_kib = 4 << 20, receiver_bar_kib = 4 << 20;
#else
static const unsigned long agent_bar_kib = 64 << 10, receiver_bar_kib = 96 << 10;
#endif

struct giant {
    char dir[64], place[80], command[512];
    struct transport *transport;
    struct agent_session_config config;
    struct agent_session *session;
    unsigned long agent_kib, receiver_kib;
    unsigned cuts, kills, renewals;
    uint64_t next_cut_ms, rate_bytes;
    bool cutting;
};

static void must(bool good, const char *what, const struct err *e)
{
    if (good)
        return;
    fprintf(stderr, "giant: %s%s%s\n", what, e != NULL ? ": " : "", e != NULL ? e->text : "");
    exit(1);
}

/* --- memory --- */

/* A line of /proc/PID/status, in KiB; 0 when the process is gone. */
static unsigned long status_kib(int pid, const char *key)
{
    char path[64], line[256];
    unsigned long kib = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/status", pid);
    f = fopen(path, "re");
    if (f == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            kib = strtoul(line + strlen(key), NULL, 10);
    fclose(f);
    return kib;
}

static void look_at_memory(struct giant *g)
{
    unsigned long agent = status_kib(process_transport_last(g->transport), "VmHWM:");
    unsigned long receiver = status_kib(getpid(), "RssAnon:");

    g->agent_kib = agent > g->agent_kib ? agent : g->agent_kib;
    g->receiver_kib = receiver > g->receiver_kib ? receiver : g->receiver_kib;
}

/* --- cuts --- */

/* Shut down one of our TCP connections, if there is one. */
static bool cut_tcp(void)
{
    for (int fd = 3; fd < FDS_MAX; fd++) {
        struct sockaddr_in peer;
        socklen_t bytes = sizeof peer;

        if (getpeername(fd, (struct sockaddr *)&peer, &bytes) == 0 && peer.sin_family == AF_INET) {
            shutdown(fd, SHUT_RDWR);
            return true;
        }
    }
    return false;
}

static int watch(void *context, struct err *e)
{
    struct giant *g = context;
    uint64_t now = io_clock_ms();

    (void)e;
    look_at_memory(g);
    if (!g->cutting || now < g->next_cut_ms || g->cuts + g->kills == CUTS_MAX)
        return 0;
    g->next_cut_ms = now + 300;
    if ((g->cuts + g->kills) % 3 == 2) {
        kill(process_transport_last(g->transport), SIGKILL);
        g->kills++;
    } else {
        g->cuts += cut_tcp();
    }
    return 0;
}

static int renew(void *context, struct agent_session **a, const struct err *why, struct err *e)
{
    struct giant *g = context;

    (void)why;
    agent_session_end(*a);
    *a = NULL;
    g->renewals++;
    return agent_session_start(a, &g->config, e);
}

static void notice(void *context, const struct transfer_disk *disk, enum transfer_notice kind,
                   const char *text)
{
    const struct giant *g = context;

    (void)disk;
    (void)kind;
    if (!g->cutting)
        printf("notice: %s\n", text);
}

/* --- a transfer --- */

static void giant_start(struct giant *g)
{
    const char *agent = getenv("GIANT_AGENT");
    struct err e = { 0 };

    memset(g, 0, sizeof *g);
    must(agent != NULL, "GIANT_AGENT is not set", NULL);
    snprintf(g->dir, sizeof g->dir, "%s/vmferry-giant-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    must(mkdtemp(g->dir) != NULL, "no folder", NULL);
    snprintf(g->place, sizeof g->place, "%s/m", g->dir);
    snprintf(g->command, sizeof g->command, "exec '%s' --serve", agent);
    must(process_transport_new(&g->transport, &e) == 0, "transport", &e);
    g->config = (struct agent_session_config){ .transport = g->transport,
                                               .command = g->command,
                                               .mode_set = RECORD_MODE_SET_ALL,
                                               .workers_max = 2,
                                               .memory_bytes = 48 << 20,
                                               .listen_address = "127.0.0.1" };
}

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *f)
{
    (void)s;
    (void)kind;
    (void)f;
    return remove(path);
}

static void giant_end(struct giant *g)
{
    g->transport->ops->close(g->transport);
    nftw(g->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void carry(struct giant *g, const char *path, uint64_t capacity, struct sink *sink,
                  struct transfer_disk *out)
{
    struct transfer_options options = { .compress = 1,
                                        .rate_bytes = g->rate_bytes,
                                        .context = g,
                                        .watch = watch,
                                        .renew = renew,
                                        .notice = notice,
                                        .channel = CHANNEL_TCP };
    struct err e = { 0 };

    *out = (struct transfer_disk){
        .name = "scsi0:0", .path = path, .capacity_bytes = capacity, .sink = sink
    };
    must(agent_session_start(&g->session, &g->config, &e) == 0, "the agent does not start", &e);
    must(transfer_run(&g->session, out, 1, &options, &e) == 0, "the transfer failed", &e);
    look_at_memory(g);
    must(agent_session_end(g->session), "the agent does not end", NULL);
}

static const struct mirror_vm vm = { .host_uuid = "11111111-2222-3333-4444-555555555555",
                                     .host_name = "stub",
                                     .uuid = "564d8a0c-0000-1111-2222-333344445555",
                                     .vmx_path = "[ds1] giant/giant.vmx",
                                     .name = "giant" };

/* A whole run into the mirror: what came, and what the store made of it. */
static void mirror_from(struct giant *g, const char *path, uint64_t capacity,
                        struct transfer_disk *out, struct mirror_disk_result *result)
{
    struct mirror_disk d = { .slot = "scsi0:0",
                             .uuid = "60 00 C2 91 00 00 00 00-00 00 00 00 00 00 00 0a",
                             .capacity_bytes = capacity,
                             .included = true };
    struct mirror_run_options o = { .keep = 1, .block_bytes = BLOCK };
    struct mirror_disk_facts disk_facts = { .read_path = "agent" };
    struct mirror_facts f = { .time = 1763600000,
                              .kind = "full",
                              .outcome = "ok",
                              .consistency = "crash",
                              .data_channel = "tcp",
                              .read_path = "agent",
                              .change_source = "full",
                              .snapshot = "stub",
                              .disks = &disk_facts };
    struct mirror_committed c;
    struct mirror_run *r = NULL;
    struct mirror *m = NULL;
    struct sink *sink;
    struct err e = { 0 };

    must(mirror_open_vm(&m, g->place, &vm, false, NULL, &e) == 0, "opening the mirror", &e);
    must(mirror_run_begin(&r, m, &o, &d, 1, &e) == 0, "beginning a run", &e);
    must(mirror_run_sink(r, 0, &sink, &e) == 0, "opening the sink", &e);
    carry(g, path, capacity, sink, out);
    sink->ops->close(sink);
    must(mirror_run_commit(r, &f, &c, &e) == 0, "commit", &e);
    look_at_memory(g);
    must(mirror_run_apply(r, &e) == 0, "apply", &e);
    must(mirror_run_result(r, 0, result) == 0, "result", NULL);
    look_at_memory(g);
    mirror_run_end(r);
    mirror_close(m);
}

/* The image holds the ten places, and little else. */
static void check_places(struct giant *g, const struct stub_disk *d)
{
    uint64_t pages = d->capacity_bytes / STUB_PAGE_BYTES, step = pages / STUB_PLACES;
    uint8_t want[STUB_PAGE_BYTES], have[STUB_PAGE_BYTES];
    char path[160];
    struct stat s;
    struct err e = { 0 };
    int fd;

    snprintf(path, sizeof path, "%s/giant/disk-scsi0-0.raw", g->place);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && fstat(fd, &s) == 0, "no image", NULL);
    must((uint64_t)s.st_size == d->capacity_bytes, "the image has another size", NULL);
    must((uint64_t)s.st_blocks * 512 <= 3 * STUB_PLACES * BLOCK, "the image is not sparse", NULL);
    for (uint64_t i = 0; i < STUB_PLACES; i++) {
        uint64_t page = i * step + step / 2;

        must(stub_is_special(d, page), "the test looks at the wrong page", NULL);
        stub_page(d, page, want);
        must(pread(fd, have, sizeof have, (off_t)(page * STUB_PAGE_BYTES)) == (ssize_t)sizeof have,
             "reading the image", &e);
        must(memcmp(have, want, sizeof want) == 0, "a changed block did not come", NULL);
    }
    close(fd);
}

static void show_memory(const struct giant *g)
{
    printf("agent VmHWM %.1f MiB (bar %lu), receiver RssAnon %.1f MiB (bar %lu), its VmHWM %.1f "
           "MiB\n",
           (double)g->agent_kib / 1024, agent_bar_kib / 1024, (double)g->receiver_kib / 1024,
           receiver_bar_kib / 1024, (double)status_kib(getpid(), "VmHWM:") / 1024);
    must(g->agent_kib > 0 && g->agent_kib <= agent_bar_kib, "the agent needs too much memory",
         NULL);
    must(g->receiver_kib <= receiver_bar_kib, "the receiver needs too much memory", NULL);
}

/* --- sparse --- */

static void play_sparse(uint64_t capacity)
{
    struct stub_disk d = { .capacity_bytes = capacity, .version = 1 };
    struct mirror_disk_result result;
    struct transfer_disk t;
    struct giant g;

    giant_start(&g);
    mirror_from(&g, "/stub/sparse/1", capacity, &t, &result);
    check_places(&g, &d);
    printf("sparse: %.1f TiB, %" PRIu64 " bytes read, %" PRIu64 " sampled, %" PRIu64
           " sent, %.2f s\n",
           (double)capacity / 1024 / (double)gib, t.totals.read_bytes, t.totals.sampled_bytes,
           t.totals.sent_bytes, (double)t.ms / 1000);
    must(t.totals.read_bytes <= (uint64_t)STUB_PLACES * BLOCK, "holes were read", NULL);
    show_memory(&g);
    giant_end(&g);
}

/* --- refresh with all digests set --- */

/* The value of a line `key value` of a manifest; its end in *end. */
static char *value_of(char *text, const char *key, char **end)
{
    char line[80];
    char *at;

    snprintf(line, sizeof line, "\n%s ", key);
    at = strstr(text, line);
    must(at != NULL, "the manifest lacks a line", NULL);
    at += strlen(line);
    *end = strchr(at, '\n');
    return at;
}

/* The manifest of generation 1 as text; the descriptor is left behind it. */
static char *load_manifest(const char *store, int *fd)
{
    static char text[1 << 16];
    char path[200];
    ssize_t bytes;

    snprintf(path, sizeof path, "%s/generation-1", store);
    *fd = open(path, O_RDWR | O_CLOEXEC);
    bytes = *fd < 0 ? -1 : read(*fd, text, sizeof text - 1);
    must(bytes > 0, "no manifest", NULL);
    text[bytes] = '\0';
    return text;
}

/* Another root in the manifest, and its hash anew. */
static void set_root(const char *store, const struct digest *root)
{
    uint8_t hash[crypto_hash_sha256_BYTES];
    char hex[DIGEST_HEX_BYTES], *text, *at, *end;
    struct err e = { 0 };
    int fd;

    text = load_manifest(store, &fd);
    at = value_of(text, "root", &end);
    digest_hex(root, hex);
    must(end - at == (ptrdiff_t)strlen(hex), "a root of another length", NULL);
    memcpy(at, hex, strlen(hex));
    at = value_of(text, "sha256", &end);
    crypto_hash_sha256(hash, (const uint8_t *)text, (size_t)(at - text) - strlen("sha256 "));
    sodium_bin2hex(at, 2 * sizeof hash + 1, hash, sizeof hash);
    *end = '\n';
    must(lseek(fd, 0, SEEK_SET) == 0 && io_write_all(fd, text, strlen(text), &e) == 0,
         "writing the manifest", &e);
    close(fd);
}

static void read_secret(const char *store, struct digest_secret *secret)
{
    char *at, *end;
    int fd;

    at = value_of(load_manifest(store, &fd), "secret", &end);
    must(sodium_hex2bin(secret->b, sizeof secret->b, at, (size_t)(end - at), NULL, NULL, NULL) == 0,
         "no secret", NULL);
    close(fd);
}

/*
 * Generation 1 now claims that the full disk is there: its digests are those of /stub/full/0, as
 * nobody could write or read so much.  The image stays a hole; only what changes is written to it.
 */
static void set_digests(struct giant *g, uint64_t capacity)
{
    static struct digest digests[DIGESTS_AT_ONCE];
    static uint8_t block[BLOCK];
    const struct stub_disk d = { .capacity_bytes = capacity, .full = true };
    const size_t period = (1 << 20) / BLOCK;
    char store[120], path[200];
    struct digest_secret secret;
    struct digest root;
    struct tree *t;
    struct err e = { 0 };
    int fd;

    snprintf(store, sizeof store, "%s/giant/.vmferry", g->place);
    read_secret(store, &secret);
    for (size_t i = 0; i < period; i++) {
        for (uint64_t page = 0; page < BLOCK / STUB_PAGE_BYTES; page++)
            stub_page(&d, i * (BLOCK / STUB_PAGE_BYTES) + page, block + page * STUB_PAGE_BYTES);
        digests[i] = digest_of(&secret, block, BLOCK);
    }
    for (size_t i = period; i < DIGESTS_AT_ONCE; i++)
        digests[i] = digests[i % period];
    snprintf(path, sizeof path, "%s/digests-1", store);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    must(fd >= 0 && tree_new(&t, &secret, capacity, BLOCK, &e) == 0, "digests", &e);
    for (uint64_t left = capacity / BLOCK; left > 0;) {
        size_t count = (size_t)min_u64(left, DIGESTS_AT_ONCE);

        must(io_write_all(fd, digests, count * sizeof digests[0], &e) == 0 &&
                 tree_add(t, digests, count, &e) == 0,
             "writing digests", &e);
        left -= count;
    }
    must(tree_root(t, &root, &e) == 0, "root", &e);
    tree_free(t);
    close(fd);
    set_root(store, &root);
}

static void play_refresh(uint64_t capacity)
{
    struct stub_disk d = { .capacity_bytes = capacity, .version = 2, .full = true };
    struct mirror_disk_result result;
    struct transfer_disk t;
    struct giant g;

    giant_start(&g);
    mirror_from(&g, "/stub/sparse/0", capacity, &t, &result);
    set_digests(&g, capacity);
    mirror_from(&g, "/stub/full/2", capacity, &t, &result);
    check_places(&g, &d);
    printf("refresh: %.2f TiB, %" PRIu64 " blocks of digests, %.1f s (%.1f GiB/s), %" PRIu64
           " bytes changed, %" PRIu64 " sent\n",
           (double)capacity / 1024 / (double)gib, capacity / BLOCK, (double)t.ms / 1000,
           (double)capacity / (double)gib / ((double)t.ms / 1000 + 0.001), result.changed_bytes,
           t.totals.sent_bytes);
    must(t.totals.read_bytes == capacity, "not all was read", NULL);
    must(t.totals.same_bytes == capacity - STUB_PLACES * (uint64_t)BLOCK, "more came than changed",
         NULL);
    show_memory(&g);
    giant_end(&g);
}

/* --- nonces --- */

static int sink_held(struct sink *s, uint64_t offset, uint64_t limit, struct digest *digests,
                     size_t room, struct held *out, struct err *e)
{
    (void)s;
    (void)digests;
    (void)room;
    (void)e;
    *out = (struct held){ offset, limit, HELD_UNKNOWN };
    return 0;
}

static int sink_run(struct sink *s, uint64_t offset, uint64_t length, struct err *e)
{
    (void)s;
    (void)offset;
    (void)length;
    (void)e;
    return 0;
}

static int sink_data(struct sink *s, const struct sink_block *block, struct err *e)
{
    (void)s;
    (void)block;
    (void)e;
    return 0;
}

static int sink_end(struct sink *s, const struct digest *root, struct err *e)
{
    (void)s;
    (void)root;
    (void)e;
    return 0;
}

static void sink_close(struct sink *s)
{
    (void)s;
}

static int compare_lines(const void *a, const void *b)
{
    return memcmp(a, b, NONCE_LINE_BYTES);
}

/* How many records the log has; none may be there twice.  *keys: how many keys sealed them. */
static size_t audit(const char *path, size_t *keys)
{
    struct stat s;
    uint8_t *lines;
    struct err e = { 0 };
    size_t count;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    must(fd >= 0 && fstat(fd, &s) == 0 && s.st_size % NONCE_LINE_BYTES == 0, "no log", NULL);
    count = (size_t)s.st_size / NONCE_LINE_BYTES;
    lines = malloc((size_t)s.st_size + 1);
    must(lines != NULL &&
             io_read_until(fd, lines, (size_t)s.st_size, io_clock_ms() + 60000, &e) == 0,
         "reading the log", &e);
    close(fd);
    qsort(lines, count, NONCE_LINE_BYTES, compare_lines);
    *keys = count > 0;
    for (size_t i = 1; i < count; i++) {
        const uint8_t *last = lines + (i - 1) * NONCE_LINE_BYTES, *line = last + NONCE_LINE_BYTES;

        must(memcmp(last, line, NONCE_LINE_BYTES) != 0, "a (key, nonce) came twice", NULL);
        *keys += memcmp(last, line, NONCE_KEY_BYTES) != 0;
    }
    free(lines);
    return count;
}

/*
 * Each block of 16 KiB is a record of its own, of about NONCE_RECORD_BYTES, so that it lasts long
 * enough to be cut often.
 */
static void play_nonces(uint64_t records)
{
    static const struct sink_ops ops = { sink_held, sink_run, sink_run,
                                         sink_data, sink_end, sink_close };
    uint64_t capacity = (records * (16 << 10) + (1 << 20) - 1) >> 20 << 20;
    struct sink sink = { .ops = &ops, .capacity_bytes = capacity, .block_bytes = 16 << 10 };
    const char *log = getenv("VMFERRY_NONCE_LOG");
    struct transfer_disk t;
    struct giant g;
    size_t count, keys;

    must(log != NULL, "VMFERRY_NONCE_LOG is not set", NULL);
    giant_start(&g);
    g.cutting = true;
    g.rate_bytes = records * NONCE_RECORD_BYTES / NONCE_SECONDS + 1;
    for (unsigned i = 0; i < sizeof sink.secret.b; i++)
        sink.secret.b[i] = (uint8_t)(i * 29 + 3);
    carry(&g, "/stub/full/3", capacity, &sink, &t);
    giant_end(&g);
    count = audit(log, &keys);
    printf("nonces: %zu records under %zu keys, none twice; %u connections cut, %u agents killed, "
           "%" PRIu64 " openings\n",
           count, keys, g.cuts, g.kills, t.totals.openings);
    must(count >= records, "too few records", NULL);
    must(g.cuts > 0 && g.kills > 0 && t.totals.openings > 2, "nothing was opened again", NULL);
}

int main(int argc, char **argv)
{
    uint64_t number = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;

    signal(SIGPIPE, SIG_IGN);
    if (number == 0 || sodium_init() < 0) {
        fprintf(stderr, "usage: giant refresh GIB | sparse GIB | nonces RECORDS\n");
        return 2;
    }
    if (strcmp(argv[1], "refresh") == 0)
        play_refresh(number * gib);
    else if (strcmp(argv[1], "sparse") == 0)
        play_sparse(number * gib);
    else if (strcmp(argv[1], "nonces") == 0)
        play_nonces(number);
    else
        return 2;
    return 0;
}
