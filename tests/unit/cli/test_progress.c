#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "receiver/base/utf8.h"
#include "receiver/cli/progress.h"
#include "receiver/cli/report.h"
#include "receiver/job/run.h"

#define GIB (UINT64_C(1) << 30)
#define MIB (UINT64_C(1) << 20)

static const struct progress_line line = {
    .name = "web01 scsi0:0",
    .done = 18 * GIB,
    .total = 40 * GIB,
    .same = 6 * GIB,
    .read = 10 * GIB,
    .read_rate = 212 * MIB,
    .sent_rate = 98 * MIB,
    .rates_known = true,
    .left_known = true,
    .left_s = 95,
};

static void a_line_at_80_columns_shows_everything(void **state)
{
    char text[256];

    (void)state;
    progress_format(text, sizeof text, &line, 80);
    assert_string_equal(text, "web01 scsi0:0   45%  18.0/40.0G  read 212M/s  sent 98M/s  same 60%  "
                              "left 1m35s");
    assert_true(utf8_columns(text) <= 79);
}

static void a_line_never_leaves_its_width(void **state)
{
    static const char *const names[] = {
        "a scsi0:0",
        "web01 scsi0:0",
        "a very long name of a virtual machine that nobody should give scsi12:15",
        "\xe4\xb8\xad\xe6\x96\x87\xe4\xb8\xad\xe6\x96\x87\xe4\xb8\xad\xe6\x96\x87\xe4\xb8\xad "
        "scsi0:0",
        "escape\x1b[2J scsi0:0",
        "nameWithoutAnyBlankInItWhichIsLongerThanTheLine",
        "",
    };

    (void)state;
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        struct progress_line l = line;

        l.name = names[n];
        for (unsigned columns = 1; columns <= 130; columns++) {
            char text[600];

            progress_format(text, sizeof text, &l, columns);
            assert_true(utf8_columns(text) <= columns);
        }
    }
}

static void a_narrow_line_loses_its_end_and_a_long_name_its_middle(void **state)
{
    char text[256];
    struct progress_line l = line;

    (void)state;
    progress_format(text, sizeof text, &l, 60);
    assert_string_equal(text, "web01 scsi0:0   45%  18.0/40.0G  read 212M/s  sent 98M/s");
    l.name = "database-production-01 scsi0:1";
    progress_format(text, sizeof text, &l, 40);
    assert_string_equal(text, "database-prod\xe2\x80\xa6 scsi0:1   45%  18.0/40.0G");
}

static void only_all_is_100_percent(void **state)
{
    char text[256];
    struct progress_line l = { .name = "x", .done = 40 * GIB - 1, .total = 40 * GIB };

    (void)state;
    progress_format(text, sizeof text, &l, 80);
    assert_non_null(strstr(text, " 99%"));
    l.done++;
    progress_format(text, sizeof text, &l, 80);
    assert_non_null(strstr(text, "100%"));
    /* An empty plan is done from the start, and more than all is not more than 100 %. */
    l.total = 0;
    progress_format(text, sizeof text, &l, 80);
    assert_non_null(strstr(text, "100%"));
    l.total = 1;
    progress_format(text, sizeof text, &l, 80);
    assert_non_null(strstr(text, "100%"));
}

/* ---- The display, with a clock of our own ---- */

static uint64_t now_ms;

static uint64_t test_clock(void)
{
    return now_ms;
}

static size_t count_of(const char *text, const char *what)
{
    size_t count = 0;

    for (; (text = strstr(text, what)) != NULL; text += strlen(what))
        count++;
    return count;
}

static struct disk_progress disk_at(uint64_t done)
{
    return (struct disk_progress){
        .vm = "web01",
        .disk = "scsi0:0",
        .done_bytes = done,
        .total_bytes = 40 * GIB,
        .read_bytes = done,
        .sent_bytes = done / 2,
    };
}

static void a_screen_is_drawn_at_most_ten_times_a_second(void **state)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    struct progress_options o = {
        .draw = true, .out = out, .columns = 80, .rows = 24, .clock_ms = test_clock
    };
    struct progress *p;

    (void)state;
    now_ms = 5000;
    assert_int_equal(progress_open(&p, &o, NULL), 0);
    for (int i = 0; i < 1000; i++) {
        struct disk_progress d = disk_at((uint64_t)i * 10 * MIB);

        now_ms += 1; /* one second in all */
        progress_disk(p, &d);
    }
    fflush(out);
    assert_in_range(count_of(text, "web01 scsi0:0"), 9, 11);
    /* Each drawing takes the one before away. */
    assert_int_equal(count_of(text, "\x1b[1A\x1b[J") + 1, count_of(text, "web01 scsi0:0"));
    progress_close(p);
    fclose(out);
    assert_int_equal(count_of(text, "\x1b[1A\x1b[J"), count_of(text, "web01 scsi0:0"));
    free(text);
}

static void without_a_terminal_a_line_comes_every_ten_seconds(void **state)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    struct progress_options o = { .plain = true, .out = out, .clock_ms = test_clock };
    struct progress *p;

    (void)state;
    now_ms = 5000;
    assert_int_equal(progress_open(&p, &o, NULL), 0);
    for (uint64_t i = 0; i < 350; i++) {
        struct disk_progress d = disk_at(i * 100 * MIB);

        now_ms += 100;
        progress_disk(p, &d);
    }
    progress_close(p);
    fclose(out);
    assert_int_equal(count_of(text, "\n"), 3);
    assert_int_equal(count_of(text, "\x1b"), 0);
    assert_non_null(strstr(text, "read 1.0G/s"));
    assert_non_null(strstr(text, "sent 500M/s"));
    free(text);
}

static void nobody_sees_anything_unless_asked_for(void **state)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    struct progress_options o = { .out = out, .clock_ms = test_clock };
    struct progress *p;

    (void)state;
    now_ms = 5000;
    assert_int_equal(progress_open(&p, &o, NULL), 0);
    progress_step(p, "web01", "taking the snapshot");
    for (uint64_t i = 0; i < 350; i++) {
        struct disk_progress d = disk_at(i * 100 * MIB);

        now_ms += 100;
        progress_disk(p, &d);
    }
    progress_vm_end(p);
    progress_close(p);
    fclose(out);
    assert_int_equal(bytes, 0);
    free(text);
}

static void more_disks_than_rows_do_not_scroll_the_screen(void **state)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    struct progress_options o = {
        .draw = true, .out = out, .columns = 80, .rows = 10, .clock_ms = test_clock
    };
    struct progress *p;
    char slot[16];

    (void)state;
    now_ms = 5000;
    assert_int_equal(progress_open(&p, &o, NULL), 0);
    for (int i = 0; i < 40; i++) {
        struct disk_progress d = disk_at(GIB);

        snprintf(slot, sizeof slot, "scsi0:%d", i);
        d.disk = slot;
        now_ms += 200;
        progress_disk(p, &d);
    }
    fflush(out);
    assert_null(strstr(text, "\x1b[10A"));
    assert_non_null(strstr(text, "\x1b[9A"));
    progress_close(p);
    fclose(out);
    free(text);
}

static void several_vms_have_their_own_lines(void **state)
{
    char *text = NULL;
    size_t bytes, before;
    FILE *out = open_memstream(&text, &bytes);
    struct progress_options o = {
        .draw = true, .out = out, .columns = 80, .rows = 24, .clock_ms = test_clock
    };
    struct disk_progress d = disk_at(GIB), long_work = disk_at(GIB);
    struct progress *p;

    (void)state;
    now_ms = 5000;
    assert_int_equal(progress_open(&p, &o, NULL), 0);
    progress_step(p, "web01", "starting the transfer");
    progress_step(p, "db01", "taking the snapshot");
    progress_step(p, "web01", "removing the snapshot"); /* in place of its earlier one */
    progress_disk(p, &d);
    long_work.vm = "db01";
    long_work.what = "re-digesting disk-scsi0-0.raw";
    now_ms += 200;
    progress_disk(p, &long_work);
    fflush(out);
    assert_non_null(strstr(text, "\x1b[2A\x1b[J"
                                 "web01: removing the snapshot\n"
                                 "db01: taking the snapshot\n"
                                 "web01 scsi0:0"));
    assert_non_null(strstr(text, "db01: re-digesting disk-scsi0-0.raw"));
    before = bytes;
    progress_vm_done(p, "web01");
    fflush(out);
    assert_null(strstr(text + before, "web01"));
    assert_non_null(strstr(text + before, "\x1b[4A\x1b[Jdb01: taking the snapshot\n"
                                          "db01: re-digesting"));
    before = bytes;
    progress_vm_done(p, "db01");
    fflush(out);
    assert_string_equal(text + before, "\r\x1b[2A\x1b[J");
    progress_close(p);
    fclose(out);
    free(text);
}

static void json_gets_each_disk_once_a_second_and_its_end(void **state)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    struct report_options ro = { .out = out, .json = true, .command = "mirror" };
    struct progress_options o = { .out = NULL, .clock_ms = test_clock };
    struct disk_progress d = disk_at(0);
    struct progress *p;

    (void)state;
    now_ms = 5000;
    assert_int_equal(report_open(&o.report, &ro, NULL), 0);
    assert_int_equal(progress_open(&p, &o, NULL), 0);
    for (uint64_t i = 0; i < 30; i++) {
        d = disk_at(i * MIB);
        progress_disk(p, &d);
        now_ms += 100;
    }
    d.ended = true;
    progress_disk(p, &d);
    progress_close(p);
    report_close(o.report);
    fclose(out);
    assert_int_equal(count_of(text, "\n"), 4);
    assert_int_equal(count_of(text, "{\"type\":\"status\",\"vm\":\"web01\",\"disk\":\"scsi0:0\","
                                    "\"done\":"),
                     4);
    assert_int_equal(count_of(text, "\"ended\":true,\"seconds\":3.000}\n"), 1);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_at_80_columns_shows_everything),
        cmocka_unit_test(a_line_never_leaves_its_width),
        cmocka_unit_test(a_narrow_line_loses_its_end_and_a_long_name_its_middle),
        cmocka_unit_test(only_all_is_100_percent),
        cmocka_unit_test(a_screen_is_drawn_at_most_ten_times_a_second),
        cmocka_unit_test(without_a_terminal_a_line_comes_every_ten_seconds),
        cmocka_unit_test(nobody_sees_anything_unless_asked_for),
        cmocka_unit_test(more_disks_than_rows_do_not_scroll_the_screen),
        cmocka_unit_test(several_vms_have_their_own_lines),
        cmocka_unit_test(json_gets_each_disk_once_a_second_and_its_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
