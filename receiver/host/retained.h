/*
 * The record of a kept snapshot: which generation of which store has the disks as they were when it
 * froze them, and what its chains looked like then.  A later run that finds all of it unchanged
 * needs to read only what was written since.
 *
 * It is text, `TOKEN.kept` beside the snapshot's journal entry:
 *
 *     vmferry-retained 1
 *     token=…            of the snapshot
 *     store_id=…         generation=N  generation_id=…   what the store had then
 *     host_uuid=…        host_booted=SECONDS  host_uptime=SECONDS   when the record was made
 *     vm_uuid=…          vmx=…          vmid=N
 *     snapshot_id=N      created=SECONDS   by the host's clock
 *     disk=SLOT          and for each disk, in this order:
 *       disk_uuid=…  capacity=BYTES  root=HEX  leaf=PATH
 *       link=CID TYPE  link_file=PATH  link_data=PATH    from the frozen link down to the base
 *     end=N              the number of disks
 *     sum=HEX            SHA-256 of all before this line
 *
 * Nothing in it is believed because it is there: see receiver/job/change_hint.h.
 */
#ifndef RECEIVER_HOST_RETAINED_H
#define RECEIVER_HOST_RETAINED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/digest.h"
#include "receiver/host/journal.h"

struct bytes;
struct chain_link;
struct err;

enum { RETAINED_STORE_ID_ROOM = 160, RETAINED_GENERATION_ID_ROOM = 72 };

struct retained_disk {
    char slot[16];
    char uuid[64]; /* ddb.uuid, "" where there is none */
    uint64_t capacity_bytes;
    struct digest root;       /* of the disk in that generation, under the store's secret */
    char *leaf_path;          /* absolute, of the live link above the frozen one */
    struct chain_link *links; /* the frozen one first, the base last */
    size_t link_count;
};

/* Empty value { 0 }; freed with retained_free. */
struct retained {
    char token[JOURNAL_TOKEN_ROOM];
    char store_id[RETAINED_STORE_ID_ROOM];
    uint64_t generation;
    char generation_id[RETAINED_GENERATION_ID_ROOM];
    char host_uuid[64];
    int64_t booted, uptime;
    char vm_uuid[40];
    char vmx[JOURNAL_TEXT_MAX];
    unsigned vmid;
    unsigned snapshot_id;
    int64_t created;
    struct retained_disk *disks;
    size_t disk_count;
};

void retained_free(struct retained *r);

/* The disk in this slot, or NULL. */
const struct retained_disk *retained_disk(const struct retained *r, const char *slot);

/* One more disk, or one more link of it, zeroed; NULL with ERR_LIMIT or ERR_SYSTEM. */
struct retained_disk *retained_add_disk(struct retained *r, struct err *e);
struct chain_link *retained_add_link(struct retained_disk *d, struct err *e);

/* The text form, both ways.  Reading: ERR_CORRUPT, ERR_LIMIT, ERR_SYSTEM. */
int retained_write(const struct retained *r, struct bytes *out, struct err *e);
int retained_read(struct retained *out, const char *text, size_t bytes, struct err *e);

/* To and from the journal.  Loading: ERR_NOT_FOUND, ERR_CORRUPT (also: another entry's), …. */
int retained_publish(struct journal_ticket *ticket, const struct retained *r, struct err *e);
int retained_load(struct journal *j, const char *token, struct retained *out, struct err *e);

#endif
