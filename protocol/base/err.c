#include "protocol/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static enum err_code code_of(int os)
{
    switch (os) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return ERR_SPACE;
    case EIO:
        return ERR_SOURCE;
    case ENOENT:
        return ERR_NOT_FOUND;
    case EBUSY:
    case ETXTBSY:
        return ERR_BUSY;
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case EPIPE:
    case ETIMEDOUT:
        return ERR_NETWORK;
    default:
        return ERR_SYSTEM;
    }
}

static void __attribute__((format(printf, 4, 0)))
fill(struct err *e, enum err_code code, int os, const char *format, va_list args)
{
    e->code = code;
    e->os = os;
    vsnprintf(e->text, sizeof e->text, format, args);
}

int err_set(struct err *e, enum err_code code, const char *format, ...)
{
    va_list args;

    if (e == NULL)
        return -1;
    va_start(args, format);
    fill(e, code, 0, format, args);
    va_end(args);
    return -1;
}

static void __attribute__((format(printf, 4, 0)))
fill_sys(struct err *e, enum err_code code, int os, const char *format, va_list args)
{
    size_t at;

    fill(e, code, os, format, args);
    at = strlen(e->text);
    snprintf(e->text + at, sizeof e->text - at, ": %s", strerror(os));
}

int err_sys(struct err *e, const char *format, ...)
{
    int os = errno;
    va_list args;

    if (e == NULL)
        return -1;
    va_start(args, format);
    fill_sys(e, code_of(os), os, format, args);
    va_end(args);
    return -1;
}

int err_sys_write(struct err *e, const char *format, ...)
{
    int os = errno;
    va_list args;

    if (e == NULL)
        return -1;
    va_start(args, format);
    fill_sys(e, os == EIO ? ERR_SYSTEM : code_of(os), os, format, args);
    va_end(args);
    return -1;
}

int err_add(struct err *e, const char *format, ...)
{
    char was[sizeof e->text];
    size_t at;
    va_list args;

    if (e == NULL)
        return -1;
    memcpy(was, e->text, sizeof was);
    va_start(args, format);
    vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
    at = strlen(e->text);
    snprintf(e->text + at, sizeof e->text - at, ": %.*s", (int)(sizeof was - 1), was);
    return -1;
}

const char *err_code_name(enum err_code code)
{
    static const char *const names[ERR_CODE_COUNT] = {
        [ERR_NONE] = "none",
        [ERR_SYSTEM] = "system",
        [ERR_USAGE] = "usage",
        [ERR_NOT_FOUND] = "not-found",
        [ERR_SOURCE] = "source",
        [ERR_CORRUPT] = "corrupt",
        [ERR_BUSY] = "busy",
        [ERR_AUTH] = "auth",
        [ERR_SPACE] = "space",
        [ERR_CLEANUP] = "cleanup",
        [ERR_UNSUPPORTED] = "unsupported",
        [ERR_REFUSED] = "refused",
        [ERR_NETWORK] = "network",
        [ERR_FORMAT] = "format",
        [ERR_LIMIT] = "limit",
        [ERR_PEER] = "peer",
        [ERR_STOPPED] = "stopped",
    };

    if ((unsigned)code >= ERR_CODE_COUNT)
        return "unknown";
    return names[code];
}
