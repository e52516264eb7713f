#include "protocol/vmdk/chain.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/vmdk/chain_private.h"
#include "protocol/vmdk/descriptor.h"
#include "protocol/vmdk/pages.h"

/* ---- opening ---- */

/* Do a link and the one below it belong together? */
static int check_pair(const struct link *child, const struct link *parent, struct err *e)
{
    uint32_t expected = child->descriptor->parent_cid, found = parent->descriptor->cid;
    /* A host demands equal sizes; hosted products let a child be larger than its parent. */
    bool must_match =
        strcmp(child->info.format, "COWD") == 0 || strcmp(child->info.format, "seSparse") == 0;

    if (expected != found)
        return err_set(e, ERR_SOURCE,
                       "%s expects content id %08" PRIx32 " below it, but %s has %08" PRIx32
                       ": the parent was written to by itself, or a descriptor was changed while "
                       "the chain was read",
                       child->file.place, expected, parent->file.place, found);
    if (must_match && child->info.capacity_bytes != parent->info.capacity_bytes)
        return err_set(e, ERR_CORRUPT, "%s has %" PRIu64 " bytes, but its parent %s has %" PRIu64,
                       child->file.place, child->info.capacity_bytes, parent->file.place,
                       parent->info.capacity_bytes);
    return 0;
}

static int open_links(struct vmdk_chain *c, const char *tip, struct err *e)
{
    const char *from = NULL, *name = tip;

    for (;;) {
        struct link *last;

        if (c->link_count == VMDK_LINKS_MAX)
            return err_set(e, ERR_LIMIT, "the chain has more than %d links", VMDK_LINKS_MAX);
        if (link_open(c, from, name, e) != 0) {
            if (from == NULL)
                return -1;
            if (e != NULL && e->code == ERR_FORMAT)
                e->code = ERR_CORRUPT;
            return err_add(e, "the parent of %s", from);
        }
        last = &c->links[c->link_count - 1];
        if (c->link_count > 1 && check_pair(last - 1, last, e) != 0)
            return -1;
        if (last->descriptor->parent_cid == DESCRIPTOR_CID_NONE)
            return 0;
        from = last->file.place;
        name = last->descriptor->parent_hint;
    }
}

static void chain_free(struct vmdk_chain *c)
{
    for (size_t i = 0; c->links != NULL && i < c->link_count; i++)
        link_close(&c->links[i]);
    free(c->links);
    pages_free(c->pages);
    packed_slot_free(&c->packed);
    free(c);
}

int vmdk_chain_open(struct vmdk_chain **out, const struct vmdk_config *config, const char *tip,
                    struct err *e)
{
    struct vmdk_chain *c = calloc(1, sizeof *c);
    size_t cache = config->cache_bytes != 0 ? config->cache_bytes : VMDK_CACHE_BYTES_DEFAULT;

    if (c == NULL)
        return err_sys(e, "opening a disk");
    c->source.ops = &chain_ops;
    c->config = *config;
    c->seeks_holes = true;
    packed_slot_init(&c->packed);
    c->links = calloc(VMDK_LINKS_MAX, sizeof *c->links);
    if (c->links == NULL) {
        err_sys(e, "opening a disk");
        goto fail;
    }
    if (pages_new(&c->pages, cache, e) != 0)
        goto fail;
    if (open_links(c, tip, &c->problem) != 0) {
        if (e != NULL)
            *e = c->problem;
        if ((config->flags & VMDK_DESCRIBE) == 0 || c->link_count == 0)
            goto fail;
    } else {
        c->problem.code = ERR_NONE;
    }
    c->source.capacity_bytes = c->links[0].info.capacity_bytes;
    c->source.allocated_bytes = min_u64(c->source.allocated_bytes, c->source.capacity_bytes);
    *out = c;
    return 0;

fail:
    chain_free(c);
    return -1;
}

void vmdk_chain_close(struct vmdk_chain *c)
{
    if (c != NULL)
        chain_free(c);
}

struct source *vmdk_chain_source(struct vmdk_chain *c)
{
    return &c->source;
}

int vmdk_source_open(struct source **out, const struct vmdk_config *config, const char *tip,
                     struct err *e)
{
    struct vmdk_config whole = *config;
    struct vmdk_chain *c;

    whole.flags &= ~(unsigned)VMDK_DESCRIBE;
    if (vmdk_chain_open(&c, &whole, tip, e) != 0)
        return -1;
    *out = &c->source;
    return 0;
}

/* ---- what it is ---- */

bool vmdk_chain_seeks_holes(const struct vmdk_chain *c)
{
    return c->seeks_holes;
}

size_t vmdk_chain_link_count(const struct vmdk_chain *c)
{
    return c->link_count;
}

const struct vmdk_link *vmdk_chain_link(const struct vmdk_chain *c, size_t index)
{
    return &c->links[index].info;
}

const char *vmdk_chain_extent_place(const struct vmdk_chain *c, size_t link, size_t extent)
{
    const struct link *l = &c->links[link];

    if (l->info.embedded)
        return l->file.place;
    return l->slots[extent].file.place != NULL ? l->slots[extent].file.place : "";
}

const char *vmdk_chain_ddb(const struct vmdk_chain *c, const char *name)
{
    for (size_t i = 0; i < c->link_count; i++) {
        const char *value = descriptor_ddb(c->links[i].descriptor, name);

        if (value != NULL)
            return value;
    }
    return NULL;
}

int vmdk_chain_find(const struct vmdk_chain *c, const char *place, size_t *index, struct err *e)
{
    for (size_t i = 0; i < c->link_count; i++)
        if (strcmp(c->links[i].file.place, place) == 0) {
            *index = i;
            return 0;
        }
    return err_set(e, ERR_NOT_FOUND, "%s is no link of the chain of %s", place,
                   c->links[0].file.place);
}

const struct err *vmdk_chain_problem(const struct vmdk_chain *c)
{
    return c->problem.code == ERR_NONE ? NULL : &c->problem;
}

int vmdk_chain_unchanged(struct vmdk_chain *c, struct err *e)
{
    struct vmdk_files *files = c->config.files;

    if (files->unchanged == NULL)
        return err_set(e, ERR_UNSUPPORTED, "whether the disk's files are unchanged cannot be seen");
    for (size_t i = 0; i < c->link_count; i++) {
        const struct link *l = &c->links[i];

        if (files->unchanged(files, &l->file, e) != 0)
            return -1;
        for (size_t k = 0; k < l->slot_count; k++)
            if (l->slots[k].file.place != NULL &&
                files->unchanged(files, &l->slots[k].file, e) != 0)
                return -1;
    }
    return 0;
}
