/* vmferry info FILE.vmdk */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "protocol/vmdk/descriptor.h"
#include "receiver/base/json.h"
#include "receiver/base/sizes.h"
#include "receiver/base/stop.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/exit_codes.h"
#include "receiver/cli/report.h"
#include "receiver/cli/table.h"
#include "receiver/image/local_chain.h"

enum { EXTENTS_SHOWN = 8 };

/* What was found out about a disk. */
struct findings {
    const struct vmdk_chain *chain;
    struct err problem; /* ERR_NONE: it can be read */
    uint64_t capacity_bytes;
    uint64_t data_bytes; /* of the whole disk; VMDK_BYTES_UNKNOWN where it cannot be read */
};

/* Bytes of the disk that some link holds as data. */
static int count_data(struct source *s, uint64_t *out, struct err *e)
{
    struct extent x;
    uint64_t sum = 0;

    for (uint64_t at = 0; at < s->capacity_bytes; at += x.length_bytes) {
        if (stop_check(e) != 0 || source_extent_at(s, at, &x, e) != 0)
            return -1;
        if (x.kind == EXTENT_DATA)
            sum += x.length_bytes;
    }
    *out = sum;
    return 0;
}

/* Everything that reading the disk would need, short of its data.  -1 only when stopped. */
static int look(struct findings *f, struct vmdk_chain *c, struct err *e)
{
    const struct err *broken = vmdk_chain_problem(c);
    struct source *s = vmdk_chain_source(c);

    *f = (struct findings){
        .chain = c,
        .capacity_bytes = vmdk_chain_link(c, 0)->capacity_bytes,
        .data_bytes = VMDK_BYTES_UNKNOWN,
    };
    /* The tables of the links that could be opened are worth their numbers in any case. */
    if (vmdk_chain_verify(c, &f->problem) == 0)
        f->problem.code = ERR_NONE;
    if (broken != NULL)
        f->problem = *broken;
    if (f->problem.code == ERR_NONE && count_data(s, &f->data_bytes, &f->problem) == 0)
        f->problem.code = ERR_NONE;
    if (f->problem.code != ERR_STOPPED)
        return 0;
    *e = f->problem;
    return -1;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

static bool is_base(const struct descriptor *d)
{
    return d->parent_cid == DESCRIPTOR_CID_NONE;
}

/* ---- JSON ---- */

static void put_bytes(struct json *j, const char *key, uint64_t bytes)
{
    if (bytes == VMDK_BYTES_UNKNOWN)
        json_null(j, key);
    else
        json_number(j, key, bytes);
}

static void put_cid(struct json *j, const char *key, uint32_t cid)
{
    char text[16];

    snprintf(text, sizeof text, "%08" PRIx32, cid);
    json_text(j, key, text);
}

static void put_extents(struct json *j, const struct findings *f, size_t index)
{
    const struct vmdk_link *l = vmdk_chain_link(f->chain, index);

    json_array(j, "extents");
    for (size_t i = 0; i < l->extent_count; i++) {
        const char *place = vmdk_chain_extent_place(f->chain, index, i);

        json_object(j, NULL);
        json_text(j, "file", place[0] != 0 ? place : NULL);
        if (i < l->descriptor->extent_count) {
            json_text(j, "type", l->descriptor->extents[i].type);
            json_number(j, "size", l->descriptor->extents[i].sectors * DESCRIPTOR_SECTOR_BYTES);
        }
        json_close(j);
    }
    json_close(j);
}

static void put_link(struct json *j, const struct findings *f, size_t index)
{
    const struct vmdk_link *l = vmdk_chain_link(f->chain, index);
    const struct descriptor *d = l->descriptor;

    json_object(j, NULL);
    json_text(j, "file", l->place);
    json_text(j, "format", l->format);
    json_text(j, "create_type", d->create_type);
    json_number(j, "capacity", l->capacity_bytes);
    if (l->grain_bytes > 0)
        json_number(j, "grain", l->grain_bytes);
    else
        json_null(j, "grain");
    put_bytes(j, "allocated", l->allocated_bytes);
    put_bytes(j, "zeroed", l->zero_bytes);
    json_number(j, "file_size", l->file_bytes);
    put_cid(j, "cid", d->cid);
    if (is_base(d))
        json_null(j, "parent_cid");
    else
        put_cid(j, "parent_cid", d->parent_cid);
    json_text(j, "parent", d->parent_hint);
    json_text(j, "change_tracking", d->change_track);
    put_extents(j, f, index);
    json_close(j);
}

static void print_json(struct app *app, const struct findings *f)
{
    struct json *j = report_array_begin(app->report);

    if (j == NULL)
        return;
    json_object(j, NULL);
    json_text(j, "file", app->options->operands[0]);
    json_number(j, "capacity", f->capacity_bytes);
    put_bytes(j, "allocated", f->data_bytes);
    json_text(j, "uuid", vmdk_chain_ddb(f->chain, "uuid"));
    json_text(j, "adapter", vmdk_chain_ddb(f->chain, "adapterType"));
    json_bool(j, "readable", f->problem.code == ERR_NONE);
    json_array(j, "problems");
    if (f->problem.code != ERR_NONE) {
        json_object(j, NULL);
        json_text(j, "class", err_code_name(f->problem.code));
        json_text(j, "message", f->problem.text);
        json_close(j);
    }
    json_close(j);
    json_array(j, "links");
    for (size_t i = 0; i < vmdk_chain_link_count(f->chain); i++)
        put_link(j, f, i);
    json_close(j);
    json_close(j);
    report_array_end(app->report);
}

/* ---- For people ---- */

static const char *bytes_text(char out[SIZE_TEXT_BYTES], uint64_t bytes)
{
    return bytes == VMDK_BYTES_UNKNOWN ? NULL : size_text(out, bytes);
}

static int add_row(struct table *t, const struct vmdk_link *l, struct err *e)
{
    char grain[SIZE_TEXT_BYTES], held[SIZE_TEXT_BYTES], zero[SIZE_TEXT_BYTES], cid[16];
    char file[SIZE_TEXT_BYTES];
    const char *cells[] = {
        last_part(l->place),
        l->format,
        l->grain_bytes > 0 ? size_text(grain, l->grain_bytes) : NULL,
        bytes_text(held, l->allocated_bytes),
        bytes_text(zero, l->zero_bytes),
        size_text(file, l->file_bytes),
        cid,
    };

    snprintf(cid, sizeof cid, "%08" PRIx32, l->descriptor->cid);
    return table_row(t, cells, e);
}

/* Files that the table does not name. */
static void print_files(const struct findings *f, size_t index)
{
    const struct vmdk_link *l = vmdk_chain_link(f->chain, index);
    char shown[1024];

    for (size_t i = 0; i < l->extent_count && i < EXTENTS_SHOWN; i++) {
        const char *place = vmdk_chain_extent_place(f->chain, index, i);

        if (place[0] == 0 || strcmp(place, l->place) == 0)
            continue;
        utf8_show(shown, sizeof shown, place);
        printf("  extent %s\n", shown);
    }
    if (l->extent_count > EXTENTS_SHOWN)
        printf("  and %zu extents more\n", l->extent_count - EXTENTS_SHOWN);
    if (l->descriptor->change_track != NULL) {
        utf8_show(shown, sizeof shown, l->descriptor->change_track);
        printf("  change tracking in %s (its layout is not known; it is not read)\n", shown);
    }
}

static void print_head(const struct findings *f)
{
    char file[1024], size[SIZE_TEXT_BYTES], data[SIZE_TEXT_BYTES];
    size_t links = vmdk_chain_link_count(f->chain);

    utf8_show(file, sizeof file, vmdk_chain_link(f->chain, 0)->place);
    printf("%s: %s, %zu link%s", file, size_text(size, f->capacity_bytes), links,
           links == 1 ? "" : "s");
    if (f->data_bytes != VMDK_BYTES_UNKNOWN)
        printf(", %s of data", size_text(data, f->data_bytes));
    printf("\n");
}

static int print_people(const struct findings *f, struct err *e)
{
    static const struct table_column columns[] = {
        { "LINK", false, true }, { "FORMAT", false, false }, { "GRAIN", true, false },
        { "DATA", true, false }, { "ZEROED", true, false },  { "FILES", true, false },
        { "CID", false, false },
    };
    struct table *t = NULL;
    char text[sizeof f->problem.text * 2];
    int rc = -1;

    if (table_new(&t, columns, 7, e) != 0)
        goto out;
    for (size_t i = 0; i < vmdk_chain_link_count(f->chain); i++) {
        if (add_row(t, vmdk_chain_link(f->chain, i), e) != 0)
            goto out;
    }
    print_head(f);
    table_print(t, stdout, app_columns(), 2);
    for (size_t i = 0; i < vmdk_chain_link_count(f->chain); i++)
        print_files(f, i);
    if (f->problem.code != ERR_NONE) {
        utf8_show(text, sizeof text, f->problem.text);
        printf("  PROBLEM: %s\n", text);
    }
    rc = 0;

out:
    table_free(t);
    return rc;
}

int cmd_info(struct app *app, struct err *e)
{
    const struct options *o = app->options;
    struct local_chain l = { .files = NULL };
    struct findings f;
    int rc = -1;

    if (local_chain_open(&l, o->operands[0], o->volumes, o->volume_count, VMDK_DESCRIBE, e) != 0)
        goto out;
    if (look(&f, l.chain, e) != 0)
        goto out;
    if (o->json)
        print_json(app, &f);
    else if (print_people(&f, e) != 0)
        goto out;
    app->exit_code = exit_code_of(f.problem.code);
    rc = 0;

out:
    local_chain_close(&l);
    return rc;
}
