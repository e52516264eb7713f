#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "receiver/base/json.h"

static char *text;
static size_t text_bytes;
static FILE *memory;

static struct json begin(void)
{
    struct json j;

    memory = open_memstream(&text, &text_bytes);
    assert_non_null(memory);
    json_start(&j, memory);
    return j;
}

static void expect(const char *wanted)
{
    assert_int_equal(fclose(memory), 0);
    assert_string_equal(text, wanted);
    free(text);
    text = NULL;
}

static void commas_and_keys_stand_where_they_belong(void **state)
{
    struct json j = begin();

    (void)state;
    json_object(&j, NULL);
    json_text(&j, "type", "summary");
    json_array(&j, "vms");
    json_object(&j, NULL);
    json_null(&j, "vm");
    json_array(&j, "disks");
    json_close(&j);
    json_close(&j);
    json_object(&j, NULL);
    json_close(&j);
    json_number(&j, NULL, 1);
    json_close(&j);
    json_bool(&j, "yes", true);
    json_bool(&j, "no", false);
    json_close(&j);
    expect("{\"type\":\"summary\",\"vms\":[{\"vm\":null,\"disks\":[]},{},1],\"yes\":true,"
           "\"no\":false}");
}

static void whole_numbers_are_64_bits_wide(void **state)
{
    struct json j = begin();

    (void)state;
    json_array(&j, NULL);
    json_number(&j, NULL, UINT64_MAX);
    json_integer(&j, NULL, INT64_MIN);
    json_seconds(&j, NULL, 12005);
    json_time(&j, NULL, 1795162500);
    json_close(&j);
    expect("[18446744073709551615,-9223372036854775808,12.005,\"2026-11-20T08:15:00Z\"]");
}

static void every_text_becomes_a_valid_string(void **state)
{
    struct json j = begin();

    (void)state;
    json_array(&j, NULL);
    json_text(&j, NULL, "\"quoted\\\" /");
    json_text(&j, NULL, "\b\f\n\r\t\x01\x1b\x7f");
    json_text(&j, NULL, "b\xc3\xbcro");
    json_text(&j, NULL,
              "\xff"
              "cut\xe2\x82");
    json_text(&j, NULL, "\xe2\x80\xae\xe2\x80\xa8");
    json_text(&j, NULL, "\xf3\xa0\x81\x81"); /* a tag, above the basic plane */
    json_text(&j, NULL, NULL);
    json_text_bytes(&j, NULL, "a\0b", 3);
    json_close(&j);
    expect("[\"\\\"quoted\\\\\\\" /\",\"\\b\\f\\n\\r\\t\\u0001\\u001b\\u007f\",\"b\xc3\xbcro\","
           "\"\xef\xbf\xbd"
           "cut\xef\xbf\xbd\xef\xbf\xbd\",\"\\u202e\\u2028\",\"\\udb40\\udc41\","
           "null,\"a\\u0000b\"]");
}

static void no_byte_of_a_string_is_ever_a_control_byte(void **state)
{
    char all[256];
    struct json j = begin();

    (void)state;
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    json_text_bytes(&j, NULL, all, sizeof all);
    assert_int_equal(fclose(memory), 0);
    for (size_t i = 0; i < text_bytes; i++)
        assert_true((unsigned char)text[i] >= 0x20 && (unsigned char)text[i] != 0x7f);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas_and_keys_stand_where_they_belong),
        cmocka_unit_test(whole_numbers_are_64_bits_wide),
        cmocka_unit_test(every_text_becomes_a_valid_string),
        cmocka_unit_test(no_byte_of_a_string_is_ever_a_control_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
