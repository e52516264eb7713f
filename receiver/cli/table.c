#include "receiver/cli/table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/utf8.h"

/* Blanks between columns, the least that a cut column keeps, and the most that one cell is. */
enum { GAP = 2, SHRUNK_LEAST = 8, CELL_BYTES = 1024 };

struct table {
    const struct table_column *columns;
    size_t column_count;
    char **cells; /* row after row, shown text */
    size_t cell_count, cell_room;
};

int table_new(struct table **out, const struct table_column *columns, size_t count, struct err *e)
{
    struct table *t;

    assert(count > 0 && count <= TABLE_COLUMNS_MAX);
    t = calloc(1, sizeof *t);
    if (t == NULL)
        return err_sys(e, "getting memory for a table");
    t->columns = columns;
    t->column_count = count;
    *out = t;
    return 0;
}

void table_free(struct table *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->cell_count; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
}

int table_row(struct table *t, const char *const *cells, struct err *e)
{
    char shown[CELL_BYTES];
    size_t first = t->cell_count;

    if (t->cell_room - first < t->column_count) {
        size_t room = 2 * t->cell_room + 8 * t->column_count;
        char **more = reallocarray(t->cells, room, sizeof *more);

        if (more == NULL)
            return err_sys(e, "getting memory for a table");
        t->cells = more;
        t->cell_room = room;
    }
    for (size_t i = 0; i < t->column_count; i++) {
        utf8_show(shown, sizeof shown, cells[i] != NULL ? cells[i] : "-");
        t->cells[first + i] = strdup(shown);
        if (t->cells[first + i] == NULL) {
            while (i-- > 0)
                free(t->cells[first + i]);
            return err_sys(e, "getting memory for a table");
        }
    }
    t->cell_count += t->column_count;
    return 0;
}

/* How wide each column is, so that all fit into width as far as they may shrink. */
static void measure(const struct table *t, size_t width, size_t *widths)
{
    size_t total = GAP * (t->column_count - 1);

    for (size_t c = 0; c < t->column_count; c++) {
        widths[c] = utf8_columns(t->columns[c].title);
        for (size_t i = c; i < t->cell_count; i += t->column_count) {
            size_t columns = utf8_columns(t->cells[i]);

            widths[c] = columns > widths[c] ? columns : widths[c];
        }
        total += widths[c];
    }
    while (total > width) {
        size_t widest = t->column_count;

        for (size_t c = 0; c < t->column_count; c++) {
            if (t->columns[c].shrink && widths[c] > SHRUNK_LEAST &&
                (widest == t->column_count || widths[c] > widths[widest]))
                widest = c;
        }
        if (widest == t->column_count)
            return;
        widths[widest]--;
        total--;
    }
}

static void print_blanks(FILE *out, size_t count)
{
    while (count-- > 0)
        fputc(' ', out);
}

static void print_line(const struct table *t, FILE *out, const char *const *cells,
                       const size_t *widths, unsigned indent)
{
    size_t owed = indent;

    for (size_t c = 0; c < t->column_count; c++) {
        char text[CELL_BYTES + 4];
        size_t taken = utf8_cut(text, sizeof text, cells[c], widths[c]);
        size_t pad = widths[c] - taken;

        /* Blanks are owed until something follows, so that no line ends with one. */
        if (t->columns[c].right)
            owed += pad;
        if (text[0] != 0) {
            print_blanks(out, owed);
            fputs(text, out);
            owed = 0;
        }
        owed += (t->columns[c].right ? 0 : pad) + GAP;
    }
    fputc('\n', out);
}

void table_print(const struct table *t, FILE *out, unsigned width, unsigned indent)
{
    size_t widths[TABLE_COLUMNS_MAX];
    const char *titles[TABLE_COLUMNS_MAX];

    if (t->cell_count == 0)
        return;
    measure(t, width > indent ? width - indent : 0, widths);
    for (size_t c = 0; c < t->column_count; c++)
        titles[c] = t->columns[c].title;
    print_line(t, out, titles, widths, indent);
    for (size_t i = 0; i < t->cell_count; i += t->column_count)
        print_line(t, out, (const char *const *)&t->cells[i], widths, indent);
}

void text_wrap(FILE *out, const char *head, const char *text, unsigned column, unsigned width)
{
    char shown[2 * CELL_BYTES];
    size_t at = strlen(head);
    bool first = true;
    char *rest, *word;

    utf8_show(shown, sizeof shown, text);
    fputs(head, out);
    if (at < column) {
        print_blanks(out, column - at);
        at = column;
    }
    for (word = strtok_r(shown, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        size_t columns = utf8_columns(word);

        if (!first && at + 1 + columns > width) {
            fputc('\n', out);
            print_blanks(out, column);
            at = column;
        } else if (!first) {
            fputc(' ', out);
            at++;
        }
        fputs(word, out);
        at += columns;
        first = false;
    }
    fputc('\n', out);
}
