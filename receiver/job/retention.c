#include "receiver/job/retention.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const period_names[KEEP_PERIODS] = { "hourly", "daily", "weekly", "monthly",
                                                        "yearly" };

bool keep_policy_is_empty(const struct keep_policy *p)
{
    uint64_t sum = p->last + p->within_s + p->tag_count;

    for (unsigned i = 0; i < KEEP_PERIODS; i++)
        sum += p->periods[i];
    return sum == 0;
}

/* A rule that holds too is added to those before. */
static void keep(struct retention_item *item, const char *why)
{
    size_t used = item->keep ? strlen(item->reason) : 0;

    snprintf(item->reason + used, sizeof item->reason - used, "%s%s", used > 0 ? ", " : "", why);
    item->keep = true;
}

/* A number that is the same for all times of one period, in local time. */
static int64_t period_of(enum keep_period period, int64_t time)
{
    time_t t = (time_t)time;
    struct tm tm;
    int64_t day;

    if (localtime_r(&t, &tm) == NULL)
        return -1;
    day = (int64_t)tm.tm_year * 366 + tm.tm_yday;
    switch (period) {
    case KEEP_HOUR:
        return day * 24 + tm.tm_hour;
    case KEEP_DAY:
        return day;
    case KEEP_WEEK: /* by its Monday: back to that day, then a number of that day */
        t -= (time_t)((tm.tm_wday + 6) % 7) * 86400;
        return localtime_r(&t, &tm) == NULL ? -1 : (int64_t)tm.tm_year * 366 + tm.tm_yday;
    case KEEP_MONTH:
        return (int64_t)tm.tm_year * 12 + tm.tm_mon;
    default:
        return tm.tm_year;
    }
}

static void decide_period(enum keep_period period, uint32_t wanted, struct retention_item *items,
                          size_t count)
{
    int64_t last = INT64_MIN;

    for (size_t i = count; i-- > 0 && wanted > 0;) {
        int64_t now = period_of(period, items[i].time);

        if (!items[i].good || now == last)
            continue;
        last = now;
        keep(&items[i], period_names[period]);
        wanted--;
    }
}

static void decide_last(uint32_t wanted, struct retention_item *items, size_t count)
{
    for (size_t i = count; i-- > 0 && wanted > 0;)
        if (items[i].good) {
            keep(&items[i], "last");
            wanted--;
        }
}

/* What stays whatever the rules say. */
static void decide_always(int64_t now, uint64_t min_age_s, struct retention_item *items,
                          size_t count)
{
    bool newer = true; /* than the newest good one */

    for (size_t i = count; i-- > 0;) {
        struct retention_item *item = &items[i];

        if (item->good && newer) {
            keep(item, "the newest good one");
            newer = false;
        } else if (!item->good && newer) {
            keep(item, "partial, but newer than any good one");
        }
        if (item->pinned)
            keep(item, "pinned");
        if (min_age_s > 0 && item->time > now - (int64_t)min_age_s)
            keep(item, "too young");
    }
}

void retention_decide(const struct keep_policy *p, int64_t now, uint64_t min_age_s,
                      struct retention_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        items[i].keep = false;
        items[i].reason[0] = 0;
    }
    decide_always(now, min_age_s, items, count);
    decide_last(p->last, items, count);
    for (unsigned period = 0; period < KEEP_PERIODS; period++)
        decide_period((enum keep_period)period, p->periods[period], items, count);
    for (size_t i = 0; i < count; i++) {
        if (p->within_s > 0 && items[i].good && items[i].time > now - (int64_t)p->within_s)
            keep(&items[i], "within");
        if (items[i].tagged)
            keep(&items[i], "tag");
        if (!items[i].keep)
            snprintf(items[i].reason, sizeof items[i].reason, "%s",
                     items[i].good ? "no rule keeps it" : "partial, and not the newest");
    }
}
