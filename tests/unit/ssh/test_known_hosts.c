/* The keys and hashes were made by ssh-keygen of OpenSSH 9.2. */
#include "tests/unit/cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/ssh/known_hosts.h"

#define KEY_A "AAAAC3NzaC1lZDI1NTE5AAAAIOhbxhRnBOYLA6yR0pLS7jjUyV4A7JiWS1mT+SphMS9r"
#define KEY_B "AAAAC3NzaC1lZDI1NTE5AAAAIPUwrKqT5TC/lNlBQN3Ft7oC1TKb8FSyrVEIIXAfEtsB"
#define KEY_C                                                                                      \
    "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBIAve34D7IZUlgj5J6v4MKGaaE8uWaWrgnE60BVF" \
    "UYT/"                                                                                         \
    "IBa093ZPDDeXQrCjA7mcxN0s/FJBlawSd6OGr/jjTWU="
#define A "ssh-ed25519 " KEY_A
#define B "ssh-ed25519 " KEY_B
#define C "ecdsa-sha2-nistp256 " KEY_C
#define HASHED "|1|B0ulgLL5jlp2pnUD3CdQQoIwo+Q=|FZnHNOEQz/Ll4w8nNMNhj30pOhc=" /* esx.example */
#define HASHED_2222                                                                                \
    "|1|Qtl9hfo6zbcMzBbMk/+GQH7vDWU=|viinyB4DMlQ07VtY/yacY22vf+s=" /* [esx.example]:2222 */

/* From a buffer of the exact size, so that the sanitizer sees one byte too many. */
static void parse(struct known_host *h, const char *host, uint16_t port, const char *text)
{
    size_t count = strlen(text);
    char *exact = malloc(count > 0 ? count : 1);
    struct err e = { 0 };

    assert_non_null(exact);
    memcpy(exact, text, count);
    assert_int_equal(known_host_init(h, host, port, &e), 0);
    assert_int_equal(known_host_parse(h, "file", exact, count, &e), 0);
    free(exact);
}

/* The bytes of one of the keys above, by way of the parser itself. */
static size_t blob_of(const char *key, uint8_t *out)
{
    static struct known_host h;
    char line[1024];
    size_t count;

    snprintf(line, sizeof line, "x %s", key);
    parse(&h, "x", 22, line);
    assert_int_equal(h.count, 1);
    count = h.keys[0].blob_bytes;
    memcpy(out, h.keys[0].blob, count);
    known_host_free(&h);
    return count;
}

static enum known_verdict verdict(const char *host, uint16_t port, const char *text,
                                  const char *key)
{
    static struct known_host h;
    uint8_t blob[256];
    size_t count = blob_of(key, blob);
    enum known_verdict v;

    parse(&h, host, port, text);
    v = known_host_check(&h, blob, count, NULL);
    known_host_free(&h);
    return v;
}

static void every_form_of_name_is_matched(void **state)
{
    static const struct {
        const char *names;
        const char *host;
        uint16_t port;
        bool matches;
    } cases[] = {
        { "esx", "esx", 22, true },
        { "esx", "ESX", 22, true },
        { "ESX", "esx", 22, true },
        { "esx", "esx2", 22, false },
        { "esx2", "esx", 22, false },
        { "esx", "esx", 2222, false },
        { "[esx]:2222", "esx", 2222, true },
        { "[esx]:2222", "esx", 22, false },
        { "[esx]:2222", "esx", 222, false },
        { "[esx]:22", "esx", 22, false },
        { "a,esx,b", "esx", 22, true },
        { "esx,10.0.0.1", "10.0.0.1", 22, true },
        { "fe80::1", "fe80::1", 22, true },
        { "[fe80::1]:2222", "fe80::1", 2222, true },
        { "*", "esx", 22, true },
        { "*", "esx", 2222, true },
        { "*.lab", "esx.lab", 22, true },
        { "*.lab", "esx.lab.org", 22, false },
        { "esx?", "esx1", 22, true },
        { "esx?", "esx", 22, false },
        { "e*x*1", "esx-and-x-1", 22, true },
        { "e*x*1", "esx-and-x-2", 22, false },
        { "*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 22, false },
        { "*.lab,!bad.lab", "good.lab", 22, true },
        { "*.lab,!bad.lab", "bad.lab", 22, false },
        { "!bad.lab,*.lab", "bad.lab", 22, false },
        { "!good.lab", "other.lab", 22, false },
        { "!", "esx", 22, false },
        { ",,", "esx", 22, false },
        { HASHED, "esx.example", 22, true },
        { HASHED, "ESX.example", 22, true },
        { HASHED, "esx.example", 2222, false },
        { HASHED_2222, "esx.example", 2222, true },
        { HASHED_2222, "esx.example", 22, false },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        static struct known_host h;
        char line[2048];

        snprintf(line, sizeof line, "%s %s\n", cases[i].names, A);
        parse(&h, cases[i].host, cases[i].port, line);
        if (h.count != (cases[i].matches ? 1u : 0u))
            fail_msg("%s against %s port %u", cases[i].names, cases[i].host, cases[i].port);
        assert_int_equal(h.bad_lines, 0);
        known_host_free(&h);
    }
}

static void verdicts_follow_the_keys(void **state)
{
    (void)state;
    assert_int_equal(verdict("h", 22, "", A), KNOWN_HOST_UNKNOWN);
    assert_int_equal(verdict("h", 22, "g " A "\n", A), KNOWN_HOST_UNKNOWN);
    assert_int_equal(verdict("h", 22, "h " A "\n", A), KNOWN_HOST_MATCH);
    assert_int_equal(verdict("h", 22, "h " A, A), KNOWN_HOST_MATCH);
    assert_int_equal(verdict("h", 22, "h " A " a comment\r\n", A), KNOWN_HOST_MATCH);
    assert_int_equal(verdict("h", 22, "  \t h\t" A "\n", A), KNOWN_HOST_MATCH);
    assert_int_equal(verdict("h", 22, "h " B "\n", A), KNOWN_HOST_CHANGED);
    assert_int_equal(verdict("h", 22, "h " B "\nh " A "\n", A), KNOWN_HOST_MATCH);
    /* Known by a key of another type: no new key is taken for it. */
    assert_int_equal(verdict("h", 22, "h " C "\n", A), KNOWN_HOST_CHANGED);
}

static void markers_are_obeyed(void **state)
{
    (void)state;
    assert_int_equal(verdict("h", 22, "@revoked h " A "\n", A), KNOWN_HOST_REVOKED);
    assert_int_equal(verdict("h", 22, "@revoked * " A "\nh " A "\n", A), KNOWN_HOST_REVOKED);
    assert_int_equal(verdict("h", 22, "h " A "\n@revoked\th\t" A "\n", A), KNOWN_HOST_REVOKED);
    assert_int_equal(verdict("h", 22, "@revoked other " A "\nh " A "\n", A), KNOWN_HOST_MATCH);
    /* That another key was revoked says nothing about this one. */
    assert_int_equal(verdict("h", 22, "@revoked h " B "\n", A), KNOWN_HOST_UNKNOWN);
    assert_int_equal(verdict("h", 22, "@cert-authority * " A "\n", A), KNOWN_HOST_UNKNOWN);
    assert_int_equal(verdict("h", 22, "@cert-authority * " B "\nh " A "\n", A), KNOWN_HOST_MATCH);
    /* It is no host of that name either. */
    assert_int_equal(verdict("h", 22, "@unheard h " A "\n", A), KNOWN_HOST_UNKNOWN);
}

static void bad_lines_are_counted_and_hide_nothing(void **state)
{
    static const char *const bad[] = {
        "h",
        "h ssh-ed25519",
        "h ssh-ed25519 ",
        "h ssh-ed25519 AAAA",
        "h ssh-ed25519 !!!!",
        "h ssh-ed25519 " KEY_A "A",
        "h ssh-ed25519 " KEY_A "====",
        "h ssh-ed25519 =AAA" KEY_A,
        "h ssh-rsa " KEY_A,
        "h a-type-name-that-is-much-longer-than-any-real-one " KEY_A,
        "h " KEY_A,
        "@revoked",
        "@revoked h",
        "@what h " A,
        "@ h " A,
        "|1|B0ulgLL5jlp2pnUD3CdQQoIwo+Q= " A,
        "|1||" A,
        "|1|AAAA|AAAA " A,
        "|2|B0ulgLL5jlp2pnUD3CdQQoIwo+Q=|FZnHNOEQz/Ll4w8nNMNhj30pOhc= " A,
        "h ssh-ed25519 \x01\xff\xfe",
        /* A length field far past the end. */
        "h ssh-ed25519 /////3NzaC1lZDI1NTE5",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        static struct known_host h;
        char text[4096];

        snprintf(text, sizeof text, "# %s\n\n%s\nh %s\n%s", A, bad[i], A, bad[i]);
        parse(&h, "h", 22, text);
        if (h.bad_lines != 2 || h.count != 1)
            fail_msg("%s: %zu bad lines, %zu keys", bad[i], h.bad_lines, h.count);
        assert_int_equal(h.keys[0].line, 4);
        known_host_free(&h);
    }
}

static void long_lines_and_zeros_are_bad(void **state)
{
    static struct known_host h;
    static char text[KNOWN_HOSTS_LINE_MAX * 3];
    struct err e;
    size_t count;

    (void)state;
    memset(text, 'x', KNOWN_HOSTS_LINE_MAX + 1);
    count = KNOWN_HOSTS_LINE_MAX + 1;
    count += (size_t)snprintf(text + count, sizeof text - count, "\nh %s\nh%cz %s\n", A, 0, B);
    assert_int_equal(known_host_init(&h, "h", 22, &e), 0);
    assert_int_equal(known_host_parse(&h, "f", text, count, &e), 0);
    assert_int_equal(h.count, 1);
    assert_int_equal(h.bad_lines, 2);
    known_host_free(&h);
}

static void too_many_keys_are_a_limit(void **state)
{
    static struct known_host h;
    static char text[(KNOWN_HOSTS_KEYS_MAX + 1) * 128];
    size_t at = 0;
    struct err e;

    (void)state;
    for (int i = 0; i < KNOWN_HOSTS_KEYS_MAX; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "h %s\n", A);
    assert_int_equal(known_host_init(&h, "h", 22, &e), 0);
    assert_int_equal(known_host_parse(&h, "f", text, at, &e), 0);
    assert_int_equal(h.count, KNOWN_HOSTS_KEYS_MAX);
    assert_int_equal(known_host_parse(&h, "f", text, at, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    known_host_free(&h);
}

/* Damage at every byte: nothing but the verdict may change, and only to one that does not let us
 * in. */
static void no_damage_makes_another_key_match(void **state)
{
    static const char good[] = HASHED " " A "\n@revoked * " C "\nesx.example,!x " A "\n";
    uint8_t blob[256];
    size_t count;

    (void)state;
    count = blob_of(B, blob);
    for (size_t i = 0; i < sizeof good - 1; i++)
        for (int flip = 1; flip < 256; flip = flip * 2 + 1) {
            static struct known_host h;
            char text[sizeof good];

            memcpy(text, good, sizeof good);
            text[i] = (char)(text[i] ^ flip);
            if (text[i] == 0)
                continue;
            parse(&h, "esx.example", 22, text);
            assert_int_not_equal(known_host_check(&h, blob, count, NULL), KNOWN_HOST_MATCH);
            known_host_free(&h);
        }
}

static void names_of_hosts_are_checked(void **state)
{
    static const char *const bad[] = { "",   " ",   "a b",      "a,b", "*",   "a?",
                                       "!a", "|1|", "@revoked", "#a",  "a\n", "\x7f" };
    static struct known_host h;
    struct err e;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(known_host_init(&h, bad[i], 22, &e), -1);
        assert_int_equal(e.code, ERR_USAGE);
    }
    assert_int_equal(known_host_init(&h, "ESX-1.example", 22, &e), 0);
    assert_string_equal(h.name, "esx-1.example");
    assert_int_equal(known_host_init(&h, "fe80::1", 2222, &e), 0);
    assert_string_equal(h.name, "[fe80::1]:2222");
}

static void the_fingerprint_is_the_one_of_openssh(void **state)
{
    uint8_t blob[256];
    char text[FINGERPRINT_TEXT_MAX];
    char type[40];
    struct err e;
    size_t count;

    (void)state;
    count = blob_of(A, blob);
    assert_int_equal(known_hosts_fingerprint(blob, count, text, sizeof text, &e), 0);
    assert_string_equal(text, "SHA256:uAshf8/tGg37V+BLywGbfA8eyQxWbfApB3SC30yju+k");
    known_hosts_blob_type(blob, count, type, sizeof type);
    assert_string_equal(type, "ssh-ed25519");
    known_hosts_blob_type(blob, 14, type, sizeof type);
    assert_string_equal(type, "");
    known_hosts_blob_type(blob, 3, type, sizeof type);
    assert_string_equal(type, "");
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void a_key_is_added_to_the_file_as_a_whole(void **state)
{
    static struct known_host h;
    char folder[] = "/tmp/vmferry-known-XXXXXX";
    char path[128];
    char part[160];
    uint8_t blob[256];
    struct stat s;
    struct err e;
    size_t count;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/known", folder);
    snprintf(part, sizeof part, "%s.new", path);
    count = blob_of(A, blob);
    assert_int_equal(known_host_init(&h, "esx", 2222, &e), 0);
    assert_int_equal(known_host_read(&h, path, &e), 0);
    assert_int_equal(h.count, 0);
    assert_int_equal(known_hosts_add(path, &h, blob, count, &e), 0);
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_mode & 07777, 0600);
    assert_int_equal(known_host_read(&h, path, &e), 0);
    assert_int_equal(known_host_check(&h, blob, count, NULL), KNOWN_HOST_MATCH);
    known_host_free(&h);
    /* A last line without an end, and what a crash left. */
    put(path, "other " B);
    put(part, "half");
    assert_int_equal(known_hosts_add(path, &h, blob, count, &e), 0);
    assert_int_equal(access(part, F_OK), -1);
    assert_int_equal(known_host_read(&h, path, &e), 0);
    assert_int_equal(h.count, 1);
    assert_int_equal(h.keys[0].line, 2);
    assert_int_equal(h.bad_lines, 0);
    known_host_free(&h);
    unlink(path);
    rmdir(folder);
    assert_int_equal(known_hosts_add(path, &h, blob, count, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

static void a_file_that_is_too_long_is_a_limit(void **state)
{
    static struct known_host h;
    char path[] = "/tmp/vmferry-known-XXXXXX";
    int fd = mkstemp(path);
    struct err e;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, KNOWN_HOSTS_FILE_MAX), 0);
    assert_int_equal(known_host_init(&h, "h", 22, &e), 0);
    assert_int_equal(known_host_read(&h, path, &e), 0);
    assert_int_equal(ftruncate(fd, KNOWN_HOSTS_FILE_MAX + 1), 0);
    assert_int_equal(known_host_read(&h, path, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_of_name_is_matched),
        cmocka_unit_test(verdicts_follow_the_keys),
        cmocka_unit_test(markers_are_obeyed),
        cmocka_unit_test(bad_lines_are_counted_and_hide_nothing),
        cmocka_unit_test(long_lines_and_zeros_are_bad),
        cmocka_unit_test(too_many_keys_are_a_limit),
        cmocka_unit_test(no_damage_makes_another_key_match),
        cmocka_unit_test(names_of_hosts_are_checked),
        cmocka_unit_test(the_fingerprint_is_the_one_of_openssh),
        cmocka_unit_test(a_key_is_added_to_the_file_as_a_whole),
        cmocka_unit_test(a_file_that_is_too_long_is_a_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
