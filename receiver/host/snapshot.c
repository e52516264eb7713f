#include "receiver/host/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/base/failpoint.h"
#include "receiver/base/log.h"
#include "receiver/host/host.h"
#include "receiver/host/inventory.h"
#include "receiver/host/snapshot_look.h"

#define CREATE_MS UINT64_C(1200000)
/* How long a younger run's snapshot may take to give way to ours. */
#define SETTLE_MS UINT64_C(60000)

enum { FOREIGN_RUN_SECONDS = 24 * 3600 };

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

void snapshot_moved(struct snapshot *s)
{
    forget_disks(s);
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
        s->disks[i].parents = disks.items[i].parent_count;
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

/* ---- other receivers ---- */

/*
 * Is this snapshot at work for a run of ours that lives?  A kept one is while a process holds its
 * entry: it is being made, read through, or removed.
 */
static bool is_held(struct journal *j, const char *token)
{
    struct journal_list entries;
    struct err ignored;
    bool held = false;

    if (journal_list(j, &entries, &ignored) != 0)
        return false;
    for (size_t k = 0; k < entries.count; k++)
        held |= entries.locked[k] && strcmp(entries.items[k].token, token) == 0;
    journal_list_free(&entries);
    return held;
}

/* Those that are not another run's: ours, and a kept one that we hold. */
struct own_tokens {
    const char *made, *held; /* NULL where there is none */
};

static bool is_own(const struct own_tokens *own, const char *token)
{
    return (own->made != NULL && strcmp(own->made, token) == 0) ||
           (own->held != NULL && strcmp(own->held, token) == 0);
}

/*
 * The first snapshot of another run in the tree, or NULL.  younger: look at those made after ours
 * (id mine), else at those before it.  mine is 0 while ours does not exist.  Another receiver's
 * kept ones are like the user's.
 */
static const struct snapshot_node *other_run(struct journal *j, const struct snapshot_tree *t,
                                             const struct own_tokens *own, unsigned mine,
                                             int64_t now, bool after)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct snapshot_node *n = &t->items[i];
        struct snapshot_tag tag;
        bool ours;

        if (!snapshot_tag_read(n->name, &tag) || is_own(own, tag.token) ||
            (mine != 0 && (n->id > mine) != after))
            continue;
        ours = strcmp(tag.install_id, journal_install_id(j)) == 0;
        if (tag.purpose != JOURNAL_RUN && !ours)
            continue;
        if (tag.purpose == JOURNAL_RUN && n->created != 0 && now != 0 &&
            now - n->created >= FOREIGN_RUN_SECONDS)
            continue;
        /* Of our own installation: at work only if a process holds its entry. */
        if (!ours || is_held(j, tag.token))
            return n;
    }
    return NULL;
}

static int busy_with(const struct vm *vm, const char *name, struct err *e)
{
    return err_set(e, ERR_BUSY, "VM %s is being read by another run, whose snapshot is %s",
                   vm->name, name);
}

/*
 * Wait until neither a task nor another run is at work on the VM.  *newest gets the highest id of a
 * snapshot there.
 */
static int wait_until_free(struct host *h, struct journal *j, const struct vm *vm, uint64_t start,
                           uint64_t wait_ms, const char *held, unsigned *newest, struct err *e)
{
    const struct own_tokens own = { .held = held };

    for (;;) {
        struct snapshot_tree t;
        struct snapshot_task task;
        const struct snapshot_node *other;
        bool known, open;
        int rc = 0;

        if (host_check_stop(h, e) != 0 || snapshot_tree_read(h, vm->vmid, &t, e) != 0)
            return -1;
        other = other_run(j, &t, &own, 0, host_now(h), false);
        if (other != NULL)
            rc = busy_with(vm, other->name, e);
        *newest = 0;
        for (size_t i = 0; i < t.count; i++)
            *newest = t.items[i].id > *newest ? t.items[i].id : *newest;
        snapshot_tree_free(&t);
        if (rc == 0) {
            if (snapshot_look_at_tasks(h, vm->vmid, "Snapshot", &task, &known, e) != 0)
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

int snapshot_wait_turn(struct host *h, struct journal *j, const struct vm *vm, uint64_t wait_ms,
                       const char *held, struct err *e)
{
    unsigned newest;

    return wait_until_free(h, j, vm, host_clock_ms(h), wait_ms, held, &newest, e);
}

/* ---- creation ---- */

static void describe(struct host *h, const struct snapshot_wish *wish, const char *install_id,
                     char *out, size_t room)
{
    char time[CLOCK_TEXT_BYTES];

    snprintf(out, room,
             "Made by vmferry (receiver %s) at %s for %.200s. It is removed when the %s ends.",
             install_id, clock_format(time, host_now(h)),
             wish->store == NULL ? "a run" : wish->store,
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
 * attempt may follow; yet hosts have been seen to bring such a snapshot later, so the entry stays
 * for the reaper.  OPEN: it is still under way, or nothing is known of it.
 */
enum attempt { ATTEMPT_THERE, ATTEMPT_FAILED, ATTEMPT_OPEN };

/* Refused at once because another task is at work: this one will never come. */
static bool is_other_task(const struct err *e)
{
    return e->code == ERR_BUSY && e->os != EAGAIN;
}

/* Wait for our snapshot to appear.  refused: vim-cmd itself reported a failure, told in *e. */
static int wait_for_it(struct host *h, const struct snapshot *s, const char *token,
                       uint64_t limit_ms, bool refused, struct snapshot_sighting *seen,
                       enum attempt *out, struct err *e)
{
    uint64_t start = host_clock_ms(h), quiet = start;
    struct err reason = *e;

    for (;;) {
        struct snapshot_task task;
        uint64_t now;
        bool known;

        if (snapshot_look(h, s->vmid, token, s->name, seen, e) != 0) {
            if (e->code == ERR_NETWORK)
                return -1;
        } else if (seen->count > 0) {
            *out = ATTEMPT_THERE;
            return 0;
        }
        if (snapshot_look_at_tasks(h, s->vmid, "createSnapshot", &task, &known, e) != 0)
            return -1;
        now = host_clock_ms(h);
        if (task.open)
            quiet = now;
        if ((refused && is_other_task(&reason)) ||
            (known && !task.open && (task.failed || refused))) {
            /* The task may have ended between the two looks: the tree decides. */
            if (snapshot_look(h, s->vmid, token, s->name, seen, e) == 0 && seen->count > 0)
                continue;
            *out = ATTEMPT_FAILED;
            *e = reason;
            if (!refused)
                err_set(e, ERR_SOURCE, "%s", task.text[0] != '\0' ? task.text : "no reason given");
            return 0;
        }
        if (now - start >= limit_ms || now - quiet >= SILENT_MS) {
            /* A plain refusal on a host that does not tell its tasks is a failure like any other.
             */
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
                           bool quiesce, struct snapshot_sighting *seen, enum attempt *how,
                           struct err *e)
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
 * One attempt with its own token.  0: s is there.  -1 with *again set: it failed for certain and
 * left nothing, so another attempt may follow.
 */
static int attempt(struct host *h, struct journal *j, const struct vm *vm,
                   const struct snapshot_wish *wish, bool quiesce, struct snapshot *s, bool *again,
                   struct err *e)
{
    struct snapshot_tag tag = { .purpose = wish->purpose };
    struct journal_entry *entry;
    struct snapshot_sighting seen = { 0 };
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
    if (failpoint("snapshot.create", e) != 0 ||
        create_and_look(h, s, wish, quiesce, &seen, &how, e) != 0 ||
        failpoint("snapshot.asked", e) != 0)
        return err_add(e,
                       "taking a snapshot of VM %s (if it comes, a later run or `vmferry cleanup` "
                       "removes it)",
                       vm->name);
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
        return err_add(e,
                       "a snapshot of VM %s (if it comes late, a later run or `vmferry cleanup` "
                       "removes it)",
                       vm->name);
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
            if (wait_until_free(h, j, vm, start, wish->wait_ms, wish->held, &s->newest_before, e) !=
                    0 ||
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
 * Ours is there: is anybody else's?  An older run's means that we give way.  A younger one gives
 * way to us, which may take a moment.
 */
static int settle_with_others(struct host *h, struct journal *j, const struct vm *vm,
                              const char *held, struct snapshot *s, struct err *e)
{
    const char *token = journal_entry_of(s->ticket)->token;
    const struct own_tokens own = { .made = token, .held = held };
    uint64_t start = host_clock_ms(h);

    for (;;) {
        struct snapshot_tree t;
        struct snapshot_sighting mine;
        const struct snapshot_node *before, *after;
        int rc = 0;

        if (snapshot_tree_read(h, s->vmid, &t, e) != 0)
            return -1;
        snapshot_sight(&t, token, s->name, &mine);
        before = other_run(j, &t, &own, s->id, mine.created, false);
        after = other_run(j, &t, &own, s->id, mine.created, true);
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
    if (wait_until_free(h, j, vm, start, wish->wait_ms, wish->held, &s->newest_before, e) != 0 ||
        host_vm_same(h, vm, e) != 0 || remember_disks(h, s, e) != 0 ||
        attempts(h, j, vm, wish, start, s, e) != 0)
        goto out;
    if (s->quiesce_problem[0] != '\0')
        log_warning("VM %s could not be quiesced, so its disks are as after a power cut: %s",
                    vm->name, s->quiesce_problem);
    if (settle_with_others(h, j, vm, wish->held, s, e) != 0) {
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
    struct snapshot_sighting seen;

    if (snapshot_look(h, s->vmid, entry->token, s->name, &seen, e) != 0)
        return -1;
    if (seen.count != 1 || seen.id != s->id || !seen.exact)
        return err_set(e, ERR_SOURCE, "our snapshot %s is not in its place any more", s->name);
    return 0;
}
