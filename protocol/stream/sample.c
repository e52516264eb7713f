#include "protocol/stream/sample.h"

#include <inttypes.h>
#include <stdlib.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/digest.h"
#include "protocol/block/source.h"
#include "protocol/wire/crypto.h"

struct sample {
    struct source *source;
    uint64_t picks[SAMPLE_COUNT]; /* bytes into the zeros of the disk, ascending */
    unsigned count, next;
    bool chosen;
    uint64_t at;          /* the extent at this byte of the disk is looked at next */
    uint64_t zeros_below; /* zeros before it */
    uint64_t bytes;
    uint8_t *buffer;
};

int sample_new(struct sample **out, struct source *source, struct err *e)
{
    struct sample *s = calloc(1, sizeof *s);

    if (s == NULL)
        return err_sys(e, "getting memory for a sample");
    s->buffer = malloc(SAMPLE_BYTES);
    if (s->buffer == NULL) {
        free(s);
        return err_sys(e, "getting memory for a sample");
    }
    s->source = source;
    *out = s;
    return 0;
}

void sample_free(struct sample *s)
{
    if (s == NULL)
        return;
    free(s->buffer);
    free(s);
}

uint64_t sample_bytes(const struct sample *s)
{
    return s->bytes;
}

static int extent_of(struct sample *s, struct extent *x, struct err *e)
{
    if (source_extent_at(s->source, s->at, x, e) != 0)
        return -1;
    if (x->length_bytes == 0 || x->length_bytes > s->source->capacity_bytes - s->at)
        return err_set(e, ERR_CORRUPT, "the map of the disk is wrong at byte %" PRIu64, s->at);
    return 0;
}

/* Count the zeros, and pick places among them at random. */
static int choose(struct sample *s, struct err *e)
{
    uint64_t zeros = 0, pieces, random[SAMPLE_COUNT];
    struct extent x;

    for (s->at = 0; s->at < s->source->capacity_bytes; s->at += x.length_bytes) {
        if (extent_of(s, &x, e) != 0)
            return -1;
        if (x.kind == EXTENT_ZERO)
            zeros += x.length_bytes;
    }
    pieces = zeros / SAMPLE_BYTES + (zeros % SAMPLE_BYTES != 0);
    s->count = (unsigned)min_u64(SAMPLE_COUNT, pieces);
    if (crypto_random(random, sizeof random, e) != 0)
        return -1;
    /* One out of each of 64 equal parts: spread over the disk, ascending, none twice. */
    for (unsigned i = 0; i < s->count; i++) {
        uint64_t from = pieces / s->count * i + min_u64(i, pieces % s->count);
        uint64_t width = pieces / s->count + (i < pieces % s->count);

        s->picks[i] = (from + random[i] % width) * SAMPLE_BYTES;
    }
    s->at = 0;
    s->chosen = true;
    return 0;
}

enum sample_result sample_next(struct sample *s, uint64_t *offset_bytes, struct err *e)
{
    struct extent x;
    uint64_t pick;
    size_t count;

    if (!s->chosen)
        return choose(s, e) == 0 ? SAMPLE_AGAIN : SAMPLE_FAILED;
    if (s->next == s->count)
        return SAMPLE_CLEAN;
    pick = s->picks[s->next];
    for (;;) {
        if (s->at >= s->source->capacity_bytes)
            return SAMPLE_CLEAN; /* the map shrank meanwhile: nothing left to check */
        if (extent_of(s, &x, e) != 0)
            return SAMPLE_FAILED;
        if (x.kind == EXTENT_ZERO && pick - s->zeros_below < x.length_bytes)
            break;
        if (x.kind == EXTENT_ZERO)
            s->zeros_below += x.length_bytes;
        s->at += x.length_bytes;
    }
    *offset_bytes = s->at + (pick - s->zeros_below);
    count = (size_t)min_u64(SAMPLE_BYTES, s->at + x.length_bytes - *offset_bytes);
    if (source_read(s->source, *offset_bytes, s->buffer, count, e) != 0)
        return SAMPLE_FAILED;
    s->bytes += count;
    s->next++;
    return block_is_zero(s->buffer, count) ? SAMPLE_AGAIN : SAMPLE_MISS;
}
