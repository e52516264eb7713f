/*
 * The text descriptor of one VMDK link.
 * Format: VMware, Virtual Disk Format 5.0, "The Descriptor File", with the stricter rules that
 * ESXi's own disk library applies: no key twice, at least one extent, known create type, known
 * header keys. The reader knows the text only; whether a link of this type can be read is decided
 * elsewhere.
 */
#ifndef PROTOCOL_VMDK_DESCRIPTOR_H
#define PROTOCOL_VMDK_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes;
struct err;

enum {
    DESCRIPTOR_BYTES_MAX = 1 << 20,
    DESCRIPTOR_EXTENTS_MAX = 1024,
    DESCRIPTOR_DDB_MAX = 256,
    DESCRIPTOR_NAME_MAX = 1024, /* bytes of an extent name or parent hint */
    DESCRIPTOR_SECTOR_BYTES = 512,
};
#define DESCRIPTOR_CID_NONE UINT32_C(0xffffffff)
#define DESCRIPTOR_SECTORS_MAX (UINT64_C(1) << 37) /* 64 TiB; ESXi ends at 62 TB */

enum descriptor_access { ACCESS_RW, ACCESS_RDONLY, ACCESS_NOACCESS };

struct descriptor_extent {
    enum descriptor_access access;
    uint64_t sectors;
    char type[24]; /* in capitals: "VMFS", "VMFSSPARSE", "SESPARSE", "VMFSRDM", … */
    char *name;    /* "" when the line has none (ZERO) */
    bool has_offset;
    uint64_t offset_sectors; /* FLAT only */
};

struct descriptor_ddb {
    char *name; /* without "ddb." */
    char *value;
};

struct descriptor {
    unsigned version;
    char encoding[40]; /* "" when not given */
    uint32_t cid;
    uint32_t parent_cid;  /* DESCRIPTOR_CID_NONE: a base */
    char create_type[40]; /* as written */
    char *parent_hint;    /* parentFileNameHint, or NULL */
    char *change_track;   /* changeTrackPath, or NULL */
    bool native_snapshot; /* isNativeSnapshot="yes" */
    bool encrypted;       /* keyID or encryptionKeys */
    struct descriptor_extent *extents;
    size_t extent_count;
    uint64_t capacity_bytes; /* the sum of the extents */
    struct descriptor_ddb *ddb;
    size_t ddb_count;
};

/*
 * Read text, which may be padded at its end by NULs or blanks.  *out is owned by the caller.
 * 0, or -1: ERR_FORMAT (no descriptor: empty, or starting with neither '#' nor its version),
 * ERR_CORRUPT (a line that breaks the grammar; its number is named), ERR_LIMIT, ERR_SYSTEM.
 */
int descriptor_read(struct descriptor **out, const void *text, size_t bytes, struct err *e);
void descriptor_free(struct descriptor *d); /* NULL is allowed */

/*
 * The text of d, appended to out in the shape that ESXi writes: sections in their order, one blank
 * around a ddb's '='; ddb lines in the order of d (a host's are in alphabetical order).
 * descriptor_read of it gives the same again. What the grammar cannot say (a quote at a wrong
 * place, a line break, no extent, an encrypted or native disk) is refused.  0, or -1: ERR_USAGE,
 * ERR_LIMIT (out's ceiling), ERR_SYSTEM.
 */
int descriptor_write(const struct descriptor *d, struct bytes *out, struct err *e);

/* The geometry that VMware gives a new disk of this size. */
struct descriptor_geometry {
    uint32_t cylinders, heads, sectors;
};
struct descriptor_geometry descriptor_geometry_of(uint64_t capacity_bytes, bool ide);

/*
 * The one extent that has a size, or NULL when there are several or none: some tools add lines of
 * no size (NOACCESS 0 ZERO).
 */
const struct descriptor_extent *descriptor_only_extent(const struct descriptor *d);

/* The value of ddb.NAME, or NULL. */
const char *descriptor_ddb(const struct descriptor *d, const char *name);

/* The first ddb key that shows an unfinished consolidation or a native snapshot, or NULL. */
const char *descriptor_unfinished(const struct descriptor *d);

/* Equal types: the cases of letters do not count. */
bool descriptor_word_is(const char *word, const char *type);

#endif
