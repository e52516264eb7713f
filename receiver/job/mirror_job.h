/* One run that makes or refreshes mirrors of VMs of one host. */
#ifndef RECEIVER_JOB_MIRROR_JOB_H
#define RECEIVER_JOB_MIRROR_JOB_H

#include "receiver/job/run.h"

/*
 * Connect, and for each VM that options name take a snapshot, bring its mirror up to date, and
 * clean up.  Each VM's fate, also of an operand that names none, stands in *out (which starts empty
 * and is freed by the caller in every case); one VM's failure does not stop the next. 0 when the
 * VMs' results tell everything, or -1 for what ended the run as a whole, as a rule before the first
 * VM: ERR_AUTH, ERR_NETWORK, ERR_UNSUPPORTED (no ESXi shell), ERR_STOPPED, ….
 */
int mirror_job(const struct mirror_options *options, const struct run_events *events,
               struct run_result *out, struct err *e);

#endif
