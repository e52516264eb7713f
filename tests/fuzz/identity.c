/*
 * The smaller records of a mirror: the first byte chooses identity, a growing disk, or when
 * generations were verified, and whether the right hash is put behind the text.
 */
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/mirror/layout.h"
#include "receiver/mirror/manifest.h"
#include "receiver/mirror/store.h"
#include "receiver/mirror/verified.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/records.h"

static void identity(int dir, const uint8_t *text, size_t bytes, int as_it_is)
{
    struct mirror_identity i;
    struct err e;

    records_put(dir, LAYOUT_IDENTITY, text, bytes, as_it_is);
    if (identity_load(&i, dir, &e) != 0)
        return;
    FUZZ_CHECK(i.host_uuid != NULL && i.vm_uuid != NULL && i.vmx_path != NULL && i.vm_name != NULL);
    FUZZ_CHECK(file_remove(dir, LAYOUT_IDENTITY, &e) == 0 && identity_save(&i, dir, &e) == 0);
    identity_free(&i);
    FUZZ_CHECK(identity_load(&i, dir, &e) == 0);
    identity_free(&i);
}

static void new_disk(int dir, const uint8_t *text, size_t bytes, int as_it_is)
{
    struct new_disk d;
    struct err e;

    records_put(dir, "image-3.disk", text, bytes, as_it_is);
    if (new_disk_load(&d, dir, 3, &e) != 0)
        return;
    FUZZ_CHECK(d.number == 3 && d.capacity_bytes > 0 && block_size_valid(d.block_bytes));
    FUZZ_CHECK(new_disk_save(&d, dir, &e) == 0);
    new_disk_free(&d);
    FUZZ_CHECK(new_disk_load(&d, dir, 3, &e) == 0);
    new_disk_free(&d);
}

static void verified(int dir, const uint8_t *text, size_t bytes, int as_it_is)
{
    struct store s = STORE_EMPTY;
    uint64_t now[] = { 7 };
    struct verified v;
    struct err e;

    memset(s.identity.mirror, '3', sizeof s.identity.mirror);
    s.newest.keep = 3;
    s.newest.number = 9;
    s.store_fd = dir;
    records_put(dir, LAYOUT_VERIFIED, text, bytes, as_it_is);
    if (verified_load(&v, &s, &e) != 0)
        return;
    for (size_t i = 0; i < v.count; i++)
        FUZZ_CHECK(verified_time(&v, v.at[i][0]) > 0);
    verified_free(&v);
    if (verified_note(&s, now, 1, 1000, &e) != 0)
        return;
    FUZZ_CHECK(verified_load(&v, &s, &e) == 0 && verified_time(&v, 7) == 1000);
    verified_free(&v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const kinds[])(int, const uint8_t *, size_t, int) = { identity, new_disk,
                                                                        verified };

    if (size == 0)
        return 0;
    fuzz_begin();
    kinds[data[0] / 2 % 3](fuzz_folder(), data + 1, size - 1, data[0] & 1);
    fuzz_end();
    return 0;
}
