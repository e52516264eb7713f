/* Tables for people: columns as wide as they need, cut where the line would not fit. */
#ifndef RECEIVER_CLI_TABLE_H
#define RECEIVER_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct err;
struct table;

enum { TABLE_COLUMNS_MAX = 16 };

struct table_column {
    const char *title;
    bool right;  /* numbers stand to the right */
    bool shrink; /* may be cut, down to 8 columns, where the table is too wide */
};

/* columns is borrowed and must live as long as the table. */
int table_new(struct table **out, const struct table_column *columns, size_t count, struct err *e);
void table_free(struct table *t); /* NULL is allowed */

/* One cell of each column; texts are copied, escaped (utf8.h); NULL shows as "-". */
int table_row(struct table *t, const char *const *cells, struct err *e);

/*
 * Print the title line and the rows, each after indent blanks, in at most width columns; nothing
 * when there are no rows.  Only columns that may shrink are cut.
 */
void table_print(const struct table *t, FILE *out, unsigned width, unsigned indent);

/*
 * A paragraph: head, then text from column on, broken at blanks so that lines keep within width;
 * one that is longer than a line stands alone.  text is escaped, head is not.
 */
void text_wrap(FILE *out, const char *head, const char *text, unsigned column, unsigned width);

#endif
