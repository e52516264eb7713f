/*
 * Files for the VMDK targets, in memory: an input is a list of files, each a name, a size, and
 * pieces of content with zeros between them, so that a table at the second MiB costs few bytes.
 *
 *   u8 files, each:  u8 bytes of the name, the name, u32 size in bytes, u16 pieces, each:
 *                    u32 offset, u16 bytes, the bytes
 *
 * make_seeds.py writes the same.
 */
#ifndef TESTS_FUZZ_VMDK_INPUT_H
#define TESTS_FUZZ_VMDK_INPUT_H

#include "protocol/base/cursor.h"
#include "protocol/vmdk/files.h"

enum { VMDK_INPUT_FILES_MAX = 8, VMDK_INPUT_BYTES_MAX = 64 << 20 };

/* The first file is the tip; a name means the file that has exactly it.  Borrows the input. */
struct vmdk_files *vmdk_input_files(struct pull *p, const char **tip);

#endif
