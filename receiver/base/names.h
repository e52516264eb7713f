/*
 * Names that come from hosts, made into file names by one rule: control bytes, `/`, `\`, invalid
 * UTF-8, a leading `.` or `-`, a trailing blank or dot become %XX; at most NAME_SAFE_MAX bytes, cut
 * between characters.  A name of no bytes becomes `%00`.  The result is valid UTF-8, never empty,
 * `.` or `..`.  Two names can become one: the caller tells them apart by something else.
 */
#ifndef RECEIVER_BASE_NAMES_H
#define RECEIVER_BASE_NAMES_H

enum { NAME_SAFE_MAX = 200, NAME_SAFE_ROOM = NAME_SAFE_MAX + 1 };

void name_made_safe(const char *raw, char out[NAME_SAFE_ROOM]);

#endif
