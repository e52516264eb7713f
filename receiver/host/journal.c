#include "receiver/host/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/failpoint.h"
#include "receiver/base/lock.h"
#include "receiver/base/publish.h"
#include "receiver/host/lines.h"

#define MAGIC "vmferry-journal 1\n"
#define ENTRY_END ".entry"
#define LOCK_END ".lock"
#define RECORD_END ".kept"
#define FOLDER_LOCK "journal.lock"

enum { FILE_NAME_ROOM = JOURNAL_TOKEN_ROOM + 8 };
#define FOLDER_LOCK_MS UINT64_C(30000)
#define POINTS_OF(entry) ((entry)->kind == JOURNAL_AGENT ? "journal.agent" : "journal.snapshot")

struct journal {
    int folder;
    char install_id[JOURNAL_INSTALL_ROOM];
};

struct journal_ticket {
    struct journal *journal;
    struct lock lock;
    struct journal_entry entry;
};

static const char *const kind_names[] = { "snapshot", "agent" };
static const char *const state_names[] = { "intent", "created", "reading", "removing" };
static const char *const purpose_names[] = { "run", "keep" };

const char *journal_state_name(enum journal_state state)
{
    return state_names[state];
}

const char *journal_purpose_name(enum journal_purpose purpose)
{
    return purpose_names[purpose];
}

/* ---- the text form ---- */

enum field_type { FIELD_TEXT, FIELD_UNSIGNED, FIELD_TIME, FIELD_WORD };

static const struct field {
    const char *key;
    enum field_type type;
    size_t offset;
    size_t room;              /* of texts */
    const char *const *words; /* of words: an enum by name */
    size_t word_count;
} fields[] = {
#define TEXT(name)                                                                                 \
    {                                                                                              \
#name, FIELD_TEXT, offsetof(struct journal_entry, name),                                   \
            sizeof((struct journal_entry *)0)->name, NULL, 0                                       \
    }
#define NUMBER(name)                                                                               \
    {                                                                                              \
#name, FIELD_UNSIGNED, offsetof(struct journal_entry, name), 0, NULL, 0                    \
    }
#define TIME(name)                                                                                 \
    {                                                                                              \
#name, FIELD_TIME, offsetof(struct journal_entry, name), 0, NULL, 0                        \
    }
#define WORD(name, list)                                                                           \
    {                                                                                              \
#name, FIELD_WORD, offsetof(struct journal_entry, name), 0, list, ARRAY_COUNT(list)        \
    }
    WORD(kind, kind_names),
    WORD(state, state_names),
    TEXT(token),
    TEXT(install_id),
    TIME(created),
    TIME(changed),
    TEXT(host_uuid),
    TEXT(address),
    NUMBER(port),
    TEXT(user),
    WORD(purpose, purpose_names),
    TEXT(vm_name),
    TEXT(vm_uuid),
    TEXT(vmx),
    NUMBER(vmid),
    NUMBER(snapshot_id),
    TEXT(store),
    TIME(expires),
    TEXT(folder),
#undef TEXT
#undef NUMBER
#undef TIME
#undef WORD
};

static int put_field(struct bytes *out, const struct field *f, const struct journal_entry *entry,
                     struct err *e)
{
    const char *at = (const char *)entry + f->offset;
    char text[32] = "";
    int64_t time;
    unsigned number;

    switch (f->type) {
    case FIELD_TEXT:
        return line_put(out, f->key, at, e);
    case FIELD_UNSIGNED:
        memcpy(&number, at, sizeof number);
        snprintf(text, sizeof text, "%u", number);
        break;
    case FIELD_TIME:
        memcpy(&time, at, sizeof time);
        snprintf(text, sizeof text, "%" PRId64, time);
        break;
    case FIELD_WORD:
        memcpy(&number, at, sizeof number);
        return line_put(out, f->key, f->words[number], e);
    }
    return line_put(out, f->key, text, e);
}

int journal_entry_write(const struct journal_entry *entry, struct bytes *out, struct err *e)
{
    char text[sizeof entry->files[0].name + sizeof entry->files[0].sha256 + 2];

    if (bytes_append(out, MAGIC, sizeof MAGIC - 1, e) != 0)
        return -1;
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++)
        if (put_field(out, &fields[i], entry, e) != 0)
            return -1;
    for (size_t i = 0; i < entry->file_count; i++) {
        snprintf(text, sizeof text, "%s %s", entry->files[i].sha256, entry->files[i].name);
        if (line_put(out, "file", text, e) != 0)
            return -1;
    }
    return bytes_append(out, "end\n", 4, e);
}

static bool get_field(const struct field *f, const char *text, struct journal_entry *entry)
{
    char *at = (char *)entry + f->offset;
    uint64_t value;
    unsigned number;
    int64_t time;

    switch (f->type) {
    case FIELD_TEXT:
        return line_text(text, at, f->room);
    case FIELD_UNSIGNED:
        if (!line_number(text, UINT32_MAX, &value))
            return false;
        number = (unsigned)value;
        memcpy(at, &number, sizeof number);
        return true;
    case FIELD_TIME:
        if (!line_number(text, INT64_MAX / 16, &value))
            return false;
        time = (int64_t)value;
        memcpy(at, &time, sizeof time);
        return true;
    case FIELD_WORD:
        for (number = 0; number < f->word_count; number++)
            if (strcmp(f->words[number], text) == 0) {
                memcpy(at, &number, sizeof number);
                return true;
            }
        return false;
    }
    return false;
}

/* A name that we would give: one component without blanks or tricks. */
static bool file_name_is_ours(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && name[0] != '-' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
               strlen(name);
}

static bool get_file(const char *text, struct journal_entry *entry)
{
    struct journal_file *f;
    char line[256];

    if (entry->file_count == JOURNAL_FILES_MAX || !line_text(text, line, sizeof line) ||
        strlen(line) < 66 || line[64] != ' ' || strlen(line + 65) >= sizeof f->name)
        return false;
    line[64] = '\0';
    f = &entry->files[entry->file_count++];
    memcpy(f->sha256, line, 65);
    memcpy(f->name, line + 65, strlen(line + 65) + 1);
    return line_hex(f->sha256, 64) && file_name_is_ours(f->name);
}

static bool get_line(char *line, struct journal_entry *entry, uint64_t *seen)
{
    char *equals = strchr(line, '=');

    if (equals == NULL)
        return false;
    *equals = '\0';
    if (strcmp(line, "file") == 0)
        return get_file(equals + 1, entry);
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++)
        if (strcmp(fields[i].key, line) == 0) {
            if ((*seen & UINT64_C(1) << i) != 0)
                return false;
            *seen |= UINT64_C(1) << i;
            return get_field(&fields[i], equals + 1, entry);
        }
    return false;
}

int journal_entry_read(struct journal_entry *out, const char *text, size_t bytes, struct err *e)
{
    struct journal_entry entry = { 0 };
    uint64_t seen = 0;
    bool ended = false;
    char *copy = strndup(text, bytes);
    char *next;

    if (copy == NULL)
        return err_sys(e, "reading a journal entry");
    if (strlen(copy) == bytes && strncmp(copy, MAGIC, sizeof MAGIC - 1) == 0)
        for (char *line = copy + sizeof MAGIC - 1; line != NULL && *line != '\0'; line = next) {
            next = strchr(line, '\n');
            if (next != NULL)
                *next++ = '\0';
            if (next != NULL && *next == '\0' && strcmp(line, "end") == 0)
                ended = true;
            else if (next == NULL || !get_line(line, &entry, &seen))
                break;
        }
    free(copy);
    if (!ended || seen != (UINT64_C(1) << ARRAY_COUNT(fields)) - 1 || !line_hex(entry.token, 32) ||
        !line_hex(entry.install_id, 16))
        return err_set(e, ERR_CORRUPT, "a journal entry is damaged");
    *out = entry;
    return 0;
}

/* ---- files ---- */

static void entry_name(char out[FILE_NAME_ROOM], const char *token, const char *end)
{
    snprintf(out, FILE_NAME_ROOM, "%s%s", token, end);
}

/* The token of a file name "TOKEN.end". */
static bool token_of(const char *name, const char *end, char out[JOURNAL_TOKEN_ROOM])
{
    if (strlen(name) != JOURNAL_TOKEN_ROOM - 1 + strlen(end) ||
        strcmp(name + JOURNAL_TOKEN_ROOM - 1, end) != 0)
        return false;
    memcpy(out, name, JOURNAL_TOKEN_ROOM - 1);
    out[JOURNAL_TOKEN_ROOM - 1] = '\0';
    return line_hex(out, JOURNAL_TOKEN_ROOM - 1);
}

/* All tokens that have a file with this end. */
static int list_tokens(const struct journal *j, const char *end, char (**out)[JOURNAL_TOKEN_ROOM],
                       size_t *count, struct err *e)
{
    char(*tokens)[JOURNAL_TOKEN_ROOM] = NULL;
    size_t n = 0;
    int fd = openat(j->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int rc = -1;

    *out = NULL;
    *count = 0;
    if (folder == NULL) {
        err_sys(e, "reading the journal's folder");
        io_drop(&fd);
        return -1;
    }
    for (errno = 0; (entry = readdir(folder)) != NULL; errno = 0) {
        char token[JOURNAL_TOKEN_ROOM];
        void *more;

        if (!token_of(entry->d_name, end, token))
            continue;
        if (n == JOURNAL_ENTRIES_MAX) {
            err_set(e, ERR_LIMIT, "the journal has more than %d entries", JOURNAL_ENTRIES_MAX);
            goto out;
        }
        more = realloc(tokens, (n + 1) * sizeof *tokens);
        if (more == NULL) {
            err_sys(e, "reading the journal's folder");
            goto out;
        }
        tokens = more;
        memcpy(tokens[n++], token, sizeof token);
    }
    if (errno != 0) {
        err_sys(e, "reading the journal's folder");
        goto out;
    }
    *out = tokens;
    *count = n;
    tokens = NULL;
    rc = 0;

out:
    free(tokens);
    closedir(folder);
    return rc;
}

/* A file of the folder as it is, less than `most` bytes; *text is the caller's, also after -1. */
static int read_whole(const struct journal *j, const char *name, size_t most, char **text,
                      size_t *bytes, struct err *e)
{
    int fd = openat(j->folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    int rc = -1;

    *text = NULL;
    *bytes = 0;
    if (fd < 0)
        return err_sys(e, "%s", name);
    if (fstat(fd, &st) != 0) {
        err_sys(e, "%s", name);
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size >= most) {
        err_set(e, ERR_CORRUPT, "%s is no file of ours", name);
        goto out;
    }
    *text = calloc(1, (size_t)st.st_size + 1);
    if (*text == NULL) {
        err_sys(e, "reading the journal");
        goto out;
    }
    if (io_pread_all(fd, *text, (size_t)st.st_size, 0, e) != 0) {
        err_add(e, "%s", name);
        goto out;
    }
    *bytes = (size_t)st.st_size;
    rc = 0;

out:
    io_drop(&fd);
    return rc;
}

static int read_entry(const struct journal *j, const char *token, struct journal_entry *out,
                      struct err *e)
{
    char name[FILE_NAME_ROOM];
    char *text;
    size_t bytes;
    int rc = -1;

    entry_name(name, token, ENTRY_END);
    if (read_whole(j, name, JOURNAL_ENTRY_BYTES_MAX, &text, &bytes, e) != 0)
        err_add(e, "journal entry");
    else if (journal_entry_read(out, text, bytes, e) == 0)
        rc = strcmp(out->token, token) == 0
                 ? 0
                 : err_set(e, ERR_CORRUPT, "journal entry %s is another's", name);
    free(text);
    return rc;
}

static int write_entry(struct journal *j, const struct journal_entry *entry, enum publish_how how,
                       struct err *e)
{
    struct bytes text = { .ceiling = JOURNAL_ENTRY_BYTES_MAX - 1 };
    struct lock folder = LOCK_EMPTY;
    char name[FILE_NAME_ROOM];
    int rc = -1;

    entry_name(name, entry->token, ENTRY_END);
    if (lock_take(&folder, j->folder, FOLDER_LOCK, LOCK_SHARED, FOLDER_LOCK_MS, NULL, e) == 0 &&
        journal_entry_write(entry, &text, e) == 0)
        rc = publish_bytes(j->folder, name, text.data, text.count, 0600, how, e);
    lock_release(&folder);
    bytes_free(&text);
    if (rc == 0)
        rc = failpoint_of(POINTS_OF(entry), journal_state_name(entry->state), e);
    return rc == 0 ? 0 : err_add(e, "writing the journal");
}

/* Files with this end whose entry is gone; locks only when nobody holds them. */
static void sweep_end(struct journal *j, const char *end)
{
    char(*tokens)[JOURNAL_TOKEN_ROOM] = NULL;
    char name[FILE_NAME_ROOM];
    struct err ignored;
    size_t count;

    if (list_tokens(j, end, &tokens, &count, &ignored) != 0)
        return;
    for (size_t i = 0; i < count; i++) {
        entry_name(name, tokens[i], ENTRY_END);
        if (faccessat(j->folder, name, F_OK, 0) == 0 || errno != ENOENT)
            continue;
        entry_name(name, tokens[i], LOCK_END);
        if (lock_is_held(j->folder, name))
            continue;
        entry_name(name, tokens[i], end);
        unlinkat(j->folder, name, 0);
    }
    free(tokens);
}

/*
 * Remove what crashes left: temporaries, records and lock files without an entry.  Only when nobody
 * else is at work here just now; otherwise another time.
 */
static void sweep(struct journal *j)
{
    struct lock folder = LOCK_EMPTY;
    struct err ignored;

    if (lock_take(&folder, j->folder, FOLDER_LOCK, LOCK_EXCLUSIVE, 0, NULL, &ignored) != 0)
        return;
    publish_sweep(j->folder, &ignored);
    sweep_end(j, RECORD_END);
    sweep_end(j, LOCK_END);
    lock_release(&folder);
}

int journal_open(struct journal **out, int state_folder, const char *install_id, struct err *e)
{
    struct journal *j;
    bool made;

    if (!line_hex(install_id, JOURNAL_INSTALL_ROOM - 1))
        return err_set(e, ERR_CORRUPT, "the install id of the state directory is damaged");
    if (publish_directory(state_folder, "journal", 0700, &made, e) != 0)
        return err_add(e, "the journal's folder");
    j = calloc(1, sizeof *j);
    if (j == NULL)
        return err_sys(e, "opening the journal");
    memcpy(j->install_id, install_id, sizeof j->install_id);
    j->folder = openat(state_folder, "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (j->folder < 0) {
        err_sys(e, "opening the journal's folder");
        free(j);
        return -1;
    }
    sweep(j);
    *out = j;
    return 0;
}

void journal_close(struct journal *j)
{
    if (j == NULL)
        return;
    io_drop(&j->folder);
    free(j);
}

const char *journal_install_id(const struct journal *j)
{
    return j->install_id;
}

int journal_token(char out[JOURNAL_TOKEN_ROOM], struct err *e)
{
    unsigned char random[16];

    if (RAND_bytes(random, sizeof random) != 1)
        return err_set(e, ERR_SYSTEM, "no random bytes");
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(out + 2 * i, 3, "%02x", random[i]);
    return 0;
}

int journal_begin(struct journal *j, struct journal_entry *entry, int64_t now,
                  struct journal_ticket **out, struct err *e)
{
    struct journal_ticket *t = calloc(1, sizeof *t);
    struct lock folder = LOCK_EMPTY;
    char name[FILE_NAME_ROOM];
    int rc = -1;

    if (t == NULL)
        return err_sys(e, "writing the journal");
    t->journal = j;
    t->lock = LOCK_EMPTY;
    if (journal_token(entry->token, e) != 0)
        goto out;
    memcpy(entry->install_id, j->install_id, sizeof entry->install_id);
    entry->created = entry->changed = now;
    entry->state = JOURNAL_INTENT;
    t->entry = *entry;
    entry_name(name, entry->token, LOCK_END);
    /* The folder's lock keeps a sweep from taking the new lock file for a left one. */
    if (lock_take(&folder, j->folder, FOLDER_LOCK, LOCK_SHARED, FOLDER_LOCK_MS, NULL, e) != 0 ||
        lock_take(&t->lock, j->folder, name, LOCK_EXCLUSIVE, 0, NULL, e) != 0 ||
        write_entry(j, entry, PUBLISH_NEW, e) != 0)
        goto out;
    *out = t;
    t = NULL;
    rc = 0;

out:
    lock_release(&folder);
    if (t != NULL)
        journal_leave(t);
    return rc;
}

struct journal_entry *journal_entry_of(struct journal_ticket *t)
{
    return &t->entry;
}

int journal_write(struct journal_ticket *t, int64_t now, struct err *e)
{
    t->entry.changed = now;
    return write_entry(t->journal, &t->entry, PUBLISH_REPLACE, e);
}

int journal_step(struct journal_ticket *t, enum journal_state state, int64_t now, struct err *e)
{
    t->entry.state = state;
    return journal_write(t, now, e);
}

int journal_done(struct journal_ticket *t, struct err *e)
{
    char name[FILE_NAME_ROOM];
    int rc;

    /* A record without its entry says nothing; an entry without its record is taken back. */
    entry_name(name, t->entry.token, RECORD_END);
    unlinkat(t->journal->folder, name, 0);
    entry_name(name, t->entry.token, ENTRY_END);
    rc = publish_remove(t->journal->folder, name, e);
    if (rc == 0) {
        /* Tokens are never used again, so nobody can need this lock file any more. */
        entry_name(name, t->entry.token, LOCK_END);
        unlinkat(t->journal->folder, name, 0);
    }
    if (rc == 0)
        rc = failpoint_of(POINTS_OF(&t->entry), "gone", e);
    journal_leave(t);
    return rc == 0 ? 0 : err_add(e, "closing a journal entry");
}

int journal_record_write(struct journal_ticket *t, const void *data, size_t bytes, struct err *e)
{
    struct lock folder = LOCK_EMPTY;
    char name[FILE_NAME_ROOM];
    int rc = -1;

    entry_name(name, t->entry.token, RECORD_END);
    if (bytes >= JOURNAL_RECORD_BYTES_MAX)
        err_set(e, ERR_LIMIT, "a record of %zu bytes", bytes);
    else if (failpoint("journal.record", e) == 0 &&
             lock_take(&folder, t->journal->folder, FOLDER_LOCK, LOCK_SHARED, FOLDER_LOCK_MS, NULL,
                       e) == 0)
        rc = publish_bytes(t->journal->folder, name, data, bytes, 0600, PUBLISH_REPLACE, e);
    lock_release(&folder);
    if (rc == 0)
        rc = failpoint("journal.recorded", e);
    return rc == 0 ? 0 : err_add(e, "writing the journal");
}

int journal_record_read(struct journal *j, const char *token, char **text, size_t *bytes,
                        struct err *e)
{
    char name[FILE_NAME_ROOM];

    entry_name(name, token, RECORD_END);
    if (read_whole(j, name, JOURNAL_RECORD_BYTES_MAX, text, bytes, e) == 0)
        return 0;
    free(*text);
    *text = NULL;
    return -1;
}

void journal_leave(struct journal_ticket *t)
{
    if (t == NULL)
        return;
    lock_release(&t->lock);
    free(t);
}

int journal_take(struct journal *j, const char *token, struct journal_ticket **out, struct err *e)
{
    struct journal_ticket *t = calloc(1, sizeof *t);
    char name[FILE_NAME_ROOM];

    if (t == NULL)
        return err_sys(e, "reading the journal");
    t->journal = j;
    t->lock = LOCK_EMPTY;
    entry_name(name, token, LOCK_END);
    if (lock_take(&t->lock, j->folder, name, LOCK_EXCLUSIVE, 0, NULL, e) != 0 ||
        read_entry(j, token, &t->entry, e) != 0) {
        journal_leave(t);
        return -1;
    }
    *out = t;
    return 0;
}

int journal_list(struct journal *j, struct journal_list *out, struct err *e)
{
    char(*tokens)[JOURNAL_TOKEN_ROOM] = NULL;
    char name[FILE_NAME_ROOM];
    size_t count = 0;
    int rc = -1;

    *out = (struct journal_list){ 0 };
    if (list_tokens(j, ENTRY_END, &tokens, &count, e) != 0)
        return -1;
    out->items = calloc(count + 1, sizeof *out->items);
    out->locked = calloc(count + 1, sizeof *out->locked);
    out->bad = calloc(count + 1, sizeof *out->bad);
    if (out->items == NULL || out->locked == NULL || out->bad == NULL) {
        err_sys(e, "reading the journal");
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        struct err reason;

        entry_name(name, tokens[i], LOCK_END);
        if (read_entry(j, tokens[i], &out->items[out->count], &reason) == 0)
            out->locked[out->count++] = lock_is_held(j->folder, name);
        else if (reason.code != ERR_NOT_FOUND) /* closed since we looked */
            memcpy(out->bad[out->bad_count++], tokens[i], JOURNAL_TOKEN_ROOM);
    }
    rc = 0;

out:
    free(tokens);
    if (rc != 0)
        journal_list_free(out);
    return rc;
}

void journal_list_free(struct journal_list *l)
{
    free(l->items);
    free(l->locked);
    free(l->bad);
    *l = (struct journal_list){ 0 };
}
