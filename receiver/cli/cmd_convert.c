/* vmferry convert FILE.vmdk --output FILE.raw */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "receiver/base/json.h"
#include "receiver/base/sizes.h"
#include "receiver/base/stop.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/progress.h"
#include "receiver/cli/screen.h"
#include "receiver/image/local_chain.h"
#include "receiver/image/raw_file.h"
#include "receiver/job/run.h"

/* What the summary shows; lives until that is printed. */
struct outcome {
    struct app *app;
    struct local_chain chain;
    const char *file, *output;
    uint64_t capacity_bytes;
    size_t links;
    struct raw_result done;
};

static void put_summary(void *context, struct json *j)
{
    const struct outcome *o = context;

    json_text(j, "file", o->file);
    json_text(j, "output", o->output);
    json_number(j, "capacity", o->capacity_bytes);
    json_number(j, "links", o->links);
    json_number(j, "read", o->done.read_bytes);
    json_number(j, "written", o->done.written_bytes);
}

static void free_outcome(void *context)
{
    free(context);
}

static int show_progress(void *context, uint64_t done_bytes, uint64_t read_bytes, struct err *e)
{
    const struct outcome *o = context;
    const struct disk_progress p = {
        .vm = "",
        .disk = "",
        .what = o->file,
        .done_bytes = done_bytes,
        .total_bytes = o->capacity_bytes,
        .read_bytes = read_bytes,
        .ended = done_bytes == o->capacity_bytes,
    };

    progress_disk(o->app->progress, &p);
    return stop_check(e);
}

/* A file that was written to while we read it gives bytes of no moment at all. */
static int check_unchanged(void *context, struct err *e)
{
    struct outcome *o = context;

    return vmdk_chain_unchanged(o->chain.chain, e);
}

static bool same_file(const struct stat *s, const char *place)
{
    struct stat other;

    return place[0] != 0 && stat(place, &other) == 0 && other.st_dev == s->st_dev &&
           other.st_ino == s->st_ino;
}

/* To replace a file of the chain itself would break the chain for everybody else. */
static int refuse_own_file(const struct outcome *o, struct err *e)
{
    const struct vmdk_chain *c = o->chain.chain;
    struct stat s;

    if (stat(o->output, &s) != 0)
        return 0; /* the writer finds out why, and says it */
    for (size_t i = 0; i < vmdk_chain_link_count(c); i++) {
        const struct vmdk_link *l = vmdk_chain_link(c, i);
        bool same = same_file(&s, l->place);

        for (size_t k = 0; k < l->extent_count && !same; k++)
            same = same_file(&s, vmdk_chain_extent_place(c, i, k));
        if (same)
            return err_set(e, ERR_REFUSED, "%s is a file of the chain itself", o->output);
    }
    return 0;
}

static bool may_replace(const struct outcome *o)
{
    char question[1200];
    struct stat s;

    if (o->app->options->yes)
        return true;
    if (lstat(o->output, &s) != 0 || !S_ISREG(s.st_mode))
        return false;
    snprintf(question, sizeof question, "%s is there already: replace it?", o->output);
    return screen_ask(question) == 1;
}

static void tell(const struct outcome *o, uint64_t ms)
{
    char from[512], to[512], size[SIZE_TEXT_BYTES], data[SIZE_TEXT_BYTES], time[SIZE_TEXT_BYTES];

    utf8_show(from, sizeof from, o->file);
    utf8_show(to, sizeof to, o->output);
    printf("%s: %s in %zu link%s to %s, %s of data, in %s\n", from,
           size_text(size, o->capacity_bytes), o->links, o->links == 1 ? "" : "s", to,
           size_text(data, o->done.written_bytes), duration_text(time, (ms + 500) / 1000));
}

static int convert(struct outcome *o, struct err *e)
{
    const struct options *options = o->app->options;
    struct raw_config config = {
        .progress = show_progress,
        .finished = check_unchanged,
        .context = o,
    };
    struct source *source;

    if (local_chain_open(&o->chain, o->file, options->volumes, options->volume_count, 0, e) != 0)
        return -1;
    source = vmdk_chain_source(o->chain.chain);
    o->capacity_bytes = source->capacity_bytes;
    o->links = vmdk_chain_link_count(o->chain.chain);
    if (refuse_own_file(o, e) != 0)
        return -1;
    config.replace = may_replace(o);
    /* All tables first: a damaged one is told before hours of copying, not behind them. */
    if (vmdk_chain_verify(o->chain.chain, e) != 0)
        return -1;
    return raw_file_write(source, o->output, &config, &o->done, e);
}

int cmd_convert(struct app *app, struct err *e)
{
    uint64_t began = io_clock_ms();
    struct outcome *o = calloc(1, sizeof *o);
    int rc;

    if (o == NULL)
        return err_sys(e, "getting memory");
    *o = (struct outcome){
        .app = app,
        .file = app->options->operands[0],
        .output = app->options->output,
    };
    app->summary = put_summary;
    app->summary_end = free_outcome;
    app->summary_context = o;
    rc = convert(o, e);
    local_chain_close(&o->chain);
    progress_vm_end(app->progress);
    if (rc == 0 && !app->options->json)
        tell(o, io_clock_ms() - began);
    return rc;
}
