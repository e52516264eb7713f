#include "protocol/vmdk/descriptor.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"

/* Header keys that may stand once each; a second one is refused, as ESXi does. */
enum header_key {
    KEY_VERSION,
    KEY_ENCODING,
    KEY_CID,
    KEY_PARENT_CID,
    KEY_NATIVE,
    KEY_CREATE_TYPE,
    KEY_PARENT_HINT,
    KEY_CHANGE_TRACK,
    KEY_KEY_ID,
    KEY_KEYS,
    KEY_PARENT_NAME,
    KEY_COUNT
};

static const char *const header_keys[KEY_COUNT] = {
    "version",
    "encoding",
    "CID",
    "parentCID",
    "isNativeSnapshot",
    "createType",
    "parentFileNameHint",
    "changeTrackPath",
    "keyID",
    "encryptionKeys",
    "parentFileName",
};

struct reader {
    struct descriptor *d;
    bool seen[KEY_COUNT];
    uint64_t sectors;
    size_t line;
    struct err *e;
};

static int bad(struct reader *r, const char *what)
{
    return err_set(r->e, ERR_CORRUPT, "line %zu of the descriptor: %s", r->line, what);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool read_decimal(const char *text, size_t bytes, uint64_t *out)
{
    uint64_t value = 0;

    if (bytes == 0)
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (text[i] < '0' || text[i] > '9' || !checked_mul(value, 10, &value) ||
            !checked_add(value, (uint64_t)(text[i] - '0'), &value))
            return false;
    *out = value;
    return true;
}

static bool read_cid(const char *text, size_t bytes, uint32_t *out)
{
    uint32_t value = 0;

    if (bytes == 0 || bytes > 8)
        return false;
    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];
        unsigned digit;

        if (c >= '0' && c <= '9')
            digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F')
            digit = (unsigned)(c - 'A') + 10;
        else
            return false;
        value = value << 4 | digit;
    }
    *out = value;
    return true;
}

static int copy(char **out, const char *text, size_t bytes, struct reader *r)
{
    if (bytes > DESCRIPTOR_NAME_MAX)
        return err_set(r->e, ERR_LIMIT, "line %zu of the descriptor: a name is too long", r->line);
    *out = strndup(text, bytes);
    return *out == NULL ? err_sys(r->e, "reading a descriptor") : 0;
}

static int copy_short(char *out, size_t room, const char *text, size_t bytes, struct reader *r)
{
    if (bytes >= room)
        return bad(r, "a value is too long");
    memcpy(out, text, bytes);
    out[bytes] = '\0';
    return 0;
}

bool descriptor_word_is(const char *word, const char *type)
{
    return strcasecmp(word, type) == 0;
}

static int set_header(struct reader *r, enum header_key key, const char *value, size_t bytes)
{
    struct descriptor *d = r->d;
    uint64_t number;

    if (r->seen[key])
        return bad(r, "a key stands twice");
    r->seen[key] = true;
    switch (key) {
    case KEY_VERSION:
        if (!read_decimal(value, bytes, &number) || number < 1 || number > 3)
            return bad(r, "an unknown version");
        d->version = (unsigned)number;
        return 0;
    case KEY_ENCODING:
        return copy_short(d->encoding, sizeof d->encoding, value, bytes, r);
    case KEY_CID:
        return read_cid(value, bytes, &d->cid) ? 0 : bad(r, "no content id");
    case KEY_PARENT_CID:
        return read_cid(value, bytes, &d->parent_cid) ? 0 : bad(r, "no content id");
    case KEY_NATIVE:
        if (!(bytes == 2 && strncasecmp(value, "no", 2) == 0) &&
            !(bytes == 3 && strncasecmp(value, "yes", 3) == 0))
            return bad(r, "isNativeSnapshot is neither yes nor no");
        d->native_snapshot = bytes == 3;
        return 0;
    case KEY_CREATE_TYPE:
        return bytes == 0 ? bad(r, "no create type")
                          : copy_short(d->create_type, sizeof d->create_type, value, bytes, r);
    case KEY_PARENT_HINT:
        return copy(&d->parent_hint, value, bytes, r);
    case KEY_CHANGE_TRACK:
        return copy(&d->change_track, value, bytes, r);
    case KEY_KEY_ID:
    case KEY_KEYS:
        d->encrypted = true;
        return 0;
    default:
        return bad(r, "parentFileName is a legacy form that is not followed");
    }
}

/* A value behind its '=': quoted (to the line's last quote) or bare. */
static int cut_value(struct reader *r, const char **value, size_t *bytes, const char *end)
{
    const char *start = *value;

    while (start < end && is_blank(*start))
        start++;
    *bytes = (size_t)(end - start);
    if (*bytes > 0 && *start == '"') {
        if (*bytes < 2 || end[-1] != '"')
            return bad(r, "a quote without its end");
        start++;
        *bytes -= 2;
    }
    *value = start;
    return 0;
}

static int read_ddb(struct reader *r, const char *name, size_t name_bytes, const char *value,
                    size_t bytes)
{
    struct descriptor *d = r->d;
    struct descriptor_ddb *more;
    struct descriptor_ddb item = { 0 };

    if (d->ddb_count == DESCRIPTOR_DDB_MAX)
        return err_set(r->e, ERR_LIMIT, "the descriptor has more than %d ddb entries",
                       DESCRIPTOR_DDB_MAX);
    if (copy(&item.name, name, name_bytes, r) != 0 || copy(&item.value, value, bytes, r) != 0)
        goto fail;
    if (descriptor_ddb(d, item.name) != NULL) {
        bad(r, "a ddb entry stands twice");
        goto fail;
    }
    more = realloc(d->ddb, (d->ddb_count + 1) * sizeof *more);
    if (more == NULL) {
        err_sys(r->e, "reading a descriptor");
        goto fail;
    }
    d->ddb = more;
    more[d->ddb_count++] = item;
    return 0;

fail:
    free(item.name);
    free(item.value);
    return -1;
}

/* "key = value" of the header or the ddb. */
static int read_setting(struct reader *r, const char *line, const char *end)
{
    const char *equals = memchr(line, '=', (size_t)(end - line));
    const char *key_end = equals;
    const char *value;
    size_t bytes, key_bytes;

    if (equals == NULL)
        return bad(r, "neither a setting nor an extent");
    value = equals + 1;
    while (key_end > line && is_blank(key_end[-1]))
        key_end--;
    key_bytes = (size_t)(key_end - line);
    if (cut_value(r, &value, &bytes, end) != 0)
        return -1;
    if (key_bytes > 4 && strncasecmp(line, "ddb.", 4) == 0)
        return read_ddb(r, line + 4, key_bytes - 4, value, bytes);
    for (enum header_key k = 0; k < KEY_COUNT; k++)
        if (strlen(header_keys[k]) == key_bytes &&
            strncasecmp(line, header_keys[k], key_bytes) == 0)
            return set_header(r, k, value, bytes);
    return bad(r, "an unknown key");
}

/* The next word of a line; *at moves behind it. */
static size_t next_word(const char **at, const char *end, const char **word)
{
    while (*at < end && is_blank(**at))
        (*at)++;
    *word = *at;
    while (*at < end && !is_blank(**at))
        (*at)++;
    return (size_t)(*at - *word);
}

static bool is_access(const char *word, size_t bytes, enum descriptor_access *out)
{
    static const char *const words[] = { "RW", "RDONLY", "NOACCESS" };

    for (size_t i = 0; i < ARRAY_COUNT(words); i++)
        if (strlen(words[i]) == bytes && strncasecmp(word, words[i], bytes) == 0) {
            *out = (enum descriptor_access)i;
            return true;
        }
    return false;
}

static int read_extent_tail(struct reader *r, struct descriptor_extent *x, const char *at,
                            const char *end)
{
    const char *word, *last = end;
    size_t bytes;

    while (at < end && is_blank(*at))
        at++;
    if (at == end)
        return copy(&x->name, "", 0, r);
    if (*at != '"')
        return bad(r, "an extent's name without its quote");
    at++;
    while (last > at && last[-1] != '"')
        last--;
    if (last == at)
        return bad(r, "an extent's name without its end");
    if (copy(&x->name, at, (size_t)(last - 1 - at), r) != 0)
        return -1;
    at = last;
    bytes = next_word(&at, end, &word);
    if (bytes == 0)
        return 0;
    if (!read_decimal(word, bytes, &x->offset_sectors) ||
        x->offset_sectors > DESCRIPTOR_SECTORS_MAX)
        return bad(r, "an extent's offset is no number");
    x->has_offset = true;
    /* A partition's UUID and device may follow; nothing that we read has them. */
    return next_word(&at, end, &word) == 0 ? 0 : bad(r, "something behind an extent's offset");
}

static int read_extent(struct reader *r, enum descriptor_access access, const char *at,
                       const char *end)
{
    struct descriptor *d = r->d;
    struct descriptor_extent x = { .access = access };
    struct descriptor_extent *more;
    const char *word;
    size_t bytes = next_word(&at, end, &word);

    if (!read_decimal(word, bytes, &x.sectors) || x.sectors > DESCRIPTOR_SECTORS_MAX)
        return bad(r, "an extent's size is no number, or too large");
    bytes = next_word(&at, end, &word);
    if (bytes == 0 || bytes >= sizeof x.type)
        return bad(r, "an extent without a known type");
    for (size_t i = 0; i < bytes; i++)
        x.type[i] = word[i] >= 'a' && word[i] <= 'z' ? (char)(word[i] - 32) : word[i];
    if (x.sectors == 0 && strcmp(x.type, "ZERO") != 0 && access != ACCESS_NOACCESS)
        return bad(r, "an extent of no size");
    r->sectors += x.sectors;
    if (r->sectors > DESCRIPTOR_SECTORS_MAX)
        return bad(r, "the disk is too large");
    if (d->extent_count == DESCRIPTOR_EXTENTS_MAX)
        return err_set(r->e, ERR_LIMIT, "the descriptor has more than %d extents",
                       DESCRIPTOR_EXTENTS_MAX);
    more = realloc(d->extents, (d->extent_count + 1) * sizeof *more);
    if (more == NULL)
        return err_sys(r->e, "reading a descriptor");
    d->extents = more;
    if (read_extent_tail(r, &x, at, end) != 0) {
        free(x.name);
        return -1;
    }
    more[d->extent_count++] = x;
    return 0;
}

static int read_line(struct reader *r, const char *line, const char *end)
{
    enum descriptor_access access;
    const char *at, *word;
    size_t bytes;

    while (line < end && is_blank(*line))
        line++;
    while (end > line && (is_blank(end[-1]) || end[-1] == '\r'))
        end--;
    if (line == end || *line == '#')
        return 0;
    at = line;
    bytes = next_word(&at, end, &word);
    if (at < end && is_access(word, bytes, &access))
        return read_extent(r, access, at, end);
    return read_setting(r, line, end);
}

/* What must be there, whatever the type. */
static int check_whole(struct reader *r)
{
    struct descriptor *d = r->d;

    if (!r->seen[KEY_VERSION] || !r->seen[KEY_CID] || !r->seen[KEY_PARENT_CID] ||
        !r->seen[KEY_CREATE_TYPE])
        return err_set(r->e, ERR_CORRUPT,
                       "the descriptor lacks one of version, CID, parentCID, createType");
    if (d->extent_count == 0)
        return err_set(r->e, ERR_CORRUPT, "the descriptor has no extent");
    d->capacity_bytes = r->sectors * DESCRIPTOR_SECTOR_BYTES;
    return 0;
}

/*
 * qemu writes a descriptor anew in its place when a content id changes, and one of fewer digits
 * leaves up to 7 of the old text's last bytes behind the NUL that ends the new one.
 */
static bool is_remnant(const char *text, const char *nul, const char *end)
{
    size_t bytes = (size_t)(end - nul) - 1;

    if (bytes > 7 || bytes > (size_t)(nul - text))
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (nul[1 + i] != '\0' && nul[1 + i] != *(nul - bytes + i))
            return false;
    return true;
}

/* The bytes of the text itself, without a mark at its start and padding at its end. */
static int strip(const char **text, size_t *bytes, struct err *e)
{
    const char *nul;

    if (*bytes >= 3 && memcmp(*text, "\xef\xbb\xbf", 3) == 0) {
        *text += 3;
        *bytes -= 3;
    }
    while (*bytes > 0 && (*text)[*bytes - 1] == '\0')
        (*bytes)--;
    nul = memchr(*text, '\0', *bytes);
    if (nul != NULL && !is_remnant(*text, nul, *text + *bytes))
        return err_set(e, ERR_FORMAT, "this is no descriptor: it holds a NUL");
    if (nul != NULL)
        *bytes = (size_t)(nul - *text);
    for (size_t i = 0; i < *bytes; i++)
        if (!is_blank((*text)[i]) && (*text)[i] != '\n' && (*text)[i] != '\r') {
            /* Some tools leave out the first line, but then this key is the first thing. */
            if ((*text)[i] == '#' || (*bytes - i > 7 && strncasecmp(*text + i, "version", 7) == 0))
                return 0;
            break;
        }
    return err_set(e, ERR_FORMAT,
                   "this is no descriptor: it starts with neither a comment nor its version");
}

int descriptor_read(struct descriptor **out, const void *text, size_t bytes, struct err *e)
{
    struct reader r = { .e = e };
    const char *at = text, *end;
    int rc = -1;

    if (bytes > DESCRIPTOR_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "the descriptor is longer than %d bytes",
                       DESCRIPTOR_BYTES_MAX);
    if (strip(&at, &bytes, e) != 0)
        return -1;
    r.d = calloc(1, sizeof *r.d);
    if (r.d == NULL)
        return err_sys(e, "reading a descriptor");
    for (end = at + bytes; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *line_end = newline == NULL ? end : newline;

        r.line++;
        if (read_line(&r, at, line_end) != 0)
            goto out;
        at = newline == NULL ? end : newline + 1;
    }
    if (check_whole(&r) != 0)
        goto out;
    *out = r.d;
    r.d = NULL;
    rc = 0;

out:
    descriptor_free(r.d);
    return rc;
}

void descriptor_free(struct descriptor *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < d->extent_count; i++)
        free(d->extents[i].name);
    for (size_t i = 0; i < d->ddb_count; i++) {
        free(d->ddb[i].name);
        free(d->ddb[i].value);
    }
    free(d->extents);
    free(d->ddb);
    free(d->parent_hint);
    free(d->change_track);
    free(d);
}

const struct descriptor_extent *descriptor_only_extent(const struct descriptor *d)
{
    const struct descriptor_extent *only = NULL;

    for (size_t i = 0; i < d->extent_count; i++) {
        if (d->extents[i].sectors == 0)
            continue;
        if (only != NULL)
            return NULL;
        only = &d->extents[i];
    }
    return only;
}

const char *descriptor_ddb(const struct descriptor *d, const char *name)
{
    for (size_t i = 0; i < d->ddb_count; i++)
        if (strcasecmp(d->ddb[i].name, name) == 0)
            return d->ddb[i].value;
    return NULL;
}

const char *descriptor_unfinished(const struct descriptor *d)
{
    static const char *const names[] = {
        "alternateParentCID", "resumeConsolidateSector", "consolidateDestFileName",
        "nativeParentHint",   "nativeParentCID",         "nativeDeltaBytes",
        "objectParentUri",    "isNativeLinkedClone",     "abandonedNativeParentUri",
    };

    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        const char *value = descriptor_ddb(d, names[i]);

        if (value != NULL && *value != '\0' && strcmp(value, "0") != 0 &&
            strcasecmp(value, "false") != 0 && strcasecmp(value, "no") != 0)
            return names[i];
    }
    return NULL;
}
