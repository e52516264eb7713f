/* vmferry init --repo REPO */
#include <stdlib.h>

#include "protocol/base/err.h"
#include "receiver/base/json.h"
#include "receiver/base/log.h"
#include "receiver/base/sizes.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/repository.h"
#include "receiver/storage/storage.h"

static void put_summary(void *context, struct json *j)
{
    const struct repo_facts *facts = context;
    char hex[REPO_KEY_HEX_BYTES];

    repo_key_hex(&facts->key, hex);
    json_text(j, "repository", hex);
    json_bool(j, "encrypted", facts->encrypted);
    json_bool(j, "append_only", facts->append_only);
    json_number(j, "block_size", facts->block_bytes);
}

static void free_summary(void *context)
{
    free(context);
}

static void tell(const struct app *app, const struct repo_facts *facts)
{
    char place[1024], size[SIZE_TEXT_BYTES];

    utf8_show(place, sizeof place, app->options->repo);
    if (!app->options->json)
        printf("%s: a new repository, blocks of %s, %s%s\n", place,
               size_text(size, facts->block_bytes),
               facts->encrypted ? "encrypted" : "not encrypted",
               facts->append_only ? ", append-only" : "");
    if (facts->encrypted)
        log_note("without the passphrase nothing can be read, by nobody: `vmferry key export FILE "
                 "--repo %s` writes a key file to keep elsewhere",
                 place);
}

int cmd_init(struct app *app, struct err *e)
{
    const struct options *o = app->options;
    struct repo_create_options create = {
        .block_bytes = o->block_bytes,
        .append_only = o->append_only,
        .encrypt = o->encrypt,
    };
    struct repo_facts *facts = calloc(1, sizeof *facts);
    struct secret passphrase = { 0 };
    struct storage *s = NULL;
    int rc = -1;

    if (facts == NULL)
        return err_sys(e, "getting memory");
    app->summary_end = free_summary;
    app->summary_context = facts;
    if (!o->encrypt && (o->repo_password_file != NULL || o->repo_password_command != NULL)) {
        err_set(e, ERR_USAGE, "a passphrase is for --encrypt, which is not given");
        goto out;
    }
    if (o->encrypt) {
        if (repository_passphrase(&passphrase, app, true, e) != 0)
            goto out;
        create.passphrase = &passphrase;
    }
    if (repository_make_storage(&s, app, e) != 0 || repo_create(s, &create, e) != 0 ||
        repo_identify(s, facts, e) != 0)
        goto out;
    app->summary = put_summary;
    tell(app, facts);
    rc = 0;

out:
    secret_free(&passphrase);
    storage_close(s);
    return rc;
}
