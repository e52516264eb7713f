#include "receiver/host/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/base/log.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"

/* vim-cmd gives up on its own after 1800 s, while the task goes on. */
#define TASK_COMMAND_MS UINT64_C(1860000)
#define CREATE_MS UINT64_C(1200000)
#define POLL_MS UINT64_C(1000)
#define SLOW_POLL_MS UINT64_C(5000)
/* How long nothing may be seen of a task before it counts as never begun. */
#define SILENT_MS UINT64_C(15000)
/* A removal whose task shows no progress for as long as this is given up; the entry stays. */
#define REMOVE_STUCK_MS (UINT64_C(4) * 3600 * 1000)
#define SETTLE_MS UINT64_C(60000)

enum { FOREIGN_RUN_SECONDS = 24 * 3600, REMOVE_TRIES = 3 };

static void forget_disks(struct snapshot *s)
{
    for (size_t i = 0; i < s->disk_count; i++)
        free(s->disks[i].file);
    free(s->disks);
    s->disks = NULL;
    s->disk_count = 0;
}

void snapshot_free(struct snapshot *s)
{
    if (s == NULL)
        return;
    forget_disks(s);
    journal_leave(s->ticket);
    free(s);
}

static int remember_disks(struct host *h, struct snapshot *s, struct err *e)
{
    struct vm_disks disks;
    int rc = -1;

    forget_disks(s);
    if (host_vm_disks(h, s->vmid, &disks, e) != 0)
        return -1;
    s->disks = calloc(disks.count + 1, sizeof *s->disks);
    if (s->disks == NULL) {
        err_sys(e, "taking a snapshot");
        goto out;
    }
    for (size_t i = 0; i < disks.count; i++) {
        memcpy(s->disks[i].slot, disks.items[i].slot, sizeof s->disks[i].slot);
        s->disks[i].file = strdup(disks.items[i].file);
        if (s->disks[i].file == NULL) {
            err_sys(e, "taking a snapshot");
            goto out;
        }
        s->disk_count++;
    }
    rc = 0;

out:
    vm_disks_free(&disks);
    return rc;
}

/* What our token shows in a tree. */
struct sighting {
    size_t count;      /* snapshots whose name holds it */
    unsigned id;       /* of the only one */
    bool exact;        /* its name is exactly ours */
    int64_t created;
    bool quiesced;
};

static void sight(const struct snapshot_tree *t, const char *token, const char *name,
                  struct sighting *out)
{
    *out = (struct sighting){ 0 };
    for (size_t i = 0; i < t->count; i++) {
        if (strstr(t->items[i].name, token) == NULL)
            continue;
        out->count++;
        out->id = t->items[i].id;
        out->exact = strcmp(t->items[i].name, name) == 0;
        out->created = t->items[i].created;
        out->quiesced = t->items[i].quiesced;
    }
}

static int look(struct host *h, unsigned vmid, const char *token, const char *name,
                struct sighting *out, struct err *e)
{
    struct snapshot_tree t;

    if (snapshot_tree_read(h, vmid, &t, e) != 0)
        return -1;
    sight(&t, token, name, out);
    snapshot_tree_free(&t);
    return 0;
}

/* Connection gone or asked to end: nothing more can be learnt now. */
static bool is_final(const struct err *e)
{
    return e->code == ERR_NETWORK || e->code == ERR_STOPPED;
}

/* The state of snapshot tasks; *known false when the host does not tell. */
static int look_at_tasks(struct host *h, unsigned vmid, const char *operation,
                         struct snapshot_task *out, bool *known, struct err *e)
{
    *known = snapshot_task_look(h, vmid, operation, out, e) == 0;
    if (!*known && is_final(e))
        return -1;
    if (!*known)
        *out = (struct snapshot_task){ 0 };
    return 0;
}

/* ---- other receivers ---- */

/*
 * The first snapshot of another run in the tree, or NULL.  younger: look at those made after ours
 * (id mine), else at those before it.  mine is 0 while ours does not exist.
 */
static const struct snapshot_node *other_run(struct journal *j, const struct snapshot_tree *t,
                                             const char *token, unsigned mine, int64_t now,
                                             bool after)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct snapshot_node *n = &t->items[i];
        struct snapshot_tag tag;
        struct journal_list entries;
        struct err ignored;
        bool held = false;

        if (!snapshot_tag_read(n->name, &tag) || tag.purpose != JOURNAL_RUN ||
            (token != NULL && strcmp(tag.token, token) == 0) ||
            (mine != 0 && (n->id > mine) != after))
            continue;
        if (n->created != 0 && now != 0 && now - n->created >= FOREIGN_RUN_SECONDS)
            continue;
        if (strcmp(tag.install_id, journal_install_id(j)) != 0)
            return n;
        /* Of our own installation: at work only if a process holds its entry. */
        if (journal_list(j, &entries, &ignored) == 0) {
            for (size_t k = 0; k < entries.count; k++)
                held |= entries.locked[k] && strcmp(entries.items[k].token, tag.token) == 0;
            journal_list_free(&entries);
        }
        if (held)
            return n;
    }
    return NULL;
}

static int busy_with(const struct vm *vm, const char *name, struct err *e)
{
    return err_set(e, ERR_BUSY, "VM %s is being read by another run, whose snapshot is %s", vm->name,
                   name);
}

/*
 * Wait until neither a task nor another run is at work on the VM.  *newest gets the highest id of a
 * snapshot there.
 */
static int wait_until_free(struct host *h, struct journal *j, const struct vm *vm, uint64_t start,
                           uint64_t wait_ms, unsigned *newest, struct err *e)
{
    for (;;) {
        struct snapshot_tree t;
        struct snapshot_task task;
        const struct snapshot_node *other;
        bool known, open;
        int rc = 0;

        if (host_check_stop(h, e) != 0 || snapshot_tree_read(h, vm->vmid, &t, e) != 0)
            return -1;
        other = other_run(j, &t, NULL, 0, host_now(h), false);
        if (other != NULL)
            rc = busy_with(vm, other->name, e);
        *newest = 0;
        for (size_t i = 0; i < t.count; i++)
            *newest = t.items[i].id > *newest ? t.items[i].id : *newest;
        snapshot_tree_free(&t);
        if (rc == 0) {
            if (look_at_tasks(h, vm->vmid, "Snapshot", &task, &known, e) != 0)
                return -1;
            open = known && task.open;
            if (!open)
                return 0;
            err_set(e, ERR_BUSY, "the host is working on the snapshots of VM %s", vm->name);
        }
        if (host_clock_ms(h) - start >= wait_ms)
            return -1;
        host_pause(h, 2 * POLL_MS);
    }
}

/* ---- creation ---- */

static void describe(struct host *h, const struct snapshot_wish *wish, const char *install_id,
                     char *out, size_t room)
{
    char time[CLOCK_TEXT_BYTES];

    snprintf(out, room,
             "Made by vmferry (receiver %s) at %s for %.200s. It is removed when the %s ends.",
             install_id, clock_format(time, host_now(h)), wish->store == NULL ? "a run" : wish->store,
             wish->purpose == JOURNAL_RUN ? "run" : "next run for it");
    /* A path may hold anything, and a cut one half a character: hosts want plain text. */
    for (char *at = out; *at != '\0'; at++)
        if ((unsigned char)*at < 0x20 || (unsigned char)*at > 0x7e || *at == '"')
            *at = '?';
}

static int begin_entry(struct host *h, struct journal *j, const struct vm *vm,
                       const struct snapshot_wish *wish, struct journal_ticket **out, struct err *e)
{
    struct journal_entry *entry = calloc(1, sizeof *entry);
    int rc;

    if (entry == NULL)
        return err_sys(e, "taking a snapshot");
    entry->kind = JOURNAL_SNAPSHOT;
    entry->purpose = wish->purpose;
    entry->expires = wish->expires;
    entry->port = h->port;
    entry->vmid = vm->vmid;
    snprintf(entry->host_uuid, sizeof entry->host_uuid, "%s", h->uuid);
    snprintf(entry->address, sizeof entry->address, "%s", h->address);
    snprintf(entry->user, sizeof entry->user, "%s", h->user);
    snprintf(entry->vm_uuid, sizeof entry->vm_uuid, "%s", vm->instance_uuid);
    snprintf(entry->vm_name, sizeof entry->vm_name, "%s", vm->name);
    snprintf(entry->store, sizeof entry->store, "%s", wish->store == NULL ? "" : wish->store);
    if (strlen(vm->vmx) >= sizeof entry->vmx)
        rc = err_set(e, ERR_LIMIT, "the path of VM %s is too long", vm->name);
    else {
        snprintf(entry->vmx, sizeof entry->vmx, "%s", vm->vmx);
        rc = journal_begin(j, entry, host_now(h), out, e);
    }
    free(entry);
    return rc;
}

/*
 * How an attempt stands after the host was told to create.  FAILED: no task of it works, so another
 * attempt may follow; yet hosts have been seen to bring such a snapshot later, so the entry stays for
 * the reaper.  OPEN: it is still under way, or nothing is known of it.
 */
enum attempt { ATTEMPT_THERE, ATTEMPT_FAILED, ATTEMPT_OPEN };

/* Refused at once because another task is at work: this one will never come. */
static bool is_other_task(const struct err *e)
{
    return e->code == ERR_BUSY && e->os != EAGAIN;
}

/* Wait for our snapshot to appear.  refused: vim-cmd itself reported a failure, told in *e. */
static int wait_for_it(struct host *h, const struct snapshot *s, const char *token, uint64_t limit_ms,
                       bool refused, struct sighting *seen, enum attempt *out, struct err *e)
{
    uint64_t start = host_clock_ms(h), quiet = start;
    struct err reason = *e;

    for (;;) {
        struct snapshot_task task;
        uint64_t now;
        bool known;

        if (look(h, s->vmid, token, s->name, seen, e) != 0) {
            if (e->code == ERR_NETWORK)
                return -1;
        } else if (seen->count > 0) {
            *out = ATTEMPT_THERE;
            return 0;
        }
        if (look_at_tasks(h, s->vmid, "createSnapshot", &task, &known, e) != 0)
            return -1;
        now = host_clock_ms(h);
        if (task.open)
            quiet = now;
        if ((refused && is_other_task(&reason)) || (known && !task.open && (task.failed || refused))) {
            /* The task may have ended between the two looks: the tree decides. */
            if (look(h, s->vmid, token, s->name, seen, e) == 0 && seen->count > 0)
                continue;
            *out = ATTEMPT_FAILED;
            *e = reason;
            if (!refused)
                err_set(e, ERR_SOURCE, "%s", task.text[0] != '\0' ? task.text : "no reason given");
            return 0;
        }
        if (now - start >= limit_ms || now - quiet >= SILENT_MS) {
            /* A plain refusal on a host that does not tell its tasks is a failure like any other. */
            *out = refused && !task.open ? ATTEMPT_FAILED : ATTEMPT_OPEN;
            if (!refused)
                err_set(e, ERR_SOURCE, "it did not appear within %u s",
                        (unsigned)((now - start) / 1000));
            else
                *e = reason;
            return 0;
        }
        host_pause(h, POLL_MS);
    }
}

/* Tell the host to create, and find out what came of it. */
static int create_and_look(struct host *h, struct snapshot *s, const struct snapshot_wish *wish,
                           bool quiesce, struct sighting *seen, enum attempt *how, struct err *e)
{
    const struct journal_entry *entry = journal_entry_of(s->ticket);
    struct host_answer a;
    char description[512], id[16];
    bool refused;

    snprintf(id, sizeof id, "%u", s->vmid);
    describe(h, wish, entry->install_id, description, sizeof description);
    refused = host_vim_once(h, &a, TASK_COMMAND_MS, e, "vmsvc/snapshot.create", id, s->name,
                            description, "0", quiesce ? "1" : "0", NULL) != 0;
    host_answer_free(&a);
    if (refused && e->code == ERR_NETWORK)
        return -1; /* timed out or cut: the entry stays open */
    return wait_for_it(h, s, entry->token, wish->create_ms != 0 ? wish->create_ms : CREATE_MS,
                       refused, seen, how, e);
}

/*
 * One attempt with its own token.  0: s is there.  -1 with *again set: it failed for certain and left
 * nothing, so another attempt may follow.
 */
static int attempt(struct host *h, struct journal *j, const struct vm *vm,
                   const struct snapshot_wish *wish, bool quiesce, struct snapshot *s, bool *again,
                   struct err *e)
{
    struct snapshot_tag tag = { .purpose = wish->purpose };
    struct journal_entry *entry;
    struct sighting seen = { 0 };
    struct err ignored;
    enum attempt how;

    *again = false;
    if (begin_entry(h, j, vm, wish, &s->ticket, e) != 0)
        return -1;
    entry = journal_entry_of(s->ticket);
    memcpy(tag.install_id, entry->install_id, sizeof tag.install_id);
    memcpy(tag.token, entry->token, sizeof tag.token);
    snapshot_tag_write(&tag, s->name);
    s->made = entry->created;
    if (create_and_look(h, s, wish, quiesce, &seen, &how, e) != 0)
        return err_add(e, "taking a snapshot of VM %s (if it comes, a later run or `vmferry cleanup` "
                          "removes it)", vm->name);
    if (how == ATTEMPT_FAILED) {
        *again = true;
        if (is_other_task(e))
            journal_done(s->ticket, &ignored);
        else
            journal_leave(s->ticket);
        s->ticket = NULL;
        return err_add(e, "the host refused a snapshot of VM %s", vm->name);
    }
    if (how == ATTEMPT_OPEN)
        return err_add(e, "a snapshot of VM %s (if it comes late, a later run or `vmferry cleanup` "
                          "removes it)", vm->name);
    if (seen.count != 1 || !seen.exact)
        return err_set(e, ERR_SOURCE, "VM %s has %zu snapshots with our token %s; look at them",
                       vm->name, seen.count, entry->token);
    s->id = entry->snapshot_id = seen.id;
    s->quiesced = quiesce && seen.quiesced;
    return journal_step(s->ticket, JOURNAL_CREATED, host_now(h), e);
}

static bool is_about_quiescing(const char *text)
{
    return strcasestr(text, "quiesc") != NULL || strcasestr(text, "holding off I/O") != NULL ||
           strcasestr(text, "VMware Tools") != NULL || strcasestr(text, "ToolsUnavailable") != NULL;
}

/* Attempts until one succeeds, or nothing more may be tried. */
static int attempts(struct host *h, struct journal *j, const struct vm *vm,
                    const struct snapshot_wish *wish, uint64_t start, struct snapshot *s,
                    struct err *e)
{
    bool quiesce = vm->power == VM_ON && wish->quiesce != QUIESCE_NO;
    unsigned hostd_failures = 0;

    for (;;) {
        bool again;

        if (attempt(h, j, vm, wish, quiesce, s, &again, e) == 0)
            return 0;
        if (!again)
            return -1;
        if (e->code == ERR_BUSY && e->os == EAGAIN && ++hostd_failures < HOST_TRIES) {
            host_pause(h, SLOW_POLL_MS);
        } else if (is_other_task(e) && host_clock_ms(h) - start < wish->wait_ms) {
            if (wait_until_free(h, j, vm, start, wish->wait_ms, &s->newest_before, e) != 0 ||
                remember_disks(h, s, e) != 0)
                return -1;
            host_pause(h, 2 * POLL_MS);
        } else if (quiesce && e->code == ERR_SOURCE && wish->quiesce == QUIESCE_TRY) {
            snprintf(s->quiesce_problem, sizeof s->quiesce_problem, "%.239s", e->text);
            quiesce = false;
        } else {
            if (quiesce && e->code == ERR_SOURCE && is_about_quiescing(e->text))
                e->code = ERR_UNSUPPORTED;
            return -1;
        }
        if (host_check_stop(h, e) != 0)
            return -1;
    }
}

/*
 * Ours is there: is anybody else's?  An older run's means that we give way.  A younger one gives way
 * to us, which may take a moment.
 */
static int settle_with_others(struct host *h, struct journal *j, const struct vm *vm,
                              struct snapshot *s, struct err *e)
{
    const char *token = journal_entry_of(s->ticket)->token;
    uint64_t start = host_clock_ms(h);

    for (;;) {
        struct snapshot_tree t;
        struct sighting mine;
        const struct snapshot_node *before, *after;
        int rc = 0;

        if (snapshot_tree_read(h, s->vmid, &t, e) != 0)
            return -1;
        sight(&t, token, s->name, &mine);
        before = other_run(j, &t, token, s->id, mine.created, false);
        after = other_run(j, &t, token, s->id, mine.created, true);
        if (before != NULL)
            rc = busy_with(vm, before->name, e);
        else if (after != NULL && host_clock_ms(h) - start >= SETTLE_MS)
            rc = busy_with(vm, after->name, e);
        snapshot_tree_free(&t);
        if (rc != 0)
            return -1;
        if (after == NULL)
            return 0;
        host_pause(h, 2 * POLL_MS);
    }
}

int snapshot_create(struct host *h, struct journal *j, const struct vm *vm,
                    const struct snapshot_wish *wish, struct snapshot **out, struct err *e)
{
    uint64_t start = host_clock_ms(h);
    struct snapshot *s = calloc(1, sizeof *s);
    struct err removal;
    int rc = -1;

    if (s == NULL)
        return err_sys(e, "taking a snapshot");
    s->vmid = vm->vmid;
    if (wait_until_free(h, j, vm, start, wish->wait_ms, &s->newest_before, e) != 0 ||
        host_vm_same(h, vm, e) != 0 || remember_disks(h, s, e) != 0 ||
        attempts(h, j, vm, wish, start, s, e) != 0)
        goto out;
    if (s->quiesce_problem[0] != '\0')
        log_warning("VM %s could not be quiesced, so its disks are as after a power cut: %s",
                    vm->name, s->quiesce_problem);
    if (settle_with_others(h, j, vm, s, e) != 0) {
        if (e->code != ERR_NETWORK && snapshot_remove(h, s, &removal) != 0)
            log_warning("VM %s: our snapshot is left for now: %s", vm->name, removal.text);
        goto out;
    }
    *out = s;
    s = NULL;
    rc = 0;

out:
    snapshot_free(s);
    return rc;
}

int snapshot_reading(struct host *h, struct snapshot *s, struct err *e)
{
    return journal_step(s->ticket, JOURNAL_READING, host_now(h), e);
}

int snapshot_check(struct host *h, const struct snapshot *s, struct err *e)
{
    const struct journal_entry *entry = journal_entry_of(s->ticket);
    struct sighting seen;

    if (look(h, s->vmid, entry->token, s->name, &seen, e) != 0)
        return -1;
    if (seen.count != 1 || seen.id != s->id || !seen.exact)
        return err_set(e, ERR_SOURCE, "our snapshot %s is not in its place any more", s->name);
    return 0;
}

/* ---- removal ---- */

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
    struct sighting seen;

    *there = false;
    if (look(h, r->vmid, r->token, r->name, &seen, e) != 0)
        return -1;
    if (seen.count == 0)
        return 0;
    if (seen.count > 1)
        return err_set(e, ERR_REFUSED, "%zu snapshots carry the token %s; none was touched",
                       seen.count, r->token);
    if (!seen.exact || (r->id != 0 && seen.id != r->id))
        return err_set(e, ERR_REFUSED,
                       "the snapshot with the token %s has another name or id than ours; it was not "
                       "touched", r->token);
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

        if (look_at_tasks(h, r->vmid, "Snapshot.remove", &task, &known, e) != 0)
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
        if (remove_once(h, r, e) == 0) {
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
            return err_set(e, ERR_CLEANUP,
                           "VM %u needs its disks consolidated: the snapshot is gone from the list, "
                           "but its files remain; in the host's web client choose Snapshots, "
                           "Consolidate disks", vmid);
        host_pause(h, SLOW_POLL_MS);
    }
}

/* The VM's disks must be the files from before, unless somebody else's snapshot stands on them now. */
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
                strcmp(s->disks[i].file, now.items[k].file) != 0)
                rc = err_set(e, ERR_CLEANUP,
                             "disk %s of VM %u is %s after the removal of our snapshot, but was %s "
                             "before: a delta was left; in the host's web client choose Snapshots, "
                             "Consolidate disks",
                             s->disks[i].slot, s->vmid, now.items[k].file, s->disks[i].file);
    vm_disks_free(&now);
    return rc;
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
        same = strcmp(vm.vmx, entry->vmx) == 0 &&
               strcasecmp(vm.instance_uuid, entry->vm_uuid) == 0;
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
        log_warning("snapshot %s was removed by somebody else", s->name);
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

    *removed = false;
    memcpy(tag.install_id, entry->install_id, sizeof tag.install_id);
    memcpy(tag.token, entry->token, sizeof tag.token);
    snapshot_tag_write(&tag, name);
    r.name = name;
    if (vmid_of_entry(h, entry, vmid, &r.vmid, e) != 0 || count_links(h, r.vmid, &before, e) != 0 ||
        remove_it(h, &r, removed, e) != 0)
        return -1;
    /* An entry that had come so far has made files; without a snapshot they may still be there. */
    if ((*removed || entry->state == JOURNAL_REMOVING) && check_consolidated(h, r.vmid, e) != 0)
        return -1;
    if (!*removed)
        return 0;
    if (count_links(h, r.vmid, &after, e) != 0)
        return -1;
    return before > 0 && after >= before
               ? err_set(e, ERR_CLEANUP,
                         "our snapshot of VM %u is gone from the list, but its delta remains; in the "
                         "host's web client choose Snapshots, Consolidate disks", r.vmid)
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
