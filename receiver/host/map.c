#include "receiver/host/map.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/host/host.h"
#include "receiver/ssh/transport.h"

#define MAP_TIMEOUT_MS UINT64_C(600000)

struct reader {
    const char *at;
    const char *end; /* of the line */
};

static void skip_blanks(struct reader *r)
{
    while (r->at < r->end && *r->at == ' ')
        r->at++;
}

static bool take(struct reader *r, const char *text)
{
    size_t bytes = strlen(text);

    if ((size_t)(r->end - r->at) < bytes || memcmp(r->at, text, bytes) != 0)
        return false;
    r->at += bytes;
    return true;
}

static bool take_number(struct reader *r, uint64_t *out)
{
    uint64_t value = 0;
    const char *start;

    skip_blanks(r);
    for (start = r->at; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++)
        if (!checked_mul(value, 10, &value) ||
            !checked_add(value, (uint64_t)(*r->at - '0'), &value))
            return false;
    *out = value;
    return r->at > start;
}

/* "TYPE fz name:(start --> end)]": which kind of bytes lie there? */
static bool take_target(struct reader *r, uint64_t length, enum extent_kind *kind)
{
    const char *type = r->at;
    uint64_t start, end;
    const char *flags;
    const char *colon;

    if (r->end - r->at < 8 || type[4] != ' ')
        return false;
    flags = type + 5;
    if (memcmp(type, "NOMP", 4) == 0)
        *kind = EXTENT_ZERO;
    else if (memcmp(type, "VMFS", 4) == 0)
        *kind = flags[0] == 'Z' ? EXTENT_ZERO : EXTENT_DATA;
    else if (memcmp(type, "SCSI", 4) == 0)
        *kind = EXTENT_DATA;
    else
        return false; /* "????": nothing is known */
    if ((flags[0] != 'Z' && flags[0] != '-') || (flags[1] != 'R' && flags[1] != '-') ||
        flags[2] != ' ')
        return false;
    /* The name may hold colons itself: the last ":(" counts. */
    for (colon = r->end - 2; colon > flags && memcmp(colon, ":(", 2) != 0; colon--)
        ;
    if (colon <= flags)
        return false;
    r->at = colon + 2;
    if (!take_number(r, &start))
        return false;
    skip_blanks(r);
    if (!take(r, "-->") || !take_number(r, &end) || !take(r, ")]"))
        return false;
    return end >= start && end - start == length;
}

/* "[offset:length] --> [...]" */
static bool read_extent(struct reader *r, struct extent *out)
{
    if (!take(r, "[") || !take_number(r, &out->offset_bytes))
        return false;
    skip_blanks(r);
    if (!take(r, ":") || !take_number(r, &out->length_bytes))
        return false;
    skip_blanks(r);
    if (!take(r, "] --> [") || out->length_bytes == 0 ||
        !take_target(r, out->length_bytes, &out->kind))
        return false;
    skip_blanks(r);
    return r->at == r->end;
}

static int add_extent(struct disk_map *m, size_t *room, const struct extent *x, struct err *e)
{
    struct extent *last = m->count > 0 ? &m->items[m->count - 1] : NULL;
    struct extent *more;

    if (x->kind == EXTENT_DATA)
        m->data_bytes += x->length_bytes;
    if (last != NULL && last->kind == x->kind) {
        last->length_bytes += x->length_bytes;
        return 0;
    }
    if (m->count == MAP_EXTENTS_MAX)
        return err_set(e, ERR_LIMIT, "the map has more than %d extents", MAP_EXTENTS_MAX);
    if (m->count == *room) {
        *room = *room == 0 ? 256 : 2 * *room;
        more = realloc(m->items, *room * sizeof *more);
        if (more == NULL)
            return err_sys(e, "reading a map");
        m->items = more;
    }
    m->items[m->count++] = *x;
    return 0;
}

/* "Mapping for file PATH (N bytes in size):" */
static bool head_fits(const char *line, const char *end, uint64_t capacity_bytes)
{
    static const char start[] = "Mapping for file ", tail[] = " bytes in size):";
    struct reader r = { .at = line, .end = end };
    const char *open = end;
    uint64_t bytes;

    if (!take(&r, start) || end - line < (ptrdiff_t)(sizeof start + sizeof tail))
        return false;
    while (open > line && *--open != '(')
        ;
    r.at = open + 1;
    return *open == '(' && take_number(&r, &bytes) && take(&r, tail) && r.at == end &&
           bytes == capacity_bytes;
}

int disk_map_read(struct disk_map *out, const char *text, size_t bytes, uint64_t capacity_bytes,
                  struct err *e)
{
    const char *end = text + bytes;
    uint64_t position = 0;
    size_t line_number = 0, room = 0;
    struct extent x;
    int rc = -1;

    *out = (struct disk_map){ .capacity_bytes = capacity_bytes };
    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        struct reader r = { .at = text, .end = newline == NULL ? end : newline };

        while (r.end > r.at && r.end[-1] == '\r')
            r.end--;
        line_number++;
        if (line_number == 1) {
            if (!head_fits(text, r.end, capacity_bytes)) {
                err_set(e, ERR_FORMAT, "the map has no head for a disk of this size");
                goto out;
            }
        } else if (r.at != r.end) {
            if (!read_extent(&r, &x) || x.offset_bytes != position ||
                !checked_add(position, x.length_bytes, &position)) {
                err_set(e, ERR_FORMAT, "line %zu of the map does not fit", line_number);
                goto out;
            }
            if (add_extent(out, &room, &x, e) != 0)
                goto out;
        }
        text = newline == NULL ? end : newline + 1;
    }
    if (position != capacity_bytes || capacity_bytes == 0) {
        err_set(e, ERR_FORMAT, "the map does not sum up to the disk's size");
        goto out;
    }
    rc = 0;

out:
    if (rc != 0)
        disk_map_free(out);
    return rc;
}

void disk_map_free(struct disk_map *m)
{
    free(m->items);
    *m = (struct disk_map){ 0 };
}

int disk_map_fetch(struct host *h, const char *descriptor_path, uint64_t capacity_bytes,
                   struct disk_map *out, struct err *e)
{
    struct bytes command = { .ceiling = HOST_COMMAND_MAX };
    struct bytes text = { .ceiling = MAP_BYTES_MAX };
    struct bytes complaint = { .ceiling = HOST_COMPLAINT_MAX };
    struct remote_exit ended = { 0 };
    int rc = -1;

    *out = (struct disk_map){ 0 };
    if (shell_command(&command, e, "/sbin/vmkfstools", "-t", "0", descriptor_path, NULL) != 0 ||
        transport_run(h->transport, (const char *)command.data, NULL, 0, MAP_TIMEOUT_MS, &text,
                      &complaint, &ended, e) != 0)
        goto out;
    if (!ended.known || ended.signalled || ended.status != 0 || complaint.count > 0) {
        char *said = bytes_text(&complaint, e);

        err_set(e, ERR_FORMAT, "vmkfstools gave no map (status %d): %.*s", ended.status,
                said == NULL ? 0 : (int)strcspn(said, "\r\n"), said == NULL ? "" : said);
        goto out;
    }
    rc = disk_map_read(out, (const char *)text.data, text.count, capacity_bytes, e);

out:
    bytes_free(&command);
    bytes_free(&text);
    bytes_free(&complaint);
    return rc;
}

struct extent disk_map_at(const struct disk_map *m, uint64_t offset_bytes)
{
    size_t low = 0, high = m->count;
    struct extent x;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (m->items[middle].offset_bytes <= offset_bytes)
            low = middle;
        else
            high = middle;
    }
    x = m->items[low];
    x.length_bytes -= offset_bytes - x.offset_bytes;
    x.offset_bytes = offset_bytes;
    return x;
}
