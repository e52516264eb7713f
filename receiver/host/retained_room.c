#include "receiver/host/retained_room.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/host/datastores.h"
#include "receiver/host/host.h"
#include "receiver/host/lines.h"
#include "receiver/host/retained.h"
#include "receiver/ssh/transport.h"

/* The two kinds of delta, by what stands in the place of the descriptor's ".vmdk". */
static const char *const endings[] = { "-delta.vmdk", "-sesparse.vmdk" };

enum { DESCRIPTOR_END = sizeof ".vmdk" - 1 };

static bool delta_path(char out[DATASTORE_PATH_MAX + 16], const char *descriptor,
                       const char *ending)
{
    size_t bytes = strlen(descriptor);

    if (bytes < DESCRIPTOR_END || strcmp(descriptor + bytes - DESCRIPTOR_END, ".vmdk") != 0)
        return false;
    snprintf(out, DATASTORE_PATH_MAX + 16, "%.*s%s", (int)(bytes - DESCRIPTOR_END), descriptor,
             ending);
    return true;
}

/* Is this path a delta of the record, right above a frozen link? */
static bool is_delta(const struct retained *r, const char *path)
{
    char wanted[DATASTORE_PATH_MAX + 16];

    for (size_t i = 0; i < r->disk_count; i++)
        for (size_t k = 0; k < ARRAY_COUNT(endings); k++)
            if (delta_path(wanted, r->disks[i].leaf_path, endings[k]) && strcmp(wanted, path) == 0)
                return true;
    return false;
}

/* One line: KiB, a tab or blanks, a path.  Whatever else is printed says nothing. */
static bool read_line(char *line, uint64_t *bytes, const char **path)
{
    size_t digits = strspn(line, "0123456789");
    size_t blanks = strspn(line + digits, " \t");
    uint64_t kib;

    if (digits == 0 || blanks == 0)
        return false;
    *path = line + digits + blanks;
    line[digits] = '\0';
    return line_number(line, UINT64_MAX / 1024, &kib) && checked_mul(kib, 1024, bytes);
}

int retained_cost_read(const char *text, const struct retained *r,
                       const struct datastore_list *stores, struct retained_cost *out,
                       struct err *e)
{
    uint64_t *there = calloc(stores->count + 1, sizeof *there);
    char *copy = strdup(text), *next;

    *out = (struct retained_cost){ 0 };
    if (there == NULL || copy == NULL) {
        free(there);
        free(copy);
        return err_sys(e, "asking for the size of deltas");
    }
    for (char *line = copy; line != NULL; line = next) {
        const struct datastore *d;
        const char *path;
        uint64_t bytes;

        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        if (!read_line(line, &bytes, &path) || !is_delta(r, path))
            continue;
        d = datastore_of(stores, path);
        /* More than can be is no size: it counts as too much. */
        if (!checked_add(out->bytes, bytes, &out->bytes))
            out->bytes = UINT64_MAX;
        if (d != NULL && !checked_add(there[d - stores->items], bytes, &there[d - stores->items]))
            there[d - stores->items] = UINT64_MAX;
    }
    for (size_t i = 0; i < stores->count && out->crowded[0] == '\0'; i++)
        if (there[i] > stores->items[i].free_bytes / RETAINED_FREE_SHARE) {
            snprintf(out->crowded, sizeof out->crowded, "%.127s", stores->items[i].name);
            out->there_bytes = there[i];
            out->free_bytes = stores->items[i].free_bytes;
        }
    free(there);
    free(copy);
    return 0;
}

int retained_cost(struct host *h, const struct retained *r, const struct datastore_list *stores,
                  struct retained_cost *out, struct err *e)
{
    struct bytes command = { .ceiling = HOST_COMMAND_MAX };
    struct host_answer a = { 0 };
    char path[DATASTORE_PATH_MAX + 16];
    const char *line;
    int rc = -1;

    *out = (struct retained_cost){ 0 };
    if (bytes_append(&command, "du -k", 5, e) != 0)
        goto out;
    for (size_t i = 0; i < r->disk_count; i++)
        for (size_t k = 0; k < ARRAY_COUNT(endings); k++)
            if (delta_path(path, r->disks[i].leaf_path, endings[k]) &&
                (bytes_append(&command, " ", 1, e) != 0 || shell_quote(&command, path, e) != 0))
                goto out;
    line = bytes_text(&command, e);
    /* One of each two files is missing, so neither status nor complaint says anything. */
    if (line == NULL || host_run(h, line, HOST_COMMAND_MS, &a, e) != 0)
        goto out;
    rc = retained_cost_read(a.out, r, stores, out, e);

out:
    host_answer_free(&a);
    bytes_free(&command);
    return rc;
}
