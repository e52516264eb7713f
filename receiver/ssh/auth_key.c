/* What a private key file is, as far as it shows without its passphrase. */
#include "receiver/ssh/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/cursor.h"
#include "protocol/base/io.h"
#include "receiver/ssh/known_hosts.h"

enum { KEY_FILE_MAX = 64 << 10 };

static uint32_t big_u32(struct pull *p)
{
    uint32_t v = pull_u32(p);

    return v >> 24 | (v >> 8 & 0xff00) | (v << 8 & 0xff0000) | v << 24;
}

static void keep_blob(struct key_file *k, const uint8_t *blob, size_t count)
{
    char type[40];

    if (k->blob != NULL || count == 0 || count > KNOWN_HOSTS_KEY_MAX)
        return;
    known_hosts_blob_type(blob, count, type, sizeof type);
    k->blob = type[0] != 0 ? malloc(count) : NULL;
    if (k->blob == NULL)
        return;
    memcpy(k->blob, blob, count);
    k->blob_bytes = count;
    k->rsa = strcmp(type, "ssh-rsa") == 0;
}

/* Blanks and line ends left out.  The number of bytes in out; decoding stops at the first odd byte.
 */
static size_t decode(const char *text, uint8_t *out, size_t room)
{
    unsigned char four[4];
    size_t have = 0;
    size_t count = 0;

    for (; *text != 0 && *text != '-' && count + 3 <= room; text++) {
        if (*text == '\n' || *text == '\r')
            continue;
        four[have++] = (unsigned char)*text;
        if (have < sizeof four)
            continue;
        if (EVP_DecodeBlock(out + count, four, sizeof four) != 3)
            break;
        count += 3;
        have = 0;
    }
    return count;
}

/* PROTOCOL.key of OpenSSH: magic, cipher, kdf, its options, number of keys, public key. */
static void parse_openssh(struct key_file *k, const char *body)
{
    static const char magic[] = "openssh-key-v1";
    uint8_t head[4096];
    struct pull p = { .at = head, .left = decode(body, head, sizeof head) };
    const uint8_t *start = pull_bytes(&p, sizeof magic);
    uint32_t count;
    const uint8_t *text;

    if (start == NULL || memcmp(start, magic, sizeof magic) != 0)
        return;
    count = big_u32(&p);
    text = pull_bytes(&p, count);
    if (text == NULL)
        return;
    k->encrypted = count != 4 || memcmp(text, "none", 4) != 0;
    pull_bytes(&p, big_u32(&p)); /* kdf */
    pull_bytes(&p, big_u32(&p)); /* its options */
    big_u32(&p);
    count = big_u32(&p);
    text = pull_bytes(&p, count);
    if (text != NULL)
        keep_blob(k, text, count);
}

/* KEYFILE.pub: type, key, comment. */
static void read_public(struct key_file *k)
{
    char path[4096 + 8];
    char line[KNOWN_HOSTS_LINE_MAX];
    uint8_t blob[KNOWN_HOSTS_LINE_MAX];
    char *at;
    char *end;
    size_t count;
    size_t padding = 0;
    FILE *f;

    if (k->blob != NULL || snprintf(path, sizeof path, "%s.pub", k->path) >= (int)sizeof path)
        return;
    f = fopen(path, "re");
    if (f == NULL)
        return;
    at = fgets(line, sizeof line, f);
    fclose(f);
    at = at != NULL ? strchr(line, ' ') : NULL;
    if (at == NULL)
        return;
    at++;
    end = at + strcspn(at, " \r\n");
    *end = 0;
    while (padding < 2 && end - padding > at && end[-1 - (long)padding] == '=')
        padding++;
    count = decode(at, blob, sizeof blob);
    if (count > padding)
        keep_blob(k, blob, count - padding);
}

static void parse_text(struct key_file *k, const char *text)
{
    const char *openssh = strstr(text, "-----BEGIN OPENSSH PRIVATE KEY-----");

    if (openssh != NULL)
        parse_openssh(k, strchr(openssh, '\n') != NULL ? strchr(openssh, '\n') : "");
    else
        k->encrypted = strstr(text, "ENCRYPTED") != NULL;
    if (strstr(text, "-----BEGIN RSA PRIVATE KEY-----") != NULL)
        k->rsa = true;
}

int key_file_read(struct key_file *k, const char *path, struct err *e)
{
    char *text = NULL;
    struct stat s;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = -1;

    *k = (struct key_file){ .path = path };
    if (fd < 0)
        return err_sys(e, "key file %s", path);
    if (fstat(fd, &s) != 0) {
        err_sys(e, "key file %s", path);
        goto out;
    }
    if (!S_ISREG(s.st_mode) || s.st_size <= 0 || s.st_size > KEY_FILE_MAX) {
        err_set(e, ERR_USAGE, "key file %s: that is no private key", path);
        goto out;
    }
    if ((s.st_mode & 077) != 0) {
        err_set(e, ERR_AUTH, "key file %s: others may read it (mode %04o): chmod 600 it", path,
                (unsigned)s.st_mode & 07777);
        goto out;
    }
    text = calloc(1, (size_t)s.st_size + 1);
    if (text == NULL) {
        err_sys(e, "getting memory for a key");
        goto out;
    }
    if (io_read_all(fd, text, (size_t)s.st_size, e) != 0) {
        err_add(e, "key file %s", path);
        goto out;
    }
    if (strstr(text, "PRIVATE KEY-----") == NULL) {
        err_set(e, ERR_USAGE, "key file %s: that is no private key", path);
        goto out;
    }
    parse_text(k, text);
    read_public(k);
    rc = 0;
out:
    if (text != NULL)
        explicit_bzero(text, (size_t)s.st_size);
    free(text);
    io_drop(&fd);
    return rc;
}

void key_file_free(struct key_file *k)
{
    free(k->blob);
    k->blob = NULL;
}
