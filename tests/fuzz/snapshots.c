/* Trees of snapshots: the first byte chooses get.snapshotinfo or snapshot.get.  And our own names.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/host/snapshot.h"
#include "tests/fuzz/fuzz.h"

/* A name that is read as ours is written back as it was: else a foreign one would be taken for it.
 */
static void name(const char *text)
{
    struct snapshot_tag tag;
    char again[SNAPSHOT_NAME_ROOM];

    if (!snapshot_tag_read(text, &tag))
        return;
    snapshot_tag_write(&tag, again);
    FUZZ_CHECK(strcmp(again, text) == 0);
}

/* Removal goes by these numbers: each stands in the text as a whole one. */
static bool stands(const char *text, unsigned id)
{
    static const char key[] = "Snapshot Id";

    while ((text = strstr(text, key)) != NULL) {
        text += sizeof key - 1;
        text += strspn(text, " ");
        if (*text == ':' && strtoull(text + 1, NULL, 10) == id)
            return true;
    }
    return false;
}

static void ids(const struct snapshot_tree *t, const char *text)
{
    for (size_t i = 0; i < t->count; i++)
        FUZZ_CHECK(stands(text, t->items[i].id));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct snapshot_tree t;
    uint8_t *exact;
    char *text;
    struct err e;
    int rc;

    if (size == 0)
        return 0;
    fuzz_begin();
    exact = fuzz_copy(data + 1, size - 1);
    text = fuzz_text(data + 1, size - 1);
    switch (data[0] % 3) {
    case 0:
        rc = snapshot_parse_info((const char *)exact, size - 1, &t, &e);
        break;
    case 1:
        rc = snapshot_parse_get(text, &t, &e);
        if (rc == 0)
            ids(&t, text);
        break;
    default:
        name(text);
        rc = -1;
    }
    if (rc == 0) {
        FUZZ_CHECK(t.count <= SNAPSHOT_COUNT_MAX);
        for (size_t i = 0; i < t.count; i++) {
            FUZZ_CHECK(t.items[i].name != NULL);
            FUZZ_CHECK(t.items[i].depth <= (i > 0 ? t.items[i - 1].depth + 1 : 0));
            name(t.items[i].name);
        }
        snapshot_tree_free(&t);
    }
    free(text);
    free(exact);
    fuzz_end();
    return 0;
}
