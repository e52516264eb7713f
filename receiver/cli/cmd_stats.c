/* vmferry stats --repo REPO [VM] */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/json.h"
#include "receiver/base/log.h"
#include "receiver/base/sizes.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/exit_codes.h"
#include "receiver/cli/report.h"
#include "receiver/cli/repository.h"
#include "receiver/cli/table.h"
#include "receiver/job/repo_list.h"
#include "receiver/repo/repo_care.h"

/* What the whole repository holds. */
struct totals {
    uint64_t packs_bytes;   /* of all packs */
    uint64_t entries_bytes; /* of all entries, as stored */
    uint64_t plain_bytes;   /* the same, plain */
    uint64_t entries, packs;
    uint64_t referred_bytes; /* allocated bytes of all generations together */
};

/* One VM over all its generations. */
struct usage {
    const struct generation_item *newest;
    uint64_t generations, size_bytes, allocated_bytes, stored_bytes;
};

static int add_entry(void *context, const struct repo_entry *entry, struct err *e)
{
    struct totals *t = context;

    (void)e;
    t->entries++;
    t->entries_bytes += entry->stored_bytes;
    t->plain_bytes += entry->plain_bytes;
    return 0;
}

static int count_packs(struct repo *r, struct totals *t, struct err *e)
{
    struct repo_pack *packs = NULL;
    size_t count = 0;
    int rc = 0;

    if (repo_packs(r, &packs, &count, e) != 0)
        return -1;
    for (size_t i = 0; i < count && rc == 0; i++) {
        t->packs += packs[i].stored;
        t->packs_bytes += packs[i].size_bytes;
        if (packs[i].indexed)
            rc = repo_pack_entries(r, &packs[i].key, add_entry, t, e);
    }
    free(packs);
    return rc;
}

static uint64_t allocated_of(const struct generation_item *g)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < g->disk_count; i++)
        sum += g->disks[i].allocated_bytes;
    return sum;
}

/* The generations from first on that are of one VM. */
static struct usage usage_at(const struct repo_list *l, size_t first, size_t *end)
{
    struct usage u = { .newest = repo_list_at(l, first) };
    size_t i = first;

    for (; i < repo_list_count(l) &&
           strcmp(repo_list_at(l, i)->place, repo_list_at(l, first)->place) == 0;
         i++) {
        const struct generation_item *g = repo_list_at(l, i);

        u.newest = g;
        u.generations++;
        u.size_bytes = g->size_bytes;
        u.allocated_bytes += allocated_of(g);
        u.stored_bytes += g->stored_bytes;
    }
    *end = i;
    return u;
}

static void put_usage(struct json *j, const struct usage *u)
{
    json_object(j, NULL);
    json_text(j, "vm", u->newest->vm_now);
    json_text(j, "uuid", u->newest->uuid);
    json_text(j, "host", u->newest->host);
    json_number(j, "generations", u->generations);
    json_number(j, "newest", u->newest->number);
    json_time(j, "time", u->newest->time);
    json_number(j, "size", u->size_bytes);
    json_number(j, "allocated", u->allocated_bytes);
    json_number(j, "stored", u->stored_bytes);
    json_close(j);
}

/* The repository itself is the last item; its vm is null. */
static void put_totals(struct json *j, const struct totals *t, const struct repo_facts *f)
{
    char hex[REPO_KEY_HEX_BYTES];

    repo_key_hex(&f->key, hex);
    json_object(j, NULL);
    json_null(j, "vm");
    json_text(j, "repository", hex);
    json_bool(j, "encrypted", f->encrypted);
    json_bool(j, "append_only", f->append_only);
    json_number(j, "block_size", f->block_bytes);
    json_number(j, "packs", t->packs);
    json_number(j, "packs_bytes", t->packs_bytes);
    json_number(j, "blocks", t->entries);
    json_number(j, "blocks_plain", t->plain_bytes);
    json_number(j, "blocks_stored", t->entries_bytes);
    json_number(j, "allocated", t->referred_bytes);
    json_close(j);
}

static int add_row(struct table *t, const struct usage *u, struct err *e)
{
    char generations[24], size[SIZE_TEXT_BYTES], allocated[SIZE_TEXT_BYTES];
    char stored[SIZE_TEXT_BYTES];
    const char *cells[] = {
        u->newest->vm_now,
        u->newest->host,
        generations,
        size_text_short(size, u->size_bytes),
        size_text_short(allocated, u->allocated_bytes),
        size_text_short(stored, u->stored_bytes),
    };

    snprintf(generations, sizeof generations, "%" PRIu64, u->generations);
    return table_row(t, cells, e);
}

/* "2.3 : 1" */
static void ratio(char out[24], uint64_t before, uint64_t after)
{
    if (after == 0)
        snprintf(out, 24, "-");
    else
        snprintf(out, 24, "%.1f : 1", (double)before / (double)after);
}

static void print_totals(const struct totals *t)
{
    char packs[SIZE_TEXT_BYTES], plain[SIZE_TEXT_BYTES], stored[SIZE_TEXT_BYTES];
    char referred[SIZE_TEXT_BYTES], dedup[24], packing[24];

    ratio(dedup, t->referred_bytes, t->plain_bytes);
    ratio(packing, t->plain_bytes, t->entries_bytes);
    printf("\n%s in %" PRIu64 " packs, %" PRIu64 " blocks and nodes\n"
           "all generations read out: %s; each block once: %s (%s); compressed: %s (%s)\n",
           size_text(packs, t->packs_bytes), t->packs, t->entries,
           size_text(referred, t->referred_bytes), size_text(plain, t->plain_bytes), dedup,
           size_text(stored, t->entries_bytes), packing);
}

static bool wanted(const struct app *app, const struct generation_item *g)
{
    return app->options->operand_count == 0 || generation_is_of_vm(g, app->options->operands[0]);
}

static void print_json(struct app *app, const struct repo_list *l, const struct totals *t,
                       const struct repo_facts *f)
{
    struct json *j = report_array_begin(app->report);

    for (size_t i = 0, end; j != NULL && i < repo_list_count(l); i = end) {
        struct usage u = usage_at(l, i, &end);

        if (wanted(app, u.newest))
            put_usage(j, &u);
    }
    if (j == NULL)
        return;
    put_totals(j, t, f);
    report_array_end(app->report);
}

static int print_people(struct app *app, const struct repo_list *l, const struct totals *t,
                        struct err *e)
{
    static const struct table_column columns[] = {
        { "VM", false, true },   { "HOST", false, true }, { "GENERATIONS", true, false },
        { "SIZE", true, false }, { "ALL", true, false },  { "STORED", true, false },
    };
    struct table *table = NULL;
    int rc = -1;

    if (table_new(&table, columns, 6, e) != 0)
        return -1;
    for (size_t i = 0, end; i < repo_list_count(l); i = end) {
        struct usage u = usage_at(l, i, &end);

        if (wanted(app, u.newest) && add_row(table, &u, e) != 0)
            goto out;
    }
    table_print(table, stdout, app_columns(), 0);
    print_totals(t);
    rc = 0;

out:
    table_free(table);
    return rc;
}

static int check_named(const struct app *app, const struct repo_list *l, struct err *e)
{
    const struct options *o = app->options;
    const struct generation_list all = repo_list_generations(l);
    const char *place;

    return o->operand_count == 0 ? 0 : generation_find_vm(&all, o->operands[0], &place, e);
}

int cmd_stats(struct app *app, struct err *e)
{
    struct repository r;
    struct repo_facts facts;
    struct repo_list *l = NULL;
    struct totals t = { 0 };
    int rc = -1;

    if (repository_open(&r, app, REPO_SHARED, true, e) != 0 || repo_list_load(&l, r.repo, e) != 0 ||
        check_named(app, l, e) != 0 || count_packs(r.repo, &t, e) != 0)
        goto out;
    repo_facts(r.repo, &facts);
    for (size_t i = 0; i < repo_list_problem_count(l); i++)
        log_error("%s", repo_list_problem(l, i));
    for (size_t i = 0; i < repo_list_count(l); i++)
        t.referred_bytes += allocated_of(repo_list_at(l, i));
    if (app->options->json)
        print_json(app, l, &t, &facts);
    else if (print_people(app, l, &t, e) != 0)
        goto out;
    app->exit_code = repo_list_problem_count(l) > 0 ? EXIT_INTEGRITY : EXIT_OK;
    rc = 0;

out:
    repo_list_free(l);
    repository_close(&r);
    return rc;
}
