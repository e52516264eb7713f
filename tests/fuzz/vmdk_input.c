#include "tests/fuzz/vmdk_input.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "tests/fuzz/fuzz.h"

enum { PIECES_MAX = 512 };

struct piece {
    uint32_t at;
    uint16_t bytes;
    const uint8_t *data;
};

struct input_file {
    char *name;
    uint32_t size;
    struct piece *pieces;
    size_t count;
};

struct input {
    struct vmdk_files files;
    struct input_file items[VMDK_INPUT_FILES_MAX];
    size_t count;
};

struct input_source {
    struct source source;
    const struct input_file *file;
};

static int input_extent_at(struct source *s, uint64_t at, struct extent *out, struct err *e)
{
    (void)e;
    *out = (struct extent){ at, s->capacity_bytes - at, EXTENT_DATA };
    return 0;
}

static int input_read(struct source *s, uint64_t at, void *out, size_t count, struct err *e)
{
    const struct input_file *f = ((struct input_source *)s)->file;

    (void)e;
    FUZZ_CHECK(at <= f->size && count <= f->size - at);
    memset(out, 0, count);
    for (size_t i = 0; i < f->count; i++) {
        const struct piece *p = &f->pieces[i];
        uint64_t from = max_u64(p->at, at), to = min_u64((uint64_t)p->at + p->bytes, at + count);

        if (from < to)
            memcpy((uint8_t *)out + (from - at), p->data + (from - p->at), (size_t)(to - from));
    }
    return 0;
}

static void input_close(struct source *s)
{
    free(s);
}

static const struct source_ops input_ops = { input_extent_at, input_read, input_close };

static int input_open(struct vmdk_files *files, const char *from, const char *name,
                      enum vmdk_role role, struct vmdk_file *out, struct err *e)
{
    struct input *in = (struct input *)files;

    FUZZ_CHECK(role != VMDK_EXTENT || vmdk_name_is_bare(name));
    FUZZ_CHECK((role == VMDK_TIP) == (from == NULL));
    for (size_t i = 0; i < in->count; i++) {
        struct input_source *s;

        if (strcmp(in->items[i].name, name) != 0)
            continue;
        s = malloc(sizeof *s);
        FUZZ_CHECK(s != NULL);
        s->source = (struct source){ &input_ops, in->items[i].size, 0, 0 };
        s->file = &in->items[i];
        *out = (struct vmdk_file){ .source = &s->source,
                                   .size_bytes = in->items[i].size,
                                   .place = strdup(name),
                                   .inode = i + 1 };
        FUZZ_CHECK(out->place != NULL);
        return 0;
    }
    return err_set(e, ERR_NOT_FOUND, "%s", name);
}

static void input_free(struct vmdk_files *files)
{
    struct input *in = (struct input *)files;

    for (size_t i = 0; i < in->count; i++) {
        free(in->items[i].name);
        free(in->items[i].pieces);
    }
    free(in);
}

static void take_file(struct pull *p, struct input_file *f)
{
    size_t name_bytes = min_u64(pull_u8(p), p->left);
    size_t pieces;

    f->name = fuzz_text(pull_bytes(p, name_bytes), name_bytes);
    f->size = (uint32_t)max_u64(1, min_u64(pull_u32(p), VMDK_INPUT_BYTES_MAX));
    pieces = min_u64(pull_u16(p), PIECES_MAX);
    f->pieces = calloc(pieces + 1, sizeof *f->pieces);
    FUZZ_CHECK(f->pieces != NULL);
    while (f->count < pieces && p->left > 6) {
        struct piece *x = &f->pieces[f->count++];

        x->at = pull_u32(p);
        x->bytes = (uint16_t)min_u64(pull_u16(p), p->left);
        x->data = pull_bytes(p, x->bytes);
    }
}

struct vmdk_files *vmdk_input_files(struct pull *p, const char **tip)
{
    struct input *in = calloc(1, sizeof *in);
    size_t count;

    FUZZ_CHECK(in != NULL);
    in->files = (struct vmdk_files){ input_open, NULL, input_free };
    count = 1 + pull_u8(p) % VMDK_INPUT_FILES_MAX;
    while (in->count < count)
        take_file(p, &in->items[in->count++]);
    *tip = in->items[0].name;
    return &in->files;
}
