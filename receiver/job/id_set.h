/*
 * A set of ids, as large as a repository has them.  It may keep a part of each id: then it can
 * take one for another, which is right only where that errs on the safe side.
 */
#ifndef RECEIVER_JOB_ID_SET_H
#define RECEIVER_JOB_ID_SET_H

#include <stdbool.h>
#include <stddef.h>

struct err;
struct repo_id;
struct id_set;

/* bytes: how many of each id are kept, 8 to 32. */
int id_set_new(struct id_set **out, size_t bytes, struct err *e);
void id_set_free(struct id_set *s); /* NULL is allowed */

/* 1 when it is new, 0 when it is there, -1 with ERR_SYSTEM. */
int id_set_add(struct id_set *s, const struct repo_id *id, struct err *e);
bool id_set_has(const struct id_set *s, const struct repo_id *id);
size_t id_set_count(const struct id_set *s);

#endif
