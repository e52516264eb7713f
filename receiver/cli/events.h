/* What a run tells while it works, shown: progress, steps, the plan, and each VM's end. */
#ifndef RECEIVER_CLI_EVENTS_H
#define RECEIVER_CLI_EVENTS_H

#include "receiver/job/run.h"
#include "receiver/mirror/mirror.h"
#include "receiver/repo/repo.h"

struct app;

/* Events that show themselves through app, which is borrowed. */
struct run_events events_of(struct app *app);

/* The surroundings that the mirror store wants, for commands that open it themselves. */
struct mirror_env events_mirror_env(struct app *app);

/* The same for a repository. */
struct repo_env events_repo_env(struct app *app);

#endif
