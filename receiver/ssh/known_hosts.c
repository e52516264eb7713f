#include "receiver/ssh/known_hosts.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"

enum { SHA1_BYTES = 20, KEY_TEXT_MAX = (KNOWN_HOSTS_KEY_MAX + 2) / 3 * 4 };

/* A piece of a line. */
struct word {
    const char *text;
    size_t count;
};

static bool word_is(struct word w, const char *text)
{
    return strlen(text) == w.count && memcmp(w.text, text, w.count) == 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next word of the line, which moves behind it; count 0 at its end. */
static struct word next_word(struct word *line)
{
    struct word w;

    while (line->count > 0 && is_blank(*line->text)) {
        line->text++;
        line->count--;
    }
    w = (struct word){ line->text, 0 };
    while (w.count < line->count && !is_blank(w.text[w.count]))
        w.count++;
    line->text += w.count;
    line->count -= w.count;
    return w;
}

/* Strict base64 with padding.  The number of bytes, or -1. */
static long decode_base64(struct word w, uint8_t *out, size_t room)
{
    size_t padding = 0;
    int n;

    if (w.count == 0 || w.count % 4 != 0 || w.count / 4 * 3 > room)
        return -1;
    for (size_t i = 0; i < w.count; i++)
        if (!isalnum((unsigned char)w.text[i]) && w.text[i] != '+' && w.text[i] != '/' &&
            w.text[i] != '=')
            return -1;
    while (padding < w.count && w.text[w.count - 1 - padding] == '=')
        padding++;
    if (padding > 2 || memchr(w.text, '=', w.count - padding) != NULL)
        return -1;
    n = EVP_DecodeBlock(out, (const unsigned char *)w.text, (int)w.count);
    return n < 0 ? -1 : n - (long)padding;
}

/* Shell-like match of * and ?, without recursion: one place to come back to is enough. */
static bool glob(struct word pattern, const char *name)
{
    size_t p = 0;
    size_t star = SIZE_MAX;
    const char *back = NULL;

    while (*name != 0) {
        if (p < pattern.count && pattern.text[p] == '*') {
            star = p++;
            back = name;
        } else if (p < pattern.count &&
                   (pattern.text[p] == '?' || tolower((unsigned char)pattern.text[p]) == *name)) {
            p++;
            name++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            name = ++back;
        } else {
            return false;
        }
    }
    while (p < pattern.count && pattern.text[p] == '*')
        p++;
    return p == pattern.count;
}

/* 1: the hashed name is ours, 0: another, -1: no such form. */
static int match_hashed(struct word w, const char *name)
{
    static const char magic[] = "|1|";
    uint8_t salt[SHA1_BYTES + 4];
    uint8_t hash[SHA1_BYTES + 4];
    uint8_t ours[EVP_MAX_MD_SIZE];
    unsigned int ours_bytes = 0;
    const char *bar;

    if (w.count < sizeof magic || memcmp(w.text, magic, sizeof magic - 1) != 0)
        return -1;
    w.text += sizeof magic - 1;
    w.count -= sizeof magic - 1;
    bar = memchr(w.text, '|', w.count);
    if (bar == NULL ||
        decode_base64((struct word){ w.text, (size_t)(bar - w.text) }, salt, sizeof salt) !=
            SHA1_BYTES ||
        decode_base64((struct word){ bar + 1, w.count - (size_t)(bar + 1 - w.text) }, hash,
                      sizeof hash) != SHA1_BYTES)
        return -1;
    if (HMAC(EVP_sha1(), salt, SHA1_BYTES, (const unsigned char *)name, strlen(name), ours,
             &ours_bytes) == NULL)
        return -1;
    return ours_bytes == SHA1_BYTES && memcmp(ours, hash, SHA1_BYTES) == 0;
}

/* The same for a list of patterns: a matching negation wins over everything. */
static int match_names(struct word w, const char *name)
{
    bool found = false;

    if (w.count > 0 && w.text[0] == '|')
        return match_hashed(w, name);
    while (w.count > 0) {
        const char *comma = memchr(w.text, ',', w.count);
        struct word one = { w.text, comma != NULL ? (size_t)(comma - w.text) : w.count };
        size_t used = one.count + (comma != NULL);
        bool negated = one.count > 0 && one.text[0] == '!';

        if (negated) {
            one.text++;
            one.count--;
        }
        if (one.count > 0 && glob(one, name)) {
            if (negated)
                return 0;
            found = true;
        }
        w.text += used;
        w.count -= used;
    }
    return found;
}

void known_hosts_blob_type(const uint8_t *blob, size_t blob_bytes, char *out, size_t room)
{
    struct pull p = { .at = blob, .left = blob_bytes };
    const uint8_t *big_endian = pull_bytes(&p, 4);
    const uint8_t *text;
    size_t count;

    out[0] = 0;
    if (big_endian == NULL)
        return;
    count = (size_t)big_endian[0] << 24 | (size_t)big_endian[1] << 16 | (size_t)big_endian[2] << 8 |
            big_endian[3];
    text = count < room ? pull_bytes(&p, count) : NULL;
    if (text == NULL)
        return;
    for (size_t i = 0; i < count; i++)
        if (text[i] <= ' ' || text[i] >= 127)
            return;
    memcpy(out, text, count);
    out[count] = 0;
}

/* type: what the line says; it must be what the key says itself. */
static int add_key(struct known_host *h, struct known_key key, struct word type, struct word text,
                   struct err *e)
{
    uint8_t blob[KNOWN_HOSTS_KEY_MAX + 4];
    long n = decode_base64(text, blob, sizeof blob);

    if (n > 0)
        known_hosts_blob_type(blob, (size_t)n, key.type, sizeof key.type);
    if (n <= 0 || !word_is(type, key.type)) {
        h->bad_lines++;
        return 0;
    }
    if (h->count == KNOWN_HOSTS_KEYS_MAX)
        return err_set(e, ERR_LIMIT, "line %zu: more than %d keys for %s", key.line,
                       KNOWN_HOSTS_KEYS_MAX, h->name);
    key.blob = malloc((size_t)n);
    if (key.blob == NULL)
        return err_sys(e, "getting memory for a key");
    memcpy(key.blob, blob, (size_t)n);
    key.blob_bytes = (size_t)n;
    h->keys[h->count++] = key;
    return 0;
}

static int parse_line(struct known_host *h, const char *file, size_t number, struct word line,
                      struct err *e)
{
    struct known_key key = { .file = file, .line = number };
    struct word names = next_word(&line);
    struct word type;
    struct word text;
    bool authority = false;
    int matched;

    if (names.count == 0 || names.text[0] == '#')
        return 0;
    if (names.text[0] == '@') {
        key.revoked = word_is(names, "@revoked");
        authority = word_is(names, "@cert-authority");
        if (!key.revoked && !authority) {
            h->bad_lines++;
            return 0;
        }
        names = next_word(&line);
    }
    type = next_word(&line);
    text = next_word(&line);
    matched = match_names(names, h->name);
    if (matched < 0 || type.count == 0 || type.count >= sizeof key.type || text.count == 0 ||
        text.count > KEY_TEXT_MAX) {
        h->bad_lines++;
        return 0;
    }
    /* An authority signs keys; it is never a host's key itself. */
    if (matched == 0 || authority)
        return 0;
    return add_key(h, key, type, text, e);
}

int known_host_parse(struct known_host *h, const char *file, const char *text, size_t count,
                     struct err *e)
{
    size_t number = 0;

    while (count > 0) {
        const char *end = memchr(text, '\n', count);
        struct word line = { text, end != NULL ? (size_t)(end - text) : count };
        size_t used = line.count + (end != NULL);

        number++;
        if (line.count > KNOWN_HOSTS_LINE_MAX || memchr(line.text, 0, line.count) != NULL)
            h->bad_lines++;
        else if (parse_line(h, file, number, line, e) != 0)
            return err_add(e, "%s", file);
        text += used;
        count -= used;
    }
    return 0;
}

int known_host_init(struct known_host *h, const char *host, uint16_t port, struct err *e)
{
    size_t count = strlen(host);

    memset(h, 0, sizeof *h);
    if (count == 0 || count > KNOWN_HOSTS_NAME_MAX - 16)
        return err_set(e, ERR_USAGE, "the name of the host is empty or too long");
    for (size_t i = 0; i < count; i++)
        if ((unsigned char)host[i] <= ' ' || host[i] == 127 || host[i] == ',' || host[i] == '*' ||
            host[i] == '?' || host[i] == '!' || host[i] == '|' || host[i] == '@' || host[i] == '#')
            return err_set(e, ERR_USAGE, "the name of a host cannot hold that character");
    if (port == 22)
        snprintf(h->name, sizeof h->name, "%s", host);
    else
        snprintf(h->name, sizeof h->name, "[%s]:%u", host, port);
    for (char *c = h->name; *c != 0; c++)
        *c = (char)tolower((unsigned char)*c);
    return 0;
}

void known_host_free(struct known_host *h)
{
    for (size_t i = 0; i < h->count; i++)
        free(h->keys[i].blob);
    h->count = 0;
}

/* The whole file; one that is not there is empty. */
static int read_file(const char *file, struct bytes *out, struct err *e)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = -1;

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (fd < 0)
        return err_sys(e, "opening %s", file);
    for (;;) {
        /* The ceiling is one byte above what is allowed, so that too much shows. */
        size_t step = out->ceiling - out->count < 65536 ? out->ceiling - out->count : 65536;
        uint8_t *to = bytes_reserve(out, step, e);
        ssize_t n;

        if (to == NULL)
            goto out;
        n = read(fd, to, step);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_sys(e, "reading %s", file);
            goto out;
        }
        if (n == 0)
            break;
        out->count += (size_t)n;
        if (out->count > KNOWN_HOSTS_FILE_MAX) {
            err_set(e, ERR_LIMIT, "%s: more than %d bytes", file, KNOWN_HOSTS_FILE_MAX);
            goto out;
        }
    }
    rc = 0;
out:
    io_drop(&fd);
    return rc;
}

int known_host_read(struct known_host *h, const char *file, struct err *e)
{
    struct bytes text = { .ceiling = KNOWN_HOSTS_FILE_MAX + 1 };
    int rc = read_file(file, &text, e);

    if (rc == 0 && text.count > 0)
        rc = known_host_parse(h, file, (const char *)text.data, text.count, e);
    bytes_free(&text);
    return rc;
}

enum known_verdict known_host_check(const struct known_host *h, const uint8_t *blob,
                                    size_t blob_bytes, const struct known_key **which)
{
    const struct known_key *match = NULL;
    const struct known_key *other = NULL;
    const struct known_key *revoked = NULL;

    for (size_t i = 0; i < h->count; i++) {
        const struct known_key *k = &h->keys[i];
        bool same = k->blob_bytes == blob_bytes && memcmp(k->blob, blob, blob_bytes) == 0;

        if (same && k->revoked)
            revoked = k;
        else if (same)
            match = k;
        else if (!k->revoked)
            other = k;
    }
    if (which != NULL)
        *which = revoked != NULL ? revoked : match != NULL ? match : other;
    if (revoked != NULL)
        return KNOWN_HOST_REVOKED;
    if (match != NULL)
        return KNOWN_HOST_MATCH;
    return other != NULL ? KNOWN_HOST_CHANGED : KNOWN_HOST_UNKNOWN;
}

int known_hosts_fingerprint(const uint8_t *blob, size_t blob_bytes, char *out, size_t room,
                            struct err *e)
{
    uint8_t hash[SHA256_DIGEST_LENGTH];
    unsigned char text[(SHA256_DIGEST_LENGTH + 2) / 3 * 4 + 1];
    size_t count;

    if (EVP_Digest(blob, blob_bytes, hash, NULL, EVP_sha256(), NULL) != 1)
        return err_set(e, ERR_SYSTEM, "hashing a key");
    EVP_EncodeBlock(text, hash, sizeof hash);
    count = strlen((char *)text);
    while (count > 0 && text[count - 1] == '=')
        text[--count] = 0;
    snprintf(out, room, "SHA256:%s", (char *)text);
    return 0;
}

/* The folder of a path, opened; "." where it names none. */
static int open_folder(const char *file, struct err *e)
{
    const char *slash = strrchr(file, '/');
    char folder[4096];
    size_t count = slash == NULL ? 0 : slash == file ? 1 : (size_t)(slash - file);
    int fd;

    if (count >= sizeof folder)
        return err_set(e, ERR_LIMIT, "%s: the name is too long", file);
    memcpy(folder, file, count);
    folder[count] = 0;
    fd = open(count > 0 ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 ? fd : err_sys(e, "opening the folder of %s", file);
}

/* Write text to file by way of a new file beside it.  The folder is locked by the caller. */
static int replace_file(int folder, const char *file, const struct bytes *text, struct err *e)
{
    const char *slash = strrchr(file, '/');
    const char *name = slash != NULL ? slash + 1 : file;
    char part[300];
    bool made = false;
    int fd = -1;
    int rc = -1;

    if (snprintf(part, sizeof part, "%s.new", name) >= (int)sizeof part)
        return err_set(e, ERR_LIMIT, "the name is too long");
    /* Under the lock such a file can only be left from a crash. */
    unlinkat(folder, part, 0);
    fd = openat(folder, part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, "creating it");
    made = true;
    if (io_write_all(fd, text->data, text->count, e) != 0 || io_sync(fd, e) != 0 ||
        io_close(&fd, e) != 0)
        goto out;
    if (renameat(folder, part, folder, name) != 0) {
        err_sys(e, "renaming it");
        goto out;
    }
    made = false;
    rc = io_sync(folder, e);
out:
    io_drop(&fd);
    if (made)
        unlinkat(folder, part, 0);
    return rc;
}

static int append_line(struct bytes *text, const struct known_host *h, const uint8_t *blob,
                       size_t blob_bytes, struct err *e)
{
    unsigned char *key;
    char type[40];
    char start[KNOWN_HOSTS_NAME_MAX + 64];
    int count;
    int rc = -1;

    known_hosts_blob_type(blob, blob_bytes, type, sizeof type);
    if (type[0] == 0 || blob_bytes > KNOWN_HOSTS_KEY_MAX)
        return err_set(e, ERR_PEER, "that is no key");
    key = malloc(blob_bytes / 3 * 4 + 8);
    if (key == NULL)
        return err_sys(e, "getting memory for a key");
    count = EVP_EncodeBlock(key, blob, (int)blob_bytes);
    snprintf(start, sizeof start, "%s%s %s ",
             text->count > 0 && text->data[text->count - 1] != '\n' ? "\n" : "", h->name, type);
    if (bytes_append(text, start, strlen(start), e) == 0 &&
        bytes_append(text, key, (size_t)count, e) == 0 && bytes_append(text, "\n", 1, e) == 0)
        rc = 0;
    free(key);
    return rc;
}

int known_hosts_add(const char *file, const struct known_host *h, const uint8_t *blob,
                    size_t blob_bytes, struct err *e)
{
    struct bytes text = { .ceiling = KNOWN_HOSTS_FILE_MAX + 1 };
    int folder = open_folder(file, e);
    int rc = -1;

    if (folder < 0)
        return -1;
    while (flock(folder, LOCK_EX) != 0)
        if (errno != EINTR) {
            err_sys(e, "locking the folder of %s", file);
            goto out;
        }
    if (read_file(file, &text, e) != 0 || append_line(&text, h, blob, blob_bytes, e) != 0)
        goto out;
    rc = replace_file(folder, file, &text, e);
out:
    bytes_free(&text);
    io_drop(&folder);
    return rc == 0 ? 0 : err_add(e, "%s", file);
}
