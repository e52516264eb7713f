/*
 * What this machine can do at best, for the benchmark: how fast one core reads a disk from the page
 * cache, tests it for zeros and digests it, packs its blocks, seals and opens records, and what
 * loopback TCP carries.  And how small the changes between two versions of a disk can be made.
 *
 *     limits speed DISK            one JSON line for each: name, bytes, seconds, cpu_seconds
 *     limits changed OLD NEW SIZE  one JSON line: what differs, in blocks of SIZE bytes
 *
 * By the project's own functions where it has them, so that the figures are those of the libraries
 * that the programs use.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <zstd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/digest.h"
#include "protocol/wire/aead.h"
#include "protocol/wire/crypto.h"
#include "receiver/base/aead_openssl.h"

enum {
    PIECE_BYTES = 1 << 20,
    BLOCK_BYTES = 64 << 10,
    PACK_EVERY = 8, /* of the pieces with data: packing them all takes too long */
    SEAL_BYTES = 1 << 30,
    PIPE_WRITE_BYTES = 256 << 10,
};
#define PIPE_BYTES ((uint64_t)4 << 30)

struct clocks {
    double wall, cpu;
};

static double seconds_of(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct clocks clocks_now(void)
{
    return (struct clocks){ seconds_of(CLOCK_MONOTONIC), seconds_of(CLOCK_PROCESS_CPUTIME_ID) };
}

static void tell(const char *name, uint64_t bytes, struct clocks began)
{
    struct clocks now = clocks_now();

    printf("{\"name\":\"%s\",\"bytes\":%" PRIu64 ",\"seconds\":%.4f,\"cpu_seconds\":%.4f}\n", name,
           bytes, now.wall - began.wall, now.cpu - began.cpu);
    fflush(stdout);
}

static void die(const char *what)
{
    fprintf(stderr, "limits: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *need(void *p)
{
    if (p == NULL)
        die("getting memory");
    return p;
}

static int open_disk(const char *path, uint64_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

    if (end < 0)
        die(path);
    *size = (uint64_t)end;
    return fd;
}

static void read_all(int fd, uint8_t *out, size_t count, uint64_t offset)
{
    struct err e;

    if (io_pread_all(fd, out, count, offset, &e) != 0) {
        fprintf(stderr, "limits: %s\n", e.text);
        exit(1);
    }
}

/* The next piece of stored data from *at on; 0 at the end. */
static size_t next_piece(int fd, uint64_t size, uint64_t *at, uint64_t *hole)
{
    if (*at >= *hole) {
        off_t data = lseek(fd, (off_t)*at, SEEK_DATA);

        if (data < 0 || (uint64_t)data >= size)
            return 0;
        *at = (uint64_t)data / BLOCK_BYTES * BLOCK_BYTES;
        *hole = (uint64_t)lseek(fd, data, SEEK_HOLE);
        *hole = (*hole + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
        if (*hole > size)
            *hole = size;
    }
    return (size_t)(*hole - *at < PIECE_BYTES ? *hole - *at : PIECE_BYTES);
}

/* ---- speed ---- */

static void scan(int fd, uint64_t size, uint8_t *piece, const struct digest_secret *secret)
{
    struct clocks began = clocks_now();
    uint64_t at = 0, hole = 0, total = 0;
    size_t count;
    uint8_t sink = 0;

    while ((count = next_piece(fd, size, &at, &hole)) > 0) {
        read_all(fd, piece, count, at);
        for (size_t i = 0; i < count; i += BLOCK_BYTES) {
            size_t n = count - i < BLOCK_BYTES ? count - i : BLOCK_BYTES;
            struct digest d = digest_of(secret, piece + i, n);

            sink ^= d.b[0];
        }
        at += count;
        total += count;
    }
    tell("scan", total, began);
    if (sink == 1)
        fputs("", stderr); /* the digests are used */
}

/* Only the digests, from memory that is warm as it is behind a read or a decryption. */
static void digest_speed(const uint8_t *data, size_t count, const struct digest_secret *secret)
{
    struct clocks began = clocks_now();
    uint8_t sink = 0;

    for (uint64_t done = 0; done < SEAL_BYTES; done += count)
        for (size_t i = 0; i + BLOCK_BYTES <= count; i += BLOCK_BYTES)
            sink ^= digest_of_data(secret, data + i, BLOCK_BYTES).b[0];
    tell("digest", SEAL_BYTES, began);
    if (sink == 1)
        fputs("", stderr);
}

static void pack_speed(int fd, uint64_t size, uint8_t *piece)
{
    ZSTD_CCtx *packer = need(ZSTD_createCCtx());
    size_t room = ZSTD_compressBound(BLOCK_BYTES), count;
    uint8_t *out = need(malloc(room));
    uint64_t at = 0, hole = 0, total = 0, packed = 0;
    double wall = 0, cpu = 0;
    unsigned number = 0;

    ZSTD_CCtx_setParameter(packer, ZSTD_c_compressionLevel, 1);
    for (; (count = next_piece(fd, size, &at, &hole)) > 0; at += count) {
        struct clocks began, ended;

        if (number++ % PACK_EVERY != 0)
            continue;
        read_all(fd, piece, count, at);
        began = clocks_now();
        for (size_t i = 0; i < count; i += BLOCK_BYTES)
            packed += ZSTD_compress2(packer, out, room, piece + i,
                                     count - i < BLOCK_BYTES ? count - i : BLOCK_BYTES);
        ended = clocks_now();
        wall += ended.wall - began.wall;
        cpu += ended.cpu - began.cpu;
        total += count;
    }
    printf("{\"name\":\"zstd 1\",\"bytes\":%" PRIu64 ",\"seconds\":%.4f,\"cpu_seconds\":%.4f,"
           "\"packed\":%" PRIu64 "}\n",
           total, wall, cpu, packed);
    free(out);
    ZSTD_freeCCtx(packer);
}

static void aead_speed(const char *name, const struct aead *a, const uint8_t *plain)
{
    static const uint8_t secret[AEAD_KEY_BYTES] = { 1 };
    uint8_t nonce[AEAD_NONCE_BYTES] = { 0 }, *sealed = need(malloc(BLOCK_BYTES + AEAD_TAG_BYTES));
    uint8_t *again = need(malloc(BLOCK_BYTES + AEAD_TAG_BYTES));
    struct clocks began;
    struct err e = { 0 };
    char label[64];
    void *key;
    int rc;

    if (a == NULL) {
        fprintf(stderr, "limits: no AES-256-GCM by %s here\n", name);
        exit(1);
    }
    rc = a->key_new(&key, secret, &e);
    began = clocks_now();
    for (uint64_t i = 0; rc == 0 && i < SEAL_BYTES / BLOCK_BYTES; i++) {
        memcpy(nonce, &i, sizeof i);
        rc = a->seal(key, nonce, NULL, 0, plain, BLOCK_BYTES, sealed, &e);
    }
    snprintf(label, sizeof label, "seal %s", name);
    if (rc == 0)
        tell(label, SEAL_BYTES, began);
    began = clocks_now();
    for (uint64_t i = 0; rc == 0 && i < SEAL_BYTES / BLOCK_BYTES; i++)
        rc = a->open(key, nonce, NULL, 0, sealed, BLOCK_BYTES + AEAD_TAG_BYTES, again, &e);
    if (rc != 0) {
        fprintf(stderr, "limits: %s: %s\n", name, e.text);
        exit(1);
    }
    snprintf(label, sizeof label, "open %s", name);
    tell(label, SEAL_BYTES, began);
    a->key_free(key);
    free(sealed);
    free(again);
}

static void *pour(void *context)
{
    int fd = *(int *)context;
    uint8_t *data = need(calloc(1, PIPE_WRITE_BYTES));
    struct err e;

    for (uint64_t done = 0; done < PIPE_BYTES; done += PIPE_WRITE_BYTES)
        if (io_write_all(fd, data, PIPE_WRITE_BYTES, &e) != 0)
            break;
    shutdown(fd, SHUT_WR);
    free(data);
    return NULL;
}

static void loopback(uint8_t *piece)
{
    struct sockaddr_in here = { .sin_family = AF_INET };
    socklen_t length = sizeof here;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), from, to;
    struct clocks began;
    uint64_t total = 0;
    pthread_t thread;
    ssize_t n;

    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || bind(listener, (struct sockaddr *)&here, sizeof here) != 0 ||
        listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&here, &length) != 0)
        die("a loopback port");
    from = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (from < 0 || connect(from, (struct sockaddr *)&here, sizeof here) != 0)
        die("connecting on loopback");
    to = accept(listener, NULL, NULL);
    if (to < 0)
        die("accepting on loopback");
    began = clocks_now();
    if (pthread_create(&thread, NULL, pour, &from) != 0)
        die("making a thread");
    while ((n = read(to, piece, PIECE_BYTES)) > 0)
        total += (uint64_t)n;
    pthread_join(thread, NULL);
    if (total != PIPE_BYTES)
        die("reading on loopback");
    tell("loopback TCP", total, began);
    close(from);
    close(to);
    close(listener);
}

static int speed(const char *path)
{
    struct digest_secret secret = { { 7 } };
    uint8_t *piece = need(malloc(PIECE_BYTES));
    uint64_t size, at = 0, hole = 0;
    int fd = open_disk(path, &size);
    size_t count;

    scan(fd, size, piece, &secret);
    pack_speed(fd, size, piece);
    count = next_piece(fd, size, &at, &hole);
    if (count < PIECE_BYTES)
        memset(piece, 0x5a, PIECE_BYTES);
    else
        read_all(fd, piece, count, at);
    digest_speed(piece, PIECE_BYTES, &secret);
    aead_speed("libsodium", aead_sodium_find(AEAD_AES_256_GCM), piece);
    aead_speed("OpenSSL", aead_openssl_find(AEAD_AES_256_GCM), piece);
    loopback(piece);
    close(fd);
    free(piece);
    return 0;
}

/* ---- changed ---- */

struct packing {
    ZSTD_CCtx *whole, *single;
    uint8_t *out;
    size_t room;
    uint64_t whole_bytes, single_bytes;
};

/* As one stream, which is what `zstd -1` makes of them, and each for itself. */
static void pack(struct packing *p, const uint8_t *block, size_t count, ZSTD_EndDirective end)
{
    ZSTD_inBuffer in = { block, count, 0 };
    size_t left;

    do {
        ZSTD_outBuffer out = { p->out, p->room, 0 };

        left = ZSTD_compressStream2(p->whole, &out, &in, end);
        if (ZSTD_isError(left))
            die(ZSTD_getErrorName(left));
        p->whole_bytes += out.pos;
    } while (in.pos < in.size || (end == ZSTD_e_end && left > 0));
    if (count > 0) {
        size_t n = ZSTD_compress2(p->single, p->out, p->room, block, count);

        p->single_bytes += n < count ? n : count;
    }
}

static int changed(const char *old_path, const char *new_path, size_t block)
{
    uint64_t old_size, new_size, blocks = 0, bytes = 0, zeros = 0;
    int old_fd = open_disk(old_path, &old_size), new_fd = open_disk(new_path, &new_size);
    uint8_t *a = need(malloc(block)), *b = need(malloc(block));
    struct packing p = { .whole = need(ZSTD_createCCtx()), .single = need(ZSTD_createCCtx()) };

    p.room = ZSTD_compressBound(block);
    p.out = need(malloc(p.room));
    ZSTD_CCtx_setParameter(p.whole, ZSTD_c_compressionLevel, 1);
    ZSTD_CCtx_setParameter(p.single, ZSTD_c_compressionLevel, 1);
    if (old_size != new_size) {
        errno = EINVAL;
        die("two disks of one size are wanted");
    }
    for (uint64_t at = 0; at < new_size; at += block) {
        size_t n = (size_t)(new_size - at < block ? new_size - at : block);

        read_all(old_fd, a, n, at);
        read_all(new_fd, b, n, at);
        if (memcmp(a, b, n) == 0)
            continue;
        blocks++;
        bytes += n;
        if (block_is_zero(b, n))
            zeros += n;
        else
            pack(&p, b, n, ZSTD_e_continue);
    }
    pack(&p, b, 0, ZSTD_e_end);
    printf("{\"name\":\"changed\",\"block\":%zu,\"blocks\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"zero_bytes\":%" PRIu64 ",\"zstd_stream\":%" PRIu64 ",\"zstd_blocks\":%" PRIu64 "}\n",
           block, blocks, bytes, zeros, p.whole_bytes, p.single_bytes);
    ZSTD_freeCCtx(p.whole);
    ZSTD_freeCCtx(p.single);
    free(p.out);
    free(a);
    free(b);
    close(old_fd);
    close(new_fd);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "speed") == 0)
        return speed(argv[2]);
    if (argc == 5 && strcmp(argv[1], "changed") == 0 &&
        block_size_valid(strtoull(argv[4], NULL, 10)))
        return changed(argv[2], argv[3], (size_t)strtoull(argv[4], NULL, 10));
    fputs("usage: limits speed DISK | limits changed OLD NEW BLOCK_BYTES\n", stderr);
    return 2;
}
