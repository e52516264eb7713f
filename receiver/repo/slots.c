#include "receiver/repo/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/base/clock.h"
#include "receiver/base/failpoint.h"
#include "receiver/base/publish.h"
#include "receiver/base/secret.h"
#include "receiver/repo/document.h"
#include "receiver/repo/fields.h"
#include "receiver/repo/repo_private.h"

static const char KEYS[] = "keys/", FILE_WORD[] = "vmferry-key-1 ";

enum {
    SLOTS_MAX = 64,
    PASSES_DEFAULT = 4,
    FILE_LINE_BYTES = sizeof FILE_WORD - 1 + 2 * REPO_KEY_BYTES + 1 + 2 * REPO_KEY_FILE_BYTES,
};
/* As much work as libsodium's moderate guess, 3 passes over 256 MiB; but that is all the memory of
 * its own that a backup may take. */
#define MEMORY_DEFAULT ((uint64_t)192 << 20)

/* --- one slot as an object --- */

static int publish(struct storage *s, const struct vault *v, struct slot *slot,
                   char name[REPO_SLOT_HEX_BYTES], struct err *e)
{
    struct bytes body = { .ceiling = document_body_max(DOCUMENT_SLOT) };
    char own_name[REPO_SLOT_HEX_BYTES];
    uint8_t random[(REPO_SLOT_HEX_BYTES - 1) / 2];
    object_name object;
    struct fields f;
    int rc;

    randombytes_buf(random, sizeof random);
    hex_of(random, sizeof random, own_name);
    name_of_slot(object, own_name);
    fields_write(&f, &body, e);
    slot_fields(&f, slot);
    rc = fields_done(&f);
    if (rc == 0)
        rc = document_put(s, v, DOCUMENT_SLOT, object, &body, e);
    if (rc == 0)
        rc = failpoint("repo.slot-published", e);
    bytes_free(&body);
    if (rc == 0 && name != NULL)
        memcpy(name, own_name, sizeof own_name);
    return rc;
}

static int set_label(struct slot *slot, const char *label, struct err *e)
{
    if (strlen(label) > SLOT_LABEL_MAX)
        return err_set(e, ERR_USAGE, "a label is at most %d bytes long", SLOT_LABEL_MAX);
    slot->label = strdup(label);
    return slot->label == NULL ? err_sys(e, "getting memory") : 0;
}

int slot_publish_passphrase(struct storage *s, const struct vault *v,
                            const uint8_t hash[CONFIG_HASH_BYTES], const struct secret *passphrase,
                            const struct repo_hardness *hardness, const char *label,
                            char name[REPO_SLOT_HEX_BYTES], struct err *e)
{
    struct slot slot = { .kind = SLOT_ARGON2ID,
                         .passes = hardness->passes > 0 ? hardness->passes : PASSES_DEFAULT,
                         .memory_bytes =
                             hardness->memory_bytes > 0 ? hardness->memory_bytes : MEMORY_DEFAULT,
                         .made = (uint64_t)clock_now() };
    int rc = -1;

    if (passphrase == NULL || passphrase->count == 0)
        return err_set(e, ERR_USAGE, "an empty passphrase");
    if (set_label(&slot, label, e) == 0 &&
        slot_wrap(&slot, v, hash, passphrase->text, passphrase->count, e) == 0)
        rc = publish(s, v, &slot, name, e);
    slot_free(&slot);
    return rc;
}

static int load(struct storage *s, const struct vault *v, const char *object, struct slot *out,
                struct err *e)
{
    struct bytes body = { 0 };
    struct fields f;
    int rc = document_get(s, v, DOCUMENT_SLOT, object, &body, e);

    *out = (struct slot){ 0 };
    if (rc == 0) {
        fields_read(&f, body.data, body.count, e);
        slot_fields(&f, out);
        rc = fields_done(&f);
        if (rc != 0) {
            slot_free(out);
            err_add(e, "object %s", object);
        }
    }
    bytes_free(&body);
    return rc;
}

/* --- all of them --- */

struct slot_names {
    char names[SLOTS_MAX][REPO_SLOT_HEX_BYTES];
    size_t count;
};

static bool is_slot_name(const char *text)
{
    uint8_t bytes[(REPO_SLOT_HEX_BYTES - 1) / 2];

    return strlen(text) == REPO_SLOT_HEX_BYTES - 1 && hex_to(text, sizeof bytes, bytes);
}

static int list_names(struct storage *s, struct slot_names *out, struct err *e)
{
    struct storage_list *list;
    struct storage_item item;
    int more;

    out->count = 0;
    if (storage_list(s, KEYS, &list, e) != 0)
        return -1;
    while ((more = storage_next(list, &item, e)) > 0) {
        const char *name = item.name + sizeof KEYS - 1;

        if (!is_slot_name(name))
            continue;
        if (out->count == SLOTS_MAX) {
            more = err_set(e, ERR_LIMIT, "there are more than %d key slots", SLOTS_MAX);
            break;
        }
        memcpy(out->names[out->count++], name, REPO_SLOT_HEX_BYTES);
    }
    storage_list_end(list);
    return more;
}

/* --- key files --- */

/* Private files only: the same care as for passwords. */
static int read_key_file(const char *path, const struct vault *v, uint8_t out[REPO_KEY_FILE_BYTES],
                         struct err *e)
{
    struct secret line = { 0 };
    struct repo_key of;
    const char *at;
    int rc = -1;

    if (secret_from_file(&line, path, e) != 0)
        return -1;
    at = line.text + sizeof FILE_WORD - 1;
    if (line.count != FILE_LINE_BYTES || memcmp(line.text, FILE_WORD, sizeof FILE_WORD - 1) != 0 ||
        !hex_to(at, sizeof of.b, of.b) || at[2 * sizeof of.b] != ' ' ||
        !hex_to(at + 2 * sizeof of.b + 1, REPO_KEY_FILE_BYTES, out))
        err_set(e, ERR_AUTH, "%s is no key file of a repository", path);
    else if (memcmp(of.b, vault_repository(v)->b, sizeof of.b) != 0)
        err_set(e, ERR_AUTH, "%s is the key file of another repository", path);
    else
        rc = 0;
    secret_free(&line);
    return rc;
}

static int write_key_file(const char *path, const struct vault *v,
                          const uint8_t key[REPO_KEY_FILE_BYTES], struct err *e)
{
    char of[REPO_KEY_HEX_BYTES], hex[2 * REPO_KEY_FILE_BYTES + 1], line[FILE_LINE_BYTES + 2];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc = -1;

    if (fd < 0 && errno == EEXIST)
        return err_set(e, ERR_REFUSED, "%s is there already", path);
    if (fd < 0)
        return err_sys(e, "creating %s", path);
    repo_key_hex(vault_repository(v), of);
    hex_of(key, REPO_KEY_FILE_BYTES, hex);
    snprintf(line, sizeof line, "%s%s %s\n", FILE_WORD, of, hex);
    if (io_write_all(fd, line, strlen(line), e) == 0 && io_sync(fd, e) == 0)
        rc = io_close(&fd, e);
    sodium_memzero(line, sizeof line);
    sodium_memzero(hex, sizeof hex);
    io_drop(&fd);
    if (rc != 0) {
        (void)unlink(path);
        err_add(e, "%s", path);
    }
    return rc;
}

/* --- unlocking --- */

struct key_material {
    enum slot_kind kind;
    const void *secret;
    size_t count;
};

static int try_slots(struct storage *s, struct vault *v, const uint8_t hash[CONFIG_HASH_BYTES],
                     const struct key_material *key, char own[REPO_SLOT_HEX_BYTES], struct err *e)
{
    struct slot_names all;
    struct err first = { ERR_NONE, 0, "" };

    if (list_names(s, &all, e) != 0)
        return -1;
    for (size_t i = 0; i < all.count; i++) {
        struct slot slot = { 0 };
        object_name object;
        int rc;

        name_of_slot(object, all.names[i]);
        rc = load(s, v, object, &slot, e);
        if (rc == 0 && slot.kind == key->kind)
            rc = slot_unwrap(&slot, v, hash, key->secret, key->count, e);
        else if (rc == 0)
            rc = err_set(e, ERR_AUTH, "no slot of the repository takes this kind of key");
        slot_free(&slot);
        if (rc == 0) {
            memcpy(own, all.names[i], REPO_SLOT_HEX_BYTES);
            return 0;
        }
        /* Anything worse than a key that does not fit is what the user must hear of. */
        if (first.code == ERR_NONE || (first.code == ERR_AUTH && e->code != ERR_AUTH))
            first = *e;
    }
    if (all.count == 0)
        return err_set(e, ERR_CORRUPT, "the repository is encrypted, but has no key slots");
    *e = first;
    return -1;
}

int slots_unlock(struct storage *s, struct vault *v, const uint8_t hash[CONFIG_HASH_BYTES],
                 const struct repo_unlock *unlock, char own[REPO_SLOT_HEX_BYTES], struct err *e)
{
    uint8_t file[REPO_KEY_FILE_BYTES];
    struct key_material key = { .kind = SLOT_KEY_FILE, .secret = file, .count = sizeof file };
    int rc = 0;

    if (unlock->key_file != NULL)
        rc = read_key_file(unlock->key_file, v, file, e);
    else
        key = (struct key_material){ SLOT_ARGON2ID, unlock->passphrase->text,
                                     unlock->passphrase->count };
    if (rc == 0)
        rc = try_slots(s, v, hash, &key, own, e);
    sodium_memzero(file, sizeof file);
    return rc;
}

/* --- for the user --- */

static int check_slots(const struct repo *r, struct err *e)
{
    if (r->config.sealing == 0)
        return err_set(e, ERR_USAGE, "the repository is not encrypted: it has no keys");
    return 0;
}

int repo_slot_add(struct repo *r, const struct secret *passphrase,
                  const struct repo_hardness *hardness, const char *label,
                  char name[REPO_SLOT_HEX_BYTES], struct err *e)
{
    static const struct repo_hardness none;

    if (check_slots(r, e) != 0 ||
        slot_publish_passphrase(r->storage, r->vault, r->config.hash, passphrase,
                                hardness != NULL ? hardness : &none, label, name, e) != 0)
        return -1;
    return storage_barrier(r->storage, e);
}

int repo_slot_export(struct repo *r, const char *path, const char *label,
                     char name[REPO_SLOT_HEX_BYTES], struct err *e)
{
    struct slot slot = { .kind = SLOT_KEY_FILE, .made = (uint64_t)clock_now() };
    uint8_t key[REPO_KEY_FILE_BYTES];
    int rc = -1;

    if (check_slots(r, e) != 0)
        return -1;
    randombytes_buf(key, sizeof key);
    /* The file first: a slot that nothing opens helps nobody. */
    if (set_label(&slot, label, e) == 0 &&
        slot_wrap(&slot, r->vault, r->config.hash, key, sizeof key, e) == 0 &&
        write_key_file(path, r->vault, key, e) == 0) {
        rc = publish(r->storage, r->vault, &slot, name, e);
        if (rc == 0)
            rc = storage_barrier(r->storage, e);
        if (rc != 0)
            (void)unlink(path);
    }
    sodium_memzero(key, sizeof key);
    slot_free(&slot);
    return rc;
}

static int remove_slot(struct repo *r, const char *name, bool own, struct err *e)
{
    struct slot_names all;
    object_name object;
    bool found = false;

    if (list_names(r->storage, &all, e) != 0)
        return -1;
    for (size_t i = 0; i < all.count; i++)
        found = found || strcmp(all.names[i], name) == 0;
    if (!found)
        return err_set(e, ERR_NOT_FOUND, "there is no key slot %.40s", name);
    if (all.count == 1)
        return err_set(e, ERR_REFUSED,
                       "this is the last key slot: without it nobody could open "
                       "the repository");
    if (strcmp(name, r->own_slot) == 0 && !own)
        return err_set(e, ERR_REFUSED, "this is the key slot that opened the repository now");
    name_of_slot(object, name);
    if (failpoint("repo.slot-remove", e) != 0 || storage_remove(r->storage, object, e) != 0 ||
        failpoint("repo.slot-removed", e) != 0)
        return -1;
    return storage_barrier(r->storage, e);
}

int repo_slot_remove(struct repo *r, const char *name, bool own, struct err *e)
{
    struct storage_lock *lock = NULL;
    int rc = -1;

    /* Two who remove at once must not each count on the other's slot. */
    if (check_slots(r, e) == 0 &&
        storage_lock_take(r->storage, NAME_KEYS_LOCK, LOCK_EXCLUSIVE, r->env.lock_wait_ms,
                          r->env.stop, &lock, e) == 0)
        rc = remove_slot(r, name, own, e);
    storage_lock_release(lock);
    return rc;
}

int repo_slot_list(struct repo *r, struct repo_slot **out, size_t *count, size_t *own,
                   struct err *e)
{
    struct slot_names all;
    struct repo_slot *list;

    if (check_slots(r, e) != 0 || list_names(r->storage, &all, e) != 0)
        return -1;
    list = calloc(all.count > 0 ? all.count : 1, sizeof list[0]);
    if (list == NULL)
        return err_sys(e, "getting memory");
    *own = all.count;
    for (size_t i = 0; i < all.count; i++) {
        struct slot slot = { 0 };
        object_name object;

        name_of_slot(object, all.names[i]);
        if (load(r->storage, r->vault, object, &slot, e) != 0) {
            free(list);
            return -1;
        }
        memcpy(list[i].name, all.names[i], REPO_SLOT_HEX_BYTES);
        list[i].key_file = slot.kind == SLOT_KEY_FILE;
        list[i].made = slot.made;
        snprintf(list[i].label, sizeof list[i].label, "%s", slot.label);
        if (strcmp(all.names[i], r->own_slot) == 0)
            *own = i;
        slot_free(&slot);
    }
    *out = list;
    *count = all.count;
    return 0;
}
