/* Reading snapshots and tasks of a VM; the contract is snapshot.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/host/host.h"
#include "receiver/host/snapshot.h"
#include "receiver/host/snapshot_look.h"
#include "receiver/host/vimdump.h"

enum { NAME_BYTES_MAX = 1024, TASKS_LOOKED_AT = 16 };

void snapshot_tree_free(struct snapshot_tree *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->items[i].name);
    free(t->items);
    *t = (struct snapshot_tree){ 0 };
}

/* name may be cut by nobody: one that is too long is refused. */
static struct snapshot_node *add_node(struct snapshot_tree *t, const char *name, size_t bytes,
                                      unsigned depth, struct err *e)
{
    struct snapshot_node *more;
    char *copy;

    if (t->count == SNAPSHOT_COUNT_MAX || bytes > NAME_BYTES_MAX) {
        err_set(e, ERR_LIMIT, "the VM has too many snapshots, or one with too long a name");
        return NULL;
    }
    copy = strndup(name, bytes);
    more = copy == NULL ? NULL : realloc(t->items, (t->count + 1) * sizeof *more);
    if (more == NULL) {
        err_sys(e, "reading snapshots");
        free(copy);
        return NULL;
    }
    t->items = more;
    more += t->count++;
    *more = (struct snapshot_node){ .name = copy, .depth = depth };
    return more;
}

/* One SnapshotTree object. */
static int add_info_node(const struct vimnode *n, unsigned depth, struct snapshot_tree *out,
                         struct err *e)
{
    const char *name = vimnode_text(n, "name");
    const char *created = vimnode_text(n, "createTime");
    const struct vimnode *children = vimnode_at(n, "childSnapshotList");
    struct snapshot_node *node;
    struct err ignored;
    uint64_t id;

    if (n->kind != VIMNODE_OBJECT || name == NULL || !vimnode_u64(n, "id", &id) || id > UINT32_MAX)
        return err_set(e, ERR_CORRUPT, "a snapshot in the host's answer has no name or id");
    node = add_node(out, name, strlen(name), depth, e);
    if (node == NULL)
        return -1;
    node->id = (unsigned)id;
    vimnode_bool(n, "quiesced", &node->quiesced);
    if (created != NULL && clock_parse(&node->created, created, &ignored) != 0)
        node->created = 0;
    if (children != NULL && children->kind == VIMNODE_ARRAY)
        node->children = children->count;
    return 0;
}

/* Preorder, with a stack of our own: the dump bounds the depth. */
static int walk_info(const struct vimnode *roots, struct snapshot_tree *out, struct err *e)
{
    const struct vimnode *stack[VIMDUMP_DEPTH_MAX];
    size_t depth = 0;

    stack[depth++] = roots->first;
    while (depth > 0) {
        const struct vimnode *n = stack[depth - 1];
        const struct vimnode *children;

        if (n == NULL) {
            depth--;
            continue;
        }
        stack[depth - 1] = n->next;
        if (add_info_node(n, (unsigned)depth - 1, out, e) != 0)
            return -1;
        children = vimnode_at(n, "childSnapshotList");
        if (children != NULL && children->kind == VIMNODE_ARRAY && children->first != NULL) {
            if (depth == VIMDUMP_DEPTH_MAX)
                return err_set(e, ERR_LIMIT, "the VM's snapshots are nested too deep");
            stack[depth++] = children->first;
        }
    }
    return 0;
}

/* A number that stands alone; one too large to be an id must not be taken for another. */
static bool read_id(const char *text, unsigned *out)
{
    enum { ID_DIGITS_MAX = 9 };
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > ID_DIGITS_MAX || strchr(" \r\n", text[digits]) == NULL)
        return false;
    *out = (unsigned)strtoul(text, NULL, 10);
    return true;
}

/* The id at the end of 'vim.vm.Snapshot:3-snapshot-1'; 0 for anything else. */
static unsigned id_of_reference(const char *ref)
{
    const char *at = ref == NULL ? NULL : strrchr(ref, '-');
    unsigned id = 0;

    return at != NULL && strncmp(ref, "vim.vm.Snapshot:", 16) == 0 && read_id(at + 1, &id) ? id : 0;
}

int snapshot_parse_info(const char *text, size_t bytes, struct snapshot_tree *out, struct err *e)
{
    struct vimdump *d = NULL;
    static const char none[] = "\n(vim.vm.SnapshotInfo) null";
    const struct vimnode *roots;
    int rc = -1;

    *out = (struct snapshot_tree){ 0 };
    if (vimdump_read(&d, text, bytes, e) != 0) {
        /* documented, not seen: how a VM without snapshots prints. */
        if (e->code == ERR_FORMAT && memmem(text, bytes, none, sizeof none - 1) != NULL)
            return 0;
        return -1;
    }
    if (vimdump_root(d)->kind != VIMNODE_OBJECT) {
        err_set(e, ERR_CORRUPT, "the host's answer is no list of snapshots");
        goto out;
    }
    out->current = id_of_reference(vimnode_text(vimdump_root(d), "currentSnapshot"));
    roots = vimnode_at(vimdump_root(d), "rootSnapshotList");
    if (roots != NULL && roots->kind == VIMNODE_ARRAY && walk_info(roots, out, e) != 0)
        goto out;
    rc = 0;

out:
    if (rc != 0)
        snapshot_tree_free(out);
    vimdump_free(d);
    return rc;
}

/* The value behind "--Snapshot KEY   : ", or NULL when the line is none of that key. */
static const char *get_value(const char *line, const char *key, size_t *dashes)
{
    *dashes = strspn(line, "-");
    line += *dashes;
    if (*dashes == 0 || strncmp(line, key, strlen(key)) != 0)
        return NULL;
    line += strlen(key);
    line += strspn(line, " ");
    return line[0] == ':' ? line + 1 + (line[1] == ' ') : NULL;
}

static size_t line_bytes(const char *line)
{
    return strcspn(line, "\r\n");
}

static const char *line_next(const char *line)
{
    const char *newline = strchr(line, '\n');

    return newline == NULL ? "" : newline + 1;
}

/* "2/23/2015 18:12:50", UTC. */
static int64_t read_created(const char *text)
{
    struct tm t = { 0 };

    if (sscanf(text, "%2d/%2d/%4d %2d:%2d:%2d", &t.tm_mon, &t.tm_mday, &t.tm_year, &t.tm_hour,
               &t.tm_min, &t.tm_sec) != 6)
        return 0;
    t.tm_mon -= 1;
    t.tm_year -= 1900;
    return (int64_t)timegm(&t);
}

int snapshot_parse_get(const char *text, struct snapshot_tree *out, struct err *e)
{
    const char *line = text;
    size_t dashes, id_dashes;

    *out = (struct snapshot_tree){ 0 };
    if (strncmp(line, "Get Snapshot:", 13) != 0)
        return err_set(e, ERR_CORRUPT, "the host's answer is no list of snapshots");
    for (line = line_next(line); *line != '\0'; line = line_next(line)) {
        const char *name = get_value(line, "Snapshot Name", &dashes);
        const char *created = get_value(line, "Snapshot Created On", &id_dashes);
        const char *id;
        struct snapshot_node *node;

        if (created != NULL && out->count > 0 && out->items[out->count - 1].created == 0)
            out->items[out->count - 1].created = read_created(created);
        if (name == NULL)
            continue;
        id = get_value(line_next(line), "Snapshot Id", &id_dashes);
        if (id == NULL || id_dashes != dashes || dashes < 2) {
            err_set(e, ERR_CORRUPT, "a snapshot in the host's answer has no id");
            goto fail;
        }
        /* Below a line that could not be read: whose child is it? */
        if (dashes / 2 - 1 > (out->count > 0 ? out->items[out->count - 1].depth + 1 : 0)) {
            err_set(e, ERR_CORRUPT, "a snapshot in the host's answer has no parent");
            goto fail;
        }
        node = add_node(out, name, line_bytes(name), (unsigned)(dashes / 2) - 1, e);
        if (node == NULL)
            goto fail;
        if (!read_id(id, &node->id)) {
            err_set(e, ERR_CORRUPT, "a snapshot in the host's answer has no id");
            goto fail;
        }
        for (size_t i = out->count - 1; i-- > 0;)
            if (out->items[i].depth + 1 == node->depth) {
                out->items[i].children++;
                break;
            }
    }
    return 0;

fail:
    snapshot_tree_free(out);
    return -1;
}

int snapshot_tree_read(struct host *h, unsigned vmid, struct snapshot_tree *out, struct err *e)
{
    struct host_answer a;
    struct err first;
    char id[16];
    int rc;

    *out = (struct snapshot_tree){ 0 };
    snprintf(id, sizeof id, "%u", vmid);
    rc = host_vim(h, &a, HOST_COMMAND_MS, e, "vmsvc/get.snapshotinfo", id, NULL);
    if (rc == 0)
        rc = snapshot_parse_info(a.out, a.out_bytes, out, e);
    host_answer_free(&a);
    if (rc == 0 || (e->code != ERR_CORRUPT && e->code != ERR_FORMAT && e->code != ERR_SOURCE))
        return rc == 0 ? 0 : err_add(e, "snapshots of VM %u", vmid);
    first = *e;
    rc = host_vim(h, &a, HOST_COMMAND_MS, e, "vmsvc/snapshot.get", id, NULL);
    if (rc == 0)
        rc = snapshot_parse_get(a.out, out, e);
    host_answer_free(&a);
    if (rc == 0)
        return 0;
    host_unreadable(e);
    return err_add(e, "snapshots of VM %u: %.200s; and then", vmid, first.text);
}

/* Takes digits and moves on; false when there are not as many. */
static bool take_hex(const char **text, char *out, size_t digits)
{
    if (strspn(*text, "0123456789abcdef") < digits)
        return false;
    memcpy(out, *text, digits);
    out[digits] = '\0';
    *text += digits;
    return true;
}

bool snapshot_tag_read(const char *name, struct snapshot_tag *out)
{
    struct snapshot_tag tag;
    const char *at = name;

    if (strncmp(at, "vmferry-", 8) != 0)
        return false;
    at += 8;
    if (!take_hex(&at, tag.install_id, JOURNAL_INSTALL_ROOM - 1))
        return false;
    if (strncmp(at, "-run-", 5) == 0) {
        tag.purpose = JOURNAL_RUN;
        at += 5;
    } else if (strncmp(at, "-keep-", 6) == 0) {
        tag.purpose = JOURNAL_KEEP;
        at += 6;
    } else {
        return false;
    }
    if (!take_hex(&at, tag.token, JOURNAL_TOKEN_ROOM - 1) || *at != '\0')
        return false;
    *out = tag;
    return true;
}

void snapshot_tag_write(const struct snapshot_tag *tag, char out[SNAPSHOT_NAME_ROOM])
{
    snprintf(out, SNAPSHOT_NAME_ROOM, "vmferry-%s-%s-%s", tag->install_id,
             journal_purpose_name(tag->purpose), tag->token);
}

/* "haTask-512-vim.VirtualMachine.createSnapshot-2826" of a reference; NULL when it is none of ours.
 */
static const char *snapshot_task_of(const char *ref)
{
    static const char *const words[] = { "napshot", "consolidateDisks" };

    if (ref == NULL || strncmp(ref, "vim.Task:", 9) != 0 || strlen(ref) > 200)
        return NULL;
    ref += 9;
    for (size_t i = 0; i < ARRAY_COUNT(words); i++)
        if (strstr(ref, words[i]) != NULL)
            return ref;
    return NULL;
}

/* The names of the newest snapshot tasks, newest first. */
static int list_tasks(struct host *h, unsigned vmid, char (*names)[200], size_t *count,
                      struct err *e)
{
    struct host_answer a;
    struct vimdump *d = NULL;
    const struct vimnode *n;
    char id[16];
    int rc = -1;

    *count = 0;
    snprintf(id, sizeof id, "%u", vmid);
    if (host_vim(h, &a, HOST_COMMAND_MS, e, "vmsvc/get.tasklist", id, NULL) != 0 ||
        vimdump_read(&d, a.out, a.out_bytes, e) != 0)
        goto out;
    if (vimdump_root(d)->kind != VIMNODE_ARRAY) {
        err_set(e, ERR_CORRUPT, "the host's answer is no list of tasks");
        goto out;
    }
    for (n = vimdump_root(d)->first; n != NULL; n = n->next) {
        const char *task = snapshot_task_of(n->text);

        if (task == NULL)
            continue;
        /* Newest last: keep the last ones, the newest in front. */
        if (*count == TASKS_LOOKED_AT)
            (*count)--;
        memmove(names + 1, names, *count * sizeof *names);
        snprintf(names[0], sizeof names[0], "%s", task);
        (*count)++;
    }
    rc = 0;

out:
    host_answer_free(&a);
    vimdump_free(d);
    return rc;
}

int snapshot_task_look(struct host *h, unsigned vmid, const char *operation,
                       struct snapshot_task *out, struct err *e)
{
    char names[TASKS_LOOKED_AT][200];
    size_t count;

    *out = (struct snapshot_task){ 0 };
    if (list_tasks(h, vmid, names, &count, e) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct host_answer a;
        struct vimdump *d = NULL;
        const char *state, *text;

        if (host_vim(h, &a, HOST_COMMAND_MS, e, "vimsvc/task_info", names[i], NULL) != 0) {
            host_answer_free(&a);
            if (e->code == ERR_NOT_FOUND)
                continue; /* old ones vanish after about ten minutes */
            return -1;
        }
        if (vimdump_read(&d, a.out, a.out_bytes, e) != 0) {
            host_answer_free(&a);
            return -1;
        }
        state = vimnode_text(vimdump_root(d), "state");
        if (state != NULL && (strcmp(state, "queued") == 0 || strcmp(state, "running") == 0)) {
            out->open = true;
            vimnode_u64(vimdump_root(d), "progress", &out->progress);
        } else if (state != NULL && strcmp(state, "error") == 0 && !out->failed && !out->open &&
                   i == 0 && strstr(names[i], operation) != NULL) {
            text = vimnode_text(vimdump_root(d), "error.msg");
            out->failed = true;
            snprintf(out->text, sizeof out->text, "%.*s",
                     text == NULL ? 0 : (int)strcspn(text, "\r\n"), text == NULL ? "" : text);
        }
        vimdump_free(d);
        host_answer_free(&a);
        if (out->open)
            break;
    }
    return 0;
}

bool snapshot_is_below(const struct snapshot_tree *t, unsigned lower, unsigned upper)
{
    size_t at = 0;
    unsigned depth;

    while (at < t->count && t->items[at].id != upper)
        at++;
    if (at == t->count)
        return false;
    depth = t->items[at].depth + 1;
    /* Backwards, the next one that is less deep is the parent. */
    for (size_t i = at + 1; i-- > 0;)
        if (t->items[i].depth < depth) {
            depth = t->items[i].depth;
            if (t->items[i].id == lower)
                return true;
        }
    return false;
}

void snapshot_sight(const struct snapshot_tree *t, const char *token, const char *name,
                    struct snapshot_sighting *out)
{
    *out = (struct snapshot_sighting){ 0 };
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

int snapshot_look(struct host *h, unsigned vmid, const char *token, const char *name,
                  struct snapshot_sighting *out, struct err *e)
{
    struct snapshot_tree t;

    if (snapshot_tree_read(h, vmid, &t, e) != 0)
        return -1;
    snapshot_sight(&t, token, name, out);
    snapshot_tree_free(&t);
    return 0;
}

/* Connection gone or asked to end: nothing more can be learnt now. */
static bool is_final(const struct err *e)
{
    return e->code == ERR_NETWORK || e->code == ERR_STOPPED;
}

int snapshot_look_at_tasks(struct host *h, unsigned vmid, const char *operation,
                           struct snapshot_task *out, bool *known, struct err *e)
{
    *known = snapshot_task_look(h, vmid, operation, out, e) == 0;
    if (!*known && is_final(e))
        return -1;
    if (!*known)
        *out = (struct snapshot_task){ 0 };
    return 0;
}
