/*
 * Text from outside, made fit to show.  Names of VMs, files and what a host prints are data: they
 * may hold control bytes, escape sequences, text direction marks or bytes that are no UTF-8 at all.
 */
#ifndef RECEIVER_BASE_UTF8_H
#define RECEIVER_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Decode one character of the count bytes at text (count > 0).  Returns its length and sets *out,
 * or returns 0 when the bytes there are no shortest-form UTF-8 of a Unicode scalar value.
 */
size_t utf8_decode(const char *text, size_t count, uint32_t *out);

/* True for what must not reach a terminal: control characters, marks of text direction, and other
 * characters that show nothing but change what is shown (zero width, line separators, tags). */
bool utf8_is_hostile(uint32_t c);

/* Columns that a character takes on a terminal: 0 (combining), 1 or 2 (East Asian wide, emoji). */
unsigned utf8_columns_of(uint32_t c);

/* Columns of a text that utf8_show has made; bytes that are no UTF-8 count one each. */
size_t utf8_columns(const char *text);

/*
 * Copy text with everything hostile made visible: `\n`, `\t`, `\x1b` for control bytes and bytes
 * that are no UTF-8, `\u202e` for other characters, and `\\` for a backslash that would read as one
 * of these.  Cut at the last whole character or escape that fits.  out holds room > 0 bytes and
 * always ends with a NUL.  Returns false when something was cut.
 */
bool utf8_show(char *out, size_t room, const char *text);

/*
 * The longest start of a shown text that takes at most columns; where something is cut its last
 * column is "…".  Returns the columns taken.  room > 3; 4 bytes for each column always suffice.
 */
size_t utf8_cut(char *out, size_t room, const char *shown, size_t columns);

#endif
