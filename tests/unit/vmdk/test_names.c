/* Which files a chain may open, and how names, ids and sizes must fit. */
#include "tests/unit/cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/block/source.h"
#include "protocol/vmdk/chain.h"
#include "protocol/vmdk/files_private.h"
#include "tests/unit/vmdk/images.h"

enum { SECTORS = 100, SECTOR = 512, COMPONENTS = 65 };

static struct folder f;

static int setup(void **state)
{
    int fd;

    (void)state;
    folder_make(&f);
    assert_int_equal(mkdir(folder_path(&f, "vm"), 0700), 0);
    assert_int_equal(mkdir(folder_path(&f, "other"), 0700), 0);
    fd = file_make(&f, "vm/base-flat.vmdk");
    put_bytes(fd, 0, "first", 5);
    file_size(fd, SECTORS * SECTOR);
    close(fd);
    link_write(&f, "vm/base.vmdk", "vmfs", "VMFS", "base-flat.vmdk", SECTORS, 0x10, 0, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    folder_remove(&f);
    return 0;
}

/* 0, or the code; the text goes to the last error. */
static struct err last;
static enum err_code open_tip(const char *name)
{
    struct vmdk_config config = { .files = f.files };
    struct vmdk_chain *c;

    last = (struct err){ 0 };
    if (vmdk_chain_open(&c, &config, name[0] == '/' ? name : folder_path(&f, name), &last) != 0)
        return last.code;
    vmdk_chain_close(c);
    return ERR_NONE;
}

static void expect(const char *name, enum err_code code, const char *text)
{
    enum err_code found = open_tip(name);

    if (found != code || (text != NULL && strstr(last.text, text) == NULL))
        fail_msg("%s: code %d, not %d; \"%s\" has no \"%s\"", name, found, code, last.text,
                 text != NULL ? text : "");
}

/* A delta "vm/d.vmdk" whose parent is named by hint. */
static void child_of(const char *hint, uint32_t parent_cid, uint64_t sectors)
{
    struct layer l;

    layer_random(&l, sectors, 8, 4);
    sesparse_write(&f, "vm/d-sesparse.vmdk", &l, 2);
    layer_free(&l);
    link_write(&f, "vm/d.vmdk", "seSparse", "SESPARSE", "d-sesparse.vmdk", sectors, 0x11,
               parent_cid, hint);
}

static void both_ways(void (*test)(void))
{
    test();
    local_files_forget_openat(f.files);
    test();
}

static void good_names(void)
{
    char hint[600];

    expect("vm/base.vmdk", ERR_NONE, NULL);
    expect("vm//./base.vmdk", ERR_NONE, NULL);
    child_of("base.vmdk", 0x10, SECTORS);
    expect("vm/d.vmdk", ERR_NONE, NULL);
    child_of("../vm/base.vmdk", 0x10, SECTORS);
    expect("vm/d.vmdk", ERR_NONE, NULL);
    child_of("./base.vmdk", 0x10, SECTORS);
    expect("vm/d.vmdk", ERR_NONE, NULL);
    snprintf(hint, sizeof hint, "%s/vm/base.vmdk", f.path);
    child_of(hint, 0x10, SECTORS);
    expect("vm/d.vmdk", ERR_NONE, NULL);
    child_of("/vmfs/volumes/label/vm/base.vmdk", 0x10, SECTORS);
    expect("vm/d.vmdk", ERR_NONE, NULL);
    expect("/vmfs/volumes/label/vm/d.vmdk", ERR_NONE, NULL);
}

static void names_inside_the_volumes_are_opened(void **state)
{
    (void)state;
    both_ways(good_names);
}

static void bad_names(void)
{
    static const struct {
        const char *hint;
        enum err_code code;
    } cases[] = {
        { "/etc/passwd", ERR_REFUSED },
        { "/vmfs/volumes/labels/vm/base.vmdk", ERR_REFUSED },
        { "../../etc/passwd", ERR_REFUSED },
        { "../vm/../../x.vmdk", ERR_REFUSED },
        { "..", ERR_REFUSED },
        { "", ERR_REFUSED },
        { "base.vmdk/", ERR_REFUSED },
        { "a\\b.vmdk", ERR_REFUSED },
        { "a\tb.vmdk", ERR_REFUSED },
        { "link.vmdk", ERR_REFUSED },
        { "../linked/base.vmdk", ERR_REFUSED },
        { "pipe.vmdk", ERR_REFUSED },
        { "null.vmdk", ERR_REFUSED },
        { "../other", ERR_REFUSED },
        { "none.vmdk", ERR_NOT_FOUND },
        { "base.vmdk/more", ERR_REFUSED },
        { "vsan://52b1", ERR_UNSUPPORTED },
        { "empty.vmdk", ERR_CORRUPT },
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        child_of(cases[i].hint, 0x10, SECTORS);
        expect("vm/d.vmdk", cases[i].code, NULL);
    }
}

static void names_that_lead_elsewhere_are_refused(void **state)
{
    (void)state;
    assert_int_equal(symlink("base.vmdk", folder_path(&f, "vm/link.vmdk")), 0);
    assert_int_equal(symlink("vm", folder_path(&f, "linked")), 0);
    assert_int_equal(mkfifo(folder_path(&f, "vm/pipe.vmdk"), 0600), 0);
    assert_int_equal(mknod(folder_path(&f, "vm/null.vmdk"), S_IFCHR | 0600, 0x103), 0);
    close(file_make(&f, "vm/empty.vmdk"));
    both_ways(bad_names);
    expect("/etc/passwd", ERR_REFUSED, "none of the known volumes");
}

static void extents_lie_beside_their_descriptor(void **state)
{
    static const char *const names[] = {
        "../vm/base-flat.vmdk", "/etc/passwd", "a/b", "..", ".", "a\\b", ""
    };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        link_write(&f, "vm/x.vmdk", "vmfs", "VMFS", names[i], SECTORS, 1, 0, NULL);
        expect("vm/x.vmdk", ERR_REFUSED, "extent 0");
    }
    assert_int_equal(symlink("base-flat.vmdk", folder_path(&f, "vm/l-flat.vmdk")), 0);
    link_write(&f, "vm/x.vmdk", "vmfs", "VMFS", "l-flat.vmdk", SECTORS, 1, 0, NULL);
    expect("vm/x.vmdk", ERR_REFUSED, "l-flat.vmdk");
    link_write(&f, "vm/x.vmdk", "vmfs", "VMFS", "x.vmdk", 1, 1, 0, NULL);
    expect("vm/x.vmdk", ERR_REFUSED, "itself");
}

static void ids_and_sizes_must_fit(void **state)
{
    (void)state;
    child_of("base.vmdk", 0x99, SECTORS);
    expect("vm/d.vmdk", ERR_SOURCE, "expects content id 00000099 below it");
    child_of("base.vmdk", 0x10, SECTORS + 1);
    expect("vm/d.vmdk", ERR_CORRUPT, "but its parent");
    link_write(&f, "vm/x.vmdk", "vmfs", "VMFS", "base-flat.vmdk", SECTORS - 1, 1, 0, NULL);
    expect("vm/x.vmdk", ERR_CORRUPT, "its extent");
    link_write(&f, "vm/x.vmdk", "vmfs", "VMFS", "base-flat.vmdk", SECTORS + 1, 1, 0, NULL);
    expect("vm/x.vmdk", ERR_CORRUPT, "its extent");
    link_write(&f, "vm/x.vmdk", "vmfs", "VMFS", "base-flat.vmdk", SECTORS, 1, 2, "base.vmdk");
    expect("vm/x.vmdk", ERR_CORRUPT, "that of a base");
    link_write(&f, "vm/x.vmdk", "seSparse", "SESPARSE", "d-sesparse.vmdk", SECTORS, 1, 0, NULL);
    expect("vm/x.vmdk", ERR_CORRUPT, "that of a delta");
}

static void a_loop_ends(void **state)
{
    (void)state;
    child_of("d.vmdk", 0x11, SECTORS);
    expect("vm/d.vmdk", ERR_REFUSED, "twice");
    /* Two descriptors over each other, and the same data under another name. */
    child_of("e.vmdk", 0x12, SECTORS);
    run("cp %s %s", folder_path(&f, "vm/d-sesparse.vmdk"), folder_path(&f, "vm/e-sesparse.vmdk"));
    link_write(&f, "vm/e.vmdk", "seSparse", "SESPARSE", "e-sesparse.vmdk", SECTORS, 0x12, 0x11,
               "d.vmdk");
    expect("vm/d.vmdk", ERR_REFUSED, "twice");
    link_write(&f, "vm/e.vmdk", "seSparse", "SESPARSE", "d-sesparse.vmdk", SECTORS, 0x12, 0x10,
               "base.vmdk");
    expect("vm/d.vmdk", ERR_REFUSED, "twice");
    unlink(folder_path(&f, "vm/e-sesparse.vmdk"));
    assert_int_equal(
        link(folder_path(&f, "vm/d-sesparse.vmdk"), folder_path(&f, "vm/e-sesparse.vmdk")), 0);
    link_write(&f, "vm/e.vmdk", "seSparse", "SESPARSE", "e-sesparse.vmdk", SECTORS, 0x12, 0x10,
               "base.vmdk");
    expect("vm/d.vmdk", ERR_REFUSED, "twice");
}

static void depth_is_limited(void **state)
{
    char name[32], data[32], parent[32];
    struct layer l;

    (void)state;
    layer_random(&l, SECTORS, 1, 3);
    for (unsigned i = 1; i <= VMDK_LINKS_MAX; i++) {
        snprintf(name, sizeof name, "vm/n%u.vmdk", i);
        snprintf(parent, sizeof parent, i == 1 ? "base.vmdk" : "n%u.vmdk", i - 1);
        snprintf(data, sizeof data, "n%u-delta.vmdk", i);
        link_write(&f, name, "vmfsSparse", "VMFSSPARSE", data, SECTORS, 0x10 + i, 0x10 + i - 1,
                   parent);
        snprintf(data, sizeof data, "vm/n%u-delta.vmdk", i);
        cowd_write(&f, data, &l, i);
    }
    layer_free(&l);
    snprintf(name, sizeof name, "vm/n%u.vmdk", VMDK_LINKS_MAX - 1);
    expect(name, ERR_NONE, NULL);
    snprintf(name, sizeof name, "vm/n%u.vmdk", VMDK_LINKS_MAX);
    expect(name, ERR_LIMIT, "256 links");
}

static void two_volumes(void **state)
{
    char vm[128], other[128];
    struct vmdk_volume volumes[2] = { { vm, NULL }, { other, NULL } };
    struct vmdk_config config = { 0 };
    struct vmdk_chain *c;
    struct err e;

    (void)state;
    snprintf(vm, sizeof vm, "%s/vm", f.path);
    snprintf(other, sizeof other, "%s/other", f.path);
    run("cp %s/vm/base* %s/other/", f.path, f.path);
    child_of(folder_path(&f, "other/base.vmdk"), 0x10, SECTORS);
    assert_int_equal(vmdk_local_files_new(&config.files, volumes, 2, &e), 0);
    assert_int_equal(vmdk_chain_open(&c, &config, folder_path(&f, "vm/d.vmdk"), &e), 0);
    assert_string_equal(vmdk_chain_link(c, 1)->place, folder_path(&f, "other/base.vmdk"));
    vmdk_chain_close(c);
    /* By a relative name a parent stays on its child's volume. */
    child_of("../other/base.vmdk", 0x10, SECTORS);
    assert_int_equal(vmdk_chain_open(&c, &config, folder_path(&f, "vm/d.vmdk"), &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    vmdk_files_close(config.files);
    /* Without the second volume the same chain is refused. */
    child_of(folder_path(&f, "other/base.vmdk"), 0x10, SECTORS);
    assert_int_equal(vmdk_local_files_new(&config.files, volumes, 1, &e), 0);
    assert_int_equal(vmdk_chain_open(&c, &config, folder_path(&f, "vm/d.vmdk"), &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    vmdk_files_close(config.files);
}

static void a_file_that_changes_is_seen(void **state)
{
    struct vmdk_config config = { .files = f.files };
    struct vmdk_chain *c;
    struct err e;

    (void)state;
    child_of("base.vmdk", 0x10, SECTORS);
    assert_int_equal(vmdk_chain_open(&c, &config, folder_path(&f, "vm/d.vmdk"), &e), 0);
    assert_int_equal(vmdk_chain_unchanged(c, &e), 0);
    patch(&f, "vm/base-flat.vmdk", 0, "other", 5);
    run("touch -d 2001-01-01 %s", folder_path(&f, "vm/base-flat.vmdk"));
    assert_int_equal(vmdk_chain_unchanged(c, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    vmdk_chain_close(c);
    assert_int_equal(vmdk_chain_open(&c, &config, folder_path(&f, "vm/d.vmdk"), &e), 0);
    run("cp %s %s && mv %s %s", folder_path(&f, "vm/d.vmdk"), folder_path(&f, "vm/n"),
        folder_path(&f, "vm/n"), folder_path(&f, "vm/d.vmdk"));
    assert_int_equal(vmdk_chain_unchanged(c, &e), -1);
    assert_non_null(strstr(e.text, "replaced"));
    vmdk_chain_close(c);
}

/* A chain that ends before its base is described, and not read. */
static void what_can_be_opened_is_described(void **state)
{
    struct vmdk_config config = { .files = f.files, .flags = VMDK_DESCRIBE };
    struct vmdk_chain *c;
    struct extent x;
    struct err e;
    char byte;

    (void)state;
    child_of("none.vmdk", 0x10, SECTORS);
    assert_int_equal(vmdk_chain_open(&c, &config, folder_path(&f, "vm/d.vmdk"), &e), 0);
    assert_int_equal(vmdk_chain_link_count(c), 1);
    assert_int_equal(vmdk_chain_problem(c)->code, ERR_NOT_FOUND);
    assert_int_equal(source_read(vmdk_chain_source(c), 0, &byte, 1, &e), -1);
    assert_int_equal(source_extent_at(vmdk_chain_source(c), 0, &x, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    vmdk_chain_close(c);
    /* As a source it is not opened at all. */
    {
        struct source *s;

        assert_int_equal(vmdk_source_open(&s, &config, folder_path(&f, "vm/d.vmdk"), &e), -1);
    }
}

static void hosted_forms_are_refused_where_only_a_host_is_read(void **state)
{
    struct vmdk_config config = { .files = f.files, .flags = VMDK_ONLY_ESXI };
    struct vmdk_chain *c;
    struct err e;

    (void)state;
    link_write(&f, "vm/m.vmdk", "monolithicFlat", "FLAT", "base-flat.vmdk", SECTORS, 1, 0, NULL);
    expect("vm/m.vmdk", ERR_NONE, NULL);
    assert_int_equal(vmdk_chain_open(&c, &config, folder_path(&f, "vm/m.vmdk"), &e), -1);
    assert_int_equal(e.code, ERR_UNSUPPORTED);
}

static void types_that_are_not_read_say_why(void **state)
{
    static const char *const types[][2] = {
        { "vmfsRawDeviceMap", "raw device" },
        { "vmfsPassthroughRawDeviceMap", "raw device" },
        { "vmfsRaw", "raw device" },
        { "fullDevice", "raw device" },
        { "vsanSparse", "vSAN" },
        { "vmfsLegacy", "not known" },
    };
    static const struct {
        const char *line, *text;
        enum err_code code;
    } lines[] = {
        { "keyID=1", "encrypted", ERR_UNSUPPORTED },
        { "isNativeSnapshot=\"yes\"", "array", ERR_UNSUPPORTED },
        { "ddb.KMFilters = \"x\"", "encrypted", ERR_UNSUPPORTED },
        { "ddb.logicalSectorSize = \"4096\"", "logicalSectorSize", ERR_UNSUPPORTED },
        { "ddb.alternateParentCID = \"12\"", "consolidation", ERR_SOURCE },
        { "RW 1 VMFS \"more.vmdk\"", "one extent", ERR_CORRUPT },
        { "NOACCESS 5 ZERO", "one extent", ERR_CORRUPT },
    };

    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        link_write(&f, "vm/t.vmdk", types[i][0], "VMFS", "base-flat.vmdk", SECTORS, 1, 0, NULL);
        expect("vm/t.vmdk", ERR_UNSUPPORTED, types[i][1]);
    }
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        link_write(&f, "vm/t.vmdk", "vmfs", "VMFS", "base-flat.vmdk", SECTORS, 1, 0, NULL);
        run("echo '%s' >> %s", lines[i].line, folder_path(&f, "vm/t.vmdk"));
        expect("vm/t.vmdk", lines[i].code, lines[i].text);
    }
    link_write(&f, "vm/t.vmdk", "vmfs", "SPARSE", "base-flat.vmdk", SECTORS, 1, 0, NULL);
    expect("vm/t.vmdk", ERR_UNSUPPORTED, "type SPARSE");
    file_text(&f, "vm/t.vmdk",
              "# Disk DescriptorFile\nversion=1\nencoding=\"windows-1252\"\nCID=1\n"
              "parentCID=ffffffff\ncreateType=\"vmfs\"\nRW %d VMFS \"b\xe4se-flat.vmdk\"\n",
              SECTORS);
    expect("vm/t.vmdk", ERR_UNSUPPORTED, "windows-1252");
    file_text(&f, "vm/t.vmdk", "PK not a disk at all");
    expect("vm/t.vmdk", ERR_FORMAT, NULL);
    expect("vm/base-flat.vmdk", ERR_FORMAT, NULL);
    child_of("base.vmdk", 0x10, SECTORS);
    expect("vm/d-sesparse.vmdk", ERR_FORMAT, "name its descriptor");
    child_of("base-flat.vmdk", 0x10, SECTORS);
    expect("vm/d.vmdk", ERR_CORRUPT, "the parent of");
}

/* Text of a base with these lines behind its header. */
static void base_with(const char *create_type, const char *parent_cid, const char *lines)
{
    file_text(&f, "vm/t.vmdk",
              "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=%s\ncreateType=\"%s\"\n%s\n",
              parent_cid, create_type, lines);
}

static void lines_that_contradict_are_refused(void **state)
{
    (void)state;
    base_with("vmfs", "ffffffff", "RW 100 VMFS \"base-flat.vmdk\"");
    expect("vm/t.vmdk", ERR_NONE, NULL);
    base_with("vmfs", "ffffffff", "RW 100 VMFS \"base-flat.vmdk\" 0");
    expect("vm/t.vmdk", ERR_NONE, NULL);
    base_with("vmfs", "ffffffff", "RW 99 VMFS \"base-flat.vmdk\" 1");
    expect("vm/t.vmdk", ERR_CORRUPT, "has an offset");
    base_with("vmfs", "12345678", "RW 100 VMFS \"base-flat.vmdk\"");
    expect("vm/t.vmdk", ERR_CORRUPT, "no parentFileNameHint");
    base_with("vmfs", "ffffffff", "parentFileNameHint=\"b\"\nRW 100 VMFS \"base-flat.vmdk\"");
    expect("vm/t.vmdk", ERR_CORRUPT, "says that there is none");
    base_with("custom", "ffffffff", "NOACCESS 100 FLAT \"base-flat.vmdk\"");
    expect("vm/t.vmdk", ERR_UNSUPPORTED, "NOACCESS");
    base_with("custom", "ffffffff", "RW 0 ZERO");
    expect("vm/t.vmdk", ERR_CORRUPT, "no size");
    base_with("custom", "ffffffff", "RW 18446744073709551615 ZERO");
    expect("vm/t.vmdk", ERR_CORRUPT, "too large");
    base_with("custom", "ffffffff", "RW 137438953472 ZERO\nRW 1 ZERO");
    expect("vm/t.vmdk", ERR_CORRUPT, "too large");
    base_with("custom", "ffffffff", "RW 50 FLAT \"base-flat.vmdk\" 51");
    expect("vm/t.vmdk", ERR_CORRUPT, "its extent needs");
    base_with("custom", "ffffffff", "RW 50 FLAT \"base-flat.vmdk\" 137438953472");
    expect("vm/t.vmdk", ERR_CORRUPT, "its extent needs");
    file_text(&f, "vm/t-ctk.vmdk", "\xa2\x72\x19\xf6 and so on");
    expect("vm/t-ctk.vmdk", ERR_FORMAT, "change tracking");
}

/* Long texts: one, and all of a chain together. */
static void descriptors_have_a_limit_together(void **state)
{
    char name[32];

    (void)state;
    base_with("vmfs", "ffffffff", "RW 100 VMFS \"base-flat.vmdk\"");
    run("truncate -s %d %s", (1 << 20) + 1, folder_path(&f, "vm/t.vmdk"));
    expect("vm/t.vmdk", ERR_FORMAT, "too long");
    for (unsigned i = 0; i < 5; i++) {
        char parent[32], data[32];
        struct layer l;

        snprintf(name, sizeof name, "vm/n%u.vmdk", i);
        snprintf(parent, sizeof parent, i == 0 ? "base.vmdk" : "n%u.vmdk", i - 1);
        snprintf(data, sizeof data, "n%u-delta.vmdk", i);
        link_write(&f, name, "vmfsSparse", "VMFSSPARSE", data, SECTORS, 0x11 + i, 0x10 + i, parent);
        run("truncate -s %d %s", 1 << 20, folder_path(&f, name));
        snprintf(data, sizeof data, "vm/n%u-delta.vmdk", i);
        layer_random(&l, SECTORS, 1, 3);
        cowd_write(&f, data, &l, i);
        layer_free(&l);
        expect(name, i < 3 ? ERR_NONE : ERR_LIMIT, i < 3 ? NULL : "descriptors of the chain");
    }
}

static void volumes_are_checked(void **state)
{
    struct vmdk_volume none = { "/tmp/vmferry-no-such-folder", NULL }, relative = { "tmp", NULL };
    struct vmdk_volume file = { NULL, NULL }, bad_alias = { "/tmp", "label" }, root = { "/", NULL };
    struct vmdk_config config = { 0 };
    struct vmdk_chain *c;
    struct vmdk_files *files;
    char long_name[200], many[COMPONENTS * 2 + 16];
    struct err e;

    (void)state;
    assert_int_equal(vmdk_local_files_new(&files, &none, 1, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(vmdk_local_files_new(&files, &relative, 1, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    assert_int_equal(vmdk_local_files_new(&files, &bad_alias, 1, &e), -1);
    assert_int_equal(vmdk_local_files_new(&files, &none, 0, &e), -1);
    file.path = folder_path(&f, "vm/base.vmdk");
    assert_int_equal(vmdk_local_files_new(&files, &file, 1, &e), -1);
    /* Everything lies below the root, and a slash at the end says nothing. */
    assert_int_equal(vmdk_local_files_new(&config.files, &root, 1, &e), 0);
    snprintf(long_name, sizeof long_name, "%s", folder_path(&f, "vm/base.vmdk"));
    assert_int_equal(vmdk_chain_open(&c, &config, long_name, &e), 0);
    vmdk_chain_close(c);
    assert_int_equal(vmdk_chain_open(&c, &config, "base.vmdk", &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    many[0] = '\0';
    for (size_t i = 0; i < COMPONENTS; i++)
        strcat(many, "/a");
    assert_int_equal(vmdk_chain_open(&c, &config, many, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    vmdk_files_close(config.files);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(names_inside_the_volumes_are_opened),
        TEST(names_that_lead_elsewhere_are_refused),
        TEST(extents_lie_beside_their_descriptor),
        TEST(ids_and_sizes_must_fit),
        TEST(a_loop_ends),
        TEST(depth_is_limited),
        TEST(two_volumes),
        TEST(a_file_that_changes_is_seen),
        TEST(what_can_be_opened_is_described),
        TEST(hosted_forms_are_refused_where_only_a_host_is_read),
        TEST(lines_that_contradict_are_refused),
        TEST(descriptors_have_a_limit_together),
        TEST(volumes_are_checked),
        TEST(types_that_are_not_read_say_why),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
