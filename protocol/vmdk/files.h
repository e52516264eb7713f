/*
 * Where the files of a chain come from.  The readers never open a path themselves: they name what a
 * descriptor mentions, and the table of their caller opens it, or refuses.
 *
 * A *place* is the name by which an opened file is known again: for local files its canonical
 * absolute path.  It is only ever given back to the same table.
 */
#ifndef PROTOCOL_VMDK_FILES_H
#define PROTOCOL_VMDK_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct source;

enum { VMDK_PLACE_MAX = 4096 }; /* bytes of a place, without its NUL */

enum vmdk_role {
    VMDK_TIP,    /* the link that the caller named; `from` is NULL */
    VMDK_PARENT, /* the parent hint of the descriptor at `from` */
    VMDK_EXTENT  /* an extent name of the descriptor at `from`: always a bare name beside it */
};

/* An opened file.  Empty value: { 0 }. */
struct vmdk_file {
    struct source *source; /* the raw bytes; its capacity is the file's size */
    uint64_t size_bytes;   /* the same, which stays known when the source is closed */
    char *place;
    uint64_t device, inode; /* equal for one file by whatever name; both 0: not known */
    int64_t modified_ns;    /* 0 if unknown */
    bool seeks_holes;       /* the source's extents know the holes of the file system */
};

void vmdk_file_close(struct vmdk_file *f); /* the empty value is allowed */

struct vmdk_files {
    /*
     * Open the file that name means.  0 and *out, or -1: ERR_REFUSED (a name that leads out of the
     * known volumes, through a link, or to something that is no regular file), ERR_NOT_FOUND,
     * ERR_SOURCE (locked by a running VM), ERR_UNSUPPORTED, ERR_CORRUPT (empty), ERR_SYSTEM.
     */
    int (*open)(struct vmdk_files *f, const char *from, const char *name, enum vmdk_role role,
                struct vmdk_file *out, struct err *e);
    /*
     * Is the file at its place still the one that was opened, of the same size and time?  0, or -1
     * with ERR_SOURCE.  NULL: the table cannot tell.
     */
    int (*unchanged)(struct vmdk_files *f, const struct vmdk_file *file, struct err *e);
    void (*close)(struct vmdk_files *f); /* frees f too */
};

static inline void vmdk_files_close(struct vmdk_files *f)
{
    if (f != NULL)
        f->close(f);
}

/*
 * Is name one component without '/', '\', control characters, and neither "", "." nor ".."?
 * What an extent may be called.
 */
bool vmdk_name_is_bare(const char *name);

/* ---- local files ---- */

enum { VMDK_VOLUMES_MAX = 256 };

/*
 * A folder that files may lie in, or below.  path is absolute and already resolved: no component of
 * it is looked at again.  alias, or NULL, is another absolute name that hints may use for it
 * (/vmfs/volumes/LABEL beside /vmfs/volumes/UUID).
 */
struct vmdk_volume {
    const char *path;
    const char *alias;
};

/*
 * Files of this machine in the given folders, which are copied.  Every name is made absolute by its
 * letters alone, must lie below a volume (a parent by a relative name: below the volume of its
 * child), and is then opened component by component from the volume without following a link; only
 * regular files are taken, and a FIFO or device is never waited for.  Where openat is missing
 * (ESXi) the components are looked at one by one instead, before and after the file is opened.
 *
 * A tip may be given by an absolute name only.
 * 0, or -1: ERR_USAGE (no absolute path), ERR_LIMIT, ERR_NOT_FOUND, ERR_SYSTEM.
 */
int vmdk_local_files_new(struct vmdk_files **out, const struct vmdk_volume *volumes, size_t count,
                         struct err *e);

#endif
