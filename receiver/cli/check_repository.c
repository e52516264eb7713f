#include "receiver/cli/check_repository.h"

#include <inttypes.h>
#include <stdlib.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/json.h"
#include "receiver/base/log.h"
#include "receiver/base/sizes.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/cli/events.h"
#include "receiver/cli/exit_codes.h"
#include "receiver/cli/progress.h"
#include "receiver/cli/repository.h"
#include "receiver/job/repo_check.h"
#include "receiver/job/repo_list.h"

static void put_summary(void *context, struct json *j)
{
    const struct repo_checked *c = context;

    json_number(j, "packs", c->packs);
    json_number(j, "generations", c->generations);
    json_number(j, "read", c->read_bytes);
    json_number(j, "problems", c->problems);
    json_number(j, "damaged", c->damaged);
    json_number(j, "healed", c->healed);
}

static void free_summary(void *context)
{
    free(context);
}

static void tell_problem(void *context, const char *object, const char *text)
{
    (void)context;
    log_warning("%s: %s", object, text);
}

static void tell(struct app *app, const struct repo_checked *c, bool clean, uint64_t ms)
{
    char place[1024], size[SIZE_TEXT_BYTES], time[SIZE_TEXT_BYTES];

    progress_vm_end(app->progress);
    if (c->unindexed > 0)
        log_note("%" PRIu64 " packs have no index: a run that was cut left them, and prune takes "
                 "them away",
                 c->unindexed);
    if (app->options->json)
        return;
    utf8_show(place, sizeof place, app->options->repo);
    printf("%s: %s, %" PRIu64 " generations and %" PRIu64 " packs looked at, %s read, %s\n", place,
           clean ? "clean" : "NOT clean", c->generations, c->packs, size_text(size, c->read_bytes),
           duration_text(time, (ms + 500) / 1000));
}

/* One generation, as a VM of the summary. */
static int check_item(struct app *app, struct repo *r, const struct generation_item *g,
                      const struct repo_check_options *options, struct repo_checked *done,
                      struct err *e)
{
    struct repo_env env = events_repo_env(app);
    struct vm_result *v = run_result_add(&app->result, g->vm, e);
    uint64_t began = io_clock_ms();
    struct repo_checked one;

    if (v == NULL)
        return -1;
    v->generation = g->number;
    if (repo_check_generation(r, repo_list_manifest(g), options, &env, &one, &v->why) == 0) {
        v->outcome = OUTCOME_OK;
        v->why.code = ERR_NONE;
    }
    v->ms = io_clock_ms() - began;
    done->generations += one.generations;
    done->read_bytes += one.read_bytes;
    done->problems += one.problems;
    events_of(app).vm_end(app, v);
    if (v->why.code != ERR_STOPPED)
        return 0;
    *e = v->why;
    return -1;
}

/* The generation that the operand means, or all of the VM of that name. */
static int check_named(struct app *app, struct repo *r, const struct repo_check_options *options,
                       struct repo_checked *done, struct err *e)
{
    const char *operand = app->options->operands[0];
    const struct generation_item *g = NULL;
    struct repo_list *l = NULL;
    size_t count = 0;
    struct err why;
    int rc = -1;

    if (repo_list_load(&l, r, e) != 0)
        goto out;
    if (repo_list_find(l, operand, &g, NULL, &why) == 0) {
        rc = check_item(app, r, g, options, done, e);
        goto out;
    }
    for (size_t i = 0; i < repo_list_count(l); i++) {
        if (!generation_is_of_vm(repo_list_at(l, i), operand))
            continue;
        count++;
        if (check_item(app, r, repo_list_at(l, i), options, done, e) != 0)
            goto out;
    }
    rc = 0;
    if (count == 0) {
        *e = why;
        rc = -1;
    }

out:
    repo_list_free(l);
    return rc;
}

int check_repository(struct app *app, struct err *e)
{
    const struct options *o = app->options;
    struct repo_check_options options = {
        .read_data = (o->given & OPTION_BIT(OPTION_READ_DATA)) != 0,
        .k = o->read_data_k,
        .n = o->read_data_n,
        .problem = tell_problem,
    };
    struct repo_env env = events_repo_env(app);
    struct repo_checked *done = calloc(1, sizeof *done);
    uint64_t began = io_clock_ms();
    struct repository r = { 0 };
    int rc = -1;

    if (done == NULL)
        return err_sys(e, "getting memory");
    app->summary = put_summary;
    app->summary_end = free_summary;
    app->summary_context = done;
    /* What is damaged is noted, where we may write. */
    options.set_aside = options.read_data;
    if (repository_open(&r, app, REPO_SHARED, !options.set_aside, e) != 0)
        goto out;
    if (o->operand_count > 0)
        rc = check_named(app, r.repo, &options, done, e);
    else
        rc = repo_check(r.repo, &options, &env, done, e);
    /* Damage has a code of its own, however many generations were looked at. */
    if (rc == 0 && done->problems > 0)
        app->exit_code = EXIT_INTEGRITY;
    tell(app, done, rc == 0 && done->problems == 0, io_clock_ms() - began);
    if (done->damaged > 0)
        log_note("%" PRIu64 " blocks are set aside: the next backup that still has them stores "
                 "them again",
                 done->damaged);

out:
    repository_close(&r);
    return rc;
}
