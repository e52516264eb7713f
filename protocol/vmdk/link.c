/* One link: its descriptor, what that may say, and its extents. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/vmdk/chain_private.h"
#include "protocol/vmdk/descriptor.h"
#include "protocol/vmdk/sparse_header.h"

enum { SECTOR = DESCRIPTOR_SECTOR_BYTES, SNIFF_BYTES = 512 };

/* ---- what a create type allows ---- */

enum { ONE = 1 << 0, ESXI = 1 << 1, NEEDS_PARENT = 1 << 2, NEVER_PARENT = 1 << 3 };

struct create_type {
    const char *name;
    const char *extents; /* the types that its lines may have, each with a blank around */
    unsigned rules;
};

static const struct create_type create_types[] = {
    { "vmfs", " VMFS ", ONE | ESXI | NEVER_PARENT },
    /* In documents and in the API, but never in a host's own list. */
    { "vmfsThin", " VMFS ", ONE | ESXI | NEVER_PARENT },
    { "vmfsThick", " VMFS ", ONE | ESXI | NEVER_PARENT },
    { "vmfsPreallocated", " VMFS ", ONE | ESXI | NEVER_PARENT },
    { "vmfsEagerZeroedThick", " VMFS ", ONE | ESXI | NEVER_PARENT },
    { "vmfsSparse", " VMFSSPARSE ", ONE | ESXI | NEEDS_PARENT },
    { "seSparse", " SESPARSE ", ONE | ESXI | NEEDS_PARENT },
    { "monolithicSparse", " SPARSE ", ONE },
    { "monolithicFlat", " FLAT ", ONE | NEVER_PARENT },
    { "twoGbMaxExtentSparse", " SPARSE ZERO ", 0 },
    { "2GbMaxExtentSparse", " SPARSE ZERO ", 0 },
    { "twoGbMaxExtentFlat", " FLAT ZERO ", NEVER_PARENT },
    { "2GbMaxExtentFlat", " FLAT ZERO ", NEVER_PARENT },
    { "streamOptimized", " SPARSE ", ONE },
    { "custom", " FLAT SPARSE ZERO VMFS ", 0 },
};

/* Types that are known and not read, and why. */
static const struct {
    const char *name, *why;
} refused_types[] = {
    { "vmfsRawDeviceMap", "is a raw device mapping, which is not read" },
    { "vmfsPassthroughRawDeviceMap", "is a raw device mapping, which is not read" },
    { "vmfsRaw", "is a raw device, which is not read" },
    { "fullDevice", "is a raw device, which is not read" },
    { "partitionedDevice", "is a raw device, which is not read" },
    { "vsanSparse", "is a vSAN object and no file" },
};

static const struct create_type *find_type(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(create_types); i++)
        if (descriptor_word_is(name, create_types[i].name))
            return &create_types[i];
    return NULL;
}

static int refuse_type(const char *name, struct err *e)
{
    for (size_t i = 0; i < ARRAY_COUNT(refused_types); i++)
        if (descriptor_word_is(name, refused_types[i].name))
            return err_set(e, ERR_UNSUPPORTED, "createType \"%s\" %s", name, refused_types[i].why);
    return err_set(e, ERR_UNSUPPORTED, "createType \"%s\" is not known", name);
}

static bool allows(const struct create_type *t, const char *extent_type)
{
    size_t bytes = strlen(extent_type);

    for (const char *at = strstr(t->extents, extent_type); at != NULL;
         at = strstr(at + 1, extent_type))
        if (at[-1] == ' ' && at[bytes] == ' ')
            return true;
    return false;
}

/* ---- what a descriptor may say ---- */

/* Why a disk must not be read through its files, whatever its type; NULL if nothing is wrong. */
static const char *trap_in(const struct descriptor *d, enum err_code *code)
{
    const char *sector = descriptor_ddb(d, "logicalSectorSize");

    *code = ERR_UNSUPPORTED;
    if (d->encrypted || descriptor_ddb(d, "KMFilters") != NULL)
        return "the disk is encrypted: its files hold no plain data";
    if (d->native_snapshot)
        return "the link is a snapshot of the storage array, not a file";
    if (sector != NULL && strcmp(sector, "512") != 0)
        return "ddb.logicalSectorSize is not 512";
    if (descriptor_unfinished(d) != NULL) {
        *code = ERR_SOURCE;
        return "the link is in the middle of a consolidation, or linked to the storage array: let "
               "the host consolidate the VM's disks first";
    }
    return NULL;
}

static bool is_ascii(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text >= 0x80)
            return false;
    return true;
}

/* Names are bytes of the file system, which are UTF-8: another encoding would need a translation.
 */
static int check_encoding(const struct descriptor *d, struct err *e)
{
    const char *encoding = d->encoding[0] != '\0' ? d->encoding : descriptor_ddb(d, "encoding");
    bool plain = d->parent_hint == NULL || is_ascii(d->parent_hint);

    if (encoding == NULL || descriptor_word_is(encoding, "UTF-8"))
        return 0;
    for (size_t i = 0; i < d->extent_count; i++)
        plain = plain && is_ascii(d->extents[i].name);
    return plain ? 0
                 : err_set(e, ERR_UNSUPPORTED,
                           "a file name is written in the encoding \"%s\", and only UTF-8 is read",
                           encoding);
}

static int check_parent(const struct create_type *t, const struct descriptor *d, struct err *e)
{
    bool child = d->parent_cid != DESCRIPTOR_CID_NONE;

    if (child && d->parent_hint == NULL)
        return err_set(e, ERR_CORRUPT,
                       "parentCID says that there is a parent, but there is no "
                       "parentFileNameHint");
    if (!child && d->parent_hint != NULL)
        return err_set(e, ERR_CORRUPT,
                       "parentFileNameHint names a parent, but parentCID says that "
                       "there is none");
    if (child && (t->rules & NEVER_PARENT) != 0)
        return err_set(e, ERR_CORRUPT,
                       "the link has a parent, although createType \"%s\" is that "
                       "of a base",
                       d->create_type);
    if (!child && (t->rules & NEEDS_PARENT) != 0)
        return err_set(e, ERR_CORRUPT,
                       "the link has no parent, although createType \"%s\" is that "
                       "of a delta",
                       d->create_type);
    return 0;
}

static int check_line(const struct create_type *t, const struct descriptor *d, size_t index,
                      struct err *e)
{
    const struct descriptor_extent *x = &d->extents[index];
    bool is_zero = strcmp(x->type, "ZERO") == 0;

    if (x->sectors == 0) /* "NOACCESS 0 ZERO", as some tools write */
        return 0;
    if (!allows(t, x->type))
        return err_set(e, ERR_UNSUPPORTED,
                       "extent %zu is of type %s, which createType \"%s\" does "
                       "not have",
                       index, x->type, d->create_type);
    if (x->access == ACCESS_NOACCESS)
        return err_set(e, ERR_UNSUPPORTED, "extent %zu is marked NOACCESS", index);
    if (!is_zero && !vmdk_name_is_bare(x->name))
        return err_set(
            e, ERR_REFUSED,
            "the name of extent %zu, \"%s\", is not that of a file beside the descriptor", index,
            x->name);
    if (x->offset_sectors != 0 && strcmp(x->type, "FLAT") != 0)
        return err_set(e, ERR_CORRUPT, "extent %zu of type %s has an offset", index, x->type);
    return 0;
}

static int check_descriptor(const struct vmdk_chain *c, const struct descriptor *d, struct err *e)
{
    const struct create_type *t = find_type(d->create_type);
    enum err_code code;
    const char *trap = trap_in(d, &code);

    if (t == NULL)
        return refuse_type(d->create_type, e);
    if (trap != NULL)
        return err_set(e, code, "%s", trap);
    if ((c->config.flags & VMDK_ONLY_ESXI) != 0 && (t->rules & ESXI) == 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "createType \"%s\" is that of a hosted product; a host keeps no such disk",
                       d->create_type);
    if (d->capacity_bytes == 0)
        return err_set(e, ERR_CORRUPT, "the extents have no size");
    if ((t->rules & ONE) != 0 && descriptor_only_extent(d) == NULL)
        return err_set(e, ERR_CORRUPT, "createType \"%s\" has one extent, not %zu", d->create_type,
                       d->extent_count);
    if (check_parent(t, d, e) != 0 || check_encoding(d, e) != 0)
        return -1;
    for (size_t i = 0; i < d->extent_count; i++)
        if (check_line(t, d, i, e) != 0)
            return -1;
    return 0;
}

/* ---- reading the descriptor ---- */

/* Which part of the file is the descriptor's text. */
static int find_text(struct source *file, uint64_t *at, uint64_t *bytes, bool *embedded,
                     struct err *e)
{
    static const uint8_t sesparse[8] = { 0xbe, 0xba, 0xfe, 0xca };
    static const uint8_t tracking[4] = { 0xa2, 0x72, 0x19, 0xf6 }; /* documented, not seen */
    uint8_t raw[SNIFF_BYTES] = { 0 };
    size_t count = (size_t)min_u64(sizeof raw, file->capacity_bytes);
    struct sparse_header h;

    *at = 0;
    *bytes = file->capacity_bytes;
    *embedded = false;
    if (source_read(file, 0, raw, count, e) != 0)
        return -1;
    if (memcmp(raw, "COWD", 4) == 0 || memcmp(raw, sesparse, sizeof sesparse) == 0)
        return err_set(e, ERR_FORMAT, "this is the data of a delta: name its descriptor instead");
    if (memcmp(raw, tracking, sizeof tracking) == 0)
        return err_set(e, ERR_FORMAT, "this is a change tracking file, whose format is not known");
    if (memcmp(raw, "KDMV", 4) != 0)
        return 0;
    *embedded = true;
    if (sparse_header_read(&h, raw, e) != 0 ||
        sparse_header_descriptor(&h, file->capacity_bytes, at, bytes, e) != 0)
        return -1;
    if (*bytes == 0)
        return err_set(e, ERR_FORMAT,
                       "this is one extent of a disk: name the disk's descriptor instead");
    return 0;
}

static int read_descriptor(struct vmdk_chain *c, struct link *l, struct err *e)
{
    uint64_t at, bytes;
    char *text;
    int rc = -1;

    if (find_text(l->file.source, &at, &bytes, &l->info.embedded, e) != 0)
        return -1;
    if (bytes > DESCRIPTOR_BYTES_MAX)
        return err_set(e, ERR_FORMAT, "%" PRIu64 " bytes are too long for a descriptor", bytes);
    if (bytes > VMDK_DESCRIPTORS_BYTES_MAX - c->text_bytes)
        return err_set(e, ERR_LIMIT, "the descriptors of the chain are longer than %d bytes",
                       VMDK_DESCRIPTORS_BYTES_MAX);
    text = malloc((size_t)bytes);
    if (text == NULL)
        return err_sys(e, "reading a descriptor");
    if (source_read(l->file.source, at, text, (size_t)bytes, e) == 0)
        rc = descriptor_read(&l->descriptor, text, (size_t)bytes, e);
    free(text);
    if (rc == 0)
        c->text_bytes += (size_t)bytes;
    return rc;
}

/* ---- extents ---- */

typedef int (*extent_opener)(struct extent_file **out, const struct extent_plan *p, struct err *e);

static extent_opener opener_of(const char *type)
{
    static const struct {
        const char *type;
        extent_opener open;
    } openers[] = {
        { "VMFS", flat_open },     { "FLAT", flat_open },         { "VMFSSPARSE", cowd_open },
        { "SPARSE", sparse_open }, { "SESPARSE", sesparse_open },
    };

    for (size_t i = 0; i < ARRAY_COUNT(openers); i++)
        if (strcmp(openers[i].type, type) == 0)
            return openers[i].open;
    return NULL;
}

bool file_is_same(const struct vmdk_file *a, const struct vmdk_file *b)
{
    if (a->place == NULL || b->place == NULL)
        return false;
    if (strcmp(a->place, b->place) == 0)
        return true;
    return (a->device != 0 || a->inode != 0) && a->inode == b->inode && a->device == b->device;
}

/* Is a file already part of the links above, or of this one as something else? */
static int check_new(const struct vmdk_chain *c, const struct vmdk_file *file, struct err *e)
{
    for (size_t i = 0; i < c->link_count; i++) {
        const struct link *l = &c->links[i];
        bool met = file_is_same(&l->file, file);

        for (size_t k = 0; k < l->slot_count && !met; k++)
            met = file_is_same(&l->slots[k].file, file);
        if (met)
            return err_set(e, ERR_REFUSED,
                           "the chain meets the file %s twice: it was there in link %zu",
                           file->place, i);
    }
    return 0;
}

/* Extents of one link may share a flat file; a file with tables is one extent's alone. */
static int check_sharing(const struct link *l, size_t index, struct err *e)
{
    const struct slot *s = &l->slots[index];

    if (file_is_same(&s->file, &l->file))
        return err_set(e, ERR_REFUSED, "the descriptor names itself as an extent");
    for (size_t i = 0; i < index; i++)
        if (file_is_same(&l->slots[i].file, &s->file) &&
            (strcmp(l->descriptor->extents[i].type, "FLAT") != 0 ||
             strcmp(l->descriptor->extents[index].type, "FLAT") != 0))
            return err_set(e, ERR_REFUSED, "extents %zu and %zu are the same file", i, index);
    return 0;
}

static int open_slot_file(struct vmdk_chain *c, struct link *l, size_t index, struct source **file,
                          struct err *e)
{
    const struct descriptor_extent *line = &l->descriptor->extents[index];
    struct slot *s = &l->slots[index];

    *file = NULL;
    if (strcmp(line->type, "ZERO") == 0 || line->sectors == 0)
        return 0;
    if (l->info.embedded) { /* the one extent is the file itself, whatever it is called */
        *file = l->file.source;
        return 0;
    }
    if (c->file_count == VMDK_EXTENT_FILES_MAX)
        return err_set(e, ERR_LIMIT, "the chain has more than %d extent files",
                       VMDK_EXTENT_FILES_MAX);
    if (c->config.files->open(c->config.files, l->file.place, line->name, VMDK_EXTENT, &s->file,
                              e) != 0 ||
        check_new(c, &s->file, e) != 0 || check_sharing(l, index, e) != 0)
        return -1;
    c->file_count++;
    *file = s->file.source;
    return 0;
}

static int open_slot(struct vmdk_chain *c, struct link *l, size_t index, struct err *e)
{
    const struct descriptor_extent *line = &l->descriptor->extents[index];
    bool is_flat = strcmp(line->type, "FLAT") == 0 || strcmp(line->type, "VMFS") == 0;
    struct slot *s = &l->slots[index];
    struct extent_plan plan = {
        .pages = c->pages,
        .codec = c->config.codec,
        .slot = &c->packed,
        .capacity_bytes = line->sectors * SECTOR,
        .start_bytes = line->offset_sectors * SECTOR,
        .exact_size = strcmp(line->type, "VMFS") == 0,
    };

    s->start_bytes = l->info.capacity_bytes;
    s->length_bytes = plan.capacity_bytes;
    if (open_slot_file(c, l, index, &plan.file, e) != 0)
        return err_add(e, "extent %zu", index);
    /* Numbers of a link that is given up again are not used twice: its pages may be cached. */
    plan.file_id = (uint32_t)(c->link_count * DESCRIPTOR_EXTENTS_MAX + index);
    if ((plan.file == NULL ? zero_open : opener_of(line->type))(&s->x, &plan, e) != 0)
        return err_add(e, "%s", l->info.embedded ? l->file.place : s->file.place);
    l->info.capacity_bytes += s->length_bytes;
    if (plan.file != NULL) {
        l->info.file_bytes += plan.file->capacity_bytes;
        c->source.flags |= plan.file->flags & (SOURCE_SEQUENTIAL | SOURCE_HOLES_CLAIMED);
        c->source.allocated_bytes += min_u64(plan.file->allocated_bytes, s->length_bytes);
    }
    if (is_flat && plan.file != NULL)
        c->seeks_holes = c->seeks_holes && s->file.seeks_holes;
    if (s->x->grain_bytes != 0 &&
        (l->info.grain_bytes == 0 || s->x->grain_bytes < l->info.grain_bytes))
        l->info.grain_bytes = s->x->grain_bytes;
    return 0;
}

static int open_slots(struct vmdk_chain *c, struct link *l, struct err *e)
{
    const struct descriptor_extent *only = descriptor_only_extent(l->descriptor);
    size_t count = l->descriptor->extent_count;

    if (l->info.embedded && only == NULL)
        return err_set(e, ERR_UNSUPPORTED, "a descriptor inside an extent has one extent, not %zu",
                       count);
    l->slots = calloc(count, sizeof *l->slots);
    if (l->slots == NULL)
        return err_sys(e, "opening a disk");
    for (size_t i = 0; i < count; i++) {
        l->slot_count++;
        if (open_slot(c, l, i, e) != 0)
            return -1;
    }
    l->info.format = only == NULL ? "split" : l->slots[only - l->descriptor->extents].x->format;
    return 0;
}

/* ---- links ---- */

void link_close(struct link *l)
{
    for (size_t i = 0; i < l->slot_count; i++) {
        if (l->slots[i].x != NULL)
            l->slots[i].x->ops->close(l->slots[i].x);
        vmdk_file_close(&l->slots[i].file);
    }
    free(l->slots);
    descriptor_free(l->descriptor);
    vmdk_file_close(&l->file);
    *l = (struct link){ 0 };
}

int link_open(struct vmdk_chain *c, const char *from, const char *name, struct err *e)
{
    struct link *l = &c->links[c->link_count];
    struct vmdk_files *files = c->config.files;
    int rc = -1;

    *l = (struct link){ 0 };
    if (files->open(files, from, name, from == NULL ? VMDK_TIP : VMDK_PARENT, &l->file, e) != 0)
        return -1;
    if (check_new(c, &l->file, e) != 0)
        goto out;
    if (read_descriptor(c, l, e) != 0 || check_descriptor(c, l->descriptor, e) != 0 ||
        open_slots(c, l, e) != 0) {
        err_add(e, "%s", l->file.place);
        goto out;
    }
    if (!l->info.embedded) { /* not read any more */
        source_close(l->file.source);
        l->file.source = NULL;
    }
    l->info.place = l->file.place;
    l->info.descriptor = l->descriptor;
    l->info.allocated_bytes = l->info.zero_bytes = VMDK_BYTES_UNKNOWN;
    l->info.extent_count = l->slot_count;
    c->link_count++;
    rc = 0;

out:
    if (rc != 0)
        link_close(l);
    return rc;
}

int link_run_at(const struct link *l, uint64_t at, uint64_t limit, bool places, struct run *out,
                const struct slot **slot, struct err *e)
{
    size_t low = 0, high = l->slot_count - 1;
    const struct slot *s;

    while (low < high) { /* the last slot that starts at or before `at` */
        size_t middle = low + (high - low + 1) / 2;

        if (l->slots[middle].start_bytes <= at)
            low = middle;
        else
            high = middle - 1;
    }
    s = &l->slots[low];
    at -= s->start_bytes;
    *slot = s;
    if (s->x->ops->run_at(s->x, at, min_u64(limit, s->length_bytes - at), places, out, e) != 0)
        return err_add(e, "%s", s->file.place != NULL ? s->file.place : l->file.place);
    return 0;
}
