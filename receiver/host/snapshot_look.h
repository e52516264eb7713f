/*
 * What the creation and the removal of our snapshots share; nobody else includes it.
 */
#ifndef RECEIVER_HOST_SNAPSHOT_LOOK_H
#define RECEIVER_HOST_SNAPSHOT_LOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "receiver/host/snapshot.h"

/* vim-cmd gives up on its own after 1800 s, while the task goes on. */
#define TASK_COMMAND_MS UINT64_C(1860000)
#define POLL_MS UINT64_C(1000)
#define SLOW_POLL_MS UINT64_C(5000)
/* How long nothing may be seen of a task before it counts as never begun. */
#define SILENT_MS UINT64_C(15000)

/* What a token shows in a tree. */
struct snapshot_sighting {
    size_t count; /* snapshots whose name holds it */
    unsigned id;  /* of the last of them */
    bool exact;   /* its name is exactly the one given */
    int64_t created;
    bool quiesced;
};

void snapshot_sight(const struct snapshot_tree *t, const char *token, const char *name,
                    struct snapshot_sighting *out);

/* Read the tree and sight. */
int snapshot_look(struct host *h, unsigned vmid, const char *token, const char *name,
                  struct snapshot_sighting *out, struct err *e);

/*
 * The state of snapshot tasks; *known false, and nothing open, when the host does not tell.
 * -1 only when the connection is gone or we were asked to end.
 */
int snapshot_look_at_tasks(struct host *h, unsigned vmid, const char *operation,
                           struct snapshot_task *out, bool *known, struct err *e);

#endif
