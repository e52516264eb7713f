#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/wire/aead.h"
#include "tests/unit/wire/hex.h"
#ifdef WITH_OPENSSL
#include "receiver/base/aead_openssl.h"
#endif

static const struct aead *none(uint8_t id)
{
    (void)id;
    return NULL;
}

#ifdef WITH_OPENSSL
#define OPENSSL_FIND aead_openssl_find
#else
#define OPENSSL_FIND none
#endif

static const struct aead *(*const finders[])(uint8_t id) = { aead_sodium_find, OPENSSL_FIND, none };

/* AES-256-GCM: McGrew and Viega, test cases 13, 14 and 16.  ChaCha20-Poly1305: RFC 8439, 2.8.2. */
static const struct published {
    uint8_t id;
    const char *key, *nonce, *ad, *plain, *sealed;
} published[] = {
    { AEAD_AES_256_GCM, "0000000000000000000000000000000000000000000000000000000000000000",
      "000000000000000000000000", "", "", "530f8afbc74536b9a963b4f1c4cb738b" },
    { AEAD_AES_256_GCM, "0000000000000000000000000000000000000000000000000000000000000000",
      "000000000000000000000000", "", "00000000000000000000000000000000",
      "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919" },
    { AEAD_AES_256_GCM, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
      "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
      "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
      "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
      "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
      "76fc6ece0f4e1768cddf8853bb2d551b" },
    { AEAD_CHACHA20_POLY1305, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
      "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
      "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a204966"
      "204920636f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f72207468652066757475"
      "72652c2073756e73637265656e20776f756c642062652069742e",
      "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
      "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
      "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
      "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691" },
};

static void check_published(const struct aead *aead, const struct published *v)
{
    uint8_t key[32], nonce[12], ad[32], plain[128], sealed[160], got[160];
    size_t plain_bytes = hex(plain, sizeof plain, v->plain);
    size_t sealed_bytes = hex(sealed, sizeof sealed, v->sealed);
    size_t ad_bytes = hex(ad, sizeof ad, v->ad);
    struct err e;
    void *k;

    hex(key, sizeof key, v->key);
    hex(nonce, sizeof nonce, v->nonce);
    assert_int_equal(sealed_bytes, plain_bytes + AEAD_TAG_BYTES);
    assert_int_equal(aead->key_new(&k, key, &e), 0);
    /* Twice with one key: a context that keeps anything of the first use shows. */
    for (int round = 0; round < 2; round++) {
        memset(got, 0xee, sizeof got);
        assert_int_equal(aead->seal(k, nonce, ad, ad_bytes, plain, plain_bytes, got, &e), 0);
        assert_memory_equal(got, sealed, sealed_bytes);
        assert_int_equal(aead->open(k, nonce, ad, ad_bytes, sealed, sealed_bytes, got, &e), 0);
        assert_memory_equal(got, plain, plain_bytes);

        memcpy(got, plain, plain_bytes); /* in place */
        assert_int_equal(aead->seal(k, nonce, ad, ad_bytes, got, plain_bytes, got, &e), 0);
        assert_memory_equal(got, sealed, sealed_bytes);
        assert_int_equal(aead->open(k, nonce, ad, ad_bytes, got, sealed_bytes, got, &e), 0);
        assert_memory_equal(got, plain, plain_bytes);
    }
    aead->key_free(k);
}

static void published_vectors_come_out(void **state)
{
    (void)state;
    for (size_t f = 0; f < ARRAY_COUNT(finders); f++)
        for (size_t i = 0; i < ARRAY_COUNT(published); i++) {
            const struct aead *aead = finders[f](published[i].id);

            if (aead != NULL)
                check_published(aead, &published[i]);
        }
}

static void every_flipped_bit_is_refused(void **state)
{
    (void)state;
    for (size_t f = 0; f < ARRAY_COUNT(finders); f++)
        for (uint8_t id = 1; id < AEAD_ID_END; id++) {
            const struct aead *aead = finders[f](id);
            uint8_t all[12 + 5 + 20 + AEAD_TAG_BYTES] = { 1, 2, 3 }, out[20];
            uint8_t *nonce = all, *ad = all + 12, *sealed = all + 17;
            const uint8_t secret[32] = { 9 };
            struct err e;
            void *k;

            if (aead == NULL)
                continue;
            assert_int_equal(aead->key_new(&k, secret, &e), 0);
            assert_int_equal(aead->seal(k, nonce, ad, 5, sealed, 20, sealed, &e), 0);
            for (size_t bit = 0; bit < 8 * sizeof all; bit++) {
                all[bit / 8] ^= (uint8_t)(1u << bit % 8);
                e.code = ERR_NONE;
                assert_int_equal(aead->open(k, nonce, ad, 5, sealed, 36, out, &e), -1);
                assert_int_equal(e.code, ERR_CORRUPT);
                all[bit / 8] ^= (uint8_t)(1u << bit % 8);
            }
            assert_int_equal(aead->open(k, nonce, ad, 4, sealed, 36, out, &e), -1);
            for (size_t cut = 0; cut < 36; cut++)
                assert_int_equal(aead->open(k, nonce, ad, 5, sealed, cut, out, &e), -1);
            /* A refusal does not spoil the key. */
            assert_int_equal(aead->open(k, nonce, ad, 5, sealed, 36, out, &e), 0);
            aead->key_free(k);
        }
}

/* Every pair of implementations, every length about the block sizes, one page, and more. */
static void implementations_understand_each_other(void **state)
{
    uint64_t seed = 0x5eed0001;
    unsigned pairs = 0;

    (void)state;
    print_message("seed 0x%llx\n", (unsigned long long)seed);
    for (uint8_t id = 1; id < AEAD_ID_END; id++)
        for (size_t f = 0; f < ARRAY_COUNT(finders); f++)
            for (size_t g = 0; g < ARRAY_COUNT(finders); g++) {
                const struct aead *from = finders[f](id), *to = finders[g](id);
                uint8_t secret[32], nonce[12];
                void *from_key, *to_key;
                struct err e;

                if (from == NULL || to == NULL)
                    continue;
                pairs++;
                fill_random(&seed, secret, sizeof secret);
                assert_int_equal(from->key_new(&from_key, secret, &e), 0);
                assert_int_equal(to->key_new(&to_key, secret, &e), 0);
                for (size_t n = 0; n < 5000; n += n < 300 ? 1 : 997) {
                    uint8_t *plain = malloc(n + 1), *both = malloc(n + AEAD_TAG_BYTES);
                    uint8_t ad[64];
                    size_t ad_bytes = n % (sizeof ad + 1);

                    assert_non_null(plain);
                    assert_non_null(both);
                    fill_random(&seed, plain, n);
                    fill_random(&seed, nonce, sizeof nonce);
                    fill_random(&seed, ad, sizeof ad);
                    memcpy(both, plain, n);
                    assert_int_equal(from->seal(from_key, nonce, ad, ad_bytes, both, n, both, &e),
                                     0);
                    assert_int_equal(
                        to->open(to_key, nonce, ad, ad_bytes, both, n + AEAD_TAG_BYTES, both, &e),
                        0);
                    assert_memory_equal(both, plain, n);
                    free(plain);
                    free(both);
                }
                from->key_free(from_key);
                to->key_free(to_key);
            }
    /* With both libraries: ChaCha20 four ways at least, AES one way at least. */
    assert_true(pairs >= (finders[1](AEAD_CHACHA20_POLY1305) != NULL ? 5 : 1));
}

static void what_is_offered_is_found(void **state)
{
    (void)state;
    assert_null(aead_sodium_find(0));
    assert_null(aead_sodium_find(AEAD_ID_END));
    assert_null(aead_sodium_find(255));
    assert_non_null(aead_sodium_find(AEAD_CHACHA20_POLY1305));
    assert_int_equal(aead_bit(0) | aead_bit(AEAD_ID_END) | aead_bit(255), 0);
    assert_int_equal(aead_bit(AEAD_AES_256_GCM) | aead_bit(AEAD_CHACHA20_POLY1305), AEAD_SET_ALL);
    for (uint8_t id = 1; id < AEAD_ID_END; id++) {
        const struct aead *aead = aead_sodium_find(id);

        assert_int_equal(aead != NULL, (aead_sodium_offer() & aead_bit(id)) != 0);
        if (aead != NULL) {
            assert_int_equal(aead->id, id);
            assert_string_equal(aead->name, aead_name(id));
        }
        aead = finders[1](id);
        if (aead != NULL) {
            assert_int_equal(aead->id, id);
            assert_string_equal(aead->name, aead_name(id));
        }
    }
#ifdef WITH_OPENSSL
    assert_int_equal(aead_openssl_offer(), AEAD_SET_ALL);
    assert_null(aead_openssl_find(0));
    assert_null(aead_openssl_find(255));
#endif
    assert_string_equal(aead_name(0), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vectors_come_out),
        cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(implementations_understand_each_other),
        cmocka_unit_test(what_is_offered_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
