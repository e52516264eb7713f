#include "protocol/stream/piece.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "protocol/base/checked.h"
#include "protocol/base/io.h"
#include "protocol/block/source.h"
#include "protocol/stream/hub.h"
#include "protocol/stream/level.h"
#include "protocol/stream/sink.h"
#include "protocol/wire/messages.h"

enum {
    AUTO_LEVEL_FIRST = 1,
    AUTO_LEVEL_MIN = -3,
    AUTO_LEVEL_MAX = 5,
    AUTO_PERIOD_MS = 1000,
};

struct piece_set {
    struct source *source;
    struct pool *pool;
    struct digest_secret secret;
    uint32_t block;
    size_t piece_bytes;
    uint8_t compress;
    unsigned count;
    struct piece pieces[PIECES_MAX];
    ZSTD_CCtx *packers[POOL_WORKERS_MAX]; /* each belongs to one worker */
    bool asks;                            /* the owner's, like the key, which is set once */
    uint8_t ask_key[ASK_KEY_BYTES];

    pthread_mutex_t lock; /* guards the flags of pieces and all below */
    pthread_cond_t settled;
    unsigned under_way;
    int level;
    unsigned waits, flows;
    uint64_t level_since_ms;
};

static int buffers_new(struct piece_set *s, struct piece *p, struct err *e)
{
    p->set = s;
    p->in = malloc(s->piece_bytes);
    p->out = s->compress != 0 ? malloc(s->piece_bytes) : NULL;
    if (p->in == NULL || (s->compress != 0 && p->out == NULL))
        return err_sys(e, "getting memory for disk blocks");
    return 0;
}

int piece_set_new(struct piece_set **out, struct source *source, struct pool *pool,
                  const struct digest_secret *secret, uint32_t block_bytes, uint8_t compress,
                  size_t memory_bytes, struct err *e)
{
    struct piece_set *s = calloc(1, sizeof *s);
    size_t each;
    unsigned want;

    if (s == NULL)
        return err_sys(e, "getting memory for disk blocks");
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->settled, NULL);
    s->source = source;
    s->pool = pool;
    s->secret = *secret;
    s->block = block_bytes;
    s->compress = compress;
    s->level = compress == COMPRESS_AUTO ? AUTO_LEVEL_FIRST : compress;
    s->piece_bytes = block_bytes > PIECE_BYTES ? block_bytes : PIECE_BYTES;
    each = s->piece_bytes * (compress != 0 ? 2 : 1);
    /* One being read by each worker, one being emitted, one between. */
    want = pool_workers(pool) == 0 ? 1 : pool_workers(pool) * 2 + 1;
    if (want > PIECES_MAX)
        want = PIECES_MAX;
    while (want > 2 && want * each > memory_bytes)
        want--;
    for (unsigned i = 0; i < want; i++) {
        s->count++;
        if (buffers_new(s, &s->pieces[i], e) != 0) {
            piece_set_free(s);
            return -1;
        }
    }
    *out = s;
    return 0;
}

void piece_set_settle(struct piece_set *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->under_way > 0)
        pthread_cond_wait(&s->settled, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

void piece_set_free(struct piece_set *s)
{
    if (s == NULL)
        return;
    piece_set_settle(s);
    for (unsigned i = 0; i < s->count; i++) {
        free(s->pieces[i].in);
        free(s->pieces[i].out);
    }
    for (unsigned i = 0; i < POOL_WORKERS_MAX; i++)
        ZSTD_freeCCtx(s->packers[i]);
    pthread_cond_destroy(&s->settled);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/*
 * Raise the level when sending is what waits, lower it when packing is; one step a second.
 */
void piece_set_pressure(struct piece_set *s, bool waited)
{
    uint64_t now;

    if (s->compress != COMPRESS_AUTO)
        return;
    now = io_clock_ms();
    pthread_mutex_lock(&s->lock);
    if (waited)
        s->waits++;
    else
        s->flows++;
    if (now - s->level_since_ms >= AUTO_PERIOD_MS) {
        if (s->waits > s->flows && s->level < AUTO_LEVEL_MAX)
            s->level += s->level == -1 ? 2 : 1;
        else if (s->waits < s->flows / 8 && s->level > AUTO_LEVEL_MIN)
            s->level -= s->level == 1 ? 2 : 1;
        s->waits = s->flows = 0;
        s->level_since_ms = now;
    }
    pthread_mutex_unlock(&s->lock);
}

void piece_set_ask(struct piece_set *s, const uint8_t key[ASK_KEY_BYTES])
{
    s->asks = key != NULL;
    if (key != NULL)
        memcpy(s->ask_key, key, sizeof s->ask_key);
}

struct piece *piece_take(struct piece_set *s, uint64_t offset_bytes, uint64_t end_bytes)
{
    struct piece *found = NULL;

    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < s->count && found == NULL; i++)
        if (!s->pieces[i].taken)
            found = &s->pieces[i];
    if (found != NULL)
        found->taken = true;
    pthread_mutex_unlock(&s->lock);
    if (found == NULL)
        return NULL;
    found->ready = found->failed = false;
    found->emitted = 0;
    found->offset_bytes = offset_bytes;
    found->count_bytes = (size_t)min_u64(s->piece_bytes, end_bytes - offset_bytes);
    found->block_count = (unsigned)block_count_of(found->count_bytes, s->block);
    return found;
}

void piece_give(struct piece_set *s, struct piece *p)
{
    pthread_mutex_lock(&s->lock);
    p->taken = false;
    pthread_mutex_unlock(&s->lock);
}

bool piece_ready(struct piece_set *s, struct piece *p)
{
    bool ready;

    pthread_mutex_lock(&s->lock);
    ready = p->ready;
    pthread_mutex_unlock(&s->lock);
    return ready;
}

/* Pack a block behind *out; it stays raw when packing does not make it smaller. */
static void pack(struct piece_set *s, unsigned worker, int level, const uint8_t *plain,
                 size_t count, uint8_t **out, struct piece_block *b)
{
    size_t packed;

    b->encoding = ENCODING_RAW;
    b->packed = plain;
    b->packed_bytes = count;
    if (s->compress == 0)
        return;
    if (s->packers[worker] == NULL)
        s->packers[worker] = ZSTD_createCCtx();
    if (s->packers[worker] == NULL)
        return;
    level_set(s->packers[worker], level);
    packed = ZSTD_compress2(s->packers[worker], *out, count - 1, plain, count);
    if (ZSTD_isError(packed))
        return;
    b->encoding = ENCODING_ZSTD;
    b->packed = *out;
    b->packed_bytes = packed;
    *out += packed;
}

static void piece_work(struct job *job, unsigned worker)
{
    struct piece *p = (struct piece *)job; /* job is its first member */
    struct piece_set *s = p->set;
    uint8_t *out = p->out;
    struct stream *stream = p->stream;
    int level;

    pthread_mutex_lock(&s->lock);
    level = s->level;
    pthread_mutex_unlock(&s->lock);
    if (!p->failed && (s->source->flags & SOURCE_SEQUENTIAL) == 0 &&
        source_read(s->source, p->offset_bytes, p->in, p->count_bytes, &p->why) != 0)
        p->failed = true;
    for (unsigned i = 0; !p->failed && i < p->block_count; i++) {
        struct piece_block *b = &p->blocks[i];
        const uint8_t *plain = p->in + (size_t)i * s->block;
        size_t count = (size_t)min_u64(s->block, p->count_bytes - (size_t)i * s->block);

        if (block_is_zero(plain, count)) {
            b->kind = PIECE_ZERO;
            b->digest = (struct digest){ { 0 } };
            continue;
        }
        b->digest = digest_of_data(&s->secret, plain, count);
        b->kind = b->known && digest_equal(&b->digest, &b->held) ? PIECE_SAME : PIECE_DATA;
        if (b->kind != PIECE_DATA)
            continue;
        pack(s, worker, level, plain, count, &out, b);
        b->asked = p->asks;
        if (p->asks)
            ask_id_of(s->ask_key, plain, count, b->ask_id);
    }
    /* The stream lives until the set has settled, so it is poked before that. */
    pthread_mutex_lock(&s->lock);
    p->ready = true;
    pthread_mutex_unlock(&s->lock);
    stream_poke(stream);
    pthread_mutex_lock(&s->lock);
    if (--s->under_way == 0)
        pthread_cond_broadcast(&s->settled);
    pthread_mutex_unlock(&s->lock);
}

void piece_start(struct piece_set *s, struct piece *p, struct stream *stream)
{
    p->stream = stream;
    p->asks = s->asks;
    p->job.run = piece_work;
    pthread_mutex_lock(&s->lock);
    s->under_way++;
    pthread_mutex_unlock(&s->lock);
    /* Where order matters the caller reads, in order; the rest is still a job. */
    if ((s->source->flags & SOURCE_SEQUENTIAL) != 0 &&
        source_read(s->source, p->offset_bytes, p->in, p->count_bytes, &p->why) != 0)
        p->failed = true;
    pool_submit(s->pool, &p->job);
}
