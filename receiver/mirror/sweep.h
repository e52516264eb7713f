/* Removing what no generation needs any more.  Inside receiver/mirror only. */
#ifndef RECEIVER_MIRROR_SWEEP_H
#define RECEIVER_MIRROR_SWEEP_H

struct err;
struct store;

enum sweep {
    SWEEP_ORPHANS, /* what lies outside the kept generations, and temporaries */
    SWEEP_ALL      /* and what runs have staged: redo, new images */
};

/*
 * Against s->newest.  Under the exclusive lock, or under the run lock when nothing is pending.
 * 0, or -1: ERR_SYSTEM and its like.
 */
int store_sweep(struct store *s, enum sweep what, struct err *e);

#endif
