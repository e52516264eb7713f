#include "receiver/repo/generation.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/failpoint.h"
#include "receiver/repo/document.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/repo_private.h"

enum { FILE_LEAST_BYTES = 2 + 8 + 32 + 4, DISK_LEAST_BYTES = 300, FILE_BLOCKS_MAX = 1024 };
#define GENERATION_MAX ((uint64_t)9999999999)

static void free_file(struct repo_generation_file *f)
{
    free(f->name);
    free(f->blocks);
}

static void free_disk(struct repo_generation_disk *d)
{
    free(d->slot);
    free(d->uuid);
    free(d->label);
    free(d->read_path);
}

void repo_generation_free(struct repo_generation *g)
{
    char *texts[] = { g->kind,          g->outcome,  g->consistency, g->data_channel, g->read_path,
                      g->change_source, g->snapshot, g->host_uuid,   g->host_name,    g->vm_uuid,
                      g->vmx_path,      g->vm_name,  g->program };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(texts[i]);
    for (uint32_t i = 0; i < g->file_count; i++)
        free_file(&g->files[i]);
    for (uint32_t i = 0; i < g->disk_count; i++)
        free_disk(&g->disks[i]);
    free(g->files);
    free(g->disks);
    *g = (struct repo_generation){ 0 };
}

int generation_text(char **field, const char *text, struct err *e)
{
    char *copy = strdup(text != NULL ? text : "");

    if (copy == NULL)
        return err_sys(e, "getting memory");
    free(*field);
    *field = copy;
    return 0;
}

static void file_fields(struct fields *f, struct repo_generation_file *n)
{
    void *blocks = n->blocks;

    field_text(f, &n->name);
    if (!f->failed &&
        (n->name == NULL || *n->name == 0 || *n->name == '.' || strchr(n->name, '/') != NULL))
        field_fault(f, "a file has no possible name");
    field_u64(f, &n->size_bytes, 0, REPO_FILE_BYTES_MAX);
    field_raw(f, n->sha256, sizeof n->sha256);
    field_array(f, &blocks, &n->block_count, FILE_BLOCKS_MAX, sizeof n->blocks[0], REPO_ID_BYTES);
    n->blocks = blocks;
    for (uint32_t i = 0; i < n->block_count && !f->failed; i++)
        field_raw(f, n->blocks[i].b, sizeof n->blocks[i].b);
}

static void check_disk(struct fields *f, const struct repo_generation_disk *d)
{
    struct tree_shape shape;
    struct digest root;
    struct err e;

    if (f->failed || d->state == REPO_DISK_ABSENT)
        return;
    if (tree_shape_of(&shape, d->capacity_bytes, d->block_bytes, &e) != 0 ||
        shape.levels != d->levels || d->capacity_bytes % 512 != 0 || !cell_is_possible(&d->top)) {
        field_fault(f, "a disk has an impossible shape");
        return;
    }
    root = tree_root_of(&d->secret, d->capacity_bytes, d->block_bytes, d->levels, &d->top.digest);
    if (!digest_equal(&root, &d->root))
        field_fault(f, "a disk's root is not that of its tree");
}

static void disk_fields(struct fields *f, struct repo_generation_disk *d, uint64_t number)
{
    uint64_t *counts[] = { &d->allocated_bytes, &d->read_bytes, &d->sampled_bytes,
                           &d->changed_bytes,   &d->sent_bytes, &d->stored_bytes,
                           &d->milliseconds };

    field_u8(f, &d->state, REPO_DISK_READ, REPO_DISK_ABSENT);
    field_text(f, &d->slot);
    field_text(f, &d->uuid);
    field_text(f, &d->label);
    field_text(f, &d->read_path);
    field_u64(f, &d->capacity_bytes, 0, (uint64_t)1 << 62);
    field_u32(f, &d->block_bytes, 0, BLOCK_BYTES_MAX);
    field_u8(f, &d->levels, 0, TREE_LEVELS_MAX);
    field_raw(f, d->secret.b, sizeof d->secret.b);
    field_raw(f, d->root.b, sizeof d->root.b);
    field_raw(f, d->top.id.b, sizeof d->top.id.b);
    field_raw(f, d->top.digest.b, sizeof d->top.digest.b);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        field_u64(f, counts[i], 0, UINT64_MAX);
    field_u64(f, &d->of, 0, number);
    check_disk(f, d);
}

static void head_fields(struct fields *f, struct repo_generation *g)
{
    char **texts[] = { &g->kind,      &g->outcome,       &g->consistency, &g->data_channel,
                       &g->read_path, &g->change_source, &g->snapshot,    &g->host_uuid,
                       &g->host_name, &g->vm_uuid,       &g->vmx_path,    &g->vm_name,
                       &g->program };

    field_raw(f, g->vm.b, sizeof g->vm.b);
    field_u64(f, &g->number, 1, GENERATION_MAX);
    field_raw(f, g->key.b, sizeof g->key.b);
    field_u64(f, &g->parent, 0, g->number > 0 ? g->number - 1 : 0);
    field_u64(f, &g->time, 0, INT64_MAX);
    field_u64(f, &g->committed, 0, INT64_MAX);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        field_text(f, texts[i]);
}

void generation_fields(struct fields *f, struct repo_generation *g)
{
    void *files = g->files, *disks = g->disks;

    head_fields(f, g);
    field_array(f, &files, &g->file_count, REPO_FILES_MAX, sizeof g->files[0], FILE_LEAST_BYTES);
    g->files = files;
    for (uint32_t i = 0; i < g->file_count && !f->failed; i++)
        file_fields(f, &g->files[i]);
    if (f->failed)
        disks = f->writing ? disks : NULL;
    field_array(f, &disks, &g->disk_count, REPO_DISKS_MAX, sizeof g->disks[0], DISK_LEAST_BYTES);
    g->disks = disks;
    for (uint32_t i = 0; i < g->disk_count && !f->failed; i++)
        disk_fields(f, &g->disks[i], g->number);
}

int generation_decode(struct repo_generation *g, const void *data, size_t count, struct err *e)
{
    struct fields f;

    *g = (struct repo_generation){ 0 };
    fields_read(&f, data, count, e);
    generation_fields(&f, g);
    if (fields_done(&f) == 0)
        return 0;
    repo_generation_free(g);
    return -1;
}

int generation_put(struct repo *r, struct repo_generation *g, struct err *e)
{
    struct bytes body = { .ceiling = document_body_max(DOCUMENT_GENERATION) };
    object_name name;
    struct fields f;
    int rc;

    name_of_generation(name, "generations", &g->vm, g->number);
    fields_write(&f, &body, e);
    generation_fields(&f, g);
    rc = fields_done(&f);
    if (rc == 0)
        rc = document_put(r->storage, r->vault, DOCUMENT_GENERATION, name, &body, e);
    bytes_free(&body);
    return rc;
}

int repo_generation_load(struct repo *r, const struct repo_key *vm, uint64_t number,
                         struct repo_generation *out, struct err *e)
{
    struct bytes body = { 0 };
    object_name name;
    int rc;

    name_of_generation(name, "generations", vm, number);
    rc = document_get(r->storage, r->vault, DOCUMENT_GENERATION, name, &body, e);
    if (rc == 0 && generation_decode(out, body.data, body.count, e) != 0)
        rc = err_add(e, "object %s", name);
    bytes_free(&body);
    if (rc == 0 && (out->number != number || memcmp(out->vm.b, vm->b, sizeof vm->b) != 0)) {
        repo_generation_free(out);
        rc = err_set(e, ERR_CORRUPT, "object %s: it is another generation's manifest", name);
    }
    return rc;
}

/* --- names --- */

static int list_names(struct repo *r, const char *folder, const char *prefix, struct bytes *out,
                      struct err *e)
{
    struct storage_list *list;
    struct storage_item item;
    struct repo_generation_name n;
    int more;

    out->ceiling = (size_t)STORAGE_LIST_MAX * sizeof n;
    if (storage_list(r->storage, prefix, &list, e) != 0)
        return -1;
    while ((more = storage_next(list, &item, e)) > 0)
        if (name_is_generation(item.name, folder, &n.vm, &n.number) &&
            bytes_append(out, &n, sizeof n, e) != 0) {
            more = -1;
            break;
        }
    storage_list_end(list);
    if (more < 0)
        bytes_free(out);
    else
        index_news(r->index);
    return more;
}

int repo_generation_names(struct repo *r, struct repo_generation_name **out, size_t *count,
                          struct err *e)
{
    struct bytes list = { 0 };

    if (list_names(r, "generations", "generations/", &list, e) != 0)
        return -1;
    if (failpoint("repo.listed", e) != 0) {
        bytes_free(&list);
        return -1;
    }
    *out = (struct repo_generation_name *)(void *)list.data;
    *count = list.count / sizeof **out;
    return 0;
}

static int list_numbers(struct repo *r, const char *folder, const struct repo_key *vm,
                        struct bytes *out, struct err *e)
{
    object_name prefix;

    prefix_of_vm(prefix, folder, vm);
    return list_names(r, folder, prefix, out, e);
}

int repo_generation_numbers(struct repo *r, const struct repo_key *vm, uint64_t **out,
                            size_t *count, struct err *e)
{
    struct bytes list = { 0 };
    const struct repo_generation_name *names;

    if (list_numbers(r, "generations", vm, &list, e) != 0)
        return -1;
    names = (const struct repo_generation_name *)(const void *)list.data;
    *count = list.count / sizeof names[0];
    *out = malloc((*count > 0 ? *count : 1) * sizeof **out);
    if (*out == NULL) {
        bytes_free(&list);
        return err_sys(e, "getting memory");
    }
    for (size_t i = 0; i < *count; i++)
        (*out)[i] = names[i].number;
    bytes_free(&list);
    return 0;
}

/* Lists ascend, so the last one is the highest. */
static int highest(struct repo *r, const char *folder, const struct repo_key *vm, uint64_t *out,
                   struct err *e)
{
    struct bytes list = { 0 };
    size_t size = sizeof(struct repo_generation_name);

    if (list_numbers(r, folder, vm, &list, e) != 0)
        return -1;
    *out = 0;
    if (list.count > 0)
        *out = ((const struct repo_generation_name *)(const void *)(list.data + list.count - size))
                   ->number;
    bytes_free(&list);
    return 0;
}

int generation_newest(struct repo *r, const struct repo_key *vm, uint64_t *given, uint64_t *there,
                      struct err *e)
{
    uint64_t retired;

    if (highest(r, "generations", vm, there, e) != 0 || highest(r, "retired", vm, &retired, e) != 0)
        return -1;
    *given = retired > *there ? retired : *there;
    return 0;
}

/* --- unfinished runs --- */

void partial_free(struct partial *p)
{
    free(p->slot);
    free(p->uuid);
    tree_spine_free(&p->spine);
    *p = (struct partial){ 0 };
}

static void spine_fields(struct fields *f, struct tree_spine *s, const struct tree_shape *shape)
{
    uint8_t levels = (uint8_t)s->levels, whole = s->whole;
    uint64_t stands_for = 0;

    field_u8(f, &levels, 0, TREE_LEVELS_MAX);
    field_u8(f, &whole, 0, 1);
    s->levels = levels;
    s->whole = whole != 0;
    if (s->whole) {
        field_raw(f, &s->top, sizeof s->top);
        if (!f->failed && (s->levels != shape->levels || s->position != shape->blocks ||
                           !cell_is_possible(&s->top)))
            field_fault(f, "its tree does not fit the disk");
        return;
    }
    for (unsigned i = 0; i < levels && !f->failed; i++) {
        void *cells = s->level[i].cells;

        field_array(f, &cells, &s->level[i].count, TREE_FAN_OUT - 1, sizeof(struct repo_cell),
                    CELL_BYTES);
        s->level[i].cells = cells;
        for (uint32_t k = 0; k < s->level[i].count && !f->failed; k++) {
            field_raw(f, &s->level[i].cells[k], sizeof s->level[i].cells[k]);
            if (!f->failed && !cell_is_possible(&s->level[i].cells[k]))
                field_fault(f, "a cell has only one of its halves");
        }
        stands_for += s->level[i].count * tree_span(i);
    }
    if (!f->failed &&
        (s->levels != shape->levels || stands_for != s->position || s->position >= shape->blocks))
        field_fault(f, "its tree does not fit the disk");
}

void partial_fields(struct fields *f, struct partial *p)
{
    struct tree_shape shape;

    field_raw(f, p->vm.b, sizeof p->vm.b);
    field_u64(f, &p->parent, 0, GENERATION_MAX);
    field_text(f, &p->slot);
    field_text(f, &p->uuid);
    field_u64(f, &p->capacity_bytes, 512, (uint64_t)1 << 62);
    field_u32(f, &p->block_bytes, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
    field_raw(f, p->secret.b, sizeof p->secret.b);
    field_u64(f, &p->spine.position, 1, UINT64_MAX);
    field_u64(f, &p->time, 0, INT64_MAX);
    if (!f->failed && tree_shape_of(&shape, p->capacity_bytes, p->block_bytes, f->e) != 0)
        f->failed = true;
    if (!f->failed)
        spine_fields(f, &p->spine, &shape);
}

int partial_decode(struct partial *p, const void *data, size_t count, struct err *e)
{
    struct fields f;

    *p = (struct partial){ 0 };
    fields_read(&f, data, count, e);
    partial_fields(&f, p);
    if (fields_done(&f) == 0)
        return 0;
    partial_free(p);
    return -1;
}

int partial_put(struct repo *r, const char *name, struct partial *p, struct err *e)
{
    struct bytes body = { .ceiling = document_body_max(DOCUMENT_PARTIAL) };
    struct fields f;
    int rc;

    fields_write(&f, &body, e);
    partial_fields(&f, p);
    rc = fields_done(&f);
    if (rc == 0)
        rc = document_put(r->storage, r->vault, DOCUMENT_PARTIAL, name, &body, e);
    bytes_free(&body);
    return rc;
}

int partial_get(struct repo *r, const char *name, struct partial *out, struct err *e)
{
    struct bytes body = { 0 };
    int rc = document_get(r->storage, r->vault, DOCUMENT_PARTIAL, name, &body, e);

    if (rc == 0 && partial_decode(out, body.data, body.count, e) != 0)
        rc = err_add(e, "object %s", name);
    bytes_free(&body);
    return rc;
}
