#include "receiver/cli/run_options.h"

#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/cli/app.h"
#include "receiver/cli/connect.h"
#include "receiver/cli/options.h"
#include "receiver/cli/progress.h"
#include "receiver/cli/screen.h"

/* The question stands alone: the display goes, and comes back with its next news. */
static int ask(void *context, const char *question)
{
    const struct app *app = context;

    progress_hide(app->progress);
    return screen_ask(question);
}

int run_options_fill(struct run_options *out, struct connection *c, char agent[AGENT_PATH_BYTES],
                     struct err *e)
{
    const struct options *o = c->app->options;

    *out = (struct run_options){
        .host = o->operands[0],
        .host_name = c->target.name,
        .host_port = c->target.port,
        .host_user = c->target.user,
        .connect = { .context = c, .open = connection_open },
        .state = c->app->state,
        .lock_wait_s = o->lock_wait_s,
        .data = o->data,
        .agent_file = agent,
        .agent_dir = o->agent_dir,
        .dry_run = o->dry_run,
        .full = o->full,
        .yes = o->yes,
        .compress = o->compress,
        .bwlimit = o->bwlimit,
        .quiesce = o->quiesce,
        .exclude = { o->exclude, o->exclude_count },
        .only = { o->only, o->only_count },
        .max_snapshot_age_s = o->max_snapshot_age_s,
        .retain_snapshot = o->retain_snapshot,
        .max_retained_age_s = o->max_retained_age_s,
        .max_retained_age_given = (o->given & OPTION_BIT(OPTION_MAX_RETAINED_AGE)) != 0,
        .min_free = o->min_free,
        .stall_timeout_s = o->stall_timeout_s,
        .ask = secret_can_ask() ? ask : NULL,
        .ask_context = c->app,
        .parallel = o->parallel,
    };
    if (agent_find(o->agent_file, agent, e) == 0)
        return 0;
    if (o->agent_file != NULL)
        return -1;
    log_warning("%s; disks are read without the agent, which is slower", e->text);
    out->agent_file = NULL;
    return 0;
}
