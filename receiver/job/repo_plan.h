/* What a dry run tells of the generation that a backup would start from. */
#ifndef RECEIVER_JOB_REPO_PLAN_H
#define RECEIVER_JOB_REPO_PLAN_H

#include <stdbool.h>
#include <stddef.h>

struct repo_run;
struct run_events;

/* run: begun with only_look; slots: of its disks, NULL for one that is not included. */
void repo_plan_tell(const struct repo_run *run, const char *const *slots, size_t count, bool full,
                    const char *vm, const struct run_events *events);

#endif
