/*
 * Which blocks a host may ask for: those of the disks of its own generations, by asking ids under a
 * key of that host (FORMAT.md 9a).  Made from the trees when a source first asks, kept in memory as
 * long as the repository is open; no object holds it.  A hit is only a guess: who answers proves
 * the block.  Inside receiver/repo only.
 *
 * Threads: everything here may be called from several threads.
 */
#ifndef RECEIVER_REPO_ASK_TABLE_H
#define RECEIVER_REPO_ASK_TABLE_H

#include "protocol/block/ask_id.h"
#include "receiver/repo/repo.h"

struct ask_table;
struct ask_tables;
struct repo_generation;
struct sink_answer;
struct sink_question;

/* Blocks that a table knows at most, about 100 MiB of memory; the newest generations come first. */
enum { ASK_TABLE_BLOCKS_MAX = 1 << 21 };

/* The tables of an open repository, none made yet.  0, or -1 (ERR_SYSTEM). */
int ask_tables_new(struct ask_tables **out, struct err *e);
void ask_tables_free(struct ask_tables *t); /* NULL is allowed */

/*
 * The table of a host, made now if it is not there; it lives as long as r.  In an encrypted
 * repository all its blocks are read for that.  What is damaged is left out.
 * 0, or -1: ERR_STOPPED, ERR_SYSTEM, ERR_NETWORK, ….
 */
int ask_table_of(struct ask_table **out, struct repo *r, const char *host_uuid, struct err *e);

uint64_t ask_table_count(struct ask_table *t);

/*
 * A generation was committed: its blocks may be asked for from now on, if there is a table of its
 * host.  Not before: what is still in an open pack cannot be read, and a host that asks for a block
 * it has just sent would learn from that whether another one had it.
 */
void ask_table_committed(struct repo *r, const struct repo_generation *g);

/*
 * Whether the repository has, readable, the very block that is asked for, with that digest under
 * the disk's secret: out->token is its id then.  scratch has room for q->plain_bytes.
 * 0, or -1 with a failure of the store.
 */
int ask_table_answer(struct ask_table *t, struct repo *r, const struct digest_secret *secret,
                     const struct sink_question *q, uint8_t *scratch, struct sink_answer *out,
                     struct err *e);

#endif
