/*
 * The one error object.  A function that can fail returns 0, or -1 after filling it; err_set,
 * err_sys and err_add all return -1, so that `return err_set(...)` reads well.  The code is for
 * programs and tests, the text for the person: low layers say what failed, each layer above puts
 * the name it knows in front.  The same object travels in the protocol's `failed` message, so codes
 * keep their numbers.
 */
#ifndef PROTOCOL_BASE_ERR_H
#define PROTOCOL_BASE_ERR_H

enum err_code {
    ERR_NONE = 0,
    ERR_SYSTEM = 1,       /* a system call failed in a way that no other code names */
    ERR_USAGE = 2,        /* an operand, option or configuration is wrong */
    ERR_NOT_FOUND = 3,    /* what was named is not there, or is not unique */
    ERR_SOURCE = 4,       /* the source is unreadable, busy, or changed while it was read */
    ERR_CORRUPT = 5,      /* bytes are not what a hash, tag or format says they must be */
    ERR_BUSY = 6,         /* somebody else holds a lock, or another task is at work */
    ERR_AUTH = 7,         /* login refused, or the host is not who it should be */
    ERR_SPACE = 8,        /* no room, or a size limit of the file system */
    ERR_CLEANUP = 9,      /* the data are safe, something of ours was left behind */
    ERR_UNSUPPORTED = 10, /* this form, host or file system is not handled */
    ERR_REFUSED = 11,     /* refused for safety */
    ERR_NETWORK = 12,     /* unreachable, cut, timed out */
    ERR_FORMAT = 13,      /* not this format at all: another reader may know it */
    ERR_LIMIT = 14,       /* a named limit of ours was passed */
    ERR_PEER = 15,        /* the other end broke the protocol */
    ERR_STOPPED = 16,     /* a signal or the user asked us to end */
    ERR_CODE_COUNT
};

struct err {
    enum err_code code;
    int os;         /* errno behind it, 0 if none */
    char text[480]; /* one line, no newline at its end */
};

/* Forget what was there before and set code and text.  Returns -1.  e may be NULL. */
int err_set(struct err *e, enum err_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * The same with the system's reason (errno) appended.  The code follows errno: ENOSPC, EDQUOT,
 * EFBIG are ERR_SPACE; EIO is ERR_SOURCE; ECONNREFUSED, ETIMEDOUT and their like ERR_NETWORK;
 * ENOENT ERR_NOT_FOUND; EBUSY and ETXTBSY ERR_BUSY; all else ERR_SYSTEM.  Returns -1.
 */
int err_sys(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for what we write: EIO there says nothing of a source, and is ERR_SYSTEM. */
int err_sys_write(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Put "CONTEXT: " in front of the text, cutting its end if need be.  Returns -1. */
int err_add(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A short lower-case name for logs and tests: "corrupt", "space". */
const char *err_code_name(enum err_code code);

#endif
