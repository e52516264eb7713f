#include "receiver/host/vimdump.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"

/* Fields of one object; the widest that is known (ConfigInfo) has fewer than a hundred. */
enum { FIELDS_MAX = 1024 };

struct vimdump {
    char *text; /* a copy; strings are ended in place */
    size_t bytes;
    struct vimnode *nodes; /* one block, so that pointers between nodes stay */
    size_t count;
    size_t room;
};

/* An object or array that is open while reading. */
struct level {
    struct vimnode *node;
    struct vimnode *last;
    size_t indent;       /* of the line that opened it */
    size_t child_indent; /* of its first child; 0: none was seen yet */
};

struct reader {
    struct vimdump *d;
    size_t at;   /* start of the next line */
    size_t line; /* its number, from 1 */
    struct level levels[VIMDUMP_DEPTH_MAX];
    size_t depth;
    struct err *e;
};

/* One line of the text, without its newline. */
struct span {
    size_t start; /* first byte that is no blank */
    size_t end;   /* behind the last byte that is no blank */
    size_t next;  /* start of the next line */
    size_t indent;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* False at the end of the text. */
static bool span_at(const struct vimdump *d, size_t at, struct span *s)
{
    const char *newline;
    size_t end;

    if (at >= d->bytes)
        return false;
    newline = memchr(d->text + at, '\n', d->bytes - at);
    end = newline == NULL ? d->bytes : (size_t)(newline - d->text);
    s->next = newline == NULL ? d->bytes : end + 1;
    s->start = at;
    while (s->start < end && is_blank(d->text[s->start]))
        s->start++;
    s->end = end;
    while (s->end > s->start && is_blank(d->text[s->end - 1]))
        s->end--;
    s->indent = s->start - at;
    return true;
}

/* The length of "name = " at the start of a line, 0 when there is none. */
static size_t field_name_bytes(const struct vimdump *d, const struct span *s)
{
    size_t at = s->start;

    while (at < s->end && is_word(d->text[at]))
        at++;
    if (at == s->start || s->end - at < 3 || memcmp(d->text + at, " = ", 3) != 0)
        return 0;
    return at - s->start;
}

static bool is_closing(const struct vimdump *d, const struct span *s, char bracket)
{
    size_t bytes = s->end - s->start;

    return (bytes == 1 || (bytes == 2 && d->text[s->start + 1] == ',')) &&
           d->text[s->start] == bracket;
}

static char closing_of(const struct vimnode *node)
{
    return node->kind == VIMNODE_OBJECT ? '}' : ']';
}

/* Could this line follow a whole field or item of the level? */
static bool line_fits(const struct vimdump *d, const struct level *l, const struct span *s)
{
    char first;

    if (s->start == s->end)
        return false;
    if (s->indent == l->indent && is_closing(d, s, closing_of(l->node)))
        return true;
    if (s->indent <= l->indent || (l->child_indent != 0 && s->indent != l->child_indent))
        return false;
    if (l->node->kind == VIMNODE_OBJECT)
        return field_name_bytes(d, s) != 0;
    first = d->text[s->start];
    return first == '(' || first == '"' || first == '\'' || first == '<' || first == '-' ||
           is_word(first);
}

static int corrupt(struct reader *r, const char *what)
{
    return err_set(r->e, ERR_CORRUPT, "line %zu of the host's answer: %s", r->line, what);
}

static struct vimnode *node_new(struct reader *r, enum vimnode_kind kind)
{
    struct vimnode *node;

    if (r->d->count >= r->d->room) {
        err_set(r->e, ERR_LIMIT, "the host's answer has more than %d items", VIMDUMP_ITEMS_MAX);
        return NULL;
    }
    node = &r->d->nodes[r->d->count++];
    node->kind = kind;
    return node;
}

/* End text in place and lend it to node. */
static void node_text(struct reader *r, struct vimnode *node, size_t start, size_t end)
{
    r->d->text[end] = '\0';
    node->text = r->d->text + start;
    node->text_bytes = end - start;
}

/* Drop the comma behind a value.  *end is behind the last byte that is no blank. */
static size_t without_comma(const struct vimdump *d, size_t start, size_t end)
{
    if (end > start && d->text[end - 1] == ',')
        end--;
    while (end > start && is_blank(d->text[end - 1]))
        end--;
    return end;
}

/* A string from the quote at start on; it may run over lines.  Moves the reader behind it. */
static int read_string(struct reader *r, struct vimnode *node, size_t start,
                       const struct span *first)
{
    struct span s = *first, next;
    size_t lines = 0;

    for (;;) {
        size_t end = without_comma(r->d, start, s.end);

        if (end > start + 1 && r->d->text[end - 1] == '"' && span_at(r->d, s.next, &next) &&
            line_fits(r->d, &r->levels[r->depth - 1], &next)) {
            node_text(r, node, start + 1, end - 1);
            r->at = s.next;
            r->line += lines + 1;
            return 0;
        }
        lines++;
        if (!span_at(r->d, s.next, &s))
            return corrupt(r, "a string has no end");
        /* A line of nothing but blanks ends where it starts: look from the string's start only. */
        if (s.end < start + 1)
            s.end = start + 1;
    }
}

/*
 * "(type) {" and its like, from the bracket at start on.  *opens: a container that goes on below.
 * *plain: where a value that is none of these starts, else 0.
 */
static int read_typed(struct reader *r, struct vimnode *node, size_t start, size_t end, bool *opens,
                      size_t *plain)
{
    char *text = r->d->text;
    char *close = memchr(text + start, ')', end - start);
    size_t rest;
    size_t bytes;

    if (close == NULL)
        return corrupt(r, "a type without its bracket");
    rest = (size_t)(close - text) + 1;
    while (rest < end && is_blank(text[rest]))
        rest++;
    bytes = end - rest;
    if (bytes == 4 && memcmp(text + rest, "null", 4) == 0) {
        node->kind = VIMNODE_UNSET;
    } else if (bytes >= 1 && (text[rest] == '{' || text[rest] == '[')) {
        char other = text[rest] == '{' ? '}' : ']';

        node->kind = text[rest] == '{' ? VIMNODE_OBJECT : VIMNODE_ARRAY;
        *opens = bytes == 1;
        if (bytes > 1 && text[end - 1] != other)
            return corrupt(r, "an object on one line");
        for (size_t i = rest + 1; bytes > 1 && i < end - 1; i++)
            if (!is_blank(text[i]))
                return corrupt(r, "an object on one line");
    } else if (bytes > 0) {
        *plain = rest;
    } else {
        return corrupt(r, "a type without a value");
    }
    *close = '\0';
    node->type = text + start + 1;
    return 0;
}

static int read_value(struct reader *r, struct vimnode *node, size_t start, const struct span *s,
                      bool *opens)
{
    struct vimdump *d = r->d;
    size_t end = without_comma(d, start, s->end);
    size_t plain = start;

    *opens = false;
    if (start < end && d->text[start] == '(') {
        plain = 0;
        if (read_typed(r, node, start, end, opens, &plain) != 0)
            return -1;
        start = plain;
    }
    if (plain != 0 && start < s->end && d->text[start] == '"') {
        node->kind = VIMNODE_STRING;
        return read_string(r, node, start, s);
    }
    if (start >= end)
        return corrupt(r, "a field without a value");
    if (plain == 0) {
        /* An object, array or null: all is said. */
    } else if (end - start == 7 && memcmp(d->text + start, "<unset>", 7) == 0) {
        node->kind = VIMNODE_UNSET;
    } else if (d->text[start] == '\'') {
        if (end < start + 2 || d->text[end - 1] != '\'')
            return corrupt(r, "a reference has no end");
        node->kind = VIMNODE_REF;
        node_text(r, node, start + 1, end - 1);
    } else {
        node->kind = VIMNODE_BARE;
        node_text(r, node, start, end);
    }
    r->at = s->next;
    r->line++;
    return 0;
}

static int push_level(struct reader *r, struct vimnode *node, size_t indent)
{
    if (r->depth == VIMDUMP_DEPTH_MAX)
        return err_set(r->e, ERR_LIMIT, "the host's answer is nested deeper than %d",
                       VIMDUMP_DEPTH_MAX);
    r->levels[r->depth++] = (struct level){ .node = node, .indent = indent };
    return 0;
}

static int attach(struct reader *r, struct level *l, struct vimnode *node)
{
    if (l->node->kind == VIMNODE_OBJECT) {
        if (l->node->count >= FIELDS_MAX)
            return err_set(r->e, ERR_LIMIT, "an object of the host's answer has too many fields");
        for (const struct vimnode *n = l->node->first; n != NULL; n = n->next)
            if (strcmp(n->name, node->name) == 0)
                return corrupt(r, "a field stands twice in one object; "
                                  "perhaps a name or note imitates one");
    }
    if (l->last == NULL)
        l->node->first = node;
    else
        l->last->next = node;
    l->last = node;
    l->node->count++;
    return 0;
}

/* One field or item on the line s. */
static int read_child(struct reader *r, struct level *l, const struct span *s)
{
    struct vimdump *d = r->d;
    struct vimnode *node = node_new(r, VIMNODE_UNSET);
    size_t value = s->start;
    bool opens;

    if (node == NULL)
        return -1;
    if (l->node->kind == VIMNODE_OBJECT) {
        size_t bytes = field_name_bytes(d, s);

        if (bytes == 0)
            return corrupt(r, "no field");
        node->name = d->text + s->start;
        d->text[s->start + bytes] = '\0';
        value = s->start + bytes + 3;
    }
    if (l->child_indent == 0)
        l->child_indent = s->indent;
    if (attach(r, l, node) != 0 || read_value(r, node, value, s, &opens) != 0)
        return -1;
    return opens ? push_level(r, node, s->indent) : 0;
}

static int read_levels(struct reader *r)
{
    struct span s;

    while (r->depth > 0) {
        struct level *l = &r->levels[r->depth - 1];

        if (!span_at(r->d, r->at, &s))
            return err_set(r->e, ERR_CORRUPT, "the host's answer is cut short");
        if (s.start == s.end) {
            r->at = s.next;
            r->line++;
            continue;
        }
        if (!line_fits(r->d, l, &s))
            return corrupt(r, "it does not fit where it stands");
        if (s.indent == l->indent) {
            r->depth--;
            r->at = s.next;
            r->line++;
        } else if (read_child(r, l, &s) != 0) {
            return -1;
        }
    }
    return 0;
}

/* The first line that opens an object or array. */
static int read_root(struct reader *r)
{
    struct span s;

    for (; span_at(r->d, r->at, &s); r->at = s.next, r->line++) {
        size_t end = without_comma(r->d, s.start, s.end);
        struct vimnode *node;
        char last;
        bool opens = false;
        size_t plain = 0;

        if (end - s.start < 4 || r->d->text[s.start] != '(')
            continue;
        last = r->d->text[end - 1];
        if (last != '{' && last != '[' && last != ']' && last != '}')
            continue;
        node = node_new(r, VIMNODE_UNSET);
        if (node == NULL || read_typed(r, node, s.start, end, &opens, &plain) != 0)
            return -1;
        if (plain != 0)
            return corrupt(r, "no data object");
        r->at = s.next;
        r->line++;
        return opens ? push_level(r, node, s.indent) : 0;
    }
    return err_set(r->e, ERR_FORMAT, "the host's answer holds no data object");
}

int vimdump_read(struct vimdump **out, const char *text, size_t bytes, struct err *e)
{
    struct reader r = { .line = 1, .e = e };
    struct vimdump *d = NULL;
    size_t lines = 1;
    int rc = -1;

    if (bytes > VIMDUMP_BYTES_MAX) {
        err_set(e, ERR_LIMIT, "the host's answer is longer than %d bytes", VIMDUMP_BYTES_MAX);
        goto out;
    }
    d = calloc(1, sizeof *d);
    if (d == NULL || (d->text = malloc(bytes + 1)) == NULL) {
        err_sys(e, "reading the host's answer");
        goto out;
    }
    memcpy(d->text, text, bytes);
    d->text[bytes] = '\0';
    d->bytes = bytes;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '\0') {
            err_set(e, ERR_CORRUPT, "the host's answer holds a NUL");
            goto out;
        }
        lines += text[i] == '\n';
    }
    d->room = lines < VIMDUMP_ITEMS_MAX ? lines : VIMDUMP_ITEMS_MAX;
    d->nodes = calloc(d->room, sizeof *d->nodes);
    if (d->nodes == NULL) {
        err_sys(e, "reading the host's answer");
        goto out;
    }
    r.d = d;
    if (read_root(&r) != 0 || read_levels(&r) != 0)
        goto out;
    *out = d;
    d = NULL;
    rc = 0;

out:
    vimdump_free(d);
    return rc;
}

void vimdump_free(struct vimdump *d)
{
    if (d == NULL)
        return;
    free(d->nodes);
    free(d->text);
    free(d);
}

const struct vimnode *vimdump_root(const struct vimdump *d)
{
    return &d->nodes[0];
}

const struct vimnode *vimnode_at(const struct vimnode *node, const char *path)
{
    while (node != NULL && *path != '\0') {
        size_t bytes = strcspn(path, ".");
        const struct vimnode *n = NULL;

        if (node->kind == VIMNODE_OBJECT)
            for (n = node->first; n != NULL; n = n->next)
                if (strlen(n->name) == bytes && memcmp(n->name, path, bytes) == 0)
                    break;
        node = n;
        path += bytes + (path[bytes] == '.');
    }
    return node;
}

const char *vimnode_text(const struct vimnode *node, const char *path)
{
    node = vimnode_at(node, path);
    return node == NULL ? NULL : node->text;
}

bool vimnode_u64(const struct vimnode *node, const char *path, uint64_t *out)
{
    const char *text = vimnode_text(node, path);
    uint64_t value = 0;

    if (text == NULL || *text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        unsigned digit = (unsigned)(*text - '0');

        if (*text < '0' || *text > '9' || value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

bool vimnode_bool(const struct vimnode *node, const char *path, bool *out)
{
    const char *text = vimnode_text(node, path);

    if (text == NULL || (strcmp(text, "true") != 0 && strcmp(text, "false") != 0))
        return false;
    *out = strcmp(text, "true") == 0;
    return true;
}
