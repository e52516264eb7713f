/* Look at everything in a repository, as a check does. */
#ifndef TESTS_UNIT_REPO_VERIFY_H
#define TESTS_UNIT_REPO_VERIFY_H

#include "tests/unit/repo/fixture.h"

/* What the generations of the only VM must be. */
struct expected {
    const struct disk *disks[GENERATIONS_MAX]; /* by number, from 1; NULL: none */
    unsigned count;
};

/*
 * How many faults there are in objects, warnings included; the first one goes to `first`.  A
 * restore that ends well with wrong content fails the test.
 */
unsigned count_faults(struct storage *s, const char *passphrase, const struct expected *x,
                      struct host *h, struct err *first);

#endif
