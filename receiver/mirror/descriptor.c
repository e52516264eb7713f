/* The small VMDK descriptor that stands beside an image, so that any tool opens it as a disk. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "receiver/mirror/store.h"

enum { SECTOR = 512, HEADS = 255, SECTORS_PER_TRACK = 63, SMALL_HEADS = 64, SMALL_SECTORS = 32 };

void descriptor_name(char out[LAYOUT_NAME_ROOM], const char *image)
{
    size_t stem = strlen(image);

    if (stem > 4 && strcmp(image + stem - 4, ".raw") == 0)
        stem -= 4;
    layout_name(out, "%.*s.vmdk", (int)stem, image);
}

int descriptor_text(const struct manifest_disk *d, const char *image, char *out, size_t room)
{
    uint64_t sectors = d->capacity_bytes / SECTOR;
    bool small = d->capacity_bytes < (uint64_t)1 << 30;
    unsigned heads = small ? SMALL_HEADS : HEADS;
    unsigned track = small ? SMALL_SECTORS : SECTORS_PER_TRACK;
    uint64_t cylinders = (sectors + heads * track - 1) / (heads * track);
    /* The content id changes with the content; ffffffff and fffffffe have meanings of their own. */
    uint32_t cid = (uint32_t)d->root.b[0] << 24 | (uint32_t)d->root.b[1] << 16 |
                   (uint32_t)d->root.b[2] << 8 | d->root.b[3];

    if (cid >= 0xfffffffe)
        cid = 0x7ffffffe;
    return snprintf(out, room,
                    "# Disk DescriptorFile\n"
                    "version=1\n"
                    "encoding=\"UTF-8\"\n"
                    "CID=%08" PRIx32 "\n"
                    "parentCID=ffffffff\n"
                    "createType=\"monolithicFlat\"\n"
                    "\n"
                    "# Extent description\n"
                    "RW %" PRIu64 " FLAT \"%s\" 0\n"
                    "\n"
                    "# The Disk Data Base \n"
                    "#DDB\n"
                    "\n"
                    "ddb.virtualHWVersion = \"4\"\n"
                    "ddb.geometry.cylinders = \"%" PRIu64 "\"\n"
                    "ddb.geometry.heads = \"%u\"\n"
                    "ddb.geometry.sectors = \"%u\"\n"
                    "ddb.adapterType = \"%s\"\n",
                    cid, sectors, image, cylinders > 65535 ? 65535 : cylinders, heads, track,
                    strncmp(d->slot, "ide", 3) == 0 ? "ide" : "lsilogic");
}
