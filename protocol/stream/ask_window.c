#include "protocol/stream/ask_window.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/cursor.h"
#include "protocol/base/err.h"
#include "protocol/stream/hub.h"
#include "protocol/stream/piece.h"

/* Runs come between blocks, and some blocks may be nothing to ask for. */
enum { ITEMS_MAX = 2 * ASK_BLOCKS_MAX };

struct ask_window {
    struct ask_item items[ITEMS_MAX]; /* a ring */
    size_t first, count;
    size_t to_ask;       /* index of the next item that a question may be about, from `first` */
    size_t to_answer;    /* and that the next answer is about */
    size_t fresh, asked; /* ASK_NEW items; items of blocks that were or will be asked for */
    /* Questions without answer: how many blocks each is about. */
    uint16_t questions[ASK_BLOCKS_MAX];
    size_t question_first, question_count;
    /* Packed blocks, in order; positions count on for ever, modulo `size`. */
    uint8_t *bytes;
    size_t size;
    uint64_t put_at, free_at;
};

int ask_window_new(struct ask_window **out, size_t bytes, uint32_t block_bytes, struct err *e)
{
    struct ask_window *w = calloc(1, sizeof *w);

    if (w == NULL)
        return err_sys(e, "getting memory for blocks that are asked for");
    w->size = block_bytes > bytes ? block_bytes : bytes;
    w->bytes = malloc(w->size);
    if (w->bytes == NULL) {
        free(w);
        return err_sys(e, "getting memory for blocks that are asked for");
    }
    *out = w;
    return 0;
}

void ask_window_free(struct ask_window *w)
{
    if (w == NULL)
        return;
    free(w->bytes);
    free(w);
}

static struct ask_item *item_at(struct ask_window *w, size_t index)
{
    return &w->items[(w->first + index) % ITEMS_MAX];
}

/* Where the next bytes go: never around the end of the ring. */
static uint64_t place_for(const struct ask_window *w, size_t bytes)
{
    size_t at = (size_t)(w->put_at % w->size);

    return at + bytes > w->size ? w->put_at + (w->size - at) : w->put_at;
}

bool ask_window_takes(const struct ask_window *w, size_t packed_bytes)
{
    return w->count < ITEMS_MAX && w->asked < ASK_BLOCKS_MAX &&
           place_for(w, packed_bytes) + packed_bytes - w->free_at <= w->size;
}

static struct ask_item *item_add(struct ask_window *w, enum ask_state state, uint64_t offset_bytes,
                                 uint64_t length_bytes)
{
    struct ask_item *i = item_at(w, w->count++);

    *i = (struct ask_item){ .state = state,
                            .offset_bytes = offset_bytes,
                            .length_bytes = length_bytes,
                            .packed_end = w->put_at };
    return i;
}

void ask_window_run(struct ask_window *w, enum run_kind kind, uint64_t offset_bytes,
                    uint64_t length_bytes)
{
    struct ask_item *last = w->count > 0 ? item_at(w, w->count - 1) : NULL;

    if (last != NULL && last->state == ASK_RUN && last->run == kind)
        last->length_bytes += length_bytes;
    else
        item_add(w, ASK_RUN, offset_bytes, length_bytes)->run = kind;
}

void ask_window_block(struct ask_window *w, const struct piece_block *b, uint64_t offset_bytes,
                      uint64_t length_bytes)
{
    struct ask_item *i = item_add(w, b->asked ? ASK_NEW : ASK_LACKING, offset_bytes, length_bytes);
    uint64_t at = place_for(w, b->packed_bytes);

    memcpy(w->bytes + at % w->size, b->packed, b->packed_bytes);
    i->packed = w->bytes + at % w->size;
    i->packed_bytes = b->packed_bytes;
    i->packed_end = w->put_at = at + b->packed_bytes;
    i->encoding = b->encoding;
    i->digest = b->digest;
    i->asked = b->asked;
    if (b->asked) {
        memcpy(i->id, b->ask_id, sizeof i->id);
        w->fresh++;
        w->asked++;
    }
}

size_t ask_window_new_blocks(const struct ask_window *w)
{
    return w->fresh;
}

size_t ask_window_question(struct ask_window *w, size_t blocks, uint8_t *tail, size_t room)
{
    struct push p = { .at = tail, .left = room };
    size_t about = 0;

    for (; about < blocks && w->to_ask < w->count; w->to_ask++) {
        struct ask_item *i = item_at(w, w->to_ask);

        if (i->state != ASK_NEW)
            continue;
        push_u64(&p, i->offset_bytes);
        push_copy(&p, i->digest.b, sizeof i->digest.b);
        push_copy(&p, i->id, sizeof i->id);
        i->state = ASK_ASKED;
        w->fresh--;
        about++;
    }
    /* There is a place: no more questions can be open than blocks. */
    w->questions[(w->question_first + w->question_count++) % ASK_BLOCKS_MAX] = (uint16_t)about;
    return room - p.left;
}

/* The next `count` blocks without answer get this one.  The window has them all. */
static void settle(struct ask_window *w, uint32_t count, bool known)
{
    while (count > 0) {
        struct ask_item *i = item_at(w, w->to_answer++);

        if (i->state != ASK_ASKED)
            continue;
        i->state = known ? ASK_KNOWN : ASK_LACKING;
        count--;
    }
}

int ask_window_answer(struct ask_window *w, const struct stream_message *m, struct err *e)
{
    struct msg_answer answer;
    uint32_t left;
    struct pull p;

    if (msg_answer_decode(&answer, m->body, m->body_bytes, e) != 0)
        return -1;
    if (w->question_count == 0)
        return err_set(e, ERR_PEER, "an answer without a question");
    left = w->questions[w->question_first];
    p = (struct pull){ .at = answer.tail, .left = answer.tail_bytes };
    while (p.left > 0) {
        uint32_t run = pull_u32(&p);

        if (p.spent || run >> 1 == 0 || run >> 1 > left)
            return err_set(e, ERR_PEER, "an answer that does not fit its question");
        left -= run >> 1;
        settle(w, run >> 1, (run & 1) != 0);
    }
    if (left > 0)
        return err_set(e, ERR_PEER, "an answer that is too short");
    w->question_first = (w->question_first + 1) % ASK_BLOCKS_MAX;
    w->question_count--;
    return 0;
}

const struct ask_item *ask_window_first(const struct ask_window *w)
{
    return w->count > 0 ? &w->items[w->first] : NULL;
}

void ask_window_drop(struct ask_window *w)
{
    const struct ask_item *i = item_at(w, 0);

    w->asked -= i->asked;
    w->free_at = i->packed_end;
    w->first = (w->first + 1) % ITEMS_MAX;
    w->count--;
    /* It needed no answer any more, so neither mark looks for it. */
    w->to_ask -= w->to_ask > 0;
    w->to_answer -= w->to_answer > 0;
    if (w->count == 0)
        w->put_at = w->free_at = 0; /* so that a block as long as the ring fits */
}
