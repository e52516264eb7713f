#include "receiver/host/vmx.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "protocol/base/err.h"

struct vmx_line {
    char *key;
    char *value;
};

struct vmx {
    char *text;
    struct vmx_line *lines; /* sorted by key, for the check of doubles and for look-ups */
    size_t count;
};

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Undo |XX in place; |00 would end the text and stays as it is. */
static void undo_escapes(char *text)
{
    char *out = text;

    for (const char *in = text; *in != '\0';) {
        int high = in[0] == '|' ? hex_digit(in[1]) : -1;
        int low = high >= 0 ? hex_digit(in[2]) : -1;

        if (low >= 0 && (high != 0 || low != 0)) {
            *out++ = (char)(high * 16 + low);
            in += 3;
        } else {
            *out++ = *in++;
        }
    }
    *out = '\0';
}

static char *trim(char *text)
{
    size_t bytes;

    text += strspn(text, " \t\r");
    bytes = strlen(text);
    while (bytes > 0 && strchr(" \t\r", text[bytes - 1]) != NULL)
        bytes--;
    text[bytes] = '\0';
    return text;
}

/* One line in place: false when it holds no setting (comments, interpreter lines, noise). */
static bool read_line(char *text, struct vmx_line *out)
{
    char *equals, *last;

    text = trim(text);
    if (*text == '\0' || *text == '#')
        return false;
    equals = strchr(text, '=');
    if (equals == NULL)
        return false;
    *equals = '\0';
    out->key = trim(text);
    out->value = trim(equals + 1);
    if (*out->key == '\0')
        return false;
    if (*out->value == '"') {
        out->value++;
        last = strrchr(out->value, '"');
        if (last != NULL)
            *last = '\0';
    }
    undo_escapes(out->value);
    return true;
}

static int compare_keys(const void *a, const void *b)
{
    return strcasecmp(((const struct vmx_line *)a)->key, ((const struct vmx_line *)b)->key);
}

static int read_lines(struct vmx *v, struct err *e)
{
    char *next;

    for (char *line = v->text; line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        if (v->count == VMX_LINES_MAX)
            return err_set(e, ERR_LIMIT, "the vmx has more than %d lines", VMX_LINES_MAX);
        v->count += read_line(line, &v->lines[v->count]);
    }
    qsort(v->lines, v->count, sizeof *v->lines, compare_keys);
    for (size_t i = 1; i < v->count; i++)
        if (compare_keys(&v->lines[i - 1], &v->lines[i]) == 0 &&
            strcmp(v->lines[i - 1].value, v->lines[i].value) != 0)
            return err_set(e, ERR_CORRUPT, "the vmx has two values of %s", v->lines[i].key);
    return 0;
}

int vmx_read(struct vmx **out, const char *text, size_t bytes, struct err *e)
{
    struct vmx *v = NULL;
    int rc = -1;

    if (bytes > VMX_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "the vmx is longer than %d bytes", VMX_BYTES_MAX);
    if (memchr(text, '\0', bytes) != NULL)
        return err_set(e, ERR_FORMAT, "this is no vmx: it holds a NUL");
    v = calloc(1, sizeof *v);
    if (v == NULL || (v->text = malloc(bytes + 1)) == NULL ||
        (v->lines = calloc(VMX_LINES_MAX + 1, sizeof *v->lines)) == NULL) {
        err_sys(e, "reading the vmx");
        goto out;
    }
    memcpy(v->text, text, bytes);
    v->text[bytes] = '\0';
    if (read_lines(v, e) != 0)
        goto out;
    *out = v;
    v = NULL;
    rc = 0;

out:
    vmx_free(v);
    return rc;
}

void vmx_free(struct vmx *v)
{
    if (v == NULL)
        return;
    free(v->lines);
    free(v->text);
    free(v);
}

const char *vmx_get(const struct vmx *v, const char *key)
{
    struct vmx_line wanted = { .key = (char *)(uintptr_t)key };
    const struct vmx_line *found =
        bsearch(&wanted, v->lines, v->count, sizeof *v->lines, compare_keys);

    return found == NULL ? NULL : found->value;
}

bool vmx_is_true(const struct vmx *v, const char *key)
{
    const char *value = vmx_get(v, key);

    return value != NULL && strcasecmp(value, "TRUE") == 0;
}

const char *vmx_encoding(const struct vmx *v)
{
    const char *value = vmx_get(v, ".encoding");

    return value == NULL || *value == '\0' ? "UTF-8" : value;
}
