/*
 * streamOptimized extents from and to a pipe, in order, without seeking.
 * Format: VMware, Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents"; what is
 * written is laid out as VMware's ovftool does: header version 3, the directory at the end, a
 * footer and an end marker.  (A stream in a file is read by its directory: chain.h.)
 */
#ifndef PROTOCOL_VMDK_STREAM_H
#define PROTOCOL_VMDK_STREAM_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct source;
struct vmdk_codec;

/* ---- reading ---- */

struct vmdk_stream_input {
    /* Up to room bytes in order; *got is 0 only at the end.  0, or -1. */
    int (*read)(void *context, void *out, size_t room, size_t *got, struct err *e);
    void *context;
};

struct vmdk_stream_sink {
    /* Once, first.  The descriptor's text is as it stands in the stream, without padding; it may be
     * empty. */
    int (*begin)(void *context, uint64_t capacity_bytes, const char *descriptor, size_t bytes,
                 struct err *e);
    /* Each grain once, in the stream's order; what is never told is zeros. */
    int (*grain)(void *context, uint64_t offset_bytes, const void *data, size_t bytes,
                 struct err *e);
    void *context;
};

/*
 * Read a whole stream.  0 when its end marker was there and nothing but zeros behind it; else -1:
 * ERR_FORMAT (no KDMV), ERR_CORRUPT (the byte offset and what is wrong there; a stream that is cut
 * short), ERR_UNSUPPORTED (no compressed stream), ERR_LIMIT, ERR_SYSTEM, or what sink or input
 * said. Grains told before an error are real, but the disk is not whole.
 */
int vmdk_stream_scan(const struct vmdk_stream_input *input, const struct vmdk_codec *codec,
                     const struct vmdk_stream_sink *sink, struct err *e);

/* ---- writing ---- */

enum { VMDK_STREAM_GRAIN_BYTES = 64 << 10 };

struct vmdk_stream_output {
    int (*write)(void *context, const void *data, size_t bytes, struct err *e);
    void *context;
};

struct vmdk_stream_config {
    const struct vmdk_codec *codec; /* lent, as output is, until the writer is freed */
    const struct vmdk_stream_output *output;
    uint64_t capacity_bytes; /* a multiple of 512 */
    const char *descriptor;  /* text of at most 10,240 bytes: descriptor_write makes it */
    size_t descriptor_bytes;
};

struct vmdk_stream_writer;

/* Writes the head.  0, or -1: ERR_USAGE (capacity, descriptor), ERR_LIMIT, ERR_SYSTEM, output's. */
int vmdk_stream_writer_new(struct vmdk_stream_writer **out, const struct vmdk_stream_config *config,
                           struct err *e);
/*
 * The grain at offset_bytes, a multiple of VMDK_STREAM_GRAIN_BYTES and above the last one's: a
 * whole grain, or less at the end of the disk.  A grain of zeros is left out.
 */
int vmdk_stream_writer_grain(struct vmdk_stream_writer *w, uint64_t offset_bytes, const void *data,
                             size_t bytes, struct err *e);
/* The rest of the tables, directory, footer and end.  Once, last. */
int vmdk_stream_writer_end(struct vmdk_stream_writer *w, struct err *e);
/* Bytes written so far. */
uint64_t vmdk_stream_writer_bytes(const struct vmdk_stream_writer *w);
void vmdk_stream_writer_free(struct vmdk_stream_writer *w); /* NULL is allowed */

/* A whole disk: grains from source in order, zeros left out; then the end. */
int vmdk_stream_write_source(struct vmdk_stream_writer *w, struct source *source, struct err *e);

#endif
