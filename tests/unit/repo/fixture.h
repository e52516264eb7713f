/*
 * A repository for tests, filled from the hosts made of memory of the mirror's tests: disks whose
 * content the tests set, walked as the stream engine does.
 */
#ifndef TESTS_UNIT_REPO_FIXTURE_H
#define TESTS_UNIT_REPO_FIXTURE_H

#include "receiver/repo/repo_read.h"
#include "receiver/repo/repo_run.h"
#include "receiver/storage/storage.h"
#include "tests/unit/mirror/fixture.h"

struct secret;

enum { GENERATIONS_MAX = 16 };

/* What a backup is to be like; zeros: the usual. */
struct backup {
    struct walk walk;
    const char *cache_dir;
    const char *passphrase;
    bool no_parent;
    bool stop_before_commit;
    /* out */
    uint64_t number, changed, stored, fresh; /* sums over the disks read */
    bool distrusted;
};

/* A host and an empty storage in memory. */
struct fixture {
    struct host h;
    struct storage *s;
    struct err e;
};

int fixture_set_up(void **state);
int fixture_tear_down(void **state);

/* A repository of small blocks in this storage; passphrase may be NULL. */
void make_repo(struct storage *s, const char *passphrase);

int open_repo(struct storage *s, const char *passphrase, const char *cache_dir,
              enum repo_access access, struct host *h, struct repo **out, struct err *e);

/* One run of the host's VM, with a repository opened for it alone. */
int back_up(struct storage *s, struct host *h, struct backup *b, struct err *e);
/* The same in an open one. */
int back_up_in(struct repo *r, struct host *h, struct backup *b, struct err *e);

/* The content of a disk of generation `number` of the VM, read to the end, is what d holds:
 * 1 it is, 0 it is something else, -1 it cannot be read. */
int generation_has(struct repo *r, const struct repo_key *vm, uint64_t number, const char *slot,
                   const struct disk *d, struct err *e);

/* The same for all disks of the host, demanded. */
void assert_generation(struct storage *s, struct host *h, uint64_t number, const char *passphrase);

/* The key of the only VM in it. */
struct repo_key only_vm(struct repo *r);

/* How many objects have names with this prefix, and their bytes. */
size_t count_objects(struct storage *s, const char *prefix, uint64_t *bytes);

#endif
