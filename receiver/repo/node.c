#include "receiver/repo/node.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/cursor.h"
#include "protocol/base/err.h"

static const uint8_t MAGIC[4] = { 'V', 'F', 'N', 'D' };
enum { NODE_VERSION = 1 };
#define CAPACITY_MAX ((uint64_t)1 << 62)

int tree_shape_of(struct tree_shape *out, uint64_t capacity_bytes, uint32_t block_bytes,
                  struct err *e)
{
    if (!block_size_valid(block_bytes) || capacity_bytes == 0 || capacity_bytes > CAPACITY_MAX)
        return err_set(e, ERR_CORRUPT,
                       "a disk of %" PRIu64 " bytes in blocks of %" PRIu32 " is not possible",
                       capacity_bytes, block_bytes);
    out->capacity_bytes = capacity_bytes;
    out->block_bytes = block_bytes;
    out->blocks = block_count_of(capacity_bytes, block_bytes);
    out->levels = tree_levels_of(out->blocks);
    if (out->levels > TREE_LEVELS_MAX)
        return err_set(e, ERR_CORRUPT, "a disk of %" PRIu64 " bytes is too large", capacity_bytes);
    return 0;
}

size_t node_encode(unsigned level, const struct repo_cell *cells, size_t count,
                   uint8_t out[NODE_BYTES_MAX])
{
    struct push p = { .at = out, .left = NODE_BYTES_MAX };

    push_copy(&p, MAGIC, sizeof MAGIC);
    push_u8(&p, NODE_VERSION);
    push_u8(&p, (uint8_t)level);
    push_u16(&p, 0);
    push_u32(&p, (uint32_t)count);
    push_u32(&p, 0);
    push_copy(&p, cells, count * sizeof cells[0]);
    return NODE_BYTES_MAX - p.left;
}

bool cell_is_possible(const struct repo_cell *c)
{
    static const struct repo_id no_id;

    return (memcmp(&c->id, &no_id, sizeof no_id) == 0) == digest_is_zero(&c->digest);
}

/* All possible, and not all zero. */
static bool cells_are_whole(const struct repo_cell *cells, size_t count)
{
    bool any = false;

    for (size_t i = 0; i < count; i++) {
        if (!cell_is_possible(&cells[i]))
            return false;
        any = any || !cell_is_zero(&cells[i]);
    }
    return any;
}

int node_decode(const uint8_t *data, size_t data_bytes, unsigned level, size_t count,
                struct repo_cell *cells, struct err *e)
{
    struct pull p = { .at = data, .left = data_bytes };
    const uint8_t *magic = pull_bytes(&p, sizeof MAGIC);
    uint8_t version = pull_u8(&p), is_level = pull_u8(&p);
    uint16_t zero = pull_u16(&p);
    uint32_t is_count = pull_u32(&p), more_zero = pull_u32(&p);

    if (p.spent || memcmp(magic, MAGIC, sizeof MAGIC) != 0 || zero != 0 || more_zero != 0)
        return err_set(e, ERR_CORRUPT, "it is no node of a tree");
    if (version != NODE_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "a node is written by a newer program (version %u)",
                       version);
    if (is_level != level || is_count != count || p.left != count * sizeof cells[0])
        return err_set(e, ERR_CORRUPT, "a node does not fit its place");
    pull_copy(&p, cells, p.left);
    if (!cells_are_whole(cells, count))
        return err_set(e, ERR_CORRUPT, "a node has cells that cannot be");
    return 0;
}

void tree_spine_free(struct tree_spine *s)
{
    for (size_t i = 0; i < TREE_LEVELS_MAX; i++)
        free(s->level[i].cells);
    *s = (struct tree_spine){ 0 };
}
