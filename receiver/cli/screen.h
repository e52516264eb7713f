/* What we know of the terminal. */
#ifndef RECEIVER_CLI_SCREEN_H
#define RECEIVER_CLI_SCREEN_H

#include <stdbool.h>

enum { SCREEN_COLUMNS_DEFAULT = 80, SCREEN_ROWS_DEFAULT = 24 };

/* A terminal that understands how to move and erase ("dumb" ones do not). */
bool screen_is_terminal(int fd);

/* Its width and height; the defaults above where there is none or it does not tell. */
unsigned screen_columns(int fd);
unsigned screen_rows(int fd);

/* Ask a yes-or-no question on the terminal; 1 yes, 0 no or no terminal. */
int screen_ask(const char *question);

#endif
