/*
 * A directory of tables of grains: what COWD, seSparse and hosted sparse extents have in common.
 * A format says how wide its entries are and what one means; the walk over them is here.
 */
#ifndef PROTOCOL_VMDK_GRAIN_MAP_H
#define PROTOCOL_VMDK_GRAIN_MAP_H

#include "protocol/vmdk/extent_file.h"

struct grain_map;

/* What a table's entry means. */
struct grain {
    enum extent_kind kind;
    uint64_t file_bytes; /* EXTENT_DATA: where it lies */
};

struct grain_format {
    const char *name;
    unsigned directory_entry_bytes, entry_bytes; /* 4 or 8 */
    /*
     * Where the table of a directory entry lies; 0: there is none.  The answer is NULL, or why the
     * entry is wrong ("points past the end of the file").  The same for a grain, of which
     * used_bytes lie inside the capacity.
     */
    const char *(*table_of)(const struct grain_map *m, uint64_t entry, uint64_t *file_bytes);
    const char *(*grain_of)(const struct grain_map *m, uint64_t entry, uint64_t used_bytes,
                            struct grain *out);
};

struct grain_map {
    struct extent_file x;
    const struct grain_format *format;
    struct pages *pages;
    uint32_t file_id;
    uint64_t head_bytes;    /* at the start of the file, where nothing else may lie */
    uint64_t metadata_end;  /* byte of the file before which no grain lies; 0: any may */
    uint64_t directory_at;  /* byte of the file */
    uint64_t redundant_at;  /* byte of the second directory, which must say the same; 0: none */
    uint64_t table_count;   /* entries of the directory that count */
    uint32_t table_entries; /* to a table */
    bool packed;            /* grains are compressed: one run each */
};

/* The directory's size is asked of this: tables that a disk of this size has. */
uint64_t grain_map_tables(uint64_t capacity_bytes, uint64_t grain_bytes, uint32_t table_entries);

int grain_map_run_at(struct extent_file *x, uint64_t at, uint64_t limit, bool places,
                     struct run *out, struct err *e);
int grain_map_read(struct extent_file *x, uint64_t at, const struct run *r, void *out, size_t count,
                   struct err *e);
int grain_map_visit(struct extent_file *x, struct visitor *v, struct err *e);

/* Does a range lie inside the file? */
bool grain_map_inside(const struct grain_map *m, uint64_t file_bytes, uint64_t length_bytes);

/* Fill the part of x that all formats have from the plan. */
void grain_map_init(struct grain_map *m, const struct grain_format *format,
                    const struct extent_plan *p, uint64_t grain_bytes, uint32_t table_entries);

/*
 * Look at the whole directory once: each entry must be right, and no more tables be named than fit
 * the file, so that a small file cannot ask for endless work by naming one table again and again.
 * 0, or -1: ERR_CORRUPT, or what the file said.
 */
int grain_map_check(struct grain_map *m, struct err *e);

/* The n-th sector as bytes: false when that passes 64 bits. */
bool sectors_to_bytes(uint64_t sectors, uint64_t *bytes);

#endif
