#include "receiver/repo/sorted_run.h"

#include <endian.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "protocol/base/checked.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static const uint8_t MAGIC[8] = { 'V', 'F', 'R', 'U', 'N', 0, 0, 1 };

enum {
    HEADER_BYTES = 128,
    PIECE_BYTES = 64 << 10,
    ENTRY_BYTES = 48,
    BUCKET_ENTRIES = 4, /* of the fan-out, as a mean */
    FAN_BITS_MAX = 24,
    PACKS_MAX = 1 << 24,
    ORDER_MARK = 0x01020304, /* in the machine's own order, as the entries are */
};

_Static_assert(sizeof(struct index_entry) == ENTRY_BYTES, "entries are mapped as they are");
_Static_assert(sizeof(struct repo_key) == REPO_KEY_BYTES, "keys are mapped as they are");

/* Where things are in a file. */
struct shape {
    uint64_t entries;
    uint32_t packs;
    unsigned fan_bits;
    uint64_t fan_at, entries_at, sums_at, size;
};

struct sorted_run {
    const uint8_t *map;
    struct shape shape;
    struct repo_key key;
    atomic_uchar *proved; /* one for each piece */
};

static uint64_t align(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* entries and packs are within their limits, so nothing overflows. */
static void lay_out(struct shape *s)
{
    s->fan_at = align(HEADER_BYTES + (uint64_t)s->packs * REPO_KEY_BYTES, 64);
    s->entries_at = align(s->fan_at + (((uint64_t)1 << s->fan_bits) + 1) * 4, PIECE_BYTES);
    s->sums_at = align(s->entries_at + s->entries * ENTRY_BYTES, PIECE_BYTES);
    s->size = s->sums_at + s->sums_at / PIECE_BYTES * 8 + 8;
}

int index_entry_compare(const struct index_entry *a, const struct index_entry *b)
{
    int order = memcmp(a->id.b, b->id.b, sizeof a->id.b);

    if (order != 0)
        return order;
    return (int)index_entry_type(a) - (int)index_entry_type(b);
}

/* --- reading --- */

/* Prove the pieces that hold bytes [from, end) of the file. */
static int prove(struct sorted_run *r, uint64_t from, uint64_t end, struct err *e)
{
    for (uint64_t i = from / PIECE_BYTES; i * PIECE_BYTES < end; i++) {
        uint64_t said;

        if (atomic_load_explicit(&r->proved[i], memory_order_acquire) != 0)
            continue;
        memcpy(&said, r->map + r->shape.sums_at + i * 8, 8);
        if (XXH3_64bits(r->map + i * PIECE_BYTES, PIECE_BYTES) != said)
            return err_set(e, ERR_CORRUPT, "the cached index is damaged");
        atomic_store_explicit(&r->proved[i], 1, memory_order_release);
    }
    return 0;
}

static int decode_header(struct sorted_run *r, const uint8_t h[HEADER_BYTES],
                         const struct repo_key *repository, uint64_t epoch, struct err *e)
{
    struct pull p = { .at = h, .left = HEADER_BYTES };
    const uint8_t *magic = pull_bytes(&p, sizeof MAGIC);
    const uint8_t *of = pull_bytes(&p, REPO_KEY_BYTES);
    uint64_t of_epoch = pull_u64(&p), packs;
    uint32_t mark, piece, fan_bits;

    r->shape.entries = pull_u64(&p);
    packs = pull_u64(&p);
    fan_bits = pull_u32(&p);
    piece = pull_u32(&p);
    pull_copy(&p, r->key.b, sizeof r->key.b);
    pull_copy(&p, &mark, sizeof mark);
    if (memcmp(magic, MAGIC, sizeof MAGIC) != 0 || mark != ORDER_MARK || piece != PIECE_BYTES ||
        memcmp(of, repository->b, REPO_KEY_BYTES) != 0 || of_epoch != epoch ||
        r->shape.entries > UINT32_MAX - 1 || packs > PACKS_MAX || fan_bits > FAN_BITS_MAX)
        return err_set(e, ERR_CORRUPT, "the cached index is not of this repository as it is now");
    r->shape.packs = (uint32_t)packs;
    r->shape.fan_bits = fan_bits;
    lay_out(&r->shape);
    return 0;
}

static int check_sums(struct sorted_run *r, struct err *e)
{
    const uint8_t *sums = r->map + r->shape.sums_at;
    size_t count = (size_t)(r->shape.size - 8 - r->shape.sums_at);
    uint64_t said;

    memcpy(&said, sums + count, 8);
    if (XXH3_64bits(sums, count) != said)
        return err_set(e, ERR_CORRUPT, "the cached index is damaged");
    /* Packs and fan-out are looked at all the time. */
    return prove(r, 0, r->shape.entries_at, e);
}

int sorted_run_open(struct sorted_run **out, int fd, const struct repo_key *repository,
                    uint64_t epoch, struct err *e)
{
    struct sorted_run *r = calloc(1, sizeof *r);
    uint8_t header[HEADER_BYTES];
    struct stat s;
    void *map;

    if (r == NULL) {
        err_sys(e, "getting memory");
        goto fail;
    }
    if (fstat(fd, &s) != 0 || s.st_size < HEADER_BYTES) {
        err_set(e, ERR_CORRUPT, "the cached index is too short");
        goto fail;
    }
    if (io_pread_all(fd, header, sizeof header, 0, e) != 0 ||
        decode_header(r, header, repository, epoch, e) != 0)
        goto fail;
    if ((uint64_t)s.st_size != r->shape.size) {
        err_set(e, ERR_CORRUPT, "the cached index has not its full length");
        goto fail;
    }
    r->proved = calloc(r->shape.sums_at / PIECE_BYTES, sizeof r->proved[0]);
    map = r->proved == NULL ? MAP_FAILED
                            : mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        err_sys(e, "mapping the cached index");
        goto fail;
    }
    r->map = map;
    io_drop(&fd);
    if (check_sums(r, e) != 0) {
        sorted_run_close(r);
        return -1;
    }
    *out = r;
    return 0;

fail:
    io_drop(&fd);
    sorted_run_close(r);
    return -1;
}

void sorted_run_close(struct sorted_run *r)
{
    if (r == NULL)
        return;
    if (r->map != NULL)
        munmap((void *)(uintptr_t)r->map, (size_t)r->shape.size);
    free(r->proved);
    free(r);
}

const struct repo_key *sorted_run_key(const struct sorted_run *r)
{
    return &r->key;
}

uint64_t sorted_run_count(const struct sorted_run *r)
{
    return r->shape.entries;
}

uint32_t sorted_run_pack_count(const struct sorted_run *r)
{
    return r->shape.packs;
}

const struct repo_key *sorted_run_packs(const struct sorted_run *r)
{
    return (const struct repo_key *)(const void *)(r->map + HEADER_BYTES);
}

static const struct index_entry *entry_at(const struct sorted_run *r, uint64_t i)
{
    return (const struct index_entry *)(const void *)(r->map + r->shape.entries_at +
                                                      i * ENTRY_BYTES);
}

static int prove_entries(struct sorted_run *r, uint64_t first, uint64_t end, struct err *e)
{
    return prove(r, r->shape.entries_at + first * ENTRY_BYTES,
                 r->shape.entries_at + end * ENTRY_BYTES, e);
}

/* The bucket of an id: its first bits. */
static uint32_t bucket_of(const struct repo_id *id, unsigned fan_bits)
{
    uint32_t head =
        (uint32_t)id->b[0] << 24 | (uint32_t)id->b[1] << 16 | (uint32_t)id->b[2] << 8 | id->b[3];

    return fan_bits == 0 ? 0 : head >> (32 - fan_bits);
}

/* The first bytes of an id as a number: they tell nearly all ids apart. */
static uint64_t head_of(const struct repo_id *id)
{
    uint64_t head;

    memcpy(&head, id->b, sizeof head);
    return be64toh(head);
}

/* The first entry of [low, end) that is not below `want`. */
static uint64_t lower_bound(const struct sorted_run *r, uint64_t low, uint64_t end,
                            const struct index_entry *want)
{
    uint64_t head = head_of(&want->id), high = end;

    while (high - low > BUCKET_ENTRIES) {
        uint64_t middle = low + (high - low) / 2;

        if (head_of(&entry_at(r, middle)->id) < head)
            low = middle + 1;
        else
            high = middle;
    }
    while (low < end && head_of(&entry_at(r, low)->id) < head)
        low++;
    while (low < end && head_of(&entry_at(r, low)->id) == head &&
           index_entry_compare(entry_at(r, low), want) < 0)
        low++;
    return low;
}

int sorted_run_find(struct sorted_run *r, const struct repo_id *id, enum entry_type type,
                    const struct index_entry **first, size_t *count, struct err *e)
{
    const uint32_t *fan = (const uint32_t *)(const void *)(r->map + r->shape.fan_at);
    uint32_t bucket = bucket_of(id, r->shape.fan_bits);
    uint64_t low = fan[bucket], end = fan[bucket + 1];
    struct index_entry want = { .id = *id, .plain_type = (uint32_t)type << 24 };

    *count = 0;
    if (low > end || end > r->shape.entries)
        return err_set(e, ERR_CORRUPT, "the cached index is damaged");
    if (low == end)
        return 0;
    if (prove_entries(r, low, end, e) != 0)
        return -1;
    low = lower_bound(r, low, end, &want);
    *first = entry_at(r, low);
    while (low < end && index_entry_compare(entry_at(r, low), &want) == 0) {
        if (entry_at(r, low)->pack >= r->shape.packs)
            return err_set(e, ERR_CORRUPT, "the cached index is damaged");
        (*count)++;
        low++;
    }
    return 0;
}

/* --- writing --- */

enum { BUFFER_BYTES = 1 << 20 };

struct writer {
    int fd;
    uint64_t offset; /* of the buffer */
    size_t used;
    uint8_t *buffer;
    uint32_t *fan; /* first counts, then sums */
    struct shape shape;
};

static int flush(struct writer *w, struct err *e)
{
    if (io_pwrite_all(w->fd, w->buffer, w->used, w->offset, e) != 0)
        return -1;
    w->offset += w->used;
    w->used = 0;
    return 0;
}

static int put(struct writer *w, const struct index_entry *n, struct err *e)
{
    if (w->used + sizeof *n > BUFFER_BYTES && flush(w, e) != 0)
        return -1;
    memcpy(w->buffer + w->used, n, sizeof *n);
    w->used += sizeof *n;
    w->fan[bucket_of(&n->id, w->shape.fan_bits) + 1]++;
    w->shape.entries++;
    return 0;
}

/* The next entry of an input, or NULL at its end.  A run's pieces are proved as they are reached.
 */
static int peek(struct run_input *in, const struct index_entry **out, struct err *e)
{
    *out = NULL;
    if (in->at >= in->count)
        return 0;
    if (in->run == NULL) {
        *out = &in->entries[in->at];
        return 0;
    }
    if (prove_entries(in->run, in->at, in->at + 1, e) != 0)
        return -1;
    *out = entry_at(in->run, in->at);
    if ((*out)->pack >= in->run->shape.packs)
        return err_set(e, ERR_CORRUPT, "the cached index is damaged");
    return 0;
}

/* Step over entries that are left out. */
static int settle(struct run_input *in, const struct index_entry **out, struct err *e)
{
    for (;; in->at++) {
        if (peek(in, out, e) != 0)
            return -1;
        if (*out == NULL || in->packs[(*out)->pack] != SORTED_RUN_NO_PACK)
            return 0;
    }
}

static int merge(struct writer *w, struct run_input *inputs, size_t count, struct err *e)
{
    for (;;) {
        const struct index_entry *best = NULL;
        struct run_input *from = NULL;
        struct index_entry n;

        for (size_t i = 0; i < count; i++) {
            const struct index_entry *next;

            if (settle(&inputs[i], &next, e) != 0)
                return -1;
            if (next != NULL && (best == NULL || index_entry_compare(next, best) < 0)) {
                best = next;
                from = &inputs[i];
            }
        }
        if (best == NULL)
            return 0;
        n = *best;
        n.pack = from->packs[best->pack];
        if (put(w, &n, e) != 0)
            return -1;
        from->at++;
    }
}

static int write_header(struct writer *w, const struct repo_key *repository, uint64_t epoch,
                        const struct repo_key *key, struct err *e)
{
    uint8_t header[HEADER_BYTES] = { 0 };
    struct push p = { .at = header, .left = sizeof header };
    uint32_t mark = ORDER_MARK;

    push_copy(&p, MAGIC, sizeof MAGIC);
    push_copy(&p, repository->b, sizeof repository->b);
    push_u64(&p, epoch);
    push_u64(&p, w->shape.entries);
    push_u64(&p, w->shape.packs);
    push_u32(&p, w->shape.fan_bits);
    push_u32(&p, PIECE_BYTES);
    push_copy(&p, key->b, sizeof key->b);
    push_copy(&p, &mark, sizeof mark);
    p = (struct push){ .at = header + HEADER_BYTES - 8, .left = 8 };
    push_u64(&p, XXH3_64bits(header, HEADER_BYTES - 8));
    return io_pwrite_all(w->fd, header, sizeof header, 0, e);
}

/* Read the file back piece by piece for its sums, which go behind it. */
static int write_sums(struct writer *w, struct err *e)
{
    uint64_t count = w->shape.sums_at / PIECE_BYTES, sum;
    uint64_t *sums = malloc((size_t)(count + 1) * sizeof sums[0]);
    int rc = -1;

    if (sums == NULL)
        return err_sys(e, "getting memory");
    for (uint64_t i = 0; i < count; i++) {
        if (io_pread_all(w->fd, w->buffer, PIECE_BYTES, i * PIECE_BYTES, e) != 0)
            goto out;
        sums[i] = XXH3_64bits(w->buffer, PIECE_BYTES);
    }
    sum = XXH3_64bits(sums, (size_t)count * sizeof sums[0]);
    sums[count] = sum;
    rc = io_pwrite_all(w->fd, sums, (size_t)(count + 1) * sizeof sums[0], w->shape.sums_at, e);

out:
    free(sums);
    return rc;
}

static unsigned fan_bits_for(uint64_t entries)
{
    unsigned bits = 0;

    while (bits < FAN_BITS_MAX && ((uint64_t)BUCKET_ENTRIES << (bits + 1)) <= entries)
        bits++;
    return bits;
}

/* Zeros where nothing else stands.  Not a hole: on a full tmpfs reading one through a map is a
 * SIGBUS. */
static int pad(struct writer *w, uint64_t from, uint64_t end, struct err *e)
{
    memset(w->buffer, 0, PIECE_BYTES);
    while (from < end) {
        size_t count = end - from < PIECE_BYTES ? (size_t)(end - from) : PIECE_BYTES;

        if (io_pwrite_all(w->fd, w->buffer, count, from, e) != 0)
            return -1;
        from += count;
    }
    return 0;
}

static int write_rest(struct writer *w, const struct repo_key *packs, struct err *e)
{
    size_t buckets = ((size_t)1 << w->shape.fan_bits) + 1;

    if (flush(w, e) != 0)
        return -1;
    lay_out(&w->shape);
    for (size_t i = 1; i < buckets; i++)
        w->fan[i] += w->fan[i - 1];
    if (pad(w, HEADER_BYTES + (uint64_t)w->shape.packs * REPO_KEY_BYTES, w->shape.fan_at, e) != 0 ||
        pad(w, w->shape.fan_at + buckets * sizeof w->fan[0], w->shape.entries_at, e) != 0 ||
        pad(w, w->offset, w->shape.sums_at, e) != 0)
        return -1;
    if (w->shape.packs > 0 &&
        io_pwrite_all(w->fd, packs, (size_t)w->shape.packs * REPO_KEY_BYTES, HEADER_BYTES, e) != 0)
        return -1;
    return io_pwrite_all(w->fd, w->fan, buckets * sizeof w->fan[0], w->shape.fan_at, e);
}

int sorted_run_write(int fd, const struct repo_key *repository, uint64_t epoch,
                     const struct repo_key *key, const struct repo_key *packs, uint32_t pack_count,
                     struct run_input *inputs, size_t input_count, struct err *e)
{
    struct writer w = { .fd = fd, .shape = { .packs = pack_count } };
    uint64_t most = 0;
    int rc = -1;

    for (size_t i = 0; i < input_count; i++) {
        if (inputs[i].run != NULL)
            inputs[i].count = (size_t)inputs[i].run->shape.entries;
        inputs[i].at = 0;
        most += inputs[i].count;
    }
    if (most > UINT32_MAX - 1 || pack_count > PACKS_MAX)
        return err_set(e, ERR_LIMIT, "the repository has too many entries");
    w.shape.fan_bits = fan_bits_for(most);
    lay_out(&w.shape);
    w.offset = w.shape.entries_at;
    w.buffer = malloc(BUFFER_BYTES);
    w.fan = calloc(((size_t)1 << w.shape.fan_bits) + 1, sizeof w.fan[0]);
    if (w.buffer == NULL || w.fan == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    if (merge(&w, inputs, input_count, e) == 0 && write_rest(&w, packs, e) == 0 &&
        write_header(&w, repository, epoch, key, e) == 0)
        rc = write_sums(&w, e);

out:
    free(w.buffer);
    free(w.fan);
    return rc;
}
