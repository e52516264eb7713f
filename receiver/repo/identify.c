/* What can be told of a repository before it is opened, of an id, and of a run. */
#include <stdlib.h>

#include "protocol/base/err.h"
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

int repo_still_there(struct repo *r, struct err *e)
{
    uint64_t size;

    return storage_size(r->storage, NAME_CONFIG, &size, e) == 0
               ? 0
               : err_add(e, "the repository at %s", r->storage->label);
}

int repo_holds(struct repo *r, bool node, const struct repo_id *id, struct err *e)
{
    struct place place;

    return index_find_named(r->index, node ? ENTRY_NODE : ENTRY_BLOCK, id, &place, 1, e);
}

int repo_prove(struct repo *r, bool node, const struct repo_id *id, uint32_t plain_bytes,
               struct err *e)
{
    uint8_t *plain = malloc(plain_bytes > 0 ? plain_bytes : 1);
    size_t got = 0;
    int rc;

    if (plain == NULL)
        return err_sys(e, "getting memory for a block");
    rc = repo_get(r, node ? ENTRY_NODE : ENTRY_BLOCK, id, plain, plain_bytes, &got, e);
    free(plain);
    return rc;
}

void repo_run_vm(const struct repo_run *run, struct repo_key *out)
{
    *out = run->vm;
}
