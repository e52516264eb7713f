#include "receiver/job/repo_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/repo/repo_read.h"
#include "receiver/repo/repo_verified.h"
#include "receiver/restore/descriptor.h"

/* A generation with what its texts live in. */
struct owned {
    struct generation_item item; /* first */
    struct repo_generation g;
    struct generation_disk *disks;
    char place[REPO_KEY_HEX_BYTES];
};

struct repo_list {
    struct owned **items;
    size_t count;
    char **problems;
    size_t problem_count;
};

static void owned_free(struct owned *o)
{
    if (o == NULL)
        return;
    repo_generation_free(&o->g);
    free(o->disks);
    free(o);
}

void repo_list_free(struct repo_list *l)
{
    if (l == NULL)
        return;
    for (size_t i = 0; i < l->count; i++)
        owned_free(l->items[i]);
    free(l->items);
    for (size_t i = 0; i < l->problem_count; i++)
        free(l->problems[i]);
    free(l->problems);
    free(l);
}

static void fill_disk(struct generation_disk *to, unsigned number,
                      const struct repo_generation_disk *d)
{
    *to = (struct generation_disk){
        .number = number,
        .label = d->label,
        .capacity_bytes = d->capacity_bytes,
        .of_generation = d->state == REPO_DISK_ABSENT ? 0 : d->of,
        .read_path = d->read_path,
        .allocated_bytes = d->allocated_bytes,
        .read_bytes = d->read_bytes,
        .sampled_bytes = d->sampled_bytes,
        .changed_bytes = d->changed_bytes,
        .sent_bytes = d->sent_bytes,
        .stored_bytes = d->stored_bytes,
        .milliseconds = d->milliseconds,
        .root = d->root,
    };
    snprintf(to->slot, sizeof to->slot, "%s", d->slot);
    image_name(to->file, d->slot);
}

/* The names of disks become file names: nothing but a slot is believed. */
static int check_slots(const struct repo_generation *g, struct err *e)
{
    for (uint32_t i = 0; i < g->disk_count; i++)
        if (!image_slot_valid(g->disks[i].slot))
            return err_set(e, ERR_CORRUPT, "disk %u has a slot that is none", (unsigned)i);
    return 0;
}

static int fill_item(struct owned *o, struct err *e)
{
    struct repo_generation *g = &o->g;
    struct generation_item *item = &o->item;

    if (check_slots(g, e) != 0)
        return -1;
    o->disks = calloc(g->disk_count > 0 ? g->disk_count : 1, sizeof o->disks[0]);
    if (o->disks == NULL)
        return err_sys(e, "getting memory");
    repo_key_hex(&g->vm, o->place);
    *item = (struct generation_item){
        .place = o->place,
        .number = g->number,
        .vm = g->vm_name,
        .vm_now = g->vm_name, /* until the newest one is known */
        .uuid = g->vm_uuid,
        .host = g->host_name,
        .host_uuid = g->host_uuid,
        .vmx_path = g->vmx_path,
        .time = (int64_t)g->time,
        .kind = g->kind,
        .outcome = g->outcome,
        .consistency = g->consistency,
        .data_channel = g->data_channel,
        .read_path = g->read_path,
        .change_source = g->change_source,
        .snapshot = g->snapshot,
        .disks = o->disks,
        .disk_count = g->disk_count,
    };
    repo_key_hex(&g->key, item->id);
    for (uint32_t i = 0; i < g->disk_count; i++) {
        fill_disk(&o->disks[i], i + 1, &g->disks[i]);
        item->size_bytes += g->disks[i].capacity_bytes;
        item->read_bytes += g->disks[i].read_bytes;
        item->sent_bytes += g->disks[i].sent_bytes;
        item->changed_bytes += g->disks[i].changed_bytes;
        item->stored_bytes += g->disks[i].stored_bytes;
    }
    return 0;
}

static int add_problem(struct repo_list *l, const char *text, struct err *e)
{
    l->problems[l->problem_count] = strdup(text);
    if (l->problems[l->problem_count] == NULL)
        return err_sys(e, "getting memory");
    l->problem_count++;
    return 0;
}

static bool is_damage(enum err_code code)
{
    return code == ERR_CORRUPT || code == ERR_FORMAT || code == ERR_LIMIT ||
           code == ERR_UNSUPPORTED;
}

static int add_generation(struct repo_list *l, struct repo *r, const struct repo_generation_name *n,
                          struct err *e)
{
    struct owned *o = calloc(1, sizeof *o);
    struct err why;

    if (o == NULL)
        return err_sys(e, "getting memory");
    if (repo_generation_load(r, &n->vm, n->number, &o->g, &why) == 0 && fill_item(o, &why) == 0) {
        l->items[l->count++] = o;
        return 0;
    }
    owned_free(o);
    if (why.code == ERR_NOT_FOUND)
        return repo_still_there(r, e); /* forgotten while we looked */
    if (is_damage(why.code))
        return add_problem(l, why.text, e);
    *e = why;
    return -1;
}

/* The newest one's name is what the VM is called now. */
static void name_vms(struct repo_list *l)
{
    for (size_t i = l->count; i-- > 0;) {
        struct generation_item *item = &l->items[i]->item;
        const struct generation_item *next = i + 1 < l->count ? &l->items[i + 1]->item : NULL;

        item->newest = next == NULL || strcmp(next->place, item->place) != 0;
        if (!item->newest)
            item->vm_now = next->vm_now;
    }
}

/* Nothing depends on it: where it cannot be read nothing is known. */
static void add_verified(struct repo_list *l, struct repo *r)
{
    struct repo_verified v;
    struct err none;

    if (repo_verified_load(r, &v, &none) != 0)
        return;
    for (size_t i = 0; i < l->count; i++) {
        const struct repo_generation *g = &l->items[i]->g;

        l->items[i]->item.verified = (int64_t)repo_verified_time(&v, &g->vm, g->number);
    }
    repo_verified_free(&v);
}

int repo_list_load(struct repo_list **out, struct repo *r, struct err *e)
{
    struct repo_list *l = calloc(1, sizeof *l);
    struct repo_generation_name *names = NULL;
    size_t count = 0;
    int rc = -1;

    if (l == NULL)
        return err_sys(e, "getting memory");
    if (repo_generation_names(r, &names, &count, e) != 0)
        goto out;
    l->items = calloc(count + 1, sizeof l->items[0]);
    l->problems = calloc(count + 1, sizeof l->problems[0]);
    if (l->items == NULL || l->problems == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    for (size_t i = 0; i < count; i++)
        if (add_generation(l, r, &names[i], e) != 0)
            goto out;
    name_vms(l);
    add_verified(l, r);
    *out = l;
    l = NULL;
    rc = 0;

out:
    free(names);
    repo_list_free(l);
    return rc;
}

size_t repo_list_count(const struct repo_list *l)
{
    return l->count;
}

const struct generation_item *repo_list_at(const struct repo_list *l, size_t index)
{
    return &l->items[index]->item;
}

static const struct generation_item *item_at(const void *context, size_t index)
{
    return repo_list_at(context, index);
}

struct generation_list repo_list_generations(const struct repo_list *l)
{
    return (struct generation_list){ .context = l, .count = l->count, .at = item_at };
}

const struct repo_generation *repo_list_manifest(const struct generation_item *item)
{
    return &((const struct owned *)(const void *)item)->g;
}

size_t repo_list_problem_count(const struct repo_list *l)
{
    return l->problem_count;
}

const char *repo_list_problem(const struct repo_list *l, size_t index)
{
    return l->problems[index];
}

int repo_list_find(const struct repo_list *l, const char *gen, const struct generation_item **out,
                   uint64_t *newer_partial, struct err *e)
{
    const struct generation_list all = repo_list_generations(l);

    if (generation_find(&all, gen, out, newer_partial, e) == 0)
        return 0;
    /* What is meant may be what cannot be read. */
    if (e->code == ERR_NOT_FOUND && l->problem_count > 0) {
        e->code = ERR_CORRUPT;
        err_add(e, "%s", l->problems[0]);
    }
    return -1;
}
