#include "receiver/job/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"

static const char *name_of(const char *const *names, size_t count, unsigned value)
{
    return value < count ? names[value] : NULL;
}

const char *vm_outcome_name(enum vm_outcome o)
{
    static const char *const names[] = { "ok", "partial", "failed", "skipped" };

    return name_of(names, ARRAY_COUNT(names), o);
}

const char *consistency_name(enum consistency c)
{
    static const char *const names[] = { NULL, "quiesced", "crash", "off", "suspended" };

    return name_of(names, ARRAY_COUNT(names), c);
}

const char *data_carrier_name(enum data_carrier c)
{
    static const char *const names[] = { NULL, "tcp", "ssh" };

    return name_of(names, ARRAY_COUNT(names), c);
}

const char *read_path_name(enum read_path p)
{
    static const char *const names[] = { NULL, "agent", "ssh-dd", "clone", "file" };

    return name_of(names, ARRAY_COUNT(names), p);
}

const char *change_source_name(enum change_source s)
{
    static const char *const names[] = {
        NULL, "full", "digest", "retained-snapshot", "api", "audit",
    };

    return name_of(names, ARRAY_COUNT(names), s);
}

/* One more item of item_bytes behind count items, zeroed; *list moves.  NULL with ERR_SYSTEM. */
static void *grow(void **list, size_t *count, size_t item_bytes, struct err *e)
{
    char *more = reallocarray(*list, *count + 1, item_bytes);
    char *item;

    if (more == NULL) {
        err_sys(e, "getting memory for a result");
        return NULL;
    }
    item = more + *count * item_bytes;
    memset(item, 0, item_bytes);
    *list = more;
    (*count)++;
    return item;
}

struct vm_result *run_result_add(struct run_result *r, const char *vm, struct err *e)
{
    char *name = strdup(vm);
    void *list = r->vms;
    struct vm_result *v;

    if (name == NULL) {
        err_sys(e, "getting memory for a name");
        return NULL;
    }
    v = grow(&list, &r->count, sizeof *v, e);
    if (v == NULL) {
        free(name);
        return NULL;
    }
    r->vms = list;
    v->vm = name;
    v->outcome = OUTCOME_FAILED;
    return v;
}

struct disk_result *vm_result_add_disk(struct vm_result *v, const char *slot, struct err *e)
{
    void *list = v->disks;
    struct disk_result *d = grow(&list, &v->disk_count, sizeof *d, e);

    if (d == NULL)
        return NULL;
    v->disks = list;
    snprintf(d->disk, sizeof d->disk, "%s", slot);
    return d;
}

int run_result_move(struct run_result *r, struct run_result *from, struct err *e)
{
    for (size_t i = 0; i < from->count; i++) {
        void *list = r->vms;
        struct vm_result *v = grow(&list, &r->count, sizeof *v, e);

        if (v == NULL)
            return -1;
        r->vms = list;
        *v = from->vms[i];
        from->vms[i] = (struct vm_result){ 0 };
    }
    run_result_free(from);
    return 0;
}

void run_result_free(struct run_result *r)
{
    for (size_t i = 0; i < r->count; i++) {
        free(r->vms[i].vm);
        free(r->vms[i].disks);
    }
    free(r->vms);
    r->vms = NULL;
    r->count = 0;
}
