/*
 * VMDK files made byte by byte from the published tables, not through the reader's structures, and
 * the disk that they must read as.
 */
#ifndef TESTS_UNIT_VMDK_IMAGES_H
#define TESTS_UNIT_VMDK_IMAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/vmdk/files.h"

/* A folder of this test and everything in it; also the one volume. */
struct folder {
    char path[64];
    struct vmdk_files *files;
};
void folder_make(struct folder *f);
void folder_remove(struct folder *f);
/* dir/name, in a buffer that the next call but three uses again. */
const char *folder_path(const struct folder *f, const char *name);

/* ---- files ---- */

int file_make(const struct folder *f, const char *name);
void put_bytes(int fd, uint64_t at, const void *data, size_t count);
void put16(int fd, uint64_t at, uint16_t v);
void put32(int fd, uint64_t at, uint32_t v);
void put64(int fd, uint64_t at, uint64_t v);
void file_size(int fd, uint64_t bytes);
void file_text(const struct folder *f, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Change bytes of a file that is there. */
void patch(const struct folder *f, const char *name, uint64_t at, const void *data, size_t count);
void patch32(const struct folder *f, const char *name, uint64_t at, uint32_t v);
void patch64(const struct folder *f, const char *name, uint64_t at, uint64_t v);

/* ---- layers: what a link holds ---- */

enum grain_state { ABSENT = 'p', ZERO = '0', UNMAPPED = 'u', DATA = 'd' };

struct layer {
    uint64_t sectors;
    uint32_t grain_sectors;
    size_t grains;
    uint8_t *states; /* enum grain_state of each grain */
    uint8_t *bytes;  /* of the whole disk; only those of DATA count */
};
/* Grains at random: mostly absent or of one kind for a while, as disks are. */
void layer_random(struct layer *l, uint64_t sectors, uint32_t grain_sectors, uint64_t seed);
void layer_free(struct layer *l);
/* What the disk reads as with l on top. */
void layer_over(const struct layer *l, uint8_t *disk, uint64_t disk_sectors);

uint64_t next_random(uint64_t *seed);

/* ---- data files of a layer ---- */

/* Tables and grains in an order that the seed chooses. */
void cowd_write(const struct folder *f, const char *name, const struct layer *l, uint64_t seed);
void sesparse_write(const struct folder *f, const char *name, const struct layer *l, uint64_t seed);
/* Hosted sparse with two directories; flags besides 3 (4: zero grains). */
void sparse_write(const struct folder *f, const char *name, const struct layer *l, uint32_t flags);

/* A descriptor beside it with one extent line. parent NULL: a base. */
void link_write(const struct folder *f, const char *name, const char *create_type,
                const char *extent_type, const char *extent, uint64_t sectors, uint32_t cid,
                uint32_t parent_cid, const char *parent);

/* Run a shell command; the test fails when it does. */
void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A whole file; free it. */
uint8_t *slurp(const char *path, size_t *bytes);

#endif
