/* vmferry forget GEN... --repo REPO, vmferry forget [VM...] --keep-... --repo REPO */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/base/json.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/repository.h"
#include "receiver/cli/screen.h"
#include "receiver/cli/table.h"
#include "receiver/job/repo_list.h"
#include "receiver/repo/repo_care.h"

enum { CLOCK_SLACK_S = 86400, MANY_LEAST = 10 };

/* Every generation of the repository, and what becomes of it. */
struct plan {
    struct repo_list *list;
    struct retention_item *items; /* one for each of the list */
    bool *meant;                  /* its VM or itself was named */
    size_t count;
};

static void free_plan(void *context)
{
    struct plan *p = context;

    repo_list_free(p->list);
    free(p->items);
    free(p->meant);
    free(p);
}

static void put_plan(void *context, struct json *j)
{
    const struct plan *p = context;

    json_array(j, "generations");
    for (size_t i = 0; i < p->count; i++) {
        const struct generation_item *g = repo_list_at(p->list, i);

        if (!p->meant[i])
            continue;
        json_object(j, NULL);
        json_text(j, "vm", g->vm);
        json_text(j, "host", g->host);
        json_number(j, "generation", g->number);
        json_text(j, "id", g->id);
        json_time(j, "time", g->time);
        json_bool(j, "keep", p->items[i].keep);
        json_text(j, "reason", p->items[i].reason);
        json_close(j);
    }
    json_close(j);
}

/* --- what is known of the generations --- */

struct tag_search {
    const struct keep_policy *policy;
    bool found;
};

static int look_at_tag(void *context, const char *tag, struct err *e)
{
    struct tag_search *s = context;

    (void)e;
    for (size_t i = 0; i < s->policy->tag_count; i++)
        s->found = s->found || strcmp(s->policy->tags[i], tag) == 0;
    return 0;
}

static int fill_item(struct repo *r, const struct keep_policy *policy,
                     const struct generation_item *g, struct retention_item *item, struct err *e)
{
    const struct repo_key *vm = &repo_list_manifest(g)->vm;
    struct tag_search tags = { .policy = policy };
    int pinned = repo_is_pinned(r, vm, g->number, e);

    if (pinned < 0 ||
        (policy->tag_count > 0 && repo_tags(r, vm, g->number, look_at_tag, &tags, e) != 0))
        return -1;
    *item = (struct retention_item){
        .number = g->number,
        .time = g->time,
        .good = strcmp(g->outcome, "ok") == 0,
        .pinned = pinned > 0,
        .tagged = tags.found,
        .keep = true,
    };
    return 0;
}

/* Reading everything first: what cannot be read may be what others stand for. */
static int load_plan(struct plan *p, struct repo *r, const struct options *o, struct err *e)
{
    if (repo_list_load(&p->list, r, e) != 0)
        return -1;
    if (repo_list_problem_count(p->list) > 0)
        return err_set(e, ERR_CORRUPT, "%s; nothing is forgotten while a manifest cannot be read",
                       repo_list_problem(p->list, 0));
    p->count = repo_list_count(p->list);
    p->items = calloc(p->count + 1, sizeof p->items[0]);
    p->meant = calloc(p->count + 1, sizeof p->meant[0]);
    if (p->items == NULL || p->meant == NULL)
        return err_sys(e, "getting memory");
    for (size_t i = 0; i < p->count; i++) {
        const struct generation_item *g = repo_list_at(p->list, i);

        if (g->time > clock_now() + CLOCK_SLACK_S)
            return err_set(e, ERR_REFUSED,
                           "%s@%" PRIu64 " is from the future: the clock of this machine, or of "
                           "the one that made it, is wrong; nothing is forgotten",
                           g->vm, g->number);
        if (fill_item(r, &o->keep_policy, g, &p->items[i], e) != 0)
            return -1;
    }
    return 0;
}

/* The end of the VM that begins at i. */
static size_t vm_end(const struct plan *p, size_t i)
{
    const char *place = repo_list_at(p->list, i)->place;

    while (i < p->count && strcmp(repo_list_at(p->list, i)->place, place) == 0)
        i++;
    return i;
}

/* --- what is meant --- */

static int decide_by_rules(struct plan *p, const struct options *o, struct err *e)
{
    const struct generation_list all = repo_list_generations(p->list);

    for (size_t k = 0; k < o->operand_count; k++) {
        const char *place;

        if (generation_find_vm(&all, o->operands[k], &place, e) != 0)
            return -1;
        for (size_t i = 0; i < p->count; i++)
            if (strcmp(repo_list_at(p->list, i)->place, place) == 0)
                p->meant[i] = true;
    }
    for (size_t i = 0, end; i < p->count; i = end) {
        end = vm_end(p, i);
        if (o->operand_count == 0)
            memset(p->meant + i, true, end - i);
        if (p->meant[i])
            retention_decide(&o->keep_policy, clock_now(), o->min_age_s, p->items + i, end - i);
    }
    return 0;
}

static int mean_operands(struct plan *p, const struct options *o, struct err *e)
{
    for (size_t k = 0; k < o->operand_count; k++) {
        const struct generation_item *g;

        if (repo_list_find(p->list, o->operands[k], &g, NULL, e) != 0)
            return -1;
        for (size_t i = 0; i < p->count; i++)
            if (repo_list_at(p->list, i) == g)
                p->meant[i] = true;
    }
    return 0;
}

/* A generation that was named goes, unless it is pinned or the last good one of its VM. */
static int decide_named(struct plan *p, const struct options *o, struct err *e)
{
    if (mean_operands(p, o, e) != 0)
        return -1;
    for (size_t i = 0, end; i < p->count; i = end) {
        size_t good = 0, going = 0;

        end = vm_end(p, i);
        for (size_t k = i; k < end; k++) {
            const struct generation_item *g = repo_list_at(p->list, k);

            good += p->items[k].good;
            if (!p->meant[k])
                continue;
            if (p->items[k].pinned)
                return err_set(e, ERR_REFUSED, "%s@%" PRIu64 " is pinned; forget --unpin first",
                               g->vm, g->number);
            going += p->items[k].good;
            p->items[k].keep = false;
            snprintf(p->items[k].reason, sizeof p->items[k].reason, "named");
        }
        if (going > 0 && going == good)
            return err_set(e, ERR_REFUSED,
                           "%s would have no good generation left; the last one is never forgotten",
                           repo_list_at(p->list, i)->vm_now);
    }
    return 0;
}

/* --- fuses --- */

/* Did nearly all of it change at once, into what does not compress, after one that did? */
static bool looks_encrypted(const struct generation_item *before, const struct generation_item *now)
{
    uint64_t allocated = 0;

    for (size_t i = 0; i < now->disk_count; i++)
        allocated += now->disks[i].allocated_bytes;
    return strcmp(now->kind, "changed") == 0 && allocated > 0 &&
           now->changed_bytes >= allocated / 10 * 9 &&
           now->sent_bytes >= now->changed_bytes / 100 * 97 && before->changed_bytes > 0 &&
           before->sent_bytes < before->changed_bytes / 10 * 9;
}

static int check_fuses(const struct plan *p, const struct options *o, struct err *e)
{
    for (size_t i = 0, end; i < p->count; i = end) {
        const struct generation_item *last;
        size_t going = 0;

        end = vm_end(p, i);
        last = repo_list_at(p->list, end - 1);
        for (size_t k = i; k < end; k++)
            going += !p->items[k].keep;
        if (going == 0 || o->yes)
            continue;
        if (going > MANY_LEAST && going * 2 > end - i)
            return err_set(e, ERR_REFUSED,
                           "%zu of the %zu generations of %s would go: if that is meant, --yes",
                           going, end - i, last->vm_now);
        if (end - i > 1 && looks_encrypted(repo_list_at(p->list, end - 2), last))
            return err_set(e, ERR_REFUSED,
                           "nearly all of %s changed at once in generation %" PRIu64
                           " and no longer compresses: was it encrypted by somebody? Look at it; "
                           "then --yes",
                           last->vm_now, last->number);
    }
    return 0;
}

/* --- doing it --- */

static int forget_all(const struct plan *p, struct repo *r, struct err *e)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct generation_item *g = repo_list_at(p->list, i);
        const struct repo_key *vm = &repo_list_manifest(g)->vm;

        if (!p->meant[i] || p->items[i].keep)
            continue;
        if (repo_forget(r, vm, g->number, e) == 0)
            continue;
        /* A full disk must not keep us from making room on it. */
        if (e->code != ERR_SPACE || repo_reserve_drop(r, e) != 0)
            return err_add(e, "%s@%" PRIu64, g->vm, g->number);
        repository_tell_reserve();
        if (repo_forget(r, vm, g->number, e) != 0)
            return err_add(e, "%s@%" PRIu64, g->vm, g->number);
    }
    return 0;
}

static int pin_all(struct plan *p, struct repo *r, const struct options *o, struct err *e)
{
    if (mean_operands(p, o, e) != 0)
        return -1;
    for (size_t i = 0; i < p->count; i++) {
        const struct generation_item *g = repo_list_at(p->list, i);

        if (!p->meant[i])
            continue;
        p->items[i].pinned = o->pin;
        snprintf(p->items[i].reason, sizeof p->items[i].reason, "%s",
                 o->pin ? "pinned" : "no longer pinned");
        if (!o->dry_run && repo_pin(r, &repo_list_manifest(g)->vm, g->number, o->pin, e) != 0)
            return err_add(e, "%s@%" PRIu64, g->vm, g->number);
    }
    return 0;
}

static int print(const struct plan *p, struct err *e)
{
    static const struct table_column columns[] = {
        { "VM", false, true }, { "GEN", true, false }, { "TIME", false, false },
        { "", false, false },  { "WHY", false, true },
    };
    struct table *t = NULL;
    int rc = 0;

    if (table_new(&t, columns, ARRAY_COUNT(columns), e) != 0)
        return -1;
    for (size_t i = 0; i < p->count && rc == 0; i++) {
        const struct generation_item *g = repo_list_at(p->list, i);
        char number[24], time[CLOCK_TEXT_BYTES];
        const char *cells[] = {
            g->vm_now,
            number,
            clock_format_local(time, g->time),
            p->items[i].keep ? "stays" : "goes",
            p->items[i].reason,
        };

        snprintf(number, sizeof number, "%" PRIu64, g->number);
        if (p->meant[i])
            rc = table_row(t, cells, e);
    }
    if (rc == 0)
        table_print(t, stdout, app_columns(), 0);
    table_free(t);
    return rc;
}

static int check_usage(const struct options *o, struct err *e)
{
    bool rules = !keep_policy_is_empty(&o->keep_policy);
    bool pins = o->pin || o->unpin;

    if (o->pin && o->unpin)
        return err_set(e, ERR_USAGE, "--pin and --unpin: give one of them");
    if (rules && pins)
        return err_set(e, ERR_USAGE, "--pin and --unpin take generations, not rules");
    if (!rules && o->operand_count == 0)
        return err_set(e, ERR_USAGE,
                       "forget what? Name generations, or give rules (--keep-last, "
                       "--keep-daily ...); usage: vmferry forget GEN... | [VM...] "
                       "--keep-... --repo REPO");
    return 0;
}

static int act(struct app *app, struct plan *p, struct repo *r, struct err *e)
{
    const struct options *o = app->options;
    struct repo_facts facts;

    repo_facts(r, &facts);
    if (o->pin || o->unpin)
        return pin_all(p, r, o, e);
    if (facts.append_only)
        return err_set(e, ERR_REFUSED, "the repository is append-only: nothing is forgotten");
    if (keep_policy_is_empty(&o->keep_policy) ? decide_named(p, o, e) != 0
                                              : decide_by_rules(p, o, e) != 0)
        return -1;
    if (o->dry_run)
        return 0;
    return check_fuses(p, o, e) != 0 ? -1 : forget_all(p, r, e);
}

int cmd_forget(struct app *app, struct err *e)
{
    const struct options *o = app->options;
    struct repository r = { 0 };
    struct plan *p;
    int rc = -1;

    if (check_usage(o, e) != 0)
        return -1;
    p = calloc(1, sizeof *p);
    if (p == NULL)
        return err_sys(e, "getting memory");
    app->summary_context = p;
    app->summary_end = free_plan;
    if (repository_open(&r, app, REPO_SHARED, o->dry_run, e) != 0 ||
        (!o->dry_run && repo_forget_begin(r.repo, e) != 0) || load_plan(p, r.repo, o, e) != 0 ||
        act(app, p, r.repo, e) != 0)
        goto out;
    app->summary = put_plan;
    rc = 0;
    if (!o->json)
        rc = print(p, e);
    if (rc == 0 && !o->json && o->dry_run)
        printf("nothing was done (dry run)\n");

out:
    repository_close(&r);
    return rc;
}
