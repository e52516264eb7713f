#include "receiver/cli/exit_codes.h"

#include <stdbool.h>
#include <stddef.h>

#include "protocol/base/checked.h"
#include "receiver/base/stop.h"
#include "receiver/job/run.h"

const char *exit_code_meaning(int code)
{
    static const char *const meanings[] = {
        [EXIT_OK] = "all done, verified as asked, clean-up complete",
        [EXIT_OTHER] = "other failure",
        [EXIT_USAGE] = "usage or configuration",
        [EXIT_PARTIAL] = "some VMs or disks failed",
        [EXIT_SOURCE] = "source unreadable, or changed while reading",
        [EXIT_INTEGRITY] = "integrity: repository, image or channel",
        [EXIT_BUSY] = "busy, or lock lost",
        [EXIT_AUTH] = "authentication or host identity",
        [EXIT_SPACE] = "no space or size limit",
        [EXIT_CLEANUP] = "data safe, clean-up incomplete",
        [EXIT_UNSUPPORTED] = "not supported here, or quiescing required and impossible",
        [EXIT_REFUSED] = "refused for safety",
        [EXIT_NETWORK] = "network: unreachable, timed out",
    };

    if (code >= 0 && (size_t)code < ARRAY_COUNT(meanings))
        return meanings[code];
    return code > EXIT_SIGNAL && code < EXIT_SIGNAL + 65 ? "ended by signal" : NULL;
}

int exit_code_of(enum err_code code)
{
    static const int codes[ERR_CODE_COUNT] = {
        [ERR_NONE] = EXIT_OK,
        [ERR_SYSTEM] = EXIT_OTHER,
        [ERR_USAGE] = EXIT_USAGE,
        [ERR_NOT_FOUND] = EXIT_USAGE,
        [ERR_SOURCE] = EXIT_SOURCE,
        [ERR_CORRUPT] = EXIT_INTEGRITY,
        [ERR_BUSY] = EXIT_BUSY,
        [ERR_AUTH] = EXIT_AUTH,
        [ERR_SPACE] = EXIT_SPACE,
        [ERR_CLEANUP] = EXIT_CLEANUP,
        [ERR_UNSUPPORTED] = EXIT_UNSUPPORTED,
        [ERR_REFUSED] = EXIT_REFUSED,
        [ERR_NETWORK] = EXIT_NETWORK,
        [ERR_FORMAT] = EXIT_UNSUPPORTED,
        [ERR_LIMIT] = EXIT_UNSUPPORTED,
        [ERR_PEER] = EXIT_INTEGRITY,
        [ERR_STOPPED] = EXIT_OTHER,
    };

    if (code == ERR_STOPPED && stop_requested())
        return EXIT_SIGNAL + stop_signal();
    if ((unsigned)code >= ERR_CODE_COUNT)
        return EXIT_OTHER;
    return codes[code];
}

int exit_code_of_vm(const struct vm_result *v)
{
    int own = exit_code_of(v->why.code);

    switch (v->outcome) {
    case OUTCOME_OK:
        return v->cleanup_left ? EXIT_CLEANUP : EXIT_OK;
    case OUTCOME_PARTIAL:
        return own >= EXIT_SIGNAL ? own : EXIT_PARTIAL;
    case OUTCOME_SKIPPED:
        return own;
    case OUTCOME_FAILED:
        break;
    }
    /* A failure is never a success, whatever was forgotten. */
    return own != EXIT_OK ? own : EXIT_OTHER;
}

int exit_code_of_run(const struct run_result *r, enum err_code failure)
{
    bool bad = failure != ERR_NONE;
    bool left = false;

    if (stop_requested())
        return EXIT_SIGNAL + stop_signal();
    if (r->count == 0)
        return exit_code_of(failure);
    if (r->count == 1) {
        int own = exit_code_of_vm(&r->vms[0]);

        return own != EXIT_OK ? own : exit_code_of(failure);
    }
    for (size_t i = 0; i < r->count; i++) {
        int own = exit_code_of_vm(&r->vms[i]);

        if (own == EXIT_CLEANUP && r->vms[i].outcome == OUTCOME_OK)
            left = true;
        else if (own != EXIT_OK)
            bad = true;
    }
    if (bad)
        return EXIT_PARTIAL;
    return left ? EXIT_CLEANUP : EXIT_OK;
}
