/*
 * The "data object" dumps that vim-cmd prints.  Fields stand on lines of their own, indented by
 * their depth; strings are not escaped, so a name or a note may hold quotes, newlines and lines
 * that look like fields.  Two rules keep such text from being taken for fields: a string ends only
 * at a quote that ends its line and is followed by a line that fits at this depth, and an object
 * that has one field twice is refused.  What cannot be read for certain is an error, never a guess.
 *
 * Format: seen in captures of ESXi 6.5 to 8.0; `dynamicType` lines are from 5.x.
 */
#ifndef RECEIVER_HOST_VIMDUMP_H
#define RECEIVER_HOST_VIMDUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum {
    VIMDUMP_BYTES_MAX = 4 << 20,
    VIMDUMP_DEPTH_MAX = 64,
    VIMDUMP_ITEMS_MAX = 1 << 17,
};

enum vimnode_kind {
    VIMNODE_UNSET,  /* <unset> or (type) null */
    VIMNODE_OBJECT, /* (type) { … } */
    VIMNODE_ARRAY,  /* (type) [ … ] */
    VIMNODE_STRING, /* "…": text */
    VIMNODE_REF,    /* '…': text, as in vim.VirtualMachine:3 */
    VIMNODE_BARE    /* true, 42, an enumerator: text */
};

/* Lent by its vimdump. */
struct vimnode {
    enum vimnode_kind kind;
    const char *name; /* the field's name; NULL for array items and the root */
    const char *type; /* of objects, arrays and typed nulls; else NULL */
    const char *text; /* strings, refs and bare words; NUL-terminated, raw bytes; else NULL */
    size_t text_bytes;
    struct vimnode *first; /* fields or items */
    struct vimnode *next;
    size_t count;
};

struct vimdump;

/*
 * Read the first object or array of text; what stands before it ("Listsummary:") is skipped.
 * 0, or -1: ERR_FORMAT (there is no object in it), ERR_CORRUPT (cut short, or a line that does not
 * fit; its number is named), ERR_LIMIT, ERR_SYSTEM.
 */
int vimdump_read(struct vimdump **out, const char *text, size_t bytes, struct err *e);
void vimdump_free(struct vimdump *d); /* NULL is allowed */

const struct vimnode *vimdump_root(const struct vimdump *d);

/* A field below node by a path of names, "runtime.powerState"; NULL when a part is not there. */
const struct vimnode *vimnode_at(const struct vimnode *node, const char *path);

/* The text of a string, ref or bare word by path; NULL when it is not there or unset. */
const char *vimnode_text(const struct vimnode *node, const char *path);

/* A decimal number by path; false, and *out untouched, when it is not there or no such number. */
bool vimnode_u64(const struct vimnode *node, const char *path, uint64_t *out);
bool vimnode_bool(const struct vimnode *node, const char *path, bool *out);

#endif
