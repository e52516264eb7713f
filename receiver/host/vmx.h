/*
 * A .vmx file: lines of  key = "value", where |22 |0A |7C stand for bytes that would break a line.
 * Keys are compared without regard to case, and kept as they are written.
 */
#ifndef RECEIVER_HOST_VMX_H
#define RECEIVER_HOST_VMX_H

#include <stdbool.h>
#include <stddef.h>

struct err;

enum { VMX_BYTES_MAX = 1 << 20, VMX_LINES_MAX = 16384 };

struct vmx;

/* 0, or -1: ERR_FORMAT (binary), ERR_CORRUPT (a key twice with two values), ERR_LIMIT, ERR_SYSTEM.
 */
int vmx_read(struct vmx **out, const char *text, size_t bytes, struct err *e);
void vmx_free(struct vmx *v); /* NULL is allowed */

/* The value with escapes undone, or NULL.  Lent by v. */
const char *vmx_get(const struct vmx *v, const char *key);
/* Also true when the value is TRUE in any case. */
bool vmx_is_true(const struct vmx *v, const char *key);
/* ".encoding", "UTF-8" when there is none. */
const char *vmx_encoding(const struct vmx *v);

#endif
