#include "receiver/job/repo_plan.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "receiver/base/clock.h"
#include "receiver/base/sizes.h"
#include "receiver/job/run.h"
#include "receiver/repo/repo_run.h"

struct teller {
    const struct run_events *events;
    const char *vm;
};

static void __attribute__((format(printf, 2, 3)))
tell(const struct teller *t, const char *format, ...)
{
    char line[400];
    va_list arguments;

    if (t->events->plan == NULL)
        return;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    t->events->plan(t->events->context, t->vm, line);
}

static void tell_parent(const struct teller *t, const struct repo_run *run, bool full)
{
    uint64_t parent = repo_run_parent(run);
    char time[CLOCK_TEXT_BYTES];

    if (parent == 0) {
        tell(t, "kind full, no parent: all that is allocated is read and stored");
        return;
    }
    clock_format(time, (int64_t)repo_run_parent_time(run));
    if (full)
        tell(t,
             "kind full, parent generation %" PRIu64
             " of %s: all that is allocated is read and sent",
             parent, time);
    else
        tell(t,
             "kind changed, parent generation %" PRIu64
             " of %s: all that is allocated is read, what differs is sent",
             parent, time);
}

static void tell_disk(const struct teller *t, const char *slot, const struct repo_disk_state *d,
                      bool has_parent)
{
    char size[SIZE_TEXT_BYTES];

    if (d->is_new && has_parent)
        tell(t, "%s: the parent does not have it: all of it is sent", slot);
    if (d->resumed)
        tell(t, "%s: an unfinished run is gone on with, from %s on", slot,
             size_text(size, d->resumed_bytes));
    if (!d->is_new && d->old_capacity_bytes != d->capacity_bytes)
        tell(t, "%s: it had %s", slot, size_text(size, d->old_capacity_bytes));
}

void repo_plan_tell(const struct repo_run *run, const char *const *slots, size_t count, bool full,
                    const char *vm, const struct run_events *events)
{
    const struct teller t = { events, vm };

    tell_parent(&t, run, full);
    for (size_t i = 0; i < count; i++)
        if (slots[i] != NULL)
            tell_disk(&t, slots[i], repo_run_disk(run, i), repo_run_parent(run) != 0);
}
