#include "receiver/repo/names.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NUMBER_DIGITS = 10, KEY_DIGITS = 2 * REPO_KEY_BYTES, SMALL_DIGITS = 8 };
#define NUMBER_MAX ((uint64_t)9999999999)

void hex_of(const uint8_t *bytes, size_t count, char *out)
{
    static const char hex[] = "0123456789abcdef";

    for (size_t i = 0; i < count; i++) {
        out[2 * i] = hex[bytes[i] >> 4];
        out[2 * i + 1] = hex[bytes[i] & 15];
    }
    out[2 * count] = 0;
}

static int value_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool hex_to(const char *text, size_t count, uint8_t *out)
{
    for (size_t i = 0; i < count; i++) {
        int high = value_of(text[2 * i]);
        int low = high < 0 ? -1 : value_of(text[2 * i + 1]);

        if (low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void repo_key_hex(const struct repo_key *key, char out[REPO_KEY_HEX_BYTES])
{
    hex_of(key->b, sizeof key->b, out);
}

void repo_id_hex(const struct repo_id *id, char out[REPO_ID_HEX_BYTES])
{
    hex_of(id->b, sizeof id->b, out);
}

static void name_sharded(object_name out, const char *folder, const struct repo_key *key)
{
    char hex[REPO_KEY_HEX_BYTES];

    repo_key_hex(key, hex);
    snprintf(out, STORAGE_NAME_ROOM, "%s/%.2s/%s", folder, hex, hex);
}

void name_of_pack(object_name out, const struct repo_key *pack)
{
    name_sharded(out, "packs", pack);
}

void name_of_index(object_name out, const struct repo_key *pack)
{
    name_sharded(out, "index", pack);
}

void name_of_slot(object_name out, const char *slot)
{
    snprintf(out, STORAGE_NAME_ROOM, "keys/%s", slot);
}

void name_of_epoch(object_name out, uint64_t number)
{
    snprintf(out, STORAGE_NAME_ROOM, "epoch/%010" PRIu64, number);
}

void prefix_of_vm(object_name out, const char *folder, const struct repo_key *vm)
{
    char hex[REPO_KEY_HEX_BYTES];

    repo_key_hex(vm, hex);
    snprintf(out, STORAGE_NAME_ROOM, "%s/%s/", folder, hex);
}

void name_of_generation(object_name out, const char *folder, const struct repo_key *vm,
                        uint64_t number)
{
    char hex[REPO_KEY_HEX_BYTES];

    repo_key_hex(vm, hex);
    snprintf(out, STORAGE_NAME_ROOM, "%s/%s/%010" PRIu64, folder, hex, number);
}

void name_of_partial(object_name out, const struct repo_key *vm, uint64_t session, uint32_t disk,
                     uint32_t sequence)
{
    char hex[REPO_KEY_HEX_BYTES];

    repo_key_hex(vm, hex);
    snprintf(out, STORAGE_NAME_ROOM, "partial/%s/%016" PRIx64 "-%08" PRIu32 "-%08" PRIu32, hex,
             session, disk, sequence);
}

void name_of_vm_lock(object_name out, const struct repo_key *vm)
{
    char hex[REPO_KEY_HEX_BYTES];

    repo_key_hex(vm, hex);
    snprintf(out, STORAGE_NAME_ROOM, "vm-%s", hex);
}

void name_of_key(object_name out, const char *folder, const struct repo_key *key)
{
    char hex[REPO_KEY_HEX_BYTES];

    repo_key_hex(key, hex);
    snprintf(out, STORAGE_NAME_ROOM, "%s/%s", folder, hex);
}

/* --- names taken apart --- */

/* Step over `text` if it stands at *at. */
static bool take_text(const char **at, const char *text)
{
    size_t count = strlen(text);

    if (strncmp(*at, text, count) != 0)
        return false;
    *at += count;
    return true;
}

static bool take_hex(const char **at, size_t count, uint8_t *out)
{
    if (strlen(*at) < 2 * count || !hex_to(*at, count, out))
        return false;
    *at += 2 * count;
    return true;
}

static bool take_digits(const char **at, unsigned digits, uint64_t *out)
{
    *out = 0;
    for (unsigned i = 0; i < digits; i++) {
        char c = (*at)[i];

        if (c < '0' || c > '9')
            return false;
        *out = *out * 10 + (uint64_t)(c - '0');
    }
    *at += digits;
    return true;
}

static bool take_sharded(const char *name, const char *folder, struct repo_key *key)
{
    uint8_t shard;

    return take_text(&name, folder) && take_hex(&name, 1, &shard) && take_text(&name, "/") &&
           take_hex(&name, sizeof key->b, key->b) && *name == 0 && key->b[0] == shard;
}

bool name_is_index(const char *name, struct repo_key *pack)
{
    return take_sharded(name, "index/", pack);
}

bool name_is_pack(const char *name, struct repo_key *pack)
{
    return take_sharded(name, "packs/", pack);
}

bool name_is_generation(const char *name, const char *folder, struct repo_key *vm, uint64_t *number)
{
    return take_text(&name, folder) && take_text(&name, "/") &&
           take_hex(&name, sizeof vm->b, vm->b) && take_text(&name, "/") &&
           take_digits(&name, NUMBER_DIGITS, number) && *name == 0 && *number > 0;
}

bool name_is_epoch(const char *name, uint64_t *number)
{
    return take_text(&name, "epoch/") && take_digits(&name, NUMBER_DIGITS, number) && *name == 0;
}

bool name_is_partial(const char *name, struct repo_key *vm, uint64_t *session, uint32_t *disk,
                     uint32_t *sequence)
{
    uint8_t bytes[8];
    uint64_t a, b;

    if (!take_text(&name, "partial/") || !take_hex(&name, sizeof vm->b, vm->b) ||
        !take_text(&name, "/") || !take_hex(&name, sizeof bytes, bytes) || !take_text(&name, "-") ||
        !take_digits(&name, SMALL_DIGITS, &a) || !take_text(&name, "-") ||
        !take_digits(&name, SMALL_DIGITS, &b) || *name != 0)
        return false;
    *session = 0;
    for (size_t i = 0; i < sizeof bytes; i++)
        *session = *session << 8 | bytes[i];
    *disk = (uint32_t)a;
    *sequence = (uint32_t)b;
    return true;
}
