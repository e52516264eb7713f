#include "receiver/mirror/verified.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/mirror/store.h"

static void walk_line(struct record *r, uint64_t line[2])
{
    record_line(r, "generation");
    record_field_u64(r, &line[0], 1, INT64_MAX);
    record_field_u64(r, &line[1], 1, INT64_MAX);
    record_line_end(r);
}

static int add(struct verified *v, uint64_t generation, uint64_t time, struct err *e)
{
    void *more;

    /* Twice the kept ones is more than can be there. */
    if (v->count > 2 * MIRROR_KEEP_MAX)
        return err_set(e, ERR_CORRUPT, "too many lines");
    more = realloc(v->at, (v->count + 1) * sizeof *v->at);
    if (more == NULL)
        return err_sys(e, "getting memory");
    v->at = more;
    v->at[v->count][0] = generation;
    v->at[v->count][1] = time;
    v->count++;
    return 0;
}

int verified_load(struct verified *out, const struct store *s, struct err *e)
{
    uint8_t mirror[MIRROR_ID_BYTES] = { 0 };
    struct record r;

    *out = (struct verified){ 0 };
    if (record_read(&r, s->store_fd, LAYOUT_VERIFIED, "verified", e) != 0)
        return -1;
    record_hex(&r, "mirror", mirror, sizeof mirror);
    while (record_more(&r, "generation")) {
        uint64_t line[2] = { 0, 0 };

        walk_line(&r, line);
        if (!r.failed && add(out, line[0], line[1], e) != 0)
            r.failed = true;
    }
    if (!r.failed && memcmp(mirror, s->identity.mirror, sizeof mirror) != 0)
        record_fault(&r, "it is of another mirror");
    if (record_done(&r, LAYOUT_VERIFIED) == 0)
        return 0;
    verified_free(out);
    return -1;
}

int64_t verified_time(const struct verified *v, uint64_t generation)
{
    for (size_t i = 0; i < v->count; i++)
        if (v->at[i][0] == generation)
            return (int64_t)v->at[i][1];
    return 0;
}

static bool is_among(const uint64_t *generations, size_t count, uint64_t generation)
{
    for (size_t i = 0; i < count; i++)
        if (generations[i] == generation)
            return true;
    return false;
}

static int compare_lines(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (x[0] > y[0]) - (x[0] < y[0]);
}

int verified_note(const struct store *s, const uint64_t *generations, size_t count, int64_t time,
                  struct err *e)
{
    struct verified was, now = { 0 };
    uint8_t mirror[MIRROR_ID_BYTES];
    struct record r;
    struct err none;
    int rc = -1;

    if (verified_load(&was, s, &none) != 0)
        was = (struct verified){ 0 };
    for (size_t i = 0; i < was.count; i++)
        if (was.at[i][0] + s->newest.keep >= s->newest.number &&
            !is_among(generations, count, was.at[i][0]) &&
            add(&now, was.at[i][0], was.at[i][1], e) != 0)
            goto out;
    for (size_t i = 0; i < count; i++)
        if (add(&now, generations[i], (uint64_t)time, e) != 0)
            goto out;
    if (now.count > 0)
        qsort(now.at, now.count, sizeof *now.at, compare_lines);
    memcpy(mirror, s->identity.mirror, sizeof mirror);
    record_write(&r, "verified", e);
    record_hex(&r, "mirror", mirror, sizeof mirror);
    for (size_t i = 0; i < now.count; i++)
        walk_line(&r, now.at[i]);
    rc = record_save(&r, s->store_fd, LAYOUT_VERIFIED, PUBLISH_REPLACE);

out:
    verified_free(&was);
    verified_free(&now);
    return rc;
}

void verified_free(struct verified *v)
{
    free(v->at);
    *v = (struct verified){ 0 };
}
