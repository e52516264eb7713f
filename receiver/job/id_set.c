#include "receiver/job/id_set.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/repo/repo.h"

/* Open addressing; an id is a hash already.  The id of all zeros marks a free place. */
struct id_set {
    size_t bytes, count, room; /* room is a power of two */
    uint8_t *places;
    bool has_zero;
};

enum { ROOM_FIRST = 1024 };

int id_set_new(struct id_set **out, size_t bytes, struct err *e)
{
    struct id_set *s = calloc(1, sizeof *s);

    assert(bytes >= 8 && bytes <= REPO_ID_BYTES);
    if (s == NULL)
        return err_sys(e, "getting memory");
    s->bytes = bytes;
    s->room = ROOM_FIRST;
    s->places = calloc(s->room, bytes);
    if (s->places == NULL) {
        err_sys(e, "getting memory");
        free(s);
        return -1;
    }
    *out = s;
    return 0;
}

void id_set_free(struct id_set *s)
{
    if (s == NULL)
        return;
    free(s->places);
    free(s);
}

static bool is_zero(const uint8_t *id, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (id[i] != 0)
            return false;
    return true;
}

/* The place of an id, or the free one where it belongs. */
static uint8_t *find(const struct id_set *s, const uint8_t *id)
{
    uint64_t at;

    memcpy(&at, id, sizeof at);
    at = at * UINT64_C(0x9e3779b97f4a7c15) >> 32; /* whoever chose its first bits chose no place */
    for (at &= s->room - 1;; at = (at + 1) & (s->room - 1)) {
        uint8_t *place = s->places + at * s->bytes;

        if (memcmp(place, id, s->bytes) == 0 || is_zero(place, s->bytes))
            return place;
    }
}

static int grow(struct id_set *s, struct err *e)
{
    struct id_set larger = *s;

    larger.room = s->room * 2;
    larger.places = calloc(larger.room, s->bytes);
    if (larger.places == NULL)
        return err_sys(e, "getting memory for %zu ids", s->count);
    for (size_t i = 0; i < s->room; i++) {
        const uint8_t *id = s->places + i * s->bytes;

        if (!is_zero(id, s->bytes))
            memcpy(find(&larger, id), id, s->bytes);
    }
    free(s->places);
    *s = larger;
    return 0;
}

int id_set_add(struct id_set *s, const struct repo_id *id, struct err *e)
{
    uint8_t *place;
    bool was = s->has_zero;

    if (is_zero(id->b, s->bytes)) {
        s->has_zero = true;
        s->count += !was;
        return !was;
    }
    if (s->count * 10 >= s->room * 7 && grow(s, e) != 0)
        return -1;
    place = find(s, id->b);
    if (!is_zero(place, s->bytes))
        return 0;
    memcpy(place, id->b, s->bytes);
    s->count++;
    return 1;
}

bool id_set_has(const struct id_set *s, const struct repo_id *id)
{
    if (is_zero(id->b, s->bytes))
        return s->has_zero;
    return !is_zero(find(s, id->b), s->bytes);
}

size_t id_set_count(const struct id_set *s)
{
    return s->count;
}
