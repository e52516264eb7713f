#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/repo/run.h"

/*
 * The highest level of which a node begins at `at` and lies within [at, end), or covers the end of
 * both disks, which are alike then.
 */
static unsigned best_level(const struct tree_shape *to, const struct tree_shape *from, uint64_t at,
                           uint64_t end)
{
    bool alike = to->capacity_bytes == from->capacity_bytes && end == to->blocks;
    unsigned most = to->levels < from->levels ? to->levels : from->levels;
    unsigned level = 0;

    while (level < most && at % tree_span(level + 1) == 0 &&
           (tree_span(level + 1) <= end - at || alike))
        level++;
    return level;
}

/* The node of the highest level there is at `at`; level 0: none. */
static int find_node(struct tree_reader *from, unsigned level, uint64_t at, unsigned *found,
                     struct repo_cell *cell, struct err *e)
{
    bool there = false;

    for (; level > 0 && !there; level--) {
        if (tree_reader_node(from, level, at, cell, &there, e) != 0)
            return -1;
        if (there) {
            *found = level;
            return 0;
        }
    }
    *found = 0;
    return 0;
}

int tree_copy(struct tree_builder *to, const struct tree_shape *to_shape, struct tree_reader *from,
              const struct tree_shape *from_shape, uint64_t first, uint64_t end, struct err *e)
{
    while (first < end) {
        const struct repo_cell *cells;
        struct repo_cell node;
        uint64_t count = 0;
        unsigned level;

        if (find_node(from, best_level(to_shape, from_shape, first, end), first, &level, &node,
                      e) != 0)
            return -1;
        if (level > 0) {
            if (tree_builder_add_node(to, level, &node, e) != 0)
                return -1;
            first = tree_builder_position(to);
            continue;
        }
        if (tree_reader_at(from, first, &cells, &count, e) != 0)
            return -1;
        count = min_u64(count, end - first);
        if ((cells == NULL ? tree_builder_add_zeros(to, count, e)
                           : tree_builder_add(to, cells, count, e)) != 0)
            return -1;
        first += count;
    }
    return 0;
}
