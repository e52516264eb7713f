/* Journal entries: what is accepted is written back, and read again, as the same. */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/host/journal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct journal_entry one, two;
    struct bytes first = { .ceiling = 4 * JOURNAL_ENTRY_BYTES_MAX };
    struct bytes second = { .ceiling = 4 * JOURNAL_ENTRY_BYTES_MAX };
    struct err e;

    fuzz_begin();
    if (journal_entry_read(&one, (const char *)data, size, &e) == 0) {
        FUZZ_CHECK(one.file_count <= JOURNAL_FILES_MAX);
        FUZZ_CHECK(strlen(one.token) < JOURNAL_TOKEN_ROOM && strlen(one.folder) < JOURNAL_TEXT_MAX);
        FUZZ_CHECK(journal_entry_write(&one, &first, &e) == 0);
        FUZZ_CHECK(journal_entry_read(&two, (const char *)first.data, first.count, &e) == 0);
        FUZZ_CHECK(journal_entry_write(&two, &second, &e) == 0);
        FUZZ_CHECK(first.count == second.count &&
                   memcmp(first.data, second.data, first.count) == 0);
    }
    bytes_free(&first);
    bytes_free(&second);
    fuzz_end();
    return 0;
}
