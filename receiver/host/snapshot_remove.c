/* Removing snapshots; the contract is snapshot.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "protocol/base/err.h"
#include "receiver/base/failpoint.h"
#include "receiver/base/log.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/host/snapshot_look.h"

/* A removal whose task shows no progress for as long as this is given up; the entry stays. */
#define REMOVE_STUCK_MS (UINT64_C(4) * 3600 * 1000)
/* How long the host may take to notice that nothing needs a consolidation any more. */
#define SETTLE_MS UINT64_C(30000)

enum { REMOVE_TRIES = 3 };

/* Everything that is known of the one snapshot to remove. */
struct removal {
    unsigned vmid;
    const char *token;
    const char *name; /* the whole name */
    unsigned id;      /* 0: take what the tree shows under the name */
};

/* Is it in the tree, as we know it?  ERR_REFUSED: something else carries our token. */
static int find_it(struct host *h, struct removal *r, bool *there, struct err *e)
{
    struct snapshot_sighting seen;

    *there = false;
    if (snapshot_look(h, r->vmid, r->token, r->name, &seen, e) != 0)
        return -1;
    if (seen.count == 0)
        return 0;
    if (seen.count > 1)
        return err_set(e, ERR_REFUSED, "%zu snapshots carry the token %s; none was touched",
                       seen.count, r->token);
    if (!seen.exact || (r->id != 0 && seen.id != r->id))
        return err_set(
            e, ERR_REFUSED,
            "the snapshot with the token %s has another name or id than ours; it was not "
            "touched",
            r->token);
    r->id = seen.id;
    *there = true;
    return 0;
}

/* Wait while the removal's task works and the tree shows the snapshot.  0: it is gone. */
static int wait_until_gone(struct host *h, struct removal *r, const struct err *answer, bool failed,
                           struct err *e)
{
    uint64_t start = host_clock_ms(h), moved = start;
    uint64_t progress = 0;

    for (;;) {
        struct snapshot_task task;
        bool there, known;
        uint64_t now;

        if (snapshot_look_at_tasks(h, r->vmid, "Snapshot.remove", &task, &known, e) != 0)
            return -1;
        if (find_it(h, r, &there, e) != 0)
            return -1;
        now = host_clock_ms(h);
        if (!there && !task.open)
            return 0;
        if (task.open && (task.progress != progress || now == start)) {
            progress = task.progress;
            moved = now;
        }
        if (!task.open && there && (failed || now - moved >= SILENT_MS)) {
            if (failed)
                *e = *answer;
            else
                err_set(e, ERR_CLEANUP, "%s",
                        task.text[0] != '\0' ? task.text : "the host did nothing");
            return -1;
        }
        if (now - moved >= REMOVE_STUCK_MS)
            return err_set(e, ERR_CLEANUP, "its task has stood at %u %% for %u s",
                           (unsigned)progress, (unsigned)((now - moved) / 1000));
        host_pause(h, now - start < 30000 ? POLL_MS : SLOW_POLL_MS);
    }
}

static int remove_once(struct host *h, struct removal *r, struct err *e)
{
    struct host_answer a;
    struct err answer;
    char vmid[16], id[16];
    bool failed;

    snprintf(vmid, sizeof vmid, "%u", r->vmid);
    snprintf(id, sizeof id, "%u", r->id);
    /* The last word keeps its children: only this one snapshot goes. */
    failed = host_vim_once(h, &a, TASK_COMMAND_MS, &answer, "vmsvc/snapshot.remove", vmid, id, "0",
                           NULL) != 0;
    host_answer_free(&a);
    if (failed && answer.code == ERR_NETWORK && answer.os == 0) {
        *e = answer;
        return -1;
    }
    /* vim-cmd may have given up before the task; the tree and the tasks tell. */
    return wait_until_gone(h, r, &answer, failed && answer.code != ERR_NETWORK, e);
}

static int remove_it(struct host *h, struct removal *r, bool *removed, struct err *e)
{
    *removed = false;
    for (unsigned i = 0; i < REMOVE_TRIES; i++) {
        bool there;

        if (i > 0)
            host_pause(h, SLOW_POLL_MS << i);
        if (find_it(h, r, &there, e) != 0)
            return -1;
        if (!there)
            return 0;
        if (failpoint("snapshot.remove", e) == 0 && remove_once(h, r, e) == 0 &&
            failpoint("snapshot.removed", e) == 0) {
            *removed = true;
            return 0;
        }
        if (e->code == ERR_NETWORK || e->code == ERR_REFUSED)
            return -1;
        log_info("removing snapshot %s: %s", r->name, e->text);
    }
    if (e->code != ERR_BUSY)
        e->code = ERR_CLEANUP;
    return err_add(e, "snapshot %s (id %u) of VM %u could not be removed", r->name, r->id, r->vmid);
}

/* After the tree no longer shows it: nothing may be left to consolidate. */
static int check_consolidated(struct host *h, unsigned vmid, struct err *e)
{
    uint64_t start = host_clock_ms(h);

    for (;;) {
        struct vm vm;
        bool needed;

        if (host_vm(h, vmid, &vm, e) != 0)
            return -1;
        needed = vm.consolidation_needed;
        vm_free(&vm);
        if (!needed)
            return 0;
        if (host_clock_ms(h) - start >= SETTLE_MS)
            return err_set(
                e, ERR_CLEANUP,
                "VM %u needs its disks consolidated: the snapshot is gone from the list, "
                "but its files remain; in the host's web client choose Snapshots, "
                "Consolidate disks",
                vmid);
        host_pause(h, SLOW_POLL_MS);
    }
}

/*
 * The VM's disks must be the files from before, unless somebody else's snapshot stands on them now,
 * or what they stood on has been consolidated as well.
 */
static int check_disks_back(struct host *h, const struct snapshot *s, struct err *e)
{
    struct snapshot_tree t;
    struct vm_disks now;
    bool others = false;
    int rc = 0;

    if (snapshot_tree_read(h, s->vmid, &t, e) != 0)
        return -1;
    for (size_t i = 0; i < t.count; i++)
        others |= t.items[i].id > s->newest_before;
    snapshot_tree_free(&t);
    if (others)
        return 0;
    if (host_vm_disks(h, s->vmid, &now, e) != 0)
        return -1;
    for (size_t i = 0; i < s->disk_count && rc == 0; i++)
        for (size_t k = 0; k < now.count; k++)
            if (strcmp(s->disks[i].slot, now.items[k].slot) == 0 &&
                strcmp(s->disks[i].file, now.items[k].file) != 0 &&
                now.items[k].parent_count >= s->disks[i].parents)
                rc = err_set(e, ERR_CLEANUP,
                             "disk %s of VM %u is %s after the removal of our snapshot, but was %s "
                             "before: a delta was left; in the host's web client choose Snapshots, "
                             "Consolidate disks",
                             s->disks[i].slot, s->vmid, now.items[k].file, s->disks[i].file);
    vm_disks_free(&now);
    return rc;
}

/*
 * Does the VM stand on the snapshot?  Only then the removal shortens the chains of its disks. True
 * where the host does not tell.
 */
static int stands_on(struct host *h, const struct removal *r, bool *out, struct err *e)
{
    struct snapshot_tree t;

    *out = true;
    if (r->id == 0)
        return 0;
    if (snapshot_tree_read(h, r->vmid, &t, e) != 0)
        return -1;
    if (t.current != 0)
        *out = snapshot_is_below(&t, r->id, t.current);
    snapshot_tree_free(&t);
    return 0;
}

/* Links of all disks above their bases. */
static int count_links(struct host *h, unsigned vmid, size_t *out, struct err *e)
{
    struct vm_disks disks;

    *out = 0;
    if (host_vm_disks(h, vmid, &disks, e) != 0)
        return -1;
    for (size_t i = 0; i < disks.count; i++)
        *out += disks.items[i].parent_count;
    vm_disks_free(&disks);
    return 0;
}

/* The id that the entry's VM has now.  ERR_NOT_FOUND when the host has it no more. */
static int vmid_of_entry(struct host *h, const struct journal_entry *entry, unsigned hint,
                         unsigned *out, struct err *e)
{
    struct vm vm;
    bool same;

    if (host_vm(h, hint, &vm, e) == 0) {
        same = strcmp(vm.vmx, entry->vmx) == 0 && strcasecmp(vm.instance_uuid, entry->vm_uuid) == 0;
        vm_free(&vm);
        if (same) {
            *out = hint;
            return 0;
        }
    } else if (e->code != ERR_NOT_FOUND) {
        return -1;
    }
    if (host_vm_find(h, entry->vmx, entry->vm_uuid, &vm, e) != 0)
        return -1;
    *out = vm.vmid;
    vm_free(&vm);
    return 0;
}

int snapshot_remove(struct host *h, struct snapshot *s, struct err *e)
{
    const struct journal_entry *entry = journal_entry_of(s->ticket);
    struct removal r = { .token = entry->token, .name = s->name, .id = s->id };
    bool removed;
    int rc;

    /* A full disk here must not keep the snapshot there: what the entry says already is enough. */
    if (journal_step(s->ticket, JOURNAL_REMOVING, host_now(h), e) != 0)
        log_warning("%s", e->text);
    if (vmid_of_entry(h, entry, s->vmid, &s->vmid, e) != 0)
        return err_add(e, "removing our snapshot");
    r.vmid = s->vmid;
    if (remove_it(h, &r, &removed, e) != 0)
        return -1;
    if (!removed)
        log_warning("snapshot %s was gone already", s->name);
    if (check_consolidated(h, s->vmid, e) != 0 || check_disks_back(h, s, e) != 0)
        return -1;
    rc = journal_done(s->ticket, e);
    s->ticket = NULL;
    return rc;
}

int snapshot_remove_entry(struct host *h, unsigned vmid, const struct journal_entry *entry,
                          bool *removed, struct err *e)
{
    struct snapshot_tag tag = { .purpose = entry->purpose };
    struct removal r = { .token = entry->token, .id = entry->snapshot_id };
    char name[SNAPSHOT_NAME_ROOM];
    size_t before, after;
    bool shortens;

    *removed = false;
    memcpy(tag.install_id, entry->install_id, sizeof tag.install_id);
    memcpy(tag.token, entry->token, sizeof tag.token);
    snapshot_tag_write(&tag, name);
    r.name = name;
    if (vmid_of_entry(h, entry, vmid, &r.vmid, e) != 0 || count_links(h, r.vmid, &before, e) != 0 ||
        stands_on(h, &r, &shortens, e) != 0 || remove_it(h, &r, removed, e) != 0)
        return -1;
    /* An entry that had come so far has made files; without a snapshot they may still be there. */
    if ((*removed || entry->state == JOURNAL_REMOVING) && check_consolidated(h, r.vmid, e) != 0)
        return -1;
    if (!*removed || !shortens)
        return 0;
    if (count_links(h, r.vmid, &after, e) != 0)
        return -1;
    return before > 0 && after >= before
               ? err_set(
                     e, ERR_CLEANUP,
                     "our snapshot of VM %u is gone from the list, but its delta remains; in the "
                     "host's web client choose Snapshots, Consolidate disks",
                     r.vmid)
               : 0;
}

int snapshot_remove_foreign(struct host *h, unsigned vmid, const char *token, bool *removed,
                            struct err *e)
{
    struct removal r = { .vmid = vmid, .token = token };
    char name[SNAPSHOT_NAME_ROOM] = "";
    struct snapshot_tree t;
    struct snapshot_tag tag;

    *removed = false;
    if (snapshot_tree_read(h, vmid, &t, e) != 0)
        return -1;
    for (size_t i = 0; i < t.count; i++)
        if (snapshot_tag_read(t.items[i].name, &tag) && strcmp(tag.token, token) == 0) {
            snprintf(name, sizeof name, "%s", t.items[i].name);
            r.id = t.items[i].id;
        }
    snapshot_tree_free(&t);
    if (name[0] == '\0')
        return 0;
    r.name = name;
    if (remove_it(h, &r, removed, e) != 0)
        return -1;
    return *removed ? check_consolidated(h, vmid, e) : 0;
}
