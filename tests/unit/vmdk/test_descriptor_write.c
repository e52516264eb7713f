/* The descriptor's writer: what it writes is read again, by us and by qemu. */
#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "protocol/vmdk/descriptor.h"
#include "tests/unit/vmdk/images.h"

/* The shape that a host writes, to the byte. */
#define CHILD                                                                                      \
    "# Disk DescriptorFile\nversion=3\nencoding=\"UTF-8\"\nCID=5e6f7081\nparentCID=1a2b3c4d\n"     \
    "createType=\"vmfsSparse\"\nparentFileNameHint=\"web 01.vmdk\"\n\n# Extent description\n"      \
    "RW 83886080 VMFSSPARSE \"web 01-000001-delta.vmdk\"\n\n# Change Tracking File\n"              \
    "changeTrackPath=\"web 01-000001-ctk.vmdk\"\n\n# The Disk Data Base \n#DDB\n\n"                \
    "ddb.adapterType = \"lsilogic\"\nddb.longContentID = \"0123456789abcdef012345675e6f7081\"\n"   \
    "ddb.uuid = \"60 00 C2 9a\"\n"

static void what_is_read_is_written_the_same(void **state)
{
    static const char *const texts[] = {
        CHILD,
        "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\n"
        "createType=\"custom\"\n\n# Extent description\nRW 1 FLAT \"a \"b\" c\" 7\n"
        "RDONLY 2 ZERO\nNOACCESS 0 ZERO\nRW 3 FLAT \"\" 0\n\n# The Disk Data Base \n#DDB\n\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct bytes out = { .ceiling = 4096 };
        struct descriptor *d;
        struct err e;

        if (descriptor_read(&d, texts[i], strlen(texts[i]), &e) != 0 ||
            descriptor_write(d, &out, &e) != 0)
            fail_msg("%s", e.text);
        assert_string_equal(bytes_text(&out, &e), texts[i]);
        bytes_free(&out);
        out = (struct bytes){ .ceiling = 100 };
        assert_int_equal(descriptor_write(d, &out, &e), -1);
        assert_int_equal(e.code, ERR_LIMIT);
        bytes_free(&out);
        descriptor_free(d);
    }
}

static void what_the_grammar_cannot_say_is_refused(void **state)
{
    struct descriptor_extent x = {
        .access = ACCESS_RW, .sectors = 5, .type = "VMFS", .name = (char[]){ "x-flat.vmdk" }
    };
    struct descriptor_ddb ddb[] = { { (char[]){ "uuid" }, (char[]){ "1" } },
                                    { (char[]){ "adapterType" }, (char[]){ "ide" } } };
    struct descriptor good = { .version = 1,
                               .cid = 1,
                               .parent_cid = DESCRIPTOR_CID_NONE,
                               .create_type = "vmfs",
                               .extents = &x,
                               .extent_count = 1,
                               .ddb = ddb,
                               .ddb_count = 2 };
    struct bytes out = { .ceiling = 4096 };
    struct descriptor bad;
    struct err e;

    (void)state;
    assert_int_equal(descriptor_write(&good, &out, &e), 0);
    bytes_free(&out);
    bad = good;
    bad.extent_count = 0;
    assert_int_equal(descriptor_write(&bad, &out, &e), -1);
    bad = good;
    bad.encrypted = true;
    assert_int_equal(descriptor_write(&bad, &out, &e), -1);
    bad = good;
    bad.parent_hint = (char[]){ "a\nRW 1 VMFS \"/etc/passwd\"" };
    assert_int_equal(descriptor_write(&bad, &out, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    bad = good;
    x.name = (char[]){ "a\r" };
    assert_int_equal(descriptor_write(&bad, &out, &e), -1);
    x.name = (char[]){ "x-flat.vmdk" };
    ddb[0].name = (char[]){ "a=b" };
    assert_int_equal(descriptor_write(&bad, &out, &e), -1);
    ddb[0].name = (char[]){ "a" };
    ddb[0].value = (char[]){ "\n" };
    assert_int_equal(descriptor_write(&bad, &out, &e), -1);
    bytes_free(&out);
}

static void geometry(void **state)
{
    struct descriptor_geometry g = descriptor_geometry_of(UINT64_C(40) << 30, false);

    (void)state;
    assert_true(g.cylinders == 5222 && g.heads == 255 && g.sectors == 63);
    g = descriptor_geometry_of(100 << 20, false);
    assert_true(g.cylinders == 100 && g.heads == 64 && g.sectors == 32);
    g = descriptor_geometry_of(UINT64_C(62) << 40, false);
    assert_int_equal(g.cylinders, 65535);
    g = descriptor_geometry_of(1 << 30, true);
    assert_true(g.cylinders == 2081 && g.heads == 16 && g.sectors == 63);
}

static void qemu_reads_it(void **state)
{
    struct descriptor_extent x = {
        .access = ACCESS_RW, .sectors = 4096, .type = "VMFS", .name = (char[]){ "web 01-flat.vmdk" }
    };
    struct descriptor d = { .version = 1,
                            .encoding = "UTF-8",
                            .cid = 0x1234,
                            .parent_cid = DESCRIPTOR_CID_NONE,
                            .create_type = "vmfs",
                            .extents = &x,
                            .extent_count = 1 };
    struct bytes out = { .ceiling = 4096 };
    struct folder f;
    struct err e;

    (void)state;
    folder_make(&f);
    assert_int_equal(descriptor_write(&d, &out, &e), 0);
    file_text(&f, "web.vmdk", "%s", bytes_text(&out, &e));
    run("cd %s && truncate -s 2M 'web 01-flat.vmdk' && qemu-img info web.vmdk | grep -q 2097152",
        f.path);
    bytes_free(&out);
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_read_is_written_the_same),
        cmocka_unit_test(what_the_grammar_cannot_say_is_refused),
        cmocka_unit_test(geometry),
        cmocka_unit_test(qemu_reads_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
