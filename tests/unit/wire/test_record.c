#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/wire/record.h"
#include "tests/unit/wire/hex.h"
#include "tests/unit/wire/vectors.h"

/* Two ends of one direction, under one secret. */
struct pair {
    struct record_key seal, open;
};

static const uint8_t secret[AEAD_KEY_BYTES] = { 's', 'e', 'c', 'r', 'e', 't' };

static struct pair start(uint8_t aead, enum record_mode mode)
{
    struct pair p = { 0 };
    struct err e;

    assert_int_equal(record_key_start(&p.seal, aead_sodium_find(aead), mode, secret, &e), 0);
    assert_int_equal(record_key_start(&p.open, aead_sodium_find(aead), mode, secret, &e), 0);
    return p;
}

static void end(struct pair *p)
{
    record_key_end(&p->seal);
    record_key_end(&p->open);
    record_key_end(&p->open); /* the empty value is allowed */
}

/* A sealed record of exactly its size, so that a sanitizer sees one byte too many. */
static uint8_t *sealed(struct record_key *k, const char *text, size_t *bytes)
{
    uint8_t *r;
    struct err e;

    *bytes = strlen(text) + RECORD_OVERHEAD_BYTES;
    r = calloc(1, *bytes);
    assert_non_null(r);
    memcpy(r + RECORD_HEADER_BYTES, text, strlen(text));
    assert_int_equal(record_seal(k, r, strlen(text), &e), 0);
    return r;
}

static void assert_opens(struct record_key *k, uint8_t *record, size_t bytes, const char *text)
{
    uint8_t *payload;
    size_t payload_bytes;
    struct err e;

    assert_int_equal(record_open(k, record, bytes, &payload, &payload_bytes, &e), 0);
    assert_int_equal(payload_bytes, strlen(text));
    assert_memory_equal(payload, text, payload_bytes);
}

/* Returns the code of the refusal, and checks that the key is dead afterwards. */
static enum err_code refused(struct record_key *k, uint8_t *record, size_t bytes)
{
    uint8_t spare[64] = { 0 }, *payload = NULL;
    size_t payload_bytes = 0;
    struct err e, later;

    assert_int_equal(record_open(k, record, bytes, &payload, &payload_bytes, &e), -1);
    assert_null(payload);
    assert_true(k->dead);
    assert_int_equal(record_open(k, record, bytes, &payload, &payload_bytes, &later), -1);
    assert_int_equal(later.code, ERR_PEER);
    assert_int_equal(record_seal(k, spare, 1, &later), -1);
    return e.code;
}

#define EACH_KIND(aead, mode)                                                                      \
    for (uint8_t aead = 1; aead < AEAD_ID_END; aead++)                                             \
        for (enum record_mode mode = 1; mode < RECORD_MODE_END; mode++)                            \
            if (aead_sodium_find(aead) != NULL)

static void vectors_come_out_over_two_records(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(vectors); i++) {
        const struct vector *v = &vectors[i];
        const struct aead *aead = aead_sodium_find(v->aead);
        struct record_key k = { 0 }, back = { 0 };
        uint8_t key[32], want[64], *got;
        size_t want_bytes, got_bytes;
        struct err e;

        if (aead == NULL)
            continue;
        hex(key, sizeof key, v->to_responder);
        assert_int_equal(record_key_start(&k, aead, v->mode, key, &e), 0);
        got = sealed(&k, VECTOR_FIRST_TEXT, &got_bytes);
        want_bytes = hex(want, sizeof want, v->first);
        assert_int_equal(got_bytes, want_bytes);
        assert_memory_equal(got, want, want_bytes);
        free(got);
        got = sealed(&k, VECTOR_SECOND_TEXT, &got_bytes);
        want_bytes = hex(want, sizeof want, v->second);
        assert_int_equal(got_bytes, want_bytes);
        assert_memory_equal(got, want, want_bytes);
        free(got);
        hex(key, sizeof key, v->to_initiator);
        assert_int_equal(record_key_start(&back, aead, v->mode, key, &e), 0);
        want_bytes = hex(want, sizeof want, v->answer);
        assert_opens(&back, want, want_bytes, VECTOR_ANSWER_TEXT);
        record_key_end(&k);
        record_key_end(&back);
    }
}

static void records_arrive_in_order(void **state)
{
    (void)state;
    EACH_KIND(aead, mode)
    {
        struct pair p = start(aead, mode);

        for (int i = 0; i < 1000; i++) {
            char text[64];
            size_t bytes;
            uint8_t *r;

            snprintf(text, sizeof text, "message number %d", i);
            r = sealed(&p.seal, text, &bytes);
            /* Only mode AUTH shows the payload on the wire. */
            assert_int_equal(memcmp(r + RECORD_HEADER_BYTES, text, strlen(text)) == 0,
                             mode == RECORD_AUTH);
            assert_opens(&p.open, r, bytes, text);
            free(r);
        }
        assert_true(p.seal.counter == 1000 && p.open.counter == 1000);
        end(&p);
    }
}

static void every_flipped_bit_is_refused(void **state)
{
    (void)state;
    EACH_KIND(aead, mode)
    {
        size_t bits = 8 * (strlen("payload") + RECORD_OVERHEAD_BYTES);

        for (size_t bit = 0; bit < bits; bit++) {
            struct pair p = start(aead, mode);
            size_t bytes;
            uint8_t *r = sealed(&p.seal, "payload", &bytes);
            enum err_code code;

            r[bit / 8] ^= (uint8_t)(1u << bit % 8);
            code = refused(&p.open, r, bytes);
            if (bit < 32) /* the length: too long, empty, or not that of the record */
                assert_true(code == ERR_CORRUPT || code == ERR_LIMIT || code == ERR_PEER);
            else
                assert_int_equal(code, bit < 64 ? ERR_PEER : ERR_CORRUPT);
            free(r);
            end(&p);
        }
    }
}

static void a_record_sent_twice_is_refused(void **state)
{
    (void)state;
    EACH_KIND(aead, mode)
    {
        struct pair p = start(aead, mode);
        size_t bytes;
        uint8_t *r = sealed(&p.seal, "once", &bytes), copy[64];

        memcpy(copy, r, bytes);
        assert_opens(&p.open, r, bytes, "once");
        assert_int_equal(refused(&p.open, copy, bytes), ERR_CORRUPT);
        free(r);
        end(&p);
    }
}

static void records_out_of_order_or_missing_are_refused(void **state)
{
    (void)state;
    EACH_KIND(aead, mode)
    {
        struct pair p = start(aead, mode);
        size_t first_bytes, second_bytes;
        uint8_t *first = sealed(&p.seal, "1st", &first_bytes);
        uint8_t *second = sealed(&p.seal, "2nd", &second_bytes);

        assert_int_equal(refused(&p.open, second, second_bytes), ERR_CORRUPT);
        free(first);
        free(second);
        end(&p);
    }
}

static void a_cut_or_longer_record_is_refused(void **state)
{
    (void)state;
    EACH_KIND(aead, mode)
    {
        for (size_t keep = 0; keep <= 36; keep++) {
            struct pair p = start(aead, mode);
            size_t bytes;
            uint8_t *r = sealed(&p.seal, "0123456789", &bytes), *cut = calloc(1, keep + 1);

            assert_non_null(cut);
            assert_int_equal(bytes, 34);
            if (keep != bytes) {
                memcpy(cut, r, keep < bytes ? keep : bytes);
                assert_int_equal(refused(&p.open, cut, keep), ERR_CORRUPT);
            }
            free(cut);
            free(r);
            end(&p);
        }
    }
}

/* The header may be changed together with the record's length: the tag still covers it. */
static void a_shortened_record_with_a_fitting_header_is_refused(void **state)
{
    (void)state;
    EACH_KIND(aead, mode)
    {
        struct pair p = start(aead, mode);
        size_t bytes;
        uint8_t *r = sealed(&p.seal, "0123456789", &bytes);

        r[0] = 9;
        assert_int_equal(refused(&p.open, r, bytes - 1), ERR_CORRUPT);
        free(r);
        end(&p);
    }
}

static void another_key_mode_or_cipher_is_refused(void **state)
{
    static const uint8_t other[AEAD_KEY_BYTES] = { 's', 'e', 'c', 'r', 'e', 'T' };

    (void)state;
    EACH_KIND(aead, mode)
    {
        for (int change = 0; change < 3; change++) {
            enum record_mode open_mode = change == 1 ? 3 - mode : mode;
            uint8_t open_aead = change == 2 ? (uint8_t)(3 - aead) : aead;
            const struct aead *table = aead_sodium_find(open_aead);
            struct record_key k = { 0 };
            struct pair p = start(aead, mode);
            size_t bytes;
            uint8_t *r = sealed(&p.seal, "payload", &bytes);
            struct err e;

            if (table != NULL) {
                assert_int_equal(
                    record_key_start(&k, table, open_mode, change == 0 ? other : secret, &e), 0);
                assert_int_equal(refused(&k, r, bytes), ERR_CORRUPT);
                record_key_end(&k);
            }
            free(r);
            end(&p);
        }
    }
}

static void headers_are_checked_before_anything_else(void **state)
{
    static const struct {
        uint8_t header[RECORD_HEADER_BYTES];
        enum err_code code;
    } bad[] = {
        { { 0, 0, 0, 0, RECORD_MESSAGE, 0, 0, 0 }, ERR_PEER },
        { { 1, 0, 0, 0, 0, 0, 0, 0 }, ERR_PEER },
        { { 1, 0, 0, 0, 2, 0, 0, 0 }, ERR_PEER },
        { { 1, 0, 0, 0, 255, 0, 0, 0 }, ERR_PEER },
        { { 1, 0, 0, 0, RECORD_MESSAGE, 1, 0, 0 }, ERR_PEER },
        { { 1, 0, 0, 0, RECORD_MESSAGE, 0, 1, 0 }, ERR_PEER },
        { { 1, 0, 0, 0, RECORD_MESSAGE, 0, 0, 128 }, ERR_PEER },
        { { 101, 0, 0, 0, RECORD_MESSAGE, 0, 0, 0 }, ERR_LIMIT },
        { { 255, 255, 255, 255, RECORD_MESSAGE, 0, 0, 0 }, ERR_LIMIT },
    };
    static const uint8_t good[RECORD_HEADER_BYTES] = { 100, 0, 0, 0, RECORD_MESSAGE };
    static const uint8_t over[RECORD_HEADER_BYTES] = { 1, 0, 0x41, 0, RECORD_MESSAGE };
    size_t bytes = 77;
    struct err e;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(record_peek(bad[i].header, 100, &bytes, &e), -1);
        assert_int_equal(e.code, bad[i].code);
        assert_int_equal(bytes, 77);
    }
    assert_int_equal(record_peek(good, 100, &bytes, &e), 0);
    assert_int_equal(bytes, 100 + RECORD_OVERHEAD_BYTES);
    /* No caller can lift the protocol's own limit. */
    assert_int_equal(record_peek(over, SIZE_MAX, &bytes, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
}

static void the_longest_payload_goes_through_and_one_more_does_not(void **state)
{
    (void)state;
    EACH_KIND(aead, mode)
    {
        struct pair p = start(aead, mode);
        uint8_t *r = calloc(1, RECORD_PAYLOAD_MAX + RECORD_OVERHEAD_BYTES), *payload;
        size_t bytes;
        struct err e;

        assert_non_null(r);
        assert_int_equal(record_seal(&p.seal, r, (size_t)RECORD_PAYLOAD_MAX + 1, &e), -1);
        assert_int_equal(e.code, ERR_LIMIT);
        assert_int_equal(record_seal(&p.seal, r, 0, &e), -1);
        assert_int_equal(p.seal.counter, 0);
        r[RECORD_HEADER_BYTES + RECORD_PAYLOAD_MAX - 1] = 'z';
        assert_int_equal(record_seal(&p.seal, r, RECORD_PAYLOAD_MAX, &e), 0);
        assert_int_equal(record_open(&p.open, r, RECORD_PAYLOAD_MAX + RECORD_OVERHEAD_BYTES,
                                     &payload, &bytes, &e),
                         0);
        assert_int_equal(bytes, RECORD_PAYLOAD_MAX);
        assert_int_equal(payload[RECORD_PAYLOAD_MAX - 1], 'z');
        free(r);
        end(&p);
    }
}

static void a_key_is_used_for_so_many_records_only(void **state)
{
    struct pair p = start(AEAD_CHACHA20_POLY1305, RECORD_ENCRYPT);
    uint8_t more[RECORD_OVERHEAD_BYTES + 1] = { 0 };
    size_t bytes;
    uint8_t *last;
    struct err e;

    (void)state;
    p.seal.counter = p.open.counter = RECORD_COUNT_MAX - 1;
    last = sealed(&p.seal, "the last one", &bytes);
    assert_opens(&p.open, last, bytes, "the last one");
    assert_int_equal(record_seal(&p.seal, more, 1, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    assert_int_equal(refused(&p.open, last, bytes), ERR_LIMIT);
    free(last);
    end(&p);
}

static void random_bytes_never_open(void **state)
{
    uint64_t seed = 0x5eed0002;

    (void)state;
    print_message("seed 0x%llx\n", (unsigned long long)seed);
    for (int i = 0; i < 20000; i++) {
        struct pair p = start((uint8_t)(AEAD_CHACHA20_POLY1305), 1 + (enum record_mode)(i % 2));
        size_t bytes = (size_t)(next_random(&seed) % 200), said;
        uint8_t *r = malloc(bytes + 1);
        struct err e;

        assert_non_null(r);
        fill_random(&seed, r, bytes);
        /* Half of them with a header that fits, to come as far as the tag. */
        if (i % 4 < 2 && bytes > RECORD_OVERHEAD_BYTES) {
            memset(r, 0, RECORD_HEADER_BYTES);
            r[0] = (uint8_t)(bytes - RECORD_OVERHEAD_BYTES);
            r[4] = RECORD_MESSAGE;
        }
        if (bytes >= RECORD_HEADER_BYTES && record_peek(r, 100, &said, &e) == 0)
            assert_in_range(said, 1 + RECORD_OVERHEAD_BYTES, 100 + RECORD_OVERHEAD_BYTES);
        refused(&p.open, r, bytes);
        free(r);
        end(&p);
    }
}

/* --- nonce audit: (key, nonce) never comes twice --- */

enum { AUDIT_KEYS = 10, AUDIT_RECORDS = 10000 };
static struct {
    uint64_t first_key;
    uint64_t next[AUDIT_KEYS];
    unsigned seen;
} audit;

static void audit_nonce(uint64_t key, const uint8_t nonce[AEAD_NONCE_BYTES])
{
    uint64_t counter = 0;

    if (audit.seen++ == 0)
        audit.first_key = key;
    assert_in_range(key, audit.first_key, audit.first_key + AUDIT_KEYS - 1);
    assert_memory_equal(nonce, "\0\0\0\0", 4);
    for (size_t i = AEAD_NONCE_BYTES; i > 4; i--)
        counter = counter << 8 | nonce[i - 1];
    /* One after the other is the strongest form of "never twice". */
    assert_true(counter == audit.next[key - audit.first_key]++);
}

static void no_nonce_comes_twice(void **state)
{
    struct record_key keys[AUDIT_KEYS] = { { 0 } };
    uint8_t r[RECORD_OVERHEAD_BYTES + 16];
    uint64_t seed = 0x5eed0003;
    struct err e;

    (void)state;
    for (size_t i = 0; i < AUDIT_KEYS; i++)
        assert_int_equal(record_key_start(&keys[i], aead_sodium_find(AEAD_CHACHA20_POLY1305),
                                          RECORD_ENCRYPT, secret, &e),
                         0);
    record_nonce_audit = audit_nonce;
    assert_int_equal(record_seal(&keys[0], r, 1, &e), 0);
    for (int i = 1; i < AUDIT_KEYS * AUDIT_RECORDS; i++)
        assert_int_equal(record_seal(&keys[next_random(&seed) % AUDIT_KEYS], r, 16, &e), 0);
    record_nonce_audit = NULL;
    assert_int_equal(audit.seen, AUDIT_KEYS * AUDIT_RECORDS);
    for (size_t i = 0; i < AUDIT_KEYS; i++)
        record_key_end(&keys[i]);
}

/* An AEAD that fails to seal: its nonce counts as used, and the key is not used again. */
static int never_seal(void *key, const uint8_t nonce[AEAD_NONCE_BYTES], const uint8_t *ad,
                      size_t ad_bytes, const uint8_t *plain, size_t plain_bytes, uint8_t *out,
                      struct err *e)
{
    (void)key, (void)nonce, (void)ad, (void)ad_bytes, (void)plain, (void)plain_bytes, (void)out;
    return err_set(e, ERR_SYSTEM, "no");
}

static int never_key(void **key, const uint8_t s[AEAD_KEY_BYTES], struct err *e)
{
    (void)key, (void)s;
    return err_set(e, ERR_SYSTEM, "no memory");
}

static void a_cipher_that_fails_ends_the_key(void **state)
{
    struct aead bad = *aead_sodium_find(AEAD_CHACHA20_POLY1305);
    struct record_key k = { 0 }, empty = { 0 };
    uint8_t r[RECORD_OVERHEAD_BYTES + 1] = { 0 };
    struct err e;

    (void)state;
    bad.seal = never_seal;
    assert_int_equal(record_key_start(&k, &bad, RECORD_ENCRYPT, secret, &e), 0);
    assert_int_equal(record_seal(&k, r, 1, &e), -1);
    assert_int_equal(e.code, ERR_SYSTEM);
    assert_true(k.dead && k.counter == 1);
    assert_int_equal(record_seal(&k, r, 1, &e), -1);
    assert_int_equal(e.code, ERR_PEER);
    record_key_end(&k);
    bad.key_new = never_key;
    assert_int_equal(record_key_start(&k, &bad, RECORD_ENCRYPT, secret, &e), -1);
    assert_int_equal(e.code, ERR_SYSTEM);
    assert_null(k.aead);
    assert_int_equal(record_seal(&empty, r, 1, &e), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_come_out_over_two_records),
        cmocka_unit_test(records_arrive_in_order),
        cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(a_record_sent_twice_is_refused),
        cmocka_unit_test(records_out_of_order_or_missing_are_refused),
        cmocka_unit_test(a_cut_or_longer_record_is_refused),
        cmocka_unit_test(a_shortened_record_with_a_fitting_header_is_refused),
        cmocka_unit_test(another_key_mode_or_cipher_is_refused),
        cmocka_unit_test(headers_are_checked_before_anything_else),
        cmocka_unit_test(the_longest_payload_goes_through_and_one_more_does_not),
        cmocka_unit_test(a_key_is_used_for_so_many_records_only),
        cmocka_unit_test(random_bytes_never_open),
        cmocka_unit_test(no_nonce_comes_twice),
        cmocka_unit_test(a_cipher_that_fails_ends_the_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
