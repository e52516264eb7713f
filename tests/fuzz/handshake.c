/*
 * The handshake, and what stands before it: the first byte chooses a raw M1, M1 and M2 as a peer
 * who knows the secret may send them, a bootstrap, or the agent's standard output with a greeting
 * in it.
 */
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/wire/bootstrap.h"
#include "protocol/wire/handshake.h"
#include "tests/fuzz/fuzz.h"

static const struct session_secret secret = { .id = "0123456789abcde",
                                              .key = "a key that both ends know" };

/* A stranger: whatever is sent, it is not accepted. */
static void stranger(struct pull *p)
{
    struct handshake_offer offer;
    struct handshake_keys keys;
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES], id[SESSION_ID_BYTES];
    struct err e;

    pull_copy(p, m1, sizeof m1);
    pull_copy(p, m2, sizeof m2);
    handshake_m1_session(m1, id);
    FUZZ_CHECK(handshake_read_m1(&secret, m1, &offer, &e) != 0);
    FUZZ_CHECK(handshake_finish(&secret, m1, m2, &keys, &e) != 0);
}

/* A peer with the secret offers what it likes; one bit of its words may be damaged on the way. */
static void insider(struct pull *p)
{
    struct handshake_offer sent, got;
    struct handshake_choice choice;
    struct handshake_keys ours, theirs;
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES], nonce[HANDSHAKE_NONCE_BYTES];
    struct err e;
    unsigned bit;

    sent.connection = pull_u32(p);
    sent.aead_set = pull_u8(p);
    sent.mode_set = pull_u8(p);
    choice.aead = pull_u8(p);
    choice.mode = pull_u8(p);
    bit = pull_u16(p);
    pull_copy(p, nonce, sizeof nonce);
    handshake_offer_with(&secret, &sent, nonce, m1);
    if (bit < 8 * HANDSHAKE_M1_BYTES) {
        m1[bit / 8] ^= (uint8_t)(1u << bit % 8);
        FUZZ_CHECK(handshake_read_m1(&secret, m1, &got, &e) != 0);
        return;
    }
    bit -= 8 * HANDSHAKE_M1_BYTES;
    if (handshake_read_m1(&secret, m1, &got, &e) != 0)
        return;
    FUZZ_CHECK(got.connection == sent.connection && got.aead_set == sent.aead_set);
    if ((choice.aead & 0x80) != 0 &&
        handshake_choose(&got, AEAD_SET_ALL, RECORD_MODE_SET_ALL, &choice, &e) != 0)
        return;
    if (handshake_answer_with(&secret, m1, &choice, nonce, m2, &ours, &e) != 0)
        return;
    FUZZ_CHECK((sent.aead_set & aead_bit(choice.aead)) != 0 &&
               (sent.mode_set & record_mode_bit(choice.mode)) != 0);
    if (bit < 8 * HANDSHAKE_M2_BYTES) {
        m2[bit / 8] ^= (uint8_t)(1u << bit % 8);
        FUZZ_CHECK(handshake_finish(&secret, m1, m2, &theirs, &e) != 0);
        return;
    }
    FUZZ_CHECK(handshake_finish(&secret, m1, m2, &theirs, &e) == 0);
    FUZZ_CHECK(memcmp(ours.send, theirs.receive, sizeof ours.send) == 0 &&
               memcmp(ours.receive, theirs.send, sizeof ours.send) == 0);
}

static void bootstrap(struct pull *p)
{
    struct bootstrap b;
    uint8_t in[BOOTSTRAP_BYTES], out[BOOTSTRAP_BYTES];
    struct err e;

    pull_copy(p, in, sizeof in);
    if (bootstrap_decode(&b, in, &e) != 0)
        return;
    FUZZ_CHECK(b.workers_max <= BOOTSTRAP_WORKERS_MAX && b.life_max_s <= BOOTSTRAP_LIFE_MAX_S &&
               b.memory_max_bytes <= BOOTSTRAP_MEMORY_MAX &&
               b.silence_max_ms >= BOOTSTRAP_SILENCE_MIN_MS);
    bootstrap_encode(&b, out);
    FUZZ_CHECK(memcmp(in, out, sizeof in) == 0);
}

static void greeting(struct pull *p)
{
    uint8_t *exact = fuzz_copy(p->at, p->left);
    uint32_t version = 0;
    size_t end = bootstrap_find_greeting(exact, p->left, &version);

    FUZZ_CHECK(end <= p->left && (end == 0 || end >= GREETING_BYTES));
    /* What comes later does not change what was found. */
    if (end > 0)
        FUZZ_CHECK(bootstrap_find_greeting(exact, end, &version) == end);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const kinds[])(struct pull *) = { stranger, insider, bootstrap, greeting };
    struct pull p = { .at = data, .left = size };
    unsigned kind = pull_u8(&p) % 4;

    fuzz_begin();
    kinds[kind](&p);
    fuzz_end();
    return 0;
}
