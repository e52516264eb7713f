/* The way back: a descriptor's text, in the shape that ESXi writes and that all readers know. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "protocol/vmdk/descriptor.h"

enum { LINE_MAX_BYTES = 2 * DESCRIPTOR_NAME_MAX + 128 };

static int put(struct bytes *out, struct err *e, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int put(struct bytes *out, struct err *e, const char *format, ...)
{
    char line[LINE_MAX_BYTES];
    va_list args;
    int count;

    va_start(args, format);
    count = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (count < 0 || (size_t)count >= sizeof line)
        return err_set(e, ERR_LIMIT, "a line of a descriptor is too long");
    return bytes_append(out, line, (size_t)count, e);
}

/* Can the grammar say this inside quotes?  It has no escapes: only the end of a line is an end. */
static int check_text(const char *text, const char *what, struct err *e)
{
    if (strlen(text) > DESCRIPTOR_NAME_MAX)
        return err_set(e, ERR_LIMIT, "%s is longer than %d bytes", what, DESCRIPTOR_NAME_MAX);
    if (strpbrk(text, "\r\n") != NULL)
        return err_set(e, ERR_USAGE, "%s holds a line break, which a descriptor cannot say", what);
    return 0;
}

static int check_ddb(const struct descriptor_ddb *item, struct err *e)
{
    size_t bytes = strlen(item->name);

    if (bytes == 0 || strchr(item->name, '=') != NULL || item->name[bytes - 1] == ' ' ||
        item->name[bytes - 1] == '\t')
        return err_set(e, ERR_USAGE, "\"%s\" cannot be the name of a ddb entry", item->name);
    if (check_text(item->name, "the name of a ddb entry", e) != 0)
        return -1;
    return check_text(item->value, "the value of a ddb entry", e);
}

static int check_whole(const struct descriptor *d, struct err *e)
{
    if (d->encrypted || d->native_snapshot)
        return err_set(e, ERR_USAGE,
                       "the descriptor of an encrypted or native disk is not written");
    if (d->version < 1 || d->version > 3 || d->create_type[0] == '\0' || d->extent_count == 0)
        return err_set(e, ERR_USAGE, "the descriptor lacks a version, a type or its extents");
    if (check_text(d->create_type, "createType", e) != 0 ||
        check_text(d->encoding, "encoding", e) != 0 ||
        (d->parent_hint != NULL && check_text(d->parent_hint, "parentFileNameHint", e) != 0) ||
        (d->change_track != NULL && check_text(d->change_track, "changeTrackPath", e) != 0))
        return -1;
    for (size_t i = 0; i < d->extent_count; i++)
        if (check_text(d->extents[i].name, "the name of an extent", e) != 0)
            return -1;
    for (size_t i = 0; i < d->ddb_count; i++)
        if (check_ddb(&d->ddb[i], e) != 0)
            return -1;
    return 0;
}

static int put_header(const struct descriptor *d, struct bytes *out, struct err *e)
{
    if (put(out, e, "# Disk DescriptorFile\nversion=%u\n", d->version) != 0 ||
        (d->encoding[0] != '\0' && put(out, e, "encoding=\"%s\"\n", d->encoding) != 0) ||
        put(out, e, "CID=%08" PRIx32 "\nparentCID=%08" PRIx32 "\ncreateType=\"%s\"\n", d->cid,
            d->parent_cid, d->create_type) != 0)
        return -1;
    if (d->parent_hint == NULL)
        return 0;
    return put(out, e, "parentFileNameHint=\"%s\"\n", d->parent_hint);
}

static int put_extent(const struct descriptor_extent *x, struct bytes *out, struct err *e)
{
    static const char *const access[] = { "RW", "RDONLY", "NOACCESS" };

    if (put(out, e, "%s %" PRIu64 " %s", access[x->access], x->sectors, x->type) != 0)
        return -1;
    if ((x->name[0] != '\0' || x->has_offset) && put(out, e, " \"%s\"", x->name) != 0)
        return -1;
    if (x->has_offset && put(out, e, " %" PRIu64, x->offset_sectors) != 0)
        return -1;
    return put(out, e, "\n");
}

static int put_ddb(const struct descriptor *d, struct bytes *out, struct err *e)
{
    if (put(out, e, "\n# The Disk Data Base \n#DDB\n\n") != 0)
        return -1;
    for (size_t i = 0; i < d->ddb_count; i++)
        if (put(out, e, "ddb.%s = \"%s\"\n", d->ddb[i].name, d->ddb[i].value) != 0)
            return -1;
    return 0;
}

int descriptor_write(const struct descriptor *d, struct bytes *out, struct err *e)
{
    if (check_whole(d, e) != 0 || put_header(d, out, e) != 0 ||
        put(out, e, "\n# Extent description\n") != 0)
        return -1;
    for (size_t i = 0; i < d->extent_count; i++)
        if (put_extent(&d->extents[i], out, e) != 0)
            return -1;
    if (d->change_track != NULL &&
        put(out, e, "\n# Change Tracking File\nchangeTrackPath=\"%s\"\n", d->change_track) != 0)
        return -1;
    return put_ddb(d, out, e);
}

struct descriptor_geometry descriptor_geometry_of(uint64_t capacity_bytes, bool ide)
{
    bool small = capacity_bytes < UINT64_C(1) << 30;
    struct descriptor_geometry g = { .heads = ide     ? 16
                                              : small ? 64
                                                      : 255,
                                     .sectors = ide || !small ? 63 : 32 };
    uint64_t track = (uint64_t)g.heads * g.sectors;
    uint64_t sectors = capacity_bytes / DESCRIPTOR_SECTOR_BYTES;
    uint64_t cylinders = sectors / track + (sectors % track != 0);
    uint32_t most = ide ? 16383 : 65535;

    g.cylinders = cylinders > most ? most : (uint32_t)cylinders;
    return g;
}
