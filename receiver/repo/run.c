#include "receiver/repo/run.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/wire/messages.h"
#include "receiver/base/clock.h"
#include "receiver/base/failpoint.h"
#include "receiver/base/names.h"
#include "receiver/repo/repo_private.h"
#include "version.h"

enum { FILE_ZSTD_LEVEL = 3, SEQUENCE_MAX = 99999999 };

/* --- beginning --- */

/* Which VM this is: the path counts only where another VM of that instance UUID came first. */
static int find_vm(struct repo_run *run, const struct repo_vm *vm, struct err *e)
{
    struct repo *r = run->repo;
    struct repo_generation g = { 0 };
    uint64_t given, there;
    bool same;

    if (vault_vm_key(r->vault, vm->host_uuid, vm->uuid, NULL, &run->vm, e) != 0)
        return -1;
    if (!vm->uuid_shared)
        return 0;
    if (generation_newest(r, &run->vm, &given, &there, e) != 0)
        return -1;
    if (there == 0)
        return given == 0
                   ? 0
                   : vault_vm_key(r->vault, vm->host_uuid, vm->uuid, vm->vmx_path, &run->vm, e);
    if (repo_generation_load(r, &run->vm, there, &g, e) != 0)
        return -1;
    same = strcmp(g.vmx_path, vm->vmx_path) == 0;
    repo_generation_free(&g);
    return same ? 0 : vault_vm_key(r->vault, vm->host_uuid, vm->uuid, vm->vmx_path, &run->vm, e);
}

/* The newest readable generation; one that is damaged is no reason to have no backup. */
static int load_parent(struct repo_run *run, struct err *e)
{
    uint64_t *numbers, there;
    size_t count;
    int rc = 0;

    if (generation_newest(run->repo, &run->vm, &run->newest, &there, e) != 0 ||
        repo_generation_numbers(run->repo, &run->vm, &numbers, &count, e) != 0)
        return -1;
    for (; count > 0; count--) {
        rc = repo_generation_load(run->repo, &run->vm, numbers[count - 1], &run->parent, e);
        if (rc == 0 || (e->code != ERR_CORRUPT && e->code != ERR_FORMAT))
            break;
        repo_warn(run->repo, "%s; the one before it is taken instead", e->text);
        rc = 0;
    }
    free(numbers);
    return rc;
}

static unsigned count_uuid(const struct repo_disk *disks, size_t count, const char *uuid)
{
    unsigned n = 0;

    for (size_t i = 0; i < count; i++)
        n += strcmp(disks[i].uuid, uuid) == 0;
    return n;
}

static unsigned count_parent_uuid(const struct repo_generation *g, const char *uuid)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < g->disk_count; i++)
        n += strcmp(g->disks[i].uuid, uuid) == 0;
    return n;
}

/* The parent's disk that this one is (FORMAT.md 8), NULL if none. */
static const struct repo_generation_disk *find_base(const struct repo_generation *g,
                                                    const struct repo_disk *disks, size_t count,
                                                    const struct repo_disk *d)
{
    bool decides = *d->uuid != 0 && count_uuid(disks, count, d->uuid) == 1;

    for (uint32_t i = 0; i < g->disk_count && decides; i++)
        if (strcmp(g->disks[i].uuid, d->uuid) == 0 && count_parent_uuid(g, d->uuid) == 1)
            return g->disks[i].state == REPO_DISK_ABSENT ? NULL : &g->disks[i];
    for (uint32_t i = 0; i < g->disk_count; i++) {
        const struct repo_generation_disk *b = &g->disks[i];
        bool other = decides && *b->uuid != 0 && count_parent_uuid(g, b->uuid) == 1;

        if (strcmp(b->slot, d->slot) == 0 && !other)
            return b->state == REPO_DISK_ABSENT ? NULL : b;
    }
    return NULL;
}

static int check_disks(const struct repo_disk *disks, size_t count, struct err *e)
{
    if (count > REPO_DISKS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d disks", REPO_DISKS_MAX);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < i; k++)
            if (strcmp(disks[i].slot, disks[k].slot) == 0)
                return err_set(e, ERR_USAGE, "two disks in the slot %s", disks[i].slot);
        if (disks[i].included && (disks[i].capacity_bytes == 0 || disks[i].capacity_bytes % 512))
            return err_set(e, ERR_UNSUPPORTED, "disk %s has a capacity of %" PRIu64 " bytes",
                           disks[i].slot, disks[i].capacity_bytes);
    }
    return 0;
}

static int set_up_disk(struct run_disk *d, const struct repo_disk *disks, size_t count,
                       const struct repo_disk *disk, uint32_t block_bytes, struct err *e)
{
    struct repo_run *run = d->run;

    if (generation_text(&d->slot, disk->slot, e) != 0 ||
        generation_text(&d->uuid, disk->uuid, e) != 0 ||
        generation_text(&d->label, disk->label, e) != 0)
        return -1;
    d->included = disk->included;
    d->base = find_base(&run->parent, disks, count, disk);
    if (!d->included)
        return 0;
    if (d->base != NULL)
        d->secret = d->base->secret;
    else
        randombytes_buf(d->secret.b, sizeof d->secret.b);
    if (d->base != NULL)
        block_bytes = d->base->block_bytes;
    if (tree_shape_of(&d->shape, disk->capacity_bytes, block_bytes, e) != 0)
        return err_add(e, "disk %s", disk->slot);
    d->state = (struct repo_disk_state){
        .is_new = d->base == NULL,
        .block_bytes = block_bytes,
        .capacity_bytes = disk->capacity_bytes,
        .old_capacity_bytes = d->base != NULL ? d->base->capacity_bytes : 0,
    };
    return 0;
}

/* --- what cut runs left --- */

static bool partial_fits(const struct run_disk *d, const struct partial *p)
{
    return d->included && p->parent == d->run->parent.number && strcmp(p->slot, d->slot) == 0 &&
           strcmp(p->uuid, d->uuid) == 0 && p->capacity_bytes == d->shape.capacity_bytes &&
           p->block_bytes == d->shape.block_bytes &&
           (d->base == NULL || memcmp(&p->secret, &d->secret, sizeof p->secret) == 0) &&
           (p->time > d->found.time ||
            (p->time == d->found.time && p->spine.position > d->found.spine.position));
}

static int take_partial(struct repo_run *run, const char *name, struct err *e)
{
    struct partial p = { 0 };

    if (partial_get(run->repo, name, &p, e) != 0) {
        if (e->code != ERR_CORRUPT && e->code != ERR_FORMAT && e->code != ERR_NOT_FOUND)
            return -1;
        repo_warn(run->repo, "%s; that unfinished run is not gone on with", e->text);
        return 0;
    }
    for (size_t i = 0; i < run->count; i++)
        if (partial_fits(&run->disks[i], &p)) {
            partial_free(&run->disks[i].found);
            run->disks[i].found = p;
            p = (struct partial){ 0 };
            break;
        }
    partial_free(&p);
    return 0;
}

/* Call `each` for every name of a partial of this VM. */
static int each_partial(struct repo_run *run,
                        int (*each)(struct repo_run *run, const char *name, struct err *e),
                        struct err *e)
{
    struct storage_list *list;
    struct storage_item item;
    object_name prefix;
    int more;

    prefix_of_vm(prefix, "partial", &run->vm);
    if (storage_list(run->repo->storage, prefix, &list, e) != 0)
        return -1;
    while ((more = storage_next(list, &item, e)) > 0)
        if (each(run, item.name, e) != 0) {
            more = -1;
            break;
        }
    storage_list_end(list);
    return more;
}

static int find_partials(struct repo_run *run, struct err *e)
{
    if (each_partial(run, take_partial, e) != 0)
        return -1;
    for (size_t i = 0; i < run->count; i++) {
        struct run_disk *d = &run->disks[i];

        if (d->found.spine.position == 0)
            continue;
        d->secret = d->found.secret; /* a new disk goes on with the secret that was made for it */
        d->state.resumed = true;
        d->state.resumed_bytes =
            min_u64(d->found.spine.position * d->shape.block_bytes, d->shape.capacity_bytes);
    }
    return 0;
}

int run_partial(struct run_disk *d, const struct tree_spine *spine, struct err *e)
{
    struct repo_run *run = d->run;
    struct partial p = { .vm = run->vm,
                         .parent = run->parent.number,
                         .slot = d->slot,
                         .uuid = d->uuid,
                         .capacity_bytes = d->shape.capacity_bytes,
                         .block_bytes = d->shape.block_bytes,
                         .secret = d->secret,
                         .time = (uint64_t)clock_now(),
                         .spine = *spine };
    object_name name, before;
    struct err none;

    if (spine->position == 0 || d->sequence == SEQUENCE_MAX)
        return 0;
    if (repo_flush(run->repo, e) != 0)
        return -1;
    name_of_partial(name, &run->vm, run->session, d->index, d->sequence);
    if (partial_put(run->repo, name, &p, e) != 0 || storage_barrier(run->repo->storage, e) != 0 ||
        failpoint("repo.partial-published", e) != 0)
        return -1;
    /* The one before is of no use any more; whoever may not remove it leaves that to prune. */
    if (d->sequence > 0) {
        name_of_partial(before, &run->vm, run->session, d->index, d->sequence - 1);
        (void)storage_remove(run->repo->storage, before, &none);
    }
    d->sequence++;
    return 0;
}

/* --- the run --- */

/* Where that takes long, before anything on the host waits for it. */
static int get_ready_to_answer(struct repo_run *run, struct err *e)
{
    struct ask_table *unused;

    if (run->ask_when == ASKING_NEVER || !vault_sealed(run->repo->vault))
        return 0;
    return ask_table_of(&unused, run->repo, run->host_uuid, e);
}

static int set_up(struct repo_run *run, const struct repo_vm *vm,
                  const struct repo_run_options *options, const struct repo_disk *disks,
                  size_t count, struct err *e)
{
    uint64_t entries, packs, damaged;
    object_name lock;
    uint32_t block = options->block_bytes;

    if (block == 0)
        block = run->repo->config.block_bytes;
    if (!block_size_valid(block))
        return err_set(e, ERR_USAGE, "a block size of %" PRIu32 " bytes is not possible", block);
    if (generation_text(&run->host_uuid, vm->host_uuid, e) != 0 ||
        generation_text(&run->host_name, vm->host_name, e) != 0 ||
        generation_text(&run->vm_uuid, vm->uuid, e) != 0 ||
        generation_text(&run->vmx_path, vm->vmx_path, e) != 0 ||
        generation_text(&run->vm_name, vm->name, e) != 0 || check_disks(disks, count, e) != 0 ||
        find_vm(run, vm, e) != 0)
        return -1;
    name_of_vm_lock(lock, &run->vm);
    if (!run->only_look &&
        storage_lock_take(run->repo->storage, lock, LOCK_EXCLUSIVE, run->repo->env.lock_wait_ms,
                          run->repo->env.stop, &run->vm_lock, e) != 0)
        return e->code == ERR_BUSY ? err_add(e, "another backup of this VM is at work") : -1;
    if (load_parent(run, e) != 0)
        return -1;
    index_counts(run->repo->index, &entries, &packs, &damaged);
    run->disks = calloc(count > 0 ? count : 1, sizeof run->disks[0]);
    if (run->disks == NULL)
        return err_sys(e, "getting memory");
    run->count = count;
    for (size_t i = 0; i < count; i++) {
        run->disks[i].run = run;
        run->disks[i].index = (uint32_t)i;
        if (set_up_disk(&run->disks[i], disks, count, &disks[i], block, e) != 0)
            return -1;
        run->disks[i].state.distrusted = damaged > 0 || run->no_parent;
    }
    return find_partials(run, e) != 0 ? -1 : get_ready_to_answer(run, e);
}

int repo_run_begin(struct repo_run **out, struct repo *r, const struct repo_vm *vm,
                   const struct repo_run_options *options, const struct repo_disk *disks,
                   size_t count, struct err *e)
{
    struct repo_run *run;

    if (r->read_only && !options->only_look)
        return err_set(e, ERR_REFUSED, "the repository was opened for reading only");
    run = calloc(1, sizeof *run);
    if (run == NULL)
        return err_sys(e, "getting memory");
    run->repo = r;
    run->no_parent = options->no_parent;
    run->only_look = options->only_look;
    run->ask_when = options->no_parent ? ASKING_NEVER : options->ask_when;
    if (run->ask_when == ASKING_SLOW && vault_sealed(r->vault))
        run->ask_when = ASKING_NEVER;
    randombytes_buf(&run->session, sizeof run->session);
    if (set_up(run, vm, options, disks, count, e) != 0) {
        repo_run_end(run);
        return -1;
    }
    *out = run;
    return 0;
}

uint64_t repo_run_parent(const struct repo_run *run)
{
    return run->parent.number;
}

uint64_t repo_run_parent_time(const struct repo_run *run)
{
    return run->parent.time;
}

const struct repo_disk_state *repo_run_disk(const struct repo_run *run, size_t index)
{
    return &run->disks[index].state;
}

void repo_run_head(const struct repo_run *run, struct repo_head *out)
{
    struct repo_facts facts;

    repo_facts(run->repo, &facts);
    *out = (struct repo_head){ .repository = facts.key,
                               .vm = run->vm,
                               .number = run->parent.number,
                               .key = run->parent.key,
                               .next = run->newest + 1 };
}

bool repo_run_held(const struct repo_run *run, size_t index, struct digest *root)
{
    const struct run_disk *d = &run->disks[index];

    if (d->base == NULL || d->state.distrusted)
        return false;
    *root = d->base->root;
    return true;
}

void repo_run_unstage(struct repo_run *run, size_t index)
{
    struct run_disk *d = &run->disks[index];

    partial_free(&d->found);
    d->state.resumed = false;
}

int repo_run_sink(struct repo_run *run, size_t index, struct sink **out, struct err *e)
{
    struct run_disk *d = &run->disks[index];

    if (run->only_look || !d->included || d->sink_open || d->ended)
        return err_set(e, ERR_USAGE, "disk %s: there is no sink for it now", d->slot);
    return repo_sink_new(d, out, e);
}

int repo_run_result(const struct repo_run *run, size_t index, struct repo_disk_result *out)
{
    if (!run->disks[index].ended)
        return -1;
    *out = run->disks[index].result;
    return 0;
}

/* --- files --- */

static bool has_file(const struct repo_run *run, const char *name)
{
    for (uint32_t i = 0; i < run->file_count; i++)
        if (strcmp(run->files[i].name, name) == 0)
            return true;
    return false;
}

static int name_file(struct repo_run *run, const char *raw, char **out, struct err *e)
{
    char safe[NAME_SAFE_ROOM], name[NAME_SAFE_ROOM + 8];

    name_made_safe(raw, safe);
    snprintf(name, sizeof name, "%s", safe);
    for (unsigned n = 2; has_file(run, name); n++)
        snprintf(name, sizeof name, "%.190s-%u", safe, n);
    return generation_text(out, name, e);
}

/* Store the blocks of a file. */
static int put_file(struct repo *r, const uint8_t *data, struct repo_generation_file *f,
                    struct err *e)
{
    uint32_t size = r->config.block_bytes;
    uint8_t *packed = malloc(size);
    int rc = -1;

    f->block_count = (uint32_t)block_count_of(f->size_bytes, size);
    f->blocks = calloc(f->block_count > 0 ? f->block_count : 1, sizeof f->blocks[0]);
    if (packed == NULL || f->blocks == NULL) {
        err_sys(e, "getting memory");
        goto out;
    }
    for (uint32_t i = 0; i < f->block_count; i++) {
        const uint8_t *at = data + (size_t)i * size;
        size_t count = (size_t)min_u64(size, f->size_bytes - (uint64_t)i * size);
        size_t n = ZSTD_compress(packed, count - 1, at, count, FILE_ZSTD_LEVEL);
        bool raw = count < 2 || ZSTD_isError(n);
        struct put_result put;

        if (vault_id(r->vault, at, count, &f->blocks[i], e) != 0 ||
            repo_put(r, ENTRY_BLOCK, &f->blocks[i], raw ? CODEC_RAW : CODEC_ZSTD, raw ? at : packed,
                     raw ? count : n, count, &put, e) != 0)
            goto out;
    }
    rc = 0;

out:
    free(packed);
    return rc;
}

int repo_run_file(struct repo_run *run, const char *name, const void *data, size_t count,
                  struct err *e)
{
    struct repo_generation_file f = { .size_bytes = count }, *files;

    if (count > REPO_FILE_BYTES_MAX || run->file_count == REPO_FILES_MAX)
        return err_set(e, ERR_LIMIT, "the configuration file %.80s is one too many or too large",
                       name);
    files = realloc(run->files, (run->file_count + 1) * sizeof files[0]);
    if (files == NULL)
        return err_sys(e, "getting memory");
    run->files = files;
    crypto_hash_sha256(f.sha256, data, count);
    if (name_file(run, name, &f.name, e) != 0 || put_file(run->repo, data, &f, e) != 0) {
        free(f.name);
        free(f.blocks);
        return -1;
    }
    files[run->file_count++] = f;
    return 0;
}

/* --- committing --- */

static int copy_texts(struct repo_generation_disk *to, const struct run_disk *d,
                      const char *read_path, struct err *e)
{
    if (generation_text(&to->slot, d->slot, e) != 0 ||
        generation_text(&to->uuid, d->uuid, e) != 0 ||
        generation_text(&to->label, d->label, e) != 0)
        return -1;
    return generation_text(&to->read_path, read_path, e);
}

static int describe_disk(const struct run_disk *d, uint64_t number,
                         const struct repo_disk_facts *facts, struct repo_generation_disk *out,
                         struct err *e)
{
    if (!d->included && d->base == NULL) {
        out->state = REPO_DISK_ABSENT;
        return copy_texts(out, d, "", e);
    }
    if (!d->included) {
        *out = *d->base;
        out->slot = out->uuid = out->label = out->read_path = NULL;
        out->state = REPO_DISK_KEPT;
        return copy_texts(out, d, d->base->read_path, e);
    }
    *out = (struct repo_generation_disk){
        .state = REPO_DISK_READ,
        .capacity_bytes = d->shape.capacity_bytes,
        .block_bytes = d->shape.block_bytes,
        .levels = (uint8_t)d->shape.levels,
        .secret = d->secret,
        .root = d->result.root,
        .top = d->done.top,
        .allocated_bytes = facts->allocated_bytes,
        .read_bytes = facts->read_bytes,
        .sampled_bytes = facts->sampled_bytes,
        .changed_bytes = d->result.changed_bytes,
        .sent_bytes = facts->sent_bytes,
        .stored_bytes = d->result.stored_bytes,
        .milliseconds = facts->milliseconds,
        .of = number,
    };
    return copy_texts(out, d, facts->read_path, e);
}

static int describe_head(struct repo_run *run, const struct repo_run_facts *facts,
                         struct repo_generation *g, struct err *e)
{
    const struct {
        char **to;
        const char *from;
    } texts[] = {
        { &g->kind, facts->kind },
        { &g->outcome, facts->outcome },
        { &g->consistency, facts->consistency },
        { &g->data_channel, facts->data_channel },
        { &g->read_path, facts->read_path },
        { &g->change_source, facts->change_source },
        { &g->snapshot, facts->snapshot },
        { &g->host_uuid, run->host_uuid },
        { &g->host_name, run->host_name },
        { &g->vm_uuid, run->vm_uuid },
        { &g->vmx_path, run->vmx_path },
        { &g->vm_name, run->vm_name },
        { &g->program, "vmferry " VMFERRY_VERSION },
    };

    g->vm = run->vm;
    g->number = run->newest + 1;
    g->parent = run->parent.number;
    randombytes_buf(g->key.b, sizeof g->key.b);
    g->time = (uint64_t)max_u64(facts->time > 0 ? (uint64_t)facts->time : 0, 0);
    g->committed = (uint64_t)clock_now();
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        if (generation_text(texts[i].to, texts[i].from, e) != 0)
            return -1;
    return 0;
}

static int describe(struct repo_run *run, const struct repo_run_facts *facts,
                    struct repo_generation *g, struct err *e)
{
    if (describe_head(run, facts, g, e) != 0)
        return -1;
    g->disks = calloc(run->count > 0 ? run->count : 1, sizeof g->disks[0]);
    if (g->disks == NULL)
        return err_sys(e, "getting memory");
    for (size_t i = 0; i < run->count; i++) {
        struct run_disk *d = &run->disks[i];

        if (d->included && !d->ended)
            return err_set(e, ERR_USAGE, "disk %s has not come to its end", d->slot);
        g->disk_count++;
        if (describe_disk(d, g->number, &facts->disks[i], &g->disks[i], e) != 0)
            return -1;
    }
    g->files = run->files;
    g->file_count = run->file_count;
    run->files = NULL;
    run->file_count = 0;
    return 0;
}

static int remove_partial(struct repo_run *run, const char *name, struct err *e)
{
    (void)e;
    /* Best effort: who may not remove leaves it to prune. */
    struct err none;

    (void)storage_remove(run->repo->storage, name, &none);
    return 0;
}

/* What only mattered before the commit.  None of it can fail the run any more. */
static void clean_up(struct repo_run *run)
{
    struct storage_list *list;
    struct storage_item item;
    struct repo_key vm;
    object_name prefix;
    uint64_t number;
    struct err none;

    (void)each_partial(run, remove_partial, &none);
    prefix_of_vm(prefix, "retired", &run->vm);
    if (storage_list(run->repo->storage, prefix, &list, &none) != 0)
        return;
    while (storage_next(list, &item, &none) > 0)
        /* Not the one of this generation, if somebody has forgotten it already. */
        if (name_is_generation(item.name, "retired", &vm, &number) && number <= run->newest)
            (void)storage_remove(run->repo->storage, item.name, &none);
    storage_list_end(list);
}

int repo_run_commit(struct repo_run *run, const struct repo_run_facts *facts,
                    struct repo_committed *out, struct err *e)
{
    struct repo *r = run->repo;
    struct repo_generation g = { 0 };
    int rc = -1;

    /* Durable first: blocks, nodes, their index.  The manifest is the commit. */
    if (describe(run, facts, &g, e) != 0 || repo_flush(r, e) != 0 || repo_check_stop(r, e) != 0 ||
        storage_lock_proof(r->lock, e) != 0 || storage_lock_proof(run->vm_lock, e) != 0 ||
        failpoint("repo.commit", e) != 0 || generation_put(r, &g, e) != 0 ||
        failpoint("repo.manifest-published", e) != 0)
        goto out;
    if (storage_barrier(r->storage, e) != 0 || failpoint("repo.committed", e) != 0)
        goto out;
    run->committed = true;
    out->number = g.number;
    out->key = g.key;
    clean_up(run);
    ask_table_committed(r, &g);
    rc = 0;

out:
    repo_generation_free(&g);
    return rc;
}

/* Disks that had come to their end count as held in the next run. */
static void keep_ended(struct repo_run *run)
{
    struct err e;

    for (size_t i = 0; i < run->count; i++) {
        struct run_disk *d = &run->disks[i];

        if (d->ended && d->result.stored_bytes > 0 && run_partial(d, &d->done, &e) != 0)
            repo_warn(run->repo, "disk %s: %s", d->slot, e.text);
    }
}

void repo_run_end(struct repo_run *run)
{
    if (run == NULL)
        return;
    if (!run->committed)
        keep_ended(run);
    for (size_t i = 0; i < run->count; i++) {
        struct run_disk *d = &run->disks[i];

        free(d->slot);
        free(d->uuid);
        free(d->label);
        partial_free(&d->found);
        tree_spine_free(&d->done);
    }
    for (uint32_t i = 0; i < run->file_count; i++) {
        free(run->files[i].name);
        free(run->files[i].blocks);
    }
    free(run->files);
    free(run->disks);
    repo_generation_free(&run->parent);
    free(run->host_uuid);
    free(run->host_name);
    free(run->vm_uuid);
    free(run->vmx_path);
    free(run->vm_name);
    storage_lock_release(run->vm_lock);
    free(run);
}
