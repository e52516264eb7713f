/* vmferry diff GEN GEN --repo REPO */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/json.h"
#include "receiver/base/sizes.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/report.h"
#include "receiver/cli/repository.h"
#include "receiver/cli/table.h"
#include "receiver/job/repo_list.h"
#include "receiver/repo/repo_read.h"

enum { REGIONS_SHOWN_MAX = 10000 };

struct region {
    uint64_t offset_bytes, length_bytes;
};

/* One disk of the second generation beside that of the first. */
struct compared {
    const char *slot;
    const struct repo_generation_disk *a, *b; /* NULL: not there */
    bool comparable;
    uint64_t changed_bytes, region_count;
    struct region *regions; /* the first of them */
};

static int add_region(void *context, uint64_t first_block, uint64_t count, struct err *e)
{
    struct compared *c = context;
    uint64_t size = c->b->block_bytes, from = first_block * size;
    uint64_t end = min_u64((first_block + count) * size, c->b->capacity_bytes);

    (void)e;
    c->changed_bytes += end - from;
    if (c->region_count < REGIONS_SHOWN_MAX)
        c->regions[c->region_count] = (struct region){ from, end - from };
    c->region_count++;
    return 0;
}

static const struct repo_generation_disk *disk_of(const struct repo_generation *g, const char *slot)
{
    for (uint32_t i = 0; i < g->disk_count; i++)
        if (strcmp(g->disks[i].slot, slot) == 0 && g->disks[i].state != REPO_DISK_ABSENT)
            return &g->disks[i];
    return NULL;
}

static int compare(struct repo *r, struct compared *c, struct err *e)
{
    if (c->a == NULL || c->b == NULL)
        return 0;
    c->regions = calloc(REGIONS_SHOWN_MAX, sizeof c->regions[0]);
    if (c->regions == NULL)
        return err_sys(e, "getting memory");
    if (repo_disk_diff(r, c->a, c->b, add_region, c, e) == 0) {
        c->comparable = true;
        return 0;
    }
    /* Another disk in the slot, or one that has grown: there is no block by block. */
    return e->code == ERR_USAGE ? 0 : err_add(e, "%s", c->slot);
}

static void put_json(struct app *app, const struct compared *all, size_t count)
{
    struct json *j = report_array_begin(app->report);

    for (size_t i = 0; j != NULL && i < count; i++) {
        const struct compared *c = &all[i];

        json_object(j, NULL);
        json_text(j, "disk", c->slot);
        json_bool(j, "comparable", c->comparable);
        json_number(j, "capacity_before", c->a != NULL ? c->a->capacity_bytes : 0);
        json_number(j, "capacity", c->b != NULL ? c->b->capacity_bytes : 0);
        if (c->comparable)
            json_number(j, "changed", c->changed_bytes);
        else
            json_null(j, "changed");
        json_number(j, "region_count", c->region_count);
        json_array(j, "regions");
        for (size_t k = 0; k < c->region_count && k < REGIONS_SHOWN_MAX; k++) {
            json_object(j, NULL);
            json_number(j, "offset", c->regions[k].offset_bytes);
            json_number(j, "length", c->regions[k].length_bytes);
            json_close(j);
        }
        json_close(j);
        json_close(j);
    }
    if (j != NULL)
        report_array_end(app->report);
}

static int print(const struct compared *all, size_t count, struct err *e)
{
    static const struct table_column columns[] = {
        { "DISK", false, false },   { "BEFORE", true, false },  { "AFTER", true, false },
        { "CHANGED", true, false }, { "REGIONS", true, false },
    };
    struct table *t = NULL;
    int rc = 0;

    if (table_new(&t, columns, ARRAY_COUNT(columns), e) != 0)
        return -1;
    for (size_t i = 0; i < count && rc == 0; i++) {
        const struct compared *c = &all[i];
        char before[SIZE_TEXT_BYTES], after[SIZE_TEXT_BYTES], changed[SIZE_TEXT_BYTES];
        char regions[24];
        const char *cells[] = {
            c->slot,
            c->a != NULL ? size_text(before, c->a->capacity_bytes) : NULL,
            c->b != NULL ? size_text(after, c->b->capacity_bytes) : NULL,
            c->comparable ? size_text(changed, c->changed_bytes) : "not comparable",
            c->comparable ? regions : NULL,
        };

        snprintf(regions, sizeof regions, "%" PRIu64, c->region_count);
        rc = table_row(t, cells, e);
    }
    if (rc == 0)
        table_print(t, stdout, app_columns(), 0);
    table_free(t);
    return rc;
}

/* The disks of both, those of the second first. */
static size_t pair(const struct repo_generation *a, const struct repo_generation *b,
                   struct compared *all)
{
    size_t n = 0;

    for (uint32_t i = 0; i < b->disk_count; i++) {
        const char *slot = b->disks[i].slot;

        all[n++] = (struct compared){ .slot = slot, .a = disk_of(a, slot), .b = disk_of(b, slot) };
    }
    for (uint32_t i = 0; i < a->disk_count; i++) {
        const char *slot = a->disks[i].slot;
        bool there = false;

        for (uint32_t k = 0; k < b->disk_count; k++)
            there = there || strcmp(b->disks[k].slot, slot) == 0;
        if (!there)
            all[n++] = (struct compared){ .slot = slot, .a = disk_of(a, slot) };
    }
    return n;
}

static int diff(struct app *app, struct repo *r, const struct repo_generation *a,
                const struct repo_generation *b, struct err *e)
{
    struct compared *all = calloc((size_t)a->disk_count + b->disk_count + 1, sizeof *all);
    size_t count = 0;
    int rc = -1;

    if (all == NULL)
        return err_sys(e, "getting memory");
    count = pair(a, b, all);
    for (size_t i = 0; i < count; i++)
        if (compare(r, &all[i], e) != 0)
            goto out;
    rc = 0;
    if (app->options->json)
        put_json(app, all, count);
    else
        rc = print(all, count, e);

out:
    for (size_t i = 0; i < count; i++)
        free(all[i].regions);
    free(all);
    return rc;
}

int cmd_diff(struct app *app, struct err *e)
{
    const struct options *o = app->options;
    const struct generation_item *a, *b;
    struct repo_list *l = NULL;
    struct repository r = { 0 };
    int rc = -1;

    if (repository_open(&r, app, REPO_SHARED, true, e) == 0 && repo_list_load(&l, r.repo, e) == 0 &&
        repo_list_find(l, o->operands[0], &a, NULL, e) == 0 &&
        repo_list_find(l, o->operands[1], &b, NULL, e) == 0)
        rc = diff(app, r.repo, repo_list_manifest(a), repo_list_manifest(b), e);
    repo_list_free(l);
    repository_close(&r);
    if (rc == 0)
        app->exit_code = 0;
    return rc;
}
