/*
 * What the program says on standard error and in the log file.  The one place with global state: a
 * line may be written from any thread and any layer.  Text is escaped (utf8.h), so names from
 * outside can be logged as they are; secrets are never passed here (they are a type of their own:
 * secret.h).
 *
 *     log_warning("vm %s: %s", name, e.text);
 *
 * Levels: errors and warnings are always shown (-q -q leaves errors only); a note is one line about
 * something a person wants to know of a normal run (-q hides it); info is each step (-v); debug is
 * what crosses the wire in words (-v -v).  The log file gets everything up to info, with debug at
 * -v -v.
 */
#ifndef RECEIVER_BASE_LOG_H
#define RECEIVER_BASE_LOG_H

#include <stdbool.h>

struct err;

enum log_level { LOG_ERROR, LOG_WARNING, LOG_NOTE, LOG_INFO, LOG_DEBUG };

/* The highest level that standard error shows; LOG_NOTE until set. */
void log_set_level(enum log_level level);

/*
 * Add lines with times to path, made 0600 where it is missing.  0, or -1 with the system's reason.
 * A log file that cannot be written any more is reported once and closed.
 */
int log_open_file(const char *path, struct err *e);
void log_close_file(void);

/*
 * Called before and after a line reaches standard error, with the log's lock held: the progress
 * display takes its lines away and draws them again.  NULLs switch it off.  The functions must not
 * log.
 */
void log_set_screen(void (*before)(void *context), void (*after)(void *context), void *context);

/*
 * Called for each message of any level with its text unescaped and whole, before it is shown: the
 * reports of --json and of the run record see warnings this way.  It must not log.  NULL switches
 * off.
 */
void log_set_observer(void (*see)(void *context, enum log_level level, const char *text),
                      void *context);

/* One line; a newline at its end is not wanted.  errno is kept. */
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_note(...) log_write(LOG_NOTE, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

#endif
