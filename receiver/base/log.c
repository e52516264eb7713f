#include "receiver/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/clock.h"
#include "receiver/base/utf8.h"

/* A message is cut at this many bytes; escaped it may take four times as much. */
enum { MESSAGE_BYTES = 2048, LINE_BYTES = 4 * MESSAGE_BYTES + 64 };

static struct {
    pthread_mutex_t lock; /* guards all below, and keeps lines whole */
    enum log_level level;
    int file;
    void (*before)(void *context);
    void (*after)(void *context);
    void *screen;
    void (*see)(void *context, enum log_level level, const char *text);
    void *observer;
} log_state = { .lock = PTHREAD_MUTEX_INITIALIZER, .level = LOG_NOTE, .file = -1 };

static const char *const level_names[] = { "error", "warning", "note", "info", "debug" };

void log_set_level(enum log_level level)
{
    pthread_mutex_lock(&log_state.lock);
    log_state.level = level;
    pthread_mutex_unlock(&log_state.lock);
}

int log_open_file(const char *path, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);

    if (fd < 0)
        return err_sys(e, "log file %s", path);
    pthread_mutex_lock(&log_state.lock);
    io_drop(&log_state.file);
    log_state.file = fd;
    pthread_mutex_unlock(&log_state.lock);
    return 0;
}

void log_close_file(void)
{
    pthread_mutex_lock(&log_state.lock);
    io_drop(&log_state.file);
    pthread_mutex_unlock(&log_state.lock);
}

void log_set_screen(void (*before)(void *context), void (*after)(void *context), void *context)
{
    pthread_mutex_lock(&log_state.lock);
    log_state.before = before;
    log_state.after = after;
    log_state.screen = context;
    pthread_mutex_unlock(&log_state.lock);
}

void log_set_observer(void (*see)(void *context, enum log_level level, const char *text),
                      void *context)
{
    pthread_mutex_lock(&log_state.lock);
    log_state.see = see;
    log_state.observer = context;
    pthread_mutex_unlock(&log_state.lock);
}

/* One whole line to standard error; what cannot be shown there can be told nobody. */
static void put_stderr(enum log_level level, const char *shown)
{
    char line[LINE_BYTES];
    struct err ignored;
    int count;

    if (level <= LOG_WARNING || level == LOG_DEBUG)
        count = snprintf(line, sizeof line, "%s: %s\n", level_names[level], shown);
    else
        count = snprintf(line, sizeof line, "%s\n", shown);
    if (log_state.before != NULL)
        log_state.before(log_state.screen);
    io_write_all(STDERR_FILENO, line, (size_t)count, &ignored);
    if (log_state.after != NULL)
        log_state.after(log_state.screen);
}

static void put_file(enum log_level level, const char *shown)
{
    char line[LINE_BYTES], time[CLOCK_TEXT_BYTES];
    struct err e;
    int count = snprintf(line, sizeof line, "%s %-7s %s\n", clock_format(time, clock_now()),
                         level_names[level], shown);

    if (io_write_all(log_state.file, line, (size_t)count, &e) == 0)
        return;
    io_drop(&log_state.file);
    err_add(&e, "the log file is closed");
    put_stderr(LOG_WARNING, e.text);
}

void log_write(enum log_level level, const char *format, ...)
{
    char text[MESSAGE_BYTES], shown[4 * MESSAGE_BYTES];
    int kept = errno;
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    utf8_show(shown, sizeof shown, text);

    pthread_mutex_lock(&log_state.lock);
    if (log_state.see != NULL)
        log_state.see(log_state.observer, level, text);
    if (level <= log_state.level)
        put_stderr(level, shown);
    if (log_state.file >= 0 && (level < LOG_DEBUG || log_state.level == LOG_DEBUG))
        put_file(level, shown);
    pthread_mutex_unlock(&log_state.lock);
    errno = kept;
}
