/* The generations of a repository, as `list` shows them and as users name them. */
#ifndef RECEIVER_JOB_REPO_LIST_H
#define RECEIVER_JOB_REPO_LIST_H

#include <stddef.h>

#include "receiver/restore/generation.h"

struct err;
struct repo;
struct repo_generation;
struct repo_list; /* owns all texts of its items */

/*
 * All generations, those of one VM together and ascending.  A manifest that cannot be read is a
 * problem in the list, not an end.  0, or -1: a listing that failed, ERR_SYSTEM, ERR_NETWORK.
 */
int repo_list_load(struct repo_list **out, struct repo *r, struct err *e);
void repo_list_free(struct repo_list *l); /* NULL is allowed */

size_t repo_list_count(const struct repo_list *l);
const struct generation_item *repo_list_at(const struct repo_list *l, size_t index);
struct generation_list repo_list_generations(const struct repo_list *l);

/* The manifest behind an item of the list; borrowed. */
const struct repo_generation *repo_list_manifest(const struct generation_item *item);

size_t repo_list_problem_count(const struct repo_list *l);
const char *repo_list_problem(const struct repo_list *l, size_t index);

/* As generation_find; where a manifest could not be read, what is not found is ERR_CORRUPT. */
int repo_list_find(const struct repo_list *l, const char *gen, const struct generation_item **out,
                   uint64_t *newer_partial, struct err *e);

#endif
