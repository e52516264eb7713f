/*
 * Records of kept snapshots: what is accepted is written back, and read again, as the same.  The
 * sum is made to fit, unless the first byte says no.
 */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/host/chain.h"
#include "receiver/host/inventory.h"
#include "receiver/host/retained.h"
#include "tests/fuzz/fuzz.h"

static void check(const char *text, size_t size)
{
    struct retained one, two;
    struct bytes first = { .ceiling = 4 * JOURNAL_RECORD_BYTES_MAX };
    struct bytes second = { .ceiling = 4 * JOURNAL_RECORD_BYTES_MAX };
    struct err e;

    if (retained_read(&one, text, size, &e) != 0) {
        FUZZ_CHECK(one.disks == NULL);
        return;
    }
    FUZZ_CHECK(one.disk_count > 0 && one.disk_count <= VM_DISKS_MAX);
    for (size_t i = 0; i < one.disk_count; i++) {
        FUZZ_CHECK(one.disks[i].link_count > 0 && one.disks[i].link_count <= CHAIN_LINKS_MAX);
        FUZZ_CHECK(one.disks[i].leaf_path[0] == '/');
        FUZZ_CHECK(retained_disk(&one, one.disks[i].slot) == &one.disks[i]);
    }
    FUZZ_CHECK(retained_write(&one, &first, &e) == 0);
    FUZZ_CHECK(retained_read(&two, (const char *)first.data, first.count, &e) == 0);
    FUZZ_CHECK(retained_write(&two, &second, &e) == 0);
    FUZZ_CHECK(first.count == second.count && memcmp(first.data, second.data, first.count) == 0);
    retained_free(&one);
    retained_free(&two);
    bytes_free(&first);
    bytes_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { SUM_LINE = 4 + 2 * crypto_hash_sha256_BYTES + 1 };
    unsigned char sum[crypto_hash_sha256_BYTES];
    char hex[2 * crypto_hash_sha256_BYTES + 1], line[SUM_LINE + 1];
    char *text;

    if (size == 0)
        return 0;
    fuzz_begin();
    if (data[0] == 1) {
        text = (char *)fuzz_copy(data + 1, size - 1);
        check(text, size - 1);
    } else {
        crypto_hash_sha256(sum, data + 1, size - 1);
        sodium_bin2hex(hex, sizeof hex, sum, sizeof sum);
        snprintf(line, sizeof line, "sum=%s\n", hex);
        text = malloc(size - 1 + SUM_LINE);
        FUZZ_CHECK(text != NULL);
        memcpy(text, data + 1, size - 1);
        memcpy(text + size - 1, line, SUM_LINE);
        check(text, size - 1 + SUM_LINE);
    }
    free(text);
    fuzz_end();
    return 0;
}
