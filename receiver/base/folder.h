/*
 * Files in an open folder, by single names below it.  Nothing here is durable by itself: for that
 * see publish.h.
 */
#ifndef RECEIVER_BASE_FOLDER_H
#define RECEIVER_BASE_FOLDER_H

#include <stdbool.h>

struct err;

/* Is there anything of this name?  Links are not followed. */
bool folder_has(int dir, const char *name);

/* Calls each(context, name) for the entries of a folder, `.` and `..` left out; -1 ends it. */
int folder_each(int dir, int (*each)(void *context, const char *name, struct err *e), void *context,
                struct err *e);

/* Remove a folder with files, one level deep; a missing one is fine. */
int folder_remove(int dir, const char *name, struct err *e);

/* Remove a file; a missing one is fine. */
int file_remove(int dir, const char *name, struct err *e);

/* Open a regular file, no link, with these flags of open.  -1: ERR_CORRUPT (it is something else),
 * ERR_NOT_FOUND, ERR_SYSTEM. */
int file_open(int dir, const char *name, int flags, struct err *e);

#endif
