#include "tests/unit/stream/memory_disk.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"

static bool grain_is_hole(struct memory_source *m, uint64_t at)
{
    uint64_t n = min_u64(m->grain, m->source.capacity_bytes - at);

    return at == m->lie_at || block_is_zero(m->bytes + at, n);
}

static int extent_at(struct source *s, uint64_t offset, struct extent *out, struct err *e)
{
    struct memory_source *m = (struct memory_source *)s;
    uint64_t at = offset;
    bool hole;

    (void)e;
    *out = (struct extent){ offset, s->capacity_bytes - offset, EXTENT_DATA };
    if (m->changed_to > 0) {
        out->kind = offset >= m->changed_from && offset < m->changed_to ? EXTENT_DATA : EXTENT_KEPT;
        if (offset < m->changed_from)
            out->length_bytes = m->changed_from - offset;
        else if (offset < m->changed_to)
            out->length_bytes = m->changed_to - offset;
        if (m->check_at != 0 && offset < m->check_at)
            out->length_bytes = min_u64(out->length_bytes, m->check_at - offset);
        if (m->check_every != 0 && out->kind == EXTENT_KEPT)
            out->length_bytes =
                min_u64(out->length_bytes, m->check_every - offset % m->check_every);
        if ((m->check_at != 0 && offset == m->check_at) ||
            (m->check_every != 0 && out->kind == EXTENT_KEPT && offset % m->check_every == 0)) {
            out->kind = EXTENT_CHECK;
            out->length_bytes = 16 << 10;
        }
        return 0;
    }
    if (m->grain == 0)
        return 0;
    at -= at % m->grain;
    hole = grain_is_hole(m, at);
    do
        at += m->grain;
    while (at < s->capacity_bytes && grain_is_hole(m, at) == hole);
    out->kind = hole ? EXTENT_ZERO : EXTENT_DATA;
    out->length_bytes = min_u64(at, s->capacity_bytes) - offset;
    return 0;
}

static int read_some(struct source *s, uint64_t offset, void *out, size_t count, struct err *e)
{
    struct memory_source *m = (struct memory_source *)s;

    if (offset + count > s->capacity_bytes)
        abort();
    if (m->fail_at >= offset && m->fail_at < offset + count)
        return err_set(e, ERR_SOURCE, "bad sector");
    memcpy(out, m->bytes + offset, count);
    __atomic_add_fetch(&m->reads, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&m->bytes_read, count, __ATOMIC_RELAXED);
    return 0;
}

static void close_nothing(struct source *s)
{
    (void)s;
}

static const struct source_ops source_ops = { extent_at, read_some, close_nothing };

void memory_source_init(struct memory_source *m, uint8_t *bytes, uint64_t capacity, uint64_t grain)
{
    *m = (struct memory_source){
        .bytes = bytes, .grain = grain, .lie_at = UINT64_MAX, .fail_at = UINT64_MAX
    };
    m->source.ops = &source_ops;
    m->source.capacity_bytes = m->source.allocated_bytes = capacity;
    m->source.flags = grain != 0 ? SOURCE_HOLES_CLAIMED : 0;
}

static int sink_held(struct sink *s, uint64_t offset, uint64_t limit, struct digest *digests,
                     size_t room, struct held *out, struct err *e)
{
    struct memory_sink *m = (struct memory_sink *)s;
    uint64_t first = offset / s->block_bytes, count = block_count_of(limit, s->block_bytes), n = 0;

    (void)e;
    *out = (struct held){ offset, limit, HELD_UNKNOWN };
    if (!m->known)
        return 0;
    if (digest_is_zero(&m->digests[first])) {
        while (n < count && digest_is_zero(&m->digests[first + n]))
            n++;
        out->kind = HELD_ZERO;
    } else {
        while (n < count && n < room && !digest_is_zero(&m->digests[first + n])) {
            digests[n] = m->digests[first + n];
            n++;
        }
        out->kind = HELD_DIGESTS;
    }
    out->length_bytes = min_u64(n * s->block_bytes, limit);
    return 0;
}

static int place(struct memory_sink *m, uint64_t offset, uint64_t length, struct err *e)
{
    if (offset != m->position || offset + length > m->sink.capacity_bytes)
        return err_set(e, ERR_SYSTEM, "out of order");
    if (m->fail_at >= offset && m->fail_at < offset + length)
        return err_set(e, ERR_SPACE, "no room");
    m->position += length;
    return 0;
}

static int sink_same(struct sink *s, uint64_t offset, uint64_t length, struct err *e)
{
    struct memory_sink *m = (struct memory_sink *)s;

    m->same += length;
    return place(m, offset, length, e);
}

static int sink_zero(struct sink *s, uint64_t offset, uint64_t length, struct err *e)
{
    struct memory_sink *m = (struct memory_sink *)s;

    if (place(m, offset, length, e) != 0)
        return -1;
    m->zero += length;
    memset(m->bytes + offset, 0, length);
    return 0;
}

static int sink_data(struct sink *s, const struct sink_block *b, struct err *e)
{
    struct memory_sink *m = (struct memory_sink *)s;

    if (place(m, b->offset_bytes, b->plain_bytes, e) != 0)
        return -1;
    m->data += b->plain_bytes;
    memcpy(m->bytes + b->offset_bytes, b->plain, b->plain_bytes);
    return 0;
}

static int sink_end(struct sink *s, const struct digest *root, struct err *e)
{
    struct memory_sink *m = (struct memory_sink *)s;

    (void)e;
    m->ended = true;
    m->root = *root;
    return 0;
}

static void sink_close(struct sink *s)
{
    (void)s;
}

static const struct sink_ops sink_ops = { sink_held, sink_same, sink_zero,
                                          sink_data, sink_end,  sink_close };

void memory_sink_init(struct memory_sink *m, uint8_t *bytes, uint64_t capacity, uint32_t block)
{
    *m = (struct memory_sink){ .bytes = bytes, .fail_at = UINT64_MAX };
    m->sink.ops = &sink_ops;
    m->sink.capacity_bytes = capacity;
    m->sink.block_bytes = block;
    for (size_t i = 0; i < sizeof m->sink.secret.b; i++)
        m->sink.secret.b[i] = (uint8_t)(i * 37 + 11);
    m->digests = calloc(block_count_of(capacity, block), sizeof *m->digests);
}

void memory_sink_learn(struct memory_sink *m)
{
    uint64_t capacity = m->sink.capacity_bytes, block = m->sink.block_bytes;

    for (uint64_t at = 0; at < capacity; at += block)
        m->digests[at / block] =
            digest_of(&m->sink.secret, m->bytes + at, min_u64(block, capacity - at));
    m->known = true;
}

static size_t library_block(const struct memory_sink *m, size_t at)
{
    return (size_t)min_u64(m->sink.block_bytes, m->library_bytes - at);
}

static int sink_ask(struct sink *s, const struct sink_question *q, struct sink_answer *out,
                    struct err *e)
{
    struct memory_sink *m = (struct memory_sink *)s;
    size_t block = s->block_bytes;

    (void)e;
    m->questions++;
    out->pointless = m->pointless;
    for (size_t at = 0; at < m->library_bytes; at += block) {
        struct digest d;

        if (memcmp(m->library_ids + at / block * ASK_ID_BYTES, q->ask_id, ASK_ID_BYTES) != 0)
            continue;
        d = digest_of(&s->secret, m->library + at, library_block(m, at));
        if (library_block(m, at) != q->plain_bytes || !digest_equal(&d, &q->digest))
            continue;
        out->known = true;
        memcpy(out->token, &at, sizeof at);
        break;
    }
    return 0;
}

static int sink_known(struct sink *s, uint64_t offset, const struct digest *digest,
                      const uint8_t token[SINK_TOKEN_BYTES], struct err *e)
{
    struct memory_sink *m = (struct memory_sink *)s;
    struct digest d;
    size_t at, count;

    memcpy(&at, token, sizeof at);
    count = library_block(m, at);
    if (place(m, offset, count, e) != 0)
        return -1;
    m->known_data += count;
    memcpy(m->bytes + offset, m->library + at, count);
    d = digest_of(&s->secret, m->bytes + offset, count);
    return digest_equal(&d, digest) ? 0 : err_set(e, ERR_SYSTEM, "another digest than was asked");
}

void memory_sink_ask(struct memory_sink *m, uint8_t when, const uint8_t *library, size_t bytes)
{
    static const struct sink_asks asks = { sink_ask, sink_known };
    size_t block = m->sink.block_bytes;

    m->library = library;
    m->library_bytes = bytes;
    m->library_ids = calloc(bytes / block + 1, ASK_ID_BYTES);
    m->sink.asks = &asks;
    m->sink.ask_when = when;
    for (size_t i = 0; i < sizeof m->sink.ask_key; i++)
        m->sink.ask_key[i] = (uint8_t)(i * 3 + 1);
    for (size_t at = 0; at < bytes; at += block)
        ask_id_of(m->sink.ask_key, library + at, library_block(m, at),
                  m->library_ids + at / block * ASK_ID_BYTES);
}

void memory_sink_free(struct memory_sink *m)
{
    free(m->digests);
    free(m->library_ids);
}
