#include "receiver/host/room.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/host/datastores.h"
#include "receiver/host/inventory.h"

uint64_t room_needed(const struct room_rule *rule, uint64_t size_bytes)
{
    unsigned percent = rule->percent != 0 ? rule->percent : ROOM_PERCENT_DEFAULT;
    uint64_t needed = rule->bytes;

    if (needed == 0)
        needed = max_u64(size_bytes / 100 * percent, ROOM_BYTES_LEAST);
    return max_u64(needed, rule->last_delta_bytes);
}

static int add_store(struct room_guard *g, const struct datastore *d, const struct room_rule *rule,
                     struct err *e)
{
    struct room_store *s;

    for (size_t i = 0; i < g->count; i++)
        if (strcmp(g->stores[i].uuid, d->uuid) == 0)
            return 0;
    if (g->count == ROOM_STORES_MAX || strlen(d->uuid) >= sizeof g->stores[0].uuid)
        return err_set(e, ERR_LIMIT, "the VM lies on too many datastores");
    s = &g->stores[g->count++];
    snprintf(s->uuid, sizeof s->uuid, "%s", d->uuid);
    snprintf(s->name, sizeof s->name, "%.127s", d->name);
    s->needed_bytes = room_needed(rule, d->size_bytes);
    s->free_bytes = d->free_bytes;
    return 0;
}

static int add_path(struct room_guard *g, const struct datastore_list *stores, const char *path,
                    const struct room_rule *rule, struct err *e)
{
    const struct datastore *d = datastore_of(stores, path);

    if (d == NULL)
        return err_set(e, ERR_UNSUPPORTED, "%s lies on no datastore that the host lists", path);
    return add_store(g, d, rule, e);
}

int room_check_before(struct room_guard *out, const struct vm *vm,
                      const struct datastore_list *stores, const struct room_rule *rule,
                      struct err *e)
{
    *out = (struct room_guard){ 0 };
    if (add_path(out, stores, vm->vmx, rule, e) != 0)
        return -1;
    for (size_t i = 0; i < vm->disks.count; i++) {
        const struct vm_disk *d = &vm->disks.items[i];

        /* A device mapping has no chain of its own to grow; its pointer lies with the VM. */
        if (d->kind == VM_DISK_FILE && add_path(out, stores, d->file, rule, e) != 0)
            return -1;
    }
    for (size_t i = 0; i < out->count; i++) {
        const struct room_store *s = &out->stores[i];

        if (s->free_bytes < s->needed_bytes)
            return err_set(e, ERR_SPACE,
                           "datastore %s has %" PRIu64 " MiB free, but %" PRIu64
                           " MiB are wanted before a snapshot (--min-free)",
                           s->name, s->free_bytes >> 20, s->needed_bytes >> 20);
    }
    return 0;
}

int room_poll(struct host *h, struct room_guard *g, struct err *e)
{
    struct datastore_list stores;
    int rc = 0;

    if (host_datastores(h, &stores, e) != 0)
        return -1;
    for (size_t i = 0; i < g->count && rc == 0; i++) {
        struct room_store *s = &g->stores[i];

        for (size_t k = 0; k < stores.count; k++)
            if (strcmp(stores.items[k].uuid, s->uuid) == 0)
                s->free_bytes = stores.items[k].free_bytes;
        if (s->free_bytes < s->needed_bytes / 2)
            rc =
                err_set(e, ERR_SPACE,
                        "datastore %s has only %" PRIu64 " MiB free while our snapshot grows on it",
                        s->name, s->free_bytes >> 20);
    }
    datastore_list_free(&stores);
    return rc;
}
