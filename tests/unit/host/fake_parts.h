/*
 * What the files of the scripted host share.  Called under its lock.
 */
#ifndef TESTS_UNIT_HOST_FAKE_PARTS_H
#define TESTS_UNIT_HOST_FAKE_PARTS_H

#include "tests/unit/host/fake_host.h"

#define STORE "/vmfs/volumes/5c8f0001-00000001-0001-000000000001"

enum { FAKE_EPOCH = 1763600000 };

int64_t fake_now(const struct fake_host *f);
void fake_complain(struct fake_reply *r, int status, const char *text);

/* vim-cmd with its words (fake_vim.c). */
void fake_vim(struct fake_host *f, char **words, size_t count, struct fake_reply *r);
/* Descriptors of the chain are made as they are asked for; false: path is none of them. */
bool fake_descriptor(struct fake_host *f, const char *path, struct fake_reply *r);

#endif
