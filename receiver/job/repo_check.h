/* Is a repository whole?  Packs against their indexes, generations against what is there. */
#ifndef RECEIVER_JOB_REPO_CHECK_H
#define RECEIVER_JOB_REPO_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct repo;
struct repo_env;
struct repo_generation;

struct repo_check_options {
    bool read_data;
    unsigned k, n;  /* slice k of n packs, 1 <= k <= n; 1, 1: all */
    bool set_aside; /* note what is damaged, so that the next backup stores it again, and with
                       read_data what was read without a fault, and when */
    /* One call for each fault. */
    void (*problem)(void *context, const char *object, const char *text);
    void *context;
};

struct repo_checked {
    uint64_t packs, generations;
    uint64_t read_bytes;        /* of packs, with read_data */
    uint64_t problems, damaged; /* faults; entries that were found damaged */
    uint64_t healed;            /* entries that are damaged, but there once more, and whole */
    uint64_t unindexed;         /* packs that a crash left without index: no fault */
};

/*
 * Check all of it, or with a generation only what that needs: with read_data its blocks are read.
 * 0 when clean; -1 with ERR_CORRUPT when anything was found, or ERR_STOPPED, ERR_SYSTEM,
 * ERR_NETWORK.  env: warn, progress and stop are used.
 */
int repo_check(struct repo *r, const struct repo_check_options *options, const struct repo_env *env,
               struct repo_checked *out, struct err *e);
int repo_check_generation(struct repo *r, const struct repo_generation *g,
                          const struct repo_check_options *options, const struct repo_env *env,
                          struct repo_checked *out, struct err *e);

#endif
