/* The small VMDK descriptor that stands beside an image, so that any tool opens it as a disk. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/vmdk/descriptor.h"
#include "receiver/mirror/store.h"

void descriptor_name(char out[LAYOUT_NAME_ROOM], const char *image)
{
    size_t stem = strlen(image);

    if (stem > 4 && strcmp(image + stem - 4, ".raw") == 0)
        stem -= 4;
    layout_name(out, "%.*s.vmdk", (int)stem, image);
}

/* The content id changes with the content; ffffffff and fffffffe have meanings of their own. */
static uint32_t content_id(const struct digest *root)
{
    uint32_t cid = (uint32_t)root->b[0] << 24 | (uint32_t)root->b[1] << 16 |
                   (uint32_t)root->b[2] << 8 | root->b[3];

    return cid >= 0xfffffffe ? 0x7ffffffe : cid;
}

int descriptor_text(const struct manifest_disk *d, const char *image, char *out, size_t room)
{
    /* What we write is checked to be what was written: the geometry is the same for all adapters.
     */
    struct descriptor_geometry g = descriptor_geometry_of(d->capacity_bytes, false);
    char cylinders[16], heads[16], sectors[16];
    char *adapter = strncmp(d->slot, "ide", 3) == 0 ? "ide" : "lsilogic";
    struct descriptor_ddb ddb[] = {
        { "virtualHWVersion", "4" }, { "geometry.cylinders", cylinders },
        { "geometry.heads", heads }, { "geometry.sectors", sectors },
        { "adapterType", adapter },
    };
    struct descriptor_extent extent = {
        .access = ACCESS_RW,
        .sectors = d->capacity_bytes / DESCRIPTOR_SECTOR_BYTES,
        .type = "FLAT",
        .name = (char *)image,
        .has_offset = true,
    };
    struct descriptor text = {
        .version = 1,
        .encoding = "UTF-8",
        .cid = content_id(&d->root),
        .parent_cid = DESCRIPTOR_CID_NONE,
        .create_type = "monolithicFlat",
        .extents = &extent,
        .extent_count = 1,
        .ddb = ddb,
        .ddb_count = ARRAY_COUNT(ddb),
    };
    struct bytes written = { .ceiling = room };
    int count = -1;

    snprintf(cylinders, sizeof cylinders, "%" PRIu32, g.cylinders);
    snprintf(heads, sizeof heads, "%" PRIu32, g.heads);
    snprintf(sectors, sizeof sectors, "%" PRIu32, g.sectors);
    if (descriptor_write(&text, &written, NULL) == 0) {
        memcpy(out, written.data, written.count);
        count = (int)written.count;
    }
    bytes_free(&written);
    return count;
}
