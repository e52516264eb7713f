#include "receiver/mirror/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"

static const char MAGIC_KEY[] = "vmferry-mirror";
static const char SHA_KEY[] = "sha256 ";
enum {
    FORMAT_NUMBER = 1,
    SHA_LINE_BYTES = 7 + 2 * RECORD_SHA256_BYTES + 1,
};

int file_load(int dir, const char *name, struct bytes *out, size_t most, struct err *e)
{
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat s;
    uint8_t *to;
    int rc = -1;

    *out = (struct bytes){ .ceiling = most };
    if (fd < 0) {
        err_sys(e, "opening it");
        goto out;
    }
    if (fstat(fd, &s) != 0) {
        err_sys(e, "looking at it");
        goto out;
    }
    if (!S_ISREG(s.st_mode)) {
        err_set(e, ERR_CORRUPT, "it is not a regular file");
        goto out;
    }
    if ((uint64_t)s.st_size > most) {
        err_set(e, ERR_CORRUPT, "it has %" PRIu64 " bytes, more than %zu", (uint64_t)s.st_size,
                most);
        goto out;
    }
    to = bytes_reserve(out, (size_t)s.st_size, e);
    if (to == NULL || io_read_all(fd, to, (size_t)s.st_size, e) != 0)
        goto out;
    out->count = (size_t)s.st_size;
    rc = bytes_text(out, e) != NULL ? 0 : -1;

out:
    io_drop(&fd);
    if (rc != 0)
        bytes_free(out);
    return rc == 0 ? 0 : err_add(e, "%s", name);
}

void sha256_of(uint8_t out[RECORD_SHA256_BYTES], const void *data, size_t count)
{
    crypto_hash_sha256(out, data, count);
}

/* --- faults --- */

void record_fault(struct record *r, const char *text)
{
    if (!r->failed)
        err_set(r->e, ERR_CORRUPT, "line %u: %s", r->line, text);
    r->failed = true;
}

static void append(struct record *r, const void *data, size_t count)
{
    if (!r->failed && bytes_append(&r->body, data, count, r->e) != 0)
        r->failed = true;
}

static void append_text(struct record *r, const char *text)
{
    append(r, text, strlen(text));
}

/* --- lines --- */

void record_line(struct record *r, const char *key)
{
    size_t count = strlen(key);

    if (r->failed)
        return;
    if (r->writing) {
        append_text(r, key);
        return;
    }
    r->line++;
    if (!record_more(r, key)) {
        char text[80];

        snprintf(text, sizeof text, "`%s` should be here", key);
        record_fault(r, text);
        return;
    }
    r->at += count;
}

bool record_more(const struct record *r, const char *key)
{
    size_t count = strlen(key);

    return !r->failed && (size_t)(r->end - r->at) > count && memcmp(r->at, key, count) == 0 &&
           (r->at[count] == ' ' || r->at[count] == '\n');
}

void record_line_end(struct record *r)
{
    if (r->failed)
        return;
    if (r->writing) {
        append(r, "\n", 1);
        return;
    }
    if (r->at >= r->end || *r->at != '\n') {
        record_fault(r, "more on the line than there should be");
        return;
    }
    r->at++;
}

/* The blank before a field. */
static bool field(struct record *r)
{
    if (r->failed)
        return false;
    if (r->writing) {
        append(r, " ", 1);
        return !r->failed;
    }
    if (r->at >= r->end || *r->at != ' ') {
        record_fault(r, "a value is missing");
        return false;
    }
    r->at++;
    return true;
}

static bool read_u64(struct record *r, uint64_t *v)
{
    const char *start = r->at;
    uint64_t n = 0;

    while (*r->at >= '0' && *r->at <= '9') {
        unsigned digit = (unsigned)(*r->at - '0');

        if (n > (UINT64_MAX - digit) / 10)
            return false;
        n = n * 10 + digit;
        r->at++;
    }
    *v = n;
    return r->at > start && (*start != '0' || r->at == start + 1);
}

void record_field_u64(struct record *r, uint64_t *v, uint64_t least, uint64_t most)
{
    uint64_t n;

    if (!field(r))
        return;
    if (r->writing) {
        char text[24];

        snprintf(text, sizeof text, "%" PRIu64, *v);
        append_text(r, text);
    } else if (!read_u64(r, &n) || n < least || n > most) {
        record_fault(r, "a number is wrong or out of range");
    } else {
        *v = n;
    }
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

void record_field_hex(struct record *r, uint8_t *b, size_t count)
{
    if (!field(r))
        return;
    for (size_t i = 0; i < count && !r->failed; i++) {
        if (r->writing) {
            char text[3];

            snprintf(text, sizeof text, "%02x", b[i]);
            append(r, text, 2);
        } else {
            int high = hex_value(r->at[0]);
            int low = high < 0 ? -1 : hex_value(r->at[1]); /* a NUL ends the body */

            if (low < 0) {
                record_fault(r, "wrong hex digits");
                return;
            }
            b[i] = (uint8_t)(high << 4 | low);
            r->at += 2;
        }
    }
}

static bool must_escape(const char *text, size_t at)
{
    uint8_t b = (uint8_t)text[at];

    return b < 0x20 || b == 0x7f || b == '%' || (at == 0 && b == ' ');
}

static void write_text(struct record *r, const char *text)
{
    for (size_t i = 0; text[i] != 0; i++) {
        char code[4];

        if (must_escape(text, i)) {
            snprintf(code, sizeof code, "%%%02X", (uint8_t)text[i]);
            append(r, code, 3);
        } else {
            append(r, text + i, 1);
        }
    }
}

static int escaped_value(const char *at)
{
    static const char digits[] = "0123456789ABCDEF";
    const char *high = at[1] != 0 ? strchr(digits, at[1]) : NULL;
    const char *low = high != NULL && at[2] != 0 ? strchr(digits, at[2]) : NULL;

    return low == NULL ? -1 : (int)((high - digits) << 4 | (low - digits));
}

static char *read_text(struct record *r)
{
    char text[RECORD_TEXT_MAX + 1];
    size_t count = 0;
    char *copy;

    while (r->at < r->end && *r->at != '\n') {
        int b = (uint8_t)*r->at;

        if (count == RECORD_TEXT_MAX) {
            record_fault(r, "a text is too long");
            return NULL;
        }
        if (b == '%')
            b = escaped_value(r->at);
        else if (must_escape(r->at, 0) && (b != ' ' || count == 0))
            b = -1;
        if (b <= 0) {
            record_fault(r, "a text has a byte that it must not have");
            return NULL;
        }
        r->at += *r->at == '%' ? 3 : 1;
        text[count++] = (char)b;
    }
    text[count] = 0;
    copy = strdup(text);
    if (copy == NULL) {
        err_sys(r->e, "getting memory");
        r->failed = true;
    }
    return copy;
}

void record_field_text(struct record *r, char **text)
{
    if (!field(r))
        return;
    if (!r->writing) {
        *text = read_text(r);
    } else if (strlen(*text) > RECORD_TEXT_MAX) {
        err_set(r->e, ERR_LIMIT, "a text of more than %d bytes", RECORD_TEXT_MAX);
        r->failed = true;
    } else {
        write_text(r, *text);
    }
}

bool record_field_none(struct record *r, bool none)
{
    static const char word[] = " none\n";

    if (r->failed)
        return true;
    if (r->writing) {
        if (none)
            append_text(r, " none");
        return none;
    }
    if (strncmp(r->at, word, sizeof word - 1) != 0)
        return false;
    r->at += sizeof word - 2; /* the newline stays for record_line_end */
    return true;
}

void record_u64(struct record *r, const char *key, uint64_t *v, uint64_t least, uint64_t most)
{
    record_line(r, key);
    record_field_u64(r, v, least, most);
    record_line_end(r);
}

void record_text(struct record *r, const char *key, char **text)
{
    record_line(r, key);
    record_field_text(r, text);
    record_line_end(r);
}

void record_hex(struct record *r, const char *key, uint8_t *b, size_t count)
{
    record_line(r, key);
    record_field_hex(r, b, count);
    record_line_end(r);
}

void record_word(struct record *r, const char *key, const char *const *words, unsigned *v)
{
    record_line(r, key);
    if (!field(r))
        return;
    if (r->writing) {
        append_text(r, words[*v]);
        record_line_end(r);
        return;
    }
    for (unsigned i = 0; words[i] != NULL; i++) {
        size_t count = strlen(words[i]);

        if (strncmp(r->at, words[i], count) == 0 && r->at[count] == '\n') {
            r->at += count;
            *v = i;
            record_line_end(r);
            return;
        }
    }
    record_fault(r, "an unknown word");
}

/* --- whole records --- */

void record_write(struct record *r, const char *type, struct err *e)
{
    uint64_t format = FORMAT_NUMBER;

    *r = (struct record){ .writing = true, .e = e, .body = { .ceiling = RECORD_BYTES_MAX } };
    record_u64(r, MAGIC_KEY, &format, 0, UINT64_MAX);
    record_line(r, "record");
    append(r, " ", 1);
    append_text(r, type);
    record_line_end(r);
}

int record_save(struct record *r, int dir, const char *name, enum publish_how how)
{
    uint8_t sum[crypto_hash_sha256_BYTES];
    int rc = -1;

    if (!r->failed) {
        crypto_hash_sha256(sum, r->body.data, r->body.count);
        record_hex(r, "sha256", sum, sizeof sum);
    }
    if (!r->failed)
        rc = publish_bytes(dir, name, r->body.data, r->body.count, 0600, how, r->e);
    bytes_free(&r->body);
    return rc;
}

/* Find the last line and prove it. */
static void check_sum(struct record *r)
{
    uint8_t sum[crypto_hash_sha256_BYTES], said[sizeof sum];
    struct record tail = { .e = r->e };
    size_t count = r->body.count;

    if (count < SHA_LINE_BYTES ||
        memcmp(r->body.data + count - SHA_LINE_BYTES, SHA_KEY, sizeof SHA_KEY - 1) != 0) {
        err_set(r->e, ERR_CORRUPT, "it has no checksum at its end");
        r->failed = true;
        return;
    }
    r->end = (const char *)r->body.data + count - SHA_LINE_BYTES;
    tail.at = r->end;
    tail.end = r->end + SHA_LINE_BYTES;
    record_hex(&tail, "sha256", said, sizeof said);
    crypto_hash_sha256(sum, r->body.data, count - SHA_LINE_BYTES);
    if (tail.failed || memcmp(sum, said, sizeof sum) != 0) {
        err_set(r->e, ERR_CORRUPT, "its checksum is wrong");
        r->failed = true;
    }
}

int record_read(struct record *r, int dir, const char *name, const char *type, struct err *e)
{
    uint64_t format = 0;
    const char *words[] = { type, NULL };
    unsigned word;

    *r = (struct record){ .e = e };
    if (file_load(dir, name, &r->body, RECORD_BYTES_MAX, e) != 0)
        return -1;
    check_sum(r);
    r->at = (const char *)r->body.data;
    record_u64(r, MAGIC_KEY, &format, 0, UINT64_MAX);
    if (!r->failed && format != FORMAT_NUMBER) {
        err_set(e, ERR_UNSUPPORTED, "it has format %" PRIu64 ", this program knows format %d",
                format, FORMAT_NUMBER);
        r->failed = true;
    }
    record_word(r, "record", words, &word);
    if (!r->failed)
        return 0;
    bytes_free(&r->body);
    return err_add(e, "%s", name);
}

int record_done(struct record *r, const char *name)
{
    if (!r->failed && r->at != r->end)
        record_fault(r, "there is more than there should be");
    bytes_free(&r->body);
    return r->failed ? err_add(r->e, "%s", name) : 0;
}
