/* How far a disk of a run is durable (FORMAT.md 6). */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "receiver/mirror/run.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static const char CHECK_MAGIC[] = "VFCHECK1";
enum { CHECK_BYTES = 96, CHECK_MAGIC_BYTES = 8, CHECK_VERSION = 1 };

int checkpoint_save(const struct run_disk *d, const char *name, const struct checkpoint *c,
                    struct err *e)
{
    uint8_t b[CHECK_BYTES];
    struct push p = { .at = b, .left = sizeof b };

    push_copy(&p, CHECK_MAGIC, CHECK_MAGIC_BYTES);
    push_u32(&p, CHECK_VERSION);
    push_u32(&p, d->shape.block_bytes);
    push_copy(&p, d->m->store.identity.mirror, MIRROR_ID_BYTES);
    push_u64(&p, d->state.number);
    push_u64(&p, c->generation);
    push_u64(&p, c->position);
    push_u64(&p, c->index_bytes);
    push_u64(&p, c->blocks_bytes);
    push_copy(&p, c->hash, sizeof c->hash);
    push_u64(&p, XXH3_64bits(b, CHECK_BYTES - 8));
    assert(!p.full && p.left == 0);
    return publish_bytes(d->m->store.store_fd, name, b, sizeof b, 0600, PUBLISH_REPLACE, e);
}

int checkpoint_load(const struct run_disk *d, const char *name, struct checkpoint *out,
                    struct err *e)
{
    struct bytes body;
    struct pull p;
    const uint8_t *magic, *mirror;
    uint32_t version, block_bytes;
    uint64_t disk, sum;
    bool sound;

    if (file_load(d->m->store.store_fd, name, &body, CHECK_BYTES, e) != 0)
        return -1;
    p = (struct pull){ .at = body.data, .left = body.count };
    magic = pull_bytes(&p, CHECK_MAGIC_BYTES);
    version = pull_u32(&p);
    block_bytes = pull_u32(&p);
    mirror = pull_bytes(&p, MIRROR_ID_BYTES);
    disk = pull_u64(&p);
    out->generation = pull_u64(&p);
    out->position = pull_u64(&p);
    out->index_bytes = pull_u64(&p);
    out->blocks_bytes = pull_u64(&p);
    pull_copy(&p, out->hash, sizeof out->hash);
    sum = pull_u64(&p);
    sound = !p.spent && p.left == 0 && sum == XXH3_64bits(body.data, CHECK_BYTES - 8) &&
            memcmp(magic, CHECK_MAGIC, CHECK_MAGIC_BYTES) == 0 && version == CHECK_VERSION &&
            memcmp(mirror, d->m->store.identity.mirror, MIRROR_ID_BYTES) == 0 &&
            disk == d->state.number && block_bytes == d->shape.block_bytes &&
            out->position <= shape_blocks(d->shape) && out->blocks_bytes <= INT64_MAX;
    bytes_free(&body);
    return sound ? 0 : err_set(e, ERR_CORRUPT, "%s is damaged or of another disk", name);
}
