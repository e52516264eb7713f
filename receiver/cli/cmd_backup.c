/* vmferry backup HOST VM... --repo REPO, vmferry backup --file NAME=DISK... --repo REPO */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/cli/agent_file.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/connect.h"
#include "receiver/cli/events.h"
#include "receiver/cli/report.h"
#include "receiver/cli/repository.h"
#include "receiver/cli/run_options.h"
#include "receiver/job/backup_files.h"
#include "receiver/job/repo_job.h"

/* What follows the option stands among the operands: `--file a=x b=y`. */
static int gather_files(const struct options *o, const char ***out, size_t *count, struct err *e)
{
    *count = o->file_count + o->operand_count;
    *out = calloc(*count, sizeof **out);
    if (*out == NULL)
        return err_sys(e, "getting memory");
    memcpy(*out, o->files, o->file_count * sizeof **out);
    if (o->operand_count > 0)
        memcpy(*out + o->file_count, o->operands, o->operand_count * sizeof **out);
    return 0;
}

static int refuse_host_options(const struct options *o, struct err *e)
{
    static const enum option_id ids[] = {
        OPTION_QUIESCE,  OPTION_EXCLUDE_DISK,    OPTION_ONLY_DISK,        OPTION_MAX_SNAPSHOT_AGE,
        OPTION_MIN_FREE, OPTION_STALL_TIMEOUT,   OPTION_AGENT_DIR,        OPTION_BWLIMIT,
        OPTION_PARALLEL, OPTION_RETAIN_SNAPSHOT, OPTION_MAX_RETAINED_AGE, OPTION_ASK_FIRST,
    };

    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        if ((o->given & OPTION_BIT(ids[i])) != 0)
            return err_set(e, ERR_USAGE, "--%s is for VMs of a host, not for --file",
                           options_word(ids[i]).long_name);
    return 0;
}

static int backup_images(struct app *app, struct err *e)
{
    const struct options *o = app->options;
    struct run_events events = events_of(app);
    const char **files = NULL;
    struct backup_files_options b = {
        .volumes = o->volumes,
        .volume_count = o->volume_count,
        .block_bytes = o->block_bytes,
        .compress = o->compress,
        .full = o->full,
        .dry_run = o->dry_run,
        .tags = o->tags,
        .tag_count = o->tag_count,
    };
    struct repository r = { 0 };
    int rc = -1;

    if (refuse_host_options(o, e) != 0 || gather_files(o, &files, &b.count, e) != 0)
        return -1;
    b.files = files;
    /* Also without a change the repository must be there, and its passphrase right. */
    if (repository_open(&r, app, REPO_SHARED, o->dry_run, e) != 0)
        goto out;
    b.repo = r.repo;
    rc = backup_files(&b, &events, &app->result, e);
    if (rc == 0 && !o->dry_run)
        repository_mend_reserve(&r);
    if (!o->json)
        report_people(stdout, &app->result, app_columns(), o->dry_run);

out:
    repository_close(&r);
    free(files);
    return rc;
}

static int backup_vms(struct app *app, struct err *e)
{
    const struct options *o = app->options;
    struct run_events events = events_of(app);
    struct backup_options b = { .repo_name = o->repo };
    char agent[AGENT_PATH_BYTES];
    struct repository r = { 0 };
    struct connection c;
    int rc = -1;

    if (o->operand_count < 2)
        return err_set(e, ERR_USAGE,
                       "backup: the host or its VMs are missing; usage: vmferry "
                       "backup HOST VM... --repo REPO");
    if (o->volume_count > 0)
        return err_set(e, ERR_USAGE, "--volume is for --file, not for VMs of a host");
    if (o->full && o->ask_first == ASKING_ALWAYS)
        return err_set(e, ERR_USAGE, "--full sends everything: it goes not with --ask-first yes");
    if (connection_init(&c, app, o->operands[0], e) != 0 ||
        run_options_fill(&b.run, &c, agent, e) != 0)
        goto out;
    b.vms = o->operands + 1;
    b.vm_count = o->operand_count - 1;
    b.block_bytes = o->block_bytes;
    b.ask_first = o->ask_first;
    b.tags = o->tags;
    b.tag_count = o->tag_count;
    /* Before the host is touched: a store that is not there is found first. */
    if (repository_open(&r, app, REPO_SHARED, o->dry_run, e) != 0)
        goto out;
    b.repo = r.repo;
    rc = repo_job(&b, &events, &app->result, e);
    if (rc == 0 && !o->dry_run)
        repository_mend_reserve(&r);
    if (!o->json)
        report_people(stdout, &app->result, app_columns(), o->dry_run);

out:
    repository_close(&r);
    connection_end(&c);
    return rc;
}

int cmd_backup(struct app *app, struct err *e)
{
    return app->options->file_count > 0 ? backup_images(app, e) : backup_vms(app, e);
}
