#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/wire/crypto.h"
#include "protocol/wire/hkdf.h"
#include "tests/unit/wire/hex.h"

/* RFC 4231: the HMAC that all of wire/ stands on. */
static void hmac_gives_the_published_values(void **state)
{
    static const struct {
        const char *key, *data, *mac;
    } cases[] = {
        { "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "4869205468657265",
          "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" },
        { "4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
          "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" },
        { "0102030405060708090a0b0c0d0e0f10111213141516171819",
          "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
          "cdcdcdcdcdcdcdcd",
          "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint8_t key[64], data[64], want[32], got[32];
        size_t key_bytes = hex(key, sizeof key, cases[i].key);
        size_t data_bytes = hex(data, sizeof data, cases[i].data);

        hex(want, sizeof want, cases[i].mac);
        /* Extract is HMAC with the salt as its key. */
        hkdf_extract(got, key, key_bytes, data, data_bytes);
        assert_memory_equal(got, want, sizeof want);
    }
}

/* RFC 5869, appendix A.1 to A.3. */
static void hkdf_gives_the_published_values(void **state)
{
    static const struct {
        const char *input, *salt, *info, *root, *out;
    } cases[] = {
        { "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c",
          "f0f1f2f3f4f5f6f7f8f9",
          "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
          "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865" },
        { "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
          "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
          "404142434445464748494a4b4c4d4e4f",
          "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"
          "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
          "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
          "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecf"
          "d0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeef"
          "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
          "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
          "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
          "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
          "cc30c58179ec3e87c14c01d5c1f3434f1d87" },
        { "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
          "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
          "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint8_t input[80], salt[80], info[80], root[32], want_root[32], out[82], want[82];
        size_t input_bytes = hex(input, sizeof input, cases[i].input);
        size_t salt_bytes = hex(salt, sizeof salt, cases[i].salt);
        size_t info_bytes = hex(info, sizeof info, cases[i].info);
        size_t out_bytes = hex(want, sizeof want, cases[i].out);

        hex(want_root, sizeof want_root, cases[i].root);
        hkdf_extract(root, salt_bytes > 0 ? salt : NULL, salt_bytes, input, input_bytes);
        assert_memory_equal(root, want_root, sizeof root);
        hkdf_expand(out, out_bytes, root, info_bytes > 0 ? info : NULL, info_bytes);
        assert_memory_equal(out, want, out_bytes);
    }
}

static void the_longest_output_stays_inside(void **state)
{
    uint8_t root[HKDF_KEY_BYTES] = { 1 };
    uint8_t *out = malloc(HKDF_OUT_MAX), shorter[33];

    (void)state;
    assert_non_null(out);
    hkdf_expand(out, HKDF_OUT_MAX, root, NULL, 0);
    hkdf_expand(shorter, sizeof shorter, root, NULL, 0);
    assert_memory_equal(out, shorter, sizeof shorter);
    free(out);
}

static void random_bytes_fill_all_and_differ(void **state)
{
    uint8_t *a = calloc(1, 4096), *b = calloc(1, 4096);
    bool used[256] = { false };
    size_t values = 0;
    struct err e;

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(crypto_random(a, 4096, &e), 0);
    assert_int_equal(crypto_random(b, 4096, &e), 0);
    assert_memory_not_equal(a, b, 4096);
    /* Eight zeros in a row by chance: once in 2^64. */
    for (size_t i = 0; i + 8 <= 4096; i += 8)
        assert_memory_not_equal(a + i, "\0\0\0\0\0\0\0", 8);
    for (size_t i = 0; i < 4096; i++)
        used[a[i]] = true;
    for (size_t i = 0; i < 256; i++)
        values += used[i];
    assert_true(values > 200);
    free(a);
    free(b);
}

static void libsodium_uses_our_source(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(crypto_start(&e), 0);
    assert_int_equal(crypto_start(&e), 0);
    assert_string_equal(randombytes_implementation_name(), "vmferry");
}

static void a_wiped_secret_is_gone(void **state)
{
    uint8_t secret[64], zero[64] = { 0 };

    (void)state;
    memset(secret, 0xa5, sizeof secret);
    crypto_wipe(secret, sizeof secret);
    assert_memory_equal(secret, zero, sizeof zero);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hmac_gives_the_published_values),
        cmocka_unit_test(hkdf_gives_the_published_values),
        cmocka_unit_test(the_longest_output_stays_inside),
        cmocka_unit_test(random_bytes_fill_all_and_differ),
        cmocka_unit_test(libsodium_uses_our_source),
        cmocka_unit_test(a_wiped_secret_is_gone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
