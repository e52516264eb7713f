#include "receiver/cli/screen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "receiver/base/secret.h"
#include "receiver/base/utf8.h"

enum { COLUMNS_LEAST = 20, QUESTION_BYTES = 1024 };

bool screen_is_terminal(int fd)
{
    const char *kind = getenv("TERM");

    return isatty(fd) && kind != NULL && kind[0] != 0 && strcmp(kind, "dumb") != 0;
}

unsigned screen_columns(int fd)
{
    struct winsize size;

    if (isatty(fd) && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col >= COLUMNS_LEAST)
        return size.ws_col;
    return SCREEN_COLUMNS_DEFAULT;
}

unsigned screen_rows(int fd)
{
    struct winsize size;

    if (isatty(fd) && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_row > 0)
        return size.ws_row;
    return SCREEN_ROWS_DEFAULT;
}

int screen_ask(const char *question)
{
    char shown[QUESTION_BYTES], prompt[QUESTION_BYTES + 16];
    struct secret answer = { 0 };
    int yes;

    if (!secret_can_ask())
        return 0;
    utf8_show(shown, sizeof shown, question);
    snprintf(prompt, sizeof prompt, "%s [y/N] ", shown);
    yes = secret_from_terminal(&answer, prompt, true, NULL) == 0 &&
          (strcmp(answer.text, "y") == 0 || strcmp(answer.text, "yes") == 0 ||
           strcmp(answer.text, "Y") == 0);
    secret_free(&answer);
    return yes;
}
