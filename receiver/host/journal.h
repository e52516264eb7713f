/*
 * What we meant to do and did on hosts, written and made durable before it is done, so that a later
 * run can take back what a crash left there.  One entry for each attempt:
 *
 *     INTENT -> CREATED -> READING -> REMOVING -> GONE (the entry's file is removed)
 *
 * Entries are files of key=value lines in STATE/journal, named by their token.  The process that
 * works on an entry holds a lock on it; the kernel drops the lock with its process, so an entry
 * that can be locked belongs to nobody who lives.
 *
 * Threads: a journal may be used by several; a ticket by one at a time.
 */
#ifndef RECEIVER_HOST_JOURNAL_H
#define RECEIVER_HOST_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct journal;
struct journal_ticket;

enum {
    JOURNAL_TOKEN_ROOM = 33,   /* 32 hex digits: 128 random bits */
    JOURNAL_INSTALL_ROOM = 17, /* 16 hex digits */
    JOURNAL_ENTRIES_MAX = 4096,
    JOURNAL_ENTRY_BYTES_MAX = 64 << 10,
    JOURNAL_TEXT_MAX = 1024,
    JOURNAL_FILES_MAX = 4,
    JOURNAL_RECORD_BYTES_MAX = 4 << 20,
};

enum journal_kind { JOURNAL_SNAPSHOT, JOURNAL_AGENT };
enum journal_purpose { JOURNAL_RUN, JOURNAL_KEEP };
enum journal_state { JOURNAL_INTENT, JOURNAL_CREATED, JOURNAL_READING, JOURNAL_REMOVING };

/* A file that we put on a host, inside the entry's folder. */
struct journal_file {
    char name[64];
    char sha256[65]; /* hex, of what we meant to write */
};

struct journal_entry {
    enum journal_kind kind;
    enum journal_state state;
    char token[JOURNAL_TOKEN_ROOM];
    char install_id[JOURNAL_INSTALL_ROOM];
    int64_t created; /* seconds since 1970, our clock */
    int64_t changed; /* the last step */
    /* The host. */
    char host_uuid[64];
    char address[256];
    unsigned port;
    char user[64];
    /* JOURNAL_SNAPSHOT */
    enum journal_purpose purpose;
    char vm_name[JOURNAL_TEXT_MAX];
    char vm_uuid[40]; /* instance UUID */
    char vmx[JOURNAL_TEXT_MAX];
    unsigned vmid;
    unsigned snapshot_id;         /* from CREATED on; 0: not known */
    char store[JOURNAL_TEXT_MAX]; /* what a kept snapshot is for; "" otherwise */
    int64_t expires;              /* a kept snapshot must be gone by then; 0 otherwise */
    /* JOURNAL_AGENT */
    char folder[JOURNAL_TEXT_MAX]; /* absolute path on the host */
    struct journal_file files[JOURNAL_FILES_MAX];
    size_t file_count;
};

/*
 * Open STATE/journal, making it where it is missing; state_folder is borrowed only during the call.
 * install_id: state_install_id().  0, or -1: ERR_SYSTEM, ERR_SPACE, ERR_REFUSED.
 */
int journal_open(struct journal **out, int state_folder, const char *install_id, struct err *e);
void journal_close(struct journal *j); /* NULL is allowed; tickets must be gone */
const char *journal_install_id(const struct journal *j);

/* 128 random bits as hex. */
int journal_token(char out[JOURNAL_TOKEN_ROOM], struct err *e);

/*
 * Write the intention, durably, and lock it.  entry->token, install_id, created, changed and state
 * are filled in here.  After 0 the deed may be done; *out is freed by journal_done or
 * journal_leave.
 */
int journal_begin(struct journal *j, struct journal_entry *entry, int64_t now,
                  struct journal_ticket **out, struct err *e);

/* The entry as it stands; change it and call journal_write to make the change durable. */
struct journal_entry *journal_entry_of(struct journal_ticket *t);
int journal_write(struct journal_ticket *t, int64_t now, struct err *e);
/* The usual change: the next state. */
int journal_step(struct journal_ticket *t, enum journal_state state, int64_t now, struct err *e);

/*
 * A record beside the entry, of what was left on the host for a later run; it goes with the entry.
 * Durable after 0.  -1: ERR_LIMIT, ERR_SPACE, ERR_SYSTEM.
 */
int journal_record_write(struct journal_ticket *t, const void *data, size_t bytes, struct err *e);
/* *text has a NUL behind it and is freed by the caller.  -1: ERR_NOT_FOUND (there is none),
 * ERR_CORRUPT, ERR_SYSTEM. */
int journal_record_read(struct journal *j, const char *token, char **text, size_t *bytes,
                        struct err *e);

/* GONE: the entry is removed durably, and the ticket freed whatever comes back. */
int journal_done(struct journal_ticket *t, struct err *e);

/* Unlock and free the ticket; the entry stays for the reaper.  NULL is allowed. */
void journal_leave(struct journal_ticket *t);

/* All entries, locked or not; unreadable ones are reported in bad (their tokens). */
struct journal_list {
    struct journal_entry *items;
    bool *locked; /* by whoever, at the moment of looking */
    size_t count;
    char (*bad)[JOURNAL_TOKEN_ROOM];
    size_t bad_count;
};
int journal_list(struct journal *j, struct journal_list *out, struct err *e);
void journal_list_free(struct journal_list *l);

/*
 * Take over an entry that nobody holds, reading it again under the lock.
 * ERR_BUSY: its process lives.  ERR_NOT_FOUND: gone meanwhile.
 */
int journal_take(struct journal *j, const char *token, struct journal_ticket **out, struct err *e);

/* "intent", "created", "reading", "removing"; "run", "keep". */
const char *journal_state_name(enum journal_state state);
const char *journal_purpose_name(enum journal_purpose purpose);

/* The text form of an entry, both ways. */
struct bytes;
int journal_entry_write(const struct journal_entry *entry, struct bytes *out, struct err *e);
int journal_entry_read(struct journal_entry *out, const char *text, size_t bytes, struct err *e);

#endif
