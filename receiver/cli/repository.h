/* From options to an open repository: one way for all commands. */
#ifndef RECEIVER_CLI_REPOSITORY_H
#define RECEIVER_CLI_REPOSITORY_H

#include <stdbool.h>

#include "receiver/base/secret.h"
#include "receiver/repo/repo.h"

struct app;
struct err;
struct storage;

/* Empty value { 0 }. */
struct repository {
    struct storage *storage;
    struct repo *repo;
};

/*
 * Open what --repo names; an encrypted one with --repo-password-file, --repo-password-command,
 * --key-file, or the terminal's answer.  Release with repository_close in every case.  0, or -1:
 * repo_open's codes, ERR_UNSUPPORTED (s3://), ERR_USAGE (no passphrase to be had).
 */
int repository_open(struct repository *out, struct app *app, enum repo_access access,
                    bool read_only, struct err *e);

/* Give it back and open it anew, as the steps of repo_care.h want it. */
int repository_reopen(struct repository *r, struct app *app, enum repo_access access,
                      struct err *e);
void repository_close(struct repository *r);

/* The reserve was given up so that a full disk could be cleaned: say so. */
void repository_tell_reserve(void);

/* Make the reserve again if it is missing and there is room, and say how that went. */
void repository_mend_reserve(struct repository *r);

/* A folder for a new one. */
int repository_make_storage(struct storage **out, struct app *app, struct err *e);

/* The passphrase of --repo; `twice` on a terminal for a new one. */
int repository_passphrase(struct secret *out, struct app *app, bool twice, struct err *e);

/* The new passphrase of `key`: --new-password-file, or the terminal. */
int repository_new_passphrase(struct secret *out, struct app *app, struct err *e);

#endif
