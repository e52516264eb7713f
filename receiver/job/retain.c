#include "receiver/job/retain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/failpoint.h"
#include "receiver/base/log.h"
#include "receiver/base/state.h"
#include "receiver/base/stop.h"
#include "receiver/host/chain.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/host/snapshot.h"
#include "receiver/job/hint_judge.h"
#include "receiver/job/hints.h"
#include "receiver/job/vm_read.h"

enum { HOLD_POLL_MS = 1000, REPEATS_MAX = 2 };

static const struct vm_store *ops_of(const struct retain *k)
{
    return k->job->job->store;
}

static void step(const struct retain *k, const char *what)
{
    if (k->job->events->step != NULL)
        k->job->events->step(k->job->events->context, k->job->vm->name, what);
}

const char *retain_token(const struct retain *k)
{
    return k->ticket == NULL ? NULL : journal_entry_of(k->ticket)->token;
}

void retain_end(struct retain *k)
{
    journal_leave(k->ticket);
    retained_free(&k->record);
    free(k->ids);
    *k = (struct retain){ 0 };
}

/* ---- (1) ---- */

/* A kept snapshot of this VM: by its instance UUID, and by its path where two VMs share that. */
static bool is_of_vm(const struct retain *k, const struct journal_entry *entry)
{
    const struct vm_job *job = k->job;
    bool same_uuid = strcasecmp(entry->vm_uuid, job->vm->instance_uuid) == 0;
    bool decides = job->vm->instance_uuid[0] != '\0' && !job->uuid_shared;

    return entry->kind == JOURNAL_SNAPSHOT && entry->purpose == JOURNAL_KEEP &&
           strcmp(entry->host_uuid, job->host->uuid) == 0 && same_uuid &&
           (decides || strcmp(entry->vmx, job->vm->vmx) == 0);
}

/*
 * Its token; "" when there is none.  *count: there should be one at most.  One that was asked for
 * and is not there yet is for the reaper alone, should it come late.
 */
static int find_kept(const struct retain *k, char token[JOURNAL_TOKEN_ROOM], size_t *count,
                     struct err *e)
{
    struct journal_list l;

    token[0] = '\0';
    *count = 0;
    if (journal_list(k->job->journal, &l, e) != 0)
        return -1;
    for (size_t i = 0; i < l.count; i++)
        if (is_of_vm(k, &l.items[i]) && l.items[i].state != JOURNAL_INTENT) {
            memcpy(token, l.items[i].token, JOURNAL_TOKEN_ROOM);
            (*count)++;
        }
    journal_list_free(&l);
    return 0;
}

/* Other processes of ours keep off the VM as long as we hold this. */
static int hold(struct retain *k, size_t *count, struct err *e)
{
    uint64_t until_ms = io_clock_ms() + k->job->options->lock_wait_s * 1000;
    char token[JOURNAL_TOKEN_ROOM];

    for (;;) {
        if (find_kept(k, token, count, e) != 0)
            return -1;
        if (token[0] == '\0' || journal_take(k->job->journal, token, &k->ticket, e) == 0)
            return 0;
        if (e->code == ERR_NOT_FOUND)
            continue; /* closed just now */
        if (e->code != ERR_BUSY || io_clock_ms() >= until_ms)
            return err_add(e, "the kept snapshot of VM %s", k->job->vm->name);
        if (stop_sleep(HOLD_POLL_MS, e) != 0)
            return -1;
    }
}

/* Why the hint is not used, for the user. */
static void refuse(struct retain *k, const char *why)
{
    k->usable = false;
    log_note("%s: the change hint is not used: %s", k->job->vm->name, why);
}

/* The record alone, against what the store has now. */
static void check_record(struct retain *k)
{
    const struct vm_job *job = k->job;
    const struct run_options *o = job->options;
    const struct hint_view view = {
        .host_uuid = job->host->uuid,
        .booted = k->booted,
        .vm_uuid = job->vm->instance_uuid,
        .vmx = job->vm->vmx,
        .vmid = job->vm->vmid,
        .head = &k->head,
    };
    char why[HINT_WHY_ROOM];

    k->usable = false;
    if (!k->ours || o->full)
        return;
    if (k->audit)
        log_info("%s: an audit is due: the change hint is not used", job->vm->name);
    else if (hints_are_off(state_fd(o->state), HINT_CHANGES, job->host->uuid))
        refuse(k, "this host's change hints are not used (see no-change-hints-… in the state "
                  "directory)");
    else if (hint_doubt_before(&k->record, &view, why))
        refuse(k, why);
    else
        k->usable = true;
}

/* A store that was made anew where the one before was, by its absolute path: its record says
 * nothing any more, but nobody else waits for the snapshot. */
static bool is_same_place(const struct retain *k, const struct journal_entry *entry)
{
    return strstr(entry->store, " /") != NULL && strcmp(entry->store, k->job->job->store_name) == 0;
}

/* Whose is the kept snapshot, and may this run keep one? */
static void settle_owner(struct retain *k, size_t count)
{
    const struct journal_entry *entry = k->ticket == NULL ? NULL : journal_entry_of(k->ticket);
    bool wanted = k->job->options->retain_snapshot;
    const char *name = k->job->vm->name;
    struct err e;

    k->keeps = wanted;
    if (entry == NULL)
        return;
    k->keeps = false;
    if (count > 1 || entry->state == JOURNAL_REMOVING ||
        retained_load(k->job->journal, entry->token, &k->record, &e) != 0) {
        if (wanted)
            log_warning("%s: an earlier kept snapshot could not be removed yet, so none is kept",
                        name);
        return;
    }
    k->ours = strcmp(k->record.store_id, k->head.store_id) == 0 || is_same_place(k, entry);
    k->keeps = wanted && k->ours;
    if (wanted && !k->ours)
        log_note("%s: the snapshot kept for %s stays, so none is kept for this store", name,
                 entry->store);
}

int retain_begin(struct retain *k, const struct vm_job *job, void *store, struct err *e)
{
    size_t count;
    struct err why;

    *k = (struct retain){ .job = job, .store = store };
    job->job->store->head(store, &k->head);
    k->audit = k->head.generation > 0 && !job->options->full && hint_audit_is_due(k->head.next);
    if (hold(k, &count, e) != 0)
        return -1;
    settle_owner(k, count);
    if ((k->ours || k->keeps) && host_booted(job->host, &k->booted, &why) != 0) {
        log_info("%s: %s", job->vm->name, why.text);
        k->booted = 0;
    }
    check_record(k);
    return 0;
}

/* ---- (2) ---- */

static int remember_tree(struct retain *k, const struct snapshot_tree *t, struct err *e)
{
    free(k->ids);
    k->ids = calloc(t->count + 1, sizeof *k->ids);
    if (k->ids == NULL)
        return err_sys(e, "getting memory for snapshots");
    k->id_count = t->count;
    for (size_t i = 0; i < t->count; i++)
        k->ids[i] = t->items[i].id;
    return 0;
}

static void kept_name(const struct retain *k, char name[SNAPSHOT_NAME_ROOM])
{
    const struct journal_entry *entry = journal_entry_of(k->ticket);
    struct snapshot_tag tag = { .purpose = entry->purpose };

    memcpy(tag.install_id, entry->install_id, sizeof tag.install_id);
    memcpy(tag.token, entry->token, sizeof tag.token);
    snapshot_tag_write(&tag, name);
}

/* No disk is read by the hint. */
static void use_none(struct retain *k, struct vm_read *r)
{
    for (size_t i = 0; i < r->disk_count; i++)
        r->disks[i].transfer.since = NULL;
    k->used = 0;
    k->usable = false;
}

/* What was staged before may be from a state that the VM has left: the hint says nothing of it. */
static int use_for(struct retain *k, struct vm_read *r, size_t disk, size_t since, struct err *e)
{
    if (ops_of(k)->unstage(k->store, disk, e) != 0)
        return -1;
    r->disks[disk].transfer.since = r->plan.items[disk].links[since].descriptor_path;
    k->used++;
    return 0;
}

static int judge_disks(struct retain *k, struct vm_read *r, struct err *e)
{
    char why[HINT_WHY_ROOM];

    for (size_t i = 0; i < r->disk_count; i++) {
        struct hint_held held = { .trusted = false };
        size_t since = 0;

        if (!r->disks[i].readable)
            continue;
        held.trusted = ops_of(k)->held(k->store, i, &held.root);
        switch (hint_judge_disk(&k->record, &r->plan.items[i], &held, &since, why)) {
        case HINT_GOOD:
            if (use_for(k, r, i, since, e) != 0)
                return -1;
            break;
        case HINT_WHOLE:
            log_note("%s: %s: it is read whole", k->job->vm->name, why);
            break;
        case HINT_DOUBT:
            use_none(k, r);
            refuse(k, why);
            return 0;
        }
    }
    return 0;
}

int retain_judge(struct retain *k, struct vm_read *r, struct err *e)
{
    char name[SNAPSHOT_NAME_ROOM], why[HINT_WHY_ROOM];
    struct snapshot_tree t;
    int rc = 0;

    if (r->snapshot == NULL || (!k->usable && !k->keeps)) {
        if (k->keeps && r->readable > 0)
            log_note("%s: no snapshot was taken, so none is kept", k->job->vm->name);
        k->usable = k->keeps = false;
        return 0;
    }
    if (snapshot_tree_read(r->host, r->snapshot->vmid, &t, e) != 0)
        return -1;
    rc = remember_tree(k, &t, e);
    if (rc == 0 && k->usable) {
        kept_name(k, name);
        if (hint_doubt_tree(&k->record, &t, name, r->snapshot->id, why))
            refuse(k, why);
        else
            rc = judge_disks(k, r, e);
    }
    snapshot_tree_free(&t);
    return rc;
}

enum retain_fault retain_fault(const struct retain *k, const struct vm_read *r,
                               const struct err *why)
{
    if (k->used == 0)
        return RETAIN_NONE;
    for (size_t i = 0; i < r->disk_count; i++)
        if (r->disks[i].transfer.since != NULL && r->disks[i].transfer.hint_wrong)
            return RETAIN_WRONG;
    return why->code == ERR_CORRUPT ? RETAIN_MAYBE : RETAIN_NONE;
}

void retain_drop(struct retain *k)
{
    k->usable = false;
    k->used = 0;
}

void retain_distrust(struct retain *k)
{
    const struct state *state = k->job->options->state;
    struct err e;

    log_warning("%s: what was written since the kept snapshot is not all that has changed: this "
                "host's change hints are not used any more",
                k->job->vm->name);
    if (hints_turn_off(state_fd(state), HINT_CHANGES, k->job->host->uuid, &e) != 0)
        log_warning("%s: %s", state_dir(state), e.text);
}

enum change_source retain_source(const struct retain *k, const struct vm_read *r, bool first)
{
    if (first || k->job->options->full)
        return CHANGE_FULL;
    if (k->audit)
        return CHANGE_AUDIT;
    return k->used > 0 && k->used == r->readable ? CHANGE_RETAINED_SNAPSHOT : CHANGE_DIGEST;
}

/* ---- (6) ---- */

/* The VM may have another place now; its instance UUID and our token say that it is the same. */
static int follow_vm(struct retain *k, struct err *e)
{
    struct journal_entry *entry = journal_entry_of(k->ticket);
    const struct vm *vm = k->job->vm;

    if (strlen(vm->vmx) >= sizeof entry->vmx)
        return err_set(e, ERR_LIMIT, "the path of VM %s is too long", vm->name);
    snprintf(entry->vmx, sizeof entry->vmx, "%s", vm->vmx);
    entry->vmid = vm->vmid;
    return journal_step(k->ticket, JOURNAL_REMOVING, host_now(k->job->host), e);
}

static int remove_once(struct retain *k, struct vm_read *r, struct err *e)
{
    struct host *h = k->job->host;
    bool removed;

    if (vm_read_quiet(r, e) != 0 ||
        snapshot_remove_entry(h, k->job->vm->vmid, journal_entry_of(k->ticket), &removed, e) != 0)
        return -1;
    if (!removed)
        log_info("%s: the kept snapshot was gone already", k->job->vm->name);
    return 0;
}

/* Nothing reads any more: the snapshot of the run before goes. */
static int remove_kept(struct retain *k, struct vm_read *r, struct err *e)
{
    struct err why;

    step(k, "removing the kept snapshot");
    /* A full disk here must not keep the snapshot there; its record is of an old generation. */
    if (follow_vm(k, &why) != 0)
        log_warning("%s", why.text);
    for (unsigned i = 0;; i++) {
        if (failpoint("retain.remove", e) == 0 && remove_once(k, r, e) == 0)
            break;
        if (i == REPEATS_MAX || e->code != ERR_NETWORK)
            return err_add(e, "the snapshot kept by an earlier run");
    }
    if (r->snapshot != NULL)
        snapshot_moved(r->snapshot);
    if (journal_done(k->ticket, &why) != 0)
        log_warning("%s", why.text);
    k->ticket = NULL;
    return failpoint("retain.removed", e);
}

/* ---- (7) ---- */

static bool was_there(const struct retain *k, unsigned id)
{
    for (size_t i = 0; i < k->id_count; i++)
        if (k->ids[i] == id)
            return true;
    return false;
}

/*
 * Our snapshot is the one that the VM stands on, and of the others only the one that we have
 * removed (id gone) is missing.
 */
static int check_tree(struct retain *k, const struct snapshot *s, unsigned gone, int64_t *created,
                      struct err *e)
{
    struct snapshot_tree t;
    const struct snapshot_node *own = NULL;
    size_t known = 0;
    int rc = 0;

    if (snapshot_tree_read(k->job->host, s->vmid, &t, e) != 0)
        return -1;
    for (size_t i = 0; i < t.count; i++) {
        known += was_there(k, t.items[i].id);
        if (t.items[i].id == s->id && strcmp(t.items[i].name, s->name) == 0)
            own = &t.items[i];
    }
    if (own == NULL || own->children > 0 || t.current != s->id)
        rc = err_set(e, ERR_SOURCE, "it is not the VM's current snapshot any more");
    else if (known != t.count || t.count + (gone != 0 && was_there(k, gone)) != k->id_count)
        rc = err_set(e, ERR_SOURCE, "the VM's other snapshots have changed meanwhile");
    else if (own->created <= 0)
        rc = err_set(e, ERR_SOURCE, "the host does not say when it was made");
    else
        *created = own->created;
    snapshot_tree_free(&t);
    return rc;
}

static int copy_link(struct retained_disk *to, const struct chain_link *from, struct err *e)
{
    struct chain_link *l = retained_add_link(to, e);

    if (l == NULL)
        return -1;
    memcpy(l->type, from->type, sizeof l->type);
    l->cid = from->cid;
    l->descriptor_path = strdup(from->descriptor_path);
    l->data_path = strdup(from->data_path);
    return l->descriptor_path != NULL && l->data_path != NULL ? 0 : err_sys(e, "writing a record");
}

static int copy_disk(struct retained *to, const struct chain_disk *c, const struct digest *root,
                     struct err *e)
{
    struct retained_disk *d = retained_add_disk(to, e);

    if (d == NULL)
        return -1;
    memcpy(d->slot, c->slot, sizeof d->slot);
    memcpy(d->uuid, c->uuid, sizeof d->uuid);
    d->capacity_bytes = c->capacity_bytes;
    d->root = *root;
    d->leaf_path = strdup(c->leaf_path);
    if (d->leaf_path == NULL)
        return err_sys(e, "writing a record");
    for (size_t i = 0; i < c->link_count; i++)
        if (copy_link(d, &c->links[i], e) != 0)
            return -1;
    return 0;
}

/* The disks that are in the store now and frozen by our snapshot. */
static int copy_disks(struct retained *to, const struct vm_read *r, const struct chain_plan *now,
                      struct err *e)
{
    for (size_t i = 0; i < r->disk_count; i++)
        if (r->disks[i].readable && r->disks[i].transfer.done &&
            now->items[i].outcome == CHAIN_READ &&
            copy_disk(to, &now->items[i], &r->disks[i].transfer.root, e) != 0)
            return -1;
    return to->disk_count > 0 ? 0 : err_set(e, ERR_SOURCE, "it covers none of the disks");
}

static int fill_record(struct retained *to, const struct retain *k, const struct snapshot *s,
                       const struct store_made *made, struct err *e)
{
    const struct vm_job *job = k->job;
    int64_t booted;

    if (host_booted(job->host, &booted, e) != 0)
        return -1;
    if (k->booted == 0 || booted - k->booted > HINT_BOOT_SECONDS ||
        k->booted - booted > HINT_BOOT_SECONDS)
        return err_set(e, ERR_SOURCE, "the host was restarted meanwhile");
    if (strlen(job->vm->vmx) >= sizeof to->vmx)
        return err_set(e, ERR_LIMIT, "the path of the VM is too long");
    memcpy(to->token, journal_entry_of(s->ticket)->token, sizeof to->token);
    memcpy(to->store_id, k->head.store_id, sizeof to->store_id);
    to->generation = made->number;
    memcpy(to->generation_id, made->id, sizeof to->generation_id);
    snprintf(to->host_uuid, sizeof to->host_uuid, "%s", job->host->uuid);
    to->booted = booted;
    to->uptime = host_now(job->host) - booted;
    snprintf(to->vm_uuid, sizeof to->vm_uuid, "%s", job->vm->instance_uuid);
    snprintf(to->vmx, sizeof to->vmx, "%s", job->vm->vmx);
    to->vmid = job->vm->vmid;
    to->snapshot_id = s->id;
    return 0;
}

static int record(struct retain *k, struct vm_read *r, const struct store_made *made, unsigned gone,
                  struct err *e)
{
    const struct vm_job *job = k->job;
    struct chain_plan now = { 0 };
    struct retained to = { 0 };
    char why[HINT_WHY_ROOM];
    int64_t again = 0;
    int rc = -1;

    if (failpoint("retain.record", e) != 0 || vm_read_quiet(r, e) != 0 ||
        fill_record(&to, k, r->snapshot, made, e) != 0 ||
        check_tree(k, r->snapshot, gone, &to.created, e) != 0 ||
        chain_plan_anew(job->host, job->vm, r->stores, &now, e) != 0)
        goto out;
    if (hint_doubt_after(&r->plan, &now, gone != 0, why)) {
        err_set(e, ERR_SOURCE, "%s", why);
        goto out;
    }
    /* Nothing came between the two looks, so the links are those of this very snapshot. */
    if (check_tree(k, r->snapshot, gone, &again, e) != 0)
        goto out;
    if (again != to.created) {
        err_set(e, ERR_SOURCE, "another snapshot has its name");
        goto out;
    }
    if (copy_disks(&to, r, &now, e) == 0)
        rc = retained_publish(r->snapshot->ticket, &to, e);

out:
    chain_plan_free(&now);
    retained_free(&to);
    return rc;
}

int retain_finish(struct retain *k, struct vm_read *r, const struct store_made *made, struct err *e)
{
    unsigned gone = 0;
    struct err why;

    if (k->ours && k->ticket != NULL && r->snapshot != NULL) {
        gone = k->record.snapshot_id;
        if (remove_kept(k, r, e) != 0)
            return -1;
    }
    if (!k->keeps || r->snapshot == NULL)
        return 0;
    step(k, "keeping the snapshot");
    if (record(k, r, made, gone, &why) != 0) {
        log_warning("%s: no snapshot is kept: %s", k->job->vm->name, why.text);
        return 0;
    }
    snapshot_free(r->snapshot);
    r->snapshot = NULL;
    return 0;
}
