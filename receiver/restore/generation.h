/*
 * Generations as every store lists them, and the one that a user means.
 */
#ifndef RECEIVER_RESTORE_GENERATION_H
#define RECEIVER_RESTORE_GENERATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/digest.h"

struct err;

enum { GENERATION_ID_ROOM = 33 };

struct generation_disk {
    unsigned number;
    char slot[32];
    char file[64]; /* in a restore, and in the folder for the newest generation */
    const char *label;
    uint64_t capacity_bytes;
    uint64_t of_generation;  /* whose content this is; below the generation's number when the disk
                                was  excluded since; 0: never mirrored */
    uint64_t damaged_blocks; /* content of this generation that is lost */
    const char *read_path;
    uint64_t allocated_bytes, read_bytes, sampled_bytes, changed_bytes, sent_bytes, stored_bytes;
    uint64_t milliseconds;
    struct digest root;
};

struct generation_item {
    const char *place;  /* of the VM in the store: path of its folder, or its key in hex */
    const char *called; /* one more name of the VM, as the folder's; NULL: none */
    uint64_t number;
    char id[GENERATION_ID_ROOM];
    const char *vm;     /* display name at that time */
    const char *vm_now; /* of the newest generation */
    const char *uuid, *host, *host_uuid, *vmx_path;
    int64_t time;
    const char *kind, *outcome, *consistency, *data_channel, *read_path, *change_source, *snapshot;
    bool newest;
    bool damaged;     /* some disk has lost blocks: restore ends with ERR_CORRUPT */
    int64_t verified; /* when check last read all of it without finding fault; 0 never */
    uint64_t size_bytes, read_bytes, sent_bytes, changed_bytes, stored_bytes; /* sums over disks */
    const struct generation_disk *disks;
    size_t disk_count;
};

/* A store's list: generations of one VM stand together, ascending by number. */
struct generation_list {
    const void *context;
    size_t count;
    const struct generation_item *(*at)(const void *context, size_t index);
};

/*
 * The generation that the user means (GEN of the command line): `VM@N`, `N`, `VM@latest`,
 * `VM@2026-11-20`, `VM@2026-11-20T10:30[:15][Z]`, `HOST/VM@…`, `uuid:…@…`, an id prefix of at least
 * 4 hex digits. VM is the new or an old display name, or what the item is called beside that.
 * *newer_partial (may be NULL) is the number of a partial generation newer than the one found by
 * `latest` or a date, else 0. 0, or -1: ERR_NOT_FOUND (none, or more than one: the text lists
 * them), ERR_USAGE (not that form).
 */
int generation_find(const struct generation_list *l, const char *gen,
                    const struct generation_item **out, uint64_t *newer_partial, struct err *e);

/* True when the VM operand `vm` (`NAME`, `HOST/NAME`, `uuid:…`) means this generation's VM. */
bool generation_is_of_vm(const struct generation_item *item, const char *vm);

/*
 * The place of the one VM that `vm` means, by any name it ever had; vm NULL: the only one there is.
 * ERR_NOT_FOUND: none or several, which the text lists.
 */
int generation_find_vm(const struct generation_list *l, const char *vm, const char **place,
                       struct err *e);

#endif
