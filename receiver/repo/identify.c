/* What can be told of a repository before it is opened, of an id, and of a run. */
#include <stddef.h>

#include "receiver/repo/config.h"
#include "receiver/repo/repo_private.h"
#include "receiver/repo/repo_read.h"
#include "receiver/repo/run.h"

int repo_identify(struct storage *s, struct repo_facts *out, struct err *e)
{
    struct config c = { .program = NULL };

    if (config_load(&c, s, true, e) != 0)
        return -1;
    *out = (struct repo_facts){ .key = c.repository,
                                .block_bytes = c.block_bytes,
                                .encrypted = c.sealing != 0,
                                .append_only = c.append_only != 0,
                                .made = c.made };
    config_free(&c);
    return 0;
}

int repo_holds(struct repo *r, bool node, const struct repo_id *id, struct err *e)
{
    return repo_has(r, node ? ENTRY_NODE : ENTRY_BLOCK, id, e);
}

void repo_run_vm(const struct repo_run *run, struct repo_key *out)
{
    *out = run->vm;
}
