#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/wire/bootstrap.h"
#include "protocol/wire/handshake.h"
#include "protocol/wire/hkdf.h"
#include "tests/unit/wire/hex.h"
#include "tests/unit/wire/vectors.h"

static const struct handshake_offer whole_offer = {
    .connection = VECTOR_CONNECTION,
    .aead_set = AEAD_SET_ALL,
    .mode_set = RECORD_MODE_SET_ALL,
};
static const struct handshake_choice first_choice = { .aead = AEAD_AES_256_GCM,
                                                      .mode = RECORD_ENCRYPT };

static struct session_secret vector_secret(void)
{
    struct session_secret s;

    hex(s.id, sizeof s.id, VECTOR_SESSION_ID);
    hex(s.key, sizeof s.key, VECTOR_SECRET);
    return s;
}

static void vectors_come_out(void **state)
{
    struct session_secret s = vector_secret();
    uint8_t n1[HANDSHAKE_NONCE_BYTES], n2[HANDSHAKE_NONCE_BYTES];
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES], want[HANDSHAKE_M1_BYTES];
    struct err e;

    (void)state;
    hex(n1, sizeof n1, VECTOR_NONCE_1);
    hex(n2, sizeof n2, VECTOR_NONCE_2);
    handshake_offer_with(&s, &whole_offer, n1, m1);
    assert_int_equal(hex(want, sizeof want, VECTOR_M1), HANDSHAKE_M1_BYTES);
    assert_memory_equal(m1, want, sizeof m1);
    for (size_t i = 0; i < ARRAY_COUNT(vectors); i++) {
        struct handshake_choice choice = { .aead = vectors[i].aead, .mode = vectors[i].mode };
        struct handshake_keys ours, theirs;
        uint8_t key[AEAD_KEY_BYTES];

        assert_int_equal(handshake_answer_with(&s, m1, &choice, n2, m2, &ours, &e), 0);
        assert_int_equal(hex(want, sizeof want, vectors[i].m2), HANDSHAKE_M2_BYTES);
        assert_memory_equal(m2, want, sizeof m2);
        assert_int_equal(handshake_finish(&s, m1, m2, &theirs, &e), 0);
        hex(key, sizeof key, vectors[i].to_responder);
        assert_memory_equal(theirs.send, key, sizeof key);
        assert_memory_equal(ours.receive, key, sizeof key);
        hex(key, sizeof key, vectors[i].to_initiator);
        assert_memory_equal(theirs.receive, key, sizeof key);
        assert_memory_equal(ours.send, key, sizeof key);
        assert_int_equal(theirs.connection, VECTOR_CONNECTION);
        assert_int_equal(ours.connection, VECTOR_CONNECTION);
        assert_int_equal(theirs.choice.aead, choice.aead);
        assert_int_equal(theirs.choice.mode, choice.mode);
    }
}

static void two_ends_agree_and_talk(void **state)
{
    struct session_secret s;
    struct handshake_offer offer;
    struct handshake_choice choice;
    struct handshake_keys agent, receiver;
    struct record_key from = { 0 }, to = { 0 };
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES], id[SESSION_ID_BYTES];
    uint8_t r[RECORD_OVERHEAD_BYTES + 5] = { 0 }, *payload;
    size_t bytes;
    struct err e;

    (void)state;
    assert_int_equal(session_secret_make(&s, &e), 0);
    assert_int_equal(handshake_offer(&s,
                                     &(struct handshake_offer){ .connection = 3,
                                                                .aead_set = aead_sodium_offer(),
                                                                .mode_set = RECORD_MODE_SET_ALL },
                                     m1, &e),
                     0);
    assert_true(handshake_m1_session(m1, id));
    assert_memory_equal(id, s.id, sizeof id);
    assert_int_equal(handshake_read_m1(&s, m1, &offer, &e), 0);
    assert_int_equal(offer.connection, 3);
    assert_int_equal(offer.aead_set, aead_sodium_offer());
    assert_int_equal(
        handshake_choose(&offer, aead_sodium_offer(), RECORD_MODE_SET_ALL, &choice, &e), 0);
    assert_int_equal(handshake_answer(&s, m1, &choice, m2, &receiver, &e), 0);
    assert_int_equal(handshake_finish(&s, m1, m2, &agent, &e), 0);
    assert_memory_not_equal(agent.send, agent.receive, AEAD_KEY_BYTES);

    assert_int_equal(record_key_start(&from, aead_sodium_find(agent.choice.aead), agent.choice.mode,
                                      agent.send, &e),
                     0);
    assert_int_equal(record_key_start(&to, aead_sodium_find(receiver.choice.aead),
                                      receiver.choice.mode, receiver.receive, &e),
                     0);
    memcpy(r + RECORD_HEADER_BYTES, "hello", 5);
    assert_int_equal(record_seal(&from, r, 5, &e), 0);
    assert_int_equal(record_open(&to, r, sizeof r, &payload, &bytes, &e), 0);
    assert_memory_equal(payload, "hello", 5);
    record_key_end(&from);
    record_key_end(&to);
    handshake_keys_wipe(&agent);
    handshake_keys_wipe(&receiver);
    session_secret_wipe(&s);
    assert_memory_equal(s.key, agent.send, sizeof s.key); /* both are zeros */
}

static void every_flipped_bit_of_m1_is_refused(void **state)
{
    struct session_secret s = vector_secret();
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES];
    struct handshake_keys keys;
    struct handshake_offer offer;
    struct err e;

    (void)state;
    assert_int_equal(handshake_offer(&s, &whole_offer, m1, &e), 0);
    for (size_t bit = 0; bit < 8 * sizeof m1; bit++) {
        m1[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(handshake_read_m1(&s, m1, &offer, &e), -1);
        assert_int_equal(e.code, ERR_AUTH);
        /* Nothing that could be sent is made. */
        memset(m2, 0xee, sizeof m2);
        assert_int_equal(handshake_answer(&s, m1, &first_choice, m2, &keys, &e), -1);
        for (size_t i = 0; i < sizeof m2; i++)
            assert_int_equal(m2[i], 0xee);
        m1[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(handshake_read_m1(&s, m1, &offer, &e), 0);
}

static void every_flipped_bit_of_m2_is_refused(void **state)
{
    struct session_secret s = vector_secret();
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES];
    struct handshake_keys keys;
    struct err e;

    (void)state;
    assert_int_equal(handshake_offer(&s, &whole_offer, m1, &e), 0);
    assert_int_equal(handshake_answer(&s, m1, &first_choice, m2, &keys, &e), 0);
    for (size_t bit = 0; bit < 8 * sizeof m2; bit++) {
        m2[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(handshake_finish(&s, m1, m2, &keys, &e), -1);
        assert_int_equal(e.code, ERR_AUTH);
        m2[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(handshake_finish(&s, m1, m2, &keys, &e), 0);
}

static void another_secret_or_session_is_refused(void **state)
{
    struct session_secret s = vector_secret(), other;
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES];
    struct handshake_offer offer;
    struct handshake_keys keys;
    struct err e;

    (void)state;
    assert_int_equal(handshake_offer(&s, &whole_offer, m1, &e), 0);
    for (int change = 0; change < 2; change++) {
        other = s;
        (change == 0 ? other.key : other.id)[7] ^= 1;
        assert_int_equal(handshake_read_m1(&other, m1, &offer, &e), -1);
        assert_int_equal(e.code, ERR_AUTH);
        assert_int_equal(handshake_answer(&s, m1, &first_choice, m2, &keys, &e), 0);
        assert_int_equal(handshake_finish(&other, m1, m2, &keys, &e), -1);
        assert_int_equal(e.code, ERR_AUTH);
    }
}

/* An answer belongs to one M1, and no message can be played back in the other role. */
static void answers_to_others_and_mirrored_messages_are_refused(void **state)
{
    struct session_secret s = vector_secret();
    uint8_t first[HANDSHAKE_M1_BYTES], second[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES];
    uint8_t mirrored[HANDSHAKE_M1_BYTES] = { 0 };
    struct handshake_offer offer;
    struct handshake_keys keys;
    struct err e;

    (void)state;
    assert_int_equal(handshake_offer(&s, &whole_offer, first, &e), 0);
    assert_int_equal(handshake_offer(&s, &whole_offer, second, &e), 0);
    assert_memory_not_equal(first, second, sizeof first);
    assert_int_equal(handshake_answer(&s, first, &first_choice, m2, &keys, &e), 0);
    assert_int_equal(handshake_finish(&s, second, m2, &keys, &e), -1);
    assert_int_equal(e.code, ERR_AUTH);
    assert_int_equal(handshake_finish(&s, first, first, &keys, &e), -1);
    assert_int_equal(e.code, ERR_AUTH);
    memcpy(mirrored, m2, sizeof m2);
    assert_int_equal(handshake_read_m1(&s, mirrored, &offer, &e), -1);
    assert_int_equal(e.code, ERR_AUTH);
    memcpy(mirrored, first, 8); /* with M1's magic before it */
    assert_int_equal(handshake_read_m1(&s, mirrored, &offer, &e), -1);
}

static void keys_differ_by_direction_connection_nonce_and_choice(void **state)
{
    struct session_secret s = vector_secret();
    uint8_t seen[200][AEAD_KEY_BYTES];
    size_t count = 0;
    struct err e;

    (void)state;
    for (uint32_t connection = 0; connection < 5; connection++)
        for (uint8_t aead = 1; aead < AEAD_ID_END; aead++)
            for (uint8_t mode = 1; mode < RECORD_MODE_END; mode++)
                for (uint8_t n = 0; n < 4; n++) {
                    const uint8_t n1[HANDSHAKE_NONCE_BYTES] = { n & 1 }, n2[32] = { n >> 1 };
                    struct handshake_offer offer = whole_offer;
                    struct handshake_choice choice = { .aead = aead, .mode = mode };
                    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES];
                    struct handshake_keys keys;

                    offer.connection = connection;
                    handshake_offer_with(&s, &offer, n1, m1);
                    assert_int_equal(handshake_answer_with(&s, m1, &choice, n2, m2, &keys, &e), 0);
                    memcpy(seen[count++], keys.send, AEAD_KEY_BYTES);
                    memcpy(seen[count++], keys.receive, AEAD_KEY_BYTES);
                }
    assert_int_equal(count, 160);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(seen[i], seen[j], AEAD_KEY_BYTES);
}

static void only_what_both_have_is_chosen(void **state)
{
    struct handshake_offer offer = whole_offer;
    struct handshake_choice c;
    struct err e;

    (void)state;
    assert_int_equal(handshake_choose(&offer, AEAD_SET_ALL, RECORD_MODE_SET_ALL, &c, &e), 0);
    assert_int_equal(c.aead, AEAD_AES_256_GCM);
    assert_int_equal(c.mode, RECORD_ENCRYPT);
    assert_int_equal(handshake_choose(&offer, AEAD_SET_ALL, record_mode_bit(RECORD_AUTH), &c, &e),
                     0);
    assert_int_equal(c.mode, RECORD_AUTH);
    offer.aead_set = aead_bit(AEAD_CHACHA20_POLY1305);
    assert_int_equal(handshake_choose(&offer, AEAD_SET_ALL, RECORD_MODE_SET_ALL, &c, &e), 0);
    assert_int_equal(c.aead, AEAD_CHACHA20_POLY1305);
    assert_int_equal(
        handshake_choose(&offer, aead_bit(AEAD_AES_256_GCM), RECORD_MODE_SET_ALL, &c, &e), -1);
    assert_int_equal(e.code, ERR_PEER);
    offer.mode_set = record_mode_bit(RECORD_ENCRYPT);
    assert_int_equal(handshake_choose(&offer, AEAD_SET_ALL, record_mode_bit(RECORD_AUTH), &c, &e),
                     -1);
    assert_int_equal(e.code, ERR_PEER);
}

static void a_choice_that_was_not_offered_is_refused_at_both_ends(void **state)
{
    static const struct handshake_choice bad[] = {
        { AEAD_AES_256_GCM, RECORD_ENCRYPT },
        { AEAD_CHACHA20_POLY1305, RECORD_AUTH },
        { 0, RECORD_ENCRYPT },
        { AEAD_CHACHA20_POLY1305, 0 },
        { AEAD_ID_END, RECORD_ENCRYPT },
        { 255, 255 },
    };
    struct session_secret s = vector_secret();
    struct handshake_offer narrow = { .connection = 1,
                                      .aead_set = aead_bit(AEAD_CHACHA20_POLY1305),
                                      .mode_set = record_mode_bit(RECORD_ENCRYPT) };
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES];
    struct handshake_keys keys;
    struct err e;

    (void)state;
    assert_int_equal(handshake_offer(&s, &narrow, m1, &e), 0);
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(handshake_answer(&s, m1, &bad[i], m2, &keys, &e), -1);
        assert_int_equal(e.code, ERR_PEER);
    }
}

/* Offers with the right MAC that make no sense: from an agent that is not ours, or is newer. */
static void an_offer_of_nothing_or_of_unknown_things_is_refused(void **state)
{
    static const struct handshake_offer bad[] = {
        { 1, 0, RECORD_MODE_SET_ALL },    { 1, AEAD_SET_ALL, 0 }, { 1, 0x80, RECORD_MODE_SET_ALL },
        { 1, 0xff, RECORD_MODE_SET_ALL }, { 1, AEAD_SET_ALL, 4 },
    };
    struct session_secret s = vector_secret();
    uint8_t m1[HANDSHAKE_M1_BYTES];
    struct handshake_offer offer;
    struct err e;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(handshake_offer(&s, &bad[i], m1, &e), 0);
        assert_int_equal(handshake_read_m1(&s, m1, &offer, &e), -1);
        assert_int_equal(e.code, ERR_PEER);
    }
}

/* What an owner of the secret with another version of the program would send: right in all else. */
static void mac_again(const struct session_secret *s, const char *label, uint8_t *message,
                      size_t bytes, const uint8_t *before, size_t before_bytes)
{
    uint8_t root[32], key[32], all[HANDSHAKE_M1_BYTES + HANDSHAKE_M2_BYTES];

    memcpy(all, before, before_bytes);
    memcpy(all + before_bytes, message, bytes - 32);
    hkdf_extract(root, s->id, sizeof s->id, s->key, sizeof s->key);
    hkdf_expand(key, sizeof key, root, (const uint8_t *)label, strlen(label));
    hkdf_extract(message + bytes - 32, key, sizeof key, all, before_bytes + bytes - 32);
}

static void another_version_is_refused_by_name(void **state)
{
    struct session_secret s = vector_secret();
    uint8_t m1[HANDSHAKE_M1_BYTES], m2[HANDSHAKE_M2_BYTES], other[HANDSHAKE_M1_BYTES];
    struct handshake_offer offer;
    struct handshake_keys keys;
    struct err e;

    (void)state;
    assert_int_equal(handshake_offer(&s, &whole_offer, m1, &e), 0);
    assert_int_equal(handshake_answer(&s, m1, &first_choice, m2, &keys, &e), 0);
    memcpy(other, m1, sizeof other);
    mac_again(&s, "vmferry 1 m1", other, sizeof other, m1, 0);
    assert_memory_equal(other, m1, sizeof other); /* the test's own MAC is right */
    other[8] = 2;
    mac_again(&s, "vmferry 1 m1", other, sizeof other, m1, 0);
    assert_int_equal(handshake_read_m1(&s, other, &offer, &e), -1);
    assert_int_equal(e.code, ERR_PEER);
    assert_non_null(strstr(e.text, "version 2"));

    /* The same for M2: version, a choice that was not offered, reserved bits. */
    for (size_t at = 8; at < 16; at++) {
        uint8_t answer[HANDSHAKE_M2_BYTES];

        memcpy(answer, m2, sizeof answer);
        answer[at] ^= 0x40;
        mac_again(&s, "vmferry 1 m2", answer, sizeof answer, m1, sizeof m1);
        assert_int_equal(handshake_finish(&s, m1, answer, &keys, &e), -1);
        assert_int_equal(e.code, ERR_PEER);
    }
}

static void random_bytes_are_no_handshake(void **state)
{
    struct session_secret s = vector_secret();
    uint64_t seed = 0x5eed0004;

    (void)state;
    print_message("seed 0x%llx\n", (unsigned long long)seed);
    for (int i = 0; i < 5000; i++) {
        uint8_t *m1 = malloc(HANDSHAKE_M1_BYTES), *m2 = malloc(HANDSHAKE_M2_BYTES);
        struct handshake_offer offer = { .connection = 99 };
        struct handshake_keys keys;
        uint8_t id[SESSION_ID_BYTES];
        struct err e;

        assert_non_null(m1);
        assert_non_null(m2);
        fill_random(&seed, m1, HANDSHAKE_M1_BYTES);
        fill_random(&seed, m2, HANDSHAKE_M2_BYTES);
        assert_false(handshake_m1_session(m1, id));
        if (i % 2 == 0)
            hex(m1, 64, "564d46310d0a1a0a0100030307000000101112131415161718191a1b1c1d1e1f");
        if (i % 2 == 0)
            hex(m2, 64, "564d46320d0a1a0a0100010100000000");
        assert_int_equal(handshake_read_m1(&s, m1, &offer, &e), -1);
        assert_int_equal(e.code, ERR_AUTH);
        assert_int_equal(offer.connection, 99);
        assert_int_equal(handshake_finish(&s, m1, m2, &keys, &e), -1);
        assert_int_equal(e.code, ERR_AUTH);
        free(m1);
        free(m2);
    }
}

/* --- bootstrap --- */

static struct bootstrap good_bootstrap(void)
{
    return (struct bootstrap){
        .secret = vector_secret(),
        .aead_set = AEAD_SET_ALL,
        .mode_set = record_mode_bit(RECORD_ENCRYPT),
        .workers_max = 4,
        .memory_max_bytes = 64 << 20,
        .life_max_s = 86400,
        .silence_max_ms = 30000,
    };
}

static void a_bootstrap_arrives_as_it_was(void **state)
{
    struct bootstrap b = good_bootstrap(), got;
    uint8_t out[BOOTSTRAP_BYTES], want[BOOTSTRAP_BYTES];
    struct err e;

    (void)state;
    bootstrap_encode(&b, out);
    assert_int_equal(hex(want, sizeof want, VECTOR_BOOTSTRAP), BOOTSTRAP_BYTES);
    assert_memory_equal(out, want, sizeof out);
    assert_int_equal(bootstrap_decode(&got, out, &e), 0);
    assert_memory_equal(&got.secret, &b.secret, sizeof b.secret);
    assert_int_equal(got.aead_set, b.aead_set);
    assert_int_equal(got.mode_set, b.mode_set);
    assert_int_equal(got.workers_max, b.workers_max);
    assert_true(got.memory_max_bytes == b.memory_max_bytes);
    assert_int_equal(got.life_max_s, b.life_max_s);
    assert_int_equal(got.silence_max_ms, b.silence_max_ms);
}

static enum err_code decode_code(const struct bootstrap *b)
{
    uint8_t out[BOOTSTRAP_BYTES];
    struct bootstrap got;
    struct err e = { .code = ERR_NONE };

    bootstrap_encode(b, out);
    return bootstrap_decode(&got, out, &e) == 0 ? ERR_NONE : e.code;
}

static void a_bootstrap_with_odd_values_is_refused(void **state)
{
    struct bootstrap b = good_bootstrap(), got;
    uint8_t out[BOOTSTRAP_BYTES];
    struct err e;

    (void)state;
    bootstrap_encode(&b, out);
    for (size_t at = 0; at < BOOTSTRAP_BYTES; at++) {
        bool fixed = at < 10 || at >= BOOTSTRAP_BYTES - 16; /* magic, version, reserved */

        out[at] ^= 0x80;
        if (fixed) {
            assert_int_equal(bootstrap_decode(&got, out, &e), -1);
            assert_int_equal(e.code, ERR_PEER);
        }
        out[at] ^= 0x80;
    }
#define ODD(field, value, want)                                                                    \
    b = good_bootstrap();                                                                          \
    b.field = value;                                                                               \
    assert_int_equal(decode_code(&b), want)
    ODD(aead_set, 0, ERR_PEER);
    ODD(aead_set, 4, ERR_PEER);
    ODD(mode_set, 0, ERR_PEER);
    ODD(mode_set, 0x81, ERR_PEER);
    ODD(workers_max, 0, ERR_NONE);
    ODD(workers_max, BOOTSTRAP_WORKERS_MAX, ERR_NONE);
    ODD(workers_max, BOOTSTRAP_WORKERS_MAX + 1, ERR_LIMIT);
    ODD(memory_max_bytes, 0, ERR_LIMIT);
    ODD(memory_max_bytes, BOOTSTRAP_MEMORY_MIN - 1, ERR_LIMIT);
    ODD(memory_max_bytes, (uint64_t)BOOTSTRAP_MEMORY_MAX + 1, ERR_LIMIT);
    ODD(memory_max_bytes, UINT64_MAX, ERR_LIMIT);
    ODD(life_max_s, 0, ERR_LIMIT);
    ODD(life_max_s, UINT32_MAX, ERR_LIMIT);
    ODD(silence_max_ms, 0, ERR_LIMIT);
    ODD(silence_max_ms, 999, ERR_LIMIT);
    ODD(silence_max_ms, UINT32_MAX, ERR_LIMIT);
#undef ODD
}

static void the_greeting_is_found_behind_any_noise(void **state)
{
    uint8_t greeting[GREETING_BYTES], *all;
    static const char *const noise[] = {
        "",
        "Welcome to host esx1\n",
        "no line end",
        "\nvmferry-agent ",
        "\nvmferry-agent 0000000x\n",
        "\nvmferry-agent 0000\nvmferry-agent 00",
        "\nvmferry-agent 00000000\n",
        "\nvmferry-agent 00000001 \n",
    };

    (void)state;
    bootstrap_greeting(greeting);
    assert_memory_equal(greeting, "\nvmferry-agent 00000001\n", GREETING_BYTES);
    for (size_t i = 0; i < ARRAY_COUNT(noise); i++) {
        size_t before = strlen(noise[i]), whole = before + GREETING_BYTES + 3;

        /* Byte by byte, as it comes: found with the last byte of the greeting and not before. */
        for (size_t count = 0; count <= whole; count++) {
            uint32_t version = 0;
            size_t end;

            all = malloc(whole);
            assert_non_null(all);
            memcpy(all, noise[i], before);
            memcpy(all + before, greeting, GREETING_BYTES);
            memcpy(all + before + GREETING_BYTES, "VMF", 3);
            all = realloc(all, count > 0 ? count : 1);
            end = bootstrap_find_greeting(all, count, &version);
            if (count < before + GREETING_BYTES) {
                assert_int_equal(end, 0);
            } else {
                assert_int_equal(end, before + GREETING_BYTES);
                assert_int_equal(version, 1);
            }
            free(all);
        }
    }
}

static void another_version_is_told_by_the_greeting(void **state)
{
    static const char text[] = "banner\nvmferry-agent 00000042\n";
    uint32_t version;

    (void)state;
    assert_int_equal(bootstrap_find_greeting((const uint8_t *)text, strlen(text), &version),
                     strlen(text));
    assert_int_equal(version, 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_come_out),
        cmocka_unit_test(two_ends_agree_and_talk),
        cmocka_unit_test(every_flipped_bit_of_m1_is_refused),
        cmocka_unit_test(every_flipped_bit_of_m2_is_refused),
        cmocka_unit_test(another_secret_or_session_is_refused),
        cmocka_unit_test(answers_to_others_and_mirrored_messages_are_refused),
        cmocka_unit_test(keys_differ_by_direction_connection_nonce_and_choice),
        cmocka_unit_test(only_what_both_have_is_chosen),
        cmocka_unit_test(a_choice_that_was_not_offered_is_refused_at_both_ends),
        cmocka_unit_test(an_offer_of_nothing_or_of_unknown_things_is_refused),
        cmocka_unit_test(another_version_is_refused_by_name),
        cmocka_unit_test(random_bytes_are_no_handshake),
        cmocka_unit_test(a_bootstrap_arrives_as_it_was),
        cmocka_unit_test(a_bootstrap_with_odd_values_is_refused),
        cmocka_unit_test(the_greeting_is_found_behind_any_noise),
        cmocka_unit_test(another_version_is_told_by_the_greeting),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
