#include "receiver/ssh/transport.h"

#include <stdarg.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"

int shell_quote(struct bytes *command, const char *word, struct err *e)
{
    size_t was = command->count;

    /* Inside single quotes every byte stands for itself, but for the single quote. */
    if (bytes_append(command, "'", 1, e) != 0)
        goto fail;
    while (*word != 0) {
        size_t plain = strcspn(word, "'");

        if (bytes_append(command, word, plain, e) != 0)
            goto fail;
        word += plain;
        if (*word == '\'') {
            if (bytes_append(command, "'\\''", 4, e) != 0)
                goto fail;
            word++;
        }
    }
    if (bytes_append(command, "'", 1, e) == 0)
        return 0;
fail:
    command->count = was;
    return -1;
}

int shell_command(struct bytes *command, struct err *e, ...)
{
    const char *word;
    va_list words;
    int rc = 0;

    va_start(words, e);
    for (bool first = true; rc == 0 && (word = va_arg(words, const char *)) != NULL;
         first = false) {
        if (!first)
            rc = bytes_append(command, " ", 1, e);
        if (rc == 0)
            rc = shell_quote(command, word, e);
    }
    va_end(words);
    if (rc == 0 && bytes_text(command, e) == NULL)
        rc = -1;
    return rc == 0 ? 0 : err_add(e, "a command line");
}
