/*
 * Named points where a test build (VMFERRY_TEST_HOOKS) can be made to fail, to stop or to die; in
 * every other build they are nothing, their names included.  What happens where is said by
 * $VMFERRY_FAILPOINT: tests/faults/failpoint.c, which only test programs link, has its form.
 *
 * A point stands behind the step whose name it has, unless it is named after a call to come.
 */
#ifndef RECEIVER_BASE_FAILPOINT_H
#define RECEIVER_BASE_FAILPOINT_H

#ifdef VMFERRY_TEST_HOOKS

struct err;

/* 0: go on; -1: fail with what stands in *e. */
int failpoint(const char *name, struct err *e);

/* The point "group.step". */
int failpoint_of(const char *group, const char *step, struct err *e);

#else

#define failpoint(name, e) 0
#define failpoint_of(group, step, e) 0

#endif

#endif
