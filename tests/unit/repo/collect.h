/* A small prune, made of the steps of repo_care.h. */
#ifndef TESTS_UNIT_REPO_COLLECT_H
#define TESTS_UNIT_REPO_COLLECT_H

#include "receiver/repo/repo_care.h"
#include "tests/unit/repo/fixture.h"

/* Copy what is alive out of packs with something dead in them, and remove those and dead ones.
 * *removed tells how many packs went. */
int collect(struct storage *s, struct host *h, unsigned *removed, struct err *e);

#endif
