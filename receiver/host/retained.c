#include "receiver/host/retained.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "receiver/host/chain.h"
#include "receiver/host/datastores.h"
#include "receiver/host/inventory.h"
#include "receiver/host/lines.h"

#define MAGIC "vmferry-retained 1\n"

enum { SUM_BYTES = 32, SUM_HEX_BYTES = 2 * SUM_BYTES + 1, CID_DIGITS = 8 };

void retained_free(struct retained *r)
{
    for (size_t i = 0; i < r->disk_count; i++) {
        struct retained_disk *d = &r->disks[i];

        for (size_t k = 0; k < d->link_count; k++) {
            free(d->links[k].descriptor_path);
            free(d->links[k].data_path);
        }
        free(d->links);
        free(d->leaf_path);
    }
    free(r->disks);
    *r = (struct retained){ 0 };
}

const struct retained_disk *retained_disk(const struct retained *r, const char *slot)
{
    for (size_t i = 0; i < r->disk_count; i++)
        if (strcmp(r->disks[i].slot, slot) == 0)
            return &r->disks[i];
    return NULL;
}

struct retained_disk *retained_add_disk(struct retained *r, struct err *e)
{
    struct retained_disk *more;

    if (r->disk_count == VM_DISKS_MAX) {
        err_set(e, ERR_LIMIT, "more than %d disks", VM_DISKS_MAX);
        return NULL;
    }
    more = reallocarray(r->disks, r->disk_count + 1, sizeof *more);
    if (more == NULL) {
        err_sys(e, "getting memory for a record");
        return NULL;
    }
    r->disks = more;
    more += r->disk_count++;
    *more = (struct retained_disk){ .link_count = 0 };
    return more;
}

struct chain_link *retained_add_link(struct retained_disk *d, struct err *e)
{
    struct chain_link *more;

    if (d->link_count == CHAIN_LINKS_MAX) {
        err_set(e, ERR_LIMIT, "more than %d links", CHAIN_LINKS_MAX);
        return NULL;
    }
    more = reallocarray(d->links, d->link_count + 1, sizeof *more);
    if (more == NULL) {
        err_sys(e, "getting memory for a record");
        return NULL;
    }
    d->links = more;
    more += d->link_count++;
    *more = (struct chain_link){ .cid = 0 };
    return more;
}

static int sum_of(const void *data, size_t bytes, char hex[SUM_HEX_BYTES], struct err *e)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned count = 0;

    if (EVP_Digest(data, bytes, sum, &count, EVP_sha256(), NULL) != 1 || count != SUM_BYTES)
        return err_set(e, ERR_SYSTEM, "no SHA-256");
    for (size_t i = 0; i < SUM_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    return 0;
}

/* ---- writing ---- */

static int put_number(struct bytes *out, const char *key, uint64_t number, struct err *e)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRIu64, number);
    return line_put(out, key, text, e);
}

/* Times are since 1970; one before that is none. */
static int put_time(struct bytes *out, const char *key, int64_t time, struct err *e)
{
    return put_number(out, key, time > 0 ? (uint64_t)time : 0, e);
}

static int put_disk(struct bytes *out, const struct retained_disk *d, struct err *e)
{
    char root[DIGEST_HEX_BYTES];

    digest_hex(&d->root, root);
    if (line_put(out, "disk", d->slot, e) != 0 || line_put(out, "disk_uuid", d->uuid, e) != 0 ||
        put_number(out, "capacity", d->capacity_bytes, e) != 0 ||
        line_put(out, "root", root, e) != 0 || line_put(out, "leaf", d->leaf_path, e) != 0)
        return -1;
    for (size_t i = 0; i < d->link_count; i++) {
        const struct chain_link *l = &d->links[i];
        char text[sizeof l->type + CID_DIGITS + 2];

        snprintf(text, sizeof text, "%08" PRIx32 " %s", l->cid, l->type);
        if (line_put(out, "link", text, e) != 0 ||
            line_put(out, "link_file", l->descriptor_path, e) != 0 ||
            line_put(out, "link_data", l->data_path, e) != 0)
            return -1;
    }
    return 0;
}

int retained_write(const struct retained *r, struct bytes *out, struct err *e)
{
    char sum[SUM_HEX_BYTES];

    if (bytes_append(out, MAGIC, sizeof MAGIC - 1, e) != 0 ||
        line_put(out, "token", r->token, e) != 0 ||
        line_put(out, "store_id", r->store_id, e) != 0 ||
        put_number(out, "generation", r->generation, e) != 0 ||
        line_put(out, "generation_id", r->generation_id, e) != 0 ||
        line_put(out, "host_uuid", r->host_uuid, e) != 0 ||
        put_time(out, "host_booted", r->booted, e) != 0 ||
        put_time(out, "host_uptime", r->uptime, e) != 0 ||
        line_put(out, "vm_uuid", r->vm_uuid, e) != 0 || line_put(out, "vmx", r->vmx, e) != 0 ||
        put_number(out, "vmid", r->vmid, e) != 0 ||
        put_number(out, "snapshot_id", r->snapshot_id, e) != 0 ||
        put_time(out, "created", r->created, e) != 0)
        return -1;
    for (size_t i = 0; i < r->disk_count; i++)
        if (put_disk(out, &r->disks[i], e) != 0)
            return -1;
    if (put_number(out, "end", r->disk_count, e) != 0 || sum_of(out->data, out->count, sum, e) != 0)
        return -1;
    return line_put(out, "sum", sum, e);
}

/* ---- reading ---- */

/* Walks over the lines in their one order. */
struct reader {
    char *next; /* the line to come, ended by a NUL; NULL when there is none */
    char *after;
    char *scratch; /* a value undone, as long as the text */
    size_t room;
    struct err *e;
};

static void reader_step(struct reader *r)
{
    char *newline;

    r->next = r->after;
    if (r->next == NULL)
        return;
    newline = strchr(r->next, '\n');
    if (newline == NULL) {
        r->next = NULL; /* a line without its end */
        return;
    }
    *newline = '\0';
    r->after = newline + 1;
}

static int damaged(struct reader *r, const char *key)
{
    return err_set(r->e, ERR_CORRUPT, "the record of a kept snapshot is damaged at %s", key);
}

/* The raw value of the next line if its key is this one, else NULL. */
static const char *value_of(const struct reader *r, const char *key)
{
    size_t bytes = strlen(key);

    if (r->next == NULL || strncmp(r->next, key, bytes) != 0 || r->next[bytes] != '=')
        return NULL;
    return r->next + bytes + 1;
}

static int get_text(struct reader *r, const char *key, char *out, size_t room)
{
    const char *value = value_of(r, key);

    if (value == NULL || !line_text(value, out, room))
        return damaged(r, key);
    reader_step(r);
    return 0;
}

static int get_number(struct reader *r, const char *key, uint64_t most, uint64_t *out)
{
    const char *value = value_of(r, key);

    if (value == NULL || !line_number(value, most, out))
        return damaged(r, key);
    reader_step(r);
    return 0;
}

static int get_time(struct reader *r, const char *key, int64_t *out)
{
    uint64_t number;

    if (get_number(r, key, INT64_MAX / 16, &number) != 0)
        return -1;
    *out = (int64_t)number;
    return 0;
}

/* An absolute path on the host. */
static int get_path(struct reader *r, const char *key, char **out)
{
    if (get_text(r, key, r->scratch, r->room) != 0)
        return -1;
    if (r->scratch[0] != '/' || strlen(r->scratch) >= DATASTORE_PATH_MAX)
        return damaged(r, key);
    *out = strdup(r->scratch);
    return *out != NULL ? 0 : err_sys(r->e, "reading a record");
}

static int get_link(struct reader *r, struct retained_disk *d)
{
    struct chain_link *l = retained_add_link(d, r->e);
    char text[64];
    uint64_t cid = 0;
    size_t bytes;

    if (l == NULL || get_text(r, "link", text, sizeof text) != 0)
        return -1;
    bytes = strlen(text);
    if (bytes < CID_DIGITS + 2 || strspn(text, "0123456789abcdef") != CID_DIGITS ||
        text[CID_DIGITS] != ' ' || bytes - CID_DIGITS - 1 >= sizeof l->type)
        return damaged(r, "link");
    for (size_t i = 0; i < CID_DIGITS; i++)
        cid = cid << 4 | (uint64_t)(text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
    l->cid = (uint32_t)cid;
    memcpy(l->type, text + CID_DIGITS + 1, bytes - CID_DIGITS);
    return get_path(r, "link_file", &l->descriptor_path) == 0 &&
                   get_path(r, "link_data", &l->data_path) == 0
               ? 0
               : -1;
}

static int get_disk(struct reader *r, struct retained *out)
{
    char slot[sizeof out->disks->slot], root[DIGEST_HEX_BYTES];
    struct retained_disk *d;

    if (get_text(r, "disk", slot, sizeof slot) != 0)
        return -1;
    if (slot[0] == '\0' || retained_disk(out, slot) != NULL)
        return damaged(r, "disk");
    d = retained_add_disk(out, r->e);
    if (d == NULL)
        return -1;
    memcpy(d->slot, slot, sizeof slot);
    if (get_text(r, "disk_uuid", d->uuid, sizeof d->uuid) != 0 ||
        get_number(r, "capacity", INT64_MAX, &d->capacity_bytes) != 0 ||
        get_text(r, "root", root, sizeof root) != 0)
        return -1;
    if (d->capacity_bytes == 0 || !digest_from_hex(&d->root, root))
        return damaged(r, "root");
    if (get_path(r, "leaf", &d->leaf_path) != 0)
        return -1;
    while (value_of(r, "link") != NULL)
        if (get_link(r, d) != 0)
            return -1;
    return d->link_count > 0 ? 0 : damaged(r, "link");
}

static int get_head(struct reader *r, struct retained *out)
{
    uint64_t id = 0, vmid = 0;

    if (get_text(r, "token", out->token, sizeof out->token) != 0 ||
        get_text(r, "store_id", out->store_id, sizeof out->store_id) != 0 ||
        get_number(r, "generation", INT64_MAX, &out->generation) != 0 ||
        get_text(r, "generation_id", out->generation_id, sizeof out->generation_id) != 0 ||
        get_text(r, "host_uuid", out->host_uuid, sizeof out->host_uuid) != 0 ||
        get_time(r, "host_booted", &out->booted) != 0 ||
        get_time(r, "host_uptime", &out->uptime) != 0 ||
        get_text(r, "vm_uuid", out->vm_uuid, sizeof out->vm_uuid) != 0 ||
        get_text(r, "vmx", out->vmx, sizeof out->vmx) != 0 ||
        get_number(r, "vmid", UINT32_MAX, &vmid) != 0 ||
        get_number(r, "snapshot_id", UINT32_MAX, &id) != 0 ||
        get_time(r, "created", &out->created) != 0)
        return -1;
    out->snapshot_id = (unsigned)id;
    out->vmid = (unsigned)vmid;
    if (!line_hex(out->token, JOURNAL_TOKEN_ROOM - 1))
        return damaged(r, "token");
    if (out->store_id[0] == '\0' || out->generation == 0 || out->generation_id[0] == '\0')
        return damaged(r, "store_id");
    return out->snapshot_id != 0 ? 0 : damaged(r, "snapshot_id");
}

/* The last line must be the sum of what stands before it. */
static int check_sum(const char *text, size_t bytes, struct err *e)
{
    char sum[SUM_HEX_BYTES], line[SUM_HEX_BYTES + sizeof "sum=\n"];
    size_t tail = sizeof "sum=\n" - 1 + SUM_HEX_BYTES - 1;

    if (bytes <= tail + sizeof MAGIC - 1 || memchr(text, '\0', bytes) != NULL ||
        strncmp(text, MAGIC, sizeof MAGIC - 1) != 0)
        return err_set(e, ERR_CORRUPT, "the record of a kept snapshot is no such record");
    if (sum_of(text, bytes - tail, sum, e) != 0)
        return -1;
    snprintf(line, sizeof line, "sum=%s\n", sum);
    return memcmp(text + bytes - tail, line, tail) == 0
               ? 0
               : err_set(e, ERR_CORRUPT, "the record of a kept snapshot is damaged");
}

static int read_lines(struct reader *r, struct retained *out)
{
    uint64_t count;

    reader_step(r);
    if (get_head(r, out) != 0)
        return -1;
    while (value_of(r, "disk") != NULL)
        if (get_disk(r, out) != 0)
            return -1;
    if (get_number(r, "end", VM_DISKS_MAX, &count) != 0)
        return -1;
    if (count != out->disk_count || count == 0 || value_of(r, "sum") == NULL || *r->after != '\0')
        return damaged(r, "end");
    return 0;
}

int retained_read(struct retained *out, const char *text, size_t bytes, struct err *e)
{
    struct reader r = { .room = bytes + 1, .e = e };
    char *copy = NULL;
    int rc = -1;

    *out = (struct retained){ 0 };
    if (bytes >= JOURNAL_RECORD_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "a record of %zu bytes", bytes);
    if (check_sum(text, bytes, e) != 0)
        return -1;
    copy = strndup(text, bytes);
    r.scratch = malloc(r.room);
    if (copy == NULL || r.scratch == NULL) {
        err_sys(e, "reading a record");
        goto out;
    }
    r.after = copy + sizeof MAGIC - 1;
    rc = read_lines(&r, out);

out:
    free(r.scratch);
    free(copy);
    if (rc != 0)
        retained_free(out);
    return rc;
}

/* ---- journal ---- */

int retained_publish(struct journal_ticket *ticket, const struct retained *r, struct err *e)
{
    struct bytes text = { .ceiling = JOURNAL_RECORD_BYTES_MAX - 1 };
    int rc = retained_write(r, &text, e);

    if (rc == 0)
        rc = journal_record_write(ticket, text.data, text.count, e);
    bytes_free(&text);
    return rc;
}

int retained_load(struct journal *j, const char *token, struct retained *out, struct err *e)
{
    size_t bytes;
    char *text;
    int rc;

    *out = (struct retained){ 0 };
    if (journal_record_read(j, token, &text, &bytes, e) != 0)
        return -1;
    rc = retained_read(out, text, bytes, e);
    free(text);
    if (rc != 0 || strcmp(out->token, token) == 0)
        return rc;
    retained_free(out);
    return err_set(e, ERR_CORRUPT, "the record of a kept snapshot is another's");
}
