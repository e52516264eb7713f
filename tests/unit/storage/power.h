/*
 * Power cuts for the directory storage.  Every system call that changes files goes through here
 * (the linker's --wrap) and is noted; power_cut then makes the folder into one that a medium may
 * show afterwards: what no fsync covers is lost or torn, names that no fsync of their folder covers
 * have stayed, moved or come back, each by itself and so in any order.
 */
#ifndef TESTS_UNIT_STORAGE_POWER_H
#define TESTS_UNIT_STORAGE_POWER_H

#include <stdint.h>

/* Begin to note what happens below this folder; aside is a folder for what was removed. */
void power_on(const char *folder, const char *aside);

/* The process goes no further than `calls` calls from here on: all later ones fail with EIO. */
void power_limit(unsigned long calls);

/* Calls since power_on. */
unsigned long power_calls(void);

/* Stop noting, and do to the folder what a cut at this moment may. */
void power_cut(uint64_t seed);

#endif
