/*
 * The header of a hosted sparse extent, which is also the frame of a stream.
 * Format: VMware, Virtual Disk Format 5.0, "Hosted Sparse Extents".
 */
#ifndef PROTOCOL_VMDK_SPARSE_HEADER_H
#define PROTOCOL_VMDK_SPARSE_HEADER_H

#include <stdbool.h>
#include <stdint.h>

struct err;

enum {
    SPARSE_HEADER_BYTES = 512,
    SPARSE_TABLE_ENTRIES = 512,
    SPARSE_TABLE_SECTORS = 4,
    SPARSE_DESCRIPTOR_SECTORS_MAX = 2048,
    SPARSE_DIRECTORY_AT = 56, /* the byte of the directory's field in the header */
    SPARSE_RECORD_BYTES = 12, /* before a compressed grain */
};

/* directory_sector of a stream whose directory is at its end. */
#define SPARSE_DIRECTORY_AT_END UINT64_MAX

enum sparse_flags {
    SPARSE_NEWLINE_TEST = 1u << 0,
    SPARSE_REDUNDANT = 1u << 1,
    SPARSE_ZERO_GRAINS = 1u << 2,
    SPARSE_COMPRESSED = 1u << 16,
    SPARSE_MARKERS = 1u << 17,
};

enum sparse_marker {
    MARKER_END = 0,
    MARKER_TABLE = 1,
    MARKER_DIRECTORY = 2,
    MARKER_FOOTER = 3,
    MARKER_PROGRESS = 4
};

struct sparse_header {
    uint32_t version, flags;
    uint64_t capacity_sectors, grain_sectors;
    uint64_t descriptor_sector, descriptor_sectors; /* both 0: none */
    uint64_t redundant_sector, directory_sector, overhead_sectors;
    bool unclean;
};

/*
 * Decode, and check all that needs no file: versions, flags, sizes, sectors that overflow.
 * 0, or -1: ERR_FORMAT (another magic), ERR_UNSUPPORTED, ERR_CORRUPT; the field is named.
 */
int sparse_header_read(struct sparse_header *out, const uint8_t raw[SPARSE_HEADER_BYTES],
                       struct err *e);

/* Where the embedded descriptor lies in a file of file_bytes; ERR_CORRUPT when it leaves the file.
 * *length_bytes is 0 when there is none. */
int sparse_header_descriptor(const struct sparse_header *h, uint64_t file_bytes,
                             uint64_t *start_bytes, uint64_t *length_bytes, struct err *e);

/* The sizes of a disk of this line and header: equal, but a stream may round up to its grain. */
int sparse_header_capacity(const struct sparse_header *h, uint64_t line_sectors, struct err *e);

#endif
