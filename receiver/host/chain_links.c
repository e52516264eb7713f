#include "receiver/host/chain_links.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/vmdk/descriptor.h"
#include "receiver/host/datastores.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"

/* A form of link that is read: createType, the type of its one extent, how its file's name ends. */
static const struct form {
    const char *type, *extent, *ending;
    bool base;
} forms[] = {
    { "vmfs", "VMFS", "-flat.vmdk", true },
    /* Other names of a plain base; some are only in documents. */
    { "vmfsThin", "VMFS", "-flat.vmdk", true },
    { "vmfsPreallocated", "VMFS", "-flat.vmdk", true },
    { "vmfsEagerZeroedThick", "VMFS", "-flat.vmdk", true },
    { "vmfsThick", "VMFS", "-flat.vmdk", true },
    { "vmfsSparse", "VMFSSPARSE", "-delta.vmdk", false },
    { "seSparse", "SESPARSE", "-sesparse.vmdk", false },
};

int chain_refuse(struct chain_disk *out, const char *path, const char *type, const char *what)
{
    out->outcome = CHAIN_REFUSED;
    err_set(&out->reason, ERR_UNSUPPORTED, "disk %s: the link %s (%s) %s", out->slot, path, type,
            what);
    return 0;
}

int chain_skip(struct chain_disk *out, const char *what)
{
    out->outcome = CHAIN_SKIPPED;
    err_set(&out->reason, ERR_UNSUPPORTED, "disk %s %s", out->slot, what);
    return 0;
}

void chain_links_free(struct chain_disk *d)
{
    for (size_t i = 0; i < d->link_count; i++) {
        free(d->links[i].descriptor_path);
        free(d->links[i].data_path);
    }
    free(d->links);
    d->links = NULL;
    d->link_count = 0;
}

int chain_descriptor_read(struct host *h, const struct datastore_list *stores, const char *path,
                          char *absolute, struct descriptor **out, struct err *e)
{
    struct host_answer text = { 0 };
    int rc;

    if (datastore_absolute(stores, path, absolute, e) != 0 ||
        host_read_file(h, absolute, DESCRIPTOR_BYTES_MAX, &text, e) != 0) {
        if (e->code == ERR_NOT_FOUND) /* nobody misnamed it: the host's own parts do not agree */
            e->code = ERR_SOURCE;
        return -1;
    }
    rc = descriptor_read(out, text.out, text.out_bytes, e);
    host_answer_free(&text);
    if (rc == 0)
        return 0;
    if (e->code == ERR_FORMAT || e->code == ERR_CORRUPT)
        e->code = ERR_SOURCE;
    return err_add(e, "%s", path);
}

static const struct form *form_of(const struct descriptor *d)
{
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (descriptor_word_is(d->create_type, forms[i].type) && d->extent_count == 1 &&
            strcmp(d->extents[0].type, forms[i].extent) == 0)
            return &forms[i];
    return NULL;
}

static bool ends_with(const char *name, const char *ending)
{
    size_t bytes = strlen(name), tail = strlen(ending);

    return bytes > tail && strcmp(name + bytes - tail, ending) == 0;
}

/* Why a link of a known form must not be read all the same, or NULL. */
static const char *trap_in(const struct descriptor *d, const struct form *form)
{
    const char *sector = descriptor_ddb(d, "logicalSectorSize");
    const char *name = d->extents[0].name;
    bool orphan = d->parent_cid == DESCRIPTOR_CID_NONE || d->parent_hint == NULL;

    if (d->encrypted || descriptor_ddb(d, "KMFilters") != NULL)
        return "is encrypted: its file holds no plain data";
    if (d->native_snapshot)
        return "is a snapshot of the storage array, not a file";
    if (descriptor_unfinished(d) != NULL)
        return "is in the middle of a consolidation, or linked to the storage array; let the host "
               "consolidate the VM's disks first";
    if (form->base && (d->parent_cid != DESCRIPTOR_CID_NONE || d->parent_hint != NULL))
        return "has a parent, although its type is that of a base";
    if (!form->base && orphan)
        return "names no parent, although its type is that of a delta";
    if (sector != NULL && strcmp(sector, "512") != 0)
        return "has sectors of another size than 512 bytes";
    if (d->extents[0].access != ACCESS_RW || d->extents[0].has_offset)
        return "has an extent that is not simply readable and writable";
    if (strpbrk(name, "/\\") != NULL || !ends_with(name, form->ending))
        return form->base ? "keeps its data in something else than a -flat file beside it"
                          : "keeps its data in something else than a delta file beside it";
    return NULL;
}

static void note_ddb(const struct descriptor *d, const char *name, char *out, size_t room)
{
    const char *value = descriptor_ddb(d, name);

    if (out[0] == 0 && value != NULL)
        snprintf(out, room, "%.*s", (int)room - 1, value);
}

/* Whether a link fits what stands on it, and what the host said of it. */
static int check_place(const struct chain_wish *w, const struct chain_disk *out,
                       const struct descriptor *d, const char *absolute, uint32_t wanted_cid,
                       struct err *e)
{
    size_t depth = out->link_count;
    char said[DATASTORE_PATH_MAX];

    if (depth == 0) {
        if (d->capacity_bytes != w->disk->capacity_bytes)
            return err_set(e, ERR_SOURCE,
                           "it has %" PRIu64 " bytes, but its descriptor %s says %" PRIu64,
                           w->disk->capacity_bytes, absolute, d->capacity_bytes);
        return 0;
    }
    for (size_t i = 0; i < depth; i++)
        if (strcmp(out->links[i].descriptor_path, absolute) == 0)
            return err_set(e, ERR_SOURCE, "the link %s stands on itself", absolute);
    if (d->cid != wanted_cid)
        return err_set(e, ERR_SOURCE,
                       "the link %s expects content id %08x below it, but %s has %08x",
                       out->links[depth - 1].descriptor_path, (unsigned)wanted_cid, absolute,
                       (unsigned)d->cid);
    if (depth <= w->below_count &&
        (datastore_absolute(w->stores, w->below[depth - 1], said, e) != 0 ||
         strcmp(said, absolute) != 0))
        return err_set(e, ERR_SOURCE, "the link %s stands on %s, but the host says on %s",
                       out->links[depth - 1].descriptor_path, absolute, w->below[depth - 1]);
    return 0;
}

static int keep_link(const struct chain_wish *w, struct chain_disk *out, const struct descriptor *d,
                     const char *absolute, struct err *e)
{
    struct chain_link *more = realloc(out->links, (out->link_count + 1) * sizeof *more);
    const char *thin = descriptor_ddb(d, "thinProvisioned");
    char data[DATASTORE_PATH_MAX];
    struct chain_link *l;

    if (more == NULL)
        return err_sys(e, "planning what to read");
    out->links = more;
    l = &more[out->link_count];
    *l = (struct chain_link){ .cid = d->cid };
    if (datastore_resolve(w->stores, absolute, d->extents[0].name, data, e) != 0)
        return -1;
    snprintf(l->type, sizeof l->type, "%.23s", d->create_type);
    l->descriptor_path = strdup(absolute);
    l->data_path = strdup(data);
    out->link_count++;
    if (l->descriptor_path == NULL || l->data_path == NULL)
        return err_sys(e, "planning what to read");
    if (out->link_count == 1)
        note_ddb(d, "longContentID", out->content_id, sizeof out->content_id);
    /* The tip's word counts, then its parent's: a delta mostly says nothing. */
    note_ddb(d, "adapterType", out->adapter, sizeof out->adapter);
    note_ddb(d, "uuid", out->uuid, sizeof out->uuid);
    out->thin = thin != NULL && strcmp(thin, "1") == 0;
    return 0;
}

/* Said once, where the disk is looked at first; whether a filter changes what is stored, only its
 * maker knows. */
static void note_filters(struct chain_disk *out, const struct descriptor *d, const char *absolute)
{
    const char *filters = descriptor_ddb(d, "iofilters");

    if (filters != NULL && filters[0] != 0 && out->reason.text[0] == 0)
        err_set(&out->reason, ERR_NONE,
                "disk %s: %s names I/O filters (%.80s): where one caches or encrypts, the file is "
                "not what the guest sees",
                out->slot, absolute, filters);
}

/*
 * One link: next (DATASTORE_PATH_MAX bytes) is where it lies and becomes its parent; cid is what is
 * expected of it and becomes what it expects.  1 to go on, 0 when the chain ends, or -1.
 */
static int take_link(const struct chain_wish *w, struct chain_disk *out, char *next, uint32_t *cid,
                     struct err *e)
{
    char absolute[DATASTORE_PATH_MAX];
    struct descriptor *d = NULL;
    const struct form *form;
    const char *trap = NULL;
    int rc = -1;

    if (chain_descriptor_read(w->host, w->stores, next, absolute, &d, e) != 0)
        return -1;
    form = form_of(d);
    if (form != NULL)
        trap = trap_in(d, form);
    /* A snapshot of a device mapping puts an ordinary delta on top of it: only the base tells. */
    if (descriptor_word_is(d->create_type, "vmfsRawDeviceMap") ||
        descriptor_word_is(d->create_type, "vmfsPassthroughRawDeviceMap"))
        rc = chain_skip(out, "is a raw device mapping, which is not read");
    else if (form == NULL)
        rc = chain_refuse(out, next, d->create_type, "is of a form that is not read");
    else if (trap != NULL)
        rc = chain_refuse(out, next, d->create_type, trap);
    else if (out->link_count == CHAIN_LINKS_MAX)
        rc = chain_refuse(out, next, d->create_type, "is one link more than are read");
    else if (check_place(w, out, d, absolute, *cid, e) == 0 &&
             keep_link(w, out, d, absolute, e) == 0) {
        note_filters(out, d, absolute);
        rc = form->base ? 0 : 1;
    }
    if (rc == 1) {
        *cid = d->parent_cid;
        if (datastore_resolve(w->stores, absolute, d->parent_hint, next, e) != 0) {
            err_add(e, "the parent of %s", absolute);
            rc = -1;
        }
    }
    descriptor_free(d);
    return rc;
}

int chain_links_read(const struct chain_wish *wish, struct chain_disk *out, struct err *e)
{
    char next[DATASTORE_PATH_MAX];
    uint32_t cid = DESCRIPTOR_CID_NONE;
    int rc = 1;

    if (strlen(wish->tip) >= sizeof next)
        return err_set(e, ERR_LIMIT, "disk %s: a name of %zu bytes", out->slot, strlen(wish->tip));
    strcpy(next, wish->tip);
    out->outcome = wish->outcome;
    out->uuid[0] = 0;
    while (rc > 0)
        rc = take_link(wish, out, next, &cid, e);
    if (rc < 0)
        return err_add(e, "disk %s", out->slot);
    if (out->outcome != wish->outcome)
        chain_links_free(out);
    if (out->uuid[0] == 0)
        snprintf(out->uuid, sizeof out->uuid, "%.63s", wish->disk->uuid);
    if (out->adapter[0] == 0)
        snprintf(out->adapter, sizeof out->adapter, "lsilogic");
    return 0;
}
