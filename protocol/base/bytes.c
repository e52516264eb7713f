#include "protocol/base/bytes.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"

enum { FIRST_ROOM = 256 };

uint8_t *bytes_reserve(struct bytes *b, size_t count, struct err *e)
{
    size_t room = b->room > 0 ? b->room : FIRST_ROOM;
    uint8_t *data;

    if (count > b->ceiling || b->count > b->ceiling - count) {
        err_set(e, ERR_LIMIT, "more than %zu bytes", b->ceiling);
        return NULL;
    }
    /* One byte more than asked for, so that bytes_text never moves the data. */
    while (room < b->count + count + 1)
        room = room > SIZE_MAX / 2 ? b->count + count + 1 : room * 2;
    if (room != b->room) {
        data = realloc(b->data, room);
        if (data == NULL) {
            err_sys(e, "getting %zu bytes of memory", room);
            return NULL;
        }
        b->data = data;
        b->room = room;
    }
    return b->data + b->count;
}

int bytes_append(struct bytes *b, const void *data, size_t count, struct err *e)
{
    uint8_t *to = bytes_reserve(b, count, e);

    if (to == NULL)
        return -1;
    if (count > 0)
        memcpy(to, data, count);
    b->count += count;
    return 0;
}

char *bytes_text(struct bytes *b, struct err *e)
{
    if (bytes_reserve(b, 0, e) == NULL)
        return NULL;
    b->data[b->count] = 0;
    return (char *)b->data;
}

void bytes_free(struct bytes *b)
{
    free(b->data);
    b->data = NULL;
    b->count = b->room = 0;
}
