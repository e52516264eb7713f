#include "tests/unit/cmocka_all.h"

#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/cli/targets.h"

static void a_host_has_user_name_and_port(void **state)
{
    static const struct {
        const char *text, *user, *name;
        unsigned port;
    } good[] = {
        { "esx1", "root", "esx1", 22 },
        { "esx1.example.com:2222", "root", "esx1.example.com", 2222 },
        { "backup@10.0.0.7", "backup", "10.0.0.7", 22 },
        { "user@domain@esx1:1", "user@domain", "esx1", 1 },
        { "[fe80::1%eth0]:2222", "root", "fe80::1%eth0", 2222 },
        { "root@[::1]", "root", "::1", 22 },
        { "::1", "root", "::1", 22 },
        { "root@fe80::7", "root", "fe80::7", 22 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
        struct host_target t;
        struct err e;

        assert_int_equal(host_target_parse(&t, good[i].text, &e), 0);
        assert_string_equal(t.user, good[i].user);
        assert_string_equal(t.name, good[i].name);
        assert_int_equal(t.port, good[i].port);
    }
}

static void what_is_no_host_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "@esx1",
        "root@",
        "esx1:",
        "esx1:0",
        "esx1:65536",
        "esx1:22x",
        "esx1:-1",
        "es x1",
        "esx1\n",
        "-oProxyCommand=x",
        "root@-x",
        "[::1",
        "[::1]x",
        "[esx1]:22",
        "[]",
        "a/b",
        "\xc3\xa9sx",
        "[::1]:",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct host_target t;
        struct err e;

        assert_int_equal(host_target_parse(&t, bad[i], &e), -1);
        assert_int_equal(e.code, ERR_USAGE);
    }
}

static void names_that_are_too_long_are_refused(void **state)
{
    char text[600];
    struct host_target t;
    struct err e;

    (void)state;
    memset(text, 'a', sizeof text);
    text[HOST_NAME_BYTES - 1] = 0;
    assert_int_equal(host_target_parse(&t, text, &e), 0);
    text[HOST_NAME_BYTES - 1] = 'a';
    text[HOST_NAME_BYTES] = 0;
    assert_int_equal(host_target_parse(&t, text, &e), -1);
    text[HOST_USER_BYTES] = '@';
    assert_int_equal(host_target_parse(&t, text, &e), -1);
    text[HOST_USER_BYTES - 1] = '@';
    text[HOST_USER_BYTES] = 'a';
    assert_int_equal(host_target_parse(&t, text, &e), 0);
}

static void a_data_address_may_be_any_part(void **state)
{
    struct data_address a;
    struct err e;

    (void)state;
    assert_int_equal(data_address_parse(&a, "10.0.0.1", &e), 0);
    assert_string_equal(a.address, "10.0.0.1");
    assert_int_equal(a.port, 0);
    assert_int_equal(data_address_parse(&a, "10.0.0.1:4000", &e), 0);
    assert_int_equal(a.port, 4000);
    assert_int_equal(data_address_parse(&a, ":4000", &e), 0);
    assert_string_equal(a.address, "");
    assert_int_equal(a.port, 4000);
    assert_int_equal(data_address_parse(&a, "[::1]:4000", &e), 0);
    assert_string_equal(a.address, "::1");
    assert_int_equal(data_address_parse(&a, "::", &e), 0);
    assert_string_equal(a.address, "::");
    assert_int_equal(data_address_parse(&a, "", &e), -1);
    assert_int_equal(data_address_parse(&a, ":", &e), -1);
    assert_int_equal(data_address_parse(&a, ":0", &e), -1);
    assert_int_equal(data_address_parse(&a, "10.0.0.1:x", &e), -1);
}

static void a_datastore_place_stays_in_its_datastore(void **state)
{
    static const char *const good[] = { "[ds1]", "[ds 1] folder", "[ds1] a/b", "[ds1] a/",
                                        "[ds1] " };
    static const char *const bad[] = {
        "ds1",        "[ds1",       "[] a",       "[ds1]a",    "[ds1] /a",
        "[ds1] a//b", "[ds1] ../a", "[ds1] a/..", "[ds1] ./a", ""
    };
    struct err e;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(good); i++)
        assert_int_equal(datastore_place_check(good[i], &e), 0);
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(datastore_place_check(bad[i], &e), -1);
    assert_true(is_datastore_place("[ds1] x"));
    assert_false(is_datastore_place("/srv/[ds1]"));
}

static void a_disk_is_named_by_its_slot(void **state)
{
    static const char *const good[] = { "scsi0:0", "scsi3:15", "sata0:29", "ide1:1", "nvme0:2" };
    static const char *const bad[] = {
        "",         "scsi",      "scsi0",   "scsi:0",   "scsi0:",   "scsi0:0:0",      "usb0:0",
        "scsi-1:0", "scsi0:256", "SCSI0:0", " scsi0:0", "scsi0:0 ", "scsi123456789:0"
    };
    struct err e;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(good); i++)
        assert_int_equal(disk_slot_check(good[i], &e), 0);
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(disk_slot_check(bad[i], &e), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_has_user_name_and_port),
        cmocka_unit_test(what_is_no_host_is_refused),
        cmocka_unit_test(names_that_are_too_long_are_refused),
        cmocka_unit_test(a_data_address_may_be_any_part),
        cmocka_unit_test(a_datastore_place_stays_in_its_datastore),
        cmocka_unit_test(a_disk_is_named_by_its_slot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
