#include "receiver/repo/fields.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/repo/repo.h"

void fields_write(struct fields *f, struct bytes *out, struct err *e)
{
    *f = (struct fields){ .writing = true, .out = out, .e = e };
}

void fields_read(struct fields *f, const void *data, size_t count, struct err *e)
{
    *f = (struct fields){ .in = { .at = data, .left = count }, .e = e };
}

void field_fault(struct fields *f, const char *text)
{
    if (!f->failed)
        err_set(f->e, ERR_CORRUPT, "%s", text);
    f->failed = true;
}

void field_raw(struct fields *f, void *bytes, size_t count)
{
    if (f->writing) {
        if (!f->failed && bytes_append(f->out, bytes, count, f->e) != 0)
            f->failed = true;
        return;
    }
    if (f->failed) {
        memset(bytes, 0, count);
        return;
    }
    pull_copy(&f->in, bytes, count);
    if (f->in.spent)
        field_fault(f, "it ends too early");
}

static uint64_t number(struct fields *f, uint64_t v, size_t count, uint64_t least, uint64_t most)
{
    uint8_t b[8];

    for (size_t i = 0; i < count; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    field_raw(f, b, count);
    v = 0;
    for (size_t i = count; i > 0; i--)
        v = v << 8 | b[i - 1];
    if (!f->failed && (v < least || v > most))
        field_fault(f, "a number is out of its range");
    return f->failed && !f->writing ? 0 : v;
}

void field_u8(struct fields *f, uint8_t *v, uint64_t least, uint64_t most)
{
    *v = (uint8_t)number(f, *v, 1, least, most);
}

void field_u32(struct fields *f, uint32_t *v, uint64_t least, uint64_t most)
{
    *v = (uint32_t)number(f, *v, 4, least, most);
}

void field_u64(struct fields *f, uint64_t *v, uint64_t least, uint64_t most)
{
    *v = number(f, *v, 8, least, most);
}

void field_text(struct fields *f, char **text)
{
    const char *given = f->writing && *text != NULL ? *text : "";
    size_t count = strlen(given);
    const uint8_t *b;
    char *copy;

    if (count > REPO_TEXT_MAX)
        field_fault(f, "a text is too long");
    count = (size_t)number(f, f->failed ? 0 : count, 2, 0, REPO_TEXT_MAX);
    if (f->writing) {
        field_raw(f, (void *)(uintptr_t)given, count);
        return;
    }
    *text = NULL;
    if (f->failed)
        return;
    b = pull_bytes(&f->in, count);
    if (b == NULL || memchr(b, 0, count) != NULL) {
        field_fault(f, b == NULL ? "it ends too early" : "a text has a NUL in it");
        return;
    }
    copy = malloc(count + 1);
    if (copy == NULL) {
        err_sys(f->e, "getting memory");
        f->failed = true;
        return;
    }
    memcpy(copy, b, count);
    copy[count] = 0;
    *text = copy;
}

bool field_array(struct fields *f, void **items, uint32_t *count, uint32_t most, size_t size,
                 size_t least_bytes)
{
    if (!f->writing)
        *items = NULL;
    field_u32(f, count, 0, most);
    if (f->failed) {
        if (!f->writing)
            *count = 0;
        return false;
    }
    if (f->writing || *count == 0)
        return *count > 0;
    if (*count > f->in.left / least_bytes) {
        *count = 0;
        field_fault(f, "it ends too early");
        return false;
    }
    *items = calloc(*count, size);
    if (*items == NULL) {
        *count = 0;
        err_sys(f->e, "getting memory");
        f->failed = true;
        return false;
    }
    return true;
}

int fields_done(struct fields *f)
{
    if (!f->failed && !f->writing && f->in.left > 0)
        field_fault(f, "there is more than there should be");
    return f->failed ? -1 : 0;
}
