#include "tests/fuzz/records.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/mirror/record.h"
#include "tests/fuzz/fuzz.h"

enum { SHA_LINE_BYTES = 7 + 2 * RECORD_SHA256_BYTES + 1 };

void records_put(int dir, const char *name, const void *text, size_t bytes, int as_it_is)
{
    char *whole = malloc(bytes + SHA_LINE_BYTES + 1);
    uint8_t sum[RECORD_SHA256_BYTES];
    size_t at = bytes;

    FUZZ_CHECK(whole != NULL);
    if (bytes > 0)
        memcpy(whole, text, bytes);
    if (!as_it_is) {
        sha256_of(sum, text, bytes);
        at += (size_t)sprintf(whole + at, "sha256 ");
        for (size_t i = 0; i < sizeof sum; i++)
            at += (size_t)sprintf(whole + at, "%02x", sum[i]);
        whole[at++] = '\n';
    }
    fuzz_file(dir, name, whole, at);
    free(whole);
}

int records_equal(int dir, const char *one, const char *two)
{
    struct bytes a, b;
    struct err e;
    int equal;

    FUZZ_CHECK(file_load(dir, one, &a, RECORD_BYTES_MAX, &e) == 0 &&
               file_load(dir, two, &b, RECORD_BYTES_MAX, &e) == 0);
    equal = a.count == b.count && memcmp(a.data, b.data, a.count) == 0;
    bytes_free(&a);
    bytes_free(&b);
    return equal;
}
