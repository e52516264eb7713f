/*
 * Packs and their entries as bytes (FORMAT.md 5), and the document that lists a pack's entries (6).
 * Inside receiver/repo only.
 */
#ifndef RECEIVER_REPO_PACK_H
#define RECEIVER_REPO_PACK_H

#include "receiver/repo/sorted_run.h"

struct bytes;
struct storage;
struct vault;

enum {
    PACK_HEADER_BYTES = 64,
    PACK_END_BYTES = 32,
    ENTRY_HEADER_BYTES = 64,
    PACK_BYTES = 64 << 20, /* a pack is closed at the entry that reaches this */
    PACK_BYTES_MAX = 256 << 20,
    PACK_ENTRIES_MAX = 1 << 20,
    ENTRY_PLAIN_MAX = 4 << 20,
    ENTRY_PAYLOAD_MAX = ENTRY_PLAIN_MAX + 40,
};

enum pack_kind { PACK_BLOCKS = 1, PACK_NODES = 2 };
enum entry_codec { CODEC_RAW = 0, CODEC_ZSTD = 1 };

struct entry_header {
    uint8_t type;  /* enum entry_type */
    uint8_t codec; /* enum entry_codec */
    uint8_t sealed;
    struct repo_id id;
    uint32_t plain_bytes;
    uint32_t payload_bytes;
    uint64_t payload_sum;
};

void pack_header_encode(const struct repo_key *repository, const struct repo_key *pack,
                        enum pack_kind kind, uint8_t out[PACK_HEADER_BYTES]);
/* ERR_CORRUPT unless it is the header of this pack of this repository. */
int pack_header_decode(const uint8_t in[PACK_HEADER_BYTES], const struct repo_key *repository,
                       const struct repo_key *pack, uint8_t *kind, struct err *e);

void pack_end_encode(uint64_t entries, uint64_t offset, uint8_t out[PACK_END_BYTES]);
int pack_end_decode(const uint8_t in[PACK_END_BYTES], uint64_t *entries, uint64_t *offset,
                    struct err *e);

void entry_header_encode(const struct entry_header *h, uint8_t out[ENTRY_HEADER_BYTES]);
/* ERR_CORRUPT; what is accepted keeps to the limits. */
int entry_header_decode(const uint8_t in[ENTRY_HEADER_BYTES], struct entry_header *out,
                        struct err *e);

/*
 * Make the entry of coded bytes (codec tells of what kind) with this id: header and payload are
 * appended to out, whose ceiling is raised.  Sealed as the vault wants.
 */
int entry_encode(const struct vault *v, const struct entry_header *like, const void *coded,
                 size_t coded_bytes, struct bytes *out, struct err *e);

/* What takes entries apart: buffers and a decompressor, for one thread at a time. */
struct entry_opener;
int entry_opener_new(struct entry_opener **out, struct err *e);
void entry_opener_free(struct entry_opener *o); /* NULL is allowed */

/*
 * The plain bytes of an entry (header and payload) to out, of room for h->plain_bytes, proved by
 * sum, seal and id.  ERR_CORRUPT says which.
 */
int entry_decode(struct entry_opener *o, const struct vault *v, const struct entry_header *h,
                 const uint8_t header[ENTRY_HEADER_BYTES], const uint8_t *payload, uint8_t *out,
                 struct err *e);

/*
 * Walk over the entries of a pack object: headers only, or with read_data every entry proved whole.
 * `entry` may be NULL.  ERR_CORRUPT names the offset.
 */
struct pack_walk {
    bool read_data;
    int (*entry)(void *context, const struct entry_header *h, uint32_t offset, struct err *e);
    /* With read_data: an entry that is damaged, while the walk can go on.  NULL: it ends. */
    int (*damaged)(void *context, const struct entry_header *h, uint32_t offset, struct err *e);
    void *context;
};
int pack_walk(struct storage *s, const struct vault *v, const struct repo_key *pack,
              const struct pack_walk *walk, uint64_t *size_bytes, struct err *e);

/* --- the index of a pack --- */

struct pack_index {
    struct repo_key pack;
    uint8_t kind;
    uint64_t size_bytes;
    uint32_t count;
    struct index_entry *entries; /* ascending; their pack member does not count */
};

void pack_index_free(struct pack_index *x); /* a zeroed one is allowed */

/* The body of the document; sorts the entries first. */
int pack_index_encode(struct pack_index *x, struct bytes *out, struct err *e);
int pack_index_decode(struct pack_index *x, const void *data, size_t count, struct err *e);

/* Publish; load and compare with the name. */
int pack_index_put(struct storage *s, const struct vault *v, struct pack_index *x, struct err *e);
int pack_index_get(struct storage *s, const struct vault *v, const struct repo_key *pack,
                   struct pack_index *out, struct err *e);

#endif
