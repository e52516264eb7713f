#include "receiver/cli/events.h"

#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/base/stop.h"
#include "receiver/cli/app.h"
#include "receiver/cli/options.h"
#include "receiver/cli/progress.h"

static void vm_begin(void *context, const char *vm, size_t index, size_t count)
{
    (void)context;
    if (count > 1)
        log_info("%s: VM %zu of %zu", vm, index + 1, count);
}

static void step(void *context, const char *vm, const char *what)
{
    struct app *app = context;

    log_info("%s: %s", vm, what);
    progress_step(app->progress, vm, what);
}

static void plan(void *context, const char *vm, const char *line)
{
    (void)context;
    log_note("%s: %s", vm, line);
}

static void progress(void *context, const struct disk_progress *p)
{
    struct app *app = context;

    progress_disk(app->progress, p);
}

static void vm_end(void *context, const struct vm_result *v)
{
    struct app *app = context;
    bool told = false; /* the VM's reason is that of a disk */

    progress_vm_done(app->progress, v->vm);
    for (size_t i = 0; i < v->disk_count; i++) {
        const struct disk_result *d = &v->disks[i];

        if (d->why.code == ERR_NONE || v->outcome == OUTCOME_FAILED)
            continue;
        told = told || strcmp(d->why.text, v->why.text) == 0;
        if (strstr(d->why.text, d->disk) != NULL)
            log_warning("%s: %s", v->vm, d->why.text);
        else
            log_warning("%s: %s: %s", v->vm, d->disk, d->why.text);
    }
    if (v->outcome == OUTCOME_FAILED && v->why.code != ERR_NONE)
        app_failure(app, v->vm, &v->why);
    else if (v->why.code != ERR_NONE && !told)
        log_warning("%s: %s", v->vm, v->why.text);
    if (v->cleanup_left && v->why.code == ERR_NONE)
        log_warning("%s: something of ours is still on the host; vmferry cleanup removes it",
                    v->vm);
}

struct run_events events_of(struct app *app)
{
    return (struct run_events){
        .context = app,
        .vm_begin = vm_begin,
        .step = step,
        .plan = plan,
        .progress = progress,
        .vm_end = vm_end,
    };
}

static void store_warn(void *context, const char *text)
{
    (void)context;
    log_warning("%s", text);
}

static void store_progress(void *context, const char *what, uint64_t done_bytes,
                           uint64_t total_bytes)
{
    struct app *app = context;
    struct disk_progress p = {
        .vm = "",
        .disk = "",
        .what = what,
        .done_bytes = done_bytes,
        .total_bytes = total_bytes,
        .read_bytes = done_bytes,
        .ended = done_bytes >= total_bytes,
    };

    progress_disk(app->progress, &p);
}

struct mirror_env events_mirror_env(struct app *app)
{
    return (struct mirror_env){
        .warn = store_warn,
        .progress = store_progress,
        .context = app,
        .stop = stop_flag(),
        .lock_wait_ms = app->options->lock_wait_s * 1000,
    };
}

struct repo_env events_repo_env(struct app *app)
{
    return (struct repo_env){
        .warn = store_warn,
        .progress = store_progress,
        .context = app,
        .stop = stop_flag(),
        .lock_wait_ms = app->options->lock_wait_s * 1000,
    };
}
