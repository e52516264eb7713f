#include "receiver/host/reaper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "receiver/base/clock.h"
#include "receiver/base/log.h"
#include "receiver/base/sizes.h"
#include "receiver/host/datastores.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/host/place.h"
#include "receiver/host/retained.h"
#include "receiver/host/retained_room.h"
#include "receiver/host/snapshot.h"

/* How long an entry waits for a VM that the host does not list: its datastore may be away. */
enum { MISSING_VM_SECONDS = 7 * 24 * 3600 };

/* One look at all entries. */
struct reaping {
    struct host *host;
    struct journal *journal;
    const struct reaper_options *options;
    struct datastore_list stores;
    bool stores_known;
};

void reaped_list_free(struct reaped_list *l)
{
    free(l->items);
    *l = (struct reaped_list){ 0 };
}

void leftover_list_free(struct leftover_list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->items[i].vm_name);
        free(l->items[i].store);
    }
    free(l->items);
    *l = (struct leftover_list){ 0 };
}

static void say(struct reaped *r, enum reaped_kind kind, const char *text)
{
    r->kind = kind;
    snprintf(r->text, sizeof r->text, "%s", text);
}

/* Close an entry; failing to is a failure of its own. */
static void close_entry(struct reaped *r, struct journal_ticket **ticket, enum reaped_kind kind,
                        const char *text)
{
    struct err e;

    say(r, kind, text);
    if (journal_done(*ticket, &e) != 0) {
        r->code = e.code;
        say(r, REAPED_FAILED, e.text);
    }
    *ticket = NULL;
}

static void fail(struct reaped *r, const struct err *e)
{
    r->code = e->code;
    say(r, REAPED_FAILED, e->text);
}

static void reap_agent(struct host *h, struct reaped *r, struct journal_ticket **ticket,
                       struct err *e)
{
    struct journal_entry *entry = journal_entry_of(*ticket);
    char text[200];
    bool removed = false;

    e->code = ERR_NONE;
    /* Without a folder's name the crash came before anything could be made. */
    if (entry->folder[0] != '\0' && (place_wait_ended(h, entry->folder, e) != 0 ||
                                     place_remove_entry(h, entry, &removed, e) != 0)) {
        fail(r, e);
        return;
    }
    snprintf(text, sizeof text, "agent folder %.120s: %s", entry->folder,
             removed ? "removed" : "already gone");
    close_entry(r, ticket, removed ? REAPED_REMOVED : REAPED_NOTHING, text);
}

/* Nothing of the entry's token is in the tree: may it be forgotten? */
static void judge_absent(struct host *h, struct reaped *r, struct journal_ticket **ticket,
                         struct err *e)
{
    const struct journal_entry *entry = journal_entry_of(*ticket);
    int64_t age = host_now(h) - entry->changed;
    struct snapshot_task task;
    char text[300];

    if (entry->state == JOURNAL_INTENT) {
        if (snapshot_task_look(h, entry->vmid, "createSnapshot", &task, e) != 0) {
            if (e->code == ERR_NETWORK) {
                fail(r, e);
                return;
            }
            task.open = false;
        }
        e->code = ERR_NONE;
        if (task.open || age < REAPER_INTENT_SECONDS) {
            snprintf(
                text, sizeof text,
                "VM %.100s: a snapshot that was asked for has not appeared; looked for again by "
                "the next run or cleanup",
                entry->vm_name);
            say(r, REAPED_WAITING, text);
            return;
        }
    }
    snprintf(text, sizeof text, "VM %.100s: no snapshot of an earlier run is left", entry->vm_name);
    close_entry(r, ticket, REAPED_NOTHING, text);
}

/* The host does not list the VM. */
static void judge_missing_vm(struct host *h, struct reaped *r, struct journal_ticket **ticket)
{
    const struct journal_entry *entry = journal_entry_of(*ticket);
    char text[300];

    if (host_now(h) - entry->changed < MISSING_VM_SECONDS) {
        snprintf(text, sizeof text,
                 "VM %.80s (%.80s) is not on the host now; its snapshot is looked for again later",
                 entry->vm_name, entry->vmx);
        say(r, REAPED_WAITING, text);
        return;
    }
    snprintf(
        text, sizeof text,
        "VM %.80s (%.80s) has been gone for a week; if it was moved, remove the snapshot with %s "
        "in its name there",
        entry->vm_name, entry->vmx, entry->token);
    close_entry(r, ticket, REAPED_NOTHING, text);
}

/* What the deltas of a kept snapshot cost; datastores are asked for once.  -1: not to be learnt. */
static int cost_of(struct reaping *w, const struct retained *record, struct retained_cost *out,
                   struct err *e)
{
    if (!w->stores_known && host_datastores(w->host, &w->stores, e) != 0)
        return -1;
    w->stores_known = true;
    return retained_cost(w->host, record, &w->stores, out, e);
}

/* May the kept snapshot stay?  Else text says why it goes. */
static bool may_stay(struct reaping *w, const struct journal_entry *entry,
                     struct retained_cost *cost, char *text, size_t room)
{
    uint64_t age = w->options->retained_age;
    int64_t until = entry->expires;
    struct retained record = { 0 };
    struct err why;
    bool stays = true;

    *cost = (struct retained_cost){ 0 };
    if (entry->state == JOURNAL_REMOVING) {
        snprintf(text, room, "was to be removed");
        return false;
    }
    if (retained_load(w->journal, entry->token, &record, &why) != 0) {
        snprintf(text, room, "%s",
                 why.code == ERR_NOT_FOUND ? "its run did not end well" : "its record is damaged");
        return false;
    }
    if (age > 0 && age < (uint64_t)INT64_MAX / 2 && entry->created + (int64_t)age < until)
        until = entry->created + (int64_t)age;
    if (host_now(w->host) >= until) {
        snprintf(text, room, "its time is over");
        stays = false;
    } else if (cost_of(w, &record, cost, &why) != 0) {
        log_info("VM %s: what its kept snapshot takes is not known: %s", entry->vm_name, why.text);
    } else if (cost->crowded[0] != '\0') {
        char there[SIZE_TEXT_BYTES], left[SIZE_TEXT_BYTES];

        snprintf(text, room, "it takes %s on %.60s, where %s are free",
                 size_text(there, cost->there_bytes), cost->crowded,
                 size_text(left, cost->free_bytes));
        stays = false;
    }
    retained_free(&record);
    return stays;
}

static void say_retained(struct reaping *w, struct reaped *r, const struct retained_cost *cost)
{
    const struct journal_entry *entry = &r->entry;
    int64_t age = host_now(w->host) - entry->created;
    char text[300], old[SIZE_TEXT_BYTES], size[SIZE_TEXT_BYTES], until[CLOCK_TEXT_BYTES];

    snprintf(text, sizeof text,
             "VM %.80s: snapshot kept for %.80s, %s old, %s of changes, until %s", entry->vm_name,
             entry->store, duration_text(old, age > 0 ? (uint64_t)age : 0),
             size_text(size, cost->bytes), clock_format_local(until, entry->expires));
    r->delta_bytes = cost->bytes;
    say(r, REAPED_RETAINED, text);
}

static void reap_snapshot(struct reaping *w, struct reaped *r, struct journal_ticket **ticket,
                          struct err *e)
{
    struct journal_entry *entry = journal_entry_of(*ticket);
    struct host *h = w->host;
    struct retained_cost cost;
    char text[400], why[200] = "";
    bool removed;

    e->code = ERR_NONE;
    if (entry->purpose == JOURNAL_KEEP && entry->state != JOURNAL_INTENT && !w->options->retained &&
        may_stay(w, entry, &cost, why, sizeof why)) {
        say_retained(w, r, &cost);
        return;
    }
    /* A full disk here must not keep the snapshot there. */
    if (entry->state != JOURNAL_INTENT &&
        journal_step(*ticket, JOURNAL_REMOVING, host_now(h), e) != 0)
        log_warning("%s", e->text);
    e->code = ERR_NONE;
    if (snapshot_remove_entry(h, entry->vmid, entry, &removed, e) != 0) {
        if (e->code == ERR_NOT_FOUND) {
            e->code = ERR_NONE;
            judge_missing_vm(h, r, ticket);
        } else {
            err_add(e, "VM %s", entry->vm_name);
            fail(r, e);
        }
        return;
    }
    if (!removed) {
        judge_absent(h, r, ticket, e);
        return;
    }
    if (entry->purpose == JOURNAL_KEEP)
        snprintf(text, sizeof text, "VM %.80s: snapshot kept for %.80s removed%s%s", entry->vm_name,
                 entry->store, why[0] != '\0' ? ": " : "", why);
    else
        snprintf(text, sizeof text, "VM %.100s: snapshot of an earlier run removed",
                 entry->vm_name);
    close_entry(r, ticket, REAPED_REMOVED, text);
}

/* With options->limits: is there anything to do?  A kept snapshot that may stay is let alone. */
static bool is_past_limits(struct reaping *w, struct journal_entry *entry)
{
    struct retained_cost cost;
    char why[200];

    return entry->state != JOURNAL_INTENT && !may_stay(w, entry, &cost, why, sizeof why);
}

static void reap_entry(struct reaping *w, struct reaped *r, struct err *e)
{
    struct journal *j = w->journal;
    struct journal_ticket *ticket = NULL;

    e->code = ERR_NONE;
    if (journal_take(j, r->entry.token, &ticket, e) != 0) {
        if (e->code == ERR_BUSY)
            say(r, REAPED_IN_USE, "a run is at work with it");
        else if (e->code == ERR_NOT_FOUND)
            say(r, REAPED_NOTHING, "closed meanwhile");
        else
            fail(r, e);
        e->code = ERR_NONE;
        return;
    }
    r->entry = *journal_entry_of(ticket);
    if (r->entry.kind == JOURNAL_AGENT)
        reap_agent(w->host, r, &ticket, e);
    else
        reap_snapshot(w, r, &ticket, e);
    journal_leave(ticket);
}

static bool is_wanted(const struct host *h, const struct reaper_options *options,
                      const struct journal_entry *entry)
{
    return strcmp(entry->host_uuid, h->uuid) == 0 &&
           (!options->limits ||
            (entry->kind == JOURNAL_SNAPSHOT && entry->purpose == JOURNAL_KEEP)) &&
           (options->vm_uuid == NULL ||
            (entry->kind == JOURNAL_SNAPSHOT && strcasecmp(entry->vm_uuid, options->vm_uuid) == 0));
}

int reaper_run(struct host *h, struct journal *j, const struct reaper_options *options,
               struct reaped_list *out, struct err *e)
{
    struct reaping w = { .host = h, .journal = j, .options = options };
    struct journal_list entries;
    int rc = 0;

    *out = (struct reaped_list){ 0 };
    if (journal_list(j, &entries, e) != 0)
        return -1;
    for (size_t i = 0; i < entries.bad_count; i++)
        log_warning("journal entry %s cannot be read; look for a snapshot with this in its name",
                    entries.bad[i]);
    out->items = calloc(entries.count + 1, sizeof *out->items);
    if (out->items == NULL) {
        journal_list_free(&entries);
        return err_sys(e, "reading the journal");
    }
    /* Agents first: one that still runs might hold a disk that a removal has to write. */
    for (unsigned kind = 0; kind < 2 && rc == 0; kind++)
        for (size_t i = 0; i < entries.count && rc == 0; i++) {
            struct reaped *r = &out->items[out->count];

            if ((entries.items[i].kind == JOURNAL_AGENT) != (kind == 0) ||
                !is_wanted(h, options, &entries.items[i]) ||
                (options->limits && (entries.locked[i] || !is_past_limits(&w, &entries.items[i]))))
                continue;
            r->entry = entries.items[i];
            reap_entry(&w, r, e);
            out->count++;
            out->failed += r->kind == REAPED_FAILED;
            out->waiting += r->kind == REAPED_WAITING;
            if (e->code == ERR_NETWORK)
                rc = -1;
        }
    journal_list_free(&entries);
    datastore_list_free(&w.stores);
    return rc;
}

/* What the journal knows of one. */
static void add_journalled(struct reaping *w, struct leftover *l, const struct journal_entry *entry)
{
    struct retained record;
    struct retained_cost cost;
    struct err ignored;

    l->journalled = true;
    if (l->purpose != JOURNAL_KEEP ||
        retained_load(w->journal, entry->token, &record, &ignored) != 0)
        return;
    l->store = strdup(entry->store);
    l->expires = entry->expires;
    if (cost_of(w, &record, &cost, &ignored) == 0)
        l->delta_bytes = cost.bytes;
    retained_free(&record);
}

static int add_leftovers(struct reaping *w, const struct vm *vm, const struct journal_list *entries,
                         struct leftover_list *out, struct err *e)
{
    struct host *h = w->host;
    struct journal *j = w->journal;
    struct snapshot_tree t;
    int rc = 0;

    if (snapshot_tree_read(h, vm->vmid, &t, e) != 0)
        return e->code == ERR_NOT_FOUND ? 0 : -1;
    for (size_t i = 0; i < t.count && rc == 0; i++) {
        struct snapshot_tag tag;
        struct leftover *more, *l;

        if (!snapshot_tag_read(t.items[i].name, &tag))
            continue;
        more = realloc(out->items, (out->count + 1) * sizeof *more);
        if (more == NULL) {
            rc = err_sys(e, "listing what is left on the host");
            break;
        }
        out->items = more;
        l = &more[out->count++];
        *l = (struct leftover){ .vmid = vm->vmid,
                                .vm_name = strdup(vm->name),
                                .id = t.items[i].id,
                                .purpose = tag.purpose,
                                .created = t.items[i].created };
        snprintf(l->name, sizeof l->name, "%s", t.items[i].name);
        memcpy(l->token, tag.token, sizeof l->token);
        l->ours = strcmp(tag.install_id, journal_install_id(j)) == 0;
        for (size_t k = 0; k < entries->count; k++)
            if (strcmp(entries->items[k].token, tag.token) == 0)
                add_journalled(w, l, &entries->items[k]);
        if (l->vm_name == NULL)
            rc = err_sys(e, "listing what is left on the host");
    }
    snapshot_tree_free(&t);
    return rc;
}

int reaper_leftovers(struct host *h, struct journal *j, struct leftover_list *out, struct err *e)
{
    struct reaping w = { .host = h, .journal = j };
    struct journal_list entries = { 0 };
    struct vm_list vms = { 0 };
    int rc = -1;

    *out = (struct leftover_list){ 0 };
    if (journal_list(j, &entries, e) != 0 || host_vms(h, &vms, e) != 0)
        goto out;
    for (size_t i = 0; i < vms.count; i++)
        if (add_leftovers(&w, &vms.items[i], &entries, out, e) != 0)
            goto out;
    rc = 0;

out:
    if (rc != 0)
        leftover_list_free(out);
    journal_list_free(&entries);
    vm_list_free(&vms);
    datastore_list_free(&w.stores);
    return rc;
}

static int refuse_if_held(struct journal *j, const char *token, struct err *e)
{
    struct journal_list entries;
    int rc = 0;

    if (journal_list(j, &entries, e) != 0)
        return -1;
    for (size_t i = 0; i < entries.count; i++)
        if (entries.locked[i] && strcmp(entries.items[i].token, token) == 0)
            rc = err_set(e, ERR_REFUSED, "a run of ours is at work with the snapshot %s", token);
    journal_list_free(&entries);
    return rc;
}

int reaper_remove_foreign(struct host *h, struct journal *j, const char *token, char *text,
                          size_t room, struct err *e)
{
    struct vm_list vms = { 0 };
    bool removed = false;
    int rc = -1;

    if (strlen(token) != JOURNAL_TOKEN_ROOM - 1 ||
        strspn(token, "0123456789abcdef") != JOURNAL_TOKEN_ROOM - 1)
        return err_set(e, ERR_USAGE, "%s is no token: 32 hex digits from a snapshot's name", token);
    if (refuse_if_held(j, token, e) != 0 || host_vms(h, &vms, e) != 0)
        goto out;
    for (size_t i = 0; i < vms.count && !removed; i++) {
        if (snapshot_remove_foreign(h, vms.items[i].vmid, token, &removed, e) != 0) {
            err_add(e, "VM %s", vms.items[i].name);
            goto out;
        }
        if (removed)
            snprintf(text, room, "VM %s: snapshot %s removed", vms.items[i].name, token);
    }
    rc = removed ? 0 : err_set(e, ERR_NOT_FOUND, "no VM of this host has a snapshot %s", token);

out:
    vm_list_free(&vms);
    return rc;
}
