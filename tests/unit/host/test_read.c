/* Datastores, snapshots, maps and vmx files, as hosts print them. */
#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/host/datastores.h"
#include "receiver/host/map.h"
#include "receiver/host/room.h"
#include "receiver/host/snapshot.h"
#include "receiver/host/vmx.h"

#define HEAD                                                                                       \
    "Mount Point                                        Volume Name                              " \
    "  "                                                                                           \
    " UUID                                 Mounted  Type             Size           Free\n"        \
    "-------------------------------------------------  "                                          \
    "------------------------------------------"                                                   \
    "  -----------------------------------  -------  ------  -------------  -------------\n"
#define ROW(mount, name, uuid, type, size, free)                                                   \
    mount "  " name "  " uuid "     true  " type "  " size "  " free "\n"
#define U1 "00000000-00000000-0000-000000000001"
#define U4 "00000000-00000000-0000-000000000004"

#define TABLE                                                                                      \
    HEAD ROW("/vmfs/volumes/" U1, "ds1                                       ", U1, "VMFS-6",      \
             " 118380036096", "  74551656448")                                                     \
        ROW("/vmfs/volumes/00000000-00000000-0000-000000000003",                                   \
            "OSDATA-00000000-00000000-0000-000000000003", "00000000-00000000-0000-000000000003",   \
            "VFFS  ", " 128580583424", " 124806758400")                                            \
            ROW("/vmfs/volumes/" U4, "                                          ", U4, "vfat  ",   \
                "   4293591040", "   4122804224")

static void datastores_are_cut_by_the_dashes(void **state)
{
    struct datastore_list l;
    struct err e;

    (void)state;
    assert_int_equal(datastores_read_esxcli(TABLE, &l, &e), 0);
    assert_int_equal(l.count, 3);
    assert_string_equal(l.items[0].name, "ds1");
    assert_string_equal(l.items[0].uuid, U1);
    assert_string_equal(l.items[0].path, "/vmfs/volumes/" U1);
    assert_true(l.items[0].size_bytes == UINT64_C(118380036096));
    assert_true(l.items[0].free_bytes == UINT64_C(74551656448));
    assert_true(l.items[0].files);
    assert_false(l.items[1].files);
    assert_string_equal(l.items[2].name, "");
    datastore_list_free(&l);
}

static void names_with_blanks_and_wide_letters_keep_their_columns(void **state)
{
    struct datastore_list l;
    struct err e;

    (void)state;
    assert_int_equal(
        datastores_read_esxcli(HEAD ROW("/vmfs/volumes/" U1,
                                        "caf\xc3\xa9 [old]  x                             ", U1,
                                        "NFS41 ", " 118380036096", "            0"),
                               &l, &e),
        0);
    assert_string_equal(l.items[0].name, "caf\xc3\xa9 [old]  x");
    assert_string_equal(l.items[0].type, "NFS41");
    datastore_list_free(&l);
}

static void a_damaged_table_is_refused(void **state)
{
    struct datastore_list l;
    struct err e;

    (void)state;
    assert_int_equal(datastores_read_esxcli("", &l, &e), -1);
    assert_int_equal(datastores_read_esxcli("Mount Point  x\n----  ---\n", &l, &e), -1);
    assert_int_equal(datastores_read_esxcli(HEAD "/vmfs/volumes/x  y\n", &l, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    /* More free than there is. */
    assert_int_equal(datastores_read_esxcli(
                         HEAD ROW("/vmfs/volumes/" U1, "ds1                                       ",
                                  U1, "VMFS-6", "            1", "            2"),
                         &l, &e),
                     -1);
    /* A UUID that would lead elsewhere. */
    assert_int_equal(datastores_read_esxcli(HEAD ROW("/vmfs/volumes/" U1,
                                                     "ds1                                       ",
                                                     "../../etc                          ",
                                                     "VMFS-6", "            2", "            2"),
                                            &l, &e),
                     -1);
}

static void summaries_of_both_url_forms(void **state)
{
    static const char text[] =
        "(vim.Datastore.Summary) [\n   (vim.Datastore.Summary) {\n"
        "      datastore = 'vim.Datastore:" U1 "', \n      name = \"ds 1\", \n"
        "      url = \"/vmfs/volumes/" U1 "\", \n      capacity = 100, \n      freeSpace = 50, \n"
        "      accessible = true, \n      type = \"VMFS\"\n   }, \n"
        "   (vim.Datastore.Summary) {\n      name = \"ds2\", \n"
        "      url = \"ds:///vmfs/volumes/" U4 "/\", \n      capacity = 100, \n"
        "      freeSpace = 50, \n      accessible = true, \n      type = \"NFS\"\n   }, \n"
        "   (vim.Datastore.Summary) {\n      name = \"away\", \n      accessible = false\n   "
        "}\n]\n";
    struct datastore_list l;
    struct err e;

    (void)state;
    assert_int_equal(datastores_read_summary(text, sizeof text - 1, &l, &e), 0);
    assert_int_equal(l.count, 2);
    assert_string_equal(l.items[1].uuid, U4);
    datastore_list_free(&l);
}

static void paths_turn_both_ways_and_never_leave(void **state)
{
    char out[DATASTORE_PATH_MAX];
    struct datastore_list l;
    struct err e;

    (void)state;
    assert_int_equal(datastores_read_esxcli(TABLE, &l, &e), 0);
    assert_int_equal(datastore_absolute(&l, "[ds1] a b/c.vmdk", out, &e), 0);
    assert_string_equal(out, "/vmfs/volumes/" U1 "/a b/c.vmdk");
    assert_int_equal(datastore_absolute(&l, "/vmfs/volumes/ds1/x/y.vmdk", out, &e), 0);
    assert_string_equal(out, "/vmfs/volumes/" U1 "/x/y.vmdk");
    assert_int_equal(datastore_shown(&l, "/vmfs/volumes/" U1 "/x/y.vmdk", out, &e), 0);
    assert_string_equal(out, "[ds1] x/y.vmdk");
    assert_int_equal(datastore_absolute(&l, "[none] a", out, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(datastore_absolute(&l, "[ds1] ../etc", out, &e), -1);
    assert_int_equal(datastore_absolute(&l, "[ds1] a//b", out, &e), -1);
    assert_int_equal(datastore_absolute(&l, "[ds1] a/.", out, &e), -1);
    assert_int_equal(datastore_absolute(&l, "/etc/passwd", out, &e), -1);
    assert_int_equal(e.code, ERR_FORMAT);

    assert_int_equal(datastore_resolve(&l, "/vmfs/volumes/" U1 "/a/b.vmdk", "b-flat.vmdk", out, &e),
                     0);
    assert_string_equal(out, "/vmfs/volumes/" U1 "/a/b-flat.vmdk");
    assert_int_equal(datastore_resolve(&l, "/vmfs/volumes/" U1 "/a/b.vmdk", "../c/d.vmdk", out, &e),
                     0);
    assert_string_equal(out, "/vmfs/volumes/" U1 "/c/d.vmdk");
    assert_int_equal(datastore_resolve(&l, "/vmfs/volumes/" U1 "/a/b.vmdk",
                                       "/vmfs/volumes/" U4 "/x.vmdk", out, &e),
                     0);
    for (size_t i = 0; i < 7; i++) {
        static const char *const bad[] = {
            "../../x", "../../../etc/passwd", "/etc/passwd", "vsan://1", "a\nb", "", "./x"
        };

        assert_int_equal(datastore_resolve(&l, "/vmfs/volumes/" U1 "/a/b.vmdk", bad[i], out, &e),
                         -1);
        assert_int_equal(e.code, ERR_REFUSED);
    }
    datastore_list_free(&l);
}

/* ---- snapshots ---- */

static void snapshot_get_is_read_as_captured(void **state)
{
    struct snapshot_tree t;
    struct err e;

    (void)state;
    assert_int_equal(snapshot_parse_get("Get Snapshot:\n|-ROOT\n"
                                        "--Snapshot Name        : before upgrade\n"
                                        "--Snapshot Id        : 1\n"
                                        "--Snapshot Desciption  : text\nspans lines\n"
                                        "--Snapshot Created On  : 2/23/2015 18:12:50\n"
                                        "--Snapshot State       : powered off\n--|-CHILD\n"
                                        "----Snapshot Name        : ours-1a2b3c4d\n"
                                        "----Snapshot Id        : 2\n"
                                        "----Snapshot Desciption  : \n"
                                        "----Snapshot Created On  : 2/24/2015 1:2:5\n"
                                        "----Snapshot State       : powered on\n",
                                        &t, &e),
                     0);
    assert_int_equal(t.count, 2);
    assert_int_equal(t.items[0].id, 1);
    assert_string_equal(t.items[1].name, "ours-1a2b3c4d");
    assert_int_equal(t.items[1].id, 2);
    assert_int_equal(t.items[1].depth, 1);
    assert_int_equal(t.items[0].children, 1);
    assert_true(t.items[1].created == 1424739725);
    snapshot_tree_free(&t);
    assert_int_equal(snapshot_parse_get("Get Snapshot:\n", &t, &e), 0);
    assert_int_equal(t.count, 0);
    assert_int_equal(snapshot_parse_get("", &t, &e), -1);
    assert_int_equal(
        snapshot_parse_get("Get Snapshot:\n|-ROOT\n--Snapshot Name        : x\n", &t, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
}

static void snapshot_info_is_walked_in_order(void **state)
{
    static const char text[] =
        "Get Snapshot Info:\n\n(vim.vm.SnapshotInfo) {\n"
        "   currentSnapshot = 'vim.vm.Snapshot:3-snapshot-1', \n"
        "   rootSnapshotList = (vim.vm.SnapshotTree) [\n      (vim.vm.SnapshotTree) {\n"
        "         snapshot = 'vim.vm.Snapshot:3-snapshot-1', \n         vm = "
        "'vim.VirtualMachine:3', \n"
        "         name = \"a\", \n         description = \"name = \"b\", \n id = 9\", \n"
        "         id = 1, \n         createTime = \"2023-05-02T10:11:12.5Z\", \n"
        "         state = \"poweredOff\", \n         quiesced = false, \n"
        "         childSnapshotList = (vim.vm.SnapshotTree) [\n            (vim.vm.SnapshotTree) "
        "{\n"
        "               name = \"b\", \n               id = 2, \n               quiesced = true\n"
        "            }\n         ]\n      }, \n      (vim.vm.SnapshotTree) {\n"
        "         name = \"c\", \n         id = 3\n      }\n   ]\n}\n";
    struct snapshot_tree t;
    struct err e;

    (void)state;
    if (snapshot_parse_info(text, sizeof text - 1, &t, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(t.count, 3);
    assert_true(t.items[0].id == 1 && t.items[0].depth == 0 && t.items[0].children == 1);
    assert_true(t.items[0].created == 1683022272);
    assert_true(t.items[1].id == 2 && t.items[1].depth == 1 && t.items[1].quiesced);
    assert_true(t.items[2].id == 3 && t.items[2].depth == 0);
    snapshot_tree_free(&t);
    assert_int_equal(
        snapshot_parse_info("Get Snapshot Info:\n(vim.vm.SnapshotInfo) null\n", 46, &t, &e), 0);
    assert_int_equal(t.count, 0);
    assert_int_equal(snapshot_parse_info("Get Snapshot Info:\n", 19, &t, &e), -1);
}

static void names_of_ours_are_told_exactly(void **state)
{
    static const char good[] = "vmferry-0123456789abcdef-run-00112233445566778899aabbccddeeff";
    struct snapshot_tag tag;
    char name[SNAPSHOT_NAME_ROOM];

    (void)state;
    assert_true(snapshot_tag_read(good, &tag));
    assert_string_equal(tag.install_id, "0123456789abcdef");
    assert_int_equal(tag.purpose, JOURNAL_RUN);
    snapshot_tag_write(&tag, name);
    assert_string_equal(name, good);
    assert_true(
        snapshot_tag_read("vmferry-0123456789abcdef-keep-00112233445566778899aabbccddeeff", &tag));
    assert_false(
        snapshot_tag_read("vmferry-0123456789abcdef-run-00112233445566778899aabbccddeeff ", &tag));
    assert_false(
        snapshot_tag_read("vmferry-0123456789abcdeF-run-00112233445566778899aabbccddeeff", &tag));
    assert_false(
        snapshot_tag_read("vmferry-0123456789abcdef-run-00112233445566778899aabbccddeef", &tag));
    assert_false(
        snapshot_tag_read("vmferry-0123456789abcdef-old-00112233445566778899aabbccddeeff", &tag));
    assert_false(snapshot_tag_read("", &tag));
}

/* ---- maps ---- */

#define MAP_HEAD "Mapping for file /vmfs/volumes/ds/vm/v (1).vmdk (14680064 bytes in size):\n"
#define MAP_LINES                                                                                  \
    "[           0:     1048576] --> [VMFS -- LVID:5c8f-1/5c8f-2/1:(  2934964224 -->   "           \
    "2936012800)]\n"                                                                               \
    "[     1048576:    11534336] --> [NOMP -- :(           0 -->     11534336)]\n"                 \
    "[    12582912:     1048576] --> [VMFS Z- LVID:5c8f-1/5c8f-2/1:(  2948595712 -->   "           \
    "2949644288)]\n"                                                                               \
    "[    13631488:     1048576] --> [VMFS -- LVID:5c8f-1/5c8f-2/1:(  2949644288 -->   "           \
    "2950692864)]\n"

static void a_map_that_parses_wholly_is_used(void **state)
{
    static const char text[] = MAP_HEAD MAP_LINES "\n";
    struct disk_map m;
    struct extent x;
    struct err e;

    (void)state;
    assert_int_equal(disk_map_read(&m, text, sizeof text - 1, 14680064, &e), 0);
    assert_int_equal(m.count, 3); /* the hole and the zeroed blocks are one */
    assert_true(m.data_bytes == 2097152);
    x = disk_map_at(&m, 2000000);
    assert_true(x.kind == EXTENT_ZERO && x.offset_bytes == 2000000 &&
                x.offset_bytes + x.length_bytes == 13631488);
    x = disk_map_at(&m, 0);
    assert_true(x.kind == EXTENT_DATA && x.length_bytes == 1048576);
    x = disk_map_at(&m, 14680063);
    assert_true(x.kind == EXTENT_DATA && x.length_bytes == 1);
    disk_map_free(&m);
}

static void any_doubt_about_a_map_refuses_it(void **state)
{
    static const char *const bad[] = {
        "",
        MAP_HEAD,
        MAP_LINES,
        MAP_HEAD "[           0:     1048576] --> [VMFS -- x:(  1 -->   1048577)]\n",
        MAP_HEAD MAP_LINES "[14680064: 1] --> [NOMP -- :( 0 --> 1)]\n",
        MAP_HEAD MAP_LINES "more\n",
        MAP_HEAD "[           0:    14680064] --> [???? -- x:( 0 --> 14680064)]\n",
        MAP_HEAD "[           0:    14680064] --> [VMFS xx x:( 0 --> 14680064)]\n",
        MAP_HEAD "[           0:    14680064] --> [VMFS -- x:( 0 --> 1)]\n",
        MAP_HEAD "[           0:    14680064] --> [Backing device/extents are offline]\n",
        MAP_HEAD "[           1:    14680063] --> [NOMP -- :( 0 --> 14680063)]\n",
        MAP_HEAD "[ 0: 1048576] --> [NOMP -- :( 0 --> 1048576)]\n"
                 "[ 0: 13631488] --> [NOMP -- :( 0 --> 13631488)]\n",
        MAP_HEAD "[ 0: 18446744073709551615] --> [NOMP -- :( 0 --> 18446744073709551615)]\n"
                 "[ 18446744073709551615: 14680065] --> [NOMP -- :( 0 --> 14680065)]\n",
        "Mapping for file x (14680065 bytes in size):\n" MAP_LINES,
    };
    struct disk_map m;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t bytes = strlen(bad[i]);
        char *copy = malloc(bytes + 1);

        assert_non_null(copy);
        memcpy(copy, bad[i], bytes);
        if (disk_map_read(&m, copy, bytes, 14680064, &e) == 0)
            fail_msg("map %zu was taken", i);
        assert_int_equal(e.code, ERR_FORMAT);
        free(copy);
    }
}

static void a_map_cut_at_any_byte_is_refused(void **state)
{
    static const char text[] = MAP_HEAD MAP_LINES;
    struct disk_map m;
    struct err e;

    (void)state;
    for (size_t n = 0; n < sizeof text - 2; n++) {
        char *part = malloc(n + 1);

        assert_non_null(part);
        memcpy(part, text, n);
        assert_int_equal(disk_map_read(&m, part, n, 14680064, &e), -1);
        free(part);
    }
}

/* ---- vmx ---- */

static void a_vmx_gives_values_with_escapes_undone(void **state)
{
    static const char text[] =
        ".encoding = \"UTF-8\"\n# x = \"y\"\ndisplayName = \"a |22b|22 |7C |0Ac\"\n"
        "scsi0:0.fileName = \"a = b.vmdk\"\r\nctkEnabled = \"true\"\nnoise\n"
        "last = \"|00|zz\"";
    struct vmx *v;
    struct err e;

    (void)state;
    assert_int_equal(vmx_read(&v, text, sizeof text - 1, &e), 0);
    assert_string_equal(vmx_get(v, "DISPLAYNAME"), "a \"b\" | \nc");
    assert_string_equal(vmx_get(v, "scsi0:0.filename"), "a = b.vmdk");
    assert_true(vmx_is_true(v, "ctkenabled"));
    assert_string_equal(vmx_get(v, "last"), "|00|zz");
    assert_null(vmx_get(v, "x"));
    assert_string_equal(vmx_encoding(v), "UTF-8");
    vmx_free(v);
    assert_int_equal(vmx_read(&v, "a = \"1\"\nA = \"2\"\n", 16, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_int_equal(vmx_read(&v, "a\0b", 3, &e), -1);
    assert_int_equal(e.code, ERR_FORMAT);
}

static void reserves_follow_the_rule(void **state)
{
    struct room_rule rule = { 0 };

    (void)state;
    assert_true(room_needed(&rule, UINT64_C(1000) << 30) == (UINT64_C(1000) << 30) / 100 * 10);
    assert_true(room_needed(&rule, UINT64_C(4) << 30) == ROOM_BYTES_LEAST);
    rule.percent = 50;
    assert_true(room_needed(&rule, UINT64_C(1000) << 30) == (UINT64_C(1000) << 30) / 100 * 50);
    rule.bytes = 5;
    assert_true(room_needed(&rule, UINT64_C(1000) << 30) == 5);
    rule.last_delta_bytes = 7;
    assert_true(room_needed(&rule, UINT64_C(1000) << 30) == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(datastores_are_cut_by_the_dashes),
        cmocka_unit_test(names_with_blanks_and_wide_letters_keep_their_columns),
        cmocka_unit_test(a_damaged_table_is_refused),
        cmocka_unit_test(summaries_of_both_url_forms),
        cmocka_unit_test(paths_turn_both_ways_and_never_leave),
        cmocka_unit_test(snapshot_get_is_read_as_captured),
        cmocka_unit_test(snapshot_info_is_walked_in_order),
        cmocka_unit_test(names_of_ours_are_told_exactly),
        cmocka_unit_test(a_map_that_parses_wholly_is_used),
        cmocka_unit_test(any_doubt_about_a_map_refuses_it),
        cmocka_unit_test(a_map_cut_at_any_byte_is_refused),
        cmocka_unit_test(a_vmx_gives_values_with_escapes_undone),
        cmocka_unit_test(reserves_follow_the_rule),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
