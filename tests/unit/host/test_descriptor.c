#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "protocol/vmdk/descriptor.h"

#define BASE                                                                                       \
    "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=1a2b3c4d\nparentCID=ffffffff\n"     \
    "createType=\"vmfs\"\n\n# Extent description\nRW 83886080 VMFS \"web 01-flat.vmdk\"\n\n"       \
    "# Change Tracking File\nchangeTrackPath=\"web 01-ctk.vmdk\"\n\n# The Disk Data Base "         \
    "\n#DDB\n\n"                                                                                   \
    "ddb.adapterType = \"lsilogic\"\nddb.thinProvisioned = \"1\"\n"                                \
    "ddb.uuid = \"60 00 C2 9a 00 00 00 00-00 00 00 00 00 00 00 01\"\n"

static int read_text(struct descriptor **out, const char *text, struct err *e)
{
    size_t bytes = strlen(text);
    char *copy = malloc(bytes == 0 ? 1 : bytes);
    int rc;

    assert_non_null(copy);
    memcpy(copy, text, bytes);
    rc = descriptor_read(out, copy, bytes, e);
    free(copy);
    return rc;
}

static void the_base_of_an_esxi_disk(void **state)
{
    struct descriptor *d;
    struct err e;

    (void)state;
    assert_int_equal(read_text(&d, BASE, &e), 0);
    assert_int_equal(d->version, 1);
    assert_int_equal(d->cid, 0x1a2b3c4d);
    assert_true(d->parent_cid == DESCRIPTOR_CID_NONE);
    assert_string_equal(d->create_type, "vmfs");
    assert_int_equal(d->extent_count, 1);
    assert_string_equal(d->extents[0].type, "VMFS");
    assert_string_equal(d->extents[0].name, "web 01-flat.vmdk");
    assert_true(d->capacity_bytes == UINT64_C(83886080) * 512);
    assert_string_equal(d->change_track, "web 01-ctk.vmdk");
    assert_string_equal(descriptor_ddb(d, "uuid"),
                        "60 00 C2 9a 00 00 00 00-00 00 00 00 00 00 00 01");
    assert_null(descriptor_unfinished(d));
    descriptor_free(d);
}

static void a_child_and_odd_spellings(void **state)
{
    struct descriptor *d;
    struct err e;

    (void)state;
    assert_int_equal(read_text(&d,
                               "\xef\xbb\xbf# Disk DescriptorFile\r\nversion = 3\r\ncid=abc\r\n"
                               "PARENTCID=1A2B3C4D\r\ncreateType=\"seSparse\"\r\n"
                               "parentFileNameHint=\"/vmfs/volumes/a b/x=\"y\".vmdk\"\r\n"
                               "rw 8 sesparse \"a \"quoted\" name\"\r\n"
                               "ddb.alternateParentCID = \"1\"",
                               &e),
                     0);
    assert_int_equal(d->cid, 0xabc);
    assert_int_equal(d->parent_cid, 0x1a2b3c4d);
    assert_string_equal(d->parent_hint, "/vmfs/volumes/a b/x=\"y\".vmdk");
    assert_string_equal(d->extents[0].type, "SESPARSE");
    assert_string_equal(d->extents[0].name, "a \"quoted\" name");
    assert_string_equal(descriptor_unfinished(d), "alternateParentCID");
    descriptor_free(d);
}

static void the_first_line_may_be_missing(void **state)
{
    struct descriptor *d;
    struct err e;

    (void)state;
    assert_int_equal(read_text(&d,
                               "\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfs\"\n"
                               "RW 8 VMFS \"a-flat.vmdk\"\n",
                               &e),
                     0);
    descriptor_free(d);
}

static void padding_by_nuls_is_allowed_but_none_inside(void **state)
{
    static const char padded[] = BASE "\0\0\0\0\0";
    static const char inside[] = "# Disk DescriptorFile\nversion=1\0CID=1\n";
    static const char shorter[] = BASE "\0\0\"\n\0\0\0";
    static const char longer[] = BASE "\0x\n\0\0\0";
    struct descriptor *d;
    struct err e;

    (void)state;
    assert_int_equal(descriptor_read(&d, padded, sizeof padded, &e), 0);
    descriptor_free(d);
    assert_int_equal(descriptor_read(&d, inside, sizeof inside - 1, &e), -1);
    assert_int_equal(e.code, ERR_FORMAT);
    /* What qemu leaves behind a text that became shorter. */
    assert_int_equal(descriptor_read(&d, shorter, sizeof shorter, &e), 0);
    descriptor_free(d);
    assert_int_equal(descriptor_read(&d, longer, sizeof longer, &e), -1);
    assert_int_equal(e.code, ERR_FORMAT);
}

static void what_breaks_the_rules_is_refused(void **state)
{
    static const struct {
        const char *text;
        enum err_code code;
    } cases[] = {
        { "", ERR_FORMAT },
        { "KDMV", ERR_FORMAT },
        { "CID=1\nversion=1\n", ERR_FORMAT },
        { "version=1\n", ERR_CORRUPT },
        { "# Disk DescriptorFile\n", ERR_CORRUPT },
        { BASE "CID=1\n", ERR_CORRUPT },
        { BASE "ddb.uuid = \"x\"\n", ERR_CORRUPT },
        { BASE "surprise=1\n", ERR_CORRUPT },
        { BASE "just words\n", ERR_CORRUPT },
        { BASE "parentFileName=\"x\"\n", ERR_CORRUPT },
        { BASE "isNativeSnapshot=\"maybe\"\n", ERR_CORRUPT },
        { BASE "RW 0 VMFS \"x\"\n", ERR_CORRUPT },
        { BASE "RW -1 VMFS \"x\"\n", ERR_CORRUPT },
        { BASE "RW 99999999999999999999 VMFS \"x\"\n", ERR_CORRUPT },
        { BASE "RW 137438953472 VMFS \"x\"\n", ERR_CORRUPT }, /* the sum is too large */
        { BASE "RW 8 VMFS x\n", ERR_CORRUPT },
        { BASE "RW 8 VMFS \"x\n", ERR_CORRUPT },
        { BASE "RW 8 FLAT \"x\" 0 more\n", ERR_CORRUPT },
        { BASE "RW 8\n", ERR_CORRUPT },
        { BASE "encoding=\"x\n", ERR_CORRUPT },
        { "# d\nversion=4\nCID=1\nparentCID=1\ncreateType=\"vmfs\"\nRW 8 VMFS \"x\"\n",
          ERR_CORRUPT },
        { "# d\nversion=1\nCID=123456789\n", ERR_CORRUPT },
        { "# d\nversion=1\nCID=1\nparentCID=1\ncreateType=\"vmfs\"\n", ERR_CORRUPT },
    };
    struct descriptor *d;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (read_text(&d, cases[i].text, &e) == 0)
            fail_msg("case %zu was taken", i);
        if (e.code != cases[i].code)
            fail_msg("case %zu: code %d, not %d: %s", i, e.code, cases[i].code, e.text);
    }
}

static void sizes_are_limited(void **state)
{
    struct descriptor *d;
    struct err e;
    char *text = malloc(DESCRIPTOR_BYTES_MAX + 1);
    size_t at;

    (void)state;
    assert_non_null(text);
    memset(text, '#', DESCRIPTOR_BYTES_MAX + 1);
    assert_int_equal(descriptor_read(&d, text, DESCRIPTOR_BYTES_MAX + 1, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    memcpy(text, BASE, sizeof BASE - 1);
    at = sizeof BASE - 1;
    for (int i = 0; i < DESCRIPTOR_EXTENTS_MAX; i++) {
        memcpy(text + at, "RW 8 VMFS \"x\"\n", 14);
        at += 14;
    }
    assert_int_equal(descriptor_read(&d, text, at, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_base_of_an_esxi_disk),
        cmocka_unit_test(a_child_and_odd_spellings),
        cmocka_unit_test(the_first_line_may_be_missing),
        cmocka_unit_test(padding_by_nuls_is_allowed_but_none_inside),
        cmocka_unit_test(what_breaks_the_rules_is_refused),
        cmocka_unit_test(sizes_are_limited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
