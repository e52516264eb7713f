/*
 * A sorted run of index entries in a private file that is mapped: the merged index consists of a
 * few of them (FORMAT.md 6).  It is a cache: whoever finds one damaged throws it away.  The only
 * files of the project that are mapped; each piece is proved before anything in it is believed.
 * Inside receiver/repo only.
 */
#ifndef RECEIVER_REPO_SORTED_RUN_H
#define RECEIVER_REPO_SORTED_RUN_H

#include "receiver/repo/repo.h"

enum entry_type { ENTRY_BLOCK = 1, ENTRY_NODE = 2 };

/* In memory and in a run: exactly 48 bytes. */
struct index_entry {
    struct repo_id id;
    uint32_t pack; /* its number in the list of packs that goes with the entry */
    uint32_t offset;
    uint32_t payload_codec; /* bytes | codec << 24 */
    uint32_t plain_type;    /* bytes | type << 24 */
};

static inline uint8_t index_entry_type(const struct index_entry *n)
{
    return (uint8_t)(n->plain_type >> 24);
}

/* By id, then type. */
int index_entry_compare(const struct index_entry *a, const struct index_entry *b);

struct sorted_run;

/*
 * Map the run in fd, which is taken over in any case.  ERR_CORRUPT: it is damaged, of another
 * repository or epoch, or no run at all.
 */
int sorted_run_open(struct sorted_run **out, int fd, const struct repo_key *repository,
                    uint64_t epoch, struct err *e);
void sorted_run_close(struct sorted_run *r); /* NULL is allowed */

const struct repo_key *sorted_run_key(const struct sorted_run *r);
uint64_t sorted_run_count(const struct sorted_run *r);
uint32_t sorted_run_pack_count(const struct sorted_run *r);
const struct repo_key *sorted_run_packs(const struct sorted_run *r); /* ascending */

/*
 * Entries of this id and type: they lie together.  *count may come out 0.  Any thread.
 * -1 with ERR_CORRUPT: the run is damaged.
 */
int sorted_run_find(struct sorted_run *r, const struct repo_id *id, enum entry_type type,
                    const struct index_entry **first, size_t *count, struct err *e);

/* One of the things that a new run is merged from: a run, or a sorted array.  packs translates pack
 * numbers; entries of packs that become SORTED_RUN_NO_PACK are left out. */
#define SORTED_RUN_NO_PACK UINT32_MAX
struct run_input {
    struct sorted_run *run;            /* or NULL */
    const struct index_entry *entries; /* if run is NULL */
    size_t count;
    const uint32_t *packs;
    /* the merge's own */
    size_t at;
};

/*
 * Write a run to an empty file: entries of the inputs over this list of packs (ascending, each
 * once).  Nothing is made durable: a cache need not be.  ERR_SPACE, ERR_LIMIT, ERR_CORRUPT (an
 * input), ERR_SYSTEM.
 */
int sorted_run_write(int fd, const struct repo_key *repository, uint64_t epoch,
                     const struct repo_key *key, const struct repo_key *packs, uint32_t pack_count,
                     struct run_input *inputs, size_t input_count, struct err *e);

#endif
