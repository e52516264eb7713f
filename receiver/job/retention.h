/*
 * Which generations of one VM stay: a decision over a list, nothing more.
 *
 * Every rule takes the good generations (outcome ok) from the newest on.  A partial one counts for
 * no rule, so it never stands for a good one; it stays while it is newer than the newest good one.
 * The newest good one, pinned ones and those younger than the least age stay whatever the rules
 * say.
 */
#ifndef RECEIVER_JOB_RETENTION_H
#define RECEIVER_JOB_RETENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KEEP_COUNT_MAX = 1000000, TAG_BYTES_MAX = 256 };

enum keep_period { KEEP_HOUR, KEEP_DAY, KEEP_WEEK, KEEP_MONTH, KEEP_YEAR, KEEP_PERIODS };

struct keep_policy {
    uint32_t last;
    uint32_t periods[KEEP_PERIODS]; /* the newest of each of so many hours, days, … local time */
    uint64_t within_s;              /* all that are younger; 0: no such rule */
    const char *const *tags;        /* all that have one of them */
    size_t tag_count;
};

struct retention_item {
    /* given, ascending by number */
    uint64_t number;
    int64_t time;
    bool good; /* outcome ok */
    bool pinned;
    bool tagged; /* has a tag of the policy */
    /* decided */
    bool keep;
    char reason[80]; /* why it stays, or goes */
};

/* True when the policy has no rule: nothing may be forgotten by it. */
bool keep_policy_is_empty(const struct keep_policy *p);

/* Decide about all generations of one VM. */
void retention_decide(const struct keep_policy *p, int64_t now, uint64_t min_age_s,
                      struct retention_item *items, size_t count);

#endif
