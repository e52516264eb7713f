/*
 * What a disk is called in a folder of images, and the small VMDK descriptor that stands beside it,
 * so that any tool opens it as a disk.
 */
#ifndef RECEIVER_RESTORE_DESCRIPTOR_H
#define RECEIVER_RESTORE_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/digest.h"

enum { IMAGE_NAME_ROOM = 64, DESCRIPTOR_TEXT_ROOM = 1024 };

struct descriptor_disk {
    const char *slot; /* "scsi0:0" */
    uint64_t capacity_bytes;
    struct digest root; /* the content id comes from it */
};

/* Letters, a number, a colon, a number, and nothing else: what may become a file's name. */
bool image_slot_valid(const char *slot);

/* "disk-scsi0-0.raw" for the slot scsi0:0, which is one (at most 40 bytes, no slash). */
void image_name(char out[IMAGE_NAME_ROOM], const char *slot);

/* "disk-scsi0-0.vmdk" for the image disk-scsi0-0.raw. */
void descriptor_name(char out[IMAGE_NAME_ROOM], const char *image);

/* The descriptor's text; returns its length, -1 when it does not fit. */
int descriptor_text(const struct descriptor_disk *d, const char *image, char *out, size_t room);

#endif
