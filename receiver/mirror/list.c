/* What generations there are, over one mirror or a folder of them. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/mirror/mirror_read.h"
#include "receiver/mirror/store.h"
#include "receiver/mirror/verified.h"

enum { FOLDERS_MAX = 1 << 16 };

/* A generation with what its texts live in. */
struct owned {
    struct mirror_list_item item;
    struct manifest manifest;
    struct mirror_list_disk *disks;
    char *folder, *vm_now;
};

struct mirror_list {
    struct owned *items;
    size_t count;
    char **problems;
    size_t problem_count;
};

/* --- folders --- */

struct folders {
    int dir;
    const char *place;
    char **at;
    size_t count;
};

static int add_folder(struct folders *f, const char *path, struct err *e)
{
    char **more;

    if (f->count == FOLDERS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d mirrors", FOLDERS_MAX);
    more = realloc(f->at, (f->count + 1) * sizeof *more);
    if (more == NULL)
        return err_sys(e, "getting memory");
    f->at = more;
    f->at[f->count] = strdup(path);
    if (f->at[f->count] == NULL)
        return err_sys(e, "getting memory");
    f->count++;
    return 0;
}

static bool has_identity(int dir, const char *name)
{
    char path[512];

    return snprintf(path, sizeof path, "%s/" LAYOUT_STORE "/" LAYOUT_IDENTITY, name) <
               (int)sizeof path &&
           store_has(dir, path);
}

static int folder_entry(void *context, const char *name, struct err *e)
{
    struct folders *f = context;
    char *path = NULL;
    int rc;

    if (name[0] == '.' || !has_identity(f->dir, name))
        return 0;
    if (asprintf(&path, "%s/%s", f->place, name) < 0)
        return err_sys(e, "getting memory");
    rc = add_folder(f, path, e);
    free(path);
    return rc;
}

/* ".NAME.part" with an identity: a first mirror that grows, or was cut. */
static int part_entry(void *context, const char *name, struct err *e)
{
    size_t bytes = strlen(name), suffix = sizeof LAYOUT_PART_SUFFIX - 1;
    struct folders *f = context;
    char *part = NULL;
    int rc;

    if (name[0] != '.' || bytes < suffix + 2 ||
        strcmp(name + bytes - suffix, LAYOUT_PART_SUFFIX) != 0 || !has_identity(f->dir, name))
        return 0;
    part = strndup(name + 1, bytes - suffix - 1);
    if (part == NULL)
        return err_sys(e, "getting memory");
    rc = add_folder(f, part, e);
    free(part);
    return rc;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int gather(const char *place, bool unfinished, char ***out, size_t *count, struct err *e)
{
    struct folders f = { .place = place };
    int rc = -1;

    f.dir = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f.dir < 0)
        return err_sys(e, "%s", place);
    if (unfinished)
        rc = folder_each(f.dir, part_entry, &f, e);
    else if (has_identity(f.dir, "."))
        rc = add_folder(&f, place, e);
    else if (store_has(f.dir, LAYOUT_STORE))
        /* A mirror without identity is a damaged one, not an empty place. */
        rc = err_set(e, ERR_CORRUPT, "%s: " LAYOUT_STORE "/" LAYOUT_IDENTITY " is missing", place);
    else
        rc = folder_each(f.dir, folder_entry, &f, e);
    io_drop(&f.dir);
    if (rc != 0) {
        mirror_folders_free(f.at, f.count);
        return -1;
    }
    if (f.count > 0)
        qsort(f.at, f.count, sizeof *f.at, compare_paths);
    *out = f.at;
    *count = f.count;
    return 0;
}

int mirror_folders(const char *place, char ***out, size_t *count, struct err *e)
{
    return gather(place, false, out, count, e);
}

int mirror_unfinished(const char *place, char ***out, size_t *count, struct err *e)
{
    return gather(place, true, out, count, e);
}

void mirror_folders_free(char **folders, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(folders[i]);
    free(folders);
}

/* --- one generation --- */

static uint64_t damage_of(const struct manifest *newest, uint64_t generation, uint64_t disk)
{
    uint64_t blocks = 0;

    for (size_t i = 0; i < newest->damage_count; i++)
        if (newest->damages[i].generation == generation && newest->damages[i].disk == disk)
            blocks += newest->damages[i].blocks;
    return blocks;
}

static void fill_disk(struct mirror_list_disk *to, const struct manifest_disk *d,
                      const struct manifest *newest, uint64_t generation)
{
    *to = (struct mirror_list_disk){
        .number = (unsigned)d->number,
        .label = d->label,
        .capacity_bytes = d->capacity_bytes,
        .of_generation = d->of,
        .damaged_blocks = d->number != 0 ? damage_of(newest, generation, d->number) : 0,
        .read_path = d->read_path,
        .allocated_bytes = d->allocated_bytes,
        .read_bytes = d->read_bytes,
        .sampled_bytes = d->sampled_bytes,
        .changed_bytes = d->changed_bytes,
        .sent_bytes = d->sent_bytes,
        .stored_bytes = d->stored_bytes,
        .milliseconds = d->milliseconds,
        .root = d->root,
    };
    snprintf(to->slot, sizeof to->slot, "%s", d->slot);
    snprintf(to->file, sizeof to->file, "%s", d->file);
}

static int fill_disks(struct owned *o, const struct manifest *newest, struct err *e)
{
    const struct manifest *m = &o->manifest;
    struct mirror_list_item *item = &o->item;

    o->disks = calloc(m->disk_count > 0 ? m->disk_count : 1, sizeof *o->disks);
    if (o->disks == NULL)
        return err_sys(e, "getting memory");
    item->disks = o->disks;
    for (size_t i = 0; i < m->disk_count; i++) {
        struct mirror_list_disk *to = &o->disks[item->disk_count];

        if (m->disks[i].state == DISK_REMOVED)
            continue;
        fill_disk(to, &m->disks[i], newest, m->number);
        item->disk_count++;
        item->size_bytes += to->capacity_bytes;
        item->read_bytes += to->read_bytes;
        item->sent_bytes += to->sent_bytes;
        item->changed_bytes += to->changed_bytes;
        item->stored_bytes += to->stored_bytes;
        item->damaged = item->damaged || to->damaged_blocks > 0;
    }
    return 0;
}

/* Takes over *m. */
static int fill_item(struct owned *o, const struct store *s, struct manifest *m, int64_t verified,
                     struct err *e)
{
    struct mirror_list_item *item = &o->item;

    *o = (struct owned){ .manifest = *m };
    *m = (struct manifest){ 0 };
    m = &o->manifest;
    if (text_set(&o->folder, s->path, e) != 0 || text_set(&o->vm_now, s->newest.vm_name, e) != 0)
        return -1;
    item->folder = o->folder;
    item->number = m->number;
    id_hex(m->id, item->id);
    item->vm = m->vm_name;
    item->vm_now = o->vm_now;
    item->uuid = m->vm_uuid;
    item->host = m->host_name;
    item->host_uuid = m->host_uuid;
    item->vmx_path = m->vmx_path;
    item->time = (int64_t)m->time;
    item->kind = m->kind;
    item->outcome = m->outcome;
    item->consistency = m->consistency;
    item->data_channel = m->data_channel;
    item->read_path = m->read_path;
    item->change_source = m->change_source;
    item->snapshot = m->snapshot;
    item->newest = m->number == s->newest.number;
    item->verified = verified;
    return fill_disks(o, &s->newest, e);
}

static void owned_free(struct owned *o)
{
    manifest_free(&o->manifest);
    free(o->disks);
    free(o->folder);
    free(o->vm_now);
}

/* --- the list --- */

static int add_problem(struct mirror_list *l, const char *text, struct err *e)
{
    char **more = realloc(l->problems, (l->problem_count + 1) * sizeof *more);

    if (more == NULL)
        return err_sys(e, "getting memory");
    l->problems = more;
    l->problems[l->problem_count] = strdup(text);
    if (l->problems[l->problem_count] == NULL)
        return err_sys(e, "getting memory");
    l->problem_count++;
    return 0;
}

static int add_generation(struct mirror_list *l, const struct store *s, uint64_t number,
                          const struct verified *v, struct err *e)
{
    struct owned *more;
    struct manifest m;
    struct err fault;

    if (store_manifest(s, number, &m, &fault) != 0)
        return add_problem(l, fault.text, e);
    more = realloc(l->items, (l->count + 1) * sizeof *more);
    if (more == NULL) {
        manifest_free(&m);
        return err_sys(e, "getting memory");
    }
    l->items = more;
    return fill_item(&l->items[l->count++], s, &m, verified_time(v, number), e);
}

static int add_generations(struct mirror_list *l, struct store *s, struct err *e)
{
    struct verified v = { 0 };
    uint64_t *numbers = NULL;
    size_t count = 0;
    struct err none;
    int rc;

    /* That a check was never noted, or the note is damaged, hides no generation. */
    if (verified_load(&v, s, &none) != 0)
        v.count = 0;
    rc = store_generations(s, &numbers, &count, e);
    for (size_t i = 0; i < count && rc == 0; i++)
        if (numbers[i] + s->newest.keep >= s->newest.number)
            rc = add_generation(l, s, numbers[i], &v, e);
    free(numbers);
    verified_free(&v);
    return rc;
}

/* A list needs no lock: manifests appear whole.  Only what is pending is finished first. */
static int add_mirror(struct mirror_list *l, const char *folder, const struct mirror_env *env,
                      struct err *e)
{
    struct store s;
    struct err fault;
    int rc;

    if (store_open(&s, AT_FDCWD, folder, folder, env, &fault) != 0)
        return add_problem(l, fault.text, e);
    if (store_finish(&s, &fault) != 0 &&
        /* What was there before the commit is still the truth about itself. */
        (add_problem(l, fault.text, e) != 0 || store_load_newest(&s, &fault) != 0)) {
        store_close(&s);
        return 0;
    }
    rc = add_generations(l, &s, e);
    store_close(&s);
    return rc;
}

static void fix_pointers(struct mirror_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        l->items[i].item.disks = l->items[i].disks;
}

int mirror_list_load(struct mirror_list **out, const char *place, const struct mirror_env *env,
                     struct err *e)
{
    struct mirror_list *l = calloc(1, sizeof *l);
    char **folders = NULL;
    size_t count = 0;
    int rc;

    if (l == NULL)
        return err_sys(e, "getting memory");
    rc = mirror_folders(place, &folders, &count, e);
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = add_mirror(l, folders[i], env, e);
    mirror_folders_free(folders, count);
    if (rc != 0) {
        mirror_list_free(l);
        return -1;
    }
    fix_pointers(l);
    *out = l;
    return 0;
}

size_t mirror_list_count(const struct mirror_list *l)
{
    return l->count;
}

const struct mirror_list_item *mirror_list_at(const struct mirror_list *l, size_t index)
{
    return &l->items[index].item;
}

size_t mirror_list_problem_count(const struct mirror_list *l)
{
    return l->problem_count;
}

const char *mirror_list_problem(const struct mirror_list *l, size_t index)
{
    return l->problems[index];
}

void mirror_list_free(struct mirror_list *l)
{
    if (l == NULL)
        return;
    for (size_t i = 0; i < l->count; i++)
        owned_free(&l->items[i]);
    free(l->items);
    for (size_t i = 0; i < l->problem_count; i++)
        free(l->problems[i]);
    free(l->problems);
    free(l);
}
