#include "receiver/repo/repo.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/clock.h"
#include "receiver/base/failpoint.h"
#include "receiver/base/secret.h"
#include "receiver/repo/repo_private.h"
#include "receiver/repo/slots.h"
#include "version.h"

void repo_warn(const struct repo *r, const char *format, ...)
{
    char text[600];
    va_list list;

    if (r->env.warn == NULL)
        return;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    r->env.warn(r->env.context, text);
}

int repo_check_stop(const struct repo *r, struct err *e)
{
    if (r->env.stop != NULL && atomic_load(r->env.stop))
        return err_set(e, ERR_STOPPED, "stopped");
    return 0;
}

/* --- making --- */

static int check_options(const struct repo_create_options *o, struct err *e)
{
    if (o->block_bytes != 0 && !block_size_valid(o->block_bytes))
        return err_set(e, ERR_USAGE,
                       "a block size of %" PRIu32
                       " bytes is not possible: 16k to 4M, a power of two",
                       o->block_bytes);
    if (o->encrypt && (o->passphrase == NULL || o->passphrase->count == 0))
        return err_set(e, ERR_USAGE, "an encrypted repository needs a passphrase");
    return 0;
}

static int check_empty(struct storage *s, struct err *e)
{
    struct storage_list *list;
    struct storage_item item;
    int more;

    if (storage_list(s, "", &list, e) != 0)
        return -1;
    more = storage_next(list, &item, e);
    storage_list_end(list);
    if (more > 0)
        return err_set(e, ERR_REFUSED, "%s is not empty: it has %s", s->label, item.name);
    return more;
}

/* `config` goes last: before it there is no repository. */
static int publish_all(struct storage *s, struct config *c, struct vault *v,
                       const struct repo_create_options *o, struct err *e)
{
    if (config_save(c, s, v, false, e) != 0 || repo_reserve_make(s, e) != 0 ||
        failpoint("repo.init-reserve", e) != 0)
        return -1;
    if (o->encrypt &&
        slot_publish_passphrase(s, v, c->hash, o->passphrase, &o->hardness, "first", NULL, e) != 0)
        return -1;
    if (storage_barrier(s, e) != 0 || failpoint("repo.init-durable", e) != 0 ||
        config_save(c, s, v, true, e) != 0 || failpoint("repo.init-config", e) != 0)
        return -1;
    return storage_barrier(s, e);
}

/* What a failed `init` has made, so that it can be tried again.  `config`, with which it would
 * count as a repository, first. */
static void take_back(struct storage *s)
{
    struct storage_list *list;
    struct storage_item item;
    struct err none;

    (void)storage_remove(s, NAME_CONFIG, &none);
    (void)storage_remove(s, NAME_RESERVE, &none);
    if (storage_list(s, "keys/", &list, &none) == 0) {
        while (storage_next(list, &item, &none) > 0)
            (void)storage_remove(s, item.name, &none);
        storage_list_end(list);
    }
    (void)storage_barrier(s, &none);
}

int repo_create(struct storage *s, const struct repo_create_options *options, struct err *e)
{
    char program[] = "vmferry " VMFERRY_VERSION;
    struct config c = { .block_bytes = options->block_bytes,
                        .ids = options->encrypt ? 2 : 1,
                        .sealing = options->encrypt,
                        .append_only = options->append_only,
                        .made = (uint64_t)clock_now(),
                        .program = program };
    struct storage_lock *lock = NULL, *others[2] = { NULL, NULL };
    struct vault *v = NULL;
    int rc = -1;

    if (c.block_bytes == 0)
        c.block_bytes = REPO_BLOCK_BYTES;
    if (check_options(options, e) != 0)
        return -1;
    if (sodium_init() < 0)
        return err_set(e, ERR_SYSTEM, "libsodium does not start");
    /* Against a second `init`; and so that the locks are there for readers who may not make them,
     * and on a disk that is full. */
    if (storage_lock_take(s, NAME_LOCK, LOCK_EXCLUSIVE, 0, NULL, &lock, e) != 0 ||
        storage_lock_take(s, NAME_FORGET_LOCK, LOCK_EXCLUSIVE, 0, NULL, &others[0], e) != 0 ||
        storage_lock_take(s, NAME_KEYS_LOCK, LOCK_EXCLUSIVE, 0, NULL, &others[1], e) != 0 ||
        check_empty(s, e) != 0)
        goto out;
    randombytes_buf(c.repository.b, sizeof c.repository.b);
    if (vault_new(&v, &c.repository, e) != 0 || (options->encrypt && vault_make_keys(v, e) != 0))
        goto out;
    rc = publish_all(s, &c, v, options, e);
    if (rc != 0)
        take_back(s);

out:
    vault_free(v);
    storage_lock_release(others[1]);
    storage_lock_release(others[0]);
    storage_lock_release(lock);
    return rc;
}

/* --- opening --- */

static int unlock(struct repo *r, const struct repo_unlock *unlock, struct err *e)
{
    bool given = unlock->passphrase != NULL || unlock->key_file != NULL;

    if (r->config.sealing == 0) {
        /* Whoever could swap the repository for an open one would have us write plain data. */
        if (given)
            return err_set(e, ERR_REFUSED,
                           "a key was given, but the repository at %s is not encrypted",
                           r->storage->label);
        return 0;
    }
    if (!given)
        return err_set(e, ERR_USAGE, "the repository at %s is encrypted: give its passphrase",
                       r->storage->label);
    return slots_unlock(r->storage, r->vault, r->config.hash, unlock, r->own_slot, e);
}

static int read_epoch(struct repo *r, struct err *e)
{
    struct storage_list *list;
    struct storage_item item;
    uint64_t number;
    int more;

    if (storage_list(r->storage, "epoch/", &list, e) != 0)
        return -1;
    while ((more = storage_next(list, &item, e)) > 0)
        if (name_is_epoch(item.name, &number) && number > r->epoch)
            r->epoch = number;
    storage_list_end(list);
    return more;
}

int repo_open(struct repo **out, struct storage *s, const struct repo_open_options *options,
              struct err *e)
{
    struct repo *r = calloc(1, sizeof *r);
    enum lock_kind kind = options->access == REPO_EXCLUSIVE ? LOCK_EXCLUSIVE : LOCK_SHARED;

    if (r == NULL)
        return err_sys(e, "getting memory");
    r->storage = s;
    r->env = options->env;
    r->read_only = options->read_only;
    r->exclusive = options->access == REPO_EXCLUSIVE;
    pthread_mutex_init(&r->write_lock, NULL);
    pthread_mutex_init(&r->opener_lock, NULL);
    /* Before the lock, which would make its file in a folder that is no repository. */
    if (config_load(&r->config, s, options->read_only, e) != 0)
        goto fail;
    if (storage_lock_take(s, NAME_LOCK, kind, r->env.lock_wait_ms, r->env.stop, &r->lock, e) != 0) {
        if (e->code == ERR_BUSY)
            err_add(e, "the repository is in use");
        goto fail;
    }
    if (ask_tables_new(&r->asks, e) != 0 || vault_new(&r->vault, &r->config.repository, e) != 0 ||
        unlock(r, &options->unlock, e) != 0 || read_epoch(r, e) != 0)
        goto fail;
    if (index_open(&r->index, s, r->vault, r->epoch, options->cache_dir, &r->env, e) != 0)
        goto fail;
    if ((!r->read_only && index_adopt(r->index, e) != 0) || failpoint("repo.opened", e) != 0)
        goto fail;
    *out = r;
    return 0;

fail:
    repo_close(r);
    return -1;
}

void repo_close(struct repo *r)
{
    struct err e;

    if (r == NULL)
        return;
    repo_drop_packs(r);
    repo_free_openers(r);
    if (r->index != NULL && !r->poisoned && index_save(r->index, &e) != 0)
        repo_warn(r, "%s", e.text);
    index_close(r->index);
    vault_free(r->vault);
    config_free(&r->config);
    storage_lock_release(r->forget_lock);
    storage_lock_release(r->lock);
    ask_tables_free(r->asks);
    pthread_mutex_destroy(&r->write_lock);
    pthread_mutex_destroy(&r->opener_lock);
    free(r);
}

void repo_facts(struct repo *r, struct repo_facts *out)
{
    uint64_t damaged;

    *out = (struct repo_facts){ .key = r->config.repository,
                                .block_bytes = r->config.block_bytes,
                                .encrypted = r->config.sealing != 0,
                                .append_only = r->config.append_only != 0,
                                .made = r->config.made,
                                .epoch = r->epoch };
    index_counts(r->index, &out->entries, &out->packs, &damaged);
}

struct storage *repo_storage(const struct repo *r)
{
    return r->storage;
}
