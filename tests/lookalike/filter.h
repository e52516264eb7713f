/*
 * The seccomp filter of a session: which system calls are absent, which are asked about.
 */
#ifndef LOOKALIKE_FILTER_H
#define LOOKALIKE_FILTER_H

struct policy;

/* Put the filter on the calling process, for its lifetime and its children.  Its notification
 * listener, or -1 with errno. */
int filter_install(const struct policy *p);

#endif
