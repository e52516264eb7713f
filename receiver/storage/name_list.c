#include "receiver/storage/name_list.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/storage/storage.h"

int name_list_add(struct name_list *l, const char *name, struct err *e)
{
    char *copy;

    if (l->count == STORAGE_LIST_MAX)
        return err_set(e, ERR_LIMIT, "there are more than %d objects", STORAGE_LIST_MAX);
    if (l->count == l->room) {
        size_t room = l->room > 0 ? 2 * l->room : 64;
        char **names = realloc(l->names, room * sizeof names[0]);

        if (names == NULL)
            return err_sys(e, "getting memory for a list of objects");
        l->names = names;
        l->room = room;
    }
    copy = strdup(name);
    if (copy == NULL)
        return err_sys(e, "getting memory for a list of objects");
    l->names[l->count++] = copy;
    return 0;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void name_list_sort(struct name_list *l)
{
    if (l->count > 1)
        qsort(l->names, l->count, sizeof l->names[0], compare);
}

void name_list_free(struct name_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->names[i]);
    free(l->names);
    *l = (struct name_list){ 0 };
}
