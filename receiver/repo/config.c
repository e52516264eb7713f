#include "receiver/repo/config.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>

#include "protocol/base/err.h"
#include "receiver/repo/document.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/vault.h"
#include "receiver/storage/storage.h"

static const char NAME[] = "config";

/* None are defined yet. */
#define FEATURES_READ_KNOWN ((uint64_t)0)
#define FEATURES_WRITE_KNOWN ((uint64_t)0)

void config_fields(struct fields *f, struct config *c)
{
    uint32_t format = CONFIG_FORMAT;

    field_u32(f, &format, 0, UINT32_MAX);
    if (!f->failed && format != CONFIG_FORMAT) {
        err_set(f->e, ERR_UNSUPPORTED,
                "the repository has format %" PRIu32 ", this program knows format %d", format,
                CONFIG_FORMAT);
        f->failed = true;
    }
    field_u64(f, &c->features_read, 0, UINT64_MAX);
    field_u64(f, &c->features_write, 0, UINT64_MAX);
    field_u32(f, &c->block_bytes, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
    field_u8(f, &c->ids, 1, 2);
    field_u8(f, &c->sealing, 0, 1);
    field_u8(f, &c->append_only, 0, 1);
    field_u64(f, &c->made, 0, INT64_MAX);
    field_text(f, &c->program);
    if (!f->failed && (!block_size_valid(c->block_bytes) || (c->ids == 2) != (c->sealing == 1)))
        field_fault(f, "its values do not fit together");
}

static int check_features(const struct config *c, bool read_only, struct err *e)
{
    if ((c->features_read & ~FEATURES_READ_KNOWN) != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "this repository needs a newer program to read it (features %" PRIx64 ")",
                       c->features_read);
    if (!read_only && (c->features_write & ~FEATURES_WRITE_KNOWN) != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "this repository needs a newer program to write to it (features %" PRIx64
                       ")",
                       c->features_write);
    return 0;
}

static int decode(struct config *c, const struct bytes *whole, struct err *e)
{
    struct bytes body = { 0 };
    struct vault *none = NULL;
    struct fields f;
    int rc = -1;

    if (document_repository(whole->data, whole->count, &c->repository, e) != 0 ||
        vault_new(&none, &c->repository, e) != 0 ||
        document_decode(none, DOCUMENT_CONFIG, NAME, whole->data, whole->count, &body, e) != 0)
        goto out;
    fields_read(&f, body.data, body.count, e);
    config_fields(&f, c);
    rc = fields_done(&f);
    crypto_hash_sha256(c->hash, whole->data, whole->count);

out:
    vault_free(none);
    bytes_free(&body);
    return rc == 0 ? 0 : err_add(e, "object %s", NAME);
}

int config_load(struct config *c, struct storage *s, bool read_only, struct err *e)
{
    struct bytes whole = { 0 };
    int rc;

    *c = (struct config){ 0 };
    rc = storage_load(s, NAME, &whole, document_body_max(DOCUMENT_CONFIG) + DOCUMENT_EXTRA_MAX, e);
    if (rc != 0 && e->code == ERR_NOT_FOUND)
        err_set(e, ERR_NOT_FOUND,
                "there is no repository at %s: is it mounted? `vmferry init` makes a new one",
                s->label);
    if (rc == 0)
        rc = decode(c, &whole, e);
    if (rc == 0)
        rc = check_features(c, read_only, e);
    bytes_free(&whole);
    if (rc != 0)
        config_free(c);
    return rc;
}

int config_save(struct config *c, struct storage *s, const struct vault *v, bool publish,
                struct err *e)
{
    struct bytes body = { .ceiling = document_body_max(DOCUMENT_CONFIG) }, whole = { 0 };
    struct fields f;
    int rc;

    fields_write(&f, &body, e);
    config_fields(&f, c);
    rc = fields_done(&f);
    if (rc == 0)
        rc = document_encode(v, DOCUMENT_CONFIG, NAME, body.data, body.count, &whole, e);
    if (rc == 0)
        crypto_hash_sha256(c->hash, whole.data, whole.count);
    if (rc == 0 && publish)
        rc = storage_put(s, NAME, whole.data, whole.count, e);
    bytes_free(&whole);
    bytes_free(&body);
    return rc;
}

void config_free(struct config *c)
{
    free(c->program);
    c->program = NULL;
}
