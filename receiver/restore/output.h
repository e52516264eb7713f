/*
 * Where the content of one disk goes: a new sparse image, a block device, or a stream such as
 * standard output.
 *
 * Threads: output_write and output_zeros of an image or a device may be called from several threads
 * for ranges that do not meet; those of a stream by one, in order and without gaps.
 */
#ifndef RECEIVER_RESTORE_OUTPUT_H
#define RECEIVER_RESTORE_OUTPUT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

/* A multiple of every block size: who writes longer runs of zeros where that may take time should
 * look for a stop in between. */
enum { OUTPUT_ZEROS_BYTES = 64 << 20 };

enum output_kind { OUTPUT_IMAGE, OUTPUT_DEVICE, OUTPUT_STREAM };

struct output {
    enum output_kind kind;
    const char *name; /* for messages; borrowed */
    int fd;
    uint64_t capacity_bytes;
    uint64_t position_bytes; /* of a stream: what has gone out */
    bool may_skip;           /* a stream into a regular file: zeros at its end become a hole */
    uint32_t align_bytes;    /* of a device: what can be zeroed at once starts and ends on it */
    atomic_bool no_punch, no_zeroing; /* of a device: it refused these ways to zeros */
    atomic_bool dirty;                /* of a device or stream: something was written */
};
#define OUTPUT_EMPTY ((struct output){ .fd = -1 })

/* "-", or the path of a block device: one disk goes there, and nothing else. */
bool output_takes_one_disk(const char *to);

/* Of so many disks that slot (NULL: any) means, one is to be restored.  0 for one, or -1: ERR_USAGE
 * (there are more), ERR_NOT_FOUND (there is none). */
int output_check_one(unsigned count, const char *slot, struct err *e);

/* A new image in the folder dir.  ERR_SPACE (too large for the file system), ERR_SYSTEM. */
int output_create(struct output *o, int dir, const char *name, uint64_t capacity_bytes,
                  struct err *e);

/*
 * What `to` says when output_takes_one_disk.  0, or -1: ERR_REFUSED (a device without
 * force_device; a device that is mounted or in use otherwise; standard output is a terminal),
 * ERR_SPACE (the device is smaller than the disk), ERR_NOT_FOUND, ERR_SYSTEM.
 */
int output_open(struct output *o, const char *to, bool force_device, uint64_t capacity_bytes,
                struct err *e);

int output_write(struct output *o, const void *data, size_t count, uint64_t offset_bytes,
                 struct err *e);

/* The range reads as zeros afterwards, whatever was there. */
int output_zeros(struct output *o, uint64_t offset_bytes, uint64_t count, struct err *e);

/* All of it was written: make it durable where that means anything, and close it. */
int output_finish(struct output *o, struct err *e);

/* After a failure, and after output_finish too: close it, and say what it now holds, in e, where
 * that is neither nothing nor the whole disk.  The empty value is allowed. */
void output_drop(struct output *o, bool failed, struct err *e);

#endif
