#include "protocol/vmdk/packed.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/codec.h"
#include "protocol/vmdk/sparse_header.h"

void packed_slot_init(struct packed_slot *s)
{
    *s = (struct packed_slot){ 0 };
    pthread_mutex_init(&s->lock, NULL);
}

void packed_slot_free(struct packed_slot *s)
{
    free(s->bytes);
    pthread_mutex_destroy(&s->lock);
}

static bool take(struct packed_slot *s, const struct packed_grain *g, size_t skip, void *out,
                 size_t count)
{
    bool there;

    pthread_mutex_lock(&s->lock);
    there = s->bytes != NULL && s->file_id == g->file_id && s->file_bytes == g->file_bytes &&
            skip + count <= s->count;
    if (there)
        memcpy(out, s->bytes + skip, count);
    pthread_mutex_unlock(&s->lock);
    return there;
}

/* Takes bytes. */
static void keep(struct packed_slot *s, const struct packed_grain *g, uint8_t *bytes)
{
    uint8_t *old;

    pthread_mutex_lock(&s->lock);
    old = s->bytes;
    s->bytes = bytes;
    s->count = g->full_bytes;
    s->file_id = g->file_id;
    s->file_bytes = g->file_bytes;
    pthread_mutex_unlock(&s->lock);
    free(old);
}

int packed_inflate(const struct vmdk_codec *codec, const struct packed_grain *g, const void *packed,
                   size_t packed_bytes, uint8_t *bytes, struct err *e)
{
    size_t made = 0;

    if (codec->inflate(packed, packed_bytes, bytes, g->full_bytes, &made, e) != 0)
        return -1;
    if (made != g->full_bytes && made != g->used_bytes)
        return err_set(e, ERR_CORRUPT, "the compressed grain unpacks to %zu bytes instead of %zu",
                       made, g->full_bytes);
    memset(bytes + made, 0, g->full_bytes - made);
    return 0;
}

/* The size of the compressed bytes behind the record's head. */
static int read_record(const struct packed_grain *g, uint32_t *packed_bytes, struct err *e)
{
    uint64_t size = g->file->capacity_bytes;
    uint8_t raw[SPARSE_RECORD_BYTES];
    struct pull p = { .at = raw, .left = sizeof raw };
    uint64_t sector;

    if (g->file_bytes > size || size - g->file_bytes < sizeof raw)
        return err_set(e, ERR_CORRUPT, "the record lies past the end of the file");
    if (source_read(g->file, g->file_bytes, raw, sizeof raw, e) != 0)
        return -1;
    sector = pull_u64(&p);
    *packed_bytes = pull_u32(&p);
    if (sector != g->sector)
        return err_set(e, ERR_CORRUPT, "the record is that of sector %" PRIu64, sector);
    if (*packed_bytes == 0 || *packed_bytes > packed_bytes_max(g->full_bytes))
        return err_set(e, ERR_CORRUPT, "the record's size is %" PRIu32, *packed_bytes);
    if (size - g->file_bytes - sizeof raw < *packed_bytes)
        return err_set(e, ERR_CORRUPT, "the record goes past the end of the file");
    return 0;
}

int packed_read(struct packed_slot *slot, const struct vmdk_codec *codec,
                const struct packed_grain *g, size_t skip, void *out, size_t count, struct err *e)
{
    uint8_t *packed = NULL, *bytes = NULL;
    uint32_t packed_bytes = 0;
    int rc = -1;

    if (take(slot, g, skip, out, count))
        return 0;
    if (read_record(g, &packed_bytes, e) != 0)
        goto out;
    packed = malloc(packed_bytes);
    bytes = malloc(g->full_bytes);
    if (packed == NULL || bytes == NULL) {
        err_sys(e, "unpacking");
        goto out;
    }
    if (source_read(g->file, g->file_bytes + SPARSE_RECORD_BYTES, packed, packed_bytes, e) != 0 ||
        packed_inflate(codec, g, packed, packed_bytes, bytes, e) != 0)
        goto out;
    memcpy(out, bytes + skip, count);
    keep(slot, g, bytes);
    bytes = NULL;
    rc = 0;

out:
    free(packed);
    free(bytes);
    return rc == 0 ? 0
                   : err_add(e, "the grain of sector %" PRIu64 " at byte %" PRIu64, g->sector,
                             g->file_bytes);
}
