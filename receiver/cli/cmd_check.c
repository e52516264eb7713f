/* vmferry check (--repo REPO|--mirror DIR) [GEN] */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/log.h"
#include "receiver/base/sizes.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/cli/check_repository.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/events.h"
#include "receiver/cli/exit_codes.h"
#include "receiver/mirror/mirror_read.h"

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL && slash[1] != 0 ? slash + 1 : path;
}

static void tell_problem(void *context, const char *object, const char *text)
{
    (void)context;
    log_warning("%s: %s", object, text);
}

static void tell_folder(const char *name, const struct vm_result *v, const struct mirror_checked *c)
{
    char shown[512], size[SIZE_TEXT_BYTES], time[SIZE_TEXT_BYTES];

    utf8_show(shown, sizeof shown, name);
    printf("%s: %s, %llu files looked at, %s read, %s\n", shown,
           v->outcome == OUTCOME_OK ? "clean" : "NOT clean", (unsigned long long)c->objects,
           size_text(size, c->read_bytes), duration_text(time, (v->ms + 500) / 1000));
}

/* One mirror's folder; what is found is its own failure.  -1: no memory, or stopped. */
static int check_one(struct app *app, const char *folder, uint64_t generation, struct err *e)
{
    const struct options *o = app->options;
    const struct mirror_check_options wish = {
        .read_data = (o->given & OPTION_BIT(OPTION_READ_DATA)) != 0,
        .k = o->read_data_k,
        .n = o->read_data_n,
        .generation = generation,
        .problem = tell_problem,
    };
    struct mirror_env env = events_mirror_env(app);
    struct mirror_checked checked = { 0 };
    uint64_t began = io_clock_ms();
    struct vm_result *v = run_result_add(&app->result, last_part(folder), e);

    if (v == NULL)
        return -1;
    v->generation = generation;
    if (mirror_check(folder, &wish, &env, &checked, &v->why) == 0) {
        v->outcome = OUTCOME_OK;
        v->why.code = ERR_NONE;
    }
    v->ms = io_clock_ms() - began;
    events_of(app).vm_end(app, v);
    if (!o->json)
        tell_folder(v->vm, v, &checked);
    if (v->why.code != ERR_STOPPED)
        return 0;
    *e = v->why;
    return -1;
}

/* The one mirror that the operand means: a generation, or a VM by its name. */
static int check_named(struct app *app, const char *operand, struct err *e)
{
    struct mirror_env env = events_mirror_env(app);
    const struct generation_item *g = NULL;
    struct mirror_list *l = NULL;
    const char *folder = NULL;
    uint64_t generation = 0;
    int rc = -1;

    if (mirror_list_load(&l, app->options->mirror, &env, e) != 0)
        goto out;
    if (mirror_find(l, operand, &g, NULL, e) == 0) {
        folder = g->place;
        generation = g->number;
    } else if (e->code != ERR_NOT_FOUND && e->code != ERR_USAGE) {
        goto out;
    }
    for (size_t i = 0; folder == NULL && i < mirror_list_count(l); i++) {
        if (generation_is_of_vm(mirror_list_at(l, i), operand))
            folder = mirror_list_at(l, i)->place;
    }
    rc = folder != NULL ? check_one(app, folder, generation, e) : -1;

out:
    mirror_list_free(l);
    return rc;
}

/* `check` has a code of its own for damage, however many mirrors there are. */
static void conclude(struct app *app)
{
    for (size_t i = 0; i < app->result.count; i++) {
        if (exit_code_of_vm(&app->result.vms[i]) == EXIT_INTEGRITY)
            app->exit_code = EXIT_INTEGRITY;
    }
}

static int check_mirrors(struct app *app, struct err *e)
{
    const struct options *o = app->options;
    char **folders = NULL;
    size_t count = 0;
    int rc = -1;

    if (o->operand_count > 0) {
        rc = check_named(app, o->operands[0], e);
        conclude(app);
        return rc;
    }
    if (mirror_folders(o->mirror, &folders, &count, e) != 0)
        goto out;
    if (count == 0)
        log_note("%s holds no mirrors yet", o->mirror);
    for (size_t i = 0; i < count; i++) {
        if (check_one(app, folders[i], 0, e) != 0)
            goto out;
    }
    conclude(app);
    rc = 0;

out:
    mirror_folders_free(folders, count);
    return rc;
}

int cmd_check(struct app *app, struct err *e)
{
    return app->options->mirror != NULL ? check_mirrors(app, e) : check_repository(app, e);
}
