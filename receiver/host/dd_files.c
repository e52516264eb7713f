#include "receiver/host/dd_files.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/descriptor.h"
#include "protocol/vmdk/files.h"
#include "receiver/host/datastores.h"
#include "receiver/host/dd_source.h"
#include "receiver/host/host.h"

enum { RUNNING_MAX = 4 }; /* files that have a dd at a time */

struct dd_file;

struct dd_files {
    struct vmdk_files base;
    struct host *host;
    const struct datastore_list *stores;
    uint64_t stall_ms;
    pthread_mutex_t lock;                 /* held while any of its files is read */
    struct dd_file *running[RUNNING_MAX]; /* the one read last comes first; NULL: none */
};

/* A file of the table: its dd makes room for those of the others. */
struct dd_file {
    struct source base;
    struct dd_files *files;
    struct source *dd;
};

static int file_extent_at(struct source *s, uint64_t offset_bytes, struct extent *out,
                          struct err *e)
{
    return source_extent_at(((struct dd_file *)s)->dd, offset_bytes, out, e);
}

/* To the front; whoever falls off the end has its dd ended. */
static void come_first(struct dd_files *f, struct dd_file *file)
{
    struct dd_file *carried = file;

    for (size_t i = 0; i < RUNNING_MAX && carried != NULL; i++) {
        struct dd_file *here = f->running[i];

        f->running[i] = carried;
        carried = here == file ? NULL : here;
    }
    if (carried != NULL)
        dd_source_pause(carried->dd);
}

static int file_read(struct source *s, uint64_t offset_bytes, void *out, size_t count,
                     struct err *e)
{
    struct dd_file *file = (struct dd_file *)s;
    int rc;

    /* Disks are read side by side, and one may end the dd of another's file. */
    pthread_mutex_lock(&file->files->lock);
    come_first(file->files, file);
    rc = source_read(file->dd, offset_bytes, out, count, e);
    pthread_mutex_unlock(&file->files->lock);
    return rc;
}

static void file_close(struct source *s)
{
    struct dd_file *file = (struct dd_file *)s;
    size_t kept = 0;

    pthread_mutex_lock(&file->files->lock);
    for (size_t i = 0; i < RUNNING_MAX; i++) {
        struct dd_file *here = file->files->running[i];

        file->files->running[i] = NULL;
        if (here != NULL && here != file)
            file->files->running[kept++] = here;
    }
    pthread_mutex_unlock(&file->files->lock);
    source_close(file->dd);
    free(file);
}

static const struct source_ops file_ops = { .extent_at = file_extent_at,
                                            .read = file_read,
                                            .close = file_close };

static int resolve(const struct dd_files *f, const char *from, const char *name,
                   enum vmdk_role role, char *out, struct err *e)
{
    if (role == VMDK_TIP)
        return datastore_absolute(f->stores, name, out, e);
    if (role == VMDK_EXTENT && !vmdk_name_is_bare(name))
        return err_set(e, ERR_REFUSED, "%s: an extent lies beside its descriptor", name);
    return datastore_resolve(f->stores, from, name, out, e);
}

/* A descriptor, which is short: all of it, as it was when it was opened. */
struct text {
    struct source base;
    char bytes[];
};

static int text_extent_at(struct source *s, uint64_t offset_bytes, struct extent *out,
                          struct err *e)
{
    (void)e;
    *out = (struct extent){ .offset_bytes = offset_bytes,
                            .length_bytes = s->capacity_bytes - offset_bytes };
    return 0;
}

static int text_read(struct source *s, uint64_t offset_bytes, void *out, size_t count,
                     struct err *e)
{
    if (offset_bytes > s->capacity_bytes || count > s->capacity_bytes - offset_bytes)
        return err_set(e, ERR_SOURCE, "a read past the end");
    memcpy(out, ((struct text *)s)->bytes + offset_bytes, count);
    return 0;
}

static void text_close(struct source *s)
{
    free(s);
}

static const struct source_ops text_ops = { .extent_at = text_extent_at,
                                            .read = text_read,
                                            .close = text_close };

static int open_text(struct dd_files *f, const struct vmdk_file *file, struct source **out,
                     struct err *e)
{
    struct host_answer a;
    struct text *t;

    if (host_read_file(f->host, file->place, DESCRIPTOR_BYTES_MAX, &a, e) != 0)
        return -1;
    t = a.out_bytes == file->size_bytes ? malloc(sizeof *t + a.out_bytes) : NULL;
    if (t != NULL) {
        memcpy(t->bytes, a.out, a.out_bytes);
        t->base = (struct source){ .ops = &text_ops,
                                   .capacity_bytes = a.out_bytes,
                                   .allocated_bytes = a.out_bytes,
                                   .flags = SOURCE_SEQUENTIAL };
        *out = &t->base;
    } else if (a.out_bytes == file->size_bytes) {
        err_sys(e, "opening %s", file->place);
    } else {
        err_set(e, ERR_SOURCE, "%s changed while it was read", file->place);
    }
    host_answer_free(&a);
    return t != NULL ? 0 : -1;
}

static int open_data(struct dd_files *f, const struct vmdk_file *made, struct source **out,
                     struct err *e)
{
    struct dd_file *file = calloc(1, sizeof *file);

    if (file == NULL)
        return err_sys(e, "opening %s", made->place);
    if (dd_source_open_sized(&file->dd, f->host, made->place, made->size_bytes, NULL, f->stall_ms,
                             e) != 0) {
        free(file);
        return -1;
    }
    file->base = (struct source){ .ops = &file_ops,
                                  .capacity_bytes = made->size_bytes,
                                  .allocated_bytes = made->size_bytes,
                                  .flags = file->dd->flags };
    file->files = f;
    *out = &file->base;
    return 0;
}

/* Size and identity, by stat on the host: links are not followed, and only regular files taken. */
static int look_at(struct dd_files *f, const char *path, struct vmdk_file *out, struct err *e)
{
    struct host_answer a;
    uint64_t size, device, inode;
    unsigned mode;
    int64_t modified;
    int used = 0, rc = 0;

    if (host_call(f->host, &a, HOST_COMMAND_MS, e, "stat", "-c", "%f %s %d %i %Y", path, NULL) != 0)
        return -1;
    if (a.status != 0) {
        rc = err_set(e, strstr(a.complaint, "No such file") != NULL ? ERR_NOT_FOUND : ERR_SOURCE,
                     "%.200s", a.complaint);
    } else if (sscanf(a.out, "%x %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNd64 "\n%n", &mode, &size,
                      &device, &inode, &modified, &used) != 5 ||
               a.out[used] != 0) {
        rc = err_set(e, ERR_SOURCE, "stat answers \"%.100s\"", a.out);
    } else if (!S_ISREG(mode)) {
        rc = err_set(e, ERR_REFUSED, "it is no regular file");
    } else if (size == 0) {
        rc = err_set(e, ERR_CORRUPT, "it is empty");
    } else {
        out->size_bytes = size;
        out->device = device;
        out->inode = inode;
        out->modified_ns = modified > INT64_MAX / 1000000000 ? 0 : modified * 1000000000;
    }
    host_answer_free(&a);
    return rc == 0 ? 0 : err_add(e, "%s", path);
}

static int dd_open(struct vmdk_files *files, const char *from, const char *name,
                   enum vmdk_role role, struct vmdk_file *out, struct err *e)
{
    struct dd_files *f = (struct dd_files *)files;
    char path[DATASTORE_PATH_MAX];
    struct vmdk_file made = { 0 };
    int rc;

    if (resolve(f, from, name, role, path, e) != 0 || look_at(f, path, &made, e) != 0)
        return -1;
    made.place = strdup(path);
    if (made.place == NULL)
        return err_sys(e, "opening %s", path);
    rc = role == VMDK_EXTENT ? open_data(f, &made, &made.source, e)
                             : open_text(f, &made, &made.source, e);
    if (rc == 0)
        *out = made;
    else
        free(made.place);
    return rc;
}

static int dd_unchanged(struct vmdk_files *files, const struct vmdk_file *file, struct err *e)
{
    struct vmdk_file now = { 0 };

    if (look_at((struct dd_files *)files, file->place, &now, e) != 0)
        return -1;
    if (now.size_bytes != file->size_bytes || now.device != file->device ||
        now.inode != file->inode || now.modified_ns != file->modified_ns)
        return err_set(e, ERR_SOURCE, "%s changed while it was read", file->place);
    return 0;
}

static void dd_files_close(struct vmdk_files *files)
{
    pthread_mutex_destroy(&((struct dd_files *)files)->lock);
    free(files);
}

int dd_files_new(struct vmdk_files **out, struct host *h, const struct datastore_list *stores,
                 uint64_t stall_ms, struct err *e)
{
    struct dd_files *f = calloc(1, sizeof *f);

    if (f == NULL)
        return err_sys(e, "reading a chain by dd");
    f->base =
        (struct vmdk_files){ .open = dd_open, .unchanged = dd_unchanged, .close = dd_files_close };
    pthread_mutex_init(&f->lock, NULL);
    f->host = h;
    f->stores = stores;
    f->stall_ms = stall_ms;
    *out = &f->base;
    return 0;
}
