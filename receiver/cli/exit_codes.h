/* Exit codes, the one table of them, and how they come about. */
#ifndef RECEIVER_CLI_EXIT_CODES_H
#define RECEIVER_CLI_EXIT_CODES_H

#include "protocol/base/err.h"

struct run_result;
struct vm_result;

enum exit_code {
    EXIT_OK = 0,           /* all done, verified as asked, clean-up complete */
    EXIT_OTHER = 1,        /* other failure */
    EXIT_USAGE = 2,        /* usage or configuration */
    EXIT_PARTIAL = 3,      /* some VMs or disks failed */
    EXIT_SOURCE = 4,       /* source unreadable, or changed while reading */
    EXIT_INTEGRITY = 5,    /* repository, image or channel */
    EXIT_BUSY = 6,         /* busy, or lock lost */
    EXIT_AUTH = 7,         /* authentication or host identity */
    EXIT_SPACE = 8,        /* no space or size limit */
    EXIT_CLEANUP = 9,      /* data safe, clean-up incomplete */
    EXIT_UNSUPPORTED = 10, /* not supported here */
    EXIT_REFUSED = 11,     /* refused for safety */
    EXIT_NETWORK = 12,     /* unreachable, timed out */
    EXIT_SIGNAL = 128      /* + n: ended by signal n */
};

/* One line on each code for the manual and --help; NULL for a number that is none. */
const char *exit_code_meaning(int code);

/* ERR_STOPPED gives EXIT_SIGNAL + the signal that came (stop.h), EXIT_OTHER when none has. */
int exit_code_of(enum err_code code);

/* One VM's own code. */
int exit_code_of_vm(const struct vm_result *v);

/*
 * A whole run: its VMs, and failure, an error of the run itself (ERR_NONE: none).  128 + n wins;
 * then the run's own failure if no VM was reached; one VM gives its own code; of several any that
 * failed or is partial gives 3, else any clean-up that is left 9.
 */
int exit_code_of_run(const struct run_result *r, enum err_code failure);

#endif
