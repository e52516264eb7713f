/* A growing list of object names, sorted once.  Inside receiver/storage only. */
#ifndef RECEIVER_STORAGE_NAME_LIST_H
#define RECEIVER_STORAGE_NAME_LIST_H

#include <stddef.h>

struct err;

/* Empty value { 0 }. */
struct name_list {
    char **names;
    size_t count, room;
};

/* Add a copy.  ERR_LIMIT past STORAGE_LIST_MAX, ERR_SYSTEM. */
int name_list_add(struct name_list *l, const char *name, struct err *e);
void name_list_sort(struct name_list *l);
void name_list_free(struct name_list *l);

#endif
