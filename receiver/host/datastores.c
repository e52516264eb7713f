#include "receiver/host/datastores.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/base/utf8.h"
#include "receiver/host/host.h"
#include "receiver/host/vimdump.h"

#define VOLUMES "/vmfs/volumes/"

enum { COLUMN_COUNT = 7, LINE_BYTES_MAX = 4096, NAME_BYTES_MAX = 255 };

void datastore_list_free(struct datastore_list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->items[i].name);
        free(l->items[i].uuid);
        free(l->items[i].type);
        free(l->items[i].path);
    }
    free(l->items);
    *l = (struct datastore_list){ 0 };
}

static bool holds_files(const char *type)
{
    return (strncmp(type, "VMFS", 4) == 0 && strcmp(type, "VMFSOS") != 0 &&
            strcmp(type, "VMFS-L") != 0) ||
           strcmp(type, "NFS") == 0 || strcmp(type, "NFS41") == 0;
}

/* A part of a path that commands may get: one component, no way up. */
static bool component_is_plain(const char *text, size_t bytes)
{
    return bytes > 0 && !(bytes == 1 && text[0] == '.') &&
           !(bytes == 2 && text[0] == '.' && text[1] == '.');
}

static int add(struct datastore_list *l, const struct datastore *d, struct err *e)
{
    struct datastore *more;

    if (l->count == DATASTORE_COUNT_MAX)
        return err_set(e, ERR_LIMIT, "the host has more than %d datastores", DATASTORE_COUNT_MAX);
    if (!component_is_plain(d->uuid, strlen(d->uuid)) || strchr(d->uuid, '/') != NULL ||
        strlen(d->name) > NAME_BYTES_MAX || strlen(d->uuid) > NAME_BYTES_MAX)
        return err_set(e, ERR_CORRUPT, "a datastore has no usable name or UUID");
    more = realloc(l->items, (l->count + 1) * sizeof *more);
    if (more == NULL)
        return err_sys(e, "listing datastores");
    l->items = more;
    more += l->count++;
    *more = (struct datastore){ .size_bytes = d->size_bytes,
                                .free_bytes = d->free_bytes,
                                .name = strdup(d->name),
                                .uuid = strdup(d->uuid),
                                .type = strdup(d->type),
                                .files = holds_files(d->type) };
    if (asprintf(&more->path, VOLUMES "%s", d->uuid) < 0)
        more->path = NULL;
    if (more->name == NULL || more->uuid == NULL || more->type == NULL || more->path == NULL)
        return err_set(e, ERR_SYSTEM, "no memory for the datastores");
    return 0;
}

static bool read_u64(const char *text, uint64_t *out)
{
    uint64_t value = 0;

    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || !checked_mul(value, 10, &value) ||
            !checked_add(value, (uint64_t)(*text - '0'), &value))
            return false;
    }
    *out = value;
    return true;
}

/* Columns of a table of esxcli, in characters, as the line of dashes tells. */
struct columns {
    size_t start[COLUMN_COUNT];
    size_t width[COLUMN_COUNT];
};

static bool read_dashes(const char *line, size_t bytes, struct columns *c)
{
    size_t at = 0, n = 0;

    while (at < bytes) {
        size_t dashes = strspn(line + at, "-");

        if (dashes == 0 || n == COLUMN_COUNT)
            return false;
        c->start[n] = at;
        c->width[n++] = dashes;
        at += dashes;
        at += strspn(line + at, " ");
    }
    return n == COLUMN_COUNT;
}

/* Byte offset of the character with this index; the line's length when there are not as many. */
static size_t byte_of(const char *line, size_t bytes, size_t index)
{
    size_t at = 0;
    uint32_t c;

    for (; index > 0 && at < bytes; index--) {
        size_t n = utf8_decode(line + at, bytes - at, &c);

        at += n == 0 ? 1 : n;
    }
    return at;
}

static void cut_cell(const char *line, size_t bytes, const struct columns *c, size_t column,
                     char *out, size_t room)
{
    size_t start = byte_of(line, bytes, c->start[column]);
    size_t end = byte_of(line, bytes, c->start[column] + c->width[column]);

    while (start < end && line[start] == ' ')
        start++;
    while (end > start && (line[end - 1] == ' ' || line[end - 1] == '\r'))
        end--;
    snprintf(out, room, "%.*s", (int)(end - start), line + start);
}

/* One row.  Rows of what is not mounted are left out; a row that does not fit is an error. */
static int read_row(const char *line, size_t bytes, const struct columns *c,
                    struct datastore_list *out, struct err *e)
{
    char cell[COLUMN_COUNT][300];
    struct datastore d;

    if (bytes > LINE_BYTES_MAX)
        return err_set(e, ERR_CORRUPT, "a row of the datastore table is too long");
    for (size_t i = 0; i < COLUMN_COUNT; i++)
        cut_cell(line, bytes, c, i, cell[i], sizeof cell[i]);
    if (strcmp(cell[3], "false") == 0)
        return 0;
    d = (struct datastore){ .name = cell[1], .uuid = cell[2], .type = cell[4] };
    if (strcmp(cell[3], "true") != 0 || !read_u64(cell[5], &d.size_bytes) ||
        !read_u64(cell[6], &d.free_bytes) || d.free_bytes > d.size_bytes)
        return err_set(e, ERR_CORRUPT, "a row of the datastore table does not fit its head");
    return add(out, &d, e);
}

int datastores_read_esxcli(const char *text, struct datastore_list *out, struct err *e)
{
    struct columns c;
    unsigned state = 0; /* 0: before the header, 1: the dashes follow, 2: rows */

    *out = (struct datastore_list){ 0 };
    while (text != NULL && *text != '\0') {
        const char *newline = strchr(text, '\n');
        size_t bytes = newline == NULL ? strlen(text) : (size_t)(newline - text);

        while (bytes > 0 && (text[bytes - 1] == '\r' || text[bytes - 1] == ' '))
            bytes--;
        if (state == 0) {
            state = strncmp(text, "Mount Point", 11) == 0;
        } else if (state == 1) {
            if (!read_dashes(text, bytes, &c))
                return err_set(e, ERR_CORRUPT, "the datastore table has other columns than known");
            state = 2;
        } else if (bytes > 0 && read_row(text, bytes, &c, out, e) != 0) {
            datastore_list_free(out);
            return -1;
        }
        text = newline == NULL ? NULL : newline + 1;
    }
    return state == 2 ? 0 : err_set(e, ERR_CORRUPT, "the datastore table has no head");
}

/* The UUID in "/vmfs/volumes/UUID" or "ds:///vmfs/volumes/UUID/". */
static bool uuid_of_url(const char *url, char *out, size_t room)
{
    const char *at = url == NULL ? NULL : strstr(url, VOLUMES);
    size_t bytes;

    if (at == NULL)
        return false;
    at += sizeof VOLUMES - 1;
    bytes = strcspn(at, "/");
    if (bytes == 0 || bytes >= room || (at[bytes] == '/' && at[bytes + 1] != '\0'))
        return false;
    memcpy(out, at, bytes);
    out[bytes] = '\0';
    return true;
}

static int read_summary_item(const struct vimnode *n, struct datastore_list *out, struct err *e)
{
    char uuid[200], name[NAME_BYTES_MAX + 1], type[32];
    const char *text = vimnode_text(n, "name");
    struct datastore d = { .name = name, .uuid = uuid, .type = type };
    bool accessible = true;

    vimnode_bool(n, "accessible", &accessible);
    if (!accessible)
        return 0;
    if (text == NULL || strlen(text) > NAME_BYTES_MAX || vimnode_text(n, "type") == NULL ||
        !uuid_of_url(vimnode_text(n, "url"), uuid, sizeof uuid) ||
        !vimnode_u64(n, "capacity", &d.size_bytes) || !vimnode_u64(n, "freeSpace", &d.free_bytes) ||
        d.free_bytes > d.size_bytes)
        return err_set(e, ERR_CORRUPT, "a datastore's summary is not whole");
    snprintf(name, sizeof name, "%s", text);
    snprintf(type, sizeof type, "%.31s", vimnode_text(n, "type"));
    return add(out, &d, e);
}

int datastores_read_summary(const char *text, size_t bytes, struct datastore_list *out,
                            struct err *e)
{
    struct vimdump *d;
    const struct vimnode *root;
    int rc = 0;

    *out = (struct datastore_list){ 0 };
    if (vimdump_read(&d, text, bytes, e) != 0)
        return -1;
    root = vimdump_root(d);
    if (root->kind != VIMNODE_ARRAY)
        rc = err_set(e, ERR_CORRUPT, "the host's answer is no list of datastores");
    for (const struct vimnode *n = rc == 0 ? root->first : NULL; n != NULL && rc == 0; n = n->next)
        rc = read_summary_item(n, out, e);
    if (rc != 0)
        datastore_list_free(out);
    vimdump_free(d);
    return rc;
}

int host_datastores(struct host *h, struct datastore_list *out, struct err *e)
{
    struct host_answer a;
    int rc;

    for (unsigned i = 0; i < HOST_TRIES; i++) {
        if (i > 0)
            host_pause(h, 500);
        if (host_call(h, &a, HOST_COMMAND_MS, e, "/bin/esxcli", "storage", "filesystem", "list",
                      NULL) != 0)
            return -1;
        /* The output is cut short now and then; a last line without its end shows that. */
        rc = -1;
        if (a.status == 0 && a.out_bytes > 0 && a.out[a.out_bytes - 1] == '\n')
            rc = datastores_read_esxcli(a.out, out, e);
        host_answer_free(&a);
        if (rc == 0)
            return 0;
    }
    rc = host_vim(h, &a, HOST_COMMAND_MS, e, "hostsvc/datastore/listsummary", NULL);
    if (rc == 0)
        rc = datastores_read_summary(a.out, a.out_bytes, out, e);
    host_answer_free(&a);
    if (rc == 0)
        return 0;
    host_unreadable(e);
    return err_add(e, "listing the datastores");
}

static const struct datastore *find(const struct datastore_list *l, const char *name, size_t bytes,
                                    bool uuid_too)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct datastore *d = &l->items[i];

        if ((strlen(d->name) == bytes && memcmp(d->name, name, bytes) == 0 && bytes > 0) ||
            (uuid_too && strlen(d->uuid) == bytes && memcmp(d->uuid, name, bytes) == 0))
            return d;
    }
    return NULL;
}

/* Split a path of either form into its datastore and the rest.  False: neither form. */
static bool split(const struct datastore_list *l, const char *path, const struct datastore **store,
                  const char **rest)
{
    if (path[0] == '[') {
        /* The name may hold a bracket itself: the longest known one counts. */
        *store = NULL;
        for (const char *close = strchr(path, ']'); close != NULL; close = strchr(close + 1, ']')) {
            const struct datastore *d = find(l, path + 1, (size_t)(close - path) - 1, false);

            if (d != NULL && (close[1] == ' ' || close[1] == '\0')) {
                *store = d;
                *rest = close + 1 + (close[1] == ' ');
            }
        }
        return strchr(path, ']') != NULL;
    }
    if (strncmp(path, VOLUMES, sizeof VOLUMES - 1) == 0) {
        const char *name = path + sizeof VOLUMES - 1;
        size_t bytes = strcspn(name, "/");

        *store = find(l, name, bytes, true);
        *rest = name + bytes + (name[bytes] == '/');
        return true;
    }
    return false;
}

const struct datastore *datastore_of(const struct datastore_list *l, const char *path)
{
    const struct datastore *store = NULL;
    const char *rest;

    return split(l, path, &store, &rest) ? store : NULL;
}

/* Every component one name, none of them a way up. */
static bool rest_is_plain(const char *rest)
{
    while (*rest != '\0') {
        size_t bytes = strcspn(rest, "/");

        if (!component_is_plain(rest, bytes))
            return false;
        rest += bytes;
        if (*rest == '/' && *++rest == '\0')
            return false;
    }
    return true;
}

static int take_apart(const struct datastore_list *l, const char *path,
                      const struct datastore **store, const char **rest, struct err *e)
{
    *store = NULL;
    *rest = "";
    if (!split(l, path, store, rest))
        return err_set(e, ERR_FORMAT, "%s is no path in a datastore", path);
    if (*store == NULL)
        return err_set(e, ERR_NOT_FOUND, "the host has no datastore for %s", path);
    if (!rest_is_plain(*rest))
        return err_set(e, ERR_FORMAT, "%s is no plain path in a datastore", path);
    return 0;
}

int datastore_absolute(const struct datastore_list *l, const char *path, char *out, struct err *e)
{
    const struct datastore *store;
    const char *rest;
    int n;

    if (take_apart(l, path, &store, &rest, e) != 0)
        return -1;
    n = snprintf(out, DATASTORE_PATH_MAX, "%s%s%s", store->path, *rest == '\0' ? "" : "/", rest);
    return n < DATASTORE_PATH_MAX ? 0 : err_set(e, ERR_LIMIT, "a path on the host is too long");
}

int datastore_shown(const struct datastore_list *l, const char *path, char *out, struct err *e)
{
    const struct datastore *store;
    const char *rest;
    int n;

    if (take_apart(l, path, &store, &rest, e) != 0)
        return -1;
    n = snprintf(out, DATASTORE_PATH_MAX, "[%s] %s", store->name, rest);
    return n < DATASTORE_PATH_MAX ? 0 : err_set(e, ERR_LIMIT, "a path on the host is too long");
}

/* Take the last component off path, but never the datastore itself. */
static bool go_up(char *path, size_t least)
{
    char *slash = strrchr(path, '/');

    if (slash == NULL || (size_t)(slash - path) < least)
        return false;
    *slash = '\0';
    return true;
}

static int resolve_relative(const struct datastore *store, const char *base, const char *name,
                            char *out, struct err *e)
{
    char path[DATASTORE_PATH_MAX];
    size_t least = strlen(store->path);
    size_t used;

    snprintf(path, sizeof path, "%s", base);
    if (!go_up(path, least))
        return err_set(e, ERR_REFUSED, "%s is no file in a datastore", base);
    for (const char *p = name; *p != '\0';) {
        size_t bytes = strcspn(p, "/");

        if (bytes == 2 && memcmp(p, "..", 2) == 0) {
            if (!go_up(path, least))
                return err_set(e, ERR_REFUSED, "%s leaves its datastore", name);
        } else if (!component_is_plain(p, bytes)) {
            return err_set(e, ERR_REFUSED, "%s is no plain path", name);
        } else {
            used = strlen(path);
            if (used + 1 + bytes >= sizeof path)
                return err_set(e, ERR_LIMIT, "a path on the host is too long");
            path[used] = '/';
            memcpy(path + used + 1, p, bytes);
            path[used + 1 + bytes] = '\0';
        }
        p += bytes;
        if (*p == '/' && *++p == '\0')
            return err_set(e, ERR_REFUSED, "%s is no file", name);
    }
    memcpy(out, path, strlen(path) + 1);
    return 0;
}

int datastore_resolve(const struct datastore_list *l, const char *base, const char *name, char *out,
                      struct err *e)
{
    const struct datastore *store;

    if (name[0] == '\0' || strpbrk(name, "\\\n\r") != NULL || strstr(name, "://") != NULL)
        return err_set(e, ERR_REFUSED, "\"%s\" is no file name that is followed", name);
    if (name[0] == '/') {
        if (datastore_absolute(l, name, out, e) == 0)
            return 0;
        return err_set(e, ERR_REFUSED, "%s lies outside the host's datastores", name);
    }
    store = datastore_of(l, base);
    if (store == NULL || strncmp(base, store->path, strlen(store->path)) != 0)
        return err_set(e, ERR_NOT_FOUND, "the host has no datastore for %s", base);
    return resolve_relative(store, base, name, out, e);
}
