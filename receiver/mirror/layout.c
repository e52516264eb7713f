#include "receiver/mirror/layout.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

void layout_name(char out[LAYOUT_NAME_ROOM], const char *format, ...)
{
    va_list args;
    int count;

    va_start(args, format);
    count = vsnprintf(out, LAYOUT_NAME_ROOM, format, args);
    va_end(args);
    assert(count > 0 && count < LAYOUT_NAME_ROOM);
    (void)count;
}
