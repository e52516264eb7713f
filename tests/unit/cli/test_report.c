#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/json.h"
#include "receiver/base/log.h"
#include "receiver/cli/report.h"
#include "receiver/job/run.h"

static char *text;
static size_t text_bytes;
static FILE *out;
static struct report *r;

static void begin(bool json, bool list_like)
{
    struct report_options o = { .json = json, .list_like = list_like, .command = "mirror" };

    out = open_memstream(&text, &text_bytes);
    assert_non_null(out);
    o.out = out;
    assert_int_equal(report_open(&r, &o, NULL), 0);
    log_set_level(LOG_ERROR);
}

static void end(void)
{
    report_close(r);
    fclose(out);
}

static void the_summary_has_every_field_of_the_contract(void **state)
{
    struct run_result result = { 0 };
    struct vm_result *v = run_result_add(&result, "web\xff", NULL);
    struct disk_result *d = vm_result_add_disk(v, "scsi0:0", NULL);

    (void)state;
    v->outcome = OUTCOME_OK;
    v->vmid = 12;
    v->vmid_known = true;
    strcpy(v->uuid, "52aa");
    strcpy(v->id, "abcd");
    v->generation = 3;
    v->consistency = CONSISTENCY_CRASH;
    v->data_channel = CARRIER_TCP;
    v->read_path = READ_PATH_SSH_DD;
    v->change_source = CHANGE_DIGEST;
    v->ms = 1500;
    *d = (struct disk_result){
        .disk = "scsi0:0",
        .capacity = UINT64_C(1) << 46,
        .read_path = READ_PATH_AGENT,
        .allocated = 2,
        .read = 3,
        .sampled = 4,
        .changed = 5,
        .sent = 6,
        .stored = 7,
        .root_known = true,
        .root = { { 0xab } },
        .ms = 250,
    };
    begin(true, false);
    report_summary(r, &result, 0, 61005, NULL, NULL);
    end();
    assert_string_equal(
        text,
        "{\"type\":\"summary\",\"command\":\"mirror\",\"exit_code\":0,\"seconds\":61.005,\"vms\":[{"
        "\"vm\":\"web\xef\xbf\xbd\",\"vmid\":12,\"uuid\":\"52aa\",\"generation\":3,\"id\":\"abcd\","
        "\"outcome\":\"ok\",\"exit_code\":0,\"consistency\":\"crash\",\"data_channel\":\"tcp\","
        "\"read_path\":\"ssh-dd\",\"change_source\":\"digest\",\"seconds\":1.500,\"class\":null,"
        "\"error\":null,\"disks\":[{\"disk\":\"scsi0:0\",\"capacity\":70368744177664,"
        "\"read_path\":\"agent\",\"allocated\":2,\"read\":3,\"sampled\":4,\"changed\":5,\"sent\":6,"
        "\"stored\":7,\"root\":\"ab000000000000000000000000000000\",\"seconds\":0.250,"
        "\"left_out\":false,\"class\":null,\"error\":null}]}]}\n");
    free(text);
    run_result_free(&result);
}

static void what_was_never_learnt_is_null(void **state)
{
    struct run_result result = { 0 };
    struct vm_result *v = run_result_add(&result, "nosuch", NULL);

    (void)state;
    err_set(&v->why, ERR_NOT_FOUND, "no such VM");
    begin(true, false);
    report_summary(r, &result, 2, 0, NULL, NULL);
    end();
    assert_non_null(strstr(text,
                           "\"vmid\":null,\"uuid\":null,\"generation\":null,\"id\":null,"
                           "\"outcome\":\"failed\",\"exit_code\":2,\"consistency\":null,"
                           "\"data_channel\":null,\"read_path\":null,\"change_source\":null,"));
    assert_non_null(strstr(text, "\"class\":\"not-found\",\"error\":\"no such VM\",\"disks\":[]"));
    free(text);
    run_result_free(&result);
}

static void warnings_of_any_layer_and_errors_come_before_the_summary(void **state)
{
    struct err e;

    (void)state;
    begin(true, false);
    log_warning("careful\nnow");
    log_note("no news");
    err_set(&e, ERR_AUTH, "login refused");
    report_failure(r, "web01", &e);
    report_summary(r, NULL, 7, 5, NULL, NULL);
    end();
    assert_string_equal(text, "{\"type\":\"warning\",\"message\":\"careful\\nnow\"}\n"
                              "{\"type\":\"error\",\"command\":\"mirror\",\"vm\":\"web01\","
                              "\"exit_code\":7,\"class\":\"auth\",\"message\":\"login refused\"}\n"
                              "{\"type\":\"summary\",\"command\":\"mirror\",\"exit_code\":7,"
                              "\"seconds\":0.005,\"vms\":[]}\n");
    free(text);
}

static void a_list_is_one_array_on_one_line(void **state)
{
    struct json *j;

    (void)state;
    begin(true, true);
    log_warning("not here");
    report_step(r, "web01", "nor here");
    j = report_array_begin(r);
    json_text(j, NULL, "item\n");
    report_array_end(r);
    report_summary(r, NULL, 0, 0, NULL, NULL);
    end();
    assert_string_equal(text, "[\"item\\n\"]\n");
    free(text);
}

static void a_list_that_fails_is_one_error_object(void **state)
{
    struct err e;

    (void)state;
    begin(true, true);
    err_set(&e, ERR_NETWORK, "no answer");
    report_failure(r, NULL, &e);
    report_summary(r, NULL, 12, 0, NULL, NULL);
    end();
    assert_string_equal(text, "{\"type\":\"error\",\"command\":\"mirror\",\"exit_code\":12,"
                              "\"class\":\"network\",\"message\":\"no answer\"}\n");
    free(text);
}

static void without_json_standard_output_is_for_results_alone(void **state)
{
    struct err e;

    (void)state;
    begin(false, false);
    log_warning("elsewhere");
    err_set(&e, ERR_NETWORK, "no answer");
    report_failure(r, NULL, &e);
    report_summary(r, NULL, 12, 0, NULL, NULL);
    end();
    assert_int_equal(text_bytes, 0);
    free(text);
}

static void a_full_standard_output_is_noticed(void **state)
{
    struct report_options o = { .json = true, .command = "mirror" };
    struct err e;

    (void)state;
    o.out = fopen("/dev/full", "w");
    assert_non_null(o.out);
    assert_int_equal(report_open(&r, &o, NULL), 0);
    report_step(r, "web01", "anything");
    assert_int_equal(report_flush(r, &e), -1);
    assert_int_equal(e.code, ERR_SPACE);
    report_close(r);
    fclose(o.out);
}

static void people_read_what_was_done(void **state)
{
    struct run_result result = { 0 };
    struct vm_result *v = run_result_add(&result, "web01", NULL);
    struct disk_result *d = vm_result_add_disk(v, "scsi0:0", NULL);
    char people[2048];

    (void)state;
    v->outcome = OUTCOME_OK;
    v->generation = 3;
    v->consistency = CONSISTENCY_CRASH;
    v->read_path = READ_PATH_AGENT;
    v->data_channel = CARRIER_TCP;
    v->ms = 62000;
    d->capacity = UINT64_C(40) << 30;
    d->read = UINT64_C(12) << 30;
    d->changed = UINT64_C(700) << 20;
    d->sent = UINT64_C(310) << 20;
    d->stored = UINT64_C(700) << 20;
    d->ms = 60000;
    v = run_result_add(&result, "db01", NULL);
    err_set(&v->why, ERR_SOURCE, "the snapshot was refused");
    out = fmemopen(people, sizeof people, "w");
    report_people(out, &result, 80, false);
    fclose(out);
    assert_string_equal(
        people, "web01: ok, generation 3, crash-consistent, read by agent over tcp, 1m02s\n"
                "  DISK         SIZE      READ  CHANGED     SENT   STORED   TIME       RATE\n"
                "  scsi0:0  40.0 GiB  12.0 GiB  700 MiB  310 MiB  700 MiB  1m00s  205 MiB/s\n"
                "db01: failed (4)\n"
                "2 VMs: 1 ok, 1 failed\n");
    run_result_free(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_summary_has_every_field_of_the_contract),
        cmocka_unit_test(what_was_never_learnt_is_null),
        cmocka_unit_test(warnings_of_any_layer_and_errors_come_before_the_summary),
        cmocka_unit_test(a_list_is_one_array_on_one_line),
        cmocka_unit_test(a_list_that_fails_is_one_error_object),
        cmocka_unit_test(without_json_standard_output_is_for_results_alone),
        cmocka_unit_test(a_full_standard_output_is_noticed),
        cmocka_unit_test(people_read_what_was_done),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
