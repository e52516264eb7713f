/*
 * Putting the agent on a host and taking it away: a private folder with an unpredictable name on a
 * datastore, the file's hash compared after the upload, a trial start.  The journal knows of the
 * folder before it exists.  Removed are exactly the files that we made, then the empty folder.
 */
#ifndef RECEIVER_HOST_PLACE_H
#define RECEIVER_HOST_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "receiver/host/journal.h"

struct datastore_list;
struct err;
struct host;
struct vm;

enum {
    PLACE_AGENT_BYTES_MAX = 32 << 20,
    PLACE_TMP_BYTES_MAX = 8 << 20, /* /tmp of a host is a small RAM disk that others need */
};

enum place_outcome {
    PLACE_READY,
    PLACE_REFUSED,   /* the host does not run foreign programs: read over ssh-dd; see reason */
    PLACE_UNRUNNABLE /* uploaded well, but it does not start for another cause; see reason */
};

struct placed {
    enum place_outcome outcome;
    char reason[480]; /* why not PLACE_READY, with the remedy */
    char *path;       /* absolute path of the agent; valid while PLACE_READY */
    char *folder;
    char version[128]; /* what `agent --version` printed */
    struct journal_ticket *ticket;
};

struct place_wish {
    const char *agent_file; /* local path */
    const char *agent_dir;  /* --agent-dir "[ds] dir", or NULL */
    const struct vm *vm;    /* its datastore is taken first; NULL: the one with most room */
    const struct datastore_list *stores;
};

/*
 * Upload and try.  0 with out->outcome set; when it is not PLACE_READY the files are removed
 * already. -1: ERR_USAGE (no such agent file or datastore), ERR_SPACE (no place with room),
 * ERR_CORRUPT (the hash on the host differs), ERR_NETWORK, ERR_SYSTEM, ERR_CLEANUP; nothing stays
 * on the host, or the journal names it.  *out is freed with place_remove and placed_free.
 */
int place_agent(struct host *h, struct journal *j, const struct place_wish *wish,
                struct placed *out, struct err *e);

/* Remove the files and close the journal entry.  ERR_CLEANUP when something stays. */
int place_remove(struct host *h, struct placed *p, struct err *e);

/* Frees the struct; what was not removed stays in the journal. */
void placed_free(struct placed *p);

/* The reaper's tool: remove the folder of an entry; *removed false when it was not there. */
int place_remove_entry(struct host *h, const struct journal_entry *entry, bool *removed,
                       struct err *e);

/*
 * Wait until no process of the agent in this folder is on the host: one whose connection was cut
 * holds the disks open until it notices, and a snapshot must not be removed under it.
 * 0, also where the host does not tell; -1 with ERR_CLEANUP when it still runs after 40 s, or
 * ERR_NETWORK.
 */
int place_wait_ended(struct host *h, const char *folder, struct err *e);

/* Does the host run foreign programs?  Reads settings only. */
enum exec_policy { EXEC_ALLOWED, EXEC_REFUSED, EXEC_UNKNOWN };
int place_exec_policy(struct host *h, enum exec_policy *out, struct err *e);

/* Tell why a trial start failed, from its exit status and error text; reason gets the remedy too.
 */
enum place_outcome place_judge_start(int status, const char *complaint, char *reason, size_t room);

#endif
