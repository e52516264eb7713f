#include "receiver/cli/repository.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/base/state.h"
#include "receiver/cli/app.h"
#include "receiver/cli/events.h"
#include "receiver/cli/options.h"
#include "receiver/repo/repo_care.h"
#include "receiver/storage/storage.h"
#include "receiver/storage/storage_directory.h"

enum { COMMAND_SECONDS = 60 };

static int check_place(const char *place, struct err *e)
{
    if (strncmp(place, "s3://", 5) == 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: repositories in S3 are not supported yet; --repo takes a directory",
                       place);
    return 0;
}

int repository_make_storage(struct storage **out, struct app *app, struct err *e)
{
    const char *place = app->options->repo;

    return check_place(place, e) != 0 ? -1 : storage_directory_create(out, place, e);
}

/* --- passphrases --- */

static int ask(struct secret *out, const char *what, bool twice, struct err *e)
{
    struct secret again = { 0 };
    char prompt[400];
    int rc;

    snprintf(prompt, sizeof prompt, "%s: ", what);
    if (secret_from_terminal(out, prompt, false, e) != 0)
        return -1;
    if (!twice)
        return 0;
    snprintf(prompt, sizeof prompt, "%s, once more: ", what);
    rc = secret_from_terminal(&again, prompt, false, e);
    if (rc == 0 && (again.count != out->count || memcmp(again.text, out->text, out->count) != 0))
        rc = err_set(e, ERR_USAGE, "the two are not the same; nothing was done");
    secret_free(&again);
    return rc;
}

int repository_passphrase(struct secret *out, struct app *app, bool twice, struct err *e)
{
    const struct options *o = app->options;
    char what[300];

    if (o->repo_password_file != NULL)
        return secret_from_file(out, o->repo_password_file, e) == 0
                   ? 0
                   : err_add(e, "--repo-password-file");
    if (o->repo_password_command != NULL)
        return secret_from_command(out, o->repo_password_command, COMMAND_SECONDS, e) == 0
                   ? 0
                   : err_add(e, "--repo-password-command");
    if (!secret_can_ask())
        return err_set(e, ERR_USAGE,
                       "the repository at %s wants its passphrase: give --repo-password-file, "
                       "--repo-password-command or --key-file",
                       o->repo);
    snprintf(what, sizeof what, "Passphrase of the repository %.200s", o->repo);
    return ask(out, what, twice, e);
}

int repository_new_passphrase(struct secret *out, struct app *app, struct err *e)
{
    const struct options *o = app->options;

    if (o->new_password_file != NULL)
        return secret_from_file(out, o->new_password_file, e) == 0
                   ? 0
                   : err_add(e, "--new-password-file");
    if (!secret_can_ask())
        return err_set(e, ERR_USAGE, "the new passphrase is missing: give --new-password-file");
    return ask(out, "New passphrase", true, e);
}

/* --- opening --- */

static bool was_given(const struct options *o)
{
    return o->repo_password_file != NULL || o->repo_password_command != NULL;
}

/* Its merged index lives in a folder of its own below the state directory. */
static int cache_folder(char *out, size_t room, struct app *app, const struct repo_key *key,
                        struct err *e)
{
    char hex[REPO_KEY_HEX_BYTES];

    if (app_state(app, e) != 0)
        return -1;
    repo_key_hex(key, hex);
    if (snprintf(out, room, "%s/repo-%s", state_dir(app->state), hex) >= (int)room)
        return err_set(e, ERR_LIMIT, "the path of the state directory is too long");
    return 0;
}

static int open_repo(struct repository *r, struct app *app, enum repo_access access, bool read_only,
                     struct err *e)
{
    const struct options *o = app->options;
    struct repo_facts facts;
    struct secret passphrase = { 0 };
    struct repo_open_options open = {
        .access = access,
        .read_only = read_only,
        .unlock = { .key_file = o->key_file },
        .env = events_repo_env(app),
    };
    char cache[4096];
    int rc = -1;

    if (repo_identify(r->storage, &facts, e) != 0 ||
        cache_folder(cache, sizeof cache, app, &facts.key, e) != 0)
        return -1;
    open.cache_dir = cache;
    if (o->key_file == NULL && (facts.encrypted || was_given(o))) {
        if (repository_passphrase(&passphrase, app, false, e) != 0)
            goto out;
        open.unlock.passphrase = &passphrase;
    }
    rc = repo_open(&r->repo, r->storage, &open, e);

out:
    secret_free(&passphrase);
    return rc;
}

int repository_open(struct repository *out, struct app *app, enum repo_access access,
                    bool read_only, struct err *e)
{
    const char *place = app->options->repo;

    *out = (struct repository){ 0 };
    if (check_place(place, e) != 0 || storage_directory_open(&out->storage, place, e) != 0)
        return -1;
    return open_repo(out, app, access, read_only, e);
}

int repository_reopen(struct repository *r, struct app *app, enum repo_access access, struct err *e)
{
    repo_close(r->repo);
    r->repo = NULL;
    return open_repo(r, app, access, false, e);
}

void repository_close(struct repository *r)
{
    repo_close(r->repo);
    storage_close(r->storage);
    *r = (struct repository){ 0 };
}

/* --- the reserve --- */

void repository_tell_reserve(void)
{
    log_warning("the disk is full: the reserve of the repository (64 MiB) was given up so that "
                "things can be removed");
}

void repository_mend_reserve(struct repository *r)
{
    struct err e;
    int made = repo_reserve_restore(r->repo, &e);

    if (made > 0)
        log_note("the reserve of the repository is there again");
    else if (made < 0)
        log_warning("the repository has no reserve for cleaning up on a full disk: %s; the next "
                    "backup or prune that finds room makes it again",
                    e.text);
}
