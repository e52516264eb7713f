#include "receiver/base/json.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "receiver/base/clock.h"
#include "receiver/base/utf8.h"

void json_start(struct json *j, FILE *out)
{
    memset(j, 0, sizeof *j);
    j->out = out;
}

/* One character; its length in the text is length, 0 for a byte that is no UTF-8. */
static void quote_one(FILE *out, const char *at, size_t length, uint32_t c)
{
    static const char short_from[] = "\"\\\b\f\n\r\t";
    static const char short_to[] = "\"\\bfnrt";
    const char *named = c != 0 && c < 0x80 ? strchr(short_from, (int)c) : NULL;

    if (length == 0)
        fputs("\xef\xbf\xbd", out);
    else if (named != NULL)
        fprintf(out, "\\%c", short_to[named - short_from]);
    else if (utf8_is_hostile(c) && c > 0xffff)
        fprintf(out, "\\u%04" PRIx32 "\\u%04" PRIx32, 0xd800 + ((c - 0x10000) >> 10),
                0xdc00 + ((c - 0x10000) & 0x3ff));
    else if (utf8_is_hostile(c))
        fprintf(out, "\\u%04" PRIx32, c);
    else
        fwrite(at, 1, length, out);
}

void json_quote(FILE *out, const char *text, size_t count)
{
    fputc('"', out);
    while (count > 0) {
        uint32_t c = 0;
        size_t length = utf8_decode(text, count, &c);
        size_t taken = length > 0 ? length : 1;

        quote_one(out, text, length, c);
        text += taken;
        count -= taken;
    }
    fputc('"', out);
}

/* The comma and the key in front of a value. */
static void before(struct json *j, const char *key)
{
    if (j->depth == 0) {
        assert(key == NULL);
        return;
    }
    assert((key == NULL) == j->is_array[j->depth - 1]);
    if (j->has_items[j->depth - 1])
        fputc(',', j->out);
    j->has_items[j->depth - 1] = true;
    if (key != NULL) {
        json_quote(j->out, key, strlen(key));
        fputc(':', j->out);
    }
}

static void open_one(struct json *j, const char *key, bool is_array)
{
    assert(j->depth < JSON_DEPTH_MAX);
    before(j, key);
    fputc(is_array ? '[' : '{', j->out);
    j->is_array[j->depth] = is_array;
    j->has_items[j->depth] = false;
    j->depth++;
}

void json_object(struct json *j, const char *key)
{
    open_one(j, key, false);
}

void json_array(struct json *j, const char *key)
{
    open_one(j, key, true);
}

void json_close(struct json *j)
{
    assert(j->depth > 0);
    j->depth--;
    fputc(j->is_array[j->depth] ? ']' : '}', j->out);
}

void json_text_bytes(struct json *j, const char *key, const char *text, size_t count)
{
    before(j, key);
    json_quote(j->out, text, count);
}

void json_text(struct json *j, const char *key, const char *text)
{
    if (text == NULL)
        json_null(j, key);
    else
        json_text_bytes(j, key, text, strlen(text));
}

void json_number(struct json *j, const char *key, uint64_t value)
{
    before(j, key);
    fprintf(j->out, "%" PRIu64, value);
}

void json_integer(struct json *j, const char *key, int64_t value)
{
    before(j, key);
    fprintf(j->out, "%" PRId64, value);
}

void json_seconds(struct json *j, const char *key, uint64_t ms)
{
    before(j, key);
    fprintf(j->out, "%" PRIu64 ".%03u", ms / 1000, (unsigned)(ms % 1000));
}

void json_bool(struct json *j, const char *key, bool value)
{
    before(j, key);
    fputs(value ? "true" : "false", j->out);
}

void json_null(struct json *j, const char *key)
{
    before(j, key);
    fputs("null", j->out);
}

void json_time(struct json *j, const char *key, int64_t time)
{
    char text[CLOCK_TEXT_BYTES];

    json_text(j, key, clock_format(text, time));
}
