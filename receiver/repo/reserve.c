/* Room that is given up when a full disk keeps us from cleaning up. */
#include <errno.h>
#include <stdlib.h>

#include "protocol/base/err.h"
#include "receiver/base/failpoint.h"
#include "receiver/repo/repo_care.h"
#include "receiver/repo/repo_private.h"

enum { STEP_BYTES = 1 << 20 };

int repo_reserve_make(struct storage *s, struct err *e)
{
    struct storage_upload *u;
    uint8_t *zeros = calloc(1, STEP_BYTES);

    if (zeros == NULL)
        return err_sys(e, "getting memory");
    if (storage_begin(s, NAME_RESERVE, &u, e) != 0)
        goto fail;
    for (size_t at = 0; at < RESERVE_BYTES; at += STEP_BYTES)
        if (storage_write(u, zeros, STEP_BYTES, e) != 0) {
            storage_drop(u);
            goto fail;
        }
    free(zeros);
    return storage_publish(u, e);

fail:
    free(zeros);
    return err_add(e, "making the reserve");
}

int repo_reserve_drop(struct repo *r, struct err *e)
{
    if (storage_remove(r->storage, NAME_RESERVE, e) != 0 ||
        failpoint("repo.reserve-dropped", e) != 0)
        return -1;
    return storage_barrier(r->storage, e);
}

int repo_reserve_restore(struct repo *r, struct err *e)
{
    uint64_t size, room;

    if (storage_size(r->storage, NAME_RESERVE, &size, e) == 0)
        return 0;
    if (e->code != ERR_NOT_FOUND || storage_room(r->storage, &room, e) != 0)
        return -1;
    if (room < RESERVE_BYTES)
        return err_set(e, ERR_SPACE, "there is no room for the reserve");
    if (repo_reserve_make(r->storage, e) != 0)
        return e->code == ERR_REFUSED && e->os == EEXIST ? 0 : -1; /* somebody else did */
    return storage_barrier(r->storage, e) == 0 ? 1 : -1;
}
