/*
 * What one disk had in one generation: the newest image under the reverse deltas of that generation
 * and of those after it (FORMAT.md 7).  Inside receiver/mirror only.
 */
#ifndef RECEIVER_MIRROR_CONTENT_H
#define RECEIVER_MIRROR_CONTENT_H

#include "receiver/mirror/store.h"

struct content_layer {
    uint64_t generation; /* whose delta it is */
    struct patch_cursor index;
};

struct content {
    const struct store *s;
    uint64_t number, generation; /* disk, generation */
    struct shape shape, now;     /* then, and of the newest image */
    struct digest_secret secret;
    struct digest root;          /* then */
    char file[LAYOUT_NAME_ROOM]; /* of the newest image */
    int image_fd, digests_fd;
    uint64_t image_bytes;
    struct content_layer *layers; /* nearest first */
    size_t layer_count;
    struct patch_room room;
    uint64_t read_bytes;
};

/*
 * Open disk d of the manifest of `generation`.  -1: ERR_CORRUPT (a delta or the image is missing or
 * damaged), ERR_SYSTEM.  Close in any case.
 */
int content_open(struct content *c, const struct store *s, const struct manifest_disk *d,
                 uint64_t generation, struct err *e);
void content_close(struct content *c);

/*
 * The next block at or after `block` that may not be zeros; the number of blocks if there is none.
 */
int content_next(struct content *c, uint64_t block, uint64_t *out, struct err *e);

/*
 * Digests of [first, first + count), count at most DIGEST_WINDOW, and in `layer` which layer has
 * the block, -1 for the image.  In ascending order of calls.
 */
int content_digests(struct content *c, uint64_t first, size_t count, struct digest *d, int *layer,
                    struct err *e);

/*
 * The bytes of a block into c->room.plain, compared with `expected`.  block must lie in the last
 * window, in ascending order.  ERR_CORRUPT names file and offset.
 */
int content_block(struct content *c, uint64_t block, int layer, const struct digest *expected,
                  struct err *e);

#endif
