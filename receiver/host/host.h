/*
 * One ESXi host that we are logged in to, and the running of commands on it.  Everything in this
 * folder works through struct host; it borrows an open transport and never closes it.
 *
 * vim-cmd costs about 23 MB on the host for each call and falls over when several run at once, so
 * calls are serialised here, and the failures of a busy hostd are tried three times with a
 * back-off. Other commands run as they come.
 *
 * Names of VMs, files and snapshots are raw bytes everywhere, in error texts too; who prints
 * escapes.
 *
 * The error object must be given everywhere: decisions look at its code.
 *
 * All functions of this folder may block; those that take a struct host may be called from several
 * threads.
 */
#ifndef RECEIVER_HOST_HOST_H
#define RECEIVER_HOST_HOST_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes;
struct err;
struct transport;

enum {
    HOST_ANSWER_MAX = 4 << 20,     /* bytes of standard output that are accepted of one command */
    HOST_COMPLAINT_MAX = 64 << 10, /* the same of standard error */
    HOST_COMMAND_MAX = 128 << 10,  /* bytes of a command line */
    HOST_TRIES = 3,
};
#define HOST_COMMAND_MS UINT64_C(120000) /* for commands that only look */

/* What depends on time; tests put their own here. */
struct host_hooks {
    void *context;
    uint64_t (*clock_ms)(void *context);  /* runs only forward */
    int64_t (*wall_clock)(void *context); /* seconds since 1970 */
    void (*pause)(void *context, uint64_t ms);
    bool (*stop)(void *context); /* the user asked us to end */
};

struct host {
    struct transport *transport; /* replaced by the owner after a reconnect: host_rebind */
    struct host_hooks hooks;
    pthread_mutex_t vim_lock;  /* guards: one vim-cmd at a time */
    pthread_mutex_t *vim_gate; /* this one, or that of the host that was joined */
    /* Where we are logged in, for the journal and for messages; borrowed. */
    const char *address;
    unsigned port;
    const char *user;
    /* Filled by host_identify. */
    char uuid[64];
    char product[128]; /* "VMware ESXi 8.0.2 build-22380479" */
    char level[128];   /* "VMware ESXi 8.0 Update 2" */
    char version[32];  /* "8.0.2" */
    unsigned version_major;
    char build[32];
    int64_t booted; /* by our clock; to notice a reboot compare with host_booted */
};

/* hooks, or any of its functions, may be NULL: the real ones are taken.  address and user are
 * borrowed. */
int host_init(struct host *h, struct transport *transport, const char *address, unsigned port,
              const char *user, const struct host_hooks *hooks, struct err *e);
void host_end(struct host *h);

/*
 * Another connection to a host that is known already: what host_identify found is taken over, and
 * vim-cmd runs once at a time over both together.  `first` outlives h.  Instead of host_init.
 */
int host_join(struct host *h, struct transport *transport, const struct host *first, struct err *e);

/* After a reconnect.  No command may be under way. */
void host_rebind(struct host *h, struct transport *transport);

/*
 * Version, UUID and boot time.  ERR_UNSUPPORTED: what answers is no ESXi shell; the text says how
 * to enable it.  Then ERR_NETWORK, ERR_SYSTEM, ERR_LIMIT as transport_run.
 */
int host_identify(struct host *h, struct err *e);

/* The time of the last boot, by our clock; accurate to a few seconds.  -1 with ERR_SOURCE. */
int host_booted(struct host *h, int64_t *out, struct err *e);

/* How a command ended.  Zero value, then host_answer_free after each use. */
struct host_answer {
    char *out; /* NUL-terminated; NULs inside make the command fail with ERR_CORRUPT */
    size_t out_bytes;
    char *complaint; /* standard error, the same way */
    size_t complaint_bytes;
    int status; /* of an ended command; a signal is 128 + its kind, never 0 */
};
void host_answer_free(struct host_answer *a);

/*
 * Run a finished command line.  A status other than 0 is no failure here.
 * 0, or -1: ERR_NETWORK (cut or timed out), ERR_LIMIT, ERR_CORRUPT (NULs), ERR_SYSTEM.
 */
int host_run(struct host *h, const char *command, uint64_t timeout_ms, struct host_answer *a,
             struct err *e);

/* The same with bytes for the command's standard input. */
int host_run_input(struct host *h, const char *command, const void *input, size_t input_bytes,
                   uint64_t timeout_ms, struct host_answer *a, struct err *e);

/* Run one program with words as arguments (NULL ends them), each quoted. */
int host_call(struct host *h, struct host_answer *a, uint64_t timeout_ms, struct err *e, ...)
    __attribute__((sentinel));

/*
 * Run /bin/vim-cmd with words.  Tried up to three times while hostd is out of memory, refuses the
 * login or restarts.  An answer that is a fault, or a status other than 0, is -1:
 *   ERR_NOT_FOUND   the VM, snapshot or task is gone (ManagedObjectNotFound, NotFound)
 *   ERR_BUSY        another task is in progress; or hostd stayed busy (os is EAGAIN then)
 *   ERR_SOURCE      any other fault; the text is the host's own message
 * then ERR_NETWORK, ERR_LIMIT, ERR_CORRUPT, ERR_SYSTEM, ERR_STOPPED.  a->status is valid whenever
 * the command ended; the answer is kept for callers that look closer.
 */
int host_vim(struct host *h, struct host_answer *a, uint64_t timeout_ms, struct err *e, ...)
    __attribute__((sentinel));

/* The same, once: for commands that must not run twice (snapshot.create, snapshot.remove). */
int host_vim_once(struct host *h, struct host_answer *a, uint64_t timeout_ms, struct err *e, ...)
    __attribute__((sentinel));

/*
 * The content of a small text file, at most `most` bytes, by cat.
 * ERR_NOT_FOUND, ERR_BUSY ("Device or resource busy"), ERR_LIMIT, ERR_SOURCE.
 */
int host_read_file(struct host *h, const char *path, size_t most, struct host_answer *a,
                   struct err *e);

/* ERR_STOPPED when the user asked us to end. */
int host_check_stop(struct host *h, struct err *e);

/*
 * An answer that cannot be read is the host's failure: ERR_CORRUPT and ERR_FORMAT of the readers
 * become ERR_SOURCE, so that nobody takes them for damage of a store.  Returns -1.
 */
int host_unreadable(struct err *e);

/* Seconds since 1970, by our own clock: a host's clock may be wrong. */
int64_t host_now(struct host *h);
uint64_t host_clock_ms(struct host *h);
void host_pause(struct host *h, uint64_t ms);

#endif
