/*
 * Taking back what earlier runs left on a host.  Only what the journal names is touched, and only
 * when the process that wrote it is gone.
 */
#ifndef RECEIVER_HOST_REAPER_H
#define RECEIVER_HOST_REAPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/base/err.h"
#include "receiver/host/journal.h"

struct host;

enum { REAPER_INTENT_SECONDS = 1800 };

enum reaped_kind {
    REAPED_REMOVED,  /* found and removed; the entry is closed */
    REAPED_NOTHING,  /* nothing of it is on the host; the entry is closed */
    REAPED_WAITING,  /* an intention that may still come true: looked at again later, no failure */
    REAPED_IN_USE,   /* its process lives */
    REAPED_RETAINED, /* a kept snapshot within its time */
    REAPED_FAILED,   /* error says why; the entry stays */
};

struct reaped {
    enum reaped_kind kind;
    struct journal_entry entry;
    char text[480];       /* one line for the user */
    enum err_code code;   /* of REAPED_FAILED */
    uint64_t delta_bytes; /* of REAPED_RETAINED: what it costs; 0 when that is not known */
};

struct reaped_list {
    struct reaped *items;
    size_t count;
    size_t failed;
    size_t waiting;
};

struct reaper_options {
    bool retained;         /* remove kept snapshots as well (cleanup --retained) */
    bool limits;           /* nothing but kept snapshots past their limits */
    uint64_t retained_age; /* seconds that a kept one may live at most; 0: as was said for it */
    const char *vm_uuid;   /* only entries of this VM; NULL: all of this host */
};

/*
 * Look at every entry of this host (host_identify was called) and put right what can be put right.
 * A kept snapshot stays while it has its record (retained.h), its time has not come, and its deltas
 * take no more than a quarter of the free room of their datastore.
 * One failed entry does not stop the next; the list tells.  0, or -1 when the journal itself cannot
 * be read or the connection is gone; the list then holds what was done until then.
 */
int reaper_run(struct host *h, struct journal *j, const struct reaper_options *options,
               struct reaped_list *out, struct err *e);
void reaped_list_free(struct reaped_list *l);

/* Snapshots on this host that carry our kind of name, whoever made them. */
struct leftover {
    unsigned vmid;
    char *vm_name;
    unsigned id;
    char name[96];
    char token[JOURNAL_TOKEN_ROOM];
    enum journal_purpose purpose;
    bool ours;       /* our install id */
    bool journalled; /* an entry of our journal names it */
    int64_t created; /* the host's clock */
    /* A kept one of ours with its record: */
    char *store; /* what it is kept for; NULL: it is none of these */
    int64_t expires;
    uint64_t delta_bytes; /* what it costs; 0 when that is not known */
};
struct leftover_list {
    struct leftover *items;
    size_t count;
};
int reaper_leftovers(struct host *h, struct journal *j, struct leftover_list *out, struct err *e);
void leftover_list_free(struct leftover_list *l);

/* cleanup --foreign TOKEN.  ERR_NOT_FOUND when no VM has it; ERR_REFUSED when it is in use by us.
 */
int reaper_remove_foreign(struct host *h, struct journal *j, const char *token, char *text,
                          size_t room, struct err *e);

#endif
