/*
 * The sink end of asking: what the source was told to ask for, its questions in order, and what
 * becomes of the blocks they are about.
 */
#ifndef PROTOCOL_STREAM_SINK_QUESTIONS_H
#define PROTOCOL_STREAM_SINK_QUESTIONS_H

#include "protocol/stream/hub.h"
#include "protocol/stream/sink.h"

struct asked;
struct tree;

/* Empty value: { 0 }. */
struct sink_questions {
    bool told, withdrawn; /* the source asks; it was told that this is of no use */
    struct asked *items;  /* a ring of ASK_BLOCKS_MAX: what was asked for and has not come yet */
    size_t first, count;
    uint64_t end; /* of the last block that was asked for */
};

void sink_questions_free(struct sink_questions *q);

/* Before each opening: nothing of an earlier one counts. */
void sink_questions_reset(struct sink_questions *q);

/* Tell the source to ask, if the sink wants that and the other end can.  0, or -1. */
int sink_questions_begin(struct sink_questions *q, const struct sink *sink, struct stream *st,
                         struct err *e);

/*
 * Answer an `ask` about blocks between `position` and the end of the plan; *tail_bytes are those
 * that came.  -1: ERR_PEER, or the sink's own.
 */
int sink_questions_answer(struct sink_questions *q, struct sink *sink, struct stream *st,
                          const struct stream_message *m, uint64_t position, uint64_t plan_end,
                          uint64_t *tail_bytes, struct err *e);

/* A run of known blocks has come: they go to the sink and into the tree. */
int sink_questions_known(struct sink_questions *q, struct sink *sink, struct tree *tree,
                         const struct msg_run *run, struct err *e);

/* The block at offset has come with this digest: it may be one that was asked for. */
int sink_questions_data(struct sink_questions *q, uint64_t offset_bytes,
                        const struct digest *digest, struct err *e);

/* Anything else has come up to `end`: nothing of it may have been asked for. */
int sink_questions_pass(const struct sink_questions *q, uint64_t end_bytes, struct err *e);

#endif
