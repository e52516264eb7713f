/* vmferry prune --repo REPO, vmferry rebuild-index --repo REPO */
#include <inttypes.h>
#include <stdlib.h>

#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/base/json.h"
#include "receiver/base/log.h"
#include "receiver/base/sizes.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/progress.h"
#include "receiver/cli/repository.h"
#include "receiver/job/repo_list.h"
#include "receiver/job/repo_prune.h"
#include "receiver/repo/repo_care.h"

enum { CLOCK_SLACK_S = 86400 };

static void put_facts(void *context, struct json *j)
{
    const struct prune_facts *f = context;

    json_number(j, "packs", f->packs);
    json_number(j, "packs_bytes", f->bytes);
    json_number(j, "live", f->live_entries);
    json_number(j, "dead_packs", f->dead_packs);
    json_number(j, "dead_bytes", f->dead_bytes);
    json_number(j, "copied_packs", f->copied_packs);
    json_number(j, "copied_bytes", f->copied_bytes);
    json_number(j, "removed_packs", f->removed_packs);
    json_number(j, "not_copied_packs", f->not_copied_packs);
    json_number(j, "removed_bytes", f->removed_bytes);
    json_number(j, "removed_partials", f->removed_partials);
}

static void free_facts(void *context)
{
    free(context);
}

static void tell(const struct prune_facts *f, bool dry_run)
{
    char bytes[SIZE_TEXT_BYTES], dead[SIZE_TEXT_BYTES], copied[SIZE_TEXT_BYTES];
    char removed[SIZE_TEXT_BYTES];

    printf("%" PRIu64 " packs, %s", f->packs, size_text(bytes, f->bytes));
    if (f->dead_packs + f->copied_packs == 0)
        printf("; all are needed");
    if (f->dead_packs > 0)
        printf("; %" PRIu64 " hold nothing that is needed (%s)", f->dead_packs,
               size_text(dead, f->dead_bytes));
    if (f->copied_packs > 0)
        printf("; of %" PRIu64 " what is needed %s copied (%s)", f->copied_packs,
               dry_run ? "would be" : "was", size_text(copied, f->copied_bytes));
    printf("\n");
    if (dry_run)
        printf("nothing was done (dry run)\n");
    else if (f->removed_packs > 0)
        printf("%" PRIu64 " packs removed, %s\n", f->removed_packs,
               size_text(removed, f->removed_bytes));
}

static void tell_room(const struct prune_facts *f)
{
    if (f->reserve_used)
        repository_tell_reserve();
    if (f->not_copied_packs > 0)
        log_warning("there was no room to copy what is needed of %" PRIu64 " packs: run prune "
                    "again now that others are gone",
                    f->not_copied_packs);
    if (f->removed_partials > 0)
        log_note("%" PRIu64 " notes of unfinished runs were older than 14 days and are gone",
                 f->removed_partials);
    if (f->reserve_used && !f->reserve_missing)
        log_note("the reserve of the repository is there again");
    else if (f->reserve_missing)
        log_warning("there is no room yet to make the reserve of the repository again: the next "
                    "backup or prune that finds room does it");
}

/* A clock that is behind would take young things for old ones. */
static int check_clock(struct repo *r, struct err *e)
{
    struct repo_list *l = NULL;
    int rc = 0;

    if (repo_list_load(&l, r, e) != 0)
        return -1;
    if (repo_list_problem_count(l) > 0)
        rc = err_set(e, ERR_CORRUPT, "%s; nothing is removed while a manifest cannot be read",
                     repo_list_problem(l, 0));
    for (size_t i = 0; i < repo_list_count(l) && rc == 0; i++)
        if (repo_list_at(l, i)->time > clock_now() + CLOCK_SLACK_S)
            rc = err_set(e, ERR_REFUSED,
                         "%s@%" PRIu64 " is from the future: the clock of this machine, or of the "
                         "one that made it, is wrong; nothing is removed",
                         repo_list_at(l, i)->vm, repo_list_at(l, i)->number);
    repo_list_free(l);
    return rc;
}

static int check_may_remove(struct repo *r, struct err *e)
{
    struct repo_facts facts;

    repo_facts(r, &facts);
    if (facts.append_only)
        return err_set(e, ERR_REFUSED, "the repository is append-only: nothing is removed");
    return check_clock(r, e);
}

int cmd_prune(struct app *app, struct err *e)
{
    const bool dry_run = app->options->dry_run;
    struct prune_facts *facts = calloc(1, sizeof *facts);
    struct repository r = { 0 };
    struct repo_prune *p = NULL;
    int rc = -1;

    if (facts == NULL)
        return err_sys(e, "getting memory");
    app->summary = put_facts;
    app->summary_end = free_facts;
    app->summary_context = facts;
    if (repository_open(&r, app, REPO_SHARED, dry_run, e) != 0 ||
        check_may_remove(r.repo, e) != 0 || repo_prune_plan(&p, r.repo, dry_run, e) != 0)
        goto out;
    if (!dry_run && (repository_reopen(&r, app, REPO_EXCLUSIVE, e) != 0 ||
                     repo_prune_finish(p, r.repo, e) != 0))
        goto out;
    *facts = *repo_prune_facts(p);
    progress_vm_end(app->progress);
    tell_room(facts);
    if (!app->options->json)
        tell(facts, dry_run);
    rc = 0;

out:
    repo_prune_free(p);
    repository_close(&r);
    return rc;
}

/* --- rebuild-index --- */

static bool is_damage(enum err_code code)
{
    return code == ERR_CORRUPT || code == ERR_FORMAT || code == ERR_LIMIT ||
           code == ERR_UNSUPPORTED;
}

/* One damaged pack is no reason to leave the others without index; *first is the first of them. */
static int rebuild_pack(struct repo *r, const struct repo_pack *pack, uint64_t *made,
                        struct err *first, struct err *e)
{
    struct err why;

    if (pack->indexed && repo_pack_check(r, &pack->key, false, NULL, NULL, &why) == 0)
        return 0;
    if (repo_pack_index(r, &pack->key, e) == 0) {
        ++*made;
        return 0;
    }
    if (!is_damage(e->code))
        return -1;
    log_warning("%s", e->text);
    if (first->code == ERR_NONE)
        *first = *e;
    return 0;
}

static int rebuild(struct repo *r, uint64_t *made, uint64_t *count, struct err *e)
{
    struct err first = { .code = ERR_NONE };
    struct repo_pack *packs = NULL;
    size_t n = 0;
    int rc = 0;

    if (repo_packs(r, &packs, &n, e) != 0)
        return -1;
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (!packs[i].stored)
            continue;
        ++*count;
        rc = rebuild_pack(r, &packs[i], made, &first, e);
    }
    free(packs);
    if (rc != 0 || first.code == ERR_NONE)
        return rc;
    *e = first;
    return -1;
}

int cmd_rebuild_index(struct app *app, struct err *e)
{
    struct repository r = { 0 };
    uint64_t made = 0, count = 0;
    int rc = -1;

    if (repository_open(&r, app, REPO_EXCLUSIVE, false, e) == 0)
        rc = rebuild(r.repo, &made, &count, e);
    if (count > 0 && !app->options->json)
        printf("%" PRIu64 " packs looked at, %" PRIu64 " indexes made anew\n", count, made);
    repository_close(&r);
    return rc;
}
