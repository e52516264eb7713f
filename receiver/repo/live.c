/* Everything that manifests and young partial manifests refer to. */
#include <stdlib.h>

#include "protocol/base/err.h"
#include "receiver/repo/generation.h"
#include "receiver/repo/repo_care.h"
#include "receiver/repo/repo_private.h"

struct marker {
    int (*mark)(void *context, enum repo_entry_type type, const struct repo_id *id, struct err *e);
    void *context;
};

static int mark_node(void *context, unsigned level, uint64_t first_block,
                     const struct repo_cell *cell, struct err *e)
{
    const struct marker *m = context;

    (void)level;
    (void)first_block;
    return m->mark(m->context, REPO_NODE, &cell->id, e);
}

static int mark_blocks(void *context, uint64_t first_block, const struct repo_cell *cells,
                       size_t count, struct err *e)
{
    const struct marker *m = context;

    (void)first_block;
    for (size_t i = 0; i < count; i++)
        if (m->mark(m->context, REPO_BLOCK, &cells[i].id, e) < 0)
            return -1;
    return 0;
}

static int mark_file(struct marker *m, const struct repo_generation_file *f, struct err *e)
{
    for (uint32_t i = 0; i < f->block_count; i++)
        if (m->mark(m->context, REPO_BLOCK, &f->blocks[i], e) < 0)
            return -1;
    return 0;
}

static int mark_generation(struct repo *r, struct marker *m, const struct repo_generation_name *n,
                           struct err *e)
{
    struct repo_walk walk = { .node = mark_node, .block = mark_blocks, .context = m };
    struct repo_generation g;
    int rc = 0;

    /* Forgotten since it was listed: as if it had gone before. */
    if (repo_generation_load(r, &n->vm, n->number, &g, e) != 0)
        return e->code == ERR_NOT_FOUND ? repo_still_there(r, e) : -1;
    for (uint32_t i = 0; i < g.file_count && rc == 0; i++)
        rc = mark_file(m, &g.files[i], e);
    for (uint32_t i = 0; i < g.disk_count && rc == 0; i++)
        if (g.disks[i].state != REPO_DISK_ABSENT)
            rc = repo_disk_walk(r, &g.disks[i], &walk, e);
    repo_generation_free(&g);
    return rc;
}

/* The tree under a cell of this level, as a disk of its own: only the shape below it counts. */
static int mark_cell(struct repo *r, struct marker *m, const struct partial *p, unsigned level,
                     uint64_t capacity_bytes, const struct repo_cell *cell, struct err *e)
{
    struct repo_walk walk = { .node = mark_node, .block = mark_blocks, .context = m };
    struct repo_generation_disk d = { .state = REPO_DISK_READ,
                                      .slot = p->slot,
                                      .capacity_bytes = capacity_bytes,
                                      .block_bytes = p->block_bytes,
                                      .levels = (uint8_t)level,
                                      .secret = p->secret,
                                      .top = *cell };

    return cell_is_zero(cell) ? 0 : repo_disk_walk(r, &d, &walk, e);
}

static int mark_spine(struct repo *r, struct marker *m, const struct partial *p, struct err *e)
{
    if (p->spine.whole)
        return mark_cell(r, m, p, p->spine.levels, p->capacity_bytes, &p->spine.top, e);
    for (unsigned level = 0; level < p->spine.levels; level++)
        for (uint32_t i = 0; i < p->spine.level[level].count; i++)
            if (mark_cell(r, m, p, level, tree_span(level) * p->block_bytes,
                          &p->spine.level[level].cells[i], e) != 0)
                return -1;
    return 0;
}

static int mark_partials(struct repo *r, struct marker *m, uint64_t since, struct err *e)
{
    struct storage_list *list;
    struct storage_item item;
    struct repo_key vm;
    uint64_t session;
    uint32_t disk, sequence;
    int more;

    if (storage_list(r->storage, "partial/", &list, e) != 0)
        return -1;
    index_news(r->index);
    while ((more = storage_next(list, &item, e)) > 0) {
        struct partial p = { 0 };
        int rc;

        if (!name_is_partial(item.name, &vm, &session, &disk, &sequence))
            continue;
        rc = partial_get(r, item.name, &p, e);
        if (rc == 0 && p.time >= since)
            rc = mark_spine(r, m, &p, e);
        /* A running backup removes those that it has replaced. */
        if (rc != 0 && e->code == ERR_NOT_FOUND)
            rc = 0;
        partial_free(&p);
        if (rc != 0) {
            more = -1;
            break;
        }
    }
    storage_list_end(list);
    return more;
}

int repo_mark_live(struct repo *r, uint64_t partials_since,
                   int (*mark)(void *context, enum repo_entry_type type, const struct repo_id *id,
                               struct err *e),
                   void *context, struct err *e)
{
    struct marker m = { .mark = mark, .context = context };
    struct repo_generation_name *names;
    size_t count;
    int rc = 0;

    if (repo_generation_names(r, &names, &count, e) != 0)
        return -1;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = mark_generation(r, &m, &names[i], e);
    free(names);
    return rc == 0 ? mark_partials(r, &m, partials_since, e) : -1;
}
