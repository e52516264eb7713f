/*
 * What the agent does, without its protocol: read a file, hash it, compress, seal, and back, in
 * threads where there are any.  Built like the agent and run under the system-call filter, and
 * built for this machine: both must print the same.  So the distribution's archives, which were
 * made for glibc, are seen to work inside a musl program.
 *
 *     agent-selftest FILE
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>
#include <zstd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/digest.h"
#include "protocol/wire/crypto.h"
#include "protocol/wire/record.h"

enum { BLOCK = 64 << 10, BLOCKS = 4, THREADS = 2, STACK_BYTES = 256 << 10 };

struct work {
    struct digest_secret secret;
    uint8_t plain[BLOCKS][BLOCK];
    uint8_t out[BLOCKS][RECORD_OVERHEAD_BYTES + BLOCK + (BLOCK >> 8) + 64];
    uint8_t back[BLOCKS][BLOCK];
    char report[BLOCKS][160];
    struct err error[BLOCKS];
    int rc[BLOCKS];
};

struct share {
    struct work *work;
    size_t first, end;
};

/* Seal the packed block in place and open it again: only then may zstd read it. */
static int round_trip(struct work *w, size_t i, size_t packed, uint8_t aead, enum record_mode mode,
                      uint8_t tag[RECORD_TAG_BYTES])
{
    static const uint8_t key[AEAD_KEY_BYTES] = "a key that is known to everybody";
    struct record_key from = { 0 }, to = { 0 };
    uint8_t *payload;
    size_t bytes;
    int rc = -1;

    if (record_key_start(&from, aead_sodium_find(aead), mode, key, &w->error[i]) != 0 ||
        record_key_start(&to, aead_sodium_find(aead), mode, key, &w->error[i]) != 0)
        goto out;
    if (record_seal(&from, w->out[i], packed, &w->error[i]) != 0)
        goto out;
    memcpy(tag, w->out[i] + RECORD_HEADER_BYTES + packed, RECORD_TAG_BYTES);
    if (record_open(&to, w->out[i], packed + RECORD_OVERHEAD_BYTES, &payload, &bytes,
                    &w->error[i]) != 0)
        goto out;
    rc = 0;

out:
    record_key_end(&from);
    record_key_end(&to);
    return rc;
}

static int do_block(struct work *w, size_t i, ZSTD_CCtx *pack, ZSTD_DCtx *unpack)
{
    struct digest d = digest_of(&w->secret, w->plain[i], BLOCK);
    uint8_t *room = w->out[i] + RECORD_HEADER_BYTES, tag[RECORD_TAG_BYTES];
    char hex[DIGEST_HEX_BYTES], tag_hex[2 * RECORD_TAG_BYTES + 1];
    size_t packed =
        ZSTD_compress2(pack, room, sizeof w->out[i] - RECORD_OVERHEAD_BYTES, w->plain[i], BLOCK);
    size_t at;

    if (ZSTD_isError(packed))
        return err_set(&w->error[i], ERR_SYSTEM, "%s", ZSTD_getErrorName(packed));
    digest_hex(&d, hex);
    at = (size_t)snprintf(w->report[i], sizeof w->report[i], "%s", hex);
    for (uint8_t aead = 1; aead < AEAD_ID_END; aead++)
        for (enum record_mode mode = 1; mode < RECORD_MODE_END; mode++) {
            if (aead_sodium_find(aead) == NULL)
                continue;
            if (round_trip(w, i, packed, aead, mode, tag) != 0)
                return -1;
            sodium_bin2hex(tag_hex, sizeof tag_hex, tag, 8);
            at += (size_t)snprintf(w->report[i] + at, sizeof w->report[i] - at, " %s", tag_hex);
        }
    if (ZSTD_decompressDCtx(unpack, w->back[i], BLOCK, room, packed) != BLOCK ||
        memcmp(w->back[i], w->plain[i], BLOCK) != 0)
        return err_set(&w->error[i], ERR_CORRUPT, "block %zu does not come back", i);
    return 0;
}

static void *do_share(void *arg)
{
    struct share *s = arg;
    ZSTD_CCtx *pack = ZSTD_createCCtx();
    ZSTD_DCtx *unpack = ZSTD_createDCtx();

    for (size_t i = s->first; i < s->end; i++)
        s->work->rc[i] = pack != NULL && unpack != NULL ? do_block(s->work, i, pack, unpack) : -1;
    ZSTD_freeCCtx(pack);
    ZSTD_freeDCtx(unpack);
    return NULL;
}

/* Returns how many threads there were: what cannot be given to one is done here. */
static int run(struct work *w)
{
    struct share share[THREADS];
    pthread_t thread[THREADS];
    pthread_attr_t attributes;
    int started = 0;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    for (size_t i = 0; i < THREADS; i++) {
        share[i] = (struct share){ w, i * BLOCKS / THREADS, (i + 1) * BLOCKS / THREADS };
        if (pthread_create(&thread[started], &attributes, do_share, &share[i]) == 0)
            started++;
        else
            do_share(&share[i]);
    }
    for (int i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

int main(int argc, char **argv)
{
    struct work *w = calloc(1, sizeof *w);
    struct err e = { .code = ERR_NONE };
    uint8_t random[64], zero[64] = { 0 };
    int fd = -1, threads, rc = 1;

    if (argc != 2 || w == NULL)
        goto out;
    for (size_t i = 0; i < DIGEST_SECRET_BYTES; i++)
        w->secret.b[i] = (uint8_t)(i * 7 + 1);
    fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        err_sys(&e, "%s", argv[1]);
        goto out;
    }
    if (crypto_start(&e) != 0 || crypto_random(random, sizeof random, &e) != 0 ||
        io_pread_all(fd, w->plain, sizeof w->plain, 0, &e) != 0)
        goto out;
    if (memcmp(random, zero, sizeof random) == 0) {
        err_set(&e, ERR_SYSTEM, "random bytes are zeros");
        goto out;
    }
    threads = run(w);
    for (size_t i = 0; i < BLOCKS; i++) {
        if (w->rc[i] != 0) {
            e = w->error[i];
            goto out;
        }
        printf("%s\n", w->report[i]);
    }
    printf("threads %d\n", threads);
    rc = fflush(stdout) == 0 ? 0 : 1;

out:
    if (e.code != ERR_NONE)
        fprintf(stderr, "agent-selftest: %s\n", e.text);
    io_drop(&fd);
    free(w);
    return rc;
}
