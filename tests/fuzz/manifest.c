/*
 * Manifests of generations (FORMAT.md 3).  The first byte says whether the right hash is put behind
 * the text.  What is accepted keeps to its limits and is written back to a form that stays.
 */
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/mirror/manifest.h"
#include "receiver/mirror/mirror.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/records.h"

static void check(const struct manifest *m)
{
    FUZZ_CHECK(m->number > 0 && m->keep <= MIRROR_KEEP_MAX && m->vm_name != NULL);
    FUZZ_CHECK(m->disk_count <= MANIFEST_DISKS_MAX && m->damage_count <= MANIFEST_DAMAGES_MAX &&
               m->config_count <= MIRROR_CONFIG_FILES_MAX);
    for (size_t i = 0; i < m->config_count; i++)
        FUZZ_CHECK(strchr(m->configs[i].name, '/') == NULL);
    for (size_t i = 0; i < m->disk_count; i++) {
        const struct manifest_disk *d = &m->disks[i];

        FUZZ_CHECK(block_size_valid(d->block_bytes) && strchr(d->file, '/') == NULL);
        FUZZ_CHECK(d->number < m->next_disk && d->of <= m->number);
        FUZZ_CHECK(d->number == 0 || manifest_disk(m, d->number) == d);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int dir = fuzz_folder();
    struct manifest m;
    struct err e;

    if (size == 0)
        return 0;
    fuzz_begin();
    records_put(dir, "one", data + 1, size - 1, (data[0] & 1) != 0);
    if (manifest_load(&m, dir, "one", &e) == 0) {
        check(&m);
        FUZZ_CHECK(manifest_save(&m, dir, "two", PUBLISH_REPLACE, &e) == 0);
        manifest_free(&m);
        FUZZ_CHECK(manifest_load(&m, dir, "two", &e) == 0);
        FUZZ_CHECK(manifest_save(&m, dir, "three", PUBLISH_REPLACE, &e) == 0);
        manifest_free(&m);
        FUZZ_CHECK(records_equal(dir, "two", "three"));
    }
    fuzz_end();
    return 0;
}
