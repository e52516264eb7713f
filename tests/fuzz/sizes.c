/* Numbers, sizes, durations, rates and times as text; and what is shown of hostile text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/base/json.h"
#include "receiver/base/sizes.h"
#include "receiver/base/utf8.h"
#include "tests/fuzz/fuzz.h"

static void numbers(const char *text)
{
    char out[SIZE_TEXT_BYTES];
    struct size_or_share share;
    struct clock_span span;
    struct err e;
    uint64_t n;
    int64_t t;

    if (number_parse(&n, text, 3, 4000, &e) == 0)
        FUZZ_CHECK(n >= 3 && n <= 4000);
    if (size_parse(&n, text, &e) == 0)
        FUZZ_CHECK(n <= INT64_MAX && strlen(size_text(out, n)) < sizeof out &&
                   strlen(size_text_short(out, n)) < sizeof out);
    if (size_or_share_parse(&share, text, &e) == 0 && share.is_share)
        FUZZ_CHECK(share.percent >= 1 && share.percent <= 100);
    if (duration_parse(&n, text, &e) == 0)
        FUZZ_CHECK(strlen(duration_text(out, n)) < sizeof out);
    if (rate_parse(&n, text, &e) == 0)
        FUZZ_CHECK(n >= 1024 && strlen(rate_text(out, n, 1)) < sizeof out);
    if (clock_parse(&t, text, &e) == 0) {
        char shown[CLOCK_TEXT_BYTES];
        int64_t again;

        FUZZ_CHECK(clock_parse(&again, clock_format(shown, t), &e) == 0);
        FUZZ_CHECK(again == t || t < -62167219200 || t > 253402300799);
    }
    if (clock_parse_span(&span, text, &e) == 0)
        FUZZ_CHECK(span.from < span.end);
}

static void shown(const char *text, size_t room)
{
    char *out = malloc(room), cut[64];
    char *quoted;
    size_t bytes;
    FILE *f = open_memstream(&quoted, &bytes);

    FUZZ_CHECK(out != NULL && f != NULL);
    utf8_show(out, room, text);
    FUZZ_CHECK(strlen(out) < room);
    for (size_t at = 0; out[at] != '\0';) {
        uint32_t c;
        size_t n = utf8_decode(out + at, strlen(out + at), &c);

        FUZZ_CHECK(n > 0 && !utf8_is_hostile(c));
        at += n;
    }
    FUZZ_CHECK(utf8_cut(cut, sizeof cut, out, 15) <= 15);
    json_quote(f, text, strlen(text));
    FUZZ_CHECK(fclose(f) == 0);
    for (size_t at = 0; at < bytes;) {
        uint32_t c;
        size_t n = utf8_decode(quoted + at, bytes - at, &c);

        FUZZ_CHECK(n > 0 && !utf8_is_hostile(c));
        at += n;
    }
    free(quoted);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text;

    if (size == 0)
        return 0;
    fuzz_begin();
    text = fuzz_text(data + 1, size - 1);
    numbers(text);
    shown(text, (size_t)data[0] + 1);
    free(text);
    fuzz_end();
    return 0;
}
