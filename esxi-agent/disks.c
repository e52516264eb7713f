#include "esxi-agent/disks.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/block/file_source.h"
#include "protocol/block/source.h"
#include "protocol/block/digest.h"
#include "protocol/vmdk/chain.h"
#include "protocol/vmdk/since.h"
#include "protocol/wire/crypto.h"

enum { CHAIN_CACHE_BYTES = 1 << 20 }; /* a walk meets each table once */

int disks_volume(struct disks *d, const char *path, const char *alias, struct err *e)
{
    size_t i = d->volume_count;

    if (d->files != NULL)
        return err_set(e, ERR_PEER, "a volume after the first chain");
    if (i == VMDK_VOLUMES_MAX)
        return err_set(e, ERR_LIMIT, "more than %d volumes", VMDK_VOLUMES_MAX);
    d->volume_paths[i] = strdup(path);
    d->volume_aliases[i] = alias != NULL ? strdup(alias) : NULL;
    d->volume_count++; /* so that disks_free sees whatever was had */
    if (d->volume_paths[i] == NULL || (alias != NULL && d->volume_aliases[i] == NULL))
        return err_sys(e, "getting memory for a volume");
    return 0;
}

static int make_files(struct disks *d, struct err *e)
{
    struct vmdk_volume volumes[VMDK_VOLUMES_MAX];

    for (size_t i = 0; i < d->volume_count; i++)
        volumes[i] = (struct vmdk_volume){ d->volume_paths[i], d->volume_aliases[i] };
    return vmdk_local_files_new(&d->files, volumes, d->volume_count, e);
}

/* Only what was written since the link at `place` was frozen.  c is closed when this fails. */
static int look_back(struct vmdk_chain *c, const char *place, uint32_t block_bytes,
                     struct source **out, struct err *e)
{
    uint64_t random[SINCE_CHECKS];

    if (!block_size_valid(block_bytes))
        err_set(e, ERR_PEER, "a hint in blocks of %u bytes", (unsigned)block_bytes);
    else if (crypto_random(random, sizeof random, e) == 0 &&
             vmdk_since_place(out, c, place, block_bytes, random, e) == 0)
        return 0;
    vmdk_chain_close(c);
    return -1;
}

static int open_chain(struct disks *d, const char *tip, const char *since, uint32_t since_block,
                      uint64_t capacity_bytes, struct source **out, enum hole_knowledge *holes,
                      struct err *e)
{
    struct vmdk_config config = { .cache_bytes = CHAIN_CACHE_BYTES, .flags = VMDK_ONLY_ESXI };
    struct vmdk_chain *c = NULL;
    struct source *s;

    if (d->files == NULL && make_files(d, e) != 0)
        return -1;
    config.files = d->files;
    if (vmdk_chain_open(&c, &config, tip, e) != 0)
        return -1;
    s = vmdk_chain_source(c);
    if (s->capacity_bytes != capacity_bytes) {
        vmdk_chain_close(c);
        return err_set(e, ERR_SOURCE, "%s is a disk of another size than expected", tip);
    }
    *holes = vmdk_chain_seeks_holes(c) ? HOLES_SEEK : HOLES_NONE;
    if (since != NULL)
        return look_back(c, since, since_block, out, e);
    *out = s;
    return 0;
}

static int open_flat(const char *path, uint64_t capacity_bytes, struct source **out,
                     enum hole_knowledge *holes, struct err *e)
{
    bool seeks = false;

    if (file_source_open(out, path, capacity_bytes, &seeks, e) != 0)
        return -1;
    *holes = seeks ? HOLES_SEEK : HOLES_NONE;
    return 0;
}

int disks_open(struct disks *d, const struct msg_disk_open *m, struct source **out,
               enum hole_knowledge *holes, struct err *e)
{
    char path[8192 + 2] = { 0 }; /* ends both */
    const char *since = NULL;
    size_t bytes;

    if (m->tail_bytes == 0 || m->tail_bytes > sizeof path - 2 || m->tail[0] != '/')
        return err_set(e, ERR_PEER, "a path that is none");
    memcpy(path, m->tail, m->tail_bytes);
    bytes = strlen(path);
    if (bytes < m->tail_bytes) {
        since = path + bytes + 1;
        if (m->format != DISK_CHAIN || since[0] != '/' ||
            bytes + 1 + strlen(since) != m->tail_bytes)
            return err_set(e, ERR_PEER, "a second path that is none");
    }
    if (m->capacity_bytes == 0)
        return err_set(e, ERR_PEER, "a disk without capacity");
    switch (m->format) {
    case DISK_FLAT:
        return open_flat(path, m->capacity_bytes, out, holes, e);
    case DISK_CHAIN:
        return open_chain(d, path, since, m->since_block, m->capacity_bytes, out, holes, e);
    default:
        return err_set(e, ERR_UNSUPPORTED, "a disk format of number %u", m->format);
    }
}

void disks_free(struct disks *d)
{
    vmdk_files_close(d->files);
    for (size_t i = 0; i < d->volume_count; i++) {
        free(d->volume_paths[i]);
        free(d->volume_aliases[i]);
    }
    *d = (struct disks){ 0 };
}
