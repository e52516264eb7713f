#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "receiver/cli/options.h"

static struct options o;
static struct err e;

/* Parse the words of one line, separated by blanks; "'…'" keeps blanks. */
static int parse(const char *line)
{
    static char text[512];
    static char *argv[64];
    int argc = 0;
    char *at = text;

    options_free(&o);
    snprintf(text, sizeof text, "vmferry %s", line);
    while (*at != 0) {
        char end = *at == '\'' ? '\'' : ' ';

        at += end == '\'';
        argv[argc++] = at;
        while (*at != 0 && *at != end)
            at++;
        while (*at != 0 && (*at == end || *at == ' '))
            *at++ = 0;
    }
    argv[argc] = NULL;
    e.code = ERR_NONE;
    return options_parse(&o, argc, argv, &e);
}

static int teardown(void **state)
{
    (void)state;
    options_free(&o);
    return 0;
}

static void without_options_the_defaults_hold(void **state)
{
    (void)state;
    assert_int_equal(parse("mirror esx1 web01 /srv"), 0);
    assert_int_equal(o.given, 0);
    assert_string_equal(o.command, "mirror");
    assert_int_equal(o.operand_count, 3);
    assert_string_equal(o.operands[2], "/srv");
    assert_int_equal(o.lock_wait_s, 600);
    assert_int_equal(o.max_snapshot_age_s, 86400);
    assert_false(o.retain_snapshot);
    assert_int_equal(o.max_retained_age_s, 8 * 86400);
    assert_int_equal(o.stall_timeout_s, 600);
    assert_true(o.min_free.is_share);
    assert_int_equal(o.min_free.percent, 10);
    assert_int_equal(o.compress, COMPRESS_AUTO);
    assert_int_equal(o.ask_first, ASKING_SLOW);
    assert_int_equal(o.bwlimit, 0);
    assert_int_equal(o.quiesce, QUIESCE_TRY);
    assert_int_equal(o.data.channel, DATA_AUTO);
    assert_int_equal(o.data.security, DATA_ENCRYPT);
    assert_int_equal(o.progress, PROGRESS_AUTO);
}

static void options_stand_anywhere(void **state)
{
    (void)state;
    assert_int_equal(
        parse("--json mirror -n esx1 --keep 7 web01 -vv /srv --bwlimit=20M -i key1 -ikey2"), 0);
    assert_string_equal(o.command, "mirror");
    assert_int_equal(o.operand_count, 3);
    assert_true(o.json);
    assert_true(o.dry_run);
    assert_int_equal(o.keep, 7);
    assert_int_equal(o.verbose, 2);
    assert_int_equal(o.bwlimit, 20u << 20);
    assert_int_equal(o.identity_count, 2);
    assert_string_equal(o.identities[1], "key2");
}

static void two_dashes_end_them(void **state)
{
    (void)state;
    assert_int_equal(parse("vms -q -- esx1 --json -n"), 0);
    assert_false(o.json);
    assert_int_equal(o.operand_count, 3);
    assert_string_equal(o.operands[1], "--json");
    /* A dash alone is an operand. */
    assert_int_equal(parse("vms -"), 0);
    assert_string_equal(o.operands[0], "-");
}

static void every_value_is_taken(void **state)
{
    (void)state;
    assert_int_equal(
        parse("mirror --log-file l --config c --state-dir s --password-file p "
              "--known-hosts k --accept-new-host-key --lock-wait 5m --data-channel tcp "
              "--data-listen 10.0.0.1:4000 --data-connect [::1]:5000 --data-security auth "
              "--agent-file a"),
        0);
    assert_string_equal(o.log_file, "l");
    assert_string_equal(o.state_dir, "s");
    assert_string_equal(o.password_file, "p");
    assert_string_equal(o.known_hosts, "k");
    assert_true(o.accept_new_host_key);
    assert_int_equal(o.lock_wait_s, 300);
    assert_int_equal(o.data.channel, DATA_TCP);
    assert_int_equal(o.data.listen.port, 4000);
    assert_string_equal(o.data.connect.address, "::1");
    assert_int_equal(o.data.security, DATA_AUTH);
    assert_string_equal(o.agent_file, "a");
    assert_int_equal(parse("mirror --keep 0 --full --compress 19 --quiesce require --exclude-disk "
                           "scsi0:1 --exclude-disk nvme0:0 --max-snapshot-age 2h --min-free 5G "
                           "--stall-timeout 30s --agent-dir '[ds 1] dir' --yes --retain-snapshot "
                           "--max-retained-age 3d"),
                     0);
    assert_int_equal(o.compress, 19);
    assert_true(o.full && o.yes);
    assert_int_equal(o.quiesce, QUIESCE_REQUIRE);
    assert_int_equal(o.exclude_count, 2);
    assert_string_equal(o.exclude[1], "nvme0:0");
    assert_int_equal(o.max_snapshot_age_s, 7200);
    assert_true(o.retain_snapshot);
    assert_int_equal(o.max_retained_age_s, 3 * 86400);
    assert_false(o.min_free.is_share);
    assert_int_equal(o.stall_timeout_s, 30);
    assert_string_equal(o.agent_dir, "[ds 1] dir");
    assert_int_equal(parse("check --read-data --mirror m"), 0);
    assert_string_equal(o.mirror, "m");
    assert_int_equal(o.read_data_k, 1);
    assert_int_equal(o.read_data_n, 1);
    assert_int_equal(parse("check --read-data=2/7"), 0);
    assert_int_equal(o.read_data_k, 2);
    assert_int_equal(o.read_data_n, 7);
    assert_int_equal(parse("mirror --block-size 256k"), 0);
    assert_int_equal(o.block_bytes, 256 << 10);
    assert_int_equal(parse("backup --ask-first yes"), 0);
    assert_int_equal(o.ask_first, ASKING_ALWAYS);
    assert_int_equal(parse("backup --ask-first no"), 0);
    assert_int_equal(o.ask_first, ASKING_NEVER);
    assert_int_equal(parse("mirror --compress none"), 0);
    assert_int_equal(o.block_bytes, 0);
    assert_int_equal(o.compress, 0);
    assert_int_equal(parse("cleanup --foreign vmferry-0123456789abcdef-run-"
                           "00112233445566778899aabbccddeeff --retained"),
                     0);
    assert_string_equal(o.foreign, "00112233445566778899aabbccddeeff");
    assert_true(o.retained);
}

static void the_last_of_two_values_counts(void **state)
{
    (void)state;
    assert_int_equal(parse("mirror --keep 3 --progress --keep 4 --no-progress"), 0);
    assert_int_equal(o.keep, 4);
    assert_int_equal(o.progress, PROGRESS_NO);
}

static void a_wrong_option_is_a_usage_error_that_names_it(void **state)
{
    static const struct {
        const char *line, *text;
    } bad[] = {
        { "vms --jsn", "--jsn" },
        { "vms --js", "--js" }, /* never abbreviated */
        { "vms -x", "-x" },
        { "vms -vx", "-vx" },
        { "vms --json=yes", "--json takes no value" },
        { "vms --log-file", "--log-file needs a value" },
        { "vms -i", "--identity needs a value" },
        { "vms --log-file=", "--log-file" },
        { "mirror --keep -1", "--keep" },
        { "mirror --keep 501", "--keep" },
        { "mirror --keep seven", "--keep" },
        { "mirror --bwlimit 0", "--bwlimit" },
        { "mirror --block-size 8k", "--block-size" },
        { "mirror --block-size 96k", "--block-size" },
        { "mirror --block-size 8M", "--block-size" },
        { "mirror --block-size 4T", "--block-size" },
        { "mirror --compress 20", "--compress" },
        { "mirror --compress 0", "--compress" },
        { "mirror --compress fast", "--compress" },
        { "backup --ask-first always", "--ask-first" },
        { "mirror --quiesce yes", "try, require, no" },
        { "mirror --data-channel udp", "auto, tcp, ssh" },
        { "mirror --data-security none", "encrypt, auth" },
        { "mirror --exclude-disk 0:1", "--exclude-disk" },
        { "mirror --min-free 0%", "--min-free" },
        { "mirror --max-snapshot-age soon", "--max-snapshot-age" },
        { "mirror --agent-dir /tmp", "--agent-dir" },
        { "mirror --agent-dir '[ds] ../x'", "--agent-dir" },
        { "check --read-data=0/7", "--read-data" },
        { "check --read-data=8/7", "--read-data" },
        { "check --read-data=7", "--read-data" },
        { "cleanup --foreign abc", "--foreign" },
        { "cleanup --foreign 00112233445566778899AABBCCDDEEFF", "--foreign" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(parse(bad[i].line), -1);
        assert_int_equal(e.code, ERR_USAGE);
        if (strstr(e.text, bad[i].text) == NULL)
            fail_msg("%s: %s", bad[i].line, e.text);
    }
}

static void the_first_error_is_kept_and_the_rest_is_still_read(void **state)
{
    (void)state;
    assert_int_equal(parse("mirror --nonsense esx1 --keep x --json"), -1);
    assert_non_null(strstr(e.text, "--nonsense"));
    assert_true(o.json);
    assert_string_equal(o.command, "mirror");
}

static void hostile_text_in_an_error_is_made_visible(void **state)
{
    (void)state;
    assert_int_equal(parse("vms --\x1b[31m"), -1);
    assert_null(strchr(e.text, '\x1b'));
}

static void a_command_refuses_what_it_cannot_honour(void **state)
{
    (void)state;
    assert_int_equal(parse("vms esx1 --keep 3"), 0);
    assert_int_equal(options_check(&o, "vms", 0, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    assert_non_null(strstr(e.text, "--keep"));
    assert_int_equal(options_check(&o, "mirror", OPTION_BIT(OPTION_KEEP), &e), 0);
    /* Common options are accepted everywhere. */
    assert_int_equal(
        parse("list --json -q -v --progress --no-progress --log-file l --config c "
              "--state-dir s -i k --password-command p --known-hosts k "
              "--accept-new-host-key --lock-wait 1s --data-channel ssh --data-listen a "
              "--data-connect b --data-security auth --agent-file f"),
        0);
    assert_int_equal(options_check(&o, "list", 0, &e), 0);
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    assert_int_equal(parse("vms --password-file a --password-command b"), 0);
    assert_int_equal(options_check(&o, "vms", 0, &e), -1);
    assert_int_equal(parse("mirror --only-disk scsi0:0 --exclude-disk scsi0:1"), 0);
    assert_int_equal(options_check(&o, "mirror", ~UINT64_C(0), &e), -1);
}

static void volumes_are_gathered(void **state)
{
    (void)state;
    assert_int_equal(parse("convert a.vmdk --output a.raw --volume /x --volume=/y/z"), 0);
    assert_int_equal(o.volume_count, 2);
    assert_string_equal(o.volumes[0], "/x");
    assert_string_equal(o.volumes[1], "/y/z");
    assert_int_equal(parse("info a.vmdk --volume ''"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(volumes_are_gathered),
        cmocka_unit_test(without_options_the_defaults_hold),
        cmocka_unit_test(options_stand_anywhere),
        cmocka_unit_test(two_dashes_end_them),
        cmocka_unit_test(every_value_is_taken),
        cmocka_unit_test(the_last_of_two_values_counts),
        cmocka_unit_test(a_wrong_option_is_a_usage_error_that_names_it),
        cmocka_unit_test(the_first_error_is_kept_and_the_rest_is_still_read),
        cmocka_unit_test(hostile_text_in_an_error_is_made_visible),
        cmocka_unit_test(a_command_refuses_what_it_cannot_honour),
        cmocka_unit_test(contradictions_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, teardown);
}
