/*
 * What known_hosts files say about one host.
 * Format: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT": plain and hashed names (|1|salt|hmac),
 * [host]:port, lists, wildcards, negation, @revoked.  @cert-authority lines are recognised and
 * never taken for keys. A line that cannot be read is skipped and counted: it must not hide the
 * others.
 */
#ifndef RECEIVER_SSH_KNOWN_HOSTS_H
#define RECEIVER_SSH_KNOWN_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum {
    KNOWN_HOSTS_FILE_MAX = 8 << 20,
    KNOWN_HOSTS_LINE_MAX = 16 << 10, /* a longer line is a bad line */
    KNOWN_HOSTS_KEY_MAX = 8 << 10,   /* bytes of one key */
    KNOWN_HOSTS_KEYS_MAX = 64,       /* keys of one host; more is ERR_LIMIT */
    KNOWN_HOSTS_NAME_MAX = 1024,
    FINGERPRINT_TEXT_MAX = 64
};

struct known_key {
    bool revoked;
    char type[40]; /* "ecdsa-sha2-nistp256", … */
    uint8_t *blob; /* the key as it goes over the wire */
    size_t blob_bytes;
    const char *file; /* borrowed from the caller of known_host_read */
    size_t line;      /* from 1 */
};

/* All keys of one host.  Empty value: { 0 }; release with known_host_free. */
struct known_host {
    char name[KNOWN_HOSTS_NAME_MAX]; /* as a file writes it: lower case, [host]:port unless port 22
                                      */
    struct known_key keys[KNOWN_HOSTS_KEYS_MAX];
    size_t count;
    size_t bad_lines;
};

enum known_verdict {
    KNOWN_HOST_UNKNOWN, /* no key of this host */
    KNOWN_HOST_MATCH,
    KNOWN_HOST_CHANGED, /* the host has other keys, of the same type or of others */
    KNOWN_HOST_REVOKED
};

/* Start with a host.  ERR_USAGE when the name is empty, too long or holds blanks or control bytes.
 */
int known_host_init(struct known_host *h, const char *host, uint16_t port, struct err *e);
void known_host_free(struct known_host *h);

/*
 * Add the keys that file holds for the host.  A file that is not there is empty.
 * 0, or -1: ERR_LIMIT (size, number of keys), ERR_SYSTEM.
 */
int known_host_read(struct known_host *h, const char *file, struct err *e);

/* The same from memory; file is only for messages. */
int known_host_parse(struct known_host *h, const char *file, const char *text, size_t count,
                     struct err *e);

/* which (may be NULL) gets the key that decided: the match, the revoked one, or one of the others.
 */
enum known_verdict known_host_check(const struct known_host *h, const uint8_t *blob,
                                    size_t blob_bytes, const struct known_key **which);

/* The type at the start of a key, or "" when it is none. */
void known_hosts_blob_type(const uint8_t *blob, size_t blob_bytes, char *out, size_t room);

/* "SHA256:…", as OpenSSH prints it.  room >= FINGERPRINT_TEXT_MAX. */
int known_hosts_fingerprint(const uint8_t *blob, size_t blob_bytes, char *out, size_t room,
                            struct err *e);

/*
 * Add a key of host to file, which is made with mode 0600 if need be; the folder must be there.
 * The file is replaced as a whole and synced; two of us at once do not lose lines.
 */
int known_hosts_add(const char *file, const struct known_host *h, const uint8_t *blob,
                    size_t blob_bytes, struct err *e);

#endif
