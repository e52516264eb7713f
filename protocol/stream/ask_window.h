/*
 * What a source end that asks first holds back: changed blocks, packed, while the sink is asked
 * whether it has them, and what else comes between them, in the order of the disk.  Bounded in
 * bytes and in blocks.
 */
#ifndef PROTOCOL_STREAM_ASK_WINDOW_H
#define PROTOCOL_STREAM_ASK_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/block/ask_id.h"
#include "protocol/block/digest.h"
#include "protocol/wire/messages.h"

struct ask_window;
struct err;
struct piece_block;
struct stream_message;

enum {
    ASK_BLOCKS_MAX = 2048, /* asked for and not told of yet, at both ends */
};

enum ask_state {
    ASK_RUN,     /* no data: `run` says what */
    ASK_NEW,     /* to be asked for */
    ASK_ASKED,   /* no answer yet */
    ASK_LACKING, /* to be sent */
    ASK_KNOWN    /* the sink has it */
};

struct ask_item {
    enum ask_state state;
    enum run_kind run;
    bool asked; /* a block that the sink was or will be asked for */
    uint64_t offset_bytes, length_bytes;
    struct digest digest;
    uint8_t id[ASK_ID_BYTES];
    uint8_t encoding;
    const uint8_t *packed; /* inside the window */
    size_t packed_bytes;
    uint64_t packed_end; /* the window's own */
};

/* For so many bytes of packed blocks; one block fits whatever it says.  0, or -1 (ERR_SYSTEM). */
int ask_window_new(struct ask_window **out, size_t bytes, uint32_t block_bytes, struct err *e);
void ask_window_free(struct ask_window *w); /* NULL is allowed */

/* Room for one more item with so many bytes. */
bool ask_window_takes(const struct ask_window *w, size_t packed_bytes);

/* Add a run, or a block (asked for if its job made an id for that); there must be room. */
void ask_window_run(struct ask_window *w, enum run_kind kind, uint64_t offset_bytes,
                    uint64_t length_bytes);
void ask_window_block(struct ask_window *w, const struct piece_block *b, uint64_t offset_bytes,
                      uint64_t length_bytes);

/* Blocks that are to be asked for. */
size_t ask_window_new_blocks(const struct ask_window *w);

/* Write the tail of an `ask` about the next of them; they count as asked.  Returns its bytes. */
size_t ask_window_question(struct ask_window *w, size_t blocks, uint8_t *tail, size_t room);

/* Take an `answer`.  0, or -1 with ERR_PEER: it fits no question. */
int ask_window_answer(struct ask_window *w, const struct stream_message *m, struct err *e);

/* The first item, which is to be told of next; NULL when the window is empty. */
const struct ask_item *ask_window_first(const struct ask_window *w);
void ask_window_drop(struct ask_window *w);

#endif
