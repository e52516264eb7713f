/* The object dumps of vim-cmd.  Whatever is accepted must be a whole tree inside its limits. */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/host/vimdump.h"
#include "tests/fuzz/fuzz.h"

/* Without recursion: follow first, else next, else up. */
static size_t walk(const struct vimnode *root)
{
    const struct vimnode *path[VIMDUMP_DEPTH_MAX + 2];
    size_t depth = 0, count = 0;

    path[0] = root;
    for (;;) {
        const struct vimnode *n = path[depth];

        count++;
        if (n->text != NULL)
            FUZZ_CHECK(n->text[n->text_bytes] == '\0');
        if (n->first != NULL) {
            FUZZ_CHECK(n->kind == VIMNODE_OBJECT || n->kind == VIMNODE_ARRAY);
            FUZZ_CHECK(++depth < sizeof path / sizeof path[0]);
            path[depth] = n->first;
            continue;
        }
        while (depth > 0 && path[depth]->next == NULL)
            depth--;
        if (depth == 0)
            return count;
        path[depth] = path[depth]->next;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vimdump *d;
    struct err e;
    uint64_t number;
    bool truth;

    fuzz_begin();
    if (vimdump_read(&d, (const char *)data, size, &e) == 0) {
        const struct vimnode *root = vimdump_root(d);

        FUZZ_CHECK(walk(root) <= VIMDUMP_ITEMS_MAX + 1);
        vimnode_text(root, "runtime.powerState");
        vimnode_u64(root, "config.memorySizeMB", &number);
        vimnode_bool(root, "config.template", &truth);
        vimnode_at(root, "..");
        vimdump_free(d);
    } else {
        FUZZ_CHECK(strlen(e.text) < sizeof e.text && e.code != ERR_NONE);
    }
    fuzz_end();
    return 0;
}
