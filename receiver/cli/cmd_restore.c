/* vmferry restore GEN (--repo REPO|--mirror DIR) --output DIR2|-|/dev/... */
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/log.h"
#include "receiver/base/sizes.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/events.h"
#include "receiver/cli/repository.h"
#include "receiver/cli/targets.h"
#include "receiver/job/repo_list.h"
#include "receiver/job/repo_restore.h"
#include "receiver/mirror/mirror_read.h"
#include "receiver/restore/output.h"

/* The generation as a result of the summary. */
static struct vm_result *add_result(struct app *app, const struct generation_item *g, struct err *e)
{
    struct vm_result *v = run_result_add(&app->result, g->vm, e);

    if (v == NULL)
        return NULL;
    snprintf(v->uuid, sizeof v->uuid, "%s", g->uuid != NULL ? g->uuid : "");
    snprintf(v->id, sizeof v->id, "%s", g->id);
    v->generation = g->number;
    for (size_t i = 0; i < g->disk_count; i++) {
        const struct generation_disk *d = &g->disks[i];
        struct disk_result *r = vm_result_add_disk(v, d->slot, e);

        if (r == NULL)
            return NULL;
        r->capacity = d->capacity_bytes;
        r->allocated = d->allocated_bytes;
        r->left_out = d->of_generation == 0;
        r->root_known = d->of_generation != 0;
        r->root = d->root;
    }
    return v;
}

static void tell(const struct generation_item *g, uint64_t disks, uint64_t bytes, const char *to,
                 uint64_t ms)
{
    char vm[512], size[SIZE_TEXT_BYTES], time[SIZE_TEXT_BYTES], rate[SIZE_TEXT_BYTES], place[1024];
    char text[2048];

    utf8_show(vm, sizeof vm, g->vm);
    utf8_show(place, sizeof place, strcmp(to, "-") == 0 ? "standard output" : to);
    snprintf(text, sizeof text, "%s@%llu: %llu disk%s, %s, to %s in %s (%s)", vm,
             (unsigned long long)g->number, (unsigned long long)disks, disks == 1 ? "" : "s",
             size_text(size, bytes), place, duration_text(time, (ms + 500) / 1000),
             rate_text(rate, bytes, ms));
    /* The disk itself may have gone to standard output. */
    if (strcmp(to, "-") == 0)
        log_note("%s", text);
    else
        puts(text);
}

static void warn_of_partial(const struct generation_item *g, uint64_t newer)
{
    if (newer > 0)
        log_warning("%s: generation %llu is newer but partial; this is generation %llu", g->vm,
                    (unsigned long long)newer, (unsigned long long)g->number);
    if (strcmp(g->outcome, "partial") == 0)
        log_warning("%s: generation %llu is partial: not every disk of the VM is in it", g->vm,
                    (unsigned long long)g->number);
}

/* The end of the one generation that was asked for. */
static void conclude(struct app *app, const struct generation_item *g, struct vm_result *v,
                     uint64_t disks, uint64_t bytes, uint64_t began)
{
    v->ms = io_clock_ms() - began;
    events_of(app).vm_end(app, v);
    if (v->outcome == OUTCOME_OK && !app->options->json)
        tell(g, disks, bytes, app->options->output, v->ms);
}

static const char *only_slot(const struct options *o)
{
    return o->only_count > 0 ? o->only[0] : NULL;
}

static void succeed(struct vm_result *v)
{
    v->outcome = OUTCOME_OK;
    v->why.code = ERR_NONE;
}

static int restore_mirror(struct app *app, bool one, struct err *e)
{
    const struct options *o = app->options;
    struct mirror_env env = events_mirror_env(app);
    struct mirror_restored done = { 0 };
    const struct generation_item *g = NULL;
    struct mirror_list *l = NULL;
    struct vm_result *v;
    uint64_t newer = 0, began = io_clock_ms();
    int rc = -1;

    if (o->only_count > 0 && !one)
        return err_set(e, ERR_USAGE,
                       "--only-disk is for repositories, --output - and devices: the disks of a "
                       "mirror are plain files in its folder");
    if (mirror_list_load(&l, o->mirror, &env, e) != 0)
        goto out;
    for (size_t i = 0; i < mirror_list_problem_count(l); i++)
        log_warning("%s", mirror_list_problem(l, i));
    if (mirror_find(l, o->operands[0], &g, &newer, e) != 0) {
        /* What is meant may be in the mirror that cannot be read. */
        if (e->code == ERR_NOT_FOUND && mirror_list_problem_count(l) > 0) {
            e->code = ERR_CORRUPT;
            err_add(e, "%s", mirror_list_problem(l, 0));
        }
        goto out;
    }
    v = add_result(app, g, e);
    if (v == NULL)
        goto out;
    warn_of_partial(g, newer);
    rc =
        one ? mirror_restore_disk(g, only_slot(o), o->output, o->force_device, &env, &done, &v->why)
            : mirror_restore(g, o->output, &env, &done, &v->why);
    if (rc == 0)
        succeed(v);
    conclude(app, g, v, done.disks, done.bytes, began);
    rc = 0;

out:
    mirror_list_free(l);
    return rc;
}

static int restore_repository(struct app *app, bool one, struct err *e)
{
    const struct options *o = app->options;
    const struct disk_list only = { o->only, o->only_count };
    struct repo_env env = events_repo_env(app);
    struct repo_restored done = { 0 };
    const struct generation_item *g = NULL;
    struct repo_list *l = NULL;
    struct repository r;
    struct vm_result *v;
    uint64_t newer = 0, began = io_clock_ms();
    int rc = -1;

    if (repository_open(&r, app, REPO_SHARED, true, e) != 0 || repo_list_load(&l, r.repo, e) != 0)
        goto out;
    for (size_t i = 0; i < repo_list_problem_count(l); i++)
        log_warning("%s", repo_list_problem(l, i));
    if (repo_list_find(l, o->operands[0], &g, &newer, e) != 0)
        goto out;
    v = add_result(app, g, e);
    if (v == NULL)
        goto out;
    warn_of_partial(g, newer);
    rc = one ? repo_restore_disk(r.repo, g, only_slot(o), o->output, o->force_device, &env, &done,
                                 &v->why)
             : repo_restore(r.repo, g, &only, o->output, &env, &done, &v->why);
    if (rc == 0)
        succeed(v);
    conclude(app, g, v, done.disks, done.bytes, began);
    rc = 0;

out:
    repo_list_free(l);
    repository_close(&r);
    return rc;
}

/* One disk to standard output, or to a device. */
static int check_one(const struct options *o, bool one, struct err *e)
{
    if (o->force_device && (!one || strcmp(o->output, "-") == 0))
        return err_set(e, ERR_USAGE, "--force-device: %s is no block device", o->output);
    if (!one)
        return 0;
    if (o->only_count > 1)
        return err_set(e, ERR_USAGE, "--output %s takes one disk: give --only-disk once",
                       o->output);
    if (o->json && strcmp(o->output, "-") == 0)
        return err_set(e, ERR_USAGE,
                       "--json has its lines on standard output, where the disk is to go");
    return 0;
}

int cmd_restore(struct app *app, struct err *e)
{
    const char *to = app->options->output;
    bool one = output_takes_one_disk(to);

    if (is_datastore_place(to))
        return err_set(e, ERR_USAGE,
                       "\"%s\" is a place on a host; --output needs a local directory", to);
    if (check_one(app->options, one, e) != 0)
        return -1;
    return app->options->mirror != NULL ? restore_mirror(app, one, e)
                                        : restore_repository(app, one, e);
}
