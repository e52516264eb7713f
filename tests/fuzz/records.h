/* Mirror records for fuzzing: text whose last line is a hash over the rest. */
#ifndef TESTS_FUZZ_RECORDS_H
#define TESTS_FUZZ_RECORDS_H

#include <stddef.h>
#include <stdint.h>

/*
 * Write the file `name` in dir: text, followed by the line with its right hash; with as_it_is the
 * text alone.
 */
void records_put(int dir, const char *name, const void *text, size_t bytes, int as_it_is);

/* The files one and two in dir hold the same. */
int records_equal(int dir, const char *one, const char *two);

#endif
