/*
 * What a test against the scripted host begins with: the host, a state folder with its journal, and
 * what the host says of its VM and of its datastores.
 */
#ifndef TESTS_UNIT_HOST_FIXTURE_H
#define TESTS_UNIT_HOST_FIXTURE_H

#include "receiver/host/datastores.h"
#include "receiver/host/inventory.h"
#include "receiver/host/journal.h"
#include "receiver/host/snapshot.h"
#include "tests/unit/host/fake_host.h"

#define INSTALL "0123456789abcdef"

struct fixture {
    struct fake_host f;
    char path[64]; /* the state folder */
    int folder;
    struct journal *j;
    struct vm vm;
    struct datastore_list stores;
    struct snapshot_wish wish;
};

/* For cmocka: *state is the fixture. */
int fixture_set_up(void **state);
int fixture_tear_down(void **state);

/* What the journal has; *state is that of the first, unless NULL. */
size_t fixture_entries(struct fixture *x, enum journal_state *state);
/* The snapshot of x->wish; 0 or -1. */
int fixture_take(struct fixture *x, struct snapshot **s, struct err *e);

#endif
