/* vmferry mirror HOST VM... DIR */
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/cli/agent_file.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/connect.h"
#include "receiver/cli/events.h"
#include "receiver/cli/report.h"
#include "receiver/cli/run_options.h"
#include "receiver/cli/screen.h"
#include "receiver/job/mirror_job.h"

int cmd_mirror(struct app *app, struct err *e)
{
    const struct options *o = app->options;
    struct run_events events = events_of(app);
    struct mirror_options m = { .dir = o->operands[o->operand_count - 1] };
    char agent[AGENT_PATH_BYTES];
    struct connection c;
    int rc = -1;

    if (is_datastore_place(m.dir)) {
        /* The place would be taken for a directory of that odd name. */
        err_set(e, ERR_USAGE, "\"%s\" is a place on a host; a mirror needs a local directory",
                m.dir);
        return -1;
    }
    if (connection_init(&c, app, o->operands[0], e) != 0 ||
        run_options_fill(&m.run, &c, agent, e) != 0)
        goto out;
    m.vms = o->operands + 1;
    m.vm_count = o->operand_count - 2;
    m.block_bytes = o->block_bytes;
    m.keep_given = (o->given & OPTION_BIT(OPTION_KEEP)) != 0;
    m.keep = o->keep;
    rc = mirror_job(&m, &events, &app->result, e);
    if (!o->json)
        report_people(stdout, &app->result, app_columns(), o->dry_run);

out:
    connection_end(&c);
    return rc;
}
